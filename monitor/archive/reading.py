"""One opened file of the archive: rows by number and index lines by key, with as few reads as possible."""

import math
import threading
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec import Struct

from monitor.archive.files import ArchiveFault, FileRef
from monitor.archive.rows import SCHEMA
from monitor.archive.search_index import INDEX_SCHEMA, LONGEST
from rules.pattern import glob_literals, glob_matches

_TOGETHER: Final = 16  # row groups read at once: some ten megabytes
_THREADED: Final = 4  # from this number of row groups on, several threads are faster
_PIECE: Final = 8  # row groups of one piece at most
_PIECE_BYTES: Final = 64 * 1024 * 1024
_BOUNDS: Final = 256  # bounds of row groups kept for one file
_SIGNERS: Final = SCHEMA.field("signers")
_OF_ALL: Final = [name for name in SCHEMA.names if name != _SIGNERS.name]


class KeySpan(Struct, frozen=True):
    """Keys to look for in an index: `low` alone if `high` is equal, else `low <= key < high`.

    `high` is `None` for all keys from `low` on. A `glob` narrows a span; it is compared with each key's text.
    """

    low: bytes
    high: bytes | None
    glob: str | None = None

    def admits(self, key: bytes, text: str = "") -> bool:
        """True if a key is in the span; `text` is its full value in lower case, which the glob is compared with."""
        if self.high == self.low:
            return key == self.low
        inside = self.low <= key and (self.high is None or key < self.high)
        return inside and (self.glob is None or glob_matches(self.glob, text))


class TooMuch(Exception):
    """A search would read more than it may."""


class SearchAllowance:
    """Allowance of a search: keys looked at, entries at a hundredth of a key each, and seconds if they are bounded."""

    def __init__(self, most: int, seconds: float | None = None) -> None:
        self._left = most
        self._until = math.inf if seconds is None else time.monotonic() + seconds
        self._reserve, self._share_until = 0, self._until

    def share(self, logs: int) -> None:
        """From now on an equal share for `logs` logs is allowed of the rest: one log uses up no other log's share."""
        self._left = max(self._left, self._reserve)  # the last group that was read may have exceeded the share
        self._reserve = self._left - self._left // logs
        now = time.monotonic()
        self._share_until = self._until if math.isinf(self._until) else now + (self._until - now) / logs

    def spend(self, count: int) -> None:
        """Count `count` keys. Raises `TooMuch` once their sum, or the time since the begin, exceeds the share."""
        self._left -= count
        if self._left < self._reserve or time.monotonic() > self._share_until:
            raise TooMuch


class KeyCache:
    """Keys of the index groups that exact look-ups read last: most look-ups read the same groups of issuers."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], pa.Array] = OrderedDict()

    def get(self, file: str, group: int, read: Callable[[], pa.Array]) -> pa.Array:
        """Keys of a group; `read` is called where they are not cached."""
        with self._lock:
            if (kept := self._kept.get((file, group))) is not None:
                self._kept.move_to_end((file, group))
                return kept
        keys = read()
        with self._lock:
            self._kept[(file, group)] = keys
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return keys


class OpenedFile:
    """One Parquet file, with its footer in memory. One thread at a time reads from it."""

    def __init__(self, named: FileRef, file: pq.ParquetFile, keys: KeyCache | None = None) -> None:
        self._name, self._sha256, self._file, self._keys = named.name, named.sha256, file, keys
        self._lock = threading.Lock()
        self._groups = range(file.metadata.num_row_groups)
        self.weight = file.metadata.num_row_groups * file.metadata.num_columns
        """Column chunks that the footer names: each takes about a kilobyte of memory."""
        self._starts: list[int] = []
        self._known_bounds: dict[int, tuple[bytes, bytes]] = {}

    def take(self, offsets: Sequence[int], columns: list[str] | None) -> pa.Table:
        """Rows with these ascending numbers, in order. Raises `ArchiveFault`."""
        schema = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
        parts = []
        at = 0
        starts = self._row_starts()
        while at < len(offsets):
            groups: list[int] = []
            wanted: list[int] = []
            before = 0  # rows of the groups that are read together
            while at < len(offsets) and len(groups) < _TOGETHER:
                group = bisect_left(starts, offsets[at] + 1) - 1
                end = bisect_left(offsets, starts[group + 1], at)
                wanted += [before + offset - starts[group] for offset in offsets[at:end]]
                groups.append(group)
                before += starts[group + 1] - starts[group]
                at = end
            rows = self._rows(groups, None if len(wanted) == before else wanted, columns)
            parts.append(rows.replace_schema_metadata() if rows.schema == schema else rows.cast(schema))
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def _rows(self, groups: list[int], wanted: list[int] | None, columns: list[str] | None) -> pa.Table:
        """Rows of some groups; `wanted` are offsets through all of them, `None` for every row."""
        chosen = None if wanted is None else pa.array(wanted, pa.int64())
        rows = self._read(groups, columns or _OF_ALL)
        rows = rows if chosen is None else rows.take(chosen)
        return rows if columns is not None else self._with_signers(rows, groups, chosen)

    def pieces(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Rows `[start, stop)`, some row groups at a time, each with the number of its first row.

        `columns` do not name `signers`, which is there nevertheless. Raises `ArchiveFault` during iteration.
        """
        starts, names = self._row_starts(), list(dict.fromkeys([*columns, "chains"]))
        group, end = bisect_left(starts, start + 1) - 1, bisect_left(starts, stop)
        while group < end:
            after = group + 1
            while after < end and after - group < _PIECE and self._bytes_of(group, after + 1) <= _PIECE_BYTES:
                after += 1
            groups = list(range(group, after))
            rows = self._with_signers(self._read(groups, names), groups, None)
            first = max(start, starts[group])
            yield first, rows.slice(first - starts[group], min(stop, starts[after]) - first)
            group = after

    def _row_starts(self) -> list[int]:
        """Number of the first row of each row group, and of all rows."""
        if not self._starts:
            sizes = (self._file.metadata.row_group(number).num_rows for number in self._groups)
            self._starts = list(accumulate(sizes, initial=0))
        return self._starts

    def _bytes_of(self, first: int, last: int) -> int:
        """Uncompressed bytes of some row groups."""
        return sum(self._file.metadata.row_group(number).total_byte_size for number in range(first, last))

    def _with_signers(self, rows: pa.Table, groups: list[int], chosen: pa.Array | None) -> pa.Table:
        # Nearly every entry has one signer and an empty `signers` column; `chains` has one value for each signer.
        if pc.any(pc.greater(pc.list_value_length(rows["chains"]), 1)).as_py():
            read = self._read(groups, ["signers"])["signers"]
            signers = read if chosen is None else read.take(chosen)
        else:
            signers = pa.nulls(len(rows), _SIGNERS.type)
        at = min(SCHEMA.get_field_index(_SIGNERS.name), rows.num_columns)
        return rows.add_column(at, _SIGNERS, signers)

    def group_lows(self) -> list[bytes]:
        """The least key of each row group of an index. Raises `ArchiveFault`."""
        return [self._bounds(number)[0] for number in self._groups]

    def lines(self, key: KeySpan, work: SearchAllowance | None = None) -> Iterator[pa.Table]:
        """Lines of an index whose keys are in the span, in order. Raises `ArchiveFault`, and `TooMuch` of `work`."""
        # A file has a thousand groups: a binary search reads the bounds of a few of them.
        group = bisect_left(self._groups, key.low, key=lambda number: self._bounds(number)[1])
        for number in self._groups[group:]:
            low, high = self._bounds(number)
            if key.high is not None and low > key.high:
                return
            if key.glob is None and key.low <= low and (key.high is None or high < key.high):
                whole = self._read([number], None)
                if work is not None:
                    work.spend(len(whole))
                yield whole
                continue
            # The lists of entries are far longer than the keys, so they are read only for groups with a matching key.
            keys = self._keys_of(number) if key.high != key.low else self._kept_keys(number)
            if work is not None:
                work.spend(len(keys))
            wanted = pc.indices_nonzero(_wanted(keys, key))
            if key.glob is not None:
                wanted = wanted.filter(
                    pa.array([_glob(key.glob, each) for each in keys.take(wanted).to_pylist()], pa.bool_())
                )
            if len(wanted):
                entries = self._read([number], ["entries"])["entries"].combine_chunks()
                yield pa.table([keys.take(wanted), entries.take(wanted)], schema=INDEX_SCHEMA)

    def _keys_of(self, number: int) -> pa.Array:
        return self._read([number], ["key"])["key"].combine_chunks()

    def _kept_keys(self, number: int) -> pa.Array:
        if self._keys is None:
            return self._keys_of(number)
        return self._keys.get(self._sha256, number, partial(self._keys_of, number))

    def _read(self, groups: list[int], columns: list[str] | None) -> pa.Table:
        try:
            with self._lock:
                # Reading one group takes a fraction of a millisecond, less than handing it to another thread.
                return self._file.read_row_groups(groups, columns=columns, use_threads=len(groups) >= _THREADED)
        except (pa.ArrowException, OSError) as error:
            raise ArchiveFault(
                f"archive file {self._name}: cannot be read: {error}. `signwatch archive verify` says more"
            ) from error

    def _bounds(self, number: int) -> tuple[bytes, bytes]:
        """Least and greatest key of a row group of an index. Raises `ArchiveFault`."""
        if (known := self._known_bounds.get(number)) is not None:
            return known
        found = self._file.metadata.row_group(number).column(0).statistics
        if found is None or not found.has_min_max:
            raise ArchiveFault(f"archive file {self._name}: says nothing about its keys")
        bounds = found.min, found.max
        # Every look-up begins with the bounds of the same few groups.
        if len(self._known_bounds) < _BOUNDS:
            self._known_bounds[number] = bounds
        return bounds


def _wanted(keys: pa.Array, span: KeySpan) -> pa.Array:
    """True for each key that is in the span and has the longest fixed piece of its glob."""
    if span.high == span.low:
        return pc.equal(keys, span.low)
    mask = pc.greater_equal(keys, span.low)
    if span.high is not None:
        mask = pc.and_(mask, pc.less(keys, span.high))
    pieces = glob_literals(span.glob) if span.glob is not None else []
    if pieces:
        has_piece = pc.match_substring(keys, max(pieces, key=len).encode())
        mask = pc.and_(mask, pc.or_(has_piece, pc.greater(pc.binary_length(keys), 1 + LONGEST)))
    return mask


def is_cut(key: bytes) -> bool:
    """True if a key holds the beginning of a long text, and a digest in place of the rest."""
    return len(key) > 1 + LONGEST


def _glob(pattern: str, key: bytes) -> bool:
    # The key of a long text holds only its beginning (`is_cut`): its row decides later.
    return is_cut(key) or glob_matches(pattern, key[1:].decode("utf-8", "replace"))

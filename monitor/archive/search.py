"""Search over an archive: every entry that names a value, and the exact coverage of the answer.

Entries are counted in the indexes alone, and shown from the rows. Memory is bounded by one range of entries and by
the requested rows; answers of any length are streamed by `Archive.stream`.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct, field

from alerts.alert import counted
from monitor.archive.answer import ArchiveRow, LogSearchCoverage, SearchAnswer, SearchCoverage, row_of
from monitor.archive.files import ArchiveFault, ArchiveFiles
from monitor.archive.query import Query, keys_of
from monitor.archive.ranges import ArchivedRange, ArchiveManifest
from monitor.archive.reading import KeyCache, KeySpan, OpenedFile, SearchAllowance, TooMuch
from monitor.archive.rows import KEYS, SCHEMA, Chain
from monitor.archive.search_index import (
    ALL_TRUSTED,
    COLUMNS,
    LONGEST,
    SOME_TRUSTED,
    KeyKind,
    leaf_key,
    lowered,
    text_key,
    value_key,
    values_of_rows,
)
from monitor.archive.writing import Manifests, open_parquet, read_manifests
from monitor.model.log_source import CT_APIS
from rules.pattern import glob_matches

MOST_ROWS: Final = 10_000
_TRIES: Final = 3
_STREAMED: Final = 4096  # rows of one table of a stream
_TIMED: Final = 1 << 16  # rows whose times are read at once
_OPENED: Final = 300_000  # column chunks in all cached footers together
_KEPT_GROUPS: Final = 128  # of index keys, some 200 KB each
_NO_ROWS: Final = SCHEMA.empty_table()
_ONE_BY_ONE: Final = 64  # fingerprints looked up one by one; more are compared with all keys of the kind
_FINGERPRINTED: Final = pa.schema([("entry", pa.int64()), ("value", pa.binary())])


class _FoundEntries(Struct):
    """Results that one search gathers on its way through the ranges."""

    total: int = 0
    timeless: int = 0
    per_day: Counter[date] = field(default_factory=Counter)
    damaged: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)
    unsearched: dict[str, tuple[int, int]] = field(default_factory=dict)
    work: SearchAllowance | None = None

    def leave_out(self, log: str, each: ArchivedRange) -> None:
        """Note a range that is not searched; ranges of a log are left out from the newest to the oldest."""
        _, last = self.unsearched.get(log, (0, each.last))
        self.unsearched[log] = (each.first, last)


class Archive:
    """Reads one archive. Safe to use from several threads; the next search sees the ranges that a writer adds."""

    def __init__(self, files: ArchiveFiles, followed: Sequence[str] = ()) -> None:
        """`followed` are the logs that an answer should cover: its coverage names those that are not archived."""
        self.files, self.followed = files, tuple(followed)
        self._lock = threading.Lock()
        self._opened: OrderedDict[tuple[str, str], OpenedFile] = OrderedDict()
        self._keys = KeyCache(_KEPT_GROUPS)
        self._manifests: dict[str, tuple[bytes, ArchiveManifest]] = {}

    def manifests(self) -> Manifests:
        """Manifests by log id, as they are stored now. Raises `ArchiveFault` when the archive cannot be listed."""
        # Parsed and proven again only after their bytes changed.
        return read_manifests(self.files, self._manifests)

    def search(
        self, query: Query, *, also: Sequence[Query] = (), within: Sequence[Query] = (), per_day: bool = False
    ) -> SearchAnswer:
        """The newest entries that match, their number, and the search's coverage. Raises `BadQuery`, `ArchiveFault`.

        Entries that match a query in `also` are found as well, and of all these only those that match each query in
        `within`; only text, kinds and match of these queries count. A range with damaged files is left out, and the
        coverage names it.
        """
        keys = [[key for each in (query, *also) for key in keys_of(each)], *map(keys_of, within)]
        for _ in range(_TRIES - 1):
            manifests = self.manifests()
            found, answer = self._answered(query, keys, manifests, per_day=per_day)
            # A writer may have replaced the files that could not be read.
            if not found.damaged or _generations(self.manifests()) == _generations(manifests):
                return answer
        return self._answered(query, keys, self.manifests(), per_day=per_day)[1]

    def _answered(
        self, query: Query, keys: Sequence[Sequence[KeySpan]], manifests: Manifests, *, per_day: bool
    ) -> "tuple[_FoundEntries, SearchAnswer]":
        limit = min(query.limit, MOST_ROWS)
        found = _FoundEntries(work=None if query.most is None else SearchAllowance(query.most, query.seconds))
        rows: list[ArchiveRow] = []
        wanted = self._wanted(query, manifests)
        for place, manifest in enumerate(wanted):
            if found.work is not None:
                found.work.share(len(wanted) - place)
            mine: list[ArchiveRow] = []
            for each in _newest_first(manifest):
                table = self._matching(manifest, each, keys, query, found, per_day=per_day, limit=limit - len(mine))
                if len(table):
                    mine += reversed(_rows(table))
            rows += mine
        rows.sort(key=_newest, reverse=True)
        coverage = self._coverage(query, manifests, found.damaged, found.unsearched)
        days = dict(sorted(found.per_day.items()))
        return found, SearchAnswer(tuple(rows[:limit]), found.total, coverage, days, found.timeless)

    def stream(self, query: Query, damaged: dict[str, list[tuple[int, int, str]]]) -> Iterator[pa.Table]:
        """Every matching entry, log by log, oldest first, some thousands at a time.

        Ranges that cannot be read, in whole or in part, are added to `damaged`. Raises `BadQuery`, `ArchiveFault`.
        """
        keys = keys_of(query)
        for manifest in self._wanted(query, self.manifests()):
            yield from self._streamed(manifest, keys, query, damaged)

    def _streamed(
        self,
        manifest: ArchiveManifest,
        keys: Sequence[KeySpan],
        query: Query,
        damaged: dict[str, list[tuple[int, int, str]]],
    ) -> Iterator[pa.Table]:
        at, tries = 0, 0
        while (each := manifest.range_from(at)) is not None:
            try:
                for table in self._tables(manifest, each, keys, query, at):
                    yield table
                    at = table["index"][-1].as_py() + 1
            except ArchiveFault as fault:
                newer = self.manifests().get(manifest.log)
                if tries < _TRIES and newer is not None and newer.generation != manifest.generation:
                    # A writer replaced these files; the rows before `at` are already handed on.
                    manifest, tries = newer, tries + 1
                    continue
                damaged.setdefault(manifest.log, []).append((each.first, each.last, str(fault)))
            at, tries = each.last, 0

    def _tables(
        self, manifest: ArchiveManifest, each: ArchivedRange, keys: Sequence[KeySpan], query: Query, at: int
    ) -> Iterator[pa.Table]:
        """Matching entries of one range from `at` on. Raises `ArchiveFault`."""
        if _outside(each, query):
            return
        offsets = self._kept(manifest, each, [keys], query, _FoundEntries())
        if at > each.first:
            offsets = offsets.filter(pc.greater_equal(offsets, at - each.first))
        for start in range(0, len(offsets), _STREAMED):
            yield self._read(manifest, each, offsets.slice(start, _STREAMED).to_pylist())

    def coverage(self, query: Query, damaged: dict[str, list[tuple[int, int, str]]]) -> SearchCoverage:
        """Coverage of a search for this query."""
        return self._coverage(query, self.manifests(), damaged, {})

    def rows(
        self, log: str, first: int, last: int, columns: Sequence[str], fingerprints: Sequence[bytes] = ()
    ) -> Iterator[tuple[int, pa.Table]]:
        """Rows of archived entries `[first, last)`, some thousands at a time, each with the index of its first entry.

        The tables have these columns, and `signers`; and if there are `fingerprints`, the column `KEYS` with those of
        them that the index names for the row. Raises `ArchiveFault` during iteration, also when an entry is not
        archived: another process may have moved the archive or removed a range since the caller read the manifest.
        """
        manifest, done = self.manifests().of(log), first
        for each in (each for run in (manifest.runs if manifest is not None else ()) for each in run.ranges):
            if manifest is not None and each.first <= done < min(last, each.last):
                opened = self._open(manifest, each, is_index=False)
                pairs = self._fingerprinted(manifest, each, fingerprints) if fingerprints else None
                for at, rows in opened.pieces(done - each.first, min(last, each.last) - each.first, columns):
                    made = rows
                    if pairs is not None:
                        after = pc.greater_equal(pairs["entry"], at)
                        here = pairs.filter(pc.and_(after, pc.less(pairs["entry"], at + len(rows))))
                        here = here.set_column(0, "entry", pc.subtract(here["entry"], at))
                        made = rows.append_column(KEYS, values_of_rows(here, len(rows)))
                    yield each.first + at, made
                    done = each.first + at + len(rows)
        if done < last:
            raise ArchiveFault(f"{log}: entries {done} to {last - 1} are not archived, or not any more")

    def _fingerprinted(self, manifest: ArchiveManifest, each: ArchivedRange, fingerprints: Sequence[bytes]) -> pa.Table:
        """Entries of a range, counted from its first, with each of these fingerprints (`value`) of theirs."""
        opened, kind = self._open(manifest, each, is_index=True), KeyKind.FINGERPRINT
        wanted = [value_key(kind, value) for value in fingerprints]
        keys = pa.array(wanted, pa.binary())
        spans = [KeySpan(key, key) for key in wanted]
        if len(wanted) > _ONE_BY_ONE:
            spans = [KeySpan(bytes((kind,)), bytes((kind + 1,)))]
        parts = [pa.table([[], []], schema=_FINGERPRINTED)]
        for span in spans:
            for lines in opened.lines(span):
                found = lines.filter(pc.is_in(lines["key"], value_set=keys))
                lists = found["entries"].combine_chunks()
                owners = found["key"].combine_chunks().take(pc.list_parent_indices(lists))
                # pyarrow reserves memory for the whole of a slice without an end.
                values = pc.binary_slice(owners, 1, max(map(len, wanted)))
                parts.append(pa.table([pc.cast(lists.flatten(), pa.int64()), values], schema=_FINGERPRINTED))
        return pa.concat_tables(parts)

    def entry(self, log: str, index: int) -> ArchiveRow | None:
        """One entry; `None` when it is not archived. Raises `ArchiveFault`."""
        manifest = self.manifests().of(log)
        run = manifest.run_at(index) if manifest is not None else None
        if manifest is None or run is None:
            return None
        each = next(each for each in run.ranges if each.first <= index < each.last)
        return _rows(self._read(manifest, each, [index - each.first]))[0]

    def leaf_hashes(self, log: str, indexes: Sequence[int]) -> dict[int, str]:
        """Leaf hashes of archived entries, as hexadecimal; `indexes` ascend. Raises `ArchiveFault`."""
        found: dict[int, str] = {}
        manifest = self.manifests().of(log)
        if manifest is None:
            raise ArchiveFault(f"{log}: is not archived any more")
        for each in (each for run in manifest.runs for each in run.ranges):
            here = [index - each.first for index in indexes if each.first <= index < each.last]
            if here:
                read = self._read(manifest, each, here, columns=["leaf_hash"])["leaf_hash"].to_pylist()
                found |= {each.first + offset: raw.hex() for offset, raw in zip(here, read, strict=True)}
        if len(found) != len(indexes):
            raise ArchiveFault(f"{log}: no longer archived: {counted(len(indexes) - len(found), 'entry')}")
        return found

    def by_leaf(self, leaf_hash: bytes) -> list[ArchiveRow]:
        """Entries with this leaf hash, in all logs. Raises `ArchiveFault`, also if only an unread log may have one."""
        found = []
        key = leaf_key(leaf_hash)
        manifests = self.manifests()
        for manifest in manifests.values():
            for each in _newest_first(manifest):
                offsets = self._offsets(manifest, each, [KeySpan(key, key)])
                if len(offsets):
                    found += _rows(self._read(manifest, each, offsets.to_pylist()))
        rows = [row for row in found if row.leaf_hash == leaf_hash.hex()]
        if not rows:
            manifests.check_all_read()
        return rows

    def _wanted(self, query: Query, manifests: Mapping[str, ArchiveManifest]) -> list[ArchiveManifest]:
        return [
            manifest
            for log, manifest in sorted(manifests.items())
            if query.wants(log) and not (query.rekor_only and manifest.identity.api in CT_APIS)
        ]

    def _coverage(
        self,
        query: Query,
        manifests: Manifests,
        damaged: Mapping[str, list[tuple[int, int, str]]],
        unsearched: Mapping[str, tuple[int, int]],
    ) -> SearchCoverage:
        logs = []
        for manifest in self._wanted(query, manifests):
            head = manifest.head
            ranges = [each for run in manifest.runs for each in run.ranges]
            logs.append(
                LogSearchCoverage(
                    manifest.log,
                    tuple(manifest.spans()),
                    0 if head is None else head.size,
                    None if head is None else head.timestamp,
                    tuple(sorted(damaged.get(manifest.log, ()))),
                    sum(each.unreadable for each in ranges),
                    sum(each.defective for each in ranges),
                    (unsearched[manifest.log],) if manifest.log in unsearched else (),
                )
            )
        known = {name for log in (*manifests, *manifests.unread) for name in (log, log.partition("/")[0])}
        asked = query.logs or self.followed
        unread = tuple((log, str(why)) for log, why in sorted(manifests.unread.items()) if query.wants(log))
        return SearchCoverage(tuple(logs), tuple(sorted(name for name in asked if name not in known)), unread)

    def _matching(
        self,
        manifest: ArchiveManifest,
        each: ArchivedRange,
        keys: Sequence[Sequence[KeySpan]],
        query: Query,
        found: _FoundEntries,
        *,
        per_day: bool,
        limit: int,
    ) -> pa.Table:
        """Count the matching entries of one range, and return the newest `limit` of them, oldest first."""
        if _outside(each, query):
            return _NO_ROWS
        if manifest.log in found.unsearched:
            found.leave_out(manifest.log, each)
            return _NO_ROWS
        try:
            if found.work is not None:
                found.work.spend(0)  # opening the files of a range takes time too
            offsets = self._kept(manifest, each, keys, query, found, per_day=per_day)
            shown = offsets.slice(max(0, len(offsets) - max(0, limit))).to_pylist()
            table = self._read(manifest, each, shown) if shown else _NO_ROWS
        except TooMuch:
            found.leave_out(manifest.log, each)
            return _NO_ROWS
        except ArchiveFault as fault:
            found.damaged.setdefault(manifest.log, []).append((each.first, each.last, str(fault)))
            return _NO_ROWS
        found.total += len(offsets)
        return table

    def _kept(
        self,
        manifest: ArchiveManifest,
        each: ArchivedRange,
        keys: Sequence[Sequence[KeySpan]],
        query: Query,
        found: _FoundEntries,
        *,
        per_day: bool = False,
    ) -> pa.Array:
        """Entries of one range that have one of each of these groups of keys, counted from its first, in order.

        Raises `ArchiveFault`, `TooMuch`.
        """
        offsets = self._vouched(manifest, each, keys[0], query, found)
        for more in keys[1:]:
            if len(offsets):
                offsets = offsets.filter(pc.is_in(offsets, value_set=self._vouched(manifest, each, more, query, found)))
        if len(offsets) and (per_day or _straddles(each, query)):
            if found.work is not None:
                found.work.spend(len(offsets) // 4)
            offsets = self._timed(manifest, each, offsets, query, found, per_day=per_day)
        return offsets

    def _vouched(
        self,
        manifest: ArchiveManifest,
        each: ArchivedRange,
        keys: Sequence[KeySpan],
        query: Query,
        found: _FoundEntries,
    ) -> pa.Array:
        """Entries of one range under any of these keys, trusted or not as is wanted, counted from its first, in order.

        Raises `ArchiveFault`, `TooMuch`.
        """
        offsets = self._offsets(manifest, each, keys, found.work)
        if not len(offsets) or query.trusted is None:
            return offsets
        if found.work is not None:
            found.work.spend(len(offsets) // 100)
        return self._by_trust(manifest, each, keys, offsets, found.work, trusted=query.trusted)

    def _timed(
        self,
        manifest: ArchiveManifest,
        each: ArchivedRange,
        offsets: pa.Array,
        query: Query,
        found: _FoundEntries,
        *,
        per_day: bool,
    ) -> pa.Array:
        kept, timeless, per = [], 0, Counter[date]()
        for at in range(0, len(offsets), _TIMED):
            here = offsets.slice(at, _TIMED)
            times = self._read(manifest, each, here.to_pylist(), columns=["time"])["time"].combine_chunks()
            inside = pc.is_valid(times)
            if query.since is not None:
                inside = pc.and_(inside, pc.fill_null(pc.greater_equal(times, _moment(query.since)), fill_value=False))
            if query.until is not None:
                inside = pc.and_(inside, pc.fill_null(pc.less(times, _moment(query.until)), fill_value=False))
            kept.append(here.filter(pc.or_(pc.is_null(times), inside)))
            if per_day:
                timeless += times.null_count
                per += _days(times.filter(inside))
        # Counted together, so that a file that cannot be read to its end adds no part of its counts.
        found.timeless += timeless
        found.per_day += per
        return pa.concat_arrays(kept)

    def _offsets(
        self,
        manifest: ArchiveManifest,
        each: ArchivedRange,
        keys: Sequence[KeySpan],
        work: SearchAllowance | None = None,
    ) -> pa.Array:
        """Entries of a range under any of these keys, counted from its first, in order."""
        opened = self._open(manifest, each, is_index=True)
        lists = []
        for key in keys:
            for lines in opened.lines(key, work):
                sure = lines
                if key.glob is not None:
                    cut = pc.greater(pc.binary_length(lines["key"]), 1 + LONGEST)
                    sure = lines.filter(pc.invert(cut))
                    if len(sure) < len(lines):
                        lists.append(self._confirmed(manifest, each, key, lines.filter(cut), work))
                lists += [chunk.flatten() for chunk in sure["entries"].chunks]
                if work is not None:
                    work.spend(sum(map(len, lists[-len(sure["entries"].chunks) :])) // 100)
        if not lists:
            return pa.array([], pa.uint32())
        if len(lists) == 1 and all(key.low == key.high for key in keys):
            return lists[0]
        unique = pc.unique(pa.concat_arrays(lists))
        return unique.take(pc.sort_indices(unique))

    def _by_trust(
        self,
        manifest: ArchiveManifest,
        each: ArchivedRange,
        keys: Sequence[KeySpan],
        offsets: pa.Array,
        work: SearchAllowance | None,
        *,
        trusted: bool,
    ) -> pa.Array:
        """Entries made by a signer that has a trusted certificate and a wanted value; for false, the others."""
        every = self._offsets(manifest, each, [KeySpan(ALL_TRUSTED, ALL_TRUSTED)])
        some = self._offsets(manifest, each, [KeySpan(SOME_TRUSTED, SOME_TRUSTED)])
        # An attacker can log an entry with two signers, one trusted and the other with any name: the row
        # distinguishes them.
        unsure = offsets.filter(pc.is_in(offsets, value_set=some))
        wanted = unsure.to_pylist()
        if work is not None:
            work.spend(10 * len(wanted))
        rows = self._read(manifest, each, wanted, columns=["chains", "signers"]) if wanted else None
        sure = [
            offset
            for offset, row in zip(wanted, rows.to_pylist() if rows is not None else (), strict=True)
            if _is_trusted(row, keys)
        ]
        is_trusted = pc.is_in(offsets, value_set=pa.concat_arrays([every, pa.array(sure, pa.uint32())]))
        return offsets.filter(is_trusted if trusted else pc.invert(is_trusted))

    def _confirmed(
        self,
        manifest: ArchiveManifest,
        each: ArchivedRange,
        key: KeySpan,
        lines: pa.Table,
        work: SearchAllowance | None,
    ) -> pa.Array:
        """Entries of these lines whose rows match the glob: the keys hold only the beginning of a text.

        Raises `ArchiveFault`, `TooMuch`.
        """
        column = COLUMNS[KeyKind(key.low[0])]
        offsets = sorted({entry for entries in lines["entries"].to_pylist() for entry in entries})
        if work is not None:
            work.spend(10 * len(offsets))
        texts = self._read(manifest, each, offsets, columns=[column])[column].to_pylist()
        kept = [
            offset
            for offset, values in zip(offsets, texts, strict=True)
            if any(glob_matches(key.glob or "", lowered(value)) for value in values)
        ]
        return pa.array(kept, pa.uint32())

    def _read(
        self, manifest: ArchiveManifest, each: ArchivedRange, offsets: Sequence[int], columns: list[str] | None = None
    ) -> pa.Table:
        return self._open(manifest, each, is_index=False).take(offsets, columns)

    def _open(self, manifest: ArchiveManifest, each: ArchivedRange, *, is_index: bool) -> OpenedFile:
        file = each.index if is_index else each.rows
        key = (file.name, file.sha256)
        with self._lock:
            opened = self._opened.get(key)
            if opened is not None:
                self._opened.move_to_end(key)
                return opened
        opened = OpenedFile(file, open_parquet(self.files, manifest, each, file), self._keys)
        with self._lock:
            self._opened[key] = opened
            while len(self._opened) > 1 and sum(each.weight for each in self._opened.values()) > _OPENED:
                self._opened.popitem(last=False)
        return opened


def _days(times: pa.Array) -> Counter[date]:
    """Number of times on each day."""
    days = pc.cast(pc.floor_temporal(times, unit="day"), pa.timestamp("s", "UTC"))
    return Counter({each["values"].date(): each["counts"] for each in pc.value_counts(days).to_pylist()})


def _is_trusted(row: Mapping[str, Any], keys: Sequence[KeySpan]) -> bool:
    """True if one of several signers has both a trusted certificate and a wanted value."""
    trusted = [
        signer
        for chain, signer in zip(row["chains"], row["signers"] or (), strict=False)
        if chain == Chain.TRUSTED.value
    ]
    return any(_has(signer, key) for signer in trusted for key in keys)


def _has(signer: Mapping[str, Any], key: KeySpan) -> bool:
    kind = KeyKind(key.low[0])
    if kind is KeyKind.DIGEST:
        return True  # a digest belongs to the entry, and each of its signers signed it
    values = signer[COLUMNS[kind]]
    if not kind.is_text:
        return any(key.admits(value_key(kind, value)) for value in values)
    return any(key.admits(text_key(kind, text), lowered(text)) for text in values)


def _outside(each: ArchivedRange, query: Query) -> bool:
    """True if the times of all entries of the range are outside of the query's bounds."""
    if each.timeless or each.earliest is None or each.latest is None:
        return False
    after = query.until is not None and each.earliest >= query.until
    return after or (query.since is not None and each.latest < query.since)


def _straddles(each: ArchivedRange, query: Query) -> bool:
    """True if the query's time bounds may admit some entries of the range and exclude others."""
    if each.earliest is None or each.latest is None:
        return False
    ends = query.until is not None and each.latest >= query.until
    return ends or (query.since is not None and each.earliest < query.since)


def _newest_first(manifest: ArchiveManifest) -> Iterator[ArchivedRange]:
    for run in reversed(manifest.runs):
        yield from reversed(run.ranges)


def _newest(row: ArchiveRow) -> tuple[float, str, int]:
    return (row.time or datetime.min.replace(tzinfo=UTC)).timestamp(), row.log, row.index


def _generations(manifests: Mapping[str, ArchiveManifest]) -> dict[str, int]:
    return {log: manifest.generation for log, manifest in manifests.items()}


def _moment(at: datetime) -> pa.Scalar:
    return pa.scalar(at, pa.timestamp("us", tz="UTC"))


def _rows(table: pa.Table) -> list[ArchiveRow]:
    return [row_of(each) for each in table.to_pylist()]

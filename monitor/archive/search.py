"""Search over an archive: every entry that names a value, and the exact coverage of the answer.

Entries are counted in the indexes alone, and shown from the rows. Memory is bounded by one range of entries and by
the requested rows; answers of any length are streamed by `Archive.stream`.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from alerts.alert import counted, rfc3339
from monitor.archive.files import ArchiveFault, ArchiveFiles
from monitor.archive.ranges import ArchivedRange, Manifest
from monitor.archive.reading import KeyCache, KeySpan, OpenedFile, TooMuch, Work
from monitor.archive.rows import SCHEMA, Chain, fingerprint_bytes
from monitor.archive.search_index import (
    ALL_TRUSTED,
    COLUMNS,
    LONGEST,
    SOME_TRUSTED,
    TEXTS,
    KeyKind,
    leaf_key,
    lowered,
    text_key,
    value_key,
)
from monitor.archive.writing import Manifests, open_parquet, read_manifests
from monitor.model.log_source import CT_APIS
from rules.pattern import glob_matches, glob_prefix

MOST_ROWS: Final = 10_000
MOST_OF_A_PAGE: Final = 1_000_000
"""`Query.most` of a query over HTTP: about a second of work."""
_TRIES: Final = 3
_STREAMED: Final = 4096  # rows of one table of a stream
_TIMED: Final = 1 << 16  # rows whose times are read at once
_OPENED: Final = 300_000  # column chunks in all cached footers together
_KEPT_GROUPS: Final = 128  # of index keys, some 200 KB each
_HEX: Final = {40: "sha1", 64: "sha256", 96: "sha384", 128: "sha512"}
_NO_ROWS: Final = SCHEMA.empty_table()
_UNITS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1), "w": timedelta(weeks=1)}
_LONGEST_AGE: Final = 7
_HEX_DIGITS: Final = frozenset("0123456789abcdef")


class BadQuery(ValueError):
    """The query cannot be asked; the message says why."""


class Match(StrEnum):
    """Comparison of a query's text. Upper and lower case of A to Z are equal; other characters must be identical."""

    EXACT = "exact"
    PREFIX = "prefix"
    GLOB = "glob"


@dataclass(frozen=True, slots=True)
class Query:
    """A search request. Without `kinds` the text decides: a digest or fingerprint if it is one, else all texts.

    `since <= time < until`; entries without a time match. `logs` are log ids, or names of logs of several trees; empty
    for all logs. `rekor_only` leaves out CT logs. `trusted` is true for entries that a signer with a trusted
    certificate made (if the value is about a signer, that very signer), false for all other entries, `None` for both.
    `most` bounds the number of keys read; the coverage names the ranges left out.
    """

    text: str
    kinds: frozenset[KeyKind] = frozenset()
    match: Match = Match.EXACT
    since: datetime | None = None
    until: datetime | None = None
    logs: frozenset[str] = frozenset()
    limit: int = 50
    trusted: bool | None = None
    most: int | None = None
    rekor_only: bool = False

    def wants(self, log: str) -> bool:
        """True if the query searches this log."""
        return not self.logs or log in self.logs or log.partition("/")[0] in self.logs


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as archived. Texts are untrusted: render them inert. Digests and fingerprints are hexadecimal.

    `chains` has one value for each signer. `signers` holds the columns of each of several signers, else empty.
    """

    log: str
    index: int
    time: datetime | None
    time_source: str | None
    not_before: datetime | None
    kind: str
    identities: tuple[str, ...]
    issuers: tuple[str, ...]
    repositories: tuple[str, ...]
    workflows: tuple[str, ...]
    refs: tuple[str, ...]
    triggers: tuple[str, ...]
    repository_ids: tuple[str, ...]
    owner_ids: tuple[str, ...]
    runners: tuple[str, ...]
    fingerprints: tuple[str, ...]
    digests: tuple[str, ...]
    chains: tuple[Chain, ...]
    signers: tuple[Mapping[str, tuple[str, ...]], ...]
    trust_root: str | None
    defect: str | None
    leaf_hash: str

    def document(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "log": self.log,
            "index": self.index,
            "time": None if self.time is None else rfc3339(self.time),
            "time_source": self.time_source,
            "not_before": None if self.not_before is None else rfc3339(self.not_before),
            "kind": self.kind,
            "identities": list(self.identities),
            "issuers": list(self.issuers),
            "repositories": list(self.repositories),
            "workflows": list(self.workflows),
            "refs": list(self.refs),
            "triggers": list(self.triggers),
            "repository_ids": list(self.repository_ids),
            "owner_ids": list(self.owner_ids),
            "runners": list(self.runners),
            "fingerprints": list(self.fingerprints),
            "digests": list(self.digests),
            "chains": [each.value for each in self.chains],
            "signers": [{name: list(values) for name, values in each.items()} for each in self.signers],
            "trust_root": self.trust_root,
            "defect": self.defect,
            "leaf_hash": self.leaf_hash,
        }


@dataclass(frozen=True, slots=True)
class LogCoverage:
    """An answer's coverage of one log: `spans` of entries, of the `size` that the newest archived head signs.

    `damaged` are ranges that could not be read, with the reason. `unreadable` and `defective` count entries in the
    spans that could not be decoded at all, or in part: their unread values cannot match. `unsearched` are older ranges
    that were left out because the search would have read too much.
    """

    log: str
    spans: tuple[tuple[int, int], ...]
    size: int
    signed_at: datetime | None
    damaged: tuple[tuple[int, int, str], ...] = ()
    unreadable: int = 0
    defective: int = 0
    unsearched: tuple[tuple[int, int], ...] = ()

    @property
    def complete(self) -> bool:
        """True if every entry below the head was searched."""
        return self.spans == ((0, self.size),) and not self.damaged and not self.unsearched

    def sentence(self) -> str:
        """The coverage as a sentence."""
        head = "" if self.signed_at is None else f" (signed head of {rfc3339(self.signed_at)})"
        if self.complete:
            said = (
                f"complete for {self.log}, entries 0 to {self.size - 1}{head}" if self.size else f"{self.log} is empty"
            )
        else:
            spans = ", ".join(f"{first} to {last - 1}" for first, last in self.spans) or "none"
            said = f"{self.log}: entries {spans} of {self.size}{head}"
        if self.unreadable or self.defective:
            said += f"; not read: {counted(self.unreadable, 'entry')}, read only in part: {self.defective}"
        for first, last in self.unsearched:
            said += f"; {first} to {last - 1} were not searched: too many values fit. Name more, or a shorter time"
        return said + "".join(f"; not {first} to {last - 1}: {why}" for first, last, why in self.damaged)


@dataclass(frozen=True, slots=True)
class Coverage:
    """An answer's coverage: archived logs, and followed logs without any archived entry.

    `unread` are logs that were left out because their manifest cannot be read, with the reason.
    """

    logs: tuple[LogCoverage, ...]
    missing: tuple[str, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()

    @property
    def complete(self) -> bool:
        """True if every entry of every log was searched; false without a log."""
        whole = bool(self.logs) and all(each.complete for each in self.logs)
        return whole and not self.missing and not self.unread

    def sentences(self) -> list[str]:
        """The coverage as sentences, one for each log."""
        return [
            *(each.sentence() for each in self.logs),
            *(f"not covered: {log}" for log in self.missing),
            *(f"not covered: {log}: {why}" for log, why in self.unread),
        ]

    def document(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "complete": self.complete,
            "logs": [
                {
                    "log": each.log,
                    "spans": [list(span) for span in each.spans],
                    "size": each.size,
                    "signed_at": None if each.signed_at is None else each.signed_at.isoformat(),
                    "damaged": [{"from": first, "to": last, "reason": why} for first, last, why in each.damaged],
                    "unreadable": each.unreadable,
                    "defective": each.defective,
                    "unsearched": [list(span) for span in each.unsearched],
                }
                for each in self.logs
            ],
            "not_covered": sorted([*self.missing, *(log for log, _ in self.unread)]),
            "unread": [{"log": log, "reason": why} for log, why in self.unread],
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """The newest `rows` of `total` entries that match, and the search's coverage. `per_day` counts all, if requested.

    `timeless` counts the entries without a time, which `per_day` leaves out.
    """

    rows: tuple[Row, ...]
    total: int
    coverage: Coverage
    per_day: Mapping[date, int] = field(default_factory=dict)
    timeless: int = 0

    @property
    def cut(self) -> int:
        """Number of entries that match and are not among `rows`."""
        return self.total - len(self.rows)


@dataclass(slots=True)
class _Found:
    """Results that one search gathers on its way through the ranges."""

    total: int = 0
    timeless: int = 0
    per_day: Counter[date] = field(default_factory=Counter)
    damaged: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)
    unsearched: dict[str, tuple[int, int]] = field(default_factory=dict)
    work: Work | None = None

    def leave_out(self, log: str, each: ArchivedRange) -> None:
        """Note a range that is not searched; ranges of a log are left out from the newest to the oldest."""
        _, last = self.unsearched.get(log, (0, each.last))
        self.unsearched[log] = (each.first, last)


class Archive:
    """Reads one archive. Safe to use from several threads; the next search sees the ranges that a writer adds."""

    def __init__(self, files: ArchiveFiles, followed: Sequence[str] = ()) -> None:
        """`followed` are the logs that an answer should cover: its coverage names those that are not archived."""
        self.files, self._followed = files, tuple(followed)
        self._lock = threading.Lock()
        self._opened: OrderedDict[tuple[str, str], OpenedFile] = OrderedDict()
        self._keys = KeyCache(_KEPT_GROUPS)
        self._manifests: dict[str, tuple[bytes, Manifest]] = {}

    def manifests(self) -> Manifests:
        """Manifests by log id, as they are stored now. Raises `ArchiveFault` when the archive cannot be listed."""
        # Parsed and proven again only after their bytes changed.
        return read_manifests(self.files, self._manifests)

    def search(
        self, query: Query, *, also: Sequence[Query] = (), within: Sequence[Query] = (), per_day: bool = False
    ) -> Answer:
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
    ) -> "tuple[_Found, Answer]":
        limit = min(query.limit, MOST_ROWS)
        found = _Found(work=None if query.most is None else Work(query.most))
        rows: list[Row] = []
        for manifest in self._wanted(query, manifests):
            mine: list[Row] = []
            for each in _newest_first(manifest):
                table = self._matching(manifest, each, keys, query, found, per_day=per_day, limit=limit - len(mine))
                if len(table):
                    mine += reversed(_rows(table))
            rows += mine
        rows.sort(key=_newest, reverse=True)
        coverage = self._coverage(query, manifests, found.damaged, found.unsearched)
        days = dict(sorted(found.per_day.items()))
        return found, Answer(tuple(rows[:limit]), found.total, coverage, days, found.timeless)

    def stream(self, query: Query, damaged: dict[str, list[tuple[int, int, str]]]) -> Iterator[pa.Table]:
        """Every matching entry, log by log, oldest first, some thousands at a time.

        Ranges that cannot be read, in whole or in part, are added to `damaged`. Raises `BadQuery`, `ArchiveFault`.
        """
        keys = keys_of(query)
        for manifest in self._wanted(query, self.manifests()):
            yield from self._streamed(manifest, keys, query, damaged)

    def _streamed(
        self,
        manifest: Manifest,
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
        self, manifest: Manifest, each: ArchivedRange, keys: Sequence[KeySpan], query: Query, at: int
    ) -> Iterator[pa.Table]:
        """Matching entries of one range from `at` on. Raises `ArchiveFault`."""
        if _outside(each, query):
            return
        offsets = self._kept(manifest, each, [keys], query, _Found())
        if at > each.first:
            offsets = offsets.filter(pc.greater_equal(offsets, at - each.first))
        for start in range(0, len(offsets), _STREAMED):
            yield self._read(manifest, each, offsets.slice(start, _STREAMED).to_pylist())

    def coverage(self, query: Query, damaged: dict[str, list[tuple[int, int, str]]]) -> Coverage:
        """Coverage of a search for this query."""
        return self._coverage(query, self.manifests(), damaged, {})

    def numbers(self, query: Query, log: str) -> Iterator[tuple[ArchivedRange, list[int]]]:
        """Indexes of all matching entries of one log, range by range, in order. Raises `BadQuery`, `ArchiveFault`."""
        keys = keys_of(query)
        manifest = self.manifests().of(log)
        if manifest is None:
            return
        for each in (each for run in manifest.runs for each in run.ranges):
            yield each, [each.first + offset for offset in self._offsets(manifest, each, keys).to_pylist()]

    def entry(self, log: str, index: int) -> Row | None:
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

    def by_leaf(self, leaf_hash: bytes) -> list[Row]:
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

    def _wanted(self, query: Query, manifests: Mapping[str, Manifest]) -> list[Manifest]:
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
    ) -> Coverage:
        logs = []
        for manifest in self._wanted(query, manifests):
            head = manifest.head
            ranges = [each for run in manifest.runs for each in run.ranges]
            logs.append(
                LogCoverage(
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
        asked = query.logs or self._followed
        unread = tuple((log, str(why)) for log, why in sorted(manifests.unread.items()) if query.wants(log))
        return Coverage(tuple(logs), tuple(sorted(name for name in asked if name not in known)), unread)

    def _matching(
        self,
        manifest: Manifest,
        each: ArchivedRange,
        keys: Sequence[Sequence[KeySpan]],
        query: Query,
        found: _Found,
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
        manifest: Manifest,
        each: ArchivedRange,
        keys: Sequence[Sequence[KeySpan]],
        query: Query,
        found: _Found,
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
        self, manifest: Manifest, each: ArchivedRange, keys: Sequence[KeySpan], query: Query, found: _Found
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
        manifest: Manifest,
        each: ArchivedRange,
        offsets: pa.Array,
        query: Query,
        found: _Found,
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
        self, manifest: Manifest, each: ArchivedRange, keys: Sequence[KeySpan], work: Work | None = None
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
                        lists.append(self._confirmed(manifest, each, key, lines.filter(cut)))
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
        manifest: Manifest,
        each: ArchivedRange,
        keys: Sequence[KeySpan],
        offsets: pa.Array,
        work: Work | None,
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

    def _confirmed(self, manifest: Manifest, each: ArchivedRange, key: KeySpan, lines: pa.Table) -> pa.Array:
        """Entries of these lines whose rows match the glob: the keys hold only the beginning of a text."""
        column = COLUMNS[KeyKind(key.low[0])]
        offsets = sorted({entry for entries in lines["entries"].to_pylist() for entry in entries})
        texts = self._read(manifest, each, offsets, columns=[column])[column].to_pylist()
        kept = [
            offset
            for offset, values in zip(offsets, texts, strict=True)
            if any(glob_matches(key.glob or "", lowered(value)) for value in values)
        ]
        return pa.array(kept, pa.uint32())

    def _read(
        self, manifest: Manifest, each: ArchivedRange, offsets: Sequence[int], columns: list[str] | None = None
    ) -> pa.Table:
        return self._open(manifest, each, is_index=False).take(offsets, columns)

    def _open(self, manifest: Manifest, each: ArchivedRange, *, is_index: bool) -> OpenedFile:
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


def keys_of(query: Query) -> list[KeySpan]:
    """Keys that a query looks for. Raises `BadQuery`."""
    text = query.text
    if not text or len(text.encode("utf-8", "replace")) > 8 * LONGEST:
        raise BadQuery(f"a text of 1 to {8 * LONGEST} bytes can be searched for")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadQuery("the text is not Unicode") from None
    kinds = set(query.kinds or _kinds_of(text, query.match))
    if KeyKind.WORKFLOW in kinds:
        # A row names a workflow among the identities where the certificate is the workflow's own.
        kinds.add(KeyKind.IDENTITY)
    found: list[KeySpan] = []
    for kind in sorted(kinds):
        if not kind.is_text:
            if query.match is not Match.EXACT:
                raise BadQuery(f"a {kind.word} is searched for as a whole")
            found += [KeySpan(key, key) for key in _value_keys(kind, text, strict=bool(query.kinds))]
        elif query.match is Match.EXACT:
            key = text_key(kind, text)
            found.append(KeySpan(key, key))
        else:
            found.append(_open_ended(kind, text, query.match))
    if not found:
        raise BadQuery(f"{text[:80]!r} is no {' and no '.join(kind.word for kind in sorted(kinds))}")
    return found


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


def guessed_match(text: str) -> Match:
    """The comparison that a text implies: a prefix for a star at the end, a glob for a star elsewhere."""
    if "*" not in text:
        return Match.EXACT
    return Match.PREFIX if text.index("*") == len(text) - 1 and not text.endswith("\\*") else Match.GLOB


def read_moment(text: str, now: datetime) -> datetime:
    """A day, a moment, or a time before `now` such as `30d`; without a zone it is UTC. Raises `BadQuery`."""
    try:
        if text[-1:] in _UNITS and text[:-1].isdecimal() and text.isascii() and len(text) <= _LONGEST_AGE:
            return now - int(text[:-1]) * _UNITS[text[-1]]
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise BadQuery(f"{text[:40]!r} is no moment: write 2026-01-31, 2026-01-31T12:00+00:00, or 30d") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _open_ended(kind: KeyKind, text: str, match: Match) -> KeySpan:
    glob = lowered(text if match is Match.GLOB else "")
    head = glob_prefix(glob)[0] if match is Match.GLOB else lowered(text.removesuffix("*"))
    low = text_key(kind, head) if len(head.encode()) <= LONGEST else b""
    if not low:
        raise BadQuery(f"at most {LONGEST} bytes of a value's beginning can be searched for")
    return KeySpan(low, _after(low), glob if match is Match.GLOB else None)


def _after(low: bytes) -> bytes:
    """The first key after all keys that begin with `low`. It exists because the first byte, the kind, is small."""
    head = low.rstrip(b"\xff")
    return head[:-1] + bytes((head[-1] + 1,))


def _kinds_of(text: str, match: Match) -> Iterable[KeyKind]:
    is_value = _is_hex(text) or text.startswith("SHA256:") or text.partition(":")[0].lower() in _HEX.values()
    if match is Match.EXACT and is_value:
        return (KeyKind.DIGEST, KeyKind.FINGERPRINT)
    return TEXTS


def _is_hex(text: str) -> bool:
    plain = text.replace(":", "").replace(" ", "").lower()
    return len(plain) in _HEX and not set(plain) - _HEX_DIGITS


def _value_keys(kind: KeyKind, text: str, *, strict: bool) -> list[bytes]:
    algorithm, colon, value = text.partition(":")
    if kind is KeyKind.DIGEST:
        plain = value if colon and algorithm.lower() in _HEX.values() else text
        plain = plain.lower()
        if len(plain) in _HEX and not set(plain) - _HEX_DIGITS:
            return [value_key(kind, bytes.fromhex(plain))]
        if strict:
            raise BadQuery(f"{text[:80]!r} is no digest: write hexadecimal, or sha256:HEX")
        return []
    if text.startswith("SHA256:"):
        return [value_key(kind, fingerprint_bytes(text))]
    if algorithm.lower() in _HEX.values() and colon:
        text = value
    if not _is_hex(text):
        if strict:
            raise BadQuery(f"{text[:80]!r} is no fingerprint: write hexadecimal, or SHA256:BASE64")
        return []
    return [value_key(kind, bytes.fromhex(text.replace(":", "").replace(" ", "")))]


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


def _newest_first(manifest: Manifest) -> Iterator[ArchivedRange]:
    for run in reversed(manifest.runs):
        yield from reversed(run.ranges)


def _newest(row: Row) -> tuple[float, str, int]:
    return (row.time or datetime.min.replace(tzinfo=UTC)).timestamp(), row.log, row.index


def _generations(manifests: Mapping[str, Manifest]) -> dict[str, int]:
    return {log: manifest.generation for log, manifest in manifests.items()}


def _moment(at: datetime) -> pa.Scalar:
    return pa.scalar(at, pa.timestamp("us", tz="UTC"))


def _rows(table: pa.Table) -> list[Row]:
    return [row_of(each) for each in table.to_pylist()]


def row_of(each: Mapping[str, Any]) -> Row:
    """Make a `Row` of one row of the Parquet file."""
    digests = tuple(f"{_HEX.get(2 * len(raw), 'unknown')}:{raw.hex()}" for raw in each["digests"])
    return Row(
        each["log"],
        each["index"],
        None if each["time"] is None else each["time"].astimezone(UTC),
        each["time_source"],
        None if each["not_before"] is None else each["not_before"].astimezone(UTC),
        each["kind"],
        tuple(each["identities"]),
        tuple(each["issuers"]),
        tuple(each["repositories"]),
        tuple(each["workflows"]),
        tuple(each["refs"]),
        tuple(each["triggers"]),
        tuple(each["repository_ids"]),
        tuple(each["owner_ids"]),
        tuple(each["runners"]),
        tuple(raw.hex() for raw in each["fingerprints"]),
        digests,
        tuple(map(Chain, each["chains"])),
        tuple(map(_signer, each["signers"] or ())),
        each["trust_root"],
        each["defect"],
        each["leaf_hash"].hex(),
    )


def _signer(each: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Columns of one of several signers."""
    return {
        name: tuple(value.hex() if isinstance(value, bytes) else value for value in values)
        for name, values in each.items()
    }

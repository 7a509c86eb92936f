"""Writes proven rows of one log tree into an archive, crash-safely: files first, then the manifest that names them.

A crash leaves the earlier manifest and perhaps files that it does not name; a later run overwrites or removes these.
The manifest names a file with rows only after their run was proven into a signed head.
"""

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alerts.alert import counted
from monitor.archive.files import ArchiveFault, ArchiveFiles, FileRef
from monitor.archive.ranges import (
    MANIFEST,
    RANGE,
    VERSION,
    ArchivedRange,
    ArchivedRun,
    ArchiveManifest,
    from_json,
    to_json,
)
from monitor.archive.rows import DECODER, MADE_SCHEMA, SCHEMA, SIGNER_TEXTS, UNREADABLE
from monitor.archive.search_index import INDEX_SCHEMA, index_of, with_keys
from monitor.model.log_source import LogIdentity, Position
from tlog.merkle import Frontier, aligned_subtrees

ProveConsistency = Callable[[int, int], Sequence[bytes]]
"""Requests the consistency proof from one size of the log to another."""

_LEVEL: Final = 6  # zstd level: files 4 % smaller than at the default; writing stays far cheaper than decoding
ROW_GROUP: Final = 2048  # rows read to show one
INDEX_GROUP: Final = 4096
_GROUPS_AT_ONCE: Final = 16
_DICTIONARIES: Final = [
    "log",
    "time_source",
    "kind",
    *(f"{name}.list.element" for name in (*SIGNER_TEXTS, "chains")),
    *(f"signers.list.element.{name}.list.element" for name in SIGNER_TEXTS),
    "trust_root",
    "defect",
]
_META: Final = "signwatch."
_CONTENTS: Final = frozenset({"rows", "index", "maps"})
"""Folders beside a manifest that hold thousands of files, and no manifest."""


def manifest_name(log: str) -> str:
    """Name of a log's manifest in the archive."""
    return f"{log}/{MANIFEST}"


def read_manifest(files: ArchiveFiles, log: str) -> ArchiveManifest | None:
    """The manifest of one log; `None` when no entry of it is archived. Raises `ArchiveFault`."""
    name = manifest_name(log)
    raw = files.read(name)
    return None if raw is None else from_json(raw, name)


class Manifests(dict[str, ArchiveManifest]):
    """Manifests by log id. `unread` maps each log with an unreadable manifest to the reason."""

    def __init__(self) -> None:
        super().__init__()
        self.unread: dict[str, ArchiveFault] = {}

    def of(self, log: str) -> ArchiveManifest | None:
        """The manifest of one log; `None` when nothing of it is archived. Raises `ArchiveFault` when it is unread."""
        if log in self.unread:
            raise self.unread[log]
        return self.get(log)

    def check_all_read(self) -> None:
        """Raises the `ArchiveFault` of the first log that is unread."""
        for fault in self.unread.values():
            raise fault


def read_manifests(files: ArchiveFiles, known: dict[str, tuple[bytes, ArchiveManifest]] | None = None) -> Manifests:
    """Manifests of all archived logs. Raises `ArchiveFault` when the archive cannot be listed.

    A manifest that cannot be read leaves out its own log alone. `known` are manifests read before, with their bytes,
    by file name; it is brought up to date.
    """
    found = Manifests()
    for name in files.folders_of(MANIFEST, _CONTENTS):
        try:
            raw = files.read(name)
            if raw is None:
                continue
            before = None if known is None else known.get(name)
            manifest = before[1] if before is not None and before[0] == raw else from_json(raw, name)
        except ArchiveFault as fault:
            found.unread[name.removesuffix(f"/{MANIFEST}")] = fault
            continue
        if known is not None:
            known[name] = raw, manifest
        if manifest_name(manifest.log) == name:
            found[manifest.log] = manifest
            continue
        folder = name.removesuffix(f"/{MANIFEST}")
        found.unread[folder] = ArchiveFault(
            f"{name}: the manifest is of log {manifest.log}, which belongs elsewhere, and is not read: move the folder "
            f"{folder} away."
        )
    return found


def lost_manifests(files: ArchiveFiles) -> dict[str, str]:
    """Logs that have files and no manifest, each with the next step for the operator. Raises `ArchiveFault`.

    An interrupted first build leaves such files as well.
    """
    named = {name.removesuffix(f"/{MANIFEST}") for name in files.names(f"/{MANIFEST}")}
    parts = [name.rpartition("/rows/") for name in files.names(".parquet")]
    there = Counter(log for log, folder, file in parts if folder and "/" not in file)
    return {
        log: f"{manifest_name(log)} is missing, and {counted(count, 'file')} of entries are there that nothing names. "
        f"`signwatch archive verify --mend --log {log}` makes it again from the files that prove themselves"
        for log, count in sorted(there.items())
        if log not in named
    }


class ManifestWriter:
    """Changes the files and the manifest of one log tree's archive, and adds no entry.

    Several writers of one folder take turns. An object store has no lock: only one program may write to it at a time.
    """

    def __init__(self, files: ArchiveFiles, identity: LogIdentity) -> None:
        """Raises `ArchiveFault` when the archive holds this log under another key, or cannot be read."""
        self.files, self._identity = files, identity
        self.manifest = self.reread()
        if self.manifest.identity.spki != identity.spki or self.manifest.identity.origin != identity.origin:
            raise ArchiveFault(
                f"archive {files.location}: holds log {identity.log} as signed by another key or under another origin. "
                "Nothing is added to it: two logs never share an archive. Name one of them differently."
            )

    def reread(self) -> ArchiveManifest:
        """The manifest as it is stored now. Raises `ArchiveFault`."""
        return read_manifest(self.files, self._identity.log) or ArchiveManifest(self._identity)

    def keep(self, manifest: ArchiveManifest, gone: Sequence[ArchivedRange] = ()) -> None:
        """Store a manifest made from `self.manifest`, and remove the files of ranges it no longer names.

        Raises `ArchiveFault` when another program changed the stored manifest meanwhile. Call it inside `locked`.
        """
        if self.reread().generation != self.manifest.generation:
            raise ArchiveFault(
                f"archive {self.files.location}: another program writes the archive of {manifest.log} at the same "
                "time. Stop one of the two."
            )
        # A crash before this line leaves files that no manifest names; after it, they are the archive.
        self.files.write(manifest_name(manifest.log), to_json(manifest))
        self.manifest = manifest
        named = {file.name for run in manifest.runs for each in run.ranges for file in (each.rows, each.index)}
        for file in (file for each in gone for file in (each.rows, each.index)):
            if file.name not in named:
                self.files.remove(file.name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of this log's folder during one change of the manifest. Raises `ArchiveFault`."""
        with locked(self.files, self._identity.log):
            yield


class ArchiveWriter(ManifestWriter):
    """Adds proven entries to one log tree's archive."""

    def __init__(self, files: ArchiveFiles, identity: LogIdentity, prove: ProveConsistency) -> None:
        """Raises `ArchiveFault` as `ManifestWriter` does."""
        super().__init__(files, identity)
        self._prove = prove
        self._pending: list[pa.RecordBatch] = []
        self._before: Frontier | None = None
        self._after: Position | None = None

    @property
    def end(self) -> int | None:
        """Index after the last added entry that is not written yet; `None` when every entry is written."""
        return None if self._after is None else self._after.frontier.size

    @property
    def pending(self) -> int:
        """Number of rows not written yet."""
        return sum(map(len, self._pending))

    def add(self, rows: pa.RecordBatch, before: Frontier, after: Position) -> None:
        """Add the rows between two proven positions; written as soon as they fill a range.

        After a gap, the earlier rows are written and a new run begins. Raises `ArchiveFault` and the errors of `prove`;
        the rows then wait for the next call.
        """
        if before.size + len(rows) != after.frontier.size:
            raise ArchiveFault(f"{after.log}: {len(rows)} rows do not lead from {before.size} to {after.frontier.size}")
        if self._after is not None and self._after.frontier != before:
            self.flush()
        if self._before is None:
            self._before = before
        self._pending.append(rows)
        self._after = after
        if before.size // RANGE != after.frontier.size // RANGE:
            self.flush()

    def discard(self) -> None:
        """Forget rows that were not written: the caller reads their entries again."""
        self._pending, self._before, self._after = [], None, None

    def flush(self) -> None:
        """Write all added rows. Raises `ArchiveFault`, and the errors of `prove`."""
        if self._before is None or self._after is None:
            return
        before, after = self._before, self._after
        head = after.head.head
        ahead = after.frontier.size < head.size
        proof = tuple(self._prove(after.frontier.size, head.size)) if ahead else ()
        with self.locked():
            self._write(before, after, proof)
        self.discard()

    def _write(self, before: Frontier, after: Position, proof: tuple[bytes, ...]) -> None:
        head = after.head.head
        self.manifest = self.reread()
        run = self.manifest.run_ending(before.size) or ArchivedRun(before, (), head)
        if run.end() != before:
            raise ArchiveFault(
                f"{after.log}: the archive's entries before {before.size} are not those that were proven"
            )
        rows = pa.Table.from_batches(self._pending, MADE_SCHEMA)
        kept, tail = run.ranges, None
        if run.ranges and run.last % RANGE:
            kept, tail = run.ranges[:-1], run.ranges[-1]
            rows = pa.concat_tables([read_made(self.files, self.manifest, tail), rows])
        written = tuple(write_range(self.files, self.manifest.identity, part) for part in _cut(rows))
        grown = ArchivedRun(run.start, (*kept, *written), head, proof)
        # The leaf hashes in the files must lead to the root that the log signed, before a manifest names the files.
        grown.check()
        self.keep(self.manifest.with_run(grown), () if tail is None else (tail,))


@contextmanager
def locked(files: ArchiveFiles, log: str) -> Iterator[None]:
    """Hold the lock of a log's folder. Raises `ArchiveFault`."""
    if files.folder is None:
        yield
        return
    path = files.folder / log / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise files.fault(path.name, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _cut(rows: pa.Table) -> Iterator[pa.Table]:
    """Cut rows at multiples of `RANGE`."""
    first = rows["index"][0].as_py()
    at = 0
    while at < len(rows):
        size = min(RANGE - (first + at) % RANGE, len(rows) - at)
        yield rows.slice(at, size)
        at += size


def write_range(files: ArchiveFiles, identity: LogIdentity, rows: pa.Table) -> ArchivedRange:
    """Write the rows of one range and their index. The manifest does not name them yet. Raises `ArchiveFault`.

    The rows have `MADE_SCHEMA`; the column that this has beside `SCHEMA` is in the index alone.
    """
    first = rows["index"][0].as_py()
    last = first + len(rows)
    subtrees = aligned_subtrees(first, rows["leaf_hash"].to_pylist())
    name = f"{identity.log}/{{}}/{first:012d}-{last:012d}.parquet"
    meta = meta_of(identity, first, last)
    with rows_sink(meta) as sink:
        sink.write(rows.select(SCHEMA.names))
        rows_file = files.write(name.format("rows"), sink.content())
    del sink
    with index_sink(meta) as sink:
        sink.write(index_of(rows, first))
        index_file = files.write(name.format("index"), sink.content())
    del sink
    # The allocator would keep all of it for the next range, while entries are fetched and other processes decode.
    pa.default_memory_pool().release_unused()
    return ArchivedRange(first, last, rows_file, index_file, subtrees, *bounds_of(rows))


def bounds_of(rows: pa.Table) -> tuple[datetime | None, datetime | None, int, int, int]:
    """Earliest and latest time of rows, and how many have no time, are unreadable, or have a defect."""
    times = pc.min_max(rows["time"])
    unreadable = pc.equal(rows["kind"], UNREADABLE)
    defective = pc.and_(pc.is_valid(rows["defect"]), pc.invert(unreadable))
    return (
        times["min"].as_py(),
        times["max"].as_py(),
        rows["time"].null_count,
        pc.sum(unreadable).as_py() or 0,
        pc.sum(defective).as_py() or 0,
    )


def meta_of(identity: LogIdentity, first: int, last: int) -> dict[str, str]:
    """Metadata of every file: its log, key, entries, decoder and the archive's format."""
    return {
        f"{_META}log": identity.log,
        f"{_META}key": sha256(identity.spki).hexdigest(),
        f"{_META}first": str(first),
        f"{_META}last": str(last),
        f"{_META}decoder": str(DECODER),
        f"{_META}format": str(VERSION),
    }


class Sink:
    """A Parquet file made in memory, part by part."""

    def __init__(self, schema: pa.Schema, group: int, meta: dict[str, str], **options: Any) -> None:
        self._made, self._group = pa.BufferOutputStream(), group
        self._schema = schema.with_metadata(meta)
        self._writer = pq.ParquetWriter(
            self._made, self._schema, compression="zstd", compression_level=_LEVEL, write_page_checksum=True, **options
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, part: pa.Table) -> None:
        """Append rows, in groups of their own."""
        self._writer.write_table(part.replace_schema_metadata(self._schema.metadata), row_group_size=self._group)

    def content(self) -> memoryview:
        """Close the file and return all of its bytes."""
        self._writer.close()
        return memoryview(self._made.getvalue())


def rows_sink(meta: dict[str, str]) -> Sink:
    """A file of rows."""
    encoding = dict.fromkeys(("index", "time", "not_before"), "DELTA_BINARY_PACKED")
    # No reader uses bounds of other columns, and every search reads the footer that would hold them.
    return Sink(
        SCHEMA,
        ROW_GROUP,
        meta,
        use_dictionary=_DICTIONARIES,
        column_encoding=encoding,
        write_statistics=["index", "time"],
    )


def index_sink(meta: dict[str, str]) -> Sink:
    """A file of index lines."""
    encoding = {"key": "DELTA_BYTE_ARRAY", "entries.list.element": "DELTA_BINARY_PACKED"}
    return Sink(
        INDEX_SCHEMA, INDEX_GROUP, meta, use_dictionary=False, column_encoding=encoding, write_statistics=["key"]
    )


def open_parquet(files: ArchiveFiles, manifest: ArchiveManifest, each: ArchivedRange, file: FileRef) -> pq.ParquetFile:
    """Open one file of a range, after a check of its length and of the log and range in its metadata.

    Raises `ArchiveFault`, which names the file and its defect.
    """
    size = files.size(file.name)
    if size is None:
        raise ArchiveFault(_damaged(file, "is missing"))
    if size != file.size:
        raise ArchiveFault(_damaged(file, f"has {size} bytes, not {file.size}"))
    try:
        # Reading ahead saves requests to an object store; in a folder it only costs threads.
        ahead = files.folder is None
        opened = pq.ParquetFile(files.open(file.name), page_checksum_verification=True, pre_buffer=ahead)
        held = opened.metadata.metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise ArchiveFault(_damaged(file, f"cannot be read: {error}")) from error
    for key, wanted in meta_of(manifest.identity, each.first, each.last).items():
        if (found := held.get(key.encode(), b"").decode(errors="replace")) != wanted:
            raise ArchiveFault(
                _damaged(file, f"is of another {key.removeprefix(_META)}: {found!r:.80}, not {wanted!r}")
            )
    return opened


def read_rows(files: ArchiveFiles, manifest: ArchiveManifest, each: ArchivedRange) -> pa.Table:
    """All rows of a range, from a file whose SHA-256 is the manifest's. Raises `ArchiveFault`."""
    check_digest(files, each.rows)
    return read_table(open_parquet(files, manifest, each, each.rows), each.rows, SCHEMA)


def read_index(files: ArchiveFiles, manifest: ArchiveManifest, each: ArchivedRange) -> pa.Table:
    """All of a range's index, from a file whose SHA-256 is the manifest's. Raises `ArchiveFault`."""
    check_digest(files, each.index)
    return read_table(open_parquet(files, manifest, each, each.index), each.index, INDEX_SCHEMA)


def read_made(files: ArchiveFiles, manifest: ArchiveManifest, each: ArchivedRange) -> pa.Table:
    """All rows of a range as they were made, from both of its files. Raises `ArchiveFault`."""
    return as_made(read_rows(files, manifest, each), read_index(files, manifest, each), each)


def as_made(rows: pa.Table, index: pa.Table, each: ArchivedRange) -> pa.Table:
    """Rows of a range with the keys that its index keeps. Raises `ArchiveFault` when it is not the rows' index."""
    try:
        made = with_keys(rows, index)
        if index.equals(index_of(made, each.first)):
            return made
        why = ""
    except (pa.ArrowException, ValueError) as error:
        why = f" ({error})"
    raise ArchiveFault(_damaged(each.index, f"is not the index of its rows{why}"))


def index_parts(files: ArchiveFiles, manifest: ArchiveManifest, each: ArchivedRange) -> Iterator[pa.Table]:
    """A range's index, some row groups at a time. Compares no digest. Raises `ArchiveFault` during iteration."""
    opened = open_parquet(files, manifest, each, each.index)
    groups = range(opened.metadata.num_row_groups)
    try:
        for at in groups[::_GROUPS_AT_ONCE]:
            yield opened.read_row_groups(groups[at : at + _GROUPS_AT_ONCE]).cast(INDEX_SCHEMA)
    except (pa.ArrowException, OSError) as error:
        raise ArchiveFault(_damaged(each.index, f"cannot be read: {error}")) from error


def read_table(opened: pq.ParquetFile, file: FileRef, schema: pa.Schema) -> pa.Table:
    """Read an opened file whole. Raises `ArchiveFault`."""
    try:
        return opened.read().cast(schema)
    except (pa.ArrowException, OSError) as error:
        raise ArchiveFault(_damaged(file, f"cannot be read: {error}")) from error


def check_digest(files: ArchiveFiles, file: FileRef) -> None:
    """Compare the SHA-256 of a file with the manifest. Raises `ArchiveFault`."""
    if files.size(file.name) is None:
        raise ArchiveFault(_damaged(file, "is missing"))
    digest, size = sha256(), 0
    with files.open(file.name) as opened:
        while part := opened.read(1 << 20):
            digest.update(part)
            size += len(part)
    if size != file.size:
        raise ArchiveFault(_damaged(file, f"has {size} bytes, not {file.size}"))
    if digest.hexdigest() != file.sha256:
        raise ArchiveFault(_damaged(file, "holds other bytes than were written"))


def _damaged(file: FileRef, what: str) -> str:
    return f"archive file {file.name}: {what}. `signwatch archive verify --mend` reads its entries again"

"""The manifest of one archived log: which aligned ranges are kept, in which files, and the heads that prove them.

A run is a gapless sequence of ranges. It begins with the frontier of everything before it, and ends in a signed head:
the frontier extended by every leaf hash in the run has a root, and a consistency proof leads from it to the head. So
the manifest and the files together can be checked without asking the log.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct, field
from msgspec.structs import replace

from monitor.archive.files import ArchiveFault, DamagedManifest, FileRef, OtherFormat
from monitor.archive.rows import DECODER
from monitor.model.log_source import LogApi, LogIdentity, SignedHead
from tlog.merkle import Frontier, MalformedFrontier, ProofInvalid, RootHash, verify_consistency

FORMAT: Final = "signwatch-archive"
VERSION: Final = 2
MANIFEST: Final = "archive.json"
RANGE: Final = 1 << 16


class ArchivedRange(Struct, frozen=True):
    """Entries `[first, last)` in two files. `subtrees` are `(level, root)` of the aligned full subtrees they fill.

    `earliest` and `latest` bound the times of its rows; `timeless` counts rows without a time, `unreadable`
    entries that could not be decoded, `defective` entries with a part that could not be decoded.
    """

    first: int
    last: int
    rows: FileRef
    index: FileRef
    subtrees: tuple[tuple[int, bytes], ...]
    earliest: datetime | None = None
    latest: datetime | None = None
    timeless: int = 0
    unreadable: int = 0
    defective: int = 0

    def extend(self, frontier: Frontier) -> Frontier:
        """Append the range to the frontier it follows. Raises `MalformedFrontier`."""
        for level, root in self.subtrees:
            frontier = frontier.stitched(level, root)
        return frontier


class ArchivedRun(Struct, frozen=True):
    """Ranges without a gap, from `start.size` on, proven into `head`. `proof` leads from the run's end to the head."""

    start: Frontier
    ranges: tuple[ArchivedRange, ...]
    head: SignedHead
    proof: tuple[bytes, ...] = ()

    @property
    def first(self) -> int:
        """First entry of the run."""
        return self.start.size

    @property
    def last(self) -> int:
        """Index after the last entry."""
        return self.ranges[-1].last if self.ranges else self.first

    def end(self) -> Frontier:
        """Frontier after the last range. Raises `ArchiveFault` when the ranges do not follow each other."""
        frontier = self.start
        for each in self.ranges:
            if each.first != frontier.size:
                raise ArchiveFault(f"the archive's ranges do not follow each other at entry {frontier.size}")
            try:
                frontier = each.extend(frontier)
            except MalformedFrontier as error:
                raise ArchiveFault(f"the archive's hashes of entries {each.first} to {each.last}: {error}") from error
            if frontier.size != each.last:
                raise ArchiveFault(f"the archive's hashes of entries {each.first} to {each.last} are not complete")
        return frontier

    def check(self) -> None:
        """Prove the run into its head. Raises `ArchiveFault` when the hashes do not lead there."""
        frontier = self.end()
        if frontier.size == 0:
            return
        try:
            verify_consistency(frontier.size, self.head.size, self.proof, frontier.root(), self.head.root)
        except ProofInvalid as error:
            raise ArchiveFault(
                f"entries {self.first} to {self.last} are not proven to be in the head of {self.head.size}: {error}"
            ) from error


class ArchiveManifest(Struct, frozen=True):
    """The archived ranges of one log tree. `generation` grows with every change and so reveals a second writer."""

    identity: LogIdentity
    runs: tuple[ArchivedRun, ...] = ()
    generation: int = 0
    decoder: int = DECODER
    name: str = field(default="")

    @property
    def log(self) -> str:
        """The log's id."""
        return self.identity.log

    @property
    def head(self) -> SignedHead | None:
        """Largest signed head that a run is proven into."""
        return max((run.head for run in self.runs), key=lambda head: head.size, default=None)

    def spans(self) -> list[tuple[int, int]]:
        """Archived entries as `(first, last)`, in order."""
        return [(run.first, run.last) for run in self.runs if run.last > run.first]

    def run_at(self, index: int) -> ArchivedRun | None:
        """The run that holds an entry."""
        return next((run for run in self.runs if run.first <= index < run.last), None)

    def range_from(self, index: int) -> ArchivedRange | None:
        """The first range with entries at or behind an index."""
        return next((each for run in self.runs for each in run.ranges if each.last > index), None)

    def run_ending(self, index: int) -> ArchivedRun | None:
        """The run that ends before an entry and can be extended with it."""
        return next((run for run in self.runs if run.last == index), None)

    def with_run(self, run: ArchivedRun) -> "ArchiveManifest":
        """Add a run, or replace the runs that it begins with; adjacent runs become one.

        Raises `ArchiveFault` when it overlaps another, or does not follow from the one before it.
        """
        kept = [each for each in self.runs if not (run.first <= each.first and each.last <= run.last)]
        kept = sorted([*kept, run], key=lambda each: each.first)
        joined: list[ArchivedRun] = []
        for each in kept:
            before = joined[-1] if joined else None
            if before is not None and each.first < before.last:
                raise ArchiveFault(f"{self.log}: entries {each.first} to {before.last} would be archived twice")
            if before is not None and each.first == before.last:
                if before.end() != each.start:
                    raise ArchiveFault(f"{self.log}: two archived runs that meet at entry {each.first} do not fit")
                joined[-1] = replace(each, start=before.start, ranges=before.ranges + each.ranges)
            else:
                joined.append(each)
        return replace(self, runs=tuple(joined), generation=self.generation + 1)

    def replaced(self, old: Sequence[ArchivedRange], new: ArchivedRange) -> "ArchiveManifest":
        """Replace several ranges (compaction) or a single one (mended files) by one range."""
        runs = []
        for run in self.runs:
            if old[0] in run.ranges:
                at = run.ranges.index(old[0])
                ranges = (*run.ranges[:at], new, *run.ranges[at + len(old) :])
                run = replace(run, ranges=ranges)  # noqa: PLW2901  a run with one range changed
            runs.append(run)
        return replace(self, runs=tuple(runs), generation=self.generation + 1)


def to_json(manifest: ArchiveManifest) -> bytes:
    """The manifest as it is stored."""
    identity = manifest.identity
    document = {
        "format": FORMAT,
        "version": VERSION,
        "decoder": manifest.decoder,
        "generation": manifest.generation,
        "log": identity.log,
        "api": identity.api.value,
        "origin": identity.origin,
        "key": {"name": identity.key_name, "spki": _b64(identity.spki)},
        "runs": [_run_document(run) for run in manifest.runs],
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def from_json(raw: bytes, name: str) -> ArchiveManifest:
    """Read a manifest. Raises `DamagedManifest`, also for an earlier format, or `OtherFormat` for a later one."""
    try:
        document = json.loads(raw)
        _check_format(document, name)
        log = _text(document["log"])
        identity = LogIdentity(
            log=log,
            api=LogApi(document["api"]),
            key_name=_text(document["key"]["name"]),
            origin=_text(document["origin"]),
            spki=_unb64(document["key"]["spki"]),
        )
        runs = tuple(_read_run(each, log) for each in document["runs"])
        manifest = ArchiveManifest(identity, runs, int(document["generation"]), int(document["decoder"]), name)
    except (KeyError, TypeError, ValueError, binascii.Error, IndexError, RecursionError, AttributeError) as error:
        raise _damaged(name, f"{type(error).__name__}: {str(error)[:200]}") from error
    try:
        for run in manifest.runs:
            run.check()
    except ArchiveFault as fault:
        raise _damaged(name, str(fault)) from fault
    return manifest


def _damaged(name: str, why: str) -> DamagedManifest:
    log = name.removesuffix(f"/{MANIFEST}")
    return DamagedManifest(
        f"{name}: the archive's manifest is damaged: {why}. `signwatch archive verify --mend --log {log}` makes it "
        "again from those of the log's files that the log's signed head proves, and reads the other entries again"
    )


def _check_format(document: Mapping[str, Any], name: str) -> None:
    if document["format"] != FORMAT:
        raise _damaged(name, "it is not the manifest of a Signwatch archive")
    version = document["version"]
    if isinstance(version, int) and version < VERSION:
        log = name.removesuffix(f"/{MANIFEST}")
        raise DamagedManifest(
            f"{name}: the archive is of the earlier format {version}; this release reads format {VERSION}. `signwatch "
            f"archive verify --mend --log {log}` makes it again, and reads all of its entries from the log"
        )
    if version != VERSION or document["decoder"] != DECODER:
        raise OtherFormat(
            f"{name}: the archive is of format {version!r:.20}, decoder {document['decoder']!r:.20}; this "
            f"release reads format {VERSION}, decoder {DECODER}. It is left as it is: use the release that wrote it, "
            "or build another archive elsewhere."
        )


def _run_document(run: ArchivedRun) -> dict[str, Any]:
    head = run.head
    return {
        "first": run.first,
        "last": run.last,
        "frontier": [each.hex() for each in run.start.hashes],
        "head": {
            "size": head.size,
            "root": head.root.hex(),
            "raw": _b64(head.raw),
            "timestamp": None if head.timestamp is None else head.timestamp.isoformat(),
        },
        "proof": [each.hex() for each in run.proof],
        "ranges": [_range_document(each) for each in run.ranges],
    }


def _range_document(each: ArchivedRange) -> dict[str, Any]:
    return {
        "first": each.first,
        "last": each.last,
        "subtrees": [[level, root.hex()] for level, root in each.subtrees],
        "rows": [each.rows.name, each.rows.size, each.rows.sha256],
        "index": [each.index.name, each.index.size, each.index.sha256],
        "earliest": None if each.earliest is None else each.earliest.isoformat(),
        "latest": None if each.latest is None else each.latest.isoformat(),
        "timeless": each.timeless,
        "unreadable": each.unreadable,
        "defective": each.defective,
    }


def _read_run(document: Mapping[str, Any], log: str) -> ArchivedRun:
    head, at = document["head"], document["head"]["timestamp"]
    return ArchivedRun(
        Frontier(int(document["first"]), tuple(bytes.fromhex(each) for each in document["frontier"])),
        tuple(_read_range(each) for each in document["ranges"]),
        SignedHead(
            log=log,
            size=int(head["size"]),
            root=RootHash(bytes.fromhex(head["root"])),
            raw=_unb64(head["raw"]),
            timestamp=_time(at),
        ),
        tuple(bytes.fromhex(each) for each in document["proof"]),
    )


def _read_range(document: Mapping[str, Any]) -> ArchivedRange:
    return ArchivedRange(
        int(document["first"]),
        int(document["last"]),
        _read_file(document["rows"]),
        _read_file(document["index"]),
        tuple((int(level), bytes.fromhex(root)) for level, root in document["subtrees"]),
        _time(document["earliest"]),
        _time(document["latest"]),
        int(document["timeless"]),
        int(document["unreadable"]),
        int(document["defective"]),
    )


def _read_file(document: Sequence[Any]) -> FileRef:
    name, size, digest = document
    text = _text(name)
    if text.startswith("/") or ".." in text.split("/"):
        raise ValueError("a file outside the archive")
    return FileRef(text, int(size), _text(digest))


def _time(text: Any) -> datetime | None:
    if text is None:
        return None
    at = datetime.fromisoformat(_text(text))
    if at.tzinfo is None:
        raise ValueError("a time without a zone")
    return at


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is wanted where {type(value).__name__} stands")
    return value


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _unb64(text: Any) -> bytes:
    return base64.b64decode(_text(text), validate=True)

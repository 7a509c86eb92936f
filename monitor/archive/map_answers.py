"""Answers of the search maps about keys, with the paths that prove them."""

from base64 import b64encode
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final

from monitor.archive.files import ArchiveFault, ArchiveFiles
from monitor.archive.map_files import MEND, PART, KeptMap, KeptMaps, entries_of, part_lines, read_maps
from monitor.archive.proofs import RunProver
from monitor.archive.ranges import RANGE, ArchiveManifest
from monitor.archive.reading import KeySpan, OpenedFile
from monitor.archive.rows import DECODER
from monitor.archive.search_index import SEARCHED, KeyKind
from monitor.archive.search_map import LINE_SIZE, MEDIA_TYPE, VERSION, key_of
from monitor.archive.writing import open_parquet
from tlog.merkle import inclusion_ranges, leaf_hash, range_root, subtree_root

MOST_LISTED: Final = 10_000  # entry numbers of one line in an answer


class MapReader:
    """Looks keys up in one kept map, with the paths that prove the answer."""

    def __init__(self, files: ArchiveFiles, kept: KeptMap, most: int) -> None:
        self._files, self._map, self._most = files, kept, most

    def answer(self, key_hash: bytes) -> dict[str, Any]:
        """The line of a key, or its neighbours. Raises `ArchiveFault`."""
        at = self._place(key_hash)
        if at < self._map.root.lines and self._line(at)[:32] == key_hash:
            shown = self._shown(at)
            if shown["count"] <= self._most:
                shown["entries"] = entries_of(self._files, self._map.parts[at // PART], at % PART)
            return {"line": shown}
        return {
            "before": self._shown(at - 1) if at else None,
            "after": self._shown(at) if at < self._map.root.lines else None,
        }

    def _place(self, key_hash: bytes) -> int:
        """Number of lines whose key's hash is smaller."""
        # The last part whose first line is at or before the key.
        low, high = 0, len(self._map.parts)
        while high - low > 1:
            middle = (low + high) // 2
            if self._line(middle * PART)[:32] <= key_hash:
                low = middle
            else:
                high = middle
        if not self._map.parts:
            return 0
        raw = part_lines(self._files, self._map.parts[low])
        inside = bisect_left(range(len(raw) // LINE_SIZE), key_hash, key=lambda at: raw[at * LINE_SIZE :][:32])
        return low * PART + inside

    def _line(self, at: int) -> bytes:
        part = self._map.parts[at // PART]
        with suppress(OSError), self._files.open(part.lines.name) as opened:
            opened.seek(at % PART * LINE_SIZE)
            raw: bytes = opened.read(LINE_SIZE)
            if len(raw) == LINE_SIZE:
                return raw
        raise ArchiveFault(f"archive file {part.lines.name}: cannot be read. {MEND}")

    def _shown(self, at: int) -> dict[str, Any]:
        raw = self._line(at)
        lines = part_lines(self._files, self._map.parts[at // PART])
        first = at // PART * PART
        hashes = [leaf_hash(lines[start : start + LINE_SIZE]) for start in range(0, len(lines), LINE_SIZE)]
        part_level = PART.bit_length() - 1

        def node(level: int, index: int) -> bytes:
            if level >= part_level:
                return subtree_root(
                    [
                        each.root
                        for each in self._map.parts[index << level - part_level : index + 1 << level - part_level]
                    ]
                )
            begin = index << level
            if first <= begin < first + len(hashes):
                return subtree_root(hashes[begin - first : begin - first + (1 << level)])
            other = part_lines(self._files, self._map.parts[begin // PART])
            offset = begin % PART
            return subtree_root(
                [
                    leaf_hash(other[each * LINE_SIZE : (each + 1) * LINE_SIZE])
                    for each in range(offset, offset + (1 << level))
                ]
            )

        path = [range_root(start, end, node) for start, end in inclusion_ranges(at, self._map.root.lines)]
        return {
            "position": at,
            "key_hash": raw[:32].hex(),
            "count": int.from_bytes(raw[32:40], "big"),
            "entries_root": raw[40:].hex(),
            "path": [each.hex() for each in path],
        }


def answer_document(
    files: ArchiveFiles, manifest: ArchiveManifest, wanted: Sequence[tuple[KeyKind, str]], most: int = MOST_LISTED
) -> dict[str, Any]:
    """The proofs that the maps hold about some keys, as docs/search-index.md specifies. Raises `ArchiveFault`.

    At most `most` entries of a line are listed. Entries beyond the maps are answered from the index, without proof.
    """
    maps = read_maps(files, manifest.log)
    if not maps.size:
        raise ArchiveFault(
            f"{manifest.log}: there is no search map yet: it takes the first {RANGE} entries of the log. "
            f"`signwatch archive build --log {manifest.log}` archives them and builds it{_begins(manifest)}"
        )
    run = next(each for each in manifest.runs if each.first == 0)
    covers = RunProver(files, manifest, run).coverage(maps.size)
    readers = [MapReader(files, each, most) for each in maps.maps]
    answers = []
    for kind, value in wanted:
        key = key_of(kind, value)
        shown = [reader.answer(sha256(key).digest()) for reader in readers]
        answers.append({"kind": kind.word, "value": value, "maps": shown, "tail": _tail(files, manifest, maps, key)})
    root = maps.root_at(maps.size)
    assert root is not None  # noqa: S101  the size is covered
    return {
        "mediaType": MEDIA_TYPE,
        "version": VERSION,
        "log": manifest.log,
        "api": manifest.identity.api.value,
        "origin": manifest.identity.origin,
        "key": sha256(manifest.identity.spki).hexdigest(),
        "key_name": manifest.identity.key_name,
        "spki": b64encode(manifest.identity.spki).decode(),
        "covers": covers.document(),
        "decoder": DECODER,
        "kinds": list(SEARCHED),
        "smallest": maps.smallest,
        "size": maps.size,
        "index_root": root.hex(),
        "maps": [
            {"level": each.level, "lines": each.lines, "root": each.root.hex()}
            for each in (kept.root for kept in maps.maps)
        ],
        "answers": answers,
    }


def _begins(manifest: ArchiveManifest) -> str:
    """First archived entries where the log's first entry is not archived: no answer covers earlier ones."""
    spans = manifest.spans()
    if not spans or spans[0][0] == 0:
        return ""
    kept = ", ".join(f"{first} to {last - 1}" for first, last in spans)
    return f". Archived are entries {kept}: of entries before {spans[0][0]} nothing can be said"


def _tail(files: ArchiveFiles, manifest: ArchiveManifest, maps: KeptMaps, key: bytes) -> dict[str, Any]:
    """Entries of a key beyond the maps, up to the first gap in the archive."""
    run = next(each for each in manifest.runs if each.first == 0)
    found: list[int] = []
    for each in run.ranges:
        if each.last > maps.size:
            opened = OpenedFile(each.index, open_parquet(files, manifest, each, each.index))
            for lines in opened.lines(KeySpan(key, key)):
                found += [each.first + number for numbers in lines["entries"].to_pylist() for number in numbers]
    return {"first": maps.size, "last": run.last, "entries": [each for each in found if each >= maps.size]}

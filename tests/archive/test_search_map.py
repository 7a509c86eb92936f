"""The search map against a second implementation: keys there and absent, merges, damage, crashes, forged answers."""

import json
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from hashlib import sha256
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from monitor.archive import map_answers, map_building, map_files, ranges, writing
from monitor.archive.compacting import compact
from monitor.archive.files import ArchiveFault, ArchiveFiles
from monitor.archive.map_answers import answer_document
from monitor.archive.map_building import MapBuilder, build_maps, check_maps, rebuild_maps
from monitor.archive.map_files import read_maps
from monitor.archive.ranges import ArchivedRun, ArchiveManifest, to_json
from monitor.archive.rows import MADE_SCHEMA
from monitor.archive.search_index import KeyKind
from monitor.archive.search_map import AnswerInvalid, check_answer
from monitor.archive.writing import ManifestWriter, manifest_name, write_range
from monitor.model.log_source import SignedHead
from tests.archive import independent_map
from tests.archive.conftest import Place, varied_bodies
from tests.support.misbehaving_log import RekorV2Log
from tlog.merkle import Frontier

WIDTH = 8
SMALLEST = 3
LOG = RekorV2Log().source().identity
NAMES = [f"Dev{number}@Example.com" for number in range(12)] + ["x" * 300, "x" * 299 + "y", "Ünïcode@example.com"]
ISSUER = "https://issuer.example"

Entries = list[tuple[list[str], bytes]]
entries_of_a_log = st.lists(
    st.tuples(st.lists(st.sampled_from(NAMES), max_size=3), st.binary(min_size=32, max_size=32)),
    min_size=WIDTH,
    max_size=6 * WIDTH,
)


@contextmanager
def small_maps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (ranges, writing, map_files, map_building, map_answers):
            patch.setattr(module, "RANGE", WIDTH)
        for module in (map_files, map_building, map_answers):
            patch.setattr(module, "PART", 4)
        patch.setattr(map_building, "_PIECE", 3)
        patch.setattr(map_building, "_AT_ONCE", 7)
        yield


def rows_of_entries(entries: Entries, first: int) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [[] for _ in entries] for name in MADE_SCHEMA.names}
    columns |= {
        "log": [LOG.log] * len(entries),
        "index": list(range(first, first + len(entries))),
        "time": [None] * len(entries),
        "time_source": [None] * len(entries),
        "not_before": [None] * len(entries),
        "kind": ["hashedrekord"] * len(entries),
        "identities": [names for names, _ in entries],
        "issuers": [[ISSUER] for _ in entries],
        "digests": [[digest] for _, digest in entries],
        "chains": [["not-checked"]] * len(entries),
        "signers": [None] * len(entries),
        "trust_root": [None] * len(entries),
        "defect": [None] * len(entries),
        "leaf_hash": [sha256(b"\x00" + leaf(number)).digest() for number in range(first, first + len(entries))],
    }
    return pa.table(columns, schema=MADE_SCHEMA)


def leaf(number: int) -> bytes:
    """The entry with this number."""
    return number.to_bytes(8, "big")


def archived(files: ArchiveFiles, entries: Entries) -> ManifestWriter:
    """An archive of these entries, in ranges of `WIDTH`."""
    run = ArchivedRun(Frontier(0, ()), (), SignedHead(LOG.log, 0, Frontier(0, ()).root(), b""))
    for first in range(0, len(entries), WIDTH):
        written = write_range(files, LOG, rows_of_entries(entries[first : first + WIDTH], first))
        run = replace(run, ranges=(*run.ranges, written))
    run = replace(run, head=RekorV2Log([leaf(number) for number in range(len(entries))]).source().latest())
    files.write(manifest_name(LOG.log), to_json(ArchiveManifest(LOG, (run,))))
    return ManifestWriter(files, LOG)


def independent(entries: Entries) -> list[independent_map.Entry]:
    return [
        [*(("identity", name) for name in names), ("issuer", ISSUER), ("digest", digest.hex())]
        for names, digest in entries
    ]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(entries_of_a_log, st.data())
def test_answers_are_those_of_a_second_implementation(entries: Entries, data: st.DataObject) -> None:
    with small_maps(), tempfile.TemporaryDirectory() as folder:
        files = ArchiveFiles(folder)
        writer = archived(files, entries)
        build_maps(writer)
        covered = len(entries) // WIDTH * WIDTH
        second = independent(entries)
        maps = read_maps(files, LOG.log)
        for size in range(WIDTH, covered + 1, WIDTH):
            wanted = independent_map.index_root(independent_map.maps(second[:size], SMALLEST), SMALLEST)
            assert maps.root_at(size) == wanted
        root = maps.root_at(covered)
        assert root is not None
        asked = [(KeyKind.IDENTITY, name) for name in NAMES] + [(KeyKind.ISSUER, ISSUER), (KeyKind.ISSUER, NAMES[0])]
        asked += [(KeyKind.DIGEST, digest.hex()) for digest in data.draw(st.lists(st.binary(min_size=1), max_size=4))]
        document = json.loads(json.dumps(answer_document(files, writer.manifest, asked)))
        proven = independent_map.check(document, root)
        checked = {(each.kind, each.value): each.entries for each in check_answer(document, root).keys}
        for kind, value in asked:
            wanted_key = independent_map.key(kind.word, value)
            there = [
                number
                for number, keys in enumerate(second)
                if any(independent_map.key(*each) == wanted_key for each in keys)
            ]
            assert proven[kind.word, value] == [number for number in there if number < covered]
            assert checked[kind, value] == tuple(proven[kind.word, value])
            answer = next(each for each in document["answers"] if (each["kind"], each["value"]) == (kind.word, value))
            assert answer["tail"] == {
                "first": covered,
                "last": len(entries),
                "entries": [number for number in there if number >= covered],
            }


def test_keys_before_the_first_line_behind_the_last_and_between_any_two_are_shown_absent(tmp_path: Any) -> None:
    with small_maps():
        files = ArchiveFiles(str(tmp_path))
        writer = archived(files, SOME)
        build_maps(writer)
        (kept,) = read_maps(files, LOG.log).maps
        reader = map_answers.MapReader(files, kept, 100)
        hashes = [line.key_hash for line in map_files.map_lines(files, kept)]
        assert hashes == sorted(set(hashes))
        between = [(int.from_bytes(low) + 1).to_bytes(32) for low, _ in pairwise(hashes)]
        for place, key_hash in enumerate([bytes(32), *between, b"\xff" * 32]):
            shown = reader.answer(key_hash)
            assert "line" not in shown
            before, after = shown["before"], shown["after"]
            assert (before["position"] if before else -1) == place - 1
            assert (after["position"] if after else len(hashes)) == place


SOME: Entries = [([NAMES[number % 5], NAMES[number % 3]], sha256(bytes([number])).digest()) for number in range(16)]


def test_a_map_built_at_once_is_the_merged_one(tmp_path: Any) -> None:
    with small_maps():
        files = ArchiveFiles(str(tmp_path))
        writer = archived(files, SOME)
        build_maps(writer)
        by_merging = read_maps(files, LOG.log)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(map_building, "RANGE", 2 * WIDTH)
            at_once, _ = MapBuilder(files, writer.manifest, ArchiveFiles(str(tmp_path / "b"))).grown(
                map_files.KeptMaps(LOG.log, SMALLEST + 1)
            ) or pytest.fail("nothing was built")
        assert [each.root for each in at_once.maps] == [each.root for each in by_merging.maps]
        # Compaction changes no map.
        rebuilt = read_maps(files, LOG.log).roots
        (run,) = writer.reread().runs
        writer.manifest = writer.reread()
        compact(writer, run.ranges)
        rebuild_maps(writer)
        assert read_maps(files, LOG.log).roots == rebuilt


def without_a_name(document: dict[str, Any]) -> None:
    """Leave one of the entries out, and say one fewer."""
    line = next(each["line"] for each in document["answers"][0]["maps"] if "line" in each)
    line["entries"].pop()
    line["count"] -= 1


def with_another_root(document: dict[str, Any]) -> None:
    line = next(each["line"] for each in document["answers"][0]["maps"] if "line" in each)
    line["entries"].pop()
    line["count"] -= 1
    line["entries_root"] = independent_map.tree([each.to_bytes(8, "big") for each in line["entries"]]).hex()


def denied(document: dict[str, Any]) -> None:
    """Say the key is absent, by neighbours of another key."""
    document["answers"][0]["maps"] = document["answers"][1]["maps"]


def gap(document: dict[str, Any]) -> None:
    for shown in document["answers"][1]["maps"]:
        shown["before"] = None


def map_left_out(document: dict[str, Any]) -> None:
    document["maps"].pop()
    for answer in document["answers"]:
        answer["maps"].pop()


def fewer_lines(document: dict[str, Any]) -> None:
    document["maps"][0]["lines"] -= 1


def another_value(document: dict[str, Any]) -> None:
    document["answers"][0]["value"] = "somebody@example.com"


def nonsense(document: dict[str, Any]) -> None:
    document["maps"][0]["level"] = 10**30


def of_another_tree(document: dict[str, Any]) -> None:
    document["covers"]["root"] = "00" * 32


def of_more_entries(document: dict[str, Any]) -> None:
    document["covers"]["size"] += WIDTH


def from_a_later_entry(document: dict[str, Any]) -> None:
    document["covers"]["first"] = WIDTH


@pytest.mark.parametrize(
    "forge",
    [
        without_a_name,
        with_another_root,
        denied,
        gap,
        map_left_out,
        fewer_lines,
        another_value,
        nonsense,
        of_another_tree,
        of_more_entries,
        from_a_later_entry,
    ],
)
def test_a_forged_answer_is_refused_by_both_implementations(
    tmp_path: Any, forge: Callable[[dict[str, Any]], None]
) -> None:
    with small_maps():
        files = ArchiveFiles(str(tmp_path))
        entries = [*SOME, *SOME[:8]]
        writer = archived(files, entries)
        build_maps(writer)
        asked = [(KeyKind.IDENTITY, NAMES[0]), (KeyKind.IDENTITY, "absent@example.com")]
        document = answer_document(files, writer.manifest, asked)
        root = bytes.fromhex(document["index_root"])
        sound = deepcopy(document)
        assert check_answer(sound, root).keys[0].count == sum(NAMES[0] in names for names, _ in entries)
        assert check_answer(sound, root).keys[1].entries == ()
        independent_map.check(sound, root)
        forge(document)
        with pytest.raises(AnswerInvalid):
            check_answer(document, root)
        with pytest.raises((AssertionError, OverflowError)):
            independent_map.check(document, root)


def test_an_answer_whose_head_another_key_signed_is_refused(tmp_path: Any) -> None:
    with small_maps():
        writer = archived(ArchiveFiles(str(tmp_path)), SOME)
        build_maps(writer)
        document = answer_document(writer.files, writer.manifest, [(KeyKind.IDENTITY, NAMES[0])])
        head = check_answer(document).head
        assert (head.size, head.root) == (len(SOME), writer.manifest.runs[0].head.root)
        log = RekorV2Log([leaf(number) for number in range(len(SOME))])
        log.host = "another.example.org"
        document["covers"]["head"] = b64encode(log.source().latest().raw).decode()
        with pytest.raises(AnswerInvalid):
            check_answer(document)


def test_an_answer_under_another_index_root_is_refused(tmp_path: Any) -> None:
    with small_maps():
        writer = archived(ArchiveFiles(str(tmp_path)), SOME)
        build_maps(writer)
        document = answer_document(writer.files, writer.manifest, [(KeyKind.IDENTITY, NAMES[0])])
        with pytest.raises(AnswerInvalid, match="another one"):
            check_answer(document, bytes(32))
        nothings: list[Any] = [
            None,
            [],
            "x",
            {},
            {"mediaType": 1},
            document | {"maps": None},
            document | {"answers": [1]},
        ]
        for nothing in nothings:
            with pytest.raises(AnswerInvalid):
                check_answer(nothing)


def test_a_dropped_row_changes_the_index_root(tmp_path: Any) -> None:
    with small_maps():
        roots = []
        for number, entries in enumerate((SOME, [*SOME[:5], ([], SOME[5][1]), *SOME[6:]])):
            writer = archived(ArchiveFiles(str(tmp_path / str(number))), entries)
            build_maps(writer)
            roots.append(read_maps(writer.files, LOG.log).root_at(16))
        assert roots[0] != roots[1]


def changed_line(place: Place) -> None:
    path = next((place.folder / "archive/rekor-v2/maps").glob("*.lines"))
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))


def missing_entries(place: Place) -> None:
    next((place.folder / "archive/rekor-v2/maps").glob("*.entries")).unlink()


def changed_root(place: Place) -> None:
    """Maps that fit each other, and not the index."""
    path = place.folder / "archive/rekor-v2/maps.json"
    document = json.loads(path.read_text())
    document["roots"][0][0][1] = "00" * 32
    path.write_text(json.dumps(document))


def cut_manifest(place: Place) -> None:
    path = place.folder / "archive/rekor-v2/maps.json"
    path.write_text(path.read_text()[:-40])


@pytest.mark.parametrize("damage", [changed_line, missing_entries, changed_root, cut_manifest])
def test_damage_to_a_map_is_found_and_mended_by_one_command(place: Place, damage: Callable[[Place], None]) -> None:
    place.build()
    before = read_maps(place.files, "rekor-v2")
    assert before.size == 192
    place.run("archive", "verify", "--offline")
    damage(place)
    assert "map" in place.run("archive", "verify", "--offline", expect=3)[1]
    place.run("archive", "verify", "--offline", "--mend")
    place.run("archive", "verify", "--offline")
    assert read_maps(place.files, "rekor-v2").roots == before.roots


class Died(BaseException):
    """The process ends here."""


def test_a_death_at_any_write_loses_no_map(tmp_path: Any) -> None:
    """Ended before or after each file, the same build goes on, and ends with the same files."""
    with small_maps(), pytest.MonkeyPatch.context() as patch:
        writer = archived(ArchiveFiles(str(tmp_path / "whole")), SOME)
        build_maps(writer)
        wanted = read_maps(writer.files, LOG.log)
        names = sorted(writer.files.names(".lines"))
        write, count = ArchiveFiles.write, 0
        for after in (False, True):
            for dies_at in range(100):
                files = ArchiveFiles(str(tmp_path / f"{after}-{dies_at}"))
                dying, count = archived(files, SOME), 0

                def dies(self: ArchiveFiles, name: str, raw: Any, at: int = dies_at, late: bool = after) -> Any:
                    nonlocal count
                    count += 1
                    if count == at + 1 and not late:
                        raise Died
                    written = write(self, name, raw)
                    if count == at + 1:
                        raise Died
                    return written

                with patch.context() as dead:
                    dead.setattr(ArchiveFiles, "write", dies)
                    try:
                        build_maps(dying)
                    except Died:
                        pass
                    else:
                        break
                build_maps(archived(files, SOME))
                found = read_maps(files, LOG.log)
                assert (found.roots, found.maps) == (wanted.roots, wanted.maps)
                assert set(names) <= set(files.names(".lines"))
                assert check_maps(files, dying.reread()) is None
            assert dies_at > 5


def test_entries_before_the_archive_have_no_index_root(place: Place) -> None:
    place.build("--from", "64")
    assert read_maps(place.files, "rekor-v2").size == 0
    with pytest.raises(ArchiveFault, match="no search map yet"):
        answer_document(place.files, place_manifest(place), [(KeyKind.IDENTITY, "a@example.com")])


def place_manifest(place: Place) -> ArchiveManifest:
    manifest = writing.read_manifest(place.files, "rekor-v2")
    assert manifest is not None
    return manifest


def test_maps_go_on_with_the_archive(place: Place) -> None:
    place.build()
    before = read_maps(place.files, "rekor-v2")
    place.served.log.append(*varied_bodies(130, 200))
    place.build()
    after = read_maps(place.files, "rekor-v2")
    assert (before.size, after.size) == (192, 320)
    assert [each.level for each in after.maps] == [8, 6]
    assert after.root_at(192) == before.root_at(192)
    named: Sequence[str] = [part.lines.name for each in after.maps for part in each.parts]
    assert sorted(named) == place.files.names(".lines")

"""Two installations compare their search indexes: one that leaves an entry out of its answers is seen."""

import json
from pathlib import Path
from typing import Any

import pytest

from monitor.archive.files import ArchiveFiles
from monitor.archive.map_files import KeptMaps, build_maps, read_maps
from monitor.crosscheck.peers import (
    NoPeer,
    PeerRelation,
    checkpoints_document,
    compare_with_peer,
    offered_sizes,
    read_checkpoints,
)
from tests.archive.conftest import Place
from tests.archive.test_search_map import LOG, SOME, WIDTH, Entries, archived, small_maps
from tests.support.harness import KINDS, NOW
from tests.threats.test_peers import Peer, house

MANY: Entries = SOME * 4


def index(folder: Path, entries: Entries) -> KeptMaps:
    with small_maps():
        files = ArchiveFiles(str(folder))
        build_maps(archived(files, entries))
        return read_maps(files, LOG.log)


def relations(ours: KeptMaps | None, theirs: KeptMaps | None) -> list[tuple[PeerRelation, str]]:
    """What a comparison says of the indexes, over documents as they are served."""
    here = house(KINDS[0])
    document = checkpoints_document(here.state, [here.source], lambda _: theirs)
    peer = Peer(json.dumps(document).encode())
    compared = compare_with_peer(peer, [here.source], here.state, lambda: NOW, lambda _: ours)
    assert compared[0].relation is PeerRelation.SAME
    return [(each.relation, each.detail) for each in compared[1:]]


@pytest.mark.parametrize(("one", "other"), [(64, 64), (8, 64), (64, 8), (40, 56), (56, 40), (24, 64), (64, 24)])
def test_installations_of_any_two_sizes_have_a_common_one_and_agree(tmp_path: Path, one: int, other: int) -> None:
    ours, theirs = index(tmp_path / "a", MANY[:one]), index(tmp_path / "b", MANY[:other])
    ((relation, detail),) = relations(ours, theirs)
    assert relation is PeerRelation.INDEX_SAME
    common = max(size for size in offered_sizes(theirs) if size <= one)
    assert f"first {common} entries" in detail


@pytest.mark.parametrize("at", [0, 9, 41])
def test_an_entry_left_out_of_one_index_is_seen_from_both_sides(tmp_path: Path, at: int) -> None:
    ours = index(tmp_path / "a", MANY)
    theirs = index(tmp_path / "b", [*MANY[:at], ([], MANY[at][1]), *MANY[at + 1 :]])
    for one, other in ((ours, theirs), (theirs, ours)):
        ((relation, detail),) = relations(one, other)
        assert relation is PeerRelation.INDEX_DIFFERS
        assert "archive verify" in detail


def test_without_an_index_on_both_sides_only_heads_are_compared(tmp_path: Path) -> None:
    kept = index(tmp_path, MANY[:WIDTH])
    assert relations(kept, None) == relations(None, kept) == relations(kept, KeptMaps(LOG.log, 3)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"decoder": 1, "smallest": 3, "roots": [[8, "zz" * 32]]},
        {"decoder": 1, "smallest": 3, "roots": [[8, "00" * 32]] * 1000},
        {"decoder": 1, "smallest": 3, "roots": [[8]]},
        {"decoder": "1", "smallest": 3, "roots": []},
        [],
    ],
)
def test_a_nonsensical_index_is_refused(wrong: Any) -> None:
    here = house(KINDS[0])
    document = checkpoints_document(here.state, [here.source])
    document["checkpoints"][0]["index"] = wrong
    with pytest.raises(NoPeer):
        read_checkpoints(json.dumps(document).encode())


def test_an_index_of_another_decoder_is_not_compared(tmp_path: Path) -> None:
    kept = index(tmp_path, MANY)
    here = house(KINDS[0])
    document = checkpoints_document(here.state, [here.source], lambda _: kept)
    document["checkpoints"][0]["index"]["decoder"] += 1
    peer = Peer(json.dumps(document).encode())
    compared = compare_with_peer(peer, [here.source], here.state, lambda: NOW, lambda _: kept)
    assert compared[1].relation is PeerRelation.INDEX_NOT_COMPARED


def test_a_complete_answer_is_written_and_checked_against_an_index_root(place: Place) -> None:
    place.build()
    path = place.folder / "mine.json"
    out, _ = place.run("search", "DEV3@example.com", "--kind", "identity", "--complete", str(path))
    root = json.loads(path.read_text())["index_root"]
    found, _ = place.found("dev3@example.com", "--kind", "identity", "--limit", "1000")
    wanted = sorted(each["index"] for each in found if each["index"] < 192)
    assert f"{len(wanted)} of the first 192 entries" in out
    place.served.down = True
    out, _ = place.run("evidence", "verify", str(path), "--json", "--index-root", root)
    told = json.loads(out)
    assert told["verified"]
    assert [each["entries"] for each in told["keys"]] == [wanted]
    place.run("evidence", "verify", str(path), expect=3)
    place.run("evidence", "verify", str(path), "--index-root", "00" * 32, expect=1)
    place.run("evidence", "verify", str(path), "--index-root", "no", expect=2)
    place.run("search", "absent@example.com", "--complete", str(path))
    assert "verified" in place.run("evidence", "verify", str(path), "--index-root", root)[0]
    place.run("search", "absent@*", "--complete", str(path), expect=2)

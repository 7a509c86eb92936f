"""Two installations compare their search indexes: one that leaves an entry out of its answers is seen."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from monitor.archive.files import ArchiveFiles
from monitor.archive.map_building import build_maps
from monitor.archive.map_files import read_maps
from monitor.archive.proofs import RunProver
from monitor.cli import run_command
from monitor.crosscheck.peers import (
    BoundIndex,
    NoPeer,
    PeerRelation,
    checkpoints_document,
    compare_with_peer,
    offered_sizes,
    read_checkpoints,
)
from monitor.proof.index_coverage import IndexCoverage
from tests.archive.conftest import Place
from tests.archive.test_search_map import LOG, SOME, WIDTH, Entries, archived, leaf, small_maps
from tests.support import entries as make
from tests.support.harness import KINDS, NOW
from tests.support.misbehaving_log import RekorV2Log
from tests.threats.test_peers import House, Peer, house

MANY: Entries = SOME * 4


def index(folder: Path, entries: Entries) -> BoundIndex:
    with small_maps():
        files = ArchiveFiles(str(folder))
        writer = archived(files, entries)
        build_maps(writer)
        maps = read_maps(files, LOG.log)
        return BoundIndex(maps, RunProver(files, writer.manifest, writer.manifest.runs[0]).coverage(maps.size))


def follower(size: int = len(MANY)) -> House:
    """An installation that follows the log of these entries."""
    return House(RekorV2Log([leaf(number) for number in range(size)]))


def relations(ours: BoundIndex | None, theirs: BoundIndex | None) -> list[tuple[PeerRelation, str]]:
    """What a comparison says of the indexes, over documents as they are served."""
    here = follower()
    document = checkpoints_document(here.state, [here.source], lambda _: theirs)
    return compared(here, document, ours)


def compared(here: House, document: Any, ours: BoundIndex | None) -> list[tuple[PeerRelation, str]]:
    peer = Peer(json.dumps(document).encode())
    found = compare_with_peer(peer, [here.source], here.state, lambda: NOW, lambda _: ours)
    assert found[0].relation is PeerRelation.SAME
    return [(each.relation, each.detail) for each in found[1:]]


@pytest.mark.parametrize(("one", "other"), [(64, 64), (8, 64), (64, 8), (40, 56), (56, 40), (24, 64), (64, 24)])
def test_installations_of_any_two_sizes_have_a_common_one_and_agree(tmp_path: Path, one: int, other: int) -> None:
    ours, theirs = index(tmp_path / "a", MANY[:one]), index(tmp_path / "b", MANY[:other])
    ((relation, detail),) = relations(ours, theirs)
    assert relation is PeerRelation.INDEX_SAME
    common = max(size for size in offered_sizes(theirs.index) if size <= one)
    assert f"agree up to entry {common - 1};" in detail
    assert f"theirs is of entries 0 to {other - 1} of the tree of {other} with root" in detail
    assert f"ours of entries 0 to {one - 1}" in detail


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
    assert relations(kept, None) == relations(None, kept) == []


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
    here = follower()
    document = checkpoints_document(here.state, [here.source], lambda _: kept)
    document["checkpoints"][0]["index"]["decoder"] += 1
    ((relation, _),) = compared(here, document, kept)
    assert relation is PeerRelation.INDEX_NOT_COMPARED


@pytest.mark.parametrize(
    "change",
    [
        {"root": "00" * 32},
        {"size": 56},
        {"first": 8},
        {"head": "AAAA"},
        {"steps": [{"size": 64, "root": "00" * 32, "proof": []}]},
        {"steps": [{}] * 100},
        {"steps": None},
    ],
)
def test_an_index_that_is_not_bound_to_a_signed_head_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    kept = index(tmp_path, MANY[:48])
    here = follower()
    document = checkpoints_document(here.state, [here.source], lambda _: kept)
    document["checkpoints"][0]["index"]["covers"] |= change
    ((relation, detail),) = compared(here, document, kept)
    assert relation is PeerRelation.INDEX_UNBOUND
    assert "does not show which entries" in detail
    del document["checkpoints"][0]["index"]["covers"]
    assert compared(here, document, kept)[0][0] is PeerRelation.INDEX_UNBOUND


def test_an_index_of_another_history_of_the_log_is_evidence(tmp_path: Path) -> None:
    """Its head is signed by the log, and contradicts ours: the log showed the other side another tree."""
    kept = index(tmp_path, MANY[:48])
    other = RekorV2Log([leaf(number) for number in range(47)] + [b"another entry"])
    head = other.source().latest()
    forked = replace(kept, coverage=IndexCoverage(48, head.root, (), head.raw))
    ((relation, _),) = relations(kept, forked)
    assert relation is PeerRelation.CONTRADICTION


def test_a_complete_answer_is_written_and_checked_against_an_index_root(place: Place) -> None:
    place.build()
    path = place.folder / "mine.json"
    out, _ = place.run("search", "DEV3@example.com", "--kind", "identity", "--complete", str(path))
    root = json.loads(path.read_text())["index_root"]
    found, _ = place.found("dev3@example.com", "--kind", "identity", "--limit", "1000")
    wanted = sorted(each["index"] for each in found if each["index"] < 192)
    assert f"entries with this identity among the first 192: {len(wanted)}\n" in out
    place.served.down = True
    out, _ = place.run("evidence", "verify", str(path), "--json", "--index-root", root)
    told = json.loads(out)
    assert told["verified"]
    assert [each["entries"] for each in told["keys"]] == [wanted]
    assert told["key"]["owner"] is not None
    place.run("evidence", "verify", str(path), expect=3)
    place.run("evidence", "verify", str(path), "--index-root", "00" * 32, expect=1)
    place.run("evidence", "verify", str(path), "--index-root", "no", expect=2)
    place.run("search", "absent@example.com", "--complete", str(path))
    assert "verified" in place.run("evidence", "verify", str(path), "--index-root", root)[0]
    place.run("search", "absent@*", "--complete", str(path), expect=2)


def test_a_complete_answer_is_worth_no_more_than_the_key_that_signed_it(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.build()
    path = tmp_path / "mine.json"
    place.run("search", "dev3@example.com", "--complete", str(path))
    root = json.loads(path.read_text())["index_root"]

    def verify(*arguments: str) -> tuple[int, dict[str, Any]]:
        place.capsys.readouterr()
        code = run_command(["evidence", "verify", str(path), "--index-root", root, "--json", *arguments])
        return code, json.loads(place.capsys.readouterr().out)

    # Away from any configuration, without a word on whose key counts.
    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    code, told = verify()
    assert (code, told["verdict"], told["verified"]) == (3, "key-not-checked", False)
    code, told = verify("--trusted-root", str(place.folder / "trusted_root.json"))
    assert (code, told["verdict"]) == (0, "verified")
    stranger = tmp_path / "stranger.der"
    stranger.write_bytes(make.spki_of(make.make_key("another log")))
    code, told = verify("--key", str(stranger))
    assert (code, told["verdict"], told["key"]["owner"]) == (1, "another-key", None)


def test_an_archive_that_begins_later_says_so_and_claims_nothing_of_what_was_before(place: Place) -> None:
    place.build("--from", "70")
    path = place.folder / "mine.json"
    _, said = place.run("search", "dev3@example.com", "--complete", str(path), expect=3)
    said = " ".join(said.split())
    assert "Archived are entries 70 to 199: of entries before 70 nothing can be said" in said
    assert not path.exists()
    place.build()
    place.run("search", "dev3@example.com", "--complete", str(path))
    covers = json.loads(path.read_text())["covers"]
    assert (covers["first"], covers["size"]) == (0, 192)

"""The archive holds exactly the log's proven entries, and a search finds exactly those that name a value."""

import json
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from monitor.archive import search
from monitor.archive.query import MatchMode, Query
from monitor.archive.ranges import VERSION
from monitor.archive.rows import decoded
from monitor.archive.search_index import KeyKind
from monitor.archive.writing import read_manifest, read_rows
from monitor.daemon.rekor_search import page_search
from monitor.model.log_source import LogApi, LogEntry
from rules.pattern import glob_matches
from sigstore_entries.signing import EntryRef, Signing
from tests.archive.conftest import RANGE, Place, varied_bodies
from tests.support.entries import NOT_BEFORE
from tlog.merkle import leaf_hash


def signings(place: Place) -> list[Signing]:
    """Every entry of the log that can be read, decoded without the archive."""
    read = (
        decoded(LogEntry(body), EntryRef("rekor-v2", index), LogApi.REKOR_V2)
        for index, body in enumerate(place.served.log.leaves)
    )
    return [each for each in read if isinstance(each, Signing)]


def names(signing: Signing) -> list[str]:
    """Every text a search may name it by, in lower case."""
    found = []
    for signer in signing.signers:
        found += [name.value for name in signer.names]
        found += [signer.issuer or ""]
        found += [
            signer.claims[claim]
            for claim in ("source_repository_uri", "build_config_uri", "build_signer_uri")
            if claim in signer.claims
        ]
    return [text.lower() for text in found if text]


def test_every_entry_has_a_row_and_every_row_is_proven(place: Place) -> None:
    place.build()
    manifest = read_manifest(place.files, "rekor-v2")
    assert manifest is not None
    (run,) = manifest.runs
    run.check()
    assert (run.first, run.last, run.head.size) == (0, 200, 200)
    assert [(each.first, each.last) for each in run.ranges] == [(0, 64), (64, 128), (128, 192), (192, 200)]
    rows = [row for each in run.ranges for row in read_rows(place.files, manifest, each).to_pylist()]
    assert [row["index"] for row in rows] == list(range(200))
    assert [row["leaf_hash"] for row in rows] == [leaf_hash(body) for body in place.served.log.leaves]
    assert sum(row["kind"] == "unreadable" for row in rows) == len([n for n in range(200) if n % 6 == 2])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("dev3@example.com", MatchMode.EXACT),
        ("DEV3@EXAMPLE.COM", MatchMode.EXACT),
        ("nobody@example.com", MatchMode.EXACT),
        ("https://github.com/org1/repo4", MatchMode.EXACT),
        ("https://token.actions.githubusercontent.com", MatchMode.EXACT),
        ("https://github.com/org1/", MatchMode.PREFIX),
        ("https://github.com/ORG2/repo1/", MatchMode.PREFIX),
        ("dev", MatchMode.PREFIX),
        ("*@example.com", MatchMode.GLOB),
        ("https://github.com/*/repo3/*@refs/tags/*", MatchMode.GLOB),
        ("*", MatchMode.GLOB),
    ],
)
def test_a_search_finds_exactly_the_entries_that_name_the_text(place: Place, text: str, match: MatchMode) -> None:
    place.build()
    lower = text.lower()
    holds = {
        MatchMode.EXACT: lambda value: value == lower,
        MatchMode.PREFIX: lambda value: value.startswith(lower),
        MatchMode.GLOB: lambda value: glob_matches(lower, value),
    }[match]
    wanted = [each.where.index for each in signings(place) if any(map(holds, names(each)))]
    answer = place.archive.search(Query(text, match=match, limit=1000), per_day=True)
    assert sorted(row.index for row in answer.rows) == wanted
    assert answer.total == len(wanted) == sum(answer.per_day.values()) + answer.timeless
    assert answer.coverage.logs[0].spans == ((0, 200),)
    assert answer.coverage.complete
    streamed = [
        index for rows in place.archive.stream(Query(text, match=match), {}) for index in rows["index"].to_pylist()
    ]
    assert streamed == wanted


def test_digests_and_fingerprints_are_found_as_people_write_them(place: Place) -> None:
    place.build()
    (found,) = place.archive.search(Query(f"{7:064x}")).rows
    assert found.index == 7
    assert place.archive.search(Query(f"SHA256:{7:064X}".replace("SHA256", "sha256"))).rows == (found,)
    print_of = found.fingerprints[0]
    colons = ":".join(print_of[at : at + 2] for at in range(0, len(print_of), 2)).upper()
    for text in (print_of, colons, f"sha256:{print_of}"):
        assert [row.index for row in place.archive.search(Query(text)).rows] == [7]
    assert place.archive.search(Query(f"{7:064x}", frozenset({KeyKind.FINGERPRINT}))).total == 0


def test_a_time_bounds_what_is_counted_and_what_is_shown(place: Place) -> None:
    place.build()
    since, until = NOT_BEFORE + timedelta(hours=50), NOT_BEFORE + timedelta(hours=130)
    answer = place.archive.search(Query("*", match=MatchMode.GLOB, since=since, until=until, limit=5), per_day=True)
    wanted = [number for number in range(50, 130) if number % 6 != 2]
    assert answer.total == len(wanted)
    assert [row.index for row in answer.rows] == wanted[:-6:-1]
    assert answer.cut == len(wanted) - 5
    assert sum(answer.per_day.values()) == len(wanted)
    assert answer.rows[0].time == NOT_BEFORE + timedelta(hours=wanted[-1])


def test_the_command_says_what_it_covers_in_every_form(place: Place, tmp_path: Path) -> None:
    place.build("--to", "100")
    out, said = place.run("search", "dev3@example.com")
    assert "dev3@example.com" in out.lower()
    assert "rekor-v2: entries 0 to 99 of 200" in said
    entries, summary = place.found("dev3@example.com")
    assert summary["entries"] == len(entries) > 0
    assert summary["coverage"]["logs"][0]["spans"] == [[0, 100]]
    assert not summary["coverage"]["complete"]
    table, picture = tmp_path / "found.parquet", tmp_path / "found.svg"
    place.run("search", "dev3@example.com", "--parquet", str(table), "--svg", str(picture))
    assert pq.read_table(table)["index"].to_pylist() == [each["index"] for each in entries]
    assert picture.read_text().startswith("<svg ")
    lines = place.run("search", "dev3@example.com", "--csv")[0].splitlines()
    assert len(lines) == 1 + len(entries)
    assert place.run("search", "dev3@example.com", "--csv", "-n", "1")[0].splitlines() == lines[:2]


def test_footers_are_kept_within_a_bound_that_no_number_of_ranges_passes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.build()
    query = Query("*", match=MatchMode.GLOB, limit=1000)
    wanted = place.archive.search(query)
    archive = place.archive
    archive.search(query)
    kept = len(archive._opened)
    assert kept == 8, "control: rows and index of four ranges"
    monkeypatch.setattr(search, "_OPENED", 1)
    archive = place.archive
    assert archive.search(query) == wanted
    assert len(archive._opened) == 1


def test_a_log_of_which_nothing_is_archived_is_named(place: Place) -> None:
    _, said = place.run("search", "dev3@example.com")
    assert "not covered: rekor-v2" in said


@pytest.mark.parametrize(
    "given", ["github.com/org1/*", "GitHub.com/org1/*", "github.com/org1/repo4", "github.com/*1/re*o4*"]
)
def test_a_repository_is_found_as_people_write_it(place: Place, given: str) -> None:
    place.build()
    entries, summary = place.found(f"https://{given}", "--trusted")
    assert entries, "control: the name with its scheme"
    assert (place.found(given, "--trusted")[0], place.found(given)[1]) == (entries, place.found(f"https://{given}")[1])
    assert f"https://{given}" in place.run("search", given)[1], "the text that was searched for is told"
    assert place.found(given, "--match", "glob")[0] == [], "the text of a chosen comparison stays as it is"
    whole = page_search(place.archive)(f"https://{given}", "", "", 5)
    assert page_search(place.archive)(given, "", "", 5).total == whole.total == summary["total"]


def test_a_log_that_is_neither_followed_nor_archived_is_misuse(place: Place) -> None:
    assert "not covered: rekor-v2" in place.run("search", "dev3@example.com", "--log", "rekor-v2")[1], "control"
    said = place.run("search", "dev3@example.com", "--log", "rekor-v3", expect=2)[1]
    assert "no log is named 'rekor-v3'; logs: rekor-v2" in said
    place.build()
    for log, code in (("rekor-v2", 0), ("rekor-v2/17", 0), ("rekor-v3", 2), ("rekor-v3/17", 2)):
        place.run("search", "dev3@example.com", "--log", log, expect=code)


def test_building_goes_on_where_it_was_and_joins_what_meets(place: Place) -> None:
    place.build("--from", "150", "--to", "170")
    place.build("--from", "30", "--to", "70")
    manifest = read_manifest(place.files, "rekor-v2")
    assert manifest is not None
    assert manifest.spans() == [(30, 70), (150, 170)]
    place.served.log.append(*varied_bodies(60, 200))
    place.build()
    manifest = read_manifest(place.files, "rekor-v2")
    assert manifest is not None
    assert manifest.spans() == [(0, 260)]
    (run,) = manifest.runs
    run.check()
    assert place.archive.search(Query("*", match=MatchMode.GLOB)).total == len(signings(place))
    on_disk = {path.name for path in (place.folder / "archive").rglob("*.parquet")}
    assert on_disk == {file.name.rpartition("/")[2] for each in run.ranges for file in (each.rows, each.index)}


def test_an_export_that_is_cut_knows_of_damage_behind_the_cut(place: Place) -> None:
    place.build()
    (last,) = (place.folder / "archive" / "rekor-v2" / "index").glob("*-000000000200.parquet")
    _, whole = place.found("dev3@example.com", "-n", "2")
    assert whole["total"] == whole["entries"] + whole["left_out"] > whole["entries"] == 2
    _, all_of_it = place.found("dev3@example.com", "-n", str(whole["total"]))
    assert (all_of_it["entries"], all_of_it["left_out"]) == (whole["total"], 0)
    last.unlink()
    _, summary = place.found("dev3@example.com", "-n", "2", expect=3)
    assert summary["total"] < whole["total"]
    assert not summary["coverage"]["complete"]
    assert [each["to"] for each in summary["coverage"]["logs"][0]["damaged"]] == [200]


@pytest.mark.parametrize("damage", ["missing", "truncated", "swapped", "foreign", "changed"])
def test_a_damaged_file_is_named_and_the_answer_says_what_it_lacks(place: Place, damage: str) -> None:
    place.build()
    manifest = read_manifest(place.files, "rekor-v2")
    assert manifest is not None
    first, second = manifest.runs[0].ranges[:2]
    for file, other in ((first.rows, second.rows), (first.index, second.index)):
        path = place.folder / "archive" / file.name
        sound = path.read_bytes()
        match damage:
            case "missing":
                path.unlink()
            case "truncated":
                path.write_bytes(sound[:-100])
            case "swapped":
                path.write_bytes((place.folder / "archive" / other.name).read_bytes())
            case "foreign":
                path.write_bytes(b"PAR1 no such thing PAR1".ljust(len(sound), b"1"))
            case "changed":
                path.write_bytes(sound[:40] + bytes(each ^ 0xFF for each in sound[40:440]) + sound[440:])
        entries, summary = place.found("*@example.com", "--match", "glob", expect=3)
        (damaged,) = summary["coverage"]["logs"][0]["damaged"]
        assert (damaged["from"], damaged["to"]) == (0, RANGE)
        assert file.name in damaged["reason"]
        assert min(each["index"] for each in entries) >= RANGE
        path.write_bytes(sound)
    assert place.found("*@example.com", "--match", "glob")[0][0]["index"] == 0


def test_an_archive_of_a_newer_format_is_refused_and_left_alone(place: Place) -> None:
    place.build()
    path = place.folder / "archive" / "rekor-v2" / "archive.json"
    newer = json.loads(path.read_text()) | {"version": VERSION + 1}
    path.write_text(json.dumps(newer))
    _, said = place.run("search", "dev3@example.com", expect=3)
    assert f"is of format {VERSION + 1}" in said
    assert f"is of format {VERSION + 1}" in place.build(expect=3)
    assert json.loads(path.read_text()) == newer


def test_a_manifest_whose_hashes_do_not_lead_to_the_signed_head_is_refused(place: Place) -> None:
    place.build()
    path = place.folder / "archive" / "rekor-v2" / "archive.json"
    document = json.loads(path.read_text())
    document["runs"][0]["ranges"][0]["subtrees"][0][1] = "00" * 32
    path.write_text(json.dumps(document))
    answer = place.archive.search(Query("dev3@example.com"))
    assert (answer.rows, answer.total, answer.coverage.complete) == ((), 0, False)
    ((log, why),) = answer.coverage.unread
    assert log == "rekor-v2"
    assert "not proven" in why


def test_a_log_that_serves_other_entries_than_it_signed_gets_nothing_archived(place: Place) -> None:
    place.served.log.served[70] = place.served.log.leaves[71]
    assert "the entries served below index 71 are not the entries that the log signed" in place.build(expect=1)
    manifest = read_manifest(place.files, "rekor-v2")
    assert manifest is not None
    assert manifest.spans() == [(0, 70)]

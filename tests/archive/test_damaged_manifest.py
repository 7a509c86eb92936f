"""A damaged manifest leaves out its own log alone, and one command makes it again from files that prove themselves."""

import json
import shutil
from pathlib import Path

import pytest

from monitor.archive.files import OtherFormat
from monitor.archive.map_building import rebuild_maps
from monitor.archive.query import MatchMode, Query
from monitor.archive.ranges import to_json
from monitor.archive.writing import ManifestWriter, manifest_name, meta_of, read_manifest, read_rows, rows_sink
from tests.archive.conftest import Place, readable_bodies
from tests.archive.test_verify_and_compact import dropped_row, other_hash

EVERYTHING = Query("*", match=MatchMode.GLOB, limit=10_000)
MISSING = "`signwatch archive verify --mend --log rekor-v2`"
DAMAGES = ("truncated", "empty", "garbled", "no manifest", "a hash changed")


def configure_two(place: Place) -> None:
    """Add a second log to the configuration."""
    config = place.served.config.read_text()
    (line,) = [line for line in config.splitlines() if "name: rekor-v2" in line]
    other = line.replace("name: rekor-v2", "name: other")
    place.served.config.write_text(config.replace(line, f"{line}\n{other}"))


@pytest.fixture
def two(place: Place) -> Place:
    """Two logs, each archived."""
    configure_two(place)
    place.run("archive", "build", "--jobs", "1")
    return place


def manifest_path(place: Place) -> Path:
    return place.folder / "archive" / "rekor-v2" / "archive.json"


def harm(path: Path, damage: str) -> None:
    sound = path.read_bytes()
    match damage:
        case "truncated":
            path.write_bytes(sound[: len(sound) // 2])
        case "empty":
            path.write_bytes(b"")
        case "garbled":
            path.write_bytes(bytes(each ^ 0x5A for each in sound))
        case "no manifest":
            path.write_bytes(b'{"format": "of another program"}')
        case "a hash changed":
            at = sound.index(b'"subtrees"') + 60
            at = next(at for at in range(at, len(sound)) if sound[at : at + 1] in b"0123456789abcdef")
            path.write_bytes(sound[:at] + (b"1" if sound[at : at + 1] == b"0" else b"0") + sound[at + 1 :])


@pytest.mark.parametrize("damage", DAMAGES)
def test_other_logs_go_on_and_one_command_makes_the_manifest_again(two: Place, damage: str) -> None:
    before = two.archive.search(EVERYTHING)
    harm(manifest_path(two), damage)
    rows, summary = two.found("*@example.com", expect=3)
    assert {row["log"] for row in rows} == {"other"}
    coverage = summary["coverage"]
    assert (coverage["complete"], coverage["not_covered"]) == (False, ["rekor-v2"])
    (why,) = coverage["unread"]
    assert why["log"] == "rekor-v2"
    assert "rekor-v2/archive.json" in why["reason"]
    assert "`signwatch archive verify --mend --log rekor-v2`" in why["reason"]
    said = two.run("search", "*@example.com", expect=3)[1]
    assert "not covered: rekor-v2: rekor-v2/archive.json: the archive's manifest is damaged" in said
    _, alone = two.found("*@example.com", "--log", "other")
    assert alone["coverage"]["complete"]
    two.run("archive", "verify", "--offline", "--log", "other")
    said = two.run("archive", "verify", "--jobs", "1", expect=3)[1]
    assert "other: the hashes of 200 entries lead to the heads that the log signed" in said
    assert "rekor-v2/archive.json: the archive's manifest is damaged" in said
    stored = manifest_path(two).stat().st_mtime_ns
    two.run("archive", "verify", "--offline", "--mend", "--log", "rekor-v2", expect=3)
    assert manifest_path(two).stat().st_mtime_ns == stored
    said = two.run("archive", "verify", "--mend", "--log", "rekor-v2", "--jobs", "1")[1]
    assert "4 files of entries are proven by the log's signed head, and 0 entries were read again" in said
    two.run("archive", "verify", "--all")
    assert two.archive.search(EVERYTHING) == before


def test_building_makes_the_manifest_again_as_well_and_reads_no_entry_twice(two: Place) -> None:
    before = two.archive.search(EVERYTHING)
    harm(manifest_path(two), "truncated")
    said = two.build()
    assert "and 0 entries were read again" in said
    assert "rekor-v2: 0 entries archived" in said
    two.run("archive", "verify", "--all")
    assert two.archive.search(EVERYTHING) == before


def test_a_missing_manifest_is_made_again_by_the_same_command(two: Place) -> None:
    before = two.archive.search(EVERYTHING)
    manifest_path(two).unlink()
    assert MISSING in two.run("search", "*@example.com", expect=3)[1]
    assert MISSING in two.run("archive", "verify", "--jobs", "1", expect=3)[1]
    two.run("archive", "verify", "--offline", "--mend", "--log", "rekor-v2", expect=3)
    assert not manifest_path(two).exists()
    said = two.run("archive", "verify", "--mend", "--jobs", "1")[1]
    assert "4 files of entries are proven by the log's signed head, and 0 entries were read again" in said
    assert "other: the hashes of 200 entries lead to the heads that the log signed" in said
    two.run("archive", "verify", "--all")
    assert two.archive.search(EVERYTHING) == before


def test_building_makes_a_missing_manifest_again_as_well_and_reads_what_is_missing_alone(two: Place) -> None:
    before = two.archive.search(EVERYTHING)
    next((two.folder / "archive" / "rekor-v2" / "rows").iterdir()).unlink()
    manifest_path(two).unlink()
    said = two.build()
    assert "3 files of entries are proven by the log's signed head" in said
    two.run("archive", "verify", "--all")
    assert two.archive.search(EVERYTHING) == before


def test_files_of_a_log_that_is_not_followed_are_named_and_left_alone(two: Place) -> None:
    stray = two.folder / "archive" / "stray"
    shutil.copytree(manifest_path(two).parent / "rows", stray / "rows")
    manifest_path(two).write_bytes(b"")
    said = two.run("archive", "verify", "--mend", "--jobs", "1", expect=3)[1]
    assert "stray/archive.json is missing" in said
    assert "rekor-v2: its manifest was made again" in said
    assert len(list((stray / "rows").iterdir())) == 4
    assert not (stray / "archive.json").exists()


@pytest.mark.parametrize("harmed", ["truncated", "hash", "dropped", "foreign", "missing", "index"])
def test_only_files_that_prove_themselves_are_kept_and_the_rest_is_read_again(two: Place, harmed: str) -> None:
    before = two.archive.search(EVERYTHING)
    manifest = read_manifest(two.files, "rekor-v2")
    assert manifest is not None
    each = manifest.runs[0].ranges[1]
    path = two.folder / "archive" / each.rows.name
    match harmed:
        case "truncated":
            path.write_bytes(path.read_bytes()[:-100])
        case "hash" | "dropped":
            change = other_hash if harmed == "hash" else dropped_row
            with rows_sink(meta_of(manifest.identity, each.first, each.last)) as sink:
                sink.write(change(read_rows(two.files, manifest, each)))
                two.files.write(each.rows.name, sink.content())
        case "foreign":
            shutil.copy(two.folder / "archive" / each.rows.name.replace("rekor-v2/", "other/", 1), path)
        case "missing":
            path.unlink()
        case "index":
            (two.folder / "archive" / each.index.name).write_bytes(b"no index")
    harm(manifest_path(two), "truncated")
    said = two.run("archive", "verify", "--mend", "--log", "rekor-v2", "--jobs", "1")[1]
    assert "3 files of entries are proven" in said
    assert "64 entries were read again" in said
    two.run("archive", "verify", "--all")
    assert two.archive.search(EVERYTHING) == before


def test_without_one_sound_file_everything_is_built_anew(two: Place) -> None:
    before = two.archive.search(EVERYTHING)
    for path in (two.folder / "archive" / "rekor-v2").rglob("*.parquet"):
        path.write_bytes(b"")
    harm(manifest_path(two), "empty")
    two.run("archive", "verify", "--mend", "--log", "rekor-v2", "--jobs", "1")
    two.run("archive", "verify", "--all")
    assert two.archive.search(EVERYTHING) == before


def test_a_joined_range_goes_before_the_parts_that_a_crash_left(two: Place) -> None:
    before = two.archive.search(EVERYTHING)
    manifest = read_manifest(two.files, "rekor-v2")
    assert manifest is not None
    last = two.folder / "archive" / manifest.runs[0].ranges[-1].rows.name
    left = {path: path.read_bytes() for path in (last, Path(str(last).replace("/rows/", "/index/")))}
    two.served.log.append(*two.served.log.leaves[:10])
    two.build()
    for path, raw in left.items():
        path.write_bytes(raw)
    after = two.archive.search(EVERYTHING)
    assert after.total > before.total
    harm(manifest_path(two), "truncated")
    two.run("archive", "verify", "--mend", "--log", "rekor-v2", "--jobs", "1")
    again = read_manifest(two.files, "rekor-v2")
    assert again is not None
    assert again.spans() == [(0, 210)]
    assert two.archive.search(EVERYTHING) == after


@pytest.mark.parametrize("key", ["version", "decoder"])
def test_a_newer_manifest_is_refused_and_left_alone_and_other_logs_go_on(two: Place, key: str) -> None:
    path = manifest_path(two)
    manifest = read_manifest(two.files, "rekor-v2")
    assert manifest is not None
    now = f'"{key}": '.encode()
    head, _, tail = to_json(manifest).partition(now)
    two.files.write(manifest_name("rekor-v2"), head + now + b"9" + tail)
    newer = path.read_bytes()
    assert {row["log"] for row in two.found("*@example.com", expect=3)[0]} == {"other"}
    said = two.run("archive", "verify", "--mend", "--jobs", "1", expect=3)[1]
    assert "It is left as it is: use the release that wrote it" in said
    assert "other: the hashes of 200 entries lead to the heads that the log signed" in said
    two.build(expect=3)
    assert path.read_bytes() == newer


def test_following_and_archiving_of_other_logs_go_on(place: Place) -> None:
    place.served.log.leaves[:] = readable_bodies(200)
    configure_two(place)
    config = place.served.config.read_text().replace("poll_seconds: 1", "poll_seconds: 1, start: 0")
    place.served.config.write_text(config)
    place.run("init")
    place.run("run", "--once")
    harm(manifest_path(place), "truncated")
    place.served.log.append(*readable_bodies(10, 200))
    _, said = place.run("run", "--once", expect=3)
    assert "`signwatch archive verify --mend --log rekor-v2`" in said
    kept = read_manifest(place.files, "other")
    assert kept is not None
    assert kept.spans() == [(0, 210)]
    place.run("archive", "verify", "--mend", "--log", "rekor-v2", "--jobs", "1")
    place.run("run", "--once")
    mended = read_manifest(place.files, "rekor-v2")
    assert mended is not None
    assert mended.spans() == [(0, 210)]


@pytest.mark.parametrize("key", ["version", "decoder"])
def test_search_maps_of_a_newer_format_are_refused_and_left_alone(two: Place, key: str) -> None:
    path = two.folder / "archive" / "rekor-v2" / "maps.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {key: 9}))
    newer = {each: each.read_bytes() for each in (path, *path.with_name("maps").iterdir())}
    assert len(newer) > 1
    for words in (("--mend", "--offline"), ("--mend", "--jobs", "1")):
        said = two.run("archive", "verify", *words, expect=3)[1]
        assert "rekor-v2/maps.json: of format" in said
        assert "It is left as it is: use the release that wrote it" in said
        assert "other: the hashes of 200 entries lead to the heads that the log signed" in said
    two.build(expect=3)
    with pytest.raises(OtherFormat):
        rebuild_maps(ManifestWriter(two.files, two.archive.manifests()["rekor-v2"].identity))
    assert {each: each.read_bytes() for each in newer} == newer
    assert two.found("*@example.com")[1]["coverage"]["complete"]


def test_garbled_search_maps_are_built_again_by_the_same_command(two: Place) -> None:
    path = two.folder / "archive" / "rekor-v2" / "maps.json"
    sound = json.loads(path.read_text())
    for raw in (b"", b"{}", path.read_bytes()[:200], json.dumps(sound | {"log": "other"}).encode()):
        path.write_bytes(raw)
        two.run("archive", "verify", "--offline", "--log", "rekor-v2", expect=3)
        two.run("archive", "verify", "--offline", "--log", "rekor-v2", "--mend")
        assert json.loads(path.read_text())["roots"] == sound["roots"]

"""`archive verify` finds every change to an archive, `--mend` writes it again, and compaction changes no answer."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from msgspec.structs import replace

from monitor.archive import compacting, search
from monitor.archive.compacting import compact, compactable
from monitor.archive.map_building import rebuild_maps
from monitor.archive.query import MatchMode, Query
from monitor.archive.ranges import ArchivedRange, ArchiveManifest, to_json
from monitor.archive.rows import SCHEMA
from monitor.archive.search_index import index_of
from monitor.archive.writing import (
    ManifestWriter,
    index_sink,
    manifest_name,
    meta_of,
    read_index,
    read_made,
    read_manifest,
    rows_sink,
)
from tests.archive.conftest import RANGE, Place, varied_bodies

EVERYTHING = Query("*", match=MatchMode.GLOB, limit=10_000)


def manifest_of(place: Place) -> ArchiveManifest:
    manifest = read_manifest(place.files, "rekor-v2")
    assert manifest is not None
    return manifest


def first_range(place: Place) -> ArchivedRange:
    return manifest_of(place).runs[0].ranges[0]


def rewritten(
    place: Place, change: Callable[[pa.Table], pa.Table], *, with_index: bool, with_maps: bool = True
) -> None:
    """Change rows of the first range as a person who controls the folder would: files and manifests fit each other."""
    manifest, each = manifest_of(place), first_range(place)
    rows = change(read_made(place.files, manifest, each))
    meta = meta_of(manifest.identity, each.first, each.last)
    with rows_sink(meta) as sink:
        sink.write(rows.select(SCHEMA.names))
        new = replace(each, rows=place.files.write(each.rows.name, sink.content()))
    if with_index:
        with index_sink(meta) as sink:
            sink.write(index_of(rows, each.first))
            new = replace(new, index=place.files.write(each.index.name, sink.content()))
    place.files.write(manifest_name("rekor-v2"), to_json(manifest.replaced([each], new)))
    if with_index and with_maps:
        rebuild_maps(ManifestWriter(place.files, manifest.identity))


def other_identity(rows: pa.Table) -> pa.Table:
    identities = rows["identities"].to_pylist()
    identities[0] = ["somebody-else@example.com"]
    return rows.set_column(
        rows.schema.get_field_index("identities"),
        rows.schema.field("identities"),
        pa.array(identities, pa.list_(pa.string())),
    )


def dropped_row(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows.slice(0, 5), rows.slice(6)])


def other_hash(rows: pa.Table) -> pa.Table:
    hashes = rows["leaf_hash"].to_pylist()
    hashes[3] = hashes[4]
    return rows.set_column(
        rows.schema.get_field_index("leaf_hash"), rows.schema.field("leaf_hash"), pa.array(hashes, pa.binary(32))
    )


def test_a_sound_archive_verifies_with_the_log_and_without_it(place: Place) -> None:
    place.build()
    assert (
        "the hashes of 200 entries lead to the heads that the log signed" in place.run("archive", "verify", "--all")[1]
    )
    place.served.down = True
    place.run("archive", "verify", "--offline")


@pytest.mark.parametrize("kind", ["rows", "index"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "swapped", "foreign", "changed"])
def test_each_damaged_file_is_found_and_mended_by_one_command(place: Place, kind: str, damage: str) -> None:
    place.build()
    before = place.archive.search(EVERYTHING)
    first, second = manifest_of(place).runs[0].ranges[:2]
    path = place.folder / "archive" / getattr(first, kind).name
    other = place.folder / "archive" / getattr(second, kind).name
    sound = path.read_bytes()
    match damage:
        case "missing":
            path.unlink()
        case "truncated":
            path.write_bytes(sound[: len(sound) // 2])
        case "swapped":
            path.write_bytes(other.read_bytes())
        case "foreign":
            path.write_bytes(b"PAR1 no such thing PAR1".ljust(len(sound), b"1"))
        case "changed":
            # One bit anywhere, where no page of Parquet may show it.
            path.write_bytes(sound[:-6] + bytes([sound[-6] ^ 1]) + sound[-5:])
    assert getattr(first, kind).name in place.run("archive", "verify", "--offline", expect=3)[1]
    place.run("archive", "verify", "--jobs", "1", "--mend")
    place.run("archive", "verify", "--all")
    assert place.archive.search(EVERYTHING) == before
    assert path.exists()


@pytest.mark.parametrize("odd", ["nowhere", "itself", "zeros", "pipe"])
def test_what_is_no_file_in_the_place_of_one_is_mended(place: Place, odd: str) -> None:
    place.build()
    before = place.archive.search(EVERYTHING)
    path = place.folder / "archive" / manifest_of(place).runs[0].ranges[1].rows.name
    path.unlink()
    match odd:
        case "nowhere":
            path.symlink_to(place.folder / "nowhere" / "at all")
        case "itself":
            path.symlink_to(path.name)
        case "zeros":
            path.symlink_to("/dev/zero")
        case "pipe":
            os.mkfifo(path)
    assert path.name in place.run("search", "*@example.com", expect=3)[1]
    place.run("archive", "verify", "--jobs", "1", "--mend")
    assert place.archive.search(EVERYTHING) == before


def test_a_file_that_no_manifest_names_is_named_and_changes_no_answer(place: Place) -> None:
    place.build()
    before = place.archive.search(EVERYTHING)
    assert "does not name" not in place.run("archive", "verify", "--offline")[1]
    path = place.folder / "archive" / first_range(place).rows.name
    for number in range(12):
        shutil.copy(path, path.with_name(f"copy-{number:02d}.parquet"))
    said = place.run("archive", "verify", "--offline")[1]
    assert "rekor-v2/rows/copy-00.parquet: the manifest does not name it, and no search reads it" in said
    assert "and 2 more such files" in said
    assert place.archive.search(EVERYTHING) == before


def test_a_folder_in_the_place_of_a_file_is_named_with_what_to_do(place: Place) -> None:
    place.build()
    path = place.folder / "archive" / manifest_of(place).runs[0].ranges[1].rows.name
    path.unlink()
    path.mkdir()
    said = place.run("archive", "verify", "--jobs", "1", "--mend", expect=3)[1]
    assert f"{path}: a folder stands in the place of the file. Move it away" in said
    path.rmdir()
    place.run("archive", "verify", "--jobs", "1", "--mend")


def test_a_lost_manifest_is_told_and_built_again_by_one_command(place: Place) -> None:
    place.build()
    before = place.archive.search(EVERYTHING)
    (place.folder / "archive" / "rekor-v2" / "archive.json").unlink()
    for command in (("search", "*@example.com"), ("archive", "verify", "--offline")):
        said = place.run(*command, expect=3)[1]
        assert "rekor-v2/archive.json is missing, and 4 files of entries are there" in said
        assert "`signwatch archive verify --mend --log rekor-v2`" in said
    place.build()
    place.run("archive", "verify", "--all")
    assert place.archive.search(EVERYTHING) == before


def test_a_copied_folder_is_named_with_what_to_do(place: Place) -> None:
    place.build()
    archive = place.folder / "archive"
    shutil.copytree(archive / "rekor-v2", archive / "copy")
    assert "move the folder copy away" in place.run("search", "*@example.com", expect=3)[1]


@pytest.mark.parametrize(
    ("change", "with_index", "offline"),
    [(other_identity, False, True), (other_identity, True, False), (dropped_row, True, True), (other_hash, True, True)],
)
def test_a_row_that_does_not_say_what_the_entry_says_is_found(
    place: Place, change: Callable[[pa.Table], pa.Table], with_index: bool, offline: bool
) -> None:
    place.build()
    rewritten(place, change, with_index=with_index)
    # A changed row with an index to match can only be seen against the log's own bytes.
    place.run("archive", "verify", "--offline", expect=3 if offline else 0)
    place.run("archive", "verify", "--all", expect=3)
    place.run("archive", "verify", "--all", "--jobs", "1", "--mend")
    place.run("archive", "verify", "--all")


def test_a_changed_row_and_its_index_do_not_fit_the_search_map(place: Place) -> None:
    place.build()
    rewritten(place, other_identity, with_index=True, with_maps=False)
    assert "search map of entries 0 to 63" in place.run("archive", "verify", "--offline", expect=3)[1]
    place.run("archive", "verify", "--all", "--jobs", "1", "--mend")
    place.run("archive", "verify", "--all")


def test_a_log_that_shows_other_entries_now_mends_nothing(place: Place) -> None:
    place.build()
    (place.folder / "archive" / first_range(place).rows.name).unlink()
    place.served.log.served[10] = place.served.log.leaves[11]
    assert place.run("archive", "verify", "--offline", expect=3)
    place.run("archive", "verify", "--sample", "0", "--jobs", "1", "--mend", expect=1)
    assert not (place.folder / "archive" / first_range(place).rows.name).exists()


def test_compaction_opens_fewer_files_and_changes_no_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.served.log.append(*varied_bodies(130, 200))
    place.build()
    queries = [
        EVERYTHING,
        Query("dev3@example.com", limit=999),
        Query("https://github.com/org1/", match=MatchMode.PREFIX),
    ]
    before = [place.archive.search(query, per_day=True) for query in queries]
    manifest = manifest_of(place)
    (group,) = compactable(manifest, RANGE, 4)
    monkeypatch.setattr(compacting, "_SPLIT", 3)
    compact(ManifestWriter(place.files, manifest.identity), group)
    (run,) = manifest_of(place).runs
    run.check()
    assert [(each.first, each.last) for each in run.ranges] == [(0, 256), (256, 320), (320, 330)]
    assert [place.archive.search(query, per_day=True) for query in queries] == before
    joined = run.ranges[0]
    rows = read_made(place.files, manifest_of(place), joined)
    assert read_index(place.files, manifest_of(place), joined).equals(index_of(rows, 0))
    place.run("archive", "verify", "--all")
    on_disk = {path.name for path in (place.folder / "archive").rglob("*.parquet")}
    assert on_disk == {Path(file.name).name for each in run.ranges for file in (each.rows, each.index)}
    place.served.log.append(*varied_bodies(10, 330))
    place.build()
    assert manifest_of(place).spans() == [(0, 340)]


def test_an_answer_that_is_handed_on_while_its_files_are_joined_lacks_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.served.log.append(*varied_bodies(130, 200))
    place.build()
    before = [row.index for row in place.archive.search(EVERYTHING).rows]
    monkeypatch.setattr(search, "_STREAMED", 10)
    damaged: dict[str, list[tuple[int, int, str]]] = {}
    tables = place.archive.stream(EVERYTHING, damaged)
    found = next(tables)["index"].to_pylist()
    manifest = manifest_of(place)
    (group,) = compactable(manifest, RANGE, 4)
    compact(ManifestWriter(place.files, manifest.identity), group)
    assert found[-1] < group[0].last < group[-1].last, "control: most of its files are gone now"
    found += [index for table in tables for index in table["index"].to_pylist()]
    assert found == sorted(before)
    assert damaged == {}


def test_another_reader_of_the_files_counts_the_same(place: Place) -> None:
    place.build()
    files = str(place.folder / "archive" / "rekor-v2" / "rows" / "*.parquet")
    with duckdb.connect() as other:
        days = other.execute(
            "SELECT CAST(time AS DATE) AS day, count(*) FROM read_parquet(?) "
            "WHERE list_contains(list_transform(identities, lambda x: lower(x)), 'dev3@example.com') GROUP BY day",
            [files],
        ).fetchall()
    answer = place.archive.search(Query("dev3@example.com"), per_day=True)
    assert dict(days) == answer.per_day
    assert answer.total == sum(count for _, count in days) > 0


def test_the_index_holds_each_entry_once_however_its_values_are_spelled() -> None:
    table = pa.table(
        {
            "index": [7, 8],
            "leaf_hash": pa.array([b"1" * 32, b"2" * 32], pa.binary(32)),
            "identities": [["A@x", "a@X"], ["Pat <p@x>"]],
            **{name: pa.array([[], []], pa.list_(pa.string())) for name in ("issuers", "repositories", "workflows")},
            "chains": [["trusted"], ["key"]],
            **{name: pa.array([[], []], pa.list_(pa.binary())) for name in ("digests", "fingerprints", "keys")},
        }
    )
    lines = index_of(table, 7).to_pylist()
    assert lines == [
        {"key": b"\x01a@x", "entries": [0]},
        {"key": b"\x01p@x", "entries": [1]},
        {"key": b"\x01pat <p@x>", "entries": [1]},
        {"key": b"\x0711111111", "entries": [0]},
        {"key": b"\x0722222222", "entries": [1]},
        {"key": b"\x08all", "entries": [0]},
    ]

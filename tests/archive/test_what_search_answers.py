"""What a search promises: every log in one answer, times and their sources, what it covers, and how little it reads."""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from fastapi import FastAPI
from msgspec.structs import replace

from monitor.archive.answer import LogSearchCoverage
from monitor.archive.building import RowMaker
from monitor.archive.files import ArchiveFault, ArchiveFiles
from monitor.archive.map_answers import answer_document
from monitor.archive.query import BadQuery, MatchMode, Query, read_moment
from monitor.archive.ranges import ArchivedRun, ArchiveManifest, to_json
from monitor.archive.rows import rows_of
from monitor.archive.search import Archive
from monitor.archive.search_index import KeyKind
from monitor.archive.writing import manifest_name, read_manifest, write_range
from monitor.backscan.archiving import archive_range
from monitor.backscan.range import ScanEnvironment
from monitor.config import WebConfig
from monitor.daemon import rekor_search
from monitor.daemon.rekor_search import load_key, search_router
from monitor.daemon.web_server import WebServer
from monitor.following.follower import Timing
from monitor.model.log_source import LogApi, LogEntry, LogSource, SignedHead
from monitor.program import utc_now
from tests.archive.conftest import GITHUB, Place, varied_bodies
from tests.archive.test_search_map import LOG, rows_of_entries
from tests.support.entries import NOT_BEFORE, hashedrekord_v1, hashedrekord_v2, make_certificate, x509_leaf
from tests.support.misbehaving_log import CtRfc6962Log, RekorV1Log, RekorV2Log
from tests.support.served_log import CA
from tests.support.waiting import PATIENCE
from tlog.merkle import Frontier

ME = "you@example.com"
WORLD = ScanEnvironment(Timing(utc_now, lambda _: None), patience=(), pauses=())


def certificate(number: int) -> bytes:
    """Mine, an hour later each."""
    return make_certificate(CA, san=ME, not_before=NOT_BEFORE + timedelta(hours=number), serial=number + 1)


@pytest.fixture
def logs() -> list[LogSource]:
    """One log of each kind that is archived from bytes alone; each has three entries of mine."""
    return [
        RekorV1Log([hashedrekord_v1(certificate(number), f"{number:064x}") for number in (0, 3, 6)]).source(),
        RekorV2Log([hashedrekord_v2(certificate(number), f"{number:064x}") for number in (1, 4, 7)]).source(),
        CtRfc6962Log(
            [x509_leaf(certificate(number), at=NOT_BEFORE + timedelta(hours=number)) for number in (2, 5, 8)]
        ).source(),
    ]


@pytest.fixture
def archive(logs: list[LogSource], tmp_path: Path) -> Archive:
    files = ArchiveFiles(str(tmp_path / "archive"))
    for source in logs:
        archive_range(source, files, None, 0, 3, store=None, rows=RowMaker(1, lambda: None), world=WORLD)
    return Archive(files, ["v1", "v2", "ct", "not-archived"])


def test_one_answer_holds_every_archived_log_and_names_the_others(archive: Archive) -> None:
    answer = archive.search(Query(ME), per_day=True)
    assert answer.total == 9
    assert {row.log for row in answer.rows} == {"v1", "v2", "ct"}
    times = [row.time for row in answer.rows if row.time is not None]
    assert times == sorted(times, reverse=True)
    assert [each.log for each in answer.coverage.logs] == ["ct", "v1", "v2"]
    assert all(each.complete for each in answer.coverage.logs)
    assert "not covered: not-archived" in answer.coverage.sentences()
    assert not answer.coverage.complete
    only = archive.search(Query(ME, logs=frozenset({"v2"})))
    assert {row.log for row in only.rows} == {"v2"}
    assert only.coverage.complete


def test_a_time_comes_with_its_source(archive: Archive) -> None:
    sources = {row.log: row.time_source for row in archive.search(Query(ME)).rows}
    assert sources == {"v1": "integrated-time", "v2": "certificate-not-before", "ct": "ct-timestamp"}
    assert all(row.not_before is not None for row in archive.search(Query(ME)).rows)
    bare = rows_of([LogEntry(varied_bodies(3)[2])], 0, "v2", LogApi.REKOR_V2, None).to_pylist()[0]
    assert (bare["kind"], bare["time"], bare["time_source"]) == ("unreadable", None, None)


def test_uuids_of_version_1_and_2_logs_are_resolved_by_one_server(
    archive: Archive, logs: list[LogSource], tmp_path: Path
) -> None:
    app = FastAPI()
    app.include_router(search_router(archive, lambda: logs, load_key(tmp_path / "search-key.pem")))
    server = WebServer(app, WebConfig(("127.0.0.1", 0)))
    server.start()
    try:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE) as client:
            uuids = client.post("/api/v1/index/retrieve", json={"email": ME}).json()
            assert len(uuids) == 6, "those of Rekor logs"
            bodies = set()
            for uuid in uuids:
                document = client.get(f"/api/v1/log/entries/{uuid}").json()
                assert list(document) == [uuid]
                bodies.add(json.loads(base64.b64decode(document[uuid]["body"]))["apiVersion"])
                (again,) = client.post("/api/v1/log/entries/retrieve", json={"entryUUIDs": [uuid]}).json()
                assert again[uuid]["body"] == document[uuid]["body"]
            assert bodies == {"0.0.1", "0.0.2"}
            assert client.get("/api/v1/log/entries", params={"logIndex": 0}).status_code == 400, "of which tree?"
            picture = {"q": ME, "since": (NOT_BEFORE + timedelta(hours=7)).isoformat()}
            assert ": 2</title>" in client.get("/api/search.svg", params=picture).text
    finally:
        server.stop()


@contextmanager
def asked(archive: Archive, sources: Sequence[LogSource], folder: Path) -> Iterator[httpx.Client]:
    """A client of both APIs over an archive."""
    app = FastAPI()
    app.include_router(search_router(archive, lambda: sources, load_key(folder / "search-key.pem")))
    server = WebServer(app, WebConfig(("127.0.0.1", 0)))
    server.start()
    try:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE) as client:
            yield client
    finally:
        server.stop()


@pytest.fixture
def crowded(tmp_path: Path, small_ranges: None) -> Archive:
    """1,500 entries of mine in a Rekor log, one of another person, and 1,100 newer ones of mine in a CT log."""
    mine, other = certificate(0), make_certificate(CA, san="other@example.com", not_before=NOT_BEFORE, serial=7)
    bodies = [hashedrekord_v2(mine, f"{number:064x}") for number in range(1_500)]
    later = [x509_leaf(certificate(1), at=NOT_BEFORE + timedelta(hours=1, seconds=at)) for at in range(1_100)]
    rekor, ct = RekorV2Log([*bodies, hashedrekord_v2(other, f"{1_500:064x}")]), CtRfc6962Log(later)
    files = ArchiveFiles(str(tmp_path / "archive"))
    for source, size in ((rekor.source(), 1_501), (ct.source(), 1_100)):
        archive_range(source, files, None, 0, size, store=None, rows=RowMaker(1, lambda: None), world=WORLD)
    return Archive(files, ["v2", "ct"])


def test_rekors_search_filters_and_combines_before_it_cuts(crowded: Archive, tmp_path: Path) -> None:
    with asked(crowded, (), tmp_path) as client:

        def told(**query: object) -> tuple[int, str, str, str]:
            answer = client.post("/api/v1/index/retrieve", json=query)
            assert answer.status_code == 200, answer.text
            names = ("matches", "left-out", "coverage")
            matches, left_out, coverage = (answer.headers[f"x-signwatch-{name}"] for name in names)
            return len(answer.json()), matches, left_out, coverage

        my_third, of_another = f"sha256:{3:064x}", f"sha256:{1_500:064x}"
        assert told(email=ME) == (1_000, "1500", "500", "cut"), "newer entries of the CT log take no place"
        assert told(email=ME, hash=my_third, operator="and") == (1, "1", "0", "complete")
        assert told(email=ME, subject=ME, hash=my_third, operator="and") == (1, "1", "0", "complete")
        assert told(email=ME, hash=of_another, operator="and") == (0, "0", "0", "complete")
        assert told(email=ME, hash=of_another) == (1_000, "1501", "501", "cut")
        assert told(email=ME, hash=my_third, operator="or") == (1_000, "1500", "500", "cut"), "an entry counts once"
        assert told(hash=of_another, subject="other@example.com") == (1, "1", "0", "complete")
        answer = client.get("/api/search", params={"q": ME, "limit": 2}).json()
        assert (len(answer["rows"]), answer["total"], answer["left_out"]) == (2, 2_600, 2_598)


def test_rekors_search_says_that_a_bounded_search_is_partial(
    crowded: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rekor_search, "MOST_OF_A_PAGE", 300)
    with asked(crowded, (), tmp_path) as client:
        query = {"email": ME, "hash": f"sha256:{3:064x}", "operator": "and"}
        answer = client.post("/api/v1/index/retrieve", json=query)
    assert (answer.json(), answer.headers["x-signwatch-coverage"]) == ([], "partial")


def test_an_entry_that_an_unread_log_may_have_is_not_said_to_be_absent(archive: Archive, tmp_path: Path) -> None:
    (kept, lost) = (archive.search(Query(ME, logs=frozenset({log}))).rows[0] for log in ("v2", "v1"))
    (tmp_path / "archive" / "v1" / "archive.json").write_text("{")
    api = rekor_search.RekorApi(archive, list, load_key(tmp_path / "search-key.pem"))
    assert api.row_of(kept.leaf_hash) == kept
    with pytest.raises(ArchiveFault, match=r"v1/archive.json"):
        api.row_of(lost.leaf_hash)
    with pytest.raises(ArchiveFault, match=r"v1/archive.json"):
        api.row_at(0)


def test_an_archive_without_a_log_covers_nothing(tmp_path: Path) -> None:
    with asked(Archive(ArchiveFiles(str(tmp_path / "archive"))), (), tmp_path) as client:
        answer = client.post("/api/v1/index/retrieve", json={"email": ME})
        assert (answer.json(), answer.headers["x-signwatch-coverage"]) == ([], "partial")
        assert not client.get("/api/search", params={"q": ME}).json()["coverage"]["complete"]


def test_an_answer_says_which_signed_head_it_covers() -> None:
    at = datetime(2026, 11, 28, tzinfo=UTC)
    whole = LogSearchCoverage("ct-2022", ((0, 81_234_567),), 81_234_567, at)
    assert whole.sentence() == "complete for ct-2022, entries 0 to 81234566 (signed head of 2026-11-28T00:00:00Z)"
    later = replace(whole, spans=((1_000_000, 81_234_567),))
    assert later.sentence() == "ct-2022: entries 1000000 to 81234566 of 81234567 (signed head of 2026-11-28T00:00:00Z)"
    assert not later.complete
    gaps = replace(whole, damaged=((0, 65_536, "it is gone"),), unreadable=1, defective=2, unsearched=((0, 9),))
    for part in ("not 0 to 65535: it is gone", "1 entry", "only in part: 2", "0 to 8 were not searched"):
        assert part in gaps.sentence()
    assert not gaps.complete


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("30d", NOT_BEFORE - timedelta(days=30)),
        ("2w", NOT_BEFORE - timedelta(weeks=2)),
        ("36h", NOT_BEFORE - timedelta(hours=36)),
    ],
)
def test_a_time_is_read_as_people_write_it(text: str, moment: datetime) -> None:
    assert read_moment(text, NOT_BEFORE) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "d", "-3d", "999999d", "2026-02-30", "\u0661d", "1" * 300 + "d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadQuery, match="write 2026-01-31"):
        read_moment(text, NOT_BEFORE)


def test_the_command_bounds_kind_and_time(place: Place) -> None:
    place.build()
    issuer, _ = place.found(GITHUB)
    assert place.found(GITHUB, "--kind", "identity")[0] == []
    assert place.found(GITHUB, "--kind", "issuer")[0] == issuer != []
    workflow = next(each for each in issuer if len(each["identities"]) == 1)["identities"][0]
    assert place.found(workflow, "--kind", "workflow")[0] == place.found(workflow, "--kind", "identity")[0] != []
    since, until = NOT_BEFORE + timedelta(hours=50), NOT_BEFORE + timedelta(hours=130)
    inside, _ = place.found("*", "--since", since.isoformat(), "--until", until.isoformat())
    indexes = [each["index"] for each in inside if each["time"] is not None]
    assert (min(indexes), max(indexes)) == (51, 129)
    place.run("search", "*", "--since", "yesterday", expect=2)
    place.run("search", "*", "--kind", "colour", expect=2)
    both, _ = place.found(GITHUB, "--kind", "issuer", "--kind", "identity")
    assert both == issuer


def test_a_value_of_most_entries_stays_one_line_of_a_complete_answer(place: Place) -> None:
    """A line holds a count and a root: an issuer's is as long as a person's."""
    place.build()
    manifest = read_manifest(place.files, "rekor-v2")
    assert manifest is not None
    asked = [(KeyKind.ISSUER, GITHUB), (KeyKind.IDENTITY, "dev3@example.com"), (KeyKind.IDENTITY, "absent@example.com")]
    issuer, person, absent = answer_document(place.files, manifest, asked, most=0)["answers"]
    for of_issuer, of_person in zip(issuer["maps"], person["maps"], strict=True):
        assert of_issuer["line"]["count"] > 3 * of_person["line"]["count"]
        fields = [
            {name: value for name, value in each["line"].items() if not isinstance(value, list)}
            for each in (of_issuer, of_person)
        ]
        assert abs(len(json.dumps(fields[0])) - len(json.dumps(fields[1]))) < 10
        assert all(len(json.dumps(each)) < 4_000 for each in (of_issuer, of_person))
    assert max(len(json.dumps(each)) for each in absent["maps"]) < 4_000
    assert all("line" not in each for each in absent["maps"])


class Counted(io.FileIO):
    """A file that counts the bytes read from it."""

    total = 0

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(-1 if size is None else size)
        Counted.total += len(found)
        return found

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        Counted.total += count
        return count


def test_an_exact_look_up_reads_a_few_pages_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    width = 1 << 16
    entries = [([f"dev{number}@example.com"], sha256(f"{number}".encode()).digest()) for number in range(width)]
    files = ArchiveFiles(str(tmp_path))
    written = write_range(files, LOG, rows_of_entries(entries, 0))
    run = ArchivedRun(Frontier(0, ()), (written,), SignedHead(LOG.log, 0, Frontier(0, ()).root(), b""))
    run = replace(run, head=SignedHead(LOG.log, width, run.end().root(), b""))
    files.write(manifest_name(LOG.log), to_json(ArchiveManifest(LOG, (run,))))
    whole = written.rows.size + written.index.size
    opened: list[Counted] = []

    def counted(_self: ArchiveFiles, name: str) -> pa.NativeFile:
        opened.append(Counted(tmp_path / name))
        return pa.PythonFile(opened[-1], "r")

    monkeypatch.setattr(ArchiveFiles, "open", counted)
    for text in ("dev4711@example.com", entries[4711][1].hex()):
        Counted.total = 0
        answer = Archive(files).search(Query(text))
        assert [row.index for row in answer.rows] == [4711]
        assert 0 < Counted.total < whole / 5, (text, Counted.total, whole)
    Counted.total = 0
    assert sum(map(len, Archive(files).stream(Query("dev", match=MatchMode.PREFIX), {}))) == width
    assert Counted.total > whole / 2, "control: bytes are counted"
    for each in opened:
        each.close()

"""An archive in an S3-compatible object store, through pyarrow's own client: what a folder holds, it holds."""

import os
from collections.abc import Iterator
from secrets import token_hex
from typing import Any
from urllib.request import Request, urlopen

import httpx
import pytest
from moto.server import ThreadedMotoServer

from monitor.archive import compacting
from monitor.archive.compacting import compactable
from monitor.archive.files import ArchiveFault, ArchiveFiles
from monitor.archive.query import MatchMode, Query
from monitor.archive.search import Archive
from monitor.archive.writing import read_manifest
from monitor.commands import archive as archive_command
from tests.archive.conftest import RANGE, Place, readable_bodies, varied_bodies
from tests.archive.daemon import running
from tests.archive.test_dying import Died, grow, is_sound, shrink
from tests.support.misbehaving_log import RekorV2Log
from tests.support.served_log import signing_body

EVERYTHING = Query("*", match=MatchMode.GLOB, limit=1000)


class Store:
    """An object store on loopback; its objects outlive the server."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        self._at = self._server.get_host_and_port()
        host, port = self._at
        urlopen(Request(f"http://{host}:{port}/archive", method="PUT"), timeout=30).close()
        # One bucket for all tests: moto keeps it as long as the process lives.
        self.uri = f"s3://archive/{token_hex(8)}?endpoint_override=http%3A%2F%2F{host}%3A{port}&region=us-east-1"

    def stop(self) -> None:
        self._server.stop()

    def start_again(self) -> None:
        self._server = ThreadedMotoServer(*self._at, verbose=False)
        self._server.start()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with an empty folder."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in [each for each in os.environ if each.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    made = Store()
    yield made
    made.stop()


@pytest.fixture
def bucket(store: Store) -> str:
    """URI of an empty folder of the store."""
    return store.uri


def kept_in(place: Place, bucket: str) -> ArchiveFiles:
    """Let the configuration name the store."""
    config = place.served.config.read_text()
    place.served.config.write_text(config.replace("location: archive,", f'location: "{bucket}",'))
    return ArchiveFiles(bucket)


def test_an_archive_in_an_object_store_is_built_grown_searched_verified_and_mended(place: Place, bucket: str) -> None:
    place.build()
    files = kept_in(place, bucket)
    place.build("--to", "150")
    place.build()
    assert Archive(files).search(EVERYTHING, per_day=True) == place.archive_in_folder().search(EVERYTHING, per_day=True)
    place.served.log.append(*varied_bodies(30, 200))
    place.build()
    manifest = read_manifest(files, "rekor-v2")
    assert manifest is not None
    assert manifest.spans() == [(0, 230)]
    place.run("archive", "verify", "--all")
    each = manifest.runs[0].ranges[1]
    files.remove(each.rows.name)
    files.write(each.index.name, b"PAR1 something else PAR1")
    assert each.rows.name in place.run("archive", "verify", "--offline", expect=3)[1]
    place.run("archive", "verify", "--jobs", "1", "--mend")
    place.run("archive", "verify", "--all")
    named = {file.name for run in manifest.runs for part in run.ranges for file in (part.rows, part.index)}
    assert set(files.names(".parquet")) == named


def test_ranges_in_an_object_store_are_joined(place: Place, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compacting, "_SPLIT", 3)
    place.served.log.leaves[:] = varied_bodies(5 * RANGE)
    files = kept_in(place, bucket)
    place.build()
    before = Archive(files).search(EVERYTHING, per_day=True)
    monkeypatch.setattr(archive_command, "compactable", lambda manifest: compactable(manifest, RANGE, 4))
    place.run("archive", "compact")
    manifest = read_manifest(files, "rekor-v2")
    assert manifest is not None
    assert len(manifest.runs[0].ranges) < 5
    assert Archive(files).search(EVERYTHING, per_day=True) == before
    place.run("archive", "verify", "--all")
    named = {file.name for run in manifest.runs for part in run.ranges for file in (part.rows, part.index)}
    assert set(files.names(".parquet")) == named


def test_the_daemon_archives_to_an_object_store_and_catches_up_after_the_store_was_down(
    place: Place, store: Store
) -> None:
    files = kept_in(place, store.uri)
    place.served.log.leaves[:] = readable_bodies(20)
    config = place.served.config.read_text().replace("poll_seconds: 1", "poll_seconds: 1, start: 0")
    place.served.config.write_text(config)
    place.run("init")
    with running(place.served) as daemon:

        def status() -> dict[str, Any]:
            found: dict[str, Any] = httpx.get(f"{daemon.url}/api/status.json", trust_env=False, timeout=30).json()
            return found

        def archived(last: int) -> bool | None:
            manifest = read_manifest(files, "rekor-v2")
            return (manifest is not None and manifest.spans() == [(0, last)]) or None

        daemon.until(lambda: archived(20))
        store.stop()
        place.served.log.append(*[signing_body() for _ in range(5)])
        daemon.until(lambda: status()["logs"][0]["verified_size"] == 25 or None)
        daemon.until(lambda: "archive" in " ".join(status()["reasons"]) or None)
        store.start_again()
        daemon.until(lambda: archived(25))
        daemon.until(lambda: "archive" not in " ".join(status()["reasons"]) or None)
    place.run("archive", "verify", "--all")


def test_dying_between_two_writes_to_an_object_store_leaves_a_sound_archive_that_goes_on(
    store: Store, small_ranges: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compacting, "_SPLIT", 3)
    log = RekorV2Log(varied_bodies(300))
    steps: list[str] = []
    limit = 10_000

    def counted(name: str) -> None:
        real = getattr(ArchiveFiles, name)

        def step(files: ArchiveFiles, *arguments: Any) -> Any:
            if len(steps) >= limit:
                raise Died
            steps.append(name)
            return real(files, *arguments)

        monkeypatch.setattr(ArchiveFiles, name, step)

    counted("write")
    counted("remove")

    def archive(uri: str) -> None:
        grow(uri, log)
        shrink(uri, log)

    archive(store.uri.replace("?", "/undisturbed?"))
    wanted = Archive(ArchiveFiles(store.uri.replace("?", "/undisturbed?"))).search(EVERYTHING, per_day=True)
    total = len(steps)
    assert total > 15, "there must be enough steps to mean something"
    for number in range(0, total, 3):
        uri = store.uri.replace("?", f"/{number}?")
        steps.clear()
        limit = number
        with pytest.raises(Died):
            archive(uri)
        limit = 10_000
        is_sound(uri, log)
        archive(uri)
        assert Archive(ArchiveFiles(uri)).search(EVERYTHING, per_day=True) == wanted, f"after dying at step {number}"


def test_a_store_that_does_not_answer_is_our_own_trouble(store: Store) -> None:
    archive = Archive(ArchiveFiles(store.uri))
    assert archive.search(EVERYTHING).total == 0
    store.stop()
    with pytest.raises(ArchiveFault, match="archive"):
        archive.search(EVERYTHING)

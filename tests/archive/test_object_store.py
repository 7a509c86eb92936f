"""An archive in an S3-compatible object store, through pyarrow's own client: what a folder holds, it holds."""

import os
from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest
from moto.server import ThreadedMotoServer

from monitor.archive.files import ArchiveFault, ArchiveFiles
from monitor.archive.query import MatchMode, Query
from monitor.archive.search import Archive
from monitor.archive.writing import read_manifest
from tests.archive.conftest import Place, varied_bodies

EVERYTHING = Query("*", match=MatchMode.GLOB, limit=1000)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URI of an empty bucket on loopback."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in [each for each in os.environ if each.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    urlopen(Request(f"http://{host}:{port}/archive", method="PUT"), timeout=30).close()
    yield f"s3://archive/signwatch?endpoint_override=http%3A%2F%2F{host}%3A{port}&region=us-east-1"
    server.stop()


def test_an_archive_in_an_object_store_is_built_grown_searched_verified_and_mended(place: Place, bucket: str) -> None:
    place.build()
    config = place.served.config.read_text()
    place.served.config.write_text(config.replace("location: archive,", f'location: "{bucket}",'))
    files = ArchiveFiles(bucket)
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


def test_a_store_that_does_not_answer_is_our_own_trouble(place: Place) -> None:
    uri = "s3://archive/x?endpoint_override=http%3A%2F%2F127.0.0.1%3A1&region=us-east-1&request_timeout=1&connect_timeout=1"
    with pytest.raises(ArchiveFault, match="archive"):
        Archive(ArchiveFiles(uri)).search(EVERYTHING)

"""The trust root over TUF: real metadata, a real HTTP server, and what each kind of trouble is called."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ca_lite.tuf_repository import create_repository, publish_targets
from monitor.http_fetcher import HttpFetcher
from monitor.model.errors import FetchFailed, OwnFault
from monitor.trust.tuf import PUBLIC_GOOD, TrustRepository, first_root, repository_url

NOW = datetime.now(UTC)
OLD, NEW = b'{"trusted": "old"}', b'{"trusted": "new"}'


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        pass


@dataclass(frozen=True)
class Published:
    folder: Path
    keys: Path
    url: str

    def publish(self, trusted_root: bytes, when: datetime = NOW, more: Mapping[str, bytes] | None = None) -> None:
        publish_targets(self.folder, self.keys, {"trusted_root.json": trusted_root, **(more or {})}, when)

    def repository(self, kept: Path) -> TrustRepository:
        return TrustRepository(self.url, (self.folder / "root.json").read_bytes(), kept, HttpFetcher)


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Published]:
    folder, keys = tmp_path / "repository", tmp_path / "keys"
    folder.mkdir()
    keys.mkdir()
    (folder / "targets").mkdir()
    create_repository(folder, keys, NOW)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        published = Published(folder, keys, f"http://127.0.0.1:{server.server_address[1]}")
        published.publish(OLD)
        yield published
        server.shutdown()
        serving.join(10)


def test_a_refresh_returns_the_verified_documents_and_when_they_go_stale(published: Published, tmp_path: Path) -> None:
    published.publish(OLD, more={"signing_config.v0.2.json": b"{}"})
    documents = published.repository(tmp_path / "kept").refresh()
    assert (documents.trusted_root, documents.signing_configs, documents.root_version) == (OLD, (b"{}",), 1)
    assert documents.expires is not None
    assert NOW < documents.expires <= NOW + timedelta(days=7)


def test_a_rotation_is_seen_by_the_next_refresh(published: Published, tmp_path: Path) -> None:
    repository = published.repository(tmp_path / "kept")
    assert repository.refresh().trusted_root == OLD
    published.publish(NEW)
    assert repository.refresh().trusted_root == NEW


def test_a_target_that_was_changed_on_the_way_is_refused_and_the_last_good_one_stays(
    published: Published, tmp_path: Path
) -> None:
    published.repository(tmp_path / "kept").refresh()
    published.publish(NEW)
    for target in (published.folder / "targets").glob("*.trusted_root.json"):
        target.write_bytes(target.read_bytes().replace(b"new", b"bad"))
    with pytest.raises(FetchFailed, match="could not be refreshed: Observed hash"):
        published.repository(tmp_path / "kept").refresh()
    kept = (tmp_path / "kept" / "targets" / "trusted_root.json").read_bytes()
    assert kept == OLD


def test_metadata_that_expired_is_no_trust_root(published: Published, tmp_path: Path) -> None:
    published.publish(NEW, when=NOW - timedelta(days=400))
    with pytest.raises(FetchFailed, match="expired"):
        published.repository(tmp_path / "kept").refresh()


def test_metadata_by_another_root_key_is_refused(published: Published, tmp_path: Path) -> None:
    other, keys = tmp_path / "other", tmp_path / "other-keys"
    for folder in (other, keys):
        folder.mkdir()
    create_repository(other, keys, NOW)
    stranger = TrustRepository(published.url, (other / "root.json").read_bytes(), tmp_path / "kept", HttpFetcher)
    with pytest.raises(FetchFailed):
        stranger.refresh()


def test_an_unreachable_repository_is_an_outage(tmp_path: Path, published: Published) -> None:
    root = (published.folder / "root.json").read_bytes()
    with pytest.raises(FetchFailed, match="could not be refreshed"):
        TrustRepository("http://127.0.0.1:9", root, tmp_path / "kept", HttpFetcher).refresh()


def test_the_first_root_of_a_public_repository_is_known_and_of_a_private_one_must_be_given(tmp_path: Path) -> None:
    assert b'"_type": "root"' in first_root(repository_url("public-good"), None)
    assert repository_url("public-good") == PUBLIC_GOOD
    with pytest.raises(OwnFault, match=r"Name a root file"):
        first_root("https://tuf.example", None)
    with pytest.raises(OwnFault, match="cannot read"):
        first_root("https://tuf.example", tmp_path / "missing.json")

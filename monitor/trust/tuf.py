"""The trust root over TUF: the source of keys, logs and authorities, refreshed and checked by its signatures.

The public-good and staging repositories have names; a private one is a URL and a first root file. A folder keeps the
last verified documents, so that during an outage of the repository only their age grows.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.ngclient import FetcherInterface, Updater

from monitor.config import TrustConfig
from monitor.http_fetcher import MIB, Expect, Fetcher, HttpFetcher, Refused
from monitor.model.errors import BadConfig, FetchFailed, OwnFault
from monitor.trust.documents import TrustDocuments, keep_good

PUBLIC_GOOD: Final = "https://tuf-repo-cdn.sigstore.dev"
STAGING: Final = "https://tuf-repo-cdn.sigstage.dev"
_KNOWN: Final = {"public-good": PUBLIC_GOOD, "staging": STAGING}
_TRUSTED_ROOT: Final = "trusted_root.json"
# Production's default signing config names Rekor v1 only; the Rekor v2 shard stands in the second one.
_SIGNING_CONFIGS: Final = ("signing_config.v0.2.json", "signing_config_rekor_v2.v0.2.json")
_MAX_FILE: Final = 5 * MIB


def repository_url(name_or_url: str) -> str:
    """URL of a repository given as `public-good`, `staging` or a URL."""
    return _KNOWN.get(name_or_url, name_or_url).rstrip("/")


def first_root(url: str, root_file: Path | None) -> bytes:
    """Root metadata to begin with: the given file, or the one the `sigstore` package ships for its own repositories.

    Raises `OwnFault` without either: a root from the repository itself would prove nothing.
    """
    if root_file is not None:
        try:
            return root_file.read_bytes()
        except OSError as error:
            raise OwnFault(f"trust.tuf.root: cannot read {root_file}: {error.strerror}") from error
    try:
        stored = resources.files("sigstore._store") / quote(url, safe="") / "root.json"
        return stored.read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise OwnFault(
            f"trust.tuf: no first root for {url}. Name a root file you got from its operator (trust.tuf.root), or "
            "install signwatch with its [sign] extra, which brings the roots of the public repositories."
        ) from error


def refresh_configured(config: TrustConfig, now: datetime) -> TrustDocuments:
    """Refresh from the configured repository. Raises `FetchFailed`, `OwnFault`."""
    if config.tuf is None:
        raise OwnFault("trust: neither a file nor a repository is configured")
    url = repository_url(config.tuf)
    root = first_root(url, config.tuf_root)
    ca_file = str(config.ca_file) if config.ca_file is not None else None

    def fetcher(base: str) -> HttpFetcher:
        try:
            return HttpFetcher(base, ca_file=ca_file, proxy=config.proxy)
        except OwnFault as error:
            raise BadConfig(f"trust.{error}") from error

    return TrustRepository(url, root, config.folder, fetcher).refresh(now)


class TrustRepository:
    """One TUF repository; `folder` holds the last verified documents."""

    def __init__(self, url: str, root: bytes, folder: Path, fetcher: Callable[[str], HttpFetcher]) -> None:
        """`fetcher` makes a `Fetcher` for a base URL; `root` is the first root metadata."""
        self._url, self._root, self._folder = url, root, folder
        self._fetcher = fetcher

    def refresh(self, now: datetime | None = None) -> TrustDocuments:
        """Update metadata and targets (the TUF client workflow) and return them.

        Expiries are compared with `now`; the documents are stored with it for `last_good`.
        Raises `FetchFailed` when the repository does not answer or its files do not verify (the last good
        documents stay in the folder), `OwnFault` when the folder cannot be written.
        """
        try:
            with closing(self._fetcher(self._url)) as fetcher:
                documents = self._refresh(_Bytes(self._url, fetcher), now)
            if now is not None:
                keep_good(self._folder, documents, now)
        except (DownloadError, RepositoryError) as error:
            raise FetchFailed(f"trust root: {self._url} could not be refreshed: {error}.") from error
        except OSError as error:
            raise OwnFault(f"trust root: cannot write {self._folder}: {error.strerror or error}") from error
        return documents

    def _refresh(self, ask: FetcherInterface, now: datetime | None) -> TrustDocuments:
        metadata, targets = self._folder / "metadata", self._folder / "targets"
        for part in (metadata, targets):
            part.mkdir(parents=True, exist_ok=True, mode=0o700)
        updater = Updater(str(metadata), self._url, str(targets), f"{self._url}/targets/", ask, bootstrap=self._root)
        if now is not None:
            updater._trusted_set.reference_time = now  # noqa: SLF001  its only clock
        updater.refresh()
        trusted = _target(updater, _TRUSTED_ROOT)
        if trusted is None:
            raise RepositoryError(f"the repository has no target {_TRUSTED_ROOT}")
        configs = tuple(raw for name in _SIGNING_CONFIGS if (raw := _target(updater, name)) is not None)
        chain = updater._trusted_set  # noqa: SLF001  the only way to the versions that were verified
        expires = min(role.expires for role in (chain.root, chain.timestamp, chain.snapshot, chain.targets))
        return TrustDocuments(trusted, configs, chain.root.version, expires)


def _target(updater: Updater, name: str) -> bytes | None:
    info = updater.get_targetinfo(name)
    if info is None:
        return None
    if info.length > _MAX_FILE:
        raise RepositoryError(f"target {name} is {info.length} bytes long, more than {_MAX_FILE}")
    cached = updater.find_cached_target(info)
    return Path(cached or updater.download_target(info)).read_bytes()


class _Bytes(FetcherInterface):
    """Lets TUF use `HttpFetcher`: same caps, deadlines and refusals of redirects."""

    def __init__(self, url: str, fetcher: Fetcher) -> None:
        self._url, self._fetcher = url, fetcher

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = url.removeprefix(self._url).lstrip("/")
        try:
            body = self._fetcher.get(path, max_bytes=_MAX_FILE, expect=Expect.BYTES)
        except Refused as error:
            # TUF probes for the next root version; 403 or 404 means that none exists.
            raise DownloadHTTPError(str(error), error.status) from error
        except FetchFailed as error:
            raise DownloadError(str(error)) from error
        yield body

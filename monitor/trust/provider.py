"""Keeps the trust root current: read again from its file, or refreshed over TUF; the last good one stays in force."""

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from alerts.alert import rfc3339
from monitor.config import TrustConfig
from monitor.model.errors import FetchFailed, OwnFault
from monitor.trust.documents import TrustDocuments, last_good
from monitor.trust.history import TrustHistory
from monitor.trust.trust_root import MAX_SIZE, TrustRoot, read_trust_root
from sigstore_entries.trust import CertificateAuthorities, CtLogKey


class ConfirmedRoot(Struct, frozen=True):
    """A trust root, the time of its last confirmation, and the expiry of its metadata if it has any.

    `raw` is the file; `signing_configs` are the raw files that came with it.
    """

    root: TrustRoot
    refreshed_at: datetime
    expires: datetime | None = None
    raw: bytes = b""
    signing_configs: tuple[bytes, ...] = ()


class TrustKeeper:
    """Holds the newest trust root. Safe to use from several threads."""

    def __init__(self, config: TrustConfig, clock: Callable[[], datetime]) -> None:
        self._config, self._clock = config, clock
        self._lock, self._refreshing = threading.Lock(), threading.Lock()
        self._kept: ConfirmedRoot | None = None
        self._history = TrustHistory()
        self._authorities: tuple[CertificateAuthorities, tuple[CtLogKey, ...]] | None = None

    def refresh(self) -> bool:
        """Read or fetch the root again; true if it replaces a different root. Raises `FetchFailed`, `OwnFault`."""
        # Under a lock, because a TUF client keeps its metadata in files.
        with self._refreshing:
            try:
                return self._refresh()
            except FetchFailed as error:
                if self._kept is None:
                    raise
                raise FetchFailed(
                    f"{error} The keys verified last stay in force; rotations are not seen until a refresh succeeds."
                ) from error

    def _refresh(self) -> bool:
        if self._config.trusted_root is not None:
            raw = _read_capped("trust.trusted_root", self._config.trusted_root)
            configs = tuple(_read_capped("trust.signing_configs", path) for path in self._config.signing_configs)
            return self._keep(TrustDocuments(raw, configs, 0, None), self._clock())
        from monitor.trust.tuf import refresh_configured

        return self._keep(refresh_configured(self._config, self._clock()), self._clock())

    def _keep(self, documents: TrustDocuments, refreshed_at: datetime) -> bool:
        before = self._kept
        root = read_trust_root(documents.trusted_root)
        kept = ConfirmedRoot(root, refreshed_at, documents.expires, documents.trusted_root, documents.signing_configs)
        authorities = CertificateAuthorities(root.authorities), root.ct_keys()
        with self._lock:
            self._kept, self._authorities = kept, authorities
            self._history = self._history.followed_by(root, refreshed_at)
        return before is not None and before.root.fingerprint != root.fingerprint

    def kept(self) -> ConfirmedRoot:
        """The current trust root; fetched first if there is none, or the last verified one while no server answers.

        Raises `FetchFailed`, `OwnFault`.
        """
        if self._kept is None:
            try:
                self.refresh()
            except FetchFailed as error:
                if self._config.tuf is None or (last := last_good(self._config.folder)) is None:
                    raise FetchFailed(
                        f"{error} There is no verified trust root yet, so no log can be followed and nothing was "
                        "begun. "
                        "Check the network and `trust.tuf`; behind a proxy set `trust.proxy`, behind a TLS authority "
                        "of your own `trust.ca_file`; or fetch the trusted root elsewhere and name it as "
                        "`trust.trusted_root`."
                    ) from error
                # Its age counts from the last refresh, so that it becomes stale and causes an alert like any root.
                self._keep(last.documents, last.refreshed_at)
        with self._lock:
            if self._kept is None:
                raise OwnFault("trust root: nothing was read yet")
            return self._kept

    def remember(self, past: TrustHistory) -> None:
        """Add the roots that came before the current one."""
        kept = self.kept()
        with self._lock:
            self._history = past.followed_by(kept.root, kept.refreshed_at)

    def history(self) -> TrustHistory:
        """Every known root, the one in force last. Raises `FetchFailed`, `OwnFault`."""
        self.kept()
        with self._lock:
            return self._history

    def current(self) -> TrustRoot:
        """Trust root in force. Raises `FetchFailed` when the last refresh is older than allowed."""
        kept = self.kept()
        if self._clock() - kept.refreshed_at > self._config.stale_after:
            raise FetchFailed(f"trust root: last refreshed {rfc3339(kept.refreshed_at)}, longer ago than allowed")
        return kept.root

    def authorities(self) -> tuple[CertificateAuthorities, tuple[CtLogKey, ...]]:
        """Authorities that may issue certificates, and the keys of CT logs, for `monitor.judging.judge.RuleJudge`."""
        self.kept()
        with self._lock:
            if self._authorities is None:
                raise OwnFault("trust root: nothing was read yet")
            return self._authorities


def _read_capped(key: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SIZE + 1)
    except OSError as error:
        raise OwnFault(
            f"{key}: {path} cannot be read: {error.strerror}. Without keys no log can be verified: name "
            "the trusted root of your Sigstore deployment (for ca-lite: DIR/trust/trusted_root.json)."
        ) from error

"""Loads a CA directory, and loads files again that an operator changes while the server runs."""

import logging
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final, Generic, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from ca_lite.authority import Authority, IssuingChain
from ca_lite.chains import check_chain
from ca_lite.ct_client import CtClient
from ca_lite.errors import ConfigError
from ca_lite.issuer_config import load_issuers
from ca_lite.issuers import Issuers
from ca_lite.journal import Journal
from ca_lite.keys import now, read_chain, read_limited, read_private_key, write_secret
from ca_lite.login import DevelopmentLogin, Login, PasswordLogin
from ca_lite.metrics import CaMetrics
from ca_lite.oidc_flows import Flows
from ca_lite.oidc_keys import CombinedKeys, OwnKeys
from ca_lite.rate_limit import RateLimiter
from ca_lite.settings import CaSettings, Layout, load_settings, own_issuers
from ca_lite.setup import load_log_trust
from ca_lite.timestamp import TimestampAuthority
from ca_lite.users import Users, read_users

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_LOOK_AGAIN_SECONDS: Final = 1.0


class Reloaded(Generic[_T]):
    """A value loaded from files, and loaded again when one of them changes.

    The old value stays if the new files are invalid.
    """

    def __init__(self, paths: tuple[Path, ...], load: Callable[[], _T]) -> None:
        self._paths = paths
        self._load = load
        self._stamp = self._current_stamp()
        self._value = load()
        self._looked = time.monotonic()

    def __call__(self) -> _T:
        """Current value."""
        if time.monotonic() - self._looked >= _LOOK_AGAIN_SECONDS:
            self._looked = time.monotonic()
            stamp = self._current_stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                self._try()
        return self._value

    def _try(self) -> None:
        try:
            self._value = self._load()
            _log.info("reloaded", extra={"paths": [path.name for path in self._paths]})
        except ConfigError as error:
            _log.error("reload-failed: still using what was loaded before: %s", error)

    def _current_stamp(self) -> tuple[int, ...]:
        return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in self._paths)


class CaService:
    """Everything the HTTP end points need. Raises `ConfigError` when the directory cannot be served."""

    def __init__(self, layout: Layout, passphrase: bytes | None = None) -> None:
        self.layout = layout
        self.settings: CaSettings = load_settings(layout)
        self.metrics = CaMetrics()
        self._passphrase = passphrase
        self.own_keys = OwnKeys(layout.oidc)
        self.own_keys.current()
        self.issuers: Reloaded[Issuers] = Reloaded((layout.issuers,), self._load_issuers)
        issuing_files = (layout.log_trust, layout.chains / "ca.pem", layout.private / "ca.pem")
        self.issuing: Reloaded[IssuingChain] = Reloaded(issuing_files, self._load_issuing)
        self.timestamping = self._load_timestamping()
        self.users: Reloaded[Users] = Reloaded((layout.users,), lambda: read_users(layout.users))
        self.login: Login = self._load_login()
        self.flows = Flows(lambda: secrets.token_urlsafe(32), secrets.choice)
        self.journal = Journal.open(layout.journal)
        own_urls = frozenset(own_issuers(self.settings.url).values())
        self.authority = Authority(
            issuing=self.issuing,
            issuers=self.issuers,
            key_source=CombinedKeys(self.own_keys, own_urls),
            journal=self.journal,
            limiter=RateLimiter(self.settings.rate_limit.per_minute, self.settings.rate_limit.burst),
            algorithms=self.settings.client_signing_algorithms,
            lifetime=timedelta(seconds=self.settings.certificate_lifetime_seconds),
            clock=now,
            on_ct=self.metrics.ct_seconds.observe,
        )

    def served_issuer(self, name: str) -> str | None:
        """URL of one of our own issuers by its path (`""`, `"github"`, `"uri"`), None unless configured."""
        url = next((each for each in own_issuers(self.settings.url).values() if each == self._own_url(name)), None)
        return url if url is not None and url in self.issuers().exact else None

    def _own_url(self, name: str) -> str:
        base = own_issuers(self.settings.url)["email"]
        return f"{base}/{name}" if name else base

    def _load_login(self) -> Login:
        wanted = self.settings.login_issuer
        if wanted is not None and self.issuers().find(wanted) is None:
            raise ConfigError(
                f"ca.yaml: login_issuer {wanted} is not in issuers.yaml: clients would get useless tokens"
            )
        if not self.settings.development_login:
            return PasswordLogin(self.users)
        path = self.layout.login_secret
        if not path.exists():
            write_secret(path, secrets.token_urlsafe(24).encode() + b"\n")
        _log.warning(
            "development-login: %s can sign as any person; set `development_login: false` in ca.yaml for anything "
            "but development",
            "the holder of private/login-secret",
        )
        return DevelopmentLogin(read_limited(path).decode("ascii", "replace").strip())

    def _load_issuers(self) -> Issuers:
        issuers = load_issuers(read_limited(self.layout.issuers).decode("utf-8", "replace"), str(self.layout.issuers))
        for warning in issuers.warnings:
            _log.warning("issuer-warning: %s", warning)
        return issuers

    def _load_issuing(self) -> IssuingChain:
        path = self.layout.chains / "ca.pem"
        chain = read_chain(path)
        key = read_private_key(self.layout.private / "ca.pem", self._passphrase)
        check_chain(chain, key, ExtendedKeyUsageOID.CODE_SIGNING, str(path))
        self.metrics.show_expiry("ca", chain[0].not_valid_after_utc)
        ct = CtClient.connect(load_log_trust(self.layout).ct_log(), self.settings.ct_timeout_seconds)
        return IssuingChain(chain, key, ct)

    def _load_timestamping(self) -> TimestampAuthority:
        path = self.layout.chains / "tsa.pem"
        chain = read_chain(path)
        key = read_private_key(self.layout.private / "tsa.pem", self._passphrase)
        check_chain(chain, key, ExtendedKeyUsageOID.TIME_STAMPING, str(path))
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{path}: the timestamp authority's key must be EC")
        self.metrics.show_expiry("tsa", chain[0].not_valid_after_utc)
        return TimestampAuthority(key, chain, x509.random_serial_number, self.settings.timestamp_policy)

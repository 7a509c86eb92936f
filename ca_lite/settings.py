"""The directory of one CA: its files, and `ca.yaml` as values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ca_lite.errors import ConfigError
from ca_lite.keys import read_limited
from ca_lite.proof import ALGORITHMS
from ca_lite.timestamp import DEFAULT_POLICY

# SPEC Sigstore clients: the audience of every token.
CLIENT_ID: Final = "sigstore"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is, below the directory given with `--dir`."""

    root: Path

    @property
    def settings(self) -> Path:
        """`ca.yaml`."""
        return self.root / "ca.yaml"

    @property
    def issuers(self) -> Path:
        """Issuer configuration in Fulcio's format."""
        return self.root / "issuers.yaml"

    @property
    def log_trust(self) -> Path:
        """Output of `log-lite export-trust`, as given."""
        return self.root / "log-trust.json"

    @property
    def private(self) -> Path:
        """Private keys; nothing else is secret but `login-secret`."""
        return self.root / "private"

    @property
    def oidc(self) -> Path:
        """Keys of the embedded OIDC issuer."""
        return self.private / "oidc"

    @property
    def tuf_keys(self) -> Path:
        """Keys of the TUF repository."""
        return self.private / "tuf"

    @property
    def login_secret(self) -> Path:
        """Secret that the login page asks for."""
        return self.private / "login-secret"

    @property
    def chains(self) -> Path:
        """Certificate chains in use: `ca.pem` and `tsa.pem`."""
        return self.root / "chains"

    @property
    def trust(self) -> Path:
        """Trust files for clients."""
        return self.root / "trust"

    @property
    def tuf(self) -> Path:
        """TUF repository, served at /tuf."""
        return self.root / "tuf"

    @property
    def journal(self) -> Path:
        """Issuance journal."""
        return self.root / "journal.db"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RateLimit(_Section):
    """Certificates an identity may get: `burst` at once, `per_minute` in the long run."""

    per_minute: float = Field(default=120, gt=0)
    burst: int = Field(default=60, ge=1)


class Settings(_Section):
    """`ca.yaml`. Unknown keys are errors."""

    version: int = Field(ge=1, le=1)
    url: str
    organization: str = Field(min_length=1, max_length=64)
    certificate_lifetime_seconds: int = Field(default=600, ge=60, le=600)
    client_signing_algorithms: tuple[str, ...] = ALGORITHMS
    timestamp_policy: str = Field(default=DEFAULT_POLICY, pattern=r"^[0-2](\.(0|[1-9][0-9]{0,9})){1,30}$")
    rate_limit: RateLimit = RateLimit()
    cors_origins: tuple[str, ...] = ("*",)
    bind: str | None = None
    ct_timeout_seconds: float = Field(default=4, gt=0, le=30)  # sigstore-js gives up on us after five

    @field_validator("url")
    @classmethod
    def _origin_only(cls, url: str) -> str:
        return checked_url(url)

    @field_validator("client_signing_algorithms")
    @classmethod
    def _known_algorithms(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in ALGORITHMS]:
            raise ValueError(f"{unknown[0]!r} is not one of {', '.join(ALGORITHMS)}")
        return names

    @property
    def host(self) -> str:
        """Host of the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Port of the URL."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)


OIDC_PATH: Final = "/oidc"


def checked_url(url: str) -> str:
    """Raise `ValueError` unless the URL is an origin: sigstore-python drops any path when it asks for a certificate."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or url != f"{parts.scheme}://{parts.netloc}":
        raise ValueError(f"{url!r} must be scheme, host and port only, as in http://localhost:8080")
    if parts.username is not None or parts.port == 0:
        raise ValueError(f"{url!r} must hold neither a user name nor port 0")
    return url


def load_settings(layout: Layout) -> Settings:
    """Read `ca.yaml`. Raises `ConfigError` that names the key."""
    try:
        raw = yaml.safe_load(read_limited(layout.settings))
        return Settings.model_validate(raw)
    except yaml.YAMLError as error:
        raise ConfigError(f"{layout.settings}: not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{layout.settings}: {where}: {first['msg']}") from error


def own_issuers(url: str) -> dict[str, str]:
    """Issuer URLs this process serves, by what they are for."""
    base = url + OIDC_PATH
    return {"email": base, "github": f"{base}/github", "uri": f"{base}/uri"}

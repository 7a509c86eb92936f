"""The directory of one CA: its files, and `ca.yaml` as values."""

import re
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import Struct, field

from addresses.url import is_https_or_loopback
from ca_lite.errors import ConfigError
from ca_lite.keys import read_limited
from ca_lite.proof import ALGORITHMS
from ca_lite.timestamp import DEFAULT_POLICY
from settings.document import DocumentError, Misplaced, Node, SettingsProblem, read_yaml
from settings.models import COUNT, FLAG, TEXT, Section, Shape, choice, one_or_many, read_model, written
from settings.reading import read_between, read_choice, read_decimal, read_flag, read_list, read_positive, read_text

# SPEC Sigstore clients: the audience of every identity token.
CLIENT_ID: Final = "sigstore"


class Layout(Struct, frozen=True):
    """Paths of all files, below the directory given with `--dir`."""

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
        """Private keys, hashed passwords, the development login's secret; nothing else is secret."""
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
        """Secret that the development login asks for."""
        return self.private / "login-secret"

    @property
    def users(self) -> Path:
        """Users of the CA's own issuer, with hashed passwords."""
        return self.private / "users.json"

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


MAX_ORGANIZATION: Final = 64  # RFC 5280 upper bound of an organization's name
_POLICY: Final = re.compile(r"[0-2](\.(0|[1-9][0-9]{0,9})){1,30}", re.ASCII)
_LONGEST_CT_TIMEOUT: Final = 30
POSITIVE: Final[Shape] = {"type": "number", "exclusiveMinimum": 0}
OIDC_PATH: Final = "/oidc"


def checked_url(url: str) -> str:
    """Raise `ValueError` unless the URL is an origin: sigstore-python drops any path when it asks for a certificate."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or url != f"{parts.scheme}://{parts.netloc}":
        raise ValueError(f"{url!r} must be scheme, host and port only, as in http://localhost:8080")
    if parts.username is not None or parts.port == 0:
        raise ValueError(f"{url!r} must hold neither a user name nor port 0")
    return url


def _read_url(node: Node) -> str:
    try:
        return checked_url(read_text(node))
    except ValueError as error:
        raise Misplaced(str(error), node) from None


def _read_issuer(node: Node) -> str:
    url = read_text(node)
    if not is_https_or_loopback(url) or urlsplit(url).query or urlsplit(url).fragment:
        raise Misplaced(f"{url!r:.200} must be an https URL as the issuer writes itself (http on this machine)", node)
    return url


def _read_version(node: Node) -> int:
    return read_between(node, 1, 1)


def _read_organization(node: Node) -> str:
    return read_text(node, MAX_ORGANIZATION)


def _read_algorithm(node: Node) -> str:
    return read_choice(node, ALGORITHMS)


def _read_policy(node: Node) -> str:
    text = read_text(node)
    if not _POLICY.fullmatch(text):
        raise Misplaced(f"{text[:80]!r} is not an object identifier such as 1.3.6.1.4.1.57264.2", node)
    return text


def _read_rate(node: Node) -> float:
    rate = read_decimal(node)
    if rate <= 0:
        raise Misplaced("must be more than 0", node)
    return rate


def _read_ct_timeout(node: Node) -> float:
    seconds = read_decimal(node)
    if not 0 < seconds <= _LONGEST_CT_TIMEOUT:
        raise Misplaced(f"must be more than 0 and at most {_LONGEST_CT_TIMEOUT}", node)
    return seconds


class RateLimit(Struct, frozen=True):
    """Certificates an identity may get: `burst` at once, `per_minute` in the long run."""

    per_minute: Annotated[float, written(_read_rate, POSITIVE)] = 120.0
    burst: Annotated[int, written(read_positive, COUNT)] = 60


class CaSettings(Struct, frozen=True):
    """`ca.yaml`. Unknown keys are errors."""

    version: Annotated[int, written(_read_version, {"const": 1})]
    url: Annotated[str, written(_read_url, TEXT)]
    organization: Annotated[str, written(_read_organization, TEXT)]
    certificate_lifetime_seconds: Annotated[int, written(lambda node: read_between(node, 60, 600), COUNT)] = 600
    client_signing_algorithms: Annotated[
        tuple[str, ...], written(lambda node: read_list(node, _read_algorithm), one_or_many(choice(ALGORITHMS)))
    ] = ALGORITHMS
    timestamp_policy: Annotated[str, written(_read_policy, TEXT)] = DEFAULT_POLICY
    rate_limit: Annotated[RateLimit, Section("rate_limit")] = field(default_factory=RateLimit)
    cors_origins: Annotated[tuple[str, ...], written(lambda node: read_list(node, read_text), one_or_many(TEXT))] = (
        "*",
    )
    bind: Annotated[str | None, written(read_text, TEXT)] = None
    # The issuer to which clients go for a login; the CA's own if absent.
    login_issuer: Annotated[str | None, written(_read_issuer, TEXT)] = None
    # A login that takes any address with one shared secret.
    development_login: Annotated[bool, written(read_flag, FLAG)] = False
    # sigstore-js ends its request after five seconds.
    ct_timeout_seconds: Annotated[float, written(_read_ct_timeout, POSITIVE)] = 4.0

    @property
    def host(self) -> str:
        """Host of the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Port of the URL."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)


def load_settings(layout: Layout) -> CaSettings:
    """Read `ca.yaml`. Raises `ConfigError` with the key and its place."""
    try:
        text = read_limited(layout.settings).decode("utf-8")
        return read_model(CaSettings, Section("ca.yaml"), read_yaml(text), layout.root)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{layout.settings}: not UTF-8 text") from error
    except DocumentError as error:
        raise _wrong(layout, error.problems[0]) from error
    except Misplaced as misplaced:
        raise _wrong(layout, misplaced.problem) from misplaced


def _wrong(layout: Layout, problem: SettingsProblem) -> ConfigError:
    return ConfigError(f"{layout.settings}:{problem.line}:{problem.column}: {problem.message}")


def own_issuers(url: str) -> dict[str, str]:
    """Issuer URLs this process serves, by their purpose."""
    base = url + OIDC_PATH
    return {"email": base, "github": f"{base}/github", "uri": f"{base}/uri"}

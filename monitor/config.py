"""The configuration: one YAML file, read strictly once, handed on as frozen values.

Unknown keys are errors that name the nearest known one, with line and column. Secrets are never in the file: a key that
ends in `_file` names a file that holds one. Relative paths count from the folder of the configuration file.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from monitor.model.errors import BadConfig
from monitor.model.log_source import LogApi
from monitor.model.pace import Freshness
from monitor.model.witness_policy import WitnessPolicy, read_witnesses
from monitor.site_config import SiteConfig, read_site
from outbound.shown_url import has_credentials, shown_url
from rules.lookback import LookBack, read_look_back
from settings.document import DocumentError, Listing, Misplaced, Node, Problem, Scalar, read_yaml
from settings.document import Mapping as YamlMapping
from settings.reading import Fields, read_choice, read_duration, read_flag, read_list, read_number, read_text

VERSION: Final = "1"
KEYS: Final = (
    "version",
    "database",
    "trust",
    "logs",
    "rules",
    "channels",
    "notify",
    "web",
    "site",
    "objectives",
    "backscan",
    "archive",
)
TRUST_KEYS: Final = (
    "trusted_root",
    "signing_configs",
    "tuf",
    "tuf_root",
    "folder",
    "refresh",
    "stale_after",
    "ca_file",
    "proxy",
)
LOG_KEYS: Final = (
    "name",
    "api",
    "url",
    "start",
    "log_id",
    "origin",
    "tree_id",
    "offset",
    "poll_seconds",
    "stale_after_seconds",
    "busy",
    "requests_per_second",
    "witnesses",
    "ca_file",
    "proxy",
)
WEB_KEYS: Final = ("listen", "hosts")
BACKSCAN_KEYS: Final = ("range", "entries_per_second")
ARCHIVE_KEYS: Final = ("location", "write_every")
OBJECTIVE_KEYS: Final = (
    "poll_seconds",
    "stale_after_seconds",
    "busy",
    "gap_entries",
    "delivery_age",
    "certificate_hold",
    "examine_processes",
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_LISTEN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})", re.ASCII)
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,9}", re.ASCII)
_LOG_ID_BYTES: Final = 32
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class TrustConfig:
    """Where keys come from: a trusted root file, or a TUF repository (name or URL) with its first root file.

    `signing_configs` go with a trusted root file; a repository brings its own. `ca_file` (PEM) and `proxy` (URL)
    are for reaching the repository.
    """

    trusted_root: Path | None = None
    signing_configs: tuple[Path, ...] = ()
    tuf: str | None = None
    tuf_root: Path | None = None
    folder: Path = Path("trust-cache")
    refresh: timedelta = timedelta(hours=1)
    stale_after: timedelta = timedelta(days=3)
    ca_file: Path | None = None
    proxy: str | None = None


@dataclass(frozen=True, slots=True)
class LogConfig:
    """One log to follow. `start` is where the first baseline is made; `log_id` the 32-byte key id.

    `ca_file` (PEM) says whose TLS certificates to believe, `proxy` (URL) through whom to ask. A log of the trust root
    (`of_root`) is asked where the newest root says it is.
    """

    name: str
    url: str
    api: LogApi | None = None
    start: int | Literal["head"] = "head"
    log_id: bytes | None = None
    origin: str | None = None
    tree_id: str | None = None
    offset: int | None = None
    poll_seconds: int | None = None
    stale_after_seconds: int | None = None
    busy: bool | None = None
    requests_per_second: int | None = None
    ca_file: Path | None = None
    proxy: str | None = None
    witnesses: WitnessPolicy | None = None
    of_root: bool = False


@dataclass(frozen=True, slots=True)
class Objectives:
    """What counts as healthy. A log's own `poll_seconds`, `stale_after_seconds` and `busy` go before these.

    `certificate_hold` is how long the alert for a certificate waits for the log entry made with it.
    `examine_processes` is how many processes read a large backlog; left out, one less than there are cores.
    """

    poll_seconds: int = 30
    stale_after_seconds: int = 3600
    busy: bool | None = None
    gap_entries: int = 10_000
    delivery_age: timedelta = timedelta(minutes=15)
    certificate_hold: timedelta = timedelta(seconds=60)
    examine_processes: int | None = None


@dataclass(frozen=True, slots=True)
class BackscanConfig:
    """What rules that came late are offered of the past, unless they say so themselves, and how fast at most."""

    range: LookBack = "none"
    entries_per_second: int = 1000


@dataclass(frozen=True, slots=True)
class ArchiveConfig:
    """Where rows of all proven entries are kept: a folder, or a URI such as `s3://bucket/prefix`.

    `write_every` is how long proven entries may wait before they are in a file, while they do not fill a range.
    """

    location: str
    write_every: timedelta = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class WebConfig:
    """Where the status page and the metrics are served, and by which names (`hosts`) beside localhost and addresses."""

    host: str
    port: int
    hosts: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names that a `Host` header may have."""
        return (self.host, *self.hosts)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an operator decides. `logs` is `None` for every log of the trust root."""

    path: Path
    database: str
    trust: TrustConfig
    rules: Path
    logs: tuple[LogConfig, ...] | None = None
    channels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notify: tuple[str, ...] = ()
    web: WebConfig | None = None
    site: SiteConfig | None = None
    objectives: Objectives = field(default_factory=Objectives)
    backscan: BackscanConfig = field(default_factory=BackscanConfig)
    archive: ArchiveConfig | None = None

    @property
    def base(self) -> Path:
        """Folder that relative paths count from."""
        return self.path.parent

    def poll_seconds(self, log: LogConfig) -> int:
        """Seconds between two passes over a log."""
        return log.poll_seconds or self.objectives.poll_seconds

    def freshness(self, log: LogConfig | None) -> Freshness:
        """How long a log may show nothing new; `None` for one that is only in the trust root."""
        if log is None:
            poll = timedelta(seconds=self.objectives.poll_seconds)
            return Freshness(timedelta(seconds=self.objectives.stale_after_seconds), self.objectives.busy, poll)
        busy = self.objectives.busy if log.busy is None else log.busy
        return Freshness(self.stale_after(log), busy, timedelta(seconds=self.poll_seconds(log)))

    def stale_after(self, log: LogConfig) -> timedelta:
        """How long a log may fail to answer, or show nothing new, before an alert is sent."""
        return timedelta(seconds=log.stale_after_seconds or self.objectives.stale_after_seconds)


def load_config(path: Path) -> Config:
    """Read a configuration file. Raises `BadConfig`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadConfig(
            f"{path}: there is no configuration here. Run `signwatch init --config {path}` to write one, or name "
            "another file with --config."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: the configuration cannot be read: {error}") from error
    return parse_config(text, path)


def parse_config(text: str, path: Path) -> Config:
    """Read a configuration. Raises `BadConfig` with line and column."""
    try:
        return _read(Fields(read_yaml(text, str(path)), KEYS, "the configuration"), path)
    except DocumentError as error:
        raise _bad(path, error.problems[0]) from None
    except Misplaced as misplaced:
        raise _bad(path, misplaced.problem) from None


def _bad(path: Path, problem: Problem) -> BadConfig:
    return BadConfig(
        f"{path}:{problem.line}:{problem.column}: {problem.message}\n"
        "Nothing was started. docs/configuration.md lists every key."
    )


def _read(fields: Fields, path: Path) -> Config:
    version = fields.need("version")
    if read_text(version) != VERSION:
        raise Misplaced(f"this release reads configurations of version {VERSION}", version)
    base = path.parent
    none: dict[str, Mapping[str, Any]] = {}
    channels = fields.read("channels", _read_channels, none)
    return Config(
        path=path,
        database=_database(read_text(fields.need("database")), base),
        trust=_read_trust(fields.need("trust"), base),
        rules=base / read_text(fields.need("rules")),
        logs=fields.read("logs", lambda node: _read_logs(node, base), None),
        channels=channels,
        notify=fields.read("notify", lambda node: read_list(node, _one_of(channels)), ()),
        web=fields.read("web", _read_web, None),
        site=fields.read("site", lambda node: read_site(node, base), None),
        objectives=fields.read("objectives", _read_objectives, Objectives()),
        backscan=fields.read("backscan", _read_backscan, BackscanConfig()),
        archive=fields.read("archive", lambda node: _read_archive(node, base), None),
    )


def _database(text: str, base: Path) -> str:
    if "://" not in text:
        return str(base / text)
    prefix = "sqlite:///"
    return prefix + str(base / text.removeprefix(prefix)) if text.startswith(prefix) else text


def _read_trust(node: Node, base: Path) -> TrustConfig:
    fields = Fields(node, TRUST_KEYS, "trust")
    trusted_root, tuf = fields.get("trusted_root"), fields.get("tuf")
    if (trusted_root is None) == (tuf is None):
        raise Misplaced("trust names either `trusted_root` (a file) or `tuf` (public-good, staging or a URL)", node)
    default = TrustConfig()

    def read_path(text: Node) -> Path:
        return base / read_text(text)

    return TrustConfig(
        trusted_root=fields.read("trusted_root", read_path, None),
        tuf=fields.read("tuf", _read_repository, None),
        tuf_root=fields.read("tuf_root", read_path, None),
        folder=fields.read("folder", read_path, base / default.folder),
        refresh=fields.read("refresh", read_duration, default.refresh),
        stale_after=fields.read("stale_after", read_duration, default.stale_after),
        signing_configs=fields.read("signing_configs", lambda each: read_list(each, read_path), ()),
        ca_file=fields.read("ca_file", read_path, None),
        proxy=fields.read("proxy", _read_proxy, None),
    )


def _read_logs(node: Node, base: Path) -> tuple[LogConfig, ...]:
    logs = read_list(node, lambda each: _read_log(each, base))
    seen: set[str] = set()
    for log in logs:
        if log.name in seen:
            raise Misplaced(f"two logs are named {log.name!r}; a name stands for one log in state and metrics", node)
        seen.add(log.name)
    return logs


def _read_log(node: Node, base: Path) -> LogConfig:
    fields = Fields(node, LOG_KEYS, "a log")
    api = fields.read("api", lambda each: LogApi(read_choice(each, [api.value for api in LogApi])), None)
    witnesses = fields.get("witnesses")
    if witnesses is not None and api not in {None, LogApi.REKOR_V2}:
        raise Misplaced("only checkpoints of a Rekor v2 log carry cosignatures of witnesses", witnesses)
    return LogConfig(
        name=_read_name(fields.need("name")),
        url=_read_url(fields.need("url")),
        api=api,
        start=fields.read("start", _read_start, "head"),
        log_id=fields.read("log_id", _read_log_id, None),
        origin=fields.read("origin", read_text, None),
        tree_id=fields.read("tree_id", read_text, None),
        offset=fields.read("offset", _read_index, None),
        poll_seconds=fields.read("poll_seconds", _read_positive, None),
        stale_after_seconds=fields.read("stale_after_seconds", _read_positive, None),
        busy=fields.read("busy", read_flag, None),
        requests_per_second=fields.read("requests_per_second", _read_positive, None),
        ca_file=fields.read("ca_file", lambda each: base / read_text(each), None),
        proxy=fields.read("proxy", _read_proxy, None),
        witnesses=None if witnesses is None else read_witnesses(witnesses),
    )


def _read_name(node: Node) -> str:
    text = read_text(node)
    if not _NAME.fullmatch(text):
        raise Misplaced("a name is letters, digits, '.', '_' and '-', at most 100 characters", node)
    return text


def _read_url(node: Node) -> str:
    text = read_text(node)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or has_credentials(text):
        raise Misplaced(f"{shown_url(text)!r} is not the http(s) base URL of a log: no user, password or query", node)
    return text.rstrip("/")


def _read_repository(node: Node) -> str:
    text = read_text(node)
    try:
        refused = has_credentials(text)
    except ValueError:
        refused = True
    if refused:
        raise Misplaced(f"{shown_url(text)!r} is not the URL of a repository, without user and password", node)
    return text


def _read_proxy(node: Node) -> str:
    text = read_text(node)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or has_credentials(text) or parts.path.strip("/"):
        raise Misplaced(
            f"{shown_url(text)!r} is not the URL of a proxy, such as http://proxy.example:3128, with no password",
            node,
        )
    return text


def _read_start(node: Node) -> int | Literal["head"]:
    return "head" if isinstance(node, Scalar) and node.text == "head" else _read_index(node)


def _read_index(node: Node) -> int:
    text = read_text(node)
    if not _NUMBER.fullmatch(text) or int(text) < 0:
        raise Misplaced(f"{text[:40]!r} is not an entry index (a whole number) or `head`", node)
    return int(text)


def _read_positive(node: Node) -> int:
    number = read_number(node)
    if number < 1:
        raise Misplaced("must be at least 1", node)
    return number


def _read_log_id(node: Node) -> bytes:
    text = read_text(node)
    try:
        raw = bytes.fromhex(text) if len(text) == 2 * _LOG_ID_BYTES else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != _LOG_ID_BYTES:
        raise Misplaced("a log id is 32 bytes in base64 or hex, as the trusted root gives it", node)
    return raw


def _read_web(node: Node) -> WebConfig:
    fields = Fields(node, WEB_KEYS, "web")
    listen = fields.need("listen")
    match = _LISTEN.fullmatch(read_text(listen))
    if match is None or int(match[2]) > 65535:  # noqa: PLR2004  the largest port
        raise Misplaced('not an address and a port such as "127.0.0.1:9464"', listen)
    none: tuple[str, ...] = ()
    hosts = fields.read("hosts", lambda each: read_list(each, _read_host), none)
    return WebConfig(match[1].strip("[]"), int(match[2]), hosts)


def _read_host(node: Node) -> str:
    text = read_text(node)
    if not _HOST.fullmatch(text):
        raise Misplaced(f"{text[:80]!r} is not the name of a host, such as signwatch.example.org (no port)", node)
    return text


def _read_objectives(node: Node) -> Objectives:
    fields, default = Fields(node, OBJECTIVE_KEYS, "objectives"), Objectives()
    return Objectives(
        poll_seconds=fields.read("poll_seconds", _read_positive, default.poll_seconds),
        stale_after_seconds=fields.read("stale_after_seconds", _read_positive, default.stale_after_seconds),
        busy=fields.read("busy", read_flag, default.busy),
        gap_entries=fields.read("gap_entries", read_number, default.gap_entries),
        delivery_age=fields.read("delivery_age", read_duration, default.delivery_age),
        certificate_hold=fields.read("certificate_hold", read_duration, default.certificate_hold),
        examine_processes=fields.read("examine_processes", _read_positive, None),
    )


def _read_backscan(node: Node) -> BackscanConfig:
    fields, default = Fields(node, BACKSCAN_KEYS, "backscan"), BackscanConfig()
    return BackscanConfig(
        range=fields.read("range", read_look_back, default.range),
        entries_per_second=fields.read("entries_per_second", _read_positive, default.entries_per_second),
    )


def _read_archive(node: Node, base: Path) -> ArchiveConfig:
    fields = Fields(node, ARCHIVE_KEYS, "archive")
    location = fields.need("location")
    text = read_text(location)
    if text.partition("://")[0] in {"http", "https", "file"}:
        raise Misplaced("a folder, or a URI of an object store such as s3://bucket/prefix", location)
    return ArchiveConfig(
        location=text if "://" in text else str(base / text),
        write_every=fields.read("write_every", read_duration, timedelta(minutes=1)),
    )


def _read_channels(node: Node) -> dict[str, Mapping[str, Any]]:
    if not isinstance(node, YamlMapping):
        raise Misplaced("channels is a mapping of a name to its settings, such as {console: {type: stdout}}", node)
    channels: dict[str, Mapping[str, Any]] = {}
    for name, settings in node.entries:
        if not isinstance(settings, YamlMapping):
            raise Misplaced(f"channel {name.text!r} is a mapping with a `type`", settings)
        channels[name.text] = {key.text: _plain(value) for key, value in settings.entries}
    return channels


def _plain(node: Node) -> Any:
    """Plain Python values: `alerts` reads its own settings, and knows nothing of YAML."""
    if isinstance(node, Listing):
        return [_plain(item) for item in node.items]
    if isinstance(node, YamlMapping):
        return {key.text: _plain(value) for key, value in node.entries}
    return _plain_scalar(node) if node.plain else node.text


def _plain_scalar(node: Scalar) -> Any:
    if node.is_null:
        return None
    if node.text in {"true", "false"}:
        return node.text == "true"
    if _NUMBER.fullmatch(node.text):
        return int(node.text)
    return float(node.text) if _DECIMAL.fullmatch(node.text) else node.text


def _one_of(known: Mapping[str, _T]) -> Callable[[Node], str]:
    def read(node: Node) -> str:
        text = read_text(node)
        if text not in known:
            raise Misplaced(f"there is no channel {text[:80]!r}; channels: {', '.join(known) or 'none'}", node)
        return text

    return read

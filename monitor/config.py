"""The configuration: one YAML file, read strictly once, handed on as frozen values.

Unknown keys are errors that name the nearest known one, with line and column. The file holds no secrets: a key that
ends in `_file` names the file of a secret. Relative paths count from the folder of the configuration file; a value may
begin with `${NAME}` for one of `settings.folders.FOLDERS`.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct, field

from addresses.url import has_credentials, shown_url
from alerts.channels.settings import ChannelSettings, channels_shape, read_channel
from monitor.model.errors import BadConfig
from monitor.model.log_source import Freshness, LogApi
from monitor.model.witness_policy import WitnessPolicy, read_witnesses
from monitor.site_config import SiteConfig, check_site, read_network
from rules.rule import WORDS, LookBack, read_look_back
from settings.document import DocumentError, Misplaced, Node, SettingsProblem, YamlMapping, YamlScalar, read_yaml
from settings.folders import expanded
from settings.models import (
    COUNT,
    DURATION,
    FILE,
    FLAG,
    NUMBER,
    TEXT,
    Section,
    SectionList,
    Shape,
    Written,
    choice,
    one_or_many,
    read_model,
    written,
)
from settings.overrides import overridden, variables
from settings.reading import (
    Fields,
    read_between,
    read_choice,
    read_duration,
    read_flag,
    read_list,
    read_listen,
    read_number,
    read_positive,
    read_text,
)

VERSION: Final = "1"
PUBLIC_TRUST: Final = ("public-good", "staging")
"""Names of Sigstore's own deployments, in place of a file."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})", re.ASCII)
_LOG_ID_BYTES: Final = 32
_PREFIX: Final = "SIGNWATCH"
_SHOWN: Final = 20
_APIS: Final = tuple(api.value for api in LogApi)
NAME: Final[Shape] = {"type": ["string", "number"], "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"}
WITNESSES: Final[Shape] = {
    "type": "object",
    "properties": {"required": COUNT, "keys": one_or_many(TEXT)},
    "required": ["required", "keys"],
    "additionalProperties": False,
}
_CACHE: Final = Written(FILE.read, TEXT, otherwise=lambda base: base / "trust-cache")
_FILES: Final = Written(lambda node, base: read_list(node, lambda each: base / read_text(each)), one_or_many(TEXT))


def _read_database(node: Node, base: Path) -> str:
    text = read_text(node)
    if "://" not in text:
        return str(base / text)
    prefix = "sqlite:///"
    return prefix + str(base / text.removeprefix(prefix)) if text.startswith(prefix) else text


def _read_name(node: Node) -> str:
    text = read_text(node)
    if not _NAME.fullmatch(text):
        raise Misplaced("a name is letters, digits, '.', '_' and '-', at most 100 characters", node)
    return text


def _read_url(node: Node) -> str:
    text = read_text(node)
    if "://" not in text:
        raise Misplaced("the base URL of a log begins with https:// or http://", node)
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
    if text not in PUBLIC_TRUST and not text.startswith(("https://", "http://")):
        raise Misplaced(
            f"write {', '.join(PUBLIC_TRUST)}, or the URL of a repository, which begins with https://", node
        )
    return text


def _is_plain_http(url: str) -> bool:
    """True for scheme, host, port and path alone."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    return usable and not (parts.query or parts.fragment or has_credentials(url))


def _read_proxy(node: Node) -> str:
    text = read_text(node)
    if not _is_plain_http(text) or urlsplit(text).path.strip("/"):
        raise Misplaced(
            f"{shown_url(text)!r} is not the URL of a proxy, such as http://proxy.example:3128, with no password",
            node,
        )
    return text


def _read_start(node: Node) -> int | Literal["head"]:
    return "head" if isinstance(node, YamlScalar) and node.text == "head" else _read_index(node)


def _read_index(node: Node) -> int:
    text = read_text(node)
    if not _NUMBER.fullmatch(text) or int(text) < 0:
        raise Misplaced(f"{text[:40]!r} is not an entry index (a whole number) or `head`", node)
    return int(text)


def _read_log_id(node: Node) -> bytes:
    text = read_text(node)
    try:
        raw = bytes.fromhex(text) if len(text) == 2 * _LOG_ID_BYTES else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != _LOG_ID_BYTES:
        raise Misplaced("a log id is 32 bytes in base64 or hex, as the trusted root gives it", node)
    return raw


def _read_host(node: Node) -> str:
    text = read_text(node)
    if not _HOST.fullmatch(text):
        raise Misplaced(f"{text[:80]!r} is not the name of a host, such as signwatch.example.org (no port)", node)
    return text


def _read_public_url(node: Node) -> str:
    text = read_text(node)
    if not _is_plain_http(text) or not text.isascii():
        raise Misplaced(f"{shown_url(text)!r} is not the address of a page, as https://signwatch.example.org", node)
    return text.rstrip("/")


def _read_channels(node: Node, base: Path) -> dict[str, ChannelSettings]:
    if not isinstance(node, YamlMapping):
        raise Misplaced("channels is a mapping of a name to its settings, such as {console: {type: stdout}}", node)
    return {name.text: read_channel(name.text, settings, base) for name, settings in node.entries}


def _read_location(node: Node, base: Path) -> str:
    text = read_text(node)
    if text.partition("://")[0] in {"http", "https", "file"}:
        raise Misplaced("a folder, or a URI of an object store such as s3://bucket/prefix", node)
    return text if "://" in text else str(base / text)


def _read_trust_config(node: Node, base: Path) -> str:
    text = read_text(node)
    return text if text in PUBLIC_TRUST else str(base / text)


def _read_rekor_version(node: Node) -> int:
    return read_between(node, 1, 2)


def _read_api(node: Node) -> LogApi:
    return LogApi(read_choice(node, _APIS))


class TrustConfig(Struct, frozen=True):
    """Source of keys: a trusted root file, or a TUF repository (name or URL) with its first root file.

    `signing_configs` belong to a trusted root file; a repository has its own. `ca_file` (PEM) and `proxy` (URL) are
    for requests to the repository.
    """

    trusted_root: Annotated[Path | None, FILE] = None
    signing_configs: Annotated[tuple[Path, ...], _FILES] = ()
    tuf: Annotated[str | None, written(_read_repository, TEXT)] = None
    tuf_root: Annotated[Path | None, FILE] = None
    folder: Annotated[Path, _CACHE] = Path("trust-cache")
    refresh: Annotated[timedelta, written(read_duration, DURATION)] = timedelta(hours=1)
    stale_after: Annotated[timedelta, written(read_duration, DURATION)] = timedelta(days=3)
    ca_file: Annotated[Path | None, FILE] = None
    proxy: Annotated[str | None, written(_read_proxy, TEXT)] = None


class LogConfig(Struct, frozen=True):
    """One log to follow. `start` is the place of the first baseline; `log_id` the 32-byte key id.

    `ca_file` (PEM) holds the authorities of its TLS certificate, `proxy` (URL) names a proxy. A log of the trust root
    (`of_root`) is asked at its address in the newest root.
    """

    name: Annotated[str, written(_read_name, NAME)]
    url: Annotated[str, written(_read_url, TEXT)]
    api: Annotated[LogApi | None, written(_read_api, choice(_APIS))] = None
    start: Annotated[int | Literal["head"], written(_read_start, {"anyOf": [{"const": "head"}, NUMBER]})] = "head"
    log_id: Annotated[bytes | None, written(_read_log_id, TEXT)] = None
    origin: Annotated[str | None, written(read_text, TEXT)] = None
    tree_id: Annotated[str | None, written(read_text, TEXT)] = None
    offset: Annotated[int | None, written(_read_index, NUMBER)] = None
    poll_seconds: Annotated[int | None, written(read_positive, COUNT)] = None
    stale_after_seconds: Annotated[int | None, written(read_positive, COUNT)] = None
    busy: Annotated[bool | None, written(read_flag, FLAG)] = None
    requests_per_second: Annotated[int | None, written(read_positive, COUNT)] = None
    ca_file: Annotated[Path | None, FILE] = None
    proxy: Annotated[str | None, written(_read_proxy, TEXT)] = None
    witnesses: Annotated[WitnessPolicy | None, written(read_witnesses, WITNESSES)] = None
    of_root: bool = False


class Objectives(Struct, frozen=True):
    """Limits of a healthy installation. A log's own `poll_seconds`, `stale_after_seconds` and `busy` override these.

    `certificate_hold` is how long the alert for a certificate waits for the log entry made with it.
    `examine_processes` is the number of processes that read a large backlog; by default one less than the cores for
    a log with an allowance of more than 50,000 entries a second, and none beside the daemon for others.
    """

    poll_seconds: Annotated[int, written(read_positive, COUNT)] = 30
    stale_after_seconds: Annotated[int, written(read_positive, COUNT)] = 3600
    busy: Annotated[bool | None, written(read_flag, FLAG)] = None
    gap_entries: Annotated[int, written(read_number, NUMBER)] = 10_000
    delivery_age: Annotated[timedelta, written(read_duration, DURATION)] = timedelta(minutes=15)
    certificate_hold: Annotated[timedelta, written(read_duration, DURATION)] = timedelta(seconds=60)
    examine_processes: Annotated[int | None, written(read_positive, COUNT)] = None


class HeartbeatConfig(Struct, frozen=True):
    """A dead-man service that gets a request every `every` while this installation has no fault.

    Its URL is a secret in a file.
    """

    url_file: Annotated[Path, FILE]
    every: Annotated[timedelta, written(read_duration, DURATION)] = timedelta(minutes=1)
    allow_private: Annotated[bool, written(read_flag, FLAG)] = False


class CanaryConfig(Struct, frozen=True):
    """The canary signs on a schedule in `log`, as `identity` of `issuer`, and expects its alert `within` a time.

    `trust_config` is a client trust configuration, or `public-good` or `staging`. The identity token comes from
    `token_file`, the output of `token_command`, or the environment. `notify` are the channels for the alert about a
    missing alert.
    """

    log: Annotated[str, written(_read_name, NAME)]
    identity: Annotated[str, written(read_text, TEXT)]
    issuer: Annotated[str, written(read_text, TEXT)]
    trust_config: Annotated[str, Written(_read_trust_config, TEXT)]
    rekor_version: Annotated[int | None, written(_read_rekor_version, {"enum": [1, 2]})] = None
    token_file: Annotated[Path | None, FILE] = None
    token_command: Annotated[tuple[str, ...], written(lambda node: read_list(node, read_text), one_or_many(TEXT))] = ()
    every: Annotated[timedelta, written(read_duration, DURATION)] = timedelta(hours=1)
    within: Annotated[timedelta, written(read_duration, DURATION)] = timedelta(minutes=10)
    notify: Annotated[tuple[str, ...], written(lambda node: read_list(node, read_text), one_or_many(TEXT))] = ()


class BackscanConfig(Struct, frozen=True):
    """The older entries that new rules are offered by default, and the highest speed."""

    range: Annotated[LookBack, written(read_look_back, {"anyOf": [choice(WORDS), COUNT]})] = "none"
    entries_per_second: Annotated[int, written(read_positive, COUNT)] = 1000


class ArchiveConfig(Struct, frozen=True):
    """Place of the rows of all proven entries: a folder, or a URI such as `s3://bucket/prefix`.

    `write_every` is the longest time until proven entries of an unfinished range are in a file.
    """

    location: Annotated[str, Written(_read_location, TEXT)]
    write_every: Annotated[timedelta, written(read_duration, DURATION)] = timedelta(minutes=1)


class WebConfig(Struct, frozen=True):
    """Address of the status page and the metrics, and their names (`hosts`) beside localhost and addresses.

    `public_url` is the address for people, which alerts link to. `key_file` holds the key of links that acknowledge
    an alert, `token_file` the token of the API and of an operator's sign-in. A client may send `searches_per_minute`
    searches; `trusted_proxies` are proxies whose `X-Forwarded-For` is read.
    """

    listen: Annotated[tuple[str, int], written(read_listen, TEXT)]
    hosts: Annotated[tuple[str, ...], written(lambda node: read_list(node, _read_host), one_or_many(TEXT))] = ()
    public_url: Annotated[str, written(_read_public_url, TEXT)] = ""
    key_file: Annotated[Path | None, FILE] = None
    token_file: Annotated[Path | None, FILE] = None
    searches_per_minute: Annotated[int, written(read_positive, COUNT)] = 60
    trusted_proxies: Annotated[
        tuple[str, ...], written(lambda node: read_list(node, read_network), one_or_many(TEXT))
    ] = ()

    @property
    def host(self) -> str:
        """Address to listen at."""
        return self.listen[0]

    @property
    def port(self) -> int:
        """Port to listen at."""
        return self.listen[1]

    @property
    def names(self) -> tuple[str, ...]:
        """Names that a `Host` header may have."""
        public = urlsplit(self.public_url).hostname
        return (self.host, *self.hosts, *((public,) if public else ()))


class Escalation(Struct, frozen=True):
    """Further channels for a page that stays open for `after`."""

    after: Annotated[timedelta, written(read_duration, DURATION)]
    notify: Annotated[tuple[str, ...], written(lambda node: read_list(node, read_text), one_or_many(TEXT))]


def _check_canary(canary: CanaryConfig, fields: Fields) -> None:
    command = fields.get("token_command")
    if command is not None and canary.token_file is not None:
        raise Misplaced("the canary's token comes from a file or a command, not from both", command)


def _check_web(web: WebConfig, fields: Fields) -> None:
    key_file = fields.get("key_file")
    if key_file is not None and not web.public_url:
        raise Misplaced("key_file signs links in alerts: it needs `public_url`, the address people reach", key_file)


def _check_trust(trust: TrustConfig, fields: Fields) -> None:
    if (trust.trusted_root is None) == (trust.tuf is None):
        raise Misplaced(
            "trust names either `trusted_root` (a file) or `tuf` (public-good, staging or a URL)", fields.node
        )


def _check_log(log: LogConfig, fields: Fields) -> None:
    witnesses = fields.get("witnesses")
    if witnesses is not None and log.api not in {None, LogApi.REKOR_V2}:
        raise Misplaced("only checkpoints of a Rekor v2 log carry cosignatures of witnesses", witnesses)


def _check_logs(logs: Sequence[LogConfig], node: Node) -> None:
    seen: set[str] = set()
    for log in logs:
        if log.name in seen:
            raise Misplaced(f"two logs are named {log.name!r}; a name stands for one log in state and metrics", node)
        seen.add(log.name)


def _check_config(config: "Config", fields: Fields) -> None:
    escalation = fields.get("escalation")
    told = [
        fields.get("notify"),
        Fields(escalation, ("after", "notify"), "escalation").get("notify") if escalation is not None else None,
        fields.get("weekly"),
    ]
    canary = fields.get("canary")
    if canary is not None and config.canary is not None:
        asked = {key.text: value for key, value in canary.entries} if isinstance(canary, YamlMapping) else {}
        told.append(asked.get("notify"))
        if config.logs is not None and config.canary.log not in {log.name for log in config.logs}:
            named = ", ".join(log.name for log in config.logs)
            raise Misplaced(f"the canary's log {config.canary.log!r} is not followed; logs: {named}", asked["log"])
    for each in (each for notify in told if notify is not None for each in read_list(notify, lambda node: node)):
        if read_text(each) not in config.channels:
            known = ", ".join(config.channels) or "none"
            raise Misplaced(f"there is no channel {read_text(each)[:80]!r}; channels: {known}", each)


class Config(Struct, frozen=True):
    """All settings of an operator. `logs` is `None` for every log of the trust root."""

    path: Path
    database: Annotated[str, Written(_read_database, TEXT)]
    trust: Annotated[TrustConfig, Section("trust", _check_trust)]
    rules: Annotated[Path, FILE]
    logs: Annotated[tuple[Annotated[LogConfig, Section("a log", _check_log)], ...] | None, SectionList(_check_logs)] = (
        None
    )
    channels: Annotated[Mapping[str, ChannelSettings], Written(_read_channels, channels_shape)] = field(
        default_factory=dict
    )
    notify: Annotated[tuple[str, ...], written(lambda node: read_list(node, read_text), one_or_many(TEXT))] = ()
    weekly: Annotated[tuple[str, ...], written(lambda node: read_list(node, read_text), one_or_many(TEXT))] = ()
    escalation: Annotated[Escalation | None, Section("escalation")] = None
    web: Annotated[WebConfig | None, Section("web", _check_web)] = None
    site: Annotated[SiteConfig | None, Section("site", check_site)] = None
    objectives: Annotated[Objectives, Section("objectives")] = field(default_factory=Objectives)
    backscan: Annotated[BackscanConfig, Section("backscan")] = field(default_factory=BackscanConfig)
    archive: Annotated[ArchiveConfig | None, Section("archive")] = None
    heartbeat: Annotated[HeartbeatConfig | None, Section("heartbeat")] = None
    canary: Annotated[CanaryConfig | None, Section("canary", _check_canary)] = None

    @property
    def base(self) -> Path:
        """Folder that relative paths count from."""
        return self.path.parent

    def poll_seconds(self, log: LogConfig) -> int:
        """Seconds between two passes over a log."""
        return log.poll_seconds or self.objectives.poll_seconds

    def freshness(self, log: LogConfig | None) -> Freshness:
        """Time for which a log may show no new head; `None` for a log that is only in the trust root."""
        if log is None:
            poll = timedelta(seconds=self.objectives.poll_seconds)
            return Freshness(timedelta(seconds=self.objectives.stale_after_seconds), self.objectives.busy, poll)
        busy = self.objectives.busy if log.busy is None else log.busy
        return Freshness(self.stale_after(log), busy, timedelta(seconds=self.poll_seconds(log)))

    def longest_pause(self, name: str) -> timedelta:
        """Longest time between two passes in which the log, or tree of a log, of this name still counts as watched."""
        own = next((log for log in self.logs or () if log.name == name.partition("/")[0]), None)
        return self.freshness(own).longest_pause

    def stale_after(self, log: LogConfig) -> timedelta:
        """Time for which a log may fail to answer, or show no new head, before an alert is sent."""
        return timedelta(seconds=log.stale_after_seconds or self.objectives.stale_after_seconds)


_FILE: Final = Section("the configuration", _check_config, ("version",))


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
        node = expanded(overridden(read_yaml(text, str(path)), os.environ, _PREFIX), os.environ)
        if isinstance(node, YamlMapping):
            _check_version(node)
        return read_model(Config, _FILE, node, path.parent, path=path)
    except DocumentError as error:
        raise _bad(path, error.problems[0]) from None
    except Misplaced as misplaced:
        raise _bad(path, misplaced.problem) from None


def config_schema() -> dict[str, Any]:
    """JSON Schema of the configuration, for editors and for checking a file before it is deployed."""
    from settings.schema import json_schema  # noqa: PLC0415  used by `config schema` alone

    return json_schema(Config, "Signwatch configuration", {"version": {"enum": [int(VERSION), VERSION]}})


def _bad(path: Path, problem: SettingsProblem) -> BadConfig:
    names = variables(os.environ, _PREFIX)
    beside = f" (set by variables, which have no line: {', '.join(names[:_SHOWN])})" if names else ""
    more = ", docs/channels.md those of channels" if problem.message.startswith("channels.") else ""
    return BadConfig(
        f"{path}:{problem.line}:{problem.column}: {problem.message}{beside}\n"
        f"Nothing was started. docs/configuration.md lists every key{more}."
    )


def _check_version(node: YamlMapping) -> None:
    version = {key.text: value for key, value in node.entries}.get("version")
    if version is None:
        raise Misplaced("'version' is missing", node)
    if read_text(version) != VERSION:
        raise Misplaced(f"this release reads configurations of version {VERSION}", version)

"""Settings of a channel, as the configuration file gives them: one frozen value for each type of channel.

Reading checks what the file alone shows. Building the channel (`alerts.channels.registry`) checks that secrets,
templates and certificates can be read: most commands need none of them.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Struct

from settings.document import Misplaced, Node, YamlMapping, YamlScalar
from settings.models import (
    FILE,
    FLAG,
    TEXT,
    Section,
    Shape,
    Written,
    choice,
    one_or_many,
    read_model,
    written,
)
from settings.reading import Fields, read_between, read_choice, read_decimal, read_flag, read_host, read_list, read_text

FOLLOWING: Final = frozenset({"alertmanager", "github-issues", "pagerduty"})
"""Types of channels that get acknowledgement, resolution and reopening of an alert."""
_MAX_SECRET: Final = 64 * 1024
# A channel's name is part of every idempotency key and a metric label.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
_SECURITY: Final = ("starttls", "tls", "none")


class SecretUnreadable(Exception):
    """A secret's file cannot be read (any more)."""


class SecretFile(Struct, frozen=True):
    """A secret by its file's path. Read again for each use, so that a rotation needs no restart; never shown."""

    path: Path

    def read(self) -> str:
        """The secret without the white space around it. Raises `SecretUnreadable`."""
        try:
            with self.path.open("rb") as file:
                raw = file.read(_MAX_SECRET + 1)
        except OSError as error:
            raise SecretUnreadable(f"the secret file {self.path} cannot be read: {error.strerror}") from error
        try:
            secret = raw.decode().strip()
        except UnicodeDecodeError:
            secret = ""
        if not secret or len(raw) > _MAX_SECRET:
            raise SecretUnreadable(f"the secret file {self.path} is empty, too long or not text")
        return secret


def _seconds(most: int) -> Written:
    def read(node: Node) -> float:
        try:
            seconds = read_decimal(node)
        except Misplaced:
            seconds = 0.0
        if not 1 <= seconds <= most:
            raise Misplaced(f"must be a number from 1 to {most}", node)
        return seconds

    return written(read, {"type": "number", "minimum": 1, "maximum": most})


def _read_repository(node: Node) -> str:
    if not _REPOSITORY.fullmatch(text := read_text(node)):
        raise Misplaced("is owner/name, such as acme/widget", node)
    return text


_SECRET: Final = Written(lambda node, base: SecretFile(base / read_text(node)), TEXT)
_LINE: Final = written(read_text, TEXT)
_LINES: Final = written(lambda node: read_list(node, read_text), one_or_many(TEXT))
_FLAG: Final = written(read_flag, FLAG)
_TYPE: Final = written(read_text, TEXT)


class ChannelSettings(Struct, frozen=True, kw_only=True):
    """Settings that channels of every type have. `mapping` is the channel's mapping in the file."""

    name: str
    mapping: YamlMapping
    type: Annotated[str, _TYPE]

    def wrong(self, key: str, why: str) -> Misplaced:
        """The error for one key, at its place in the file, or at the mapping's place if the key is absent."""
        place = next((each for each, _ in self.mapping.entries if each.text == key), self.mapping)
        return Misplaced(f"channels.{self.name}.{key} ({self.type}): {why}", place)


class HttpSettings(ChannelSettings, frozen=True, kw_only=True):
    """Settings of channels that post over HTTP. `ca_file` names authorities to believe beside the system's."""

    allow_private: Annotated[bool, _FLAG] = False
    timeout_seconds: Annotated[float, _seconds(120)] = 15.0
    ca_file: Annotated[Path | None, FILE] = None


class StdoutSettings(ChannelSettings, frozen=True, kw_only=True):
    """Standard output."""

    format: Annotated[str, written(lambda node: read_choice(node, ("text", "json")), choice(("text", "json")))] = "text"
    text_template: Annotated[Path | None, FILE] = None


class JsonlSettings(ChannelSettings, frozen=True, kw_only=True):
    """A file of JSON lines."""

    path: Annotated[Path, FILE]


class WebhookSettings(HttpSettings, frozen=True, kw_only=True):
    """A signed POST; `unsigned` turns the signature off."""

    url: Annotated[str, _LINE]
    secret_file: Annotated[SecretFile | None, _SECRET] = None
    unsigned: Annotated[bool, _FLAG] = False


class SlackSettings(ChannelSettings, frozen=True, kw_only=True):
    """Slack: an incoming webhook, whose URL is the secret, or a bot's token and a channel."""

    webhook_url_file: Annotated[SecretFile | None, _SECRET] = None
    token_file: Annotated[SecretFile | None, _SECRET] = None
    channel: Annotated[str, _LINE] = ""
    base_url: Annotated[str, _LINE] = ""
    allow_private: Annotated[bool, _FLAG] = False
    timeout_seconds: Annotated[float, _seconds(120)] = 15.0


class EmailSettings(ChannelSettings, frozen=True, kw_only=True):
    """SMTP. Without `port` the usual port of `security`."""

    host: Annotated[str, written(read_host, TEXT)]
    port: Annotated[
        int | None,
        written(lambda node: read_between(node, 1, 65_535), {"type": "integer", "minimum": 1, "maximum": 65_535}),
    ] = None
    security: Annotated[str, written(lambda node: read_choice(node, _SECURITY), choice(_SECURITY))] = "starttls"
    username: Annotated[str | None, _LINE] = None
    password_file: Annotated[SecretFile | None, _SECRET] = None
    ca_file: Annotated[Path | None, FILE] = None
    timeout_seconds: Annotated[float, _seconds(300)] = 30.0
    sender: Annotated[str, written(read_text, TEXT, "from")]
    to: Annotated[tuple[str, ...], _LINES]
    text_template: Annotated[Path | None, FILE] = None
    html_template: Annotated[Path | None, FILE] = None


class PagerDutySettings(HttpSettings, frozen=True, kw_only=True):
    """PagerDuty's Events API v2, by default at PagerDuty's own address."""

    routing_key_file: Annotated[SecretFile, _SECRET]
    url: Annotated[str, _LINE] = ""


class AlertmanagerSettings(HttpSettings, frozen=True, kw_only=True):
    """Prometheus Alertmanager at its base address."""

    url: Annotated[str, _LINE]
    token_file: Annotated[SecretFile | None, _SECRET] = None


class GitHubIssuesSettings(HttpSettings, frozen=True, kw_only=True):
    """Issues of one repository, by default with the API of github.com."""

    repository: Annotated[str, written(_read_repository, {"type": "string", "pattern": f"^{_REPOSITORY.pattern}$"})]
    token_file: Annotated[SecretFile, _SECRET]
    url: Annotated[str, _LINE] = ""


class CommandSettings(ChannelSettings, frozen=True, kw_only=True):
    """A program that is run for each alert."""

    argv: Annotated[tuple[str, ...], _LINES]
    timeout_seconds: Annotated[float, _seconds(120)] = 15.0


class AppriseSettings(ChannelSettings, frozen=True, kw_only=True):
    """Every Apprise URL in a file."""

    urls_file: Annotated[SecretFile, _SECRET]
    text_template: Annotated[Path | None, FILE] = None


def _check_webhook(webhook: WebhookSettings, _: Fields) -> None:
    if webhook.secret_file is None and not webhook.unsigned:
        raise webhook.wrong(
            "secret_file",
            "is required, so that the receiver can verify the sender (or set unsigned: true to send "
            "without a signature)",
        )


def _check_slack(slack: SlackSettings, _: Fields) -> None:
    if slack.webhook_url_file is None and slack.token_file is None:
        raise slack.wrong("webhook_url_file", "is required, or token_file and channel to post as a bot")
    if slack.webhook_url_file is None and not slack.channel:
        raise slack.wrong("channel", "is required")


def _check_email(email: EmailSettings, _: Fields) -> None:
    if email.username is not None and email.password_file is None:
        raise email.wrong("password_file", "is required with a username")
    if email.username is not None and email.security == "none":
        raise email.wrong("security", "none would send the password in clear; use starttls or tls")


MODELS: Final[Mapping[str, tuple[type[ChannelSettings], Callable[[Any, Fields], None] | None]]] = {
    "alertmanager": (AlertmanagerSettings, None),
    "apprise": (AppriseSettings, None),
    "command": (CommandSettings, None),
    "email": (EmailSettings, _check_email),
    "github-issues": (GitHubIssuesSettings, None),
    "jsonl": (JsonlSettings, None),
    "pagerduty": (PagerDutySettings, None),
    "slack": (SlackSettings, _check_slack),
    "stdout": (StdoutSettings, None),
    "webhook": (WebhookSettings, _check_webhook),
}
"""Settings class of each type of channel, with the model that checks its keys."""


def read_channel(name: str, node: Node, base: Path) -> ChannelSettings:
    """Read one channel; relative paths count from `base`. Raises `Misplaced`."""
    if not _NAME.fullmatch(name):
        raise Misplaced(
            f"channel name {name[:80]!r}: up to 63 letters, digits, '-' and '_', a letter or digit first", node
        )
    if not isinstance(node, YamlMapping):
        raise Misplaced(f"channels.{name}: is a mapping with a `type`: {', '.join(MODELS)}", node)
    kind = next((value for key, value in node.entries if key.text == "type"), node)
    if not isinstance(kind, YamlScalar) or kind.text not in MODELS:
        raise Misplaced(f"channels.{name}.type: must be one of {', '.join(MODELS)}", kind)
    model, check = MODELS[kind.text]
    try:
        return read_model(model, Section(f"a channel of type {kind.text}", check), node, base, name=name, mapping=node)
    except Misplaced as error:
        told = str(error)
        prefix = "" if told.startswith(f"channels.{name}.") else f"channels.{name}: "
        raise Misplaced(f"{prefix}{told}", error.problem) from None


def channels_shape() -> Shape:
    """JSON Schema of all channels by their names."""
    from settings.schema import shape_of  # noqa: PLC0415  used by `config schema` alone

    shapes = []
    for kind, (model, _) in MODELS.items():
        shape = shape_of(model)
        shape["properties"]["type"] = {"const": kind}
        shapes.append(shape)
    return {
        "type": "object",
        "propertyNames": {"pattern": f"^{_NAME.pattern}$"},
        "additionalProperties": {"oneOf": shapes},
    }

"""`signwatch config`: the schema of the configuration, and a check of the configuration before a start."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import typer
from msgspec.structs import fields

from alerts.alert import counted
from alerts.channels.settings import JsonlSettings, SecretFile
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, say, say_json
from monitor.config import Config, TrustConfig, config_schema, load_config
from monitor.daemon.alerting import build_channels
from monitor.judging.active_rules import RuleKeeper
from monitor.model.errors import BadConfig, OwnFault
from monitor.store.database import check_place
from monitor.trust.trust_root import MAX_SIZE, read_trust_root
from settings.schema import schema_text

_MAY_BE_MISSING: Final = frozenset({"canary: token_file", "site: key_file"})
_READABLE_BY_OTHERS: Final = stat.S_IRGRP | stat.S_IROTH


def schema() -> None:
    """Print the JSON Schema of the configuration, for editors and for checks before a deployment.

    Exits with 0. `signwatch config check` reads the configuration itself and finds more mistakes.

    Examples:
      signwatch config schema > signwatch.schema.json
    """
    typer.echo(schema_text(config_schema()), nl=False)


def check(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Check the configuration, the rules, the channels and every file that they name, without the network.

    It needs no database and changes no file, so it can run before a deployment. Exits 2 for a mistake.

    Examples:
      signwatch config check
      signwatch config check --config /etc/signwatch/signwatch.yaml
    """
    settings = load_config(config)
    problems = list(_problems(settings))
    remarks = list(_remarks(settings))
    if as_json:
        say_json({"config": str(config), "sound": not problems, "problems": problems, "remarks": remarks})
    else:
        for problem in problems:
            say(problem, "bold red")
        for remark in remarks:
            say(remark, "yellow")
        say(f"{config}: {counted(len(problems), 'problem')}" if problems else f"{config}: {_summary(settings)}")
    raise leave(Exit.MISUSED if problems else Exit.FINE)


def _summary(settings: Config) -> str:
    logs = "every log of the trust root" if settings.logs is None else counted(len(settings.logs), "log")
    rules = len(RuleKeeper(settings.rules, settings.channels).held.rules.rules)
    return f"sound: {logs}, {counted(rules, 'rule')}, channels {', '.join(settings.channels) or 'none'}"


def _problems(settings: Config) -> Iterator[str]:
    """Each mistake for which `signwatch run` would refuse to start, as a sentence."""
    told = ""
    for look in (
        lambda: check_place(settings.database),
        lambda: _check_trust(settings.trust),
        lambda: build_channels(settings),
        lambda: RuleKeeper(settings.rules, settings.channels),
    ):
        try:
            look()
        except (BadConfig, OwnFault) as error:
            problem = " ".join(str(error).splitlines())
            told += problem
            yield problem
    if not settings.notify:
        yield f"{settings.path}: `notify` names no channel: `signwatch run` refuses to start"
    for what, path in _files(settings):
        # A channel that cannot be made names the file that it lacks.
        if not path.is_file() and str(path) not in told:
            yield f"{what}: there is no file {path}"
    for name, channel in settings.channels.items():
        if isinstance(channel, JsonlSettings) and not channel.path.parent.is_dir():
            yield f"channels: {name}: path: there is no folder {channel.path.parent}, and the channel makes none"


def _check_trust(trust: TrustConfig) -> None:
    """Read the trusted root, or look for the first root of the repository. Raises `OwnFault`."""
    if trust.tuf is not None:
        from monitor.trust.tuf import first_root, repository_url

        first_root(repository_url(trust.tuf), trust.tuf_root)
    elif trust.trusted_root is not None and trust.trusted_root.is_file():
        try:
            read_trust_root(trust.trusted_root.read_bytes()[: MAX_SIZE + 1])
        except (OSError, OwnFault) as error:
            raise OwnFault(f"trust: trusted_root: {trust.trusted_root}: {error}") from error


def _remarks(settings: Config) -> Iterator[str]:
    """Remarks on a configuration that works: secrets that other users of the machine can read."""
    for what, path in _secrets(settings):
        if path.is_file() and path.stat().st_mode & _READABLE_BY_OTHERS:
            yield f"{what}: other users of this machine can read {path}: chmod 0400"


def _files(settings: Config) -> Iterator[tuple[str, Path]]:
    """Files that have to exist, with the key that names each."""
    trust = settings.trust
    named = {"trusted_root": trust.trusted_root, "tuf_root": trust.tuf_root, "ca_file": trust.ca_file}
    yield from ((f"trust: {key}", path) for key, path in named.items() if path is not None)
    yield from (("trust: signing_configs", path) for path in trust.signing_configs)
    yield from ((f"logs: {log.name}: ca_file", log.ca_file) for log in settings.logs or () if log.ca_file is not None)
    if (site := settings.site) is not None:
        optional = {"privacy_file": site.privacy_file, "mail: ca_file": site.mail.ca_file}
        if site.oidc is not None:
            optional["oidc: ca_file"] = site.oidc.ca_file
        yield from ((f"site: {key}", path) for key, path in optional.items() if path is not None)
    # The site makes its key itself; the canary's token may come and go while the daemon runs.
    yield from ((what, path) for what, path in _secrets(settings) if what not in _MAY_BE_MISSING)


def _secrets(settings: Config) -> Iterator[tuple[str, Path]]:
    named: dict[str, Path | None] = {}
    if settings.heartbeat is not None:
        named["heartbeat: url_file"] = settings.heartbeat.url_file
    if settings.canary is not None:
        named["canary: token_file"] = settings.canary.token_file
    if (web := settings.web) is not None:
        named |= {"web: key_file": web.key_file, "web: token_file": web.token_file}
    if (site := settings.site) is not None:
        named |= {"site: key_file": site.key_file, "site: mail: password_file": site.mail.password_file}
        if site.oidc is not None:
            named["site: oidc: client_secret_file"] = site.oidc.client_secret_file
    yield from ((what, path) for what, path in named.items() if path is not None)
    for name, channel in settings.channels.items():
        for key in (each.name for each in fields(channel)):
            match getattr(channel, key):
                case SecretFile(path):
                    yield f"channels: {name}: {key}", path
                case Path() as path if key.endswith("_file"):
                    yield f"channels: {name}: {key}", path

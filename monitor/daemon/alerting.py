"""Channels of alerts, the links in them, and their life, as the configuration says."""

from pathlib import Path
from typing import Final

from alerts.channels.channel import Channel
from alerts.channels.settings import FOLLOWING, SecretFile, SecretUnreadable
from alerts.links import NO_LINKS, Links
from monitor.config import Config
from monitor.model.errors import BadConfig
from monitor.store.alert_life import AlertLife
from monitor.store.database import Database
from settings.document import Misplaced

_LEAST_SECRET: Final = 32


def build_channels(config: Config) -> list[Channel]:
    """Every configured channel. Raises `BadConfig`."""
    from alerts.channels.registry import build_channel  # noqa: PLC0415  listing alerts builds no channel

    try:
        links = links_of(config)
        return [build_channel(settings, base=config.base, links=links) for settings in config.channels.values()]
    except Misplaced as error:
        place = f"{config.path}:{error.problem.line}:{error.problem.column}"
        raise BadConfig(
            f"{place}: {error}\nNothing was started: alerts would have reached no channel. "
            "docs/channels.md lists every setting."
        ) from error


def links_of(config: Config) -> Links:
    """Addresses for alerts. Raises `BadConfig` when the key of signed links cannot be read or is short."""
    web = config.web
    if web is None or not web.public_url:
        return NO_LINKS
    return Links(web.public_url, _read_secret(web.key_file, "web.key_file") if web.key_file is not None else b"")


def life_of(config: Config, database: Database) -> AlertLife:
    """The life of alerts, with the configured channels that get changes."""
    followers = [name for name, settings in config.channels.items() if settings.type in FOLLOWING]
    return AlertLife(database, followers)


def token_of(config: Config) -> bytes:
    """The token of the API that changes alerts; empty where there is none. Raises `BadConfig`."""
    path = config.web.token_file if config.web is not None else None
    return _read_secret(path, "web.token_file") if path is not None else b""


def _read_secret(path: Path, key: str) -> bytes:
    try:
        secret = SecretFile(path).read().encode()
    except SecretUnreadable as error:
        raise BadConfig(f"{key}: {error}. Make one with: openssl rand -hex 32 > {path}") from error
    if len(secret) < _LEAST_SECRET:
        raise BadConfig(
            f"{key}: {path} is shorter than {_LEAST_SECRET} characters. Make one with: openssl rand -hex 32"
        )
    return secret

"""`signwatch site`: the subscribers' site without the daemon, which runs in another process."""

import logging
import signal
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, note
from monitor.config import Config, WebConfig, load_config
from monitor.model.errors import BadConfig
from monitor.program import VERSION, utc_now
from monitor.site_config import SiteConfig
from monitor.store.database import Database, open_database
from monitor.store.store import Store

if TYPE_CHECKING:
    from monitor.daemon.web_server import WebServer
    from monitor.site.parts import Site

_LOG: Final = logging.getLogger(__name__)


def site(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Serve only the subscribers' site, until SIGTERM or Ctrl-C. `signwatch run` follows, judges and delivers.

    With PostgreSQL any number of these may run beside one daemon, all with the same configuration and key file. With
    SQLite the daemon serves the site itself; use this command there only to view the site without following.

    Examples:
      signwatch site --config /etc/signwatch/signwatch.yaml
    """
    from inbound.serving import wait_for_end  # noqa: PLC0415  imports a server's libraries

    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        configured = site_of(settings)
        server = site_server(site_alone(settings, database), configured)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: stop.set())
        server.start()
        note(f"signwatch {VERSION}: site for subscribers on {server.url}, as {configured.public_url}")
        wait_for_end(stop)
        _LOG.info("stopping")
        server.stop()


def site_alone(settings: Config, database: Database) -> "Site":
    """The site without the daemon.

    It sends no request to a log: proofs of signings come from the archive, if there is one.

    Raises `BadConfig`, `ArchiveFault`.
    """
    from monitor.daemon.assembly import archived_past  # noqa: PLC0415  after the configuration was read
    from monitor.daemon.signing_proofs import SigningProofs  # noqa: PLC0415
    from monitor.site.parts import build_site

    made = build_site(site_of(settings), database, utc_now, archived_past(settings, database))
    if settings.archive is None:
        return made
    store = Store(database, clock=utc_now, route=lambda _alert: ())
    return replace(made, prove=SigningProofs(store, tuple, settings.archive).document)


def site_of(settings: Config) -> SiteConfig:
    """The configured site with an address to serve on. Raises `BadConfig`."""
    if settings.site is None or settings.site.listen is None:
        raise BadConfig(
            f"{settings.path}: no site is configured to be served. Add `site` with `public_url`, `listen`, `key_file` "
            "and `mail`; docs/site.md shows one."
        )
    return settings.site


def site_server(site: "Site", configured: SiteConfig) -> "WebServer":
    """The site on its address. Raises `OwnFault` when the address cannot be used."""
    from monitor.daemon.web_server import SITE_LIMITS, WebServer
    from monitor.site.app import create_site

    if configured.listen is None:
        raise BadConfig("site.listen is not set, so the site has no address.")
    return WebServer(create_site(site), WebConfig(configured.listen), SITE_LIMITS, "site")

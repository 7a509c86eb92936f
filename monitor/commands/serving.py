"""The daemon of `signwatch run`: its schedules, pages, the site for subscribers, and signals."""

import logging
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from alerts.alert import counted
from inbound.serving import wait_for_end
from monitor.commands.peers import index_reader
from monitor.commands.site import site_server
from monitor.commands.terminal import note
from monitor.config import ArchiveConfig, Config
from monitor.crosscheck.peers import PATH, checkpoints_document
from monitor.daemon.alert_pages import AlertDesk, alert_router
from monitor.daemon.alerting import life_of, links_of, token_of
from monitor.daemon.assembly import Monitor
from monitor.daemon.console import Console, console_router
from monitor.daemon.daemon import Daemon
from monitor.daemon.dead_man import DeadManService
from monitor.daemon.log_sources import OwnSources, own_sources
from monitor.daemon.rekor_form import unknown_paths
from monitor.daemon.search_limit import limit_searches
from monitor.daemon.service_manager import ServiceManager
from monitor.daemon.signing_proofs import SigningProofs
from monitor.daemon.status import Status, read_status, status_document
from monitor.daemon.web import add_document, create_app
from monitor.daemon.web_server import WebServer
from monitor.program import VERSION, utc_now
from monitor.store.reading import Reading
from monitor.telemetry.hooks import NOTICES
from monitor.telemetry.prometheus import PrometheusMeter

if TYPE_CHECKING:
    from monitor.site.parts import Site

_LOG: Final = logging.getLogger(__name__)


def made_meter(settings: Config) -> PrometheusMeter:
    """The meter of a daemon with these channels."""
    return PrometheusMeter(VERSION, [*settings.channels, *((NOTICES,) if settings.site else ())])


def serve(settings: Config, monitor: Monitor, meter: PrometheusMeter, stop: threading.Event) -> None:
    """Run the daemon until `stop` is set, which SIGTERM and SIGINT do."""
    daemon, manager = Daemon(monitor), ServiceManager()

    def look() -> tuple[Status, dict[str, Any]]:
        status = read_status(settings, monitor.store, utc_now(), daemon.reasons())
        return status, status_document(status, monitor.store)

    own = own_sources(monitor, monitor.parts)
    web = create_app(look, meter, settings.web.names if settings.web is not None else ())
    index_of = index_reader(settings.archive, lambda fault: _LOG.warning("search_index_not_shown detail=%s", fault))
    limit_searches(web, settings.web)
    add_document(web, PATH, lambda: checkpoints_document(monitor.store, own(), index_of))
    proofs = SigningProofs(monitor.store, own, settings.archive)
    web.include_router(
        alert_router(
            AlertDesk(
                life_of(settings, monitor.store.database),
                Reading(monitor.store.database),
                links_of(settings),
                token_of(settings),
                utc_now,
                proofs,
            )
        )
    )
    search = _add_search(web, monitor, settings.archive, own)
    held = monitor.rules
    web.include_router(console_router(Console(monitor.store, look, lambda: held.held.rules.rules, utc_now, search)))
    server = WebServer(web, settings.web) if settings.web is not None else None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    signal.signal(signal.SIGHUP, lambda _number, _frame: daemon.reload_rules())
    if settings.heartbeat is not None:
        service = DeadManService(settings.heartbeat, utc_now)
        daemon.every(service.seconds, partial(daemon.tell_dead_man, service), "dead-man service")
    if manager.ping_seconds is not None:
        # The ping is a job of the scheduler, so that it is late when the scheduler is stuck.
        daemon.every(manager.ping_seconds, manager.alive, "service manager")
    subscribers = None
    if monitor.courier is not None and settings.site is not None and settings.site.listen is not None:
        subscribers = site_server(with_logs(monitor.courier.site, monitor, proofs), settings.site)
    daemon.start()
    if subscribers is not None and settings.site is not None:
        subscribers.start()
        note(f"signwatch {VERSION}: site for subscribers on {subscribers.url}, as {settings.site.public_url}")
    if server is not None:
        server.start()
        note(f"signwatch {VERSION}: status page on {server.url}")
    logs, rules = len(monitor.watches), len(monitor.rules.held.rules.rules)
    _LOG.info("started logs=%d rules=%d", logs, rules)
    manager.ready(f"following {counted(logs, 'log')} with {counted(rules, 'rule')}")
    wait_for_end(stop)
    _LOG.info("stopping")
    manager.stopping()
    for each in (server, subscribers):
        if each is not None:
            each.stop()
    daemon.stop()


def _add_search(
    web: Any, monitor: Monitor, archive: ArchiveConfig | None, own: OwnSources
) -> Callable[..., Any] | None:
    """Serve search over the archive, if there is one; returns the search function of the operator's page."""
    if archive is None:
        web.include_router(unknown_paths((), "this installation has no archive to search; `archive` configures one"))
        return None
    # pyarrow takes a quarter of a second: only where there is an archive.
    from monitor.archive.files import ArchiveFiles  # noqa: PLC0415
    from monitor.archive.search import Archive  # noqa: PLC0415
    from monitor.daemon.rekor_search import load_key, page_search, search_router  # noqa: PLC0415

    opened = Archive(ArchiveFiles(archive.location), [log.name for log in monitor.logs])
    web.include_router(search_router(opened, own, load_key(monitor.config.base / "search-key.pem")))
    return page_search(opened)


def with_logs(site: "Site", monitor: Monitor, proofs: SigningProofs) -> "Site":
    """The subscribers' site with what only the daemon can give it: it may ask the logs."""
    site = replace(site, prove=proofs.document)
    if monitor.config.archive is None:
        return site
    from monitor.daemon.entry_reader import entry_reader  # noqa: PLC0415  imports pyarrow

    return replace(site, read_entries=entry_reader(monitor))

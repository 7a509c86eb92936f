"""`signwatch run`: the daemon, or one pass over everything."""

import logging
import random
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from alerts.alert import counted
from alerts.delivery import deliver_due
from monitor.commands.outcomes import EVIDENCE_SHOWN, one_line, rechecked_line, unfollowed, verdict
from monitor.commands.peers import index_reader
from monitor.commands.site import site_server
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, leave, note
from monitor.config import ArchiveConfig, Config, load_config
from monitor.crosscheck.peers import PATH, checkpoints_document
from monitor.daemon.assembly import Monitor, assemble, life_of, links_of, token_of
from monitor.daemon.daemon_lock import only_daemon
from monitor.daemon.log_sources import OwnSources, own_sources
from monitor.daemon.service_manager import ServiceManager
from monitor.daemon.status import Status, read_status, status_document
from monitor.following.follower import Timing
from monitor.judging.reevaluation import RecheckCounts, recheck_all
from monitor.model.errors import BadConfig, FetchFailed, OwnFault
from monitor.program import VERSION, utc_now
from monitor.store.database import sqlite_path
from monitor.store.reading import Reading
from monitor.telemetry.hooks import NOTICES, Meter

if TYPE_CHECKING:
    from monitor.daemon.signing_proofs import SigningProofs
    from monitor.site.parts import Site
    from monitor.telemetry.prometheus import PrometheusMeter

_M_ARENA_MAX: Final = -8  # malloc.h
_LOG: Final = logging.getLogger(__name__)


def run(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    once: Annotated[bool, typer.Option("--once", help="One pass over every log, deliver, and end.")] = False,
) -> None:
    """Follow the logs, judge signings, deliver alerts and serve the status page, until SIGTERM or Ctrl-C.

    The daemon reads the rules again on SIGHUP and when their file changes. With --once it reads every log once and
    then judges again the findings with a due second judgement. Exit codes with --once: 0 no fault and no unexpected
    signing; 1 a log misbehaved or there was an unexpected signing; 3 a log did not answer, a new entry cannot be
    read, or more rules select an entry than are judged. Open evidence (`signwatch evidence list --open`) makes it 1
    as well.

    Examples:
      signwatch run
      signwatch run --once --config /etc/signwatch/signwatch.yaml
    """
    settings = load_config(config)
    if not settings.notify:
        raise BadConfig(
            f"{config}: no alert channel is configured, so no alert would reach a person. Add one under `channels` "
            "(stdout, jsonl, webhook, slack, email, pagerduty, alertmanager, github-issues, command, apprise) and name "
            "it under `notify`."
        )
    if not once:
        share_memory_of_threads()
    stop = threading.Event()
    timing = Timing(utc_now, stop.wait, stop.is_set)
    meter = None if once else _meter(settings)
    with ExitStack() as parts:
        parts.enter_context(only_daemon(sqlite_path(settings.database)))
        monitor = assemble(settings, meter or Meter(), timing)
        parts.callback(monitor.close)
        if sqlite_path(settings.database) is not None:
            # Otherwise a killed process would hold its alerts back until its lease ran out.
            monitor.store.outbox.release()
            from monitor.store.notices import Notices  # noqa: PLC0415  `audit` uses this module, and sends no notices

            Notices(monitor.store.database).release()
        if meter is None:
            raise leave(_once(monitor))
        _serve(settings, monitor, meter, stop)


def _meter(settings: Config) -> "PrometheusMeter":
    from monitor.telemetry.prometheus import PrometheusMeter  # noqa: PLC0415  for the daemon alone: imports a server

    return PrometheusMeter(VERSION, [*settings.channels, *((NOTICES,) if settings.site else ())])


def share_memory_of_threads() -> None:
    """Let all threads allocate from one pool (mallopt(3)); elsewhere than with glibc nothing is changed.

    glibc gives a new thread a pool of its own, up to eight for each core, and each keeps what it once freed. Threads
    of Python take turns, so that separate pools make nothing faster.
    """
    with suppress(ImportError, OSError, AttributeError):
        import ctypes  # noqa: PLC0415  used here alone; a Python built without libffi lacks it

        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 1)


def _once(monitor: Monitor) -> Exit:
    # All logs are read before the first delivery, so that all findings of one event are known.
    monitor.store.certificate_hold = timedelta(0)
    outcomes = [outcome for watch in monitor.watches for outcome in watch.run_pass()]
    outcomes += unfollowed(monitor.config, monitor.trust.kept().root)
    archived = _archive(monitor)
    # Second judgements come last: they need the logs in which the awaited entry would be.
    again = recheck_all(monitor.store, monitor.rules.held, monitor.trust, utc_now())
    report = deliver_due(monitor.store.outbox, monitor.channels, utc_now(), random=random.random)
    if monitor.courier is not None:
        # The pass above made the subscribers' messages; this pass sends them too.
        monitor.courier.run_pass()
    for outcome in outcomes:
        note(one_line(outcome))
    if again != RecheckCounts():
        note(rechecked_line(again))
    for channel, done in report.channels.items():
        if done.failed or done.given_up:
            note(
                f"channel {channel}: {counted(done.failed + done.given_up, 'alert')} not delivered: {done.last_error}",
                "red",
            )
    undelivered = any(done.failed or done.given_up for done in report.channels.values())
    evidence = Reading(monitor.store.database).open_evidence(EVIDENCE_SHOWN)
    for each in evidence:
        note(each.sentence, "bold red")
    code = verdict(outcomes, again, evidence)
    undelivered = undelivered or not archived
    return Exit.UNFINISHED if code is Exit.FINE and undelivered else code


def _archive(monitor: Monitor) -> bool:
    """Archive the batches that the passes proved, if an archive is configured; false after a failure."""
    went_well = True
    for archiver in (made for log in monitor.logs if (made := monitor.make.archiver(log)) is not None):
        try:
            archiver.finish()
        except (OwnFault, FetchFailed) as error:
            went_well = False
            note(f"archiving {archiver.name}: {error}", "red")
        finally:
            archiver.close()
    return went_well


def _add_search(web: Any, monitor: Monitor, archive: ArchiveConfig, own: OwnSources) -> Callable[..., Any]:
    """Serve search over the archive; returns the search function of the operator's page."""
    # pyarrow takes a quarter of a second: only where there is an archive.
    from monitor.archive.files import ArchiveFiles  # noqa: PLC0415
    from monitor.archive.search import Archive  # noqa: PLC0415
    from monitor.daemon.rekor_search import load_key, page_search, search_router  # noqa: PLC0415

    opened = Archive(ArchiveFiles(archive.location), [log.name for log in monitor.logs])
    web.include_router(search_router(opened, own, load_key(monitor.config.base / "search-key.pem")))
    return page_search(opened)


def with_logs(site: "Site", monitor: Monitor, proofs: "SigningProofs") -> "Site":
    """The subscribers' site with what only the daemon can give it: it may ask the logs."""
    site = replace(site, prove=proofs.document)
    if monitor.config.archive is None:
        return site
    from monitor.daemon.entry_reader import entry_reader  # noqa: PLC0415  imports pyarrow

    return replace(site, read_entries=entry_reader(monitor))


def _serve(settings: Config, monitor: Monitor, meter: "PrometheusMeter", stop: threading.Event) -> None:
    from monitor.daemon.alert_pages import AlertDesk, alert_router
    from monitor.daemon.console import Console, console_router  # noqa: PLC0415  imports a Markdown reader
    from monitor.daemon.daemon import Daemon
    from monitor.daemon.dead_man import DeadManService  # noqa: PLC0415  imports an HTTP client
    from monitor.daemon.search_limit import limit_searches  # noqa: PLC0415  imports the limits library
    from monitor.daemon.signing_proofs import SigningProofs  # noqa: PLC0415  used by this command alone
    from monitor.daemon.web import add_document, create_app
    from monitor.daemon.web_server import WebServer

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
    search = None if settings.archive is None else _add_search(web, monitor, settings.archive, own)
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
    if subscribers is not None:
        subscribers.start()
        note(f"signwatch {VERSION}: site for subscribers on {subscribers.url}")
    if server is not None:
        server.start()
        note(f"signwatch {VERSION}: status page on {server.url}")
    logs, rules = len(monitor.watches), len(monitor.rules.held.rules.rules)
    _LOG.info("started logs=%d rules=%d", logs, rules)
    manager.ready(f"following {counted(logs, 'log')} with {counted(rules, 'rule')}")
    stop.wait()
    _LOG.info("stopping")
    manager.stopping()
    for each in (server, subscribers):
        if each is not None:
            each.stop()
    daemon.stop()

"""`signwatch run`: the daemon, or one pass over everything."""

import random
import threading
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Annotated, Final

import typer

from alerts.alert import counted
from alerts.delivery import deliver_due
from monitor.commands.outcomes import EVIDENCE_SHOWN, one_line, rechecked_line, unfollowed, verdict
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, leave, note
from monitor.config import Config, load_config
from monitor.daemon.assembly import Monitor, assemble
from monitor.daemon.daemon_lock import only_daemon
from monitor.following.follower import Timing
from monitor.judging.reevaluation import RecheckCounts, recheck_all
from monitor.model.errors import BadConfig, FetchFailed, OwnFault
from monitor.program import utc_now
from monitor.store.database import open_database, sqlite_path
from monitor.store.reading import Reading
from monitor.telemetry.hooks import Meter

_M_ARENA_MAX: Final = -8  # malloc.h


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
    path = sqlite_path(settings.database)
    if path is not None and not path.exists():
        open_database(settings.database).close()  # it refuses, before a lock file is made beside an absent database
    with ExitStack() as parts:
        parts.enter_context(only_daemon(path))
        if once:
            raise leave(_once(_assembled(settings, Meter(), timing, parts)))
        from monitor.commands.serving import made_meter, serve

        meter = made_meter(settings)
        serve(settings, _assembled(settings, meter, timing, parts), meter, stop)


def _assembled(settings: Config, meter: Meter, timing: Timing, parts: ExitStack) -> Monitor:
    monitor = assemble(settings, meter, timing)
    parts.callback(monitor.close)
    if sqlite_path(settings.database) is not None:
        # Otherwise a killed process would hold its alerts back until its lease ran out.
        monitor.store.outbox.release()
        if settings.site is not None:
            from monitor.store.notices import Notices  # noqa: PLC0415  with the site's tables

            Notices(monitor.store.database).release()
    return monitor


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

"""From the configuration to the parts that run: the store, the rules, the trust root, the logs, the channels."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from alerts.channels.channel import Channel
from monitor.archive.handover import Archiver, Handovers
from monitor.backscan.planner import FromArchive, LogBackscan, Services
from monitor.config import ArchiveConfig, Config, LogConfig, Objectives
from monitor.daemon.alerting import build_channels
from monitor.daemon.canary import Canary, CanaryChannel, check_canary
from monitor.daemon.configured_log import describe, http_fetcher, open_log, pinned, requests_per_second
from monitor.daemon.followed_logs import configured_logs, hold_of, tell_facts
from monitor.daemon.supervisor import LogSupervisor, PassHelpers, WatchSettings
from monitor.daemon.trust_watch import TrustWatch
from monitor.following.follower import FollowLimits, Timing
from monitor.following.workers import ScanWorkers
from monitor.http_fetcher import HttpFetcher, ReportRequest
from monitor.judging.active_rules import AskedRules, RuleKeeper, route_of
from monitor.judging.digest_lists import DigestLists
from monitor.logs.opening import LogTrees, OpenTrees
from monitor.model.errors import BadConfig, Evidence
from monitor.model.log_source import LogApi
from monitor.model.state import Batch
from monitor.site.fan_out import FanOut
from monitor.store.asks import Asks
from monitor.store.canaries import Canaries
from monitor.store.database import Database, open_database
from monitor.store.store import Store
from monitor.telemetry.hooks import Meter
from monitor.trust.provider import TrustKeeper
from rules.canary import canary_rule
from rules.rule import Rule

if TYPE_CHECKING:
    from monitor.site.archived import ArchivedHistory
    from monitor.site.delivery import Courier

# Entries that one process fetches, scans and commits in a second.
_ONE_PROCESS: Final = 50_000
_BACKSCAN_SHARE: Final = 4


class LogParts:
    """Makes the parts that work on one log each. Connections, threads and processes are closed with `parts`."""

    def __init__(self, config: Config, services: Services, limits: FollowLimits | None, parts: ExitStack) -> None:
        self._config, self._services, self._limits, self._parts = config, services, limits, parts
        self._handovers = None if config.archive is None else Handovers()
        most = config.objectives.examine_processes or max(1, (os.cpu_count() or 1) - 1)
        self._examiners, self._examined_here = ScanWorkers(most), ScanWorkers(1)
        parts.callback(self._examiners.close)

    def watch(self, log: LogConfig) -> LogSupervisor:
        """Follows the log."""
        config, services = self._config, self._services
        executor = ThreadPoolExecutor((self._limits or FollowLimits()).ahead, thread_name_prefix=f"fetch {log.name}")
        self._parts.callback(executor.shutdown, cancel_futures=True)
        fetcher = self._fetcher(log, partial(services.meter.fetched, log.name))
        appeared = config.logs is None and log.start == 0
        return LogSupervisor(
            log.name,
            self._opener(log, fetcher),
            services,
            WatchSettings(config.freshness(log), self._limits, log.witnesses, appeared),
            PassHelpers(
                executor,
                self._examiners if uses_processes(config.objectives, log) else self._examined_here,
                self._handovers,
            ),
        )

    def backscan(self, log: LogConfig) -> LogBackscan:
        """Offers the log's older entries to new rules."""
        return LogBackscan(
            log.name,
            self._opener(log, self._slow_fetcher(log)),
            self._services,
            config=self._config.backscan,
            stale_after=self._config.stale_after(log),
            from_archive=from_archive(self._config.archive, self._services.store, self._services.timing.clock),
        )

    def archiver(self, log: LogConfig) -> Archiver | None:
        """Archives the log; `None` without a configured archive."""
        if self._config.archive is None or self._handovers is None:
            return None
        from monitor.daemon.archiver import LogArchiver  # noqa: PLC0415  imports pyarrow

        return LogArchiver(
            log.name,
            self._opener(log, self._slow_fetcher(log)),
            self._services,
            config=self._config.archive,
            handovers=self._handovers,
        )

    def trees(self, log: LogConfig) -> LogTrees:
        """Trees of the log for reading single entries, within a small allowance of their own."""
        return LogTrees(self._opener(log, self._slow_fetcher(log)), self._services.timing.clock)

    def _opener(self, log: LogConfig, fetcher: HttpFetcher) -> OpenTrees:
        return partial(open_log, log, self._services.trust, self._services.store, fetcher)

    def _slow_fetcher(self, log: LogConfig) -> HttpFetcher:
        # Connections and an allowance of its own, so that following never waits for it, and the log gets few
        # additional requests.
        return self._fetcher(replace(log, requests_per_second=max(1, requests_per_second(log) // _BACKSCAN_SHARE)))

    def _fetcher(self, log: LogConfig, report: ReportRequest | None = None) -> HttpFetcher:
        http = http_fetcher(log, self._services.timing.pause, report)
        self._parts.callback(http.close)
        return http


class Monitor(Struct, frozen=True):
    """All running parts. `close` ends connections; all jobs must have ended before.

    `watches` follow `logs`, in the same order; `make` makes the other parts of one log. `courier` sends messages to
    subscribers, if a site is configured.
    """

    config: Config
    services: Services
    channels: Sequence[Channel]
    lists: DigestLists
    trust_watch: TrustWatch
    make: LogParts
    logs: list[LogConfig]
    watches: list[LogSupervisor]
    courier: "Courier | None"
    parts: ExitStack

    @property
    def store(self) -> Store:
        """State of everything."""
        return self.services.store

    @property
    def rules(self) -> RuleKeeper:
        """Rules in force."""
        return self.services.rules

    @property
    def trust(self) -> TrustKeeper:
        """Trusted keys, now and before."""
        return self.services.trust

    def more_logs(self) -> Sequence[tuple[LogConfig, LogSupervisor]]:
        """Add the logs that the trust root names since the last call, each with its supervisor."""
        known = {log.name for log in self.logs}
        more = [
            (log, self.make.watch(log)) for log in configured_logs(self.config, self.trust) if log.name not in known
        ]
        self.logs.extend(log for log, _ in more)
        self.watches.extend(watch for _, watch in more)
        tell_facts(self.store.facts.known, self.logs)
        return more

    def close(self) -> None:
        """Close every connection."""
        self.parts.close()


def assemble(config: Config, meter: Meter, timing: Timing, *, limits: FollowLimits | None = None) -> Monitor:
    """Open and check all parts, without requests to logs. Raises `OwnFault`, `FetchFailed`."""
    with ExitStack() as undo:
        parts = undo.enter_context(ExitStack())
        channels = build_channels(config)
        database = open_database(config.database, check=True)
        parts.callback(database.close)
        # The process that follows the logs matches subscribers' requests, even if another process serves the site.
        asked = AskedRules(Asks(database))
        asked.refresh()
        rules = RuleKeeper(config.rules, config.channels, asked, own_rules(config))
        channels.append(FanOut(database))
        if config.canary is not None:
            check_canary(config)
            channels.append(CanaryChannel(Canaries(database)))
        lists = DigestLists(config.base, timing.clock)
        lists.refresh(rules.held.rules.rules)
        store = Store(database, clock=timing.clock, route=route_of(config, rules), digests=lists.digests)
        trust = TrustKeeper(config.trust, timing.clock)
        trust_watch = TrustWatch(config, trust, store)
        trust_watch.record(timing.clock())
        logs = list(configured_logs(config, trust))
        store.certificate_hold = hold_of(config, logs)
        tell_facts(store.facts.known, logs)
        services = Services(store, rules, trust, meter, timing)
        make = LogParts(config, services, limits, parts)
        watches = [make.watch(log) for log in logs]
        courier = _courier(config, database, timing, parts)
        undo.pop_all()
    return Monitor(config, services, channels, lists, trust_watch, make, logs, watches, courier, parts)


def own_rules(config: Config) -> tuple[Rule, ...]:
    """Rules beside those of the file: the canary's."""
    canary = config.canary
    return () if canary is None else (canary_rule(canary.identity, canary.issuer),)


def make_canary(monitor: Monitor) -> Canary | None:
    """The canary, where one is configured."""
    config = monitor.config.canary
    if config is None:
        return None

    def key_id() -> str:
        log = next(each for each in monitor.logs if each.name == config.log)
        return describe(pinned(log, monitor.trust, monitor.store), monitor.trust.history().followable()).log_id.hex()

    if config.log not in {log.name for log in monitor.logs}:
        named = ", ".join(log.name for log in monitor.logs)
        raise BadConfig(f"{monitor.config.path}: the canary's log {config.log!r} is not followed; logs: {named}")
    told = config.notify or monitor.config.notify
    channels = [each for each in monitor.channels if each.name in told]
    return Canary(config, monitor.services, key_id, channels)


def _courier(config: Config, database: Database, timing: Timing, parts: ExitStack) -> "Courier | None":
    if config.site is None:
        return None
    from monitor.site.delivery import Courier
    from monitor.site.parts import build_site

    courier = Courier(build_site(config.site, database, timing.clock, archived_past(config, database)))
    parts.callback(courier.close)
    return courier


def archived_past(config: Config, database: Database) -> "ArchivedHistory | None":
    """Source of a name's past for the site; `None` without an archive. Raises `ArchiveFault`."""
    if config.archive is None:
        return None
    from monitor.archive.files import ArchiveFiles  # noqa: PLC0415  imports pyarrow
    from monitor.archive.search import Archive  # noqa: PLC0415
    from monitor.site.archived import ArchivedHistory  # noqa: PLC0415
    from monitor.store.signings import FindingsHistory  # noqa: PLC0415

    followed = [log.name for log in config.logs or ()]
    return ArchivedHistory(Archive(ArchiveFiles(config.archive.location), followed), FindingsHistory(database))


def uses_processes(objectives: Objectives, log: LogConfig) -> bool:
    """True if other processes scan a backlog of the log: as configured, else if this process would be too slow.

    Sending entries to a process takes half as long as scanning them here, so other processes help only if the
    allowed requests bring more entries than one process can scan.
    """
    if objectives.examine_processes is not None:
        return objectives.examine_processes > 1
    an_answer = max(api.answer_entries for api in ([log.api] if log.api is not None else LogApi))
    return requests_per_second(log) * an_answer > _ONE_PROCESS


def from_archive(
    archive: ArchiveConfig | None,
    store: Store,
    clock: Callable[[], datetime],
    on_batch: Callable[[Batch], None] = lambda _: None,
    on_evidence: Callable[[Evidence], None] = lambda _: None,
) -> FromArchive | None:
    """Back-scan from the archive; `None` without one.

    `on_batch` gets each batch, `on_evidence` evidence after it is stored.
    """
    if archive is None:
        return None
    from monitor.archive.files import ArchiveFiles  # noqa: PLC0415  imports pyarrow
    from monitor.archive.search import Archive  # noqa: PLC0415
    from monitor.backscan.by_archive import ArchiveSearchInputs, offer_archived  # noqa: PLC0415

    opened = Archive(ArchiveFiles(archive.location))
    return lambda source, gap, matcher, rules, judge: offer_archived(
        ArchiveSearchInputs(opened, store, matcher, rules, judge, clock, on_batch, on_evidence), source, gap
    )

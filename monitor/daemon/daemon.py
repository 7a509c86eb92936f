"""The daemon: a clock that starts passes, deliveries and refreshes, and ends them cleanly.

APScheduler is only the clock: its jobs are in memory and made from the configuration at each start. Lasting state is
in the database.
"""

import logging
import random
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from alerts.alert import Alert, Owner, counted, rfc3339
from alerts.channels.channel import Channel
from alerts.delivery import DeliveryPolicy, deliver_channel
from alerts.outbox import Backlog
from monitor.archive.handover import Archiver
from monitor.backscan.planner import LogBackscan
from monitor.config import LogConfig
from monitor.daemon.alerting import life_of
from monitor.daemon.assembly import Monitor, make_canary
from monitor.daemon.dead_man import DeadManService
from monitor.daemon.followed_logs import followed_keys, not_followed
from monitor.daemon.supervisor import LogSupervisor, LogThrottle
from monitor.daemon.weekly import rules_of, weekly_summary
from monitor.judging.coverage import read_coverage
from monitor.judging.reevaluation import recheck
from monitor.model.errors import FetchFailed, OwnFault
from monitor.raising.log_alerts import CONDITIONS, own_fault_alert
from monitor.store.alert_life import ChangeAuthor, silence_ended_alert
from monitor.store.health import ids_of_condition
from monitor.store.reading import Reading
from monitor.telemetry.hooks import NOTICES
from rules.canary import CANARY

_LOG: Final = logging.getLogger(__name__)
_DELIVER_EVERY: Final = 1
_HEARTBEAT_EVERY: Final = 5
_ASKED_EVERY: Final = 1
_TIDY_EVERY: Final = 600
_LISTS_EVERY: Final = 300
_LOOK_BACK_EVERY: Final = 1
_ARCHIVE_EVERY: Final = 1
_COVERAGE_EVERY: Final = 30
_BACKSCANS: Final = "backscans"
_ARCHIVES: Final = "archives"
_TRUST: Final = "trust root"
_DEAD_MAN: Final = "dead-man service"
_CANARY: Final = "canary"
_CANARY_UNTRIED: Final = "canary, which could not ask"
_CANARY_DUE_EVERY: Final = 5
_CANARY_WATCHED_EVERY: Final = 1
_SPARE_WORKERS: Final = 8
_ILL_AFTER: Final = timedelta(minutes=5)
_RETRY_TRUST_EVERY: Final = timedelta(minutes=1)


class Daemon:
    """Runs all jobs until it is stopped. `reasons` lists faults that only the running daemon knows."""

    def __init__(self, monitor: Monitor, policy: DeliveryPolicy | None = None) -> None:
        self._monitor, self._meter, self._timing = monitor, monitor.services.meter, monitor.services.timing
        self._policy = policy or DeliveryPolicy()
        self._troubles: dict[str, tuple[str, datetime]] = {}
        self._throttle = LogThrottle(self._timing.clock)
        self._life = life_of(monitor.config, monitor.store.database)
        self._canary = make_canary(monitor)
        self._told: set[str] = set()
        self._reload = threading.Event()
        # Spare threads for logs that a later trust root names.
        workers = len(monitor.watches) + len(monitor.channels) + _SPARE_WORKERS + 3
        # The back-scan has threads of its own, so that a pass never waits for a hanging one.
        looking_back = ThreadPoolExecutor(len(monitor.watches) + _SPARE_WORKERS)
        archiving = ThreadPoolExecutor(len(monitor.watches) + _SPARE_WORKERS)
        self._backscans: list[LogBackscan] = []
        self._archivers: list[Archiver] = []
        self._deliveries: list[str] = []
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(workers), _BACKSCANS: looking_back, _ARCHIVES: archiving},
            # A late pass is run late instead of being dropped, and only one runs at a time.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
            timezone="UTC",
        )

    def start(self) -> None:
        """Start every job; the first passes begin at once."""
        kept = self._monitor.trust.kept()
        self._meter.trust_root(kept.refreshed_at, kept.expires)
        self._meter.not_followed(len(not_followed(self._monitor.config, kept.root)))
        config = self._monitor.config
        for watch, log in zip(self._monitor.watches, self._monitor.logs, strict=True):
            self._follow(log, watch)
        self.every(_COVERAGE_EVERY, self.tell_coverage, "coverage")
        for channel in self._monitor.channels:
            self._deliver_often(partial(self.deliver, channel), f"deliver {channel.name}")
        self.every(_ASKED_EVERY, self.refresh_asked, "subscriptions")
        if self._monitor.courier is not None:
            self._deliver_often(self.tell_subscribers, "subscribers")
            self.every(_TIDY_EVERY, self.tidy_site, "tidy subscribers")
        if self._canary is not None:
            self.every(_CANARY_DUE_EVERY, self.sign_canary, "canary")
            self.every(_CANARY_WATCHED_EVERY, self.watch_canary, "canary's alert")
        if config.weekly:
            self.every(_TIDY_EVERY, self.tell_week, "weekly summaries")
        self.every(_HEARTBEAT_EVERY, self.heartbeat, "heartbeat")
        trust = min(config.trust.refresh, _RETRY_TRUST_EVERY * 10)
        self.every(int(trust.total_seconds()), self.refresh_trust, _TRUST)
        self.every(_LISTS_EVERY, self.refresh_lists, "digest lists")
        self._scheduler.start()

    def stop(self) -> None:
        """Wait for running jobs to end; `timing.stop` must be set before. No commit is interrupted."""
        self._scheduler.shutdown(wait=True)
        for archiver in self._archivers:
            archiver.close()

    def tell_dead_man(self, service: DeadManService) -> None:
        """Send a request to a dead-man service while this installation has no fault."""
        if set(self._troubles) <= {_DEAD_MAN, _CANARY_UNTRIED}:
            with self._ill_on_trouble(_DEAD_MAN):
                service.ask()

    def reload_rules(self) -> None:
        """Read the rules again at the next heartbeat; safe to call from a signal handler."""
        self._reload.set()

    def reasons(self) -> list[str]:
        """This installation's faults, as sentences."""
        return [f"{what}: {detail}" for what, (detail, _) in sorted(self._troubles.items())]

    def follow(self, watch: LogSupervisor) -> None:
        """One pass over one log. Trouble is recorded in the database, or in memory while the database has a fault."""
        outcomes = watch.run_pass()
        for outcome in outcomes:
            self._note(f"following {outcome.log}", outcome.detail if outcome.unrecorded else None)
        if any(each.findings or each.evidence or each.told for each in outcomes):
            self._deliver_now()

    def look_back(self, backscan: LogBackscan) -> None:
        """Offer older entries of one log to the rules that lack them, until none is left."""
        with self._ill_on_trouble(f"looking back in {backscan.name}"):
            while not self._timing.stop() and (seconds := backscan.step()) is not None:
                self._timing.pause(seconds)

    def archive(self, archiver: Archiver) -> None:
        """Archive the proven batches of one log, until none is waiting."""
        with self._ill_on_trouble(f"archiving {archiver.name}"):
            while not self._timing.stop() and archiver.step():
                pass

    def tell_coverage(self) -> None:
        """Count the entries that rules in force were not offered."""
        with self._ill_on_trouble("coverage"):
            matcher = self._monitor.rules.held.matcher
            self._meter.rules(len(matcher.rules), len(matcher.unindexed))
            store = self._monitor.store
            for log, found in read_coverage(store, Reading(store.database).followed(), 0).items():
                self._meter.coverage(log, found.uncovered, found.lacking)

    def deliver(self, channel: Channel) -> None:
        """One delivery pass over one channel."""
        with self._ill_on_trouble(f"delivery {channel.name}"):
            now = self._timing.clock()
            waiting = self._monitor.store.outbox.backlog().get(channel.name)
            if waiting is None or waiting.oldest > now:
                return
            report = deliver_channel(
                self._monitor.store.outbox, channel, now, random=random.random, policy=self._policy
            )
            self._meter.delivered(
                channel.name, delivered=report.delivered, failed=report.failed, given_up=report.given_up
            )

    def refresh_asked(self) -> None:
        """Put new and changed requests of subscribers in force."""
        with self._ill_on_trouble("subscriptions"):
            asked = self._monitor.rules.asked
            if asked is not None and asked.refresh():
                asked.index.settle()

    def tell_subscribers(self) -> None:
        """One pass over the messages to subscribers."""
        courier = self._monitor.courier
        if courier is None:
            return
        with self._ill_on_trouble("delivery to subscribers"):
            sent = courier.run_pass()
            self._meter.delivered(NOTICES, delivered=sent.delivered, failed=sent.failed, given_up=sent.given_up)

    def tidy_site(self) -> None:
        """Enqueue weekly mails, and delete expired rows."""
        if self._monitor.courier is not None:
            with self._ill_on_trouble("subscribers"):
                self._meter.subscribers(self._monitor.courier.tidy())

    def sign_canary(self) -> None:
        """Sign with the canary's identity, if a run is due."""
        if self._canary is not None:
            with self._ill_on_trouble("canary's signing"):
                self._canary.sign()

    def watch_canary(self) -> None:
        """Look for the alerts of the canary's signings."""
        if self._canary is None:
            return
        with self._ill_on_trouble("canary's record"):
            self._canary.watch()
            owner, detail = self._canary.trouble or (None, None)
            self._note(_CANARY, None if owner is Owner.COULD_NOT_ASK else detail)
            self._note(_CANARY_UNTRIED, detail if owner is Owner.COULD_NOT_ASK else None)

    def tell_week(self) -> None:
        """Send the weekly summary to each configured channel."""
        store, config, rules = self._monitor.store, self._monitor.config, self._monitor.rules
        with self._ill_on_trouble("weekly summaries"):
            names = [rule.id for rule in rules.held.rules.rules if rule.id != CANARY]
            for channel in config.weekly:
                of_channel = rules_of(channel, names, rules.held.notify, config.notify)
                summary = weekly_summary(store, channel, of_channel, self._timing.clock(), config.longest_pause)
                if summary is not None:
                    store.tell(summary, channel)

    def heartbeat(self) -> None:
        """Regular work on this installation: the outbox, the rules, second judgements, and alerts about own faults."""
        now, store = self._timing.clock(), self._monitor.store
        with self._ill_on_trouble("database"):
            backlog = store.outbox.backlog()
            self._meter.outbox(backlog, now)
            self._meter.promises(store.promises.tally(now))
            self._meter.open_evidence(Reading(store.database).open_evidence_counts())
            self._tend_alerts([*self._delivery_alerts(backlog, now), *self._own_alerts(now)], now)
        with self._ill_on_trouble("second judgements"):
            if trouble := recheck(store, self._monitor.rules.held, self._monitor.trust, now).trouble:
                raise OwnFault(trouble)
        if self._monitor.rules.is_due(asked=self._reload.is_set()):
            self._reload.clear()
            with self._ill_on_trouble("rules"):
                held = self._monitor.rules.reload()
                _LOG.info("rules_loaded rules=%d generation=%d", len(held.rules.rules), held.generation)
                self.refresh_lists()

    def _tend_alerts(self, own: Sequence[Alert], now: datetime) -> None:
        """Send alerts about faults, ended silences and open pages; resolve alerts with an ended condition."""
        store, life, config = self._monitor.store, self._life, self._monitor.config
        ended = [each for each in life.take_ended_silences(now) if each.silenced]
        store.enqueue([*own, *(silence_ended_alert(each, now) for each in ended)])
        if config.escalation is not None:
            for alert in life.escalate(config.escalation.after, config.escalation.notify, now):
                _LOG.warning("escalated alert=%s", alert)
        over = list(self._over({alert.id for alert in own}))
        if over:
            life.resolve(over, ChangeAuthor("signwatch", "The condition of the alert has ended."), now)
        self._meter.open_alerts(life.open_counts())

    def _over(self, own: Collection[str]) -> Iterator[str]:
        """Open alerts with an ended condition: logs that answer or move again, own faults."""
        health = self._monitor.store.health.all()
        now_true = {each for condition in health.values() for each in ids_of_condition(condition)} | set(own)
        for alert, kind, log in self._life.open_of_kinds(CONDITIONS):
            # Another process may share the database, so this process ends only its own alerts about faults.
            known = alert in self._told if kind == "signwatch-ill" else log in health
            if known and alert not in now_true:
                yield alert
        self._told = now_true

    def _delivery_alerts(self, backlog: Mapping[str, Backlog], now: datetime) -> Iterator[Alert]:
        limit = self._monitor.config.objectives.delivery_age
        for channel, waiting in sorted(backlog.items()):
            if now - waiting.oldest > limit:
                detail = (
                    f"{counted(waiting.pending, 'alert')} for channel {channel} waiting since {rfc3339(waiting.oldest)}"
                )
                # One alert for the day of the oldest delivery, even if some are delivered or added meanwhile.
                day = waiting.oldest.replace(hour=0, minute=0, second=0, microsecond=0)
                yield own_fault_alert(f"delivery to {channel}", detail, day, now)

    def _own_alerts(self, now: datetime) -> Iterator[Alert]:
        """Alerts about own faults that have lasted long enough."""
        error, _ = self._troubles.get(_TRUST, ("", now))
        yield from self._monitor.trust_watch.age_alerts(now, error)
        for what, (detail, since) in sorted(self._troubles.items()):
            # Keys stay valid for a while without a refresh: `trust-root-stale` reports when they do not.
            # The canary has alerts of its own.
            if what not in {_TRUST, _CANARY, _CANARY_UNTRIED} and now - since > _ILL_AFTER:
                yield own_fault_alert(what, detail, since, now)

    def refresh_trust(self) -> None:
        """Refresh the trust root; its changes are recorded, reported, and in force from the next pass on."""
        trust, now = self._monitor.trust, self._timing.clock()
        with self._ill_on_trouble(_TRUST):
            try:
                changed = trust.refresh()
            except (OwnFault, FetchFailed):
                self._meter.trust_refreshed(well=False)
                raise
            self._meter.trust_refreshed(well=True)
            kept = trust.kept()
            self._meter.trust_root(kept.refreshed_at, kept.expires)
            self._meter.not_followed(len(not_followed(self._monitor.config, kept.root)))
            # Recorded before its use: a new log is followed from its first entry only if its root is recorded.
            self._monitor.trust_watch.record(now)
            if changed:
                _LOG.warning("trust_root_changed fingerprint=%s", kept.root.fingerprint)
                for watch in self._monitor.watches:
                    watch.forget_sources()
                for backscan in self._backscans:
                    backscan.forget_sources()
                for archiver in self._archivers:
                    archiver.forget_sources()
            for log, watch in self._monitor.more_logs():
                self._follow(log, watch)
        self._tell_trust(now)

    def _tell_trust(self, now: datetime) -> None:
        with self._ill_on_trouble("trust sources"):
            self._monitor.trust_watch.tell(followed_keys(self._monitor.logs, self._monitor.trust), now)

    def _follow(self, log: LogConfig, watch: LogSupervisor) -> None:
        seconds = self._monitor.config.poll_seconds(log)
        jitter = seconds / 10 if seconds > 1 else None
        self.every(seconds, partial(self.follow, watch), f"follow {log.name}", jitter=jitter)
        backscan = self._monitor.make.backscan(log)
        self._backscans.append(backscan)
        self.every(_LOOK_BACK_EVERY, partial(self.look_back, backscan), f"look back {log.name}", executor=_BACKSCANS)
        if (archiver := self._monitor.make.archiver(log)) is not None:
            self._archivers.append(archiver)
            self.every(_ARCHIVE_EVERY, partial(self.archive, archiver), f"archive {log.name}", executor=_ARCHIVES)

    def refresh_lists(self) -> None:
        """Fetch the digest lists that the rules name."""
        failures = self._monitor.lists.refresh(self._monitor.rules.held.rules.rules)
        self._note("digest lists", "; ".join(failures) or None)

    @contextmanager
    def _ill_on_trouble(self, what: str) -> Iterator[None]:
        """Turn every failure into a reason for not being green; it ends when the same job succeeds again."""
        try:
            yield
        except (OwnFault, FetchFailed) as error:
            if self._throttle.admits(what):
                _LOG.error("own_trouble part=%s detail=%s", what, error)
            self._note(what, str(error))
        except Exception as error:  # noqa: BLE001
            # A defect must not end the daemon.
            if self._throttle.admits(what):
                _LOG.exception("defect part=%s", what)
            self._note(what, f"{type(error).__name__}: {error}")
        else:
            self._throttle.reset(what)
            self._note(what, None)

    def _note(self, what: str, detail: str | None) -> None:
        if detail is None:
            self._troubles.pop(what, None)
        elif what not in self._troubles:
            self._troubles[what] = (detail, self._timing.clock())

    def _deliver_often(self, job: Callable[[], Any], name: str) -> None:
        self._deliveries.append(name)
        self.every(_DELIVER_EVERY, job, name)

    def _deliver_now(self) -> None:
        """Run each delivery now. Its own turn may have been just before the commit, and the next is a second later."""
        for name in self._deliveries:
            # The scheduler that stops has forgotten its jobs.
            with suppress(JobLookupError):
                self._scheduler.modify_job(name, next_run_time=self._timing.clock())

    def every(
        self,
        seconds: float,
        job: Callable[[], Any],
        name: str,
        *,
        jitter: float | None = None,
        executor: str = "default",
    ) -> None:
        """Run a job at once and then every `seconds`, one at a time, with up to `jitter` seconds of random delay."""
        now, every = self._timing.clock(), {"seconds": seconds, "jitter": jitter}
        self._scheduler.add_job(job, "interval", **every, id=name, name=name, executor=executor, next_run_time=now)

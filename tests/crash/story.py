"""A short life of a monitor, in stages, told so that every call it makes to the world can be interrupted.

Everything of ours is real: the SQLite store on disk, the rules, the judge, second judgements, back-scans, the record of
trust roots, the outbox, the delivery loop, the file channel. Only the logs answer from memory. What goes out to the
world goes through a `Seam`, which sits where the programs end: SQLAlchemy's calls of the driver (every `do_…`), the
log's answers, the channels' sends. A step that is added to the programs is therefore met without a change here.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.default import DefaultDialect

from alerts.alert import Alert
from alerts.channels.channel import Channel
from alerts.channels.jsonl import JsonlChannel
from alerts.delivery import DeliveryPolicy, deliver_channel
from monitor.backscan.planner import Services
from monitor.backscan.step import backscan_step, missing_ranges
from monitor.config import Config, TrustConfig
from monitor.daemon.pass_result import PassResult
from monitor.daemon.supervisor import LogSupervisor, WatchSettings
from monitor.daemon.trust_watch import TrustWatch
from monitor.following.follower import FollowLimits, Timing
from monitor.http_fetcher import Expect
from monitor.judging.active_rules import RuleKeeper
from monitor.judging.judge import RuleJudge
from monitor.judging.reevaluation import recheck
from monitor.logs.ct_static import CtStaticSource
from monitor.logs.rekor_v2 import RekorV2Source
from monitor.model.errors import FetchFailed, OwnFault
from monitor.model.log_source import Freshness, LogSource
from monitor.store.database import create, open_database
from monitor.store.store import Store
from monitor.telemetry.prometheus import PrometheusMeter
from monitor.trust.provider import TrustKeeper
from tests.crash.scene import (
    CERTIFICATE_LOG,
    CHANNELS,
    LOG,
    STAGES,
    certificate_log_at,
    log_at,
    time_of,
    write_files,
)
from tests.support.misbehaving_log import MisbehavingLog, spki_of
from tlog.note import tile_log_key
from tlog.static_ct import static_ct_key

_POLICY: Final = DeliveryPolicy(singles=2, urgent_singles=2)
_BATCH: Final = 4
_LIMITS: Final = FollowLimits(batch_entries=_BATCH, pauses=())
_PASSES: Final = 6
_HOLD: Final = timedelta(minutes=1)

Around = Callable[[str, Callable[[], Any]], Any]


class SteppingFetcher:
    """A log whose answers are steps."""

    def __init__(self, log: MisbehavingLog, around: Around) -> None:
        self._log, self._around = log, around

    def get(self, path: str, *, max_bytes: int, expect: Expect) -> bytes:
        answer = self._around("fetch", lambda: self._log.get(path, max_bytes=max_bytes, expect=expect))
        assert isinstance(answer, bytes)
        return answer

    def post_json(self, path: str, document: Any, *, max_bytes: int) -> bytes:
        answer = self._around("fetch", lambda: self._log.post_json(path, document, max_bytes=max_bytes))
        assert isinstance(answer, bytes)
        return answer


@dataclass
class People:
    """A receiver that writes down what it got at once and for ever, with its key; it wants digests."""

    path: Path
    name: str = "people"
    digests: bool = True

    def send(self, alert: Alert, key: str, now: datetime) -> None:
        line = json.dumps({"key": key, **alert.to_json()}, sort_keys=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, line.encode() + b"\n")
        os.close(descriptor)


@dataclass
class SteppingChannel:
    """A channel whose sends are steps."""

    inner: Channel
    around: Around

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def digests(self) -> bool:
        return self.inner.digests

    def send(self, alert: Alert, key: str, now: datetime) -> None:
        self.around("send", lambda: self.inner.send(alert, key, now))


def step_through_database(around: Around) -> None:
    """Make a step of every call SQLAlchemy makes of the SQLite driver; for a process that ends with the run."""
    names = [name for name in dir(DefaultDialect) if name.startswith("do_")]
    assert {"do_commit", "do_rollback", "do_execute", "do_executemany"} <= set(names)
    for name in names:
        setattr(SQLiteDialect_pysqlite, name, _stepping(name, getattr(SQLiteDialect_pysqlite, name), around))


def _stepping(name: str, call: Callable[..., Any], around: Around) -> Callable[..., Any]:
    def stepping(*arguments: Any, **options: Any) -> Any:
        return around(name, partial(call, *arguments, **options))

    return stepping


@dataclass
class Desk:
    """What one process has in memory of one stage, over the open store."""

    store: Store
    rules: RuleKeeper
    trust: TrustKeeper
    trust_watch: TrustWatch
    watches: Sequence[LogSupervisor]


@dataclass
class Life:
    """One process's share of the story, in `folder`. `number` moves its delivery clock beyond older leases."""

    folder: Path
    around: Around
    number: int = 0

    @property
    def database(self) -> Path:
        return self.folder / "signwatch.db"

    def live(self, stages: Sequence[int]) -> None:
        """Go through these stages; what a pass runs into is a value, as in the daemon."""
        for stage in stages:
            write_files(self.folder, stage)
            if STAGES[stage] == "init":
                self._init()
            else:
                self._follow(stage)

    def _init(self) -> None:
        create(str(self.database), time_of(0), "crash test").close()
        store = self._open(0)
        try:
            for watch in self._desk(store, 0).watches:
                watch.baseline(0)
        finally:
            store.close()

    def _follow(self, stage: int) -> None:
        store = self._open(stage)
        try:
            desk = self._desk(store, stage)
            _insist(lambda: desk.trust_watch.record(time_of(stage)))
            for watch in desk.watches:
                _run_passes(watch)
            _insist(lambda: self._look_back(desk, stage))
            for channel in self._channels():
                self._deliver(store, channel, stage)
        finally:
            store.close()

    def _look_back(self, desk: Desk, stage: int) -> None:
        """What is due about the past: second judgements, and entries that a new rule was never offered."""
        held = desk.rules.held
        for _ in range(_PASSES):
            done = recheck(desk.store, held, desk.trust, time_of(stage))
            if done.trouble:
                raise OwnFault(done.trouble)
            if not done.looked_at:
                break
        else:
            raise AssertionError("the second judgements did not come to an end")
        source = self._source(stage)
        while gaps := missing_ranges(desk.store, source.identity.log, held.selections):
            backscan_step(
                source,
                desk.store,
                held.matcher,
                held.selections,
                RuleJudge(held.matcher, desk.store.facts, desk.trust.authorities),
                gap=gaps[0],
                timing=Timing(lambda: time_of(stage), lambda _seconds: None),
                entries=_BATCH,
            )

    def _deliver(self, store: Store, channel: Channel, stage: int) -> None:
        for number in range(_PASSES):
            now = time_of(stage) + timedelta(hours=24 * self.number + 2 * number, minutes=1)
            try:
                deliver_channel(store.outbox, channel, now, random=lambda: 0.5, policy=_POLICY)
                if channel.name not in store.outbox.backlog():
                    return
            except OwnFault:
                continue  # as the daemon does: the next pass is a second away
        raise AssertionError(f"{channel.name} was never done with: {store.outbox.backlog()}")

    def _open(self, stage: int) -> Store:
        database = open_database(str(self.database), check=True)
        store = Store(database, clock=lambda: time_of(stage), route=lambda _: CHANNELS, certificate_hold=_HOLD)
        store.facts.known.certificate_logs = frozenset({CERTIFICATE_LOG})
        return store

    def _channels(self) -> list[Channel]:
        inner: list[Channel] = [JsonlChannel("file", self.folder / "file.jsonl"), People(self.folder / "people.jsonl")]
        return [SteppingChannel(channel, self.around) for channel in inner]

    def _desk(self, store: Store, stage: int) -> Desk:
        def clock() -> datetime:
            return time_of(stage)

        rules = RuleKeeper(self.folder / "rules.yaml", CHANNELS)
        config = Config(
            path=self.folder / "signwatch.yaml",
            database=str(self.database),
            trust=TrustConfig(trusted_root=self.folder / "trusted_root.json"),
            rules=self.folder / "rules.yaml",
            logs=(),
        )
        trust = TrustKeeper(config.trust, clock)
        meter = PrometheusMeter("crash test")
        watches = [
            LogSupervisor(
                name,
                lambda source=source: [source(stage)],  # type: ignore[misc]
                Services(store, rules, trust, meter, Timing(clock, lambda _seconds: None)),
                WatchSettings(Freshness(timedelta(days=1000)), limits=_LIMITS),
            )
            # Certificates first, so that the alerts for them wait when the entries made with them are read.
            for name, source in ((CERTIFICATE_LOG, self._certificates), (LOG, self._source))
        ]
        return Desk(store, rules, trust, TrustWatch(config, trust, store), watches)

    def _source(self, stage: int) -> LogSource:
        log = log_at(stage)
        key = tile_log_key(log.host, spki_of(log.log_key))
        return RekorV2Source(log.source().identity, SteppingFetcher(log, self.around), key)

    def _certificates(self, stage: int) -> LogSource:
        log = certificate_log_at(stage)
        key = static_ct_key(log.origin, spki_of(log.log_key))
        return CtStaticSource(log.source().identity, SteppingFetcher(log, self.around), key)


def _run_passes(watch: LogSupervisor) -> None:
    quiet = 0
    for _ in range(_PASSES):
        # Until two in a row go well: what one could not write down at its end, the next one does.
        quiet = 0 if _went_wrong(watch.run_pass()) else quiet + 1
        if quiet == 2:
            return
    raise AssertionError("the passes did not come to an end")


def _insist(job: Callable[[], None]) -> None:
    """As the daemon does: what failed is tried again, a little later."""
    for _ in range(_PASSES):
        try:
            job()
        except (OwnFault, FetchFailed):
            continue
        return
    raise AssertionError("it never went well")


def _went_wrong(outcomes: Sequence[PassResult]) -> bool:
    """Whether the trouble was ours or the network's; a log that misbehaves is what the pass was for."""
    return any(outcome.owner is not None and not outcome.evidence for outcome in outcomes)

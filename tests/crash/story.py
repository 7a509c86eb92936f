"""A short life of a monitor, in stages, told so that every call it makes to the world can be interrupted.

Everything of ours is real: the SQLite store on disk, the rules, the judge, the outbox, the delivery loop, the file
channel. Only the log answers from memory. What goes out to the world goes through a `Seam`, which sits where the
programs end: SQLAlchemy's calls of the driver (every `do_…`), the log's answers, the channels' sends. A step that is
added to the programs is therefore met without a change here.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.default import DefaultDialect

from alerts.alert import Alert
from alerts.channels.channel import Channel
from alerts.channels.jsonl import JsonlChannel
from alerts.delivery import DeliveryPolicy, deliver_channel
from monitor.config import TrustConfig
from monitor.errors import OwnFault
from monitor.follow import Limits
from monitor.metrics import PrometheusMeter
from monitor.net import Expect
from monitor.rule_keeper import RuleKeeper
from monitor.source import LogSource
from monitor.sources.rekor_v2 import RekorV2Source
from monitor.store.database import create, open_database
from monitor.store.store import Store
from monitor.trust_keeper import TrustKeeper
from monitor.watching import LogWatch, Outcome, Timing
from tests.support.entries import b64, github_claims, hashedrekord_v2, make_ca, make_certificate
from tests.support.misbehaving_log import RekorV2Log, spki_of
from tlog.note import tile_log_key

BASE: Final = datetime(2026, 1, 2, 12, tzinfo=UTC)
LOG: Final = "v2"
CHANNELS: Final = ("file", "people")
STAGES: Final = ("init", "first entries", "more entries", "fork")
_POLICY: Final = DeliveryPolicy(singles=2, urgent_singles=2)
_LIMITS: Final = Limits(batch_entries=4, pauses=())
_PASSES: Final = 6
_FORKED_AT: Final = 11

_RULES: Final = """\
version: 1
rules:
  - id: release
    select: {identity: {glob: "https://github.com/acme/widget/**"}}
    expect: {ref: {glob: "refs/tags/v*"}, rate: {at_most: 3, per: 1d}}
  - id: alice
    select: {identity: alice@acme.example}
    expect: {same_issuer: true}
    severity: warn
"""

Around = Callable[[str, Callable[[], Any]], Any]


def _release(number: int, ref: str = "refs/tags/v1.2.3") -> bytes:
    claims = github_claims(ref=ref, run=number)
    issuer = "https://token.actions.githubusercontent.com"
    return _signed(claims["build_config_uri"], issuer, number, claims=claims)


def _signed(san: str, issuer: str, number: int, *, ca: str = "crash", claims: dict[str, str] | None = None) -> bytes:
    certificate = make_certificate(make_ca(ca), san=san, issuer=issuer, claims=claims, serial=1000 + number)
    return hashedrekord_v2(certificate, f"{number:064x}")


def _alice(number: int, issuer: str = "https://accounts.example", ca: str = "crash") -> bytes:
    return _signed("alice@acme.example", issuer, number, ca=ca)


@cache
def entries() -> tuple[bytes, ...]:
    """Expected and unexpected signings, judged by what came before them; strangers, forgeries, and garbage."""
    return (
        _release(0),
        _signed("bob@elsewhere.example", "https://accounts.example", 1),
        _release(2, "refs/heads/main"),
        b"{not json at all",
        _alice(4),
        _alice(5, ca="nobody's"),
        _release(6),
        _release(7),
        _alice(8, "https://other.example"),
        # The second stage begins here.
        _signed("carol@elsewhere.example", "https://accounts.example", 9),
        _alice(10, "https://third.example"),
        b"\xff\xfe",
        _alice(12),
        _release(13, "refs/heads/evil"),
    )


@cache
def log_at(stage: int) -> RekorV2Log:
    """The log as it is in a stage: it grows, and in the end signs another history."""
    log = RekorV2Log(entries()[: (2, 9, 14, 14)[stage]])
    log.timestamp += 1000 * stage
    if STAGES[stage] == "fork":
        log.rewrite_from(_FORKED_AT)
        log.grow(2)
    log.oracle().root(log.size)
    return log


class SteppingFetcher:
    """A log whose answers are steps."""

    def __init__(self, log: RekorV2Log, around: Around) -> None:
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
            if STAGES[stage] == "init":
                self._init()
            else:
                self._follow(stage)

    def _init(self) -> None:
        write_files(self.folder)
        create(str(self.database), BASE, "crash test").close()
        with_store = self._open(0)
        try:
            self._watch(with_store, 0).baseline(0)
        finally:
            with_store.close()

    def _follow(self, stage: int) -> None:
        store = self._open(stage)
        try:
            watch = self._watch(store, stage)
            quiet = 0
            for _ in range(_PASSES):
                # Until two in a row go well: what one could not write down at its end, the next one does.
                quiet = 0 if _went_wrong(watch.run_pass()) else quiet + 1
                if quiet == 2:
                    break
            else:
                raise AssertionError("the passes did not come to an end")
            for channel in self._channels():
                self._deliver(store, channel, stage)
        finally:
            store.close()

    def _deliver(self, store: Store, channel: Channel, stage: int) -> None:
        for number in range(_PASSES):
            now = _time(stage) + timedelta(hours=24 * self.number + 2 * number, minutes=1)
            try:
                deliver_channel(store.outbox, channel, now, random=lambda: 0.5, policy=_POLICY)
                if channel.name not in store.outbox.backlog():
                    return
            except OwnFault:
                continue  # as the daemon does: the next pass is a second away
        raise AssertionError(f"{channel.name} was never done with: {store.outbox.backlog()}")

    def _open(self, stage: int) -> Store:
        database = open_database(str(self.database), check=True)
        return Store(database, clock=lambda: _time(stage), route=lambda _: CHANNELS)

    def _channels(self) -> list[Channel]:
        inner: list[Channel] = [JsonlChannel("file", self.folder / "file.jsonl"), People(self.folder / "people.jsonl")]
        return [SteppingChannel(channel, self.around) for channel in inner]

    def _watch(self, store: Store, stage: int) -> LogWatch:
        def clock() -> datetime:
            return _time(stage)

        return LogWatch(
            LOG,
            lambda: [self._source(stage)],
            stale_after=timedelta(days=1000),
            store=store,
            rules=RuleKeeper(self.folder / "rules.yaml", CHANNELS),
            trust=TrustKeeper(TrustConfig(trusted_root=self.folder / "trusted_root.json"), clock),
            meter=PrometheusMeter("crash test"),
            timing=Timing(clock, lambda _seconds: None),
            limits=_LIMITS,
        )

    def _source(self, stage: int) -> LogSource:
        log = log_at(stage)
        key = tile_log_key(log.host, spki_of(log.log_key))
        return RekorV2Source(log.source().identity, SteppingFetcher(log, self.around), key)


def _went_wrong(outcomes: Sequence[Outcome]) -> bool:
    """Whether the trouble was ours or the network's; a log that misbehaves is what the pass was for."""
    return any(outcome.owner is not None and not outcome.evidence for outcome in outcomes)


def _time(stage: int) -> datetime:
    return BASE + timedelta(days=10 * stage)


def write_files(folder: Path) -> None:
    """The rules and the trusted root; written whole before anything else happens."""
    authority = {
        "uri": "https://ca.example",
        "certChain": {"certificates": [{"rawBytes": b64(each)} for each in make_ca("crash").chain]},
        "validFor": {"start": "2020-01-01T00:00:00Z"},
    }
    root = {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "certificateAuthorities": [authority],
    }
    (folder / "rules.yaml").write_text(_RULES, encoding="utf-8")
    (folder / "trusted_root.json").write_text(json.dumps(root), encoding="utf-8")

"""A served log followed for real: `log-lite` as a process, the sources over HTTP, the follower, a database on disk."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import event

from alerts.alert import Alert, Owner, Severity
from monitor.backscan.planner import Services
from monitor.config import TrustConfig
from monitor.daemon.supervisor import LogSupervisor, WatchSettings
from monitor.following.follower import FollowLimits, LogFollower, PassReport, Timing, baseline
from monitor.http_fetcher import HttpFetcher
from monitor.judging.active_rules import RuleKeeper
from monitor.logs.opening import open_sources
from monitor.model.errors import FetchFailed, LogMisbehaved
from monitor.model.log_description import LogDescription
from monitor.model.log_source import Freshness, LogApi, LogSource, Position, SignedHead
from monitor.proof.evidence import Conclusion, check_evidence, event_id, from_document
from monitor.store.database import create, open_database
from monitor.store.fsck import fsck
from monitor.store.reading import KeptEvidence, Reading
from monitor.store.store import Store
from monitor.telemetry.prometheus import PrometheusMeter
from monitor.trust.provider import TrustKeeper
from monitor.trust.trust_root import TrustRoot, read_trust_root
from outbound.transport import HttpLimits
from tests.support import waiting
from tests.support.harness import NOW, EverythingIsNews, NumberScanner
from tests.support.log_server import LogServer, log_server
from tests.support.served_following import add

MEDIA_TYPE = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
V1, V2, CT, STATIC = LogApi
ALL = (V1, V2, CT, STATIC)
PATHS = {V1: "", V2: "", CT: "/ct", STATIC: "/ct"}
LOG_OF = {V1: "v1", V2: "v2", CT: "ct", STATIC: "ct"}
READ, SEEN = 200, 300
"""Following has read this many entries and trusts the head over that many before every attack."""
NOTICE_SECONDS = waiting.PATIENCE


@dataclass
class Clock:
    """Time that only tests move."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **span: float) -> None:
        self.now += timedelta(**span)


@dataclass
class Patience:
    """Seconds as they pass, and those a test says have passed: servers that want to be left alone are."""

    skipped: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped

    def pass_by(self, seconds: float) -> None:
        self.skipped += seconds


PATIENCE = Patience()


def skip(_seconds: float) -> None:
    """A pause that is cut short: a server that wants rest ends the pass."""


@dataclass
class Followed:
    """One log followed into a database of its own. `written` lists the tables of every insert, in order."""

    store: Store
    source: LogSource
    follower: LogFollower
    written: list[str] = field(default_factory=list)

    @property
    def position(self) -> Position:
        position = self.store.position(self.source.identity.log)
        assert position is not None
        return position

    def run(self) -> PassReport:
        return self.follower.run_pass()

    def alerts(self) -> list[Alert]:
        """Alerts about the log itself, not about what stands in it."""
        kept = Reading(self.store.database).alerts(1000)
        return [each.alert for each in kept if each.alert.kind.startswith("log-")]

    def evidence(self) -> list[KeptEvidence]:
        return Reading(self.store.database).evidence(1000)

    def read_to_the_end(self) -> None:
        """The control, and the end of every attack: all the log signed is read, proven, and held against no party."""
        report = self.run()
        assert report.backlog == 0
        assert not report.lagging
        assert self.position.frontier.root() == self.position.head.head.root
        assert self.position.frontier.size == self.position.head.head.size >= SEEN
        assert fsck(self.store.database) == []

    def misbehaves(self, kind: str, *, read: int = READ, transferable: bool) -> Conclusion:
        """Follow; expect exactly this misbehaviour.

        Evidence that verifies on its own is written before the alert, the alert belongs to it and pages, and the
        position is at `read`: at most what was proven.
        """
        known = len(self.evidence())
        try:
            self.run()
        except LogMisbehaved as caught:
            assert caught.kind == kind, str(caught)  # noqa: PT017  the class is the promise
            identity = event_id(caught.evidence)
        else:
            raise AssertionError(f"the pass ended well in spite of {kind}")
        newest, *_ = self.evidence()
        assert len(self.evidence()) == known + 1
        assert newest.id == identity
        assert event_id(from_document(newest.document)) == identity
        conclusion = check_evidence(json.dumps(newest.document).encode()).conclusion
        assert conclusion.transferable is transferable, conclusion.sentences
        (alert,) = [each for each in self.alerts() if each.id == identity]
        assert (alert.kind, alert.owner, alert.severity) == (kind, Owner.LOG_MISBEHAVED, Severity.PAGE)
        assert dict(alert.facts)["Export"].startswith(f"signwatch evidence export {identity[:12]}")
        if kind == "log-forked":
            heads = [value for label, value in alert.facts if label.startswith("Signed head")]
            assert len(heads) >= 2, "both heads are shown, each with its root"
            assert all(", root " in head and ", first seen " in head for head in heads), heads
        assert [name for name in self.written if name in {"evidence", "alert"}][-2:] == ["evidence", "alert"]
        assert self.position.frontier.size == read
        assert fsck(self.store.database) == []
        return conclusion

    def cannot_be_asked(self, *reasons: str, read: int = READ) -> str:
        """Follow once; expect that we could not ask: nothing held against the log, no alert, `read` unmoved."""
        try:
            self.run()
        except LogMisbehaved as caught:
            raise AssertionError("held against the log") from caught
        except FetchFailed as error:
            assert error.reason in reasons, str(error)  # noqa: PT017
            reason = error.reason
        else:
            raise AssertionError("the pass ended well")
        self.holds_nothing_against_the_log()
        assert self.position.frontier.size == read
        return reason

    def holds_nothing_against_the_log(self) -> None:
        assert self.evidence() == []
        assert self.alerts() == []


@dataclass
class Site:
    """One server, its logs as sources, and a database in which each was baselined and not followed further."""

    server: LogServer
    sources: dict[LogApi, LogSource]
    baselined: Path
    stores: list[Store] = field(default_factory=list)

    def followed(self, api: LogApi, folder: Path, clock: Clock | None = None) -> Followed:
        """Follow a log in a copy of the baselined database."""
        path = folder / f"{api}-{len(list(folder.iterdir()))}.db"
        shutil.copy(self.baselined, path)
        followed = follow_into(path, self.sources[api], clock or Clock())
        self.stores.append(followed.store)
        return followed

    def close_stores(self) -> None:
        while self.stores:
            self.stores.pop().close()

    def be_honest(self) -> None:
        """Switch every fault off, and let pass the rest that the server asked for."""
        self.server.fault("none")
        PATIENCE.skipped += 60

    def control(self, folder: Path, *apis: LogApi) -> None:
        """Nothing is wrong: the same log is read to its end without a word."""
        self.be_honest()
        for api in apis:
            followed = self.followed(api, folder)
            followed.read_to_the_end()
            followed.holds_nothing_against_the_log()

    def grow(self, log: str, count: int) -> int:
        """Add entries and wait until the honest head covers them; returns the new size."""
        api = {"v1": V1, "v2": V2, "ct": CT}[log]
        wanted = self.sources[api].latest().size + count
        add_entries(self.server, log, count)
        return wait_for_size(self.sources[api], wanted)


def new_database(path: Path) -> Store:
    return Store(create(str(path), NOW, "test"), clock=Clock(), route=lambda _: ["console"])


def follow_into(path: Path, source: LogSource, clock: Clock) -> Followed:
    """Follow into an existing database file, noting the order of what is written."""
    store = Store(open_database(str(path)), clock=clock, route=lambda _: ["console"])
    follower = LogFollower(
        source,
        store,
        NumberScanner(),
        EverythingIsNews(),
        Timing(clock, lambda _: None),
        limits=FollowLimits(batch_entries=64),
    )
    followed = Followed(store, source, follower)

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO "):
            followed.written.append(statement.split()[2].strip('"'))

    event.listen(store.database.engine, "before_cursor_execute", note)
    return followed


RULES = """version: 1
rules:
  - id: nobody
    title: Signings by nobody in particular
    select: {identity: "nobody@example.org"}
"""


def watch(
    name: str, store: Store, trees: Callable[[], Sequence[LogSource]], root: bytes, clock: Clock
) -> LogSupervisor:
    """The watch of the daemon over one log, stale after an hour, with a rule that selects nothing."""
    database = store.database.path
    assert database is not None
    rules, trusted = database.with_suffix(".rules.yaml"), database.with_suffix(".trusted_root.json")
    rules.write_text(RULES)
    trusted.write_bytes(root)
    return LogSupervisor(
        name,
        trees,
        Services(
            store,
            RuleKeeper(rules, ["console"]),
            TrustKeeper(TrustConfig(trusted_root=trusted), clock),
            PrometheusMeter("test"),
            Timing(clock, lambda _: None),
        ),
        WatchSettings(Freshness(timedelta(hours=1), busy=True)),
    )


def wait_for_size(source: LogSource, size: int) -> int:
    return wait_until(source, lambda head: head.size >= size).size


def wait_until(source: LogSource, shows: Callable[[SignedHead], bool]) -> SignedHead:
    """Ask until the running server has noticed what another process wrote."""
    deadline = time.monotonic() + NOTICE_SECONDS
    while not shows(head := source.latest()):
        assert time.monotonic() < deadline, f"the log still shows size {head.size}, final: {head.final}"
        time.sleep(0.02)
    return head


def trust_of(server: LogServer) -> TrustRoot:
    return read_trust_root(trusted_root_of(server))


def trusted_root_of(server: LogServer) -> bytes:
    """The log's trust.json as a trusted root without authorities, for the address this server is at."""
    document = json.loads((server.folder / "trust.json").read_text())
    root = {"mediaType": MEDIA_TYPE, "tlogs": document["tlogs"], "ctlogs": document["ctlogs"]}
    # A second server of the same log has an address that its trust file does not name.
    made_for: str = document["tlogs"][0]["baseUrl"]
    return json.dumps(root).replace(json.dumps(made_for)[:-1], json.dumps(server.url)[:-1]).encode()


def describe(server: LogServer, api: LogApi) -> LogDescription:
    trusted = trust_of(server).log_at(server.url + PATHS[api], api)
    return LogDescription(api.value, trusted.url, trusted.spki, (api,), trusted.log_id)


def add_entries(server: LogServer, log: str, count: int) -> None:
    """Import entries that are new to the log."""
    counted = server.folder / "bodies.count"
    first = int(counted.read_text()) if counted.exists() else 0
    counted.write_text(str(first + count))
    add(server, log, count, first)


@contextmanager
def opened(server: LogServer, apis: Sequence[LogApi], limits: HttpLimits) -> Iterator[dict[LogApi, LogSource]]:
    """The newest tree of each log of the server."""
    fetchers = {api: HttpFetcher(server.url + PATHS[api], limits=limits, clock=PATIENCE, pause=skip) for api in apis}
    try:
        yield {api: open_sources(describe(server, api), fetcher)[-1] for api, fetcher in fetchers.items()}
    finally:
        for fetcher in fetchers.values():
            fetcher.close()


@contextmanager
def served(folder: Path, apis: Sequence[LogApi] = ALL, entries: int = SEEN) -> Iterator[Site]:
    """Serve a new log of this many entries, each of its protocols baselined at entry 200."""
    with log_server(folder / "log") as server:
        for log in sorted({LOG_OF[api] for api in apis}):
            add_entries(server, log, entries)
        with opened(server, apis, HttpLimits()) as sources:
            path = folder / "baselined.db"
            store = new_database(path)
            for source in sources.values():
                wait_for_size(source, entries)
                baseline(source, store, READ)
            # A copy of the file must hold everything.
            with store.database.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            store.close()
            yield Site(server, sources, path)

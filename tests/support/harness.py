"""One log, one state, one follower, put together the same way in every test of following."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from alerts.alert import Alert, Owner, Severity
from monitor.following.follower import FollowLimits, LogFollower, PassReport, Timing, baseline
from monitor.following.scan_batch import BatchMatches
from monitor.model.log_source import LogApi, LogEntry, Position, unread_entry
from monitor.model.state import Finding, Hit, UnreadableEntry
from rules.rule import Outcome, Verdict
from sigstore_entries.signing import EntryRef, Signing, Unreadable
from tests.rules.signings import everyone
from tests.support.memory_state import MemoryState
from tests.support.misbehaving_log import CtRfc6962Log, CtStaticLog, MisbehavingLog, RekorV1Log, RekorV2Log

NOW = datetime(2031, 3, 1, 12, 0, tzinfo=UTC)
KINDS: list[type[MisbehavingLog]] = [RekorV1Log, RekorV2Log, CtRfc6962Log, CtStaticLog]


class NumberScanner:
    """Selects entries whose number is divisible by 7, and cannot read those that begin with `garbage`."""

    def scan(self, entries: Sequence[LogEntry], start: int, log: str, api: LogApi) -> BatchMatches:
        hits, unreadable = [], []
        for index, entry in enumerate(entries, start):
            where = EntryRef(log, index)
            if entry.unread:
                unreadable.append(UnreadableEntry(unread_entry(where, entry.unread), b""))
            elif entry.leaf.startswith(b"garbage"):
                unreadable.append(UnreadableEntry(Unreadable(where, "malformed-json", "it is garbage"), entry.leaf))
            elif index % 7 == 0:
                hits.append(Hit(Signing(where, "test", "1", ()), ("sevenths",), entry.leaf))
        return BatchMatches(tuple(hits), tuple(unreadable), {"test": len(entries)})


class EverythingIsNews:
    """Judges every hit unexpected and alerts on each."""

    def judge(self, hits: Sequence[Hit], now: datetime) -> Sequence[Finding]:
        verdict = Verdict(Outcome.UNEXPECTED)
        return [Finding(rule, everyone(hit.signing), verdict, hit.leaf) for hit in hits for rule in hit.rules]

    def alerts(self, findings: Sequence[Finding], now: datetime) -> Sequence[Alert]:
        return [
            Alert(
                id=f"{f.selected.signing.where.log}-{f.selected.signing.where.index}-{f.rule}",
                kind="unexpected-signing",
                owner=Owner.SIGNING,
                severity=Severity.PAGE,
                title="t",
                summary="s",
                consequence="c",
                next_step="n",
                created_at=now,
                log=f.selected.signing.where.log,
                index=f.selected.signing.where.index,
                rule=f.rule,
            )
            for f in findings
        ]


@dataclass
class Watch:
    """A log being followed, with everything needed to look at the outcome."""

    log: MisbehavingLog
    state: MemoryState = field(default_factory=MemoryState)
    limits: FollowLimits = field(default_factory=lambda: FollowLimits(batch_entries=64))
    pauses: list[float] = field(default_factory=list)
    start: int | str = 0
    meanwhile: Callable[[], object] = lambda: None
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.source = self.log.source()
        self.restart()

    @property
    def name(self) -> str:
        return self.source.identity.log

    @property
    def position(self) -> Position:
        return self.state.positions[self.name]

    def restart(self) -> None:
        """Throw away everything but the log and the state."""
        self.source = self.log.source()
        self.follower = LogFollower(
            self.source,
            self.state,
            NumberScanner(),
            EverythingIsNews(),
            Timing(lambda: self.now, self.pause),
            limits=self.limits,
        )

    def pause(self, seconds: float) -> None:
        """Wait no time; `meanwhile` is what happens in it."""
        self.pauses.append(seconds)
        self.meanwhile()

    def begin(self, start: int | Literal["head"] = 0) -> "Watch":
        """Baseline at `start` and follow to the head."""
        baseline(self.source, self.state, start)
        self.follow()
        return self

    def follow(self) -> PassReport:
        return self.follower.run_pass()

    def found(self) -> list[int]:
        return sorted(index for _, index, _ in self.state.findings)

    def check(self) -> None:
        """The whole-state checker: what is stored is what the log signed, and every finding has one outbox row."""
        position = self.position
        tree = self.log.oracle()
        assert position.frontier.root() == tree.root(position.frontier.size)
        assert position.head.head.root == tree.root(position.head.head.size)
        rows = {(a.log, a.index, a.rule) for a in self.state.outbox.values() if a.kind == "unexpected-signing"}
        assert rows == set(self.state.findings)


def watch(kind: type[MisbehavingLog], entries: int, start: int = 0) -> Watch:
    """A log of `entries` entries, followed from `start` to its head."""
    log = kind()
    log.grow(entries)
    return Watch(log).begin(start)

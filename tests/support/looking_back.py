"""A log that is followed and looked back in, with files, a database and a clock of its own; nothing runs by itself."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from cryptography.x509 import load_der_x509_certificate

from monitor.backscan.planner import LogBackscan, Services
from monitor.config import BackscanConfig, TrustConfig
from monitor.daemon.supervisor import LogSupervisor, WatchSettings
from monitor.following.follower import FollowLimits, Timing
from monitor.judging.active_rules import RuleKeeper
from monitor.model.errors import FetchFailed
from monitor.model.log_source import Freshness, LogSource
from monitor.store.database import create, open_database
from monitor.store.reading import Reading
from monitor.store.store import Store
from monitor.telemetry.prometheus import PrometheusMeter
from monitor.trust.provider import TrustKeeper
from rules.rule import LookBack
from tests.support import entries as made
from tests.support.alerts import NOW
from tests.support.misbehaving_log import CtRfc6962Log, CtStaticLog, MisbehavingLog, RekorV1Log
from tests.support.parts import Clock
from tests.support.served_log import CA, ISSUER, ServedLog, signing_body

OLD = """\
version: 1
rules:
  - id: old
    select: {identity: {glob: "https://github.com/acme/widget/**"}}
    expect: {ref: {glob: "refs/tags/v*"}}
"""
NEW = (
    OLD
    + """\
  - id: new
    select: {identity: {glob: "https://github.com/acme/**/release.yml@refs/heads/evil"}}
"""
)
EVIL_REF = "refs/heads/evil"


def good_and_evil(kind: type[MisbehavingLog]) -> tuple[bytes, bytes]:
    """Leaves of a log of this kind: a release as expected, and one from a branch."""
    if issubclass(kind, (CtRfc6962Log, CtStaticLog)):
        return _precertificate("refs/tags/v1"), _precertificate(EVIL_REF)
    if issubclass(kind, RekorV1Log):
        return made.hashedrekord_v1(_certificate("refs/tags/v1")), made.hashedrekord_v1(_certificate(EVIL_REF))
    return signing_body(), signing_body(EVIL_REF)


def _precertificate(ref: str) -> bytes:
    return made.precert_leaf(CA, load_der_x509_certificate(_certificate(ref)).tbs_certificate_bytes)


def _certificate(ref: str) -> bytes:
    claims = made.github_claims(ref=ref) | {"source_repository_ref": ref}
    san = f"https://github.com/acme/widget/.github/workflows/release.yml@{ref}"
    return made.make_certificate(CA, san=san, issuer=ISSUER, claims=claims)


class LookedBack:
    """`followed` and `looked` are the log's sources: each of the two is seen to ask through its own."""

    def __init__(
        self,
        folder: Path,
        log: MisbehavingLog,
        look_back: LookBack = "followed",
        rate: int = 8,
        rules: str = OLD,
    ) -> None:
        self.folder, self.log, self.clock = folder, log, Clock()
        self.opening_takes = timedelta(0)
        files = ServedLog(log, "http://localhost:1", folder)  # type: ignore[arg-type]  # only its files are wanted
        files.write_files()
        path = str(folder / "signwatch.db")
        database = open_database(path) if Path(path).exists() else create(path, NOW, "test")
        self.store = Store(database, clock=self.clock, route=lambda _alert: ["mail"])
        self.write(rules)
        self.rules = RuleKeeper(folder / "rules.yaml", ["mail"])
        self.trust = TrustKeeper(TrustConfig(trusted_root=folder / "trusted_root.json"), self.clock)
        self.meter = PrometheusMeter("test")
        self.down: FetchFailed | None = None
        self.stopped = False
        self.config = BackscanConfig(look_back, rate)
        self.watch = self.watching()
        self.backscan = self.looking()

    @property
    def name(self) -> str:
        return self.log.source().identity.log

    def watching(self) -> LogSupervisor:
        return LogSupervisor(
            self.name,
            lambda: [self.log.source()],
            Services(self.store, self.rules, self.trust, self.meter, Timing(self.clock, lambda _seconds: None)),
            WatchSettings(Freshness(timedelta(hours=1)), limits=FollowLimits(batch_entries=8)),
        )

    def looking(self) -> LogBackscan:
        return LogBackscan(
            self.name,
            self._open,
            Services(
                self.store, self.rules, self.trust, self.meter, Timing(self.clock, self._pause, lambda: self.stopped)
            ),
            config=self.config,
            stale_after=timedelta(hours=1),
        )

    def write(self, text: str) -> None:
        (self.folder / "rules.yaml").write_text(text, encoding="utf-8")

    def put_in_force(self, text: str) -> None:
        """New rules, active from the position that the next pass begins at."""
        self.write(text)
        self.rules.reload()
        self.watch.run_pass()

    def restart(self) -> None:
        """What a new process knows: the database and the files."""
        self.rules = RuleKeeper(self.folder / "rules.yaml", ["mail"])
        self.watch, self.backscan = self.watching(), self.looking()

    def run(self, most: int = 100) -> int:
        """Steps until nothing is left to do for now; a pause passes."""
        for done in range(most):
            waiting = self.backscan.step()
            if waiting is None:
                return done
            self.clock.advance(seconds=waiting)
        return most

    def found(self, rule: str = "new") -> list[int]:
        return sorted(each.index for each in Reading(self.store.database).findings(10_000) if each.rule == rule)

    def told(self) -> list[str]:
        return sorted(each.alert.kind for each in Reading(self.store.database).alerts(10_000))

    def gaps(self) -> list[tuple[int, int]]:
        selections = self.rules.held.selections
        position = self.store.position(self.name)
        last = position.frontier.size if position is not None else 0
        return [(gap.first, gap.last) for gap in self.store.coverage.gaps(self.name, selections, 0, last)]

    def _open(self) -> Sequence[LogSource]:
        self.clock.now += self.opening_takes
        if self.down is not None:
            raise self.down
        return [self.log.source()]

    def _pause(self, seconds: float) -> None:
        self.clock.advance(seconds=seconds)

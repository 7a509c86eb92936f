"""A log in memory under the watch of the daemon's own parts: real rules, trust root, database; the clock in hand."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from monitor.backscan.planner import Services
from monitor.config import TrustConfig
from monitor.daemon.pass_result import PassResult
from monitor.daemon.supervisor import LogSupervisor, WatchSettings
from monitor.following.follower import FollowLimits, Timing
from monitor.judging.active_rules import RuleKeeper
from monitor.logs.rekor_v2 import RekorV2Source
from monitor.model.log_source import Freshness, LogSource
from monitor.model.witness_policy import WitnessPolicy
from monitor.store.database import open_database
from monitor.store.fsck import fsck
from monitor.store.reading import FoundSigning, KeptEvidence, Reading
from monitor.store.store import Store
from monitor.telemetry.prometheus import PrometheusMeter
from monitor.trust.provider import TrustKeeper
from tests.support.entries import (
    CA_NOT_AFTER,
    Authority,
    hashedrekord_v2,
    make_ca,
    make_github_certificate,
    milliseconds,
)
from tests.support.misbehaving_log import MisbehavingLog, RekorV2Log, spki_of
from tests.threats.site import MEDIA_TYPE, Clock, new_database
from tlog.note import tile_log_key

CA = make_ca()
RULES = """\
version: 1
rules:
  - id: widget
    select: {identity: {glob: "https://github.com/acme/widget/**"}}
    expect: {ref: {glob: "refs/tags/v*"}}
    severity: page
"""
STRANGER = "refs/heads/evil"


def signing(ref: str = "refs/tags/v1.2.3", ca: Authority = CA, *, number: int = 0) -> bytes:
    """A Rekor v2 entry: the release workflow signed on this ref; every number is another artifact.

    The certificate outlives the scenarios: an entry that appears after its certificate expired is unexpected.
    """
    return hashedrekord_v2(make_github_certificate(ca, ref=ref, not_after=CA_NOT_AFTER), f"{number:064x}")


def trusted_root(*authorities: Authority) -> bytes:
    """A trusted root of authorities only: the log's key is pinned by the source."""
    told = [
        {
            "subject": {"organization": "test", "commonName": "test"},
            "certChain": {"certificates": [{"rawBytes": base64.b64encode(der).decode()} for der in authority.chain]},
            "validFor": {"start": "2020-01-01T00:00:00Z"},
        }
        for authority in authorities
    ]
    return json.dumps({"mediaType": MEDIA_TYPE, "certificateAuthorities": told}).encode()


@dataclass
class Watched:
    """One log, its database file, and a watch that can be killed and begun again. Baselined at its first entry."""

    log: MisbehavingLog
    folder: Path
    clock: Clock = field(default_factory=Clock)
    limits: FollowLimits = field(default_factory=lambda: FollowLimits(batch_entries=512))
    witnesses: WitnessPolicy | None = None
    stopping: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self.path = self.folder / "signwatch.db"
        self.root = self.folder / "trusted_root.json"
        self.root.write_bytes(trusted_root(CA))
        (self.folder / "rules.yaml").write_text(RULES)
        new_database(self.path).close()
        self.log.timestamp = milliseconds(self.clock.now)
        self.begin()
        self.watch.baseline(0)

    def begin(self) -> None:
        """What a process has in memory when it starts."""
        self.store = Store(open_database(str(self.path), check=True), clock=self.clock, route=lambda _: ["console"])
        self.trust = TrustKeeper(TrustConfig(trusted_root=self.root), self.clock)
        self.meter = PrometheusMeter("test")
        self.watch = LogSupervisor(
            self.log.source().identity.log,
            self.trees,
            Services(
                self.store,
                RuleKeeper(self.folder / "rules.yaml", ["console"]),
                self.trust,
                self.meter,
                Timing(self.clock, lambda _: None, self._stops),
            ),
            WatchSettings(Freshness(timedelta(hours=1), busy=True), limits=self.limits, witnesses=self.witnesses),
        )

    def _stops(self) -> bool:
        return self.stopping()

    def trees(self) -> Sequence[LogSource]:
        if self.witnesses is not None:
            assert isinstance(self.log, RekorV2Log)
            known, key = self.log.source().identity, tile_log_key(self.log.host, spki_of(self.log.log_key))
            return [RekorV2Source(known, self.log, key, self.witnesses.witnesses)]
        return [self.log.source()]

    def grow(self, count: int) -> None:
        """Append ordinary entries and sign now, by our clock."""
        self.log.grow(count)
        self.log.timestamp = milliseconds(self.clock.now)

    def restart(self) -> None:
        self.store.close()
        self.begin()

    def run(self) -> PassResult:
        (outcome,) = self.watch.run_pass()
        return outcome

    @property
    def read(self) -> int:
        position = self.store.position(self.watch.name)
        assert position is not None
        return position.frontier.size

    def findings(self) -> list[FoundSigning]:
        return sorted(Reading(self.store.database).findings(100_000), key=lambda found: found.index)

    def found(self) -> list[tuple[int, str]]:
        return [(found.index, found.outcome) for found in self.findings()]

    def alerts(self) -> list[str]:
        """Kinds of alerts, oldest first."""
        return [each.alert.kind for each in reversed(Reading(self.store.database).alerts(1000))]

    def evidence(self) -> list[KeptEvidence]:
        return Reading(self.store.database).evidence(100)

    def check(self) -> None:
        assert fsck(self.store.database) == []

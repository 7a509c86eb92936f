"""Parts of the daemon that all work on a log shares."""

from dataclasses import dataclass

from monitor.following.follower import Timing
from monitor.judging.active_rules import RuleKeeper
from monitor.store.store import Store
from monitor.telemetry.hooks import Meter
from monitor.trust.provider import TrustKeeper


@dataclass(frozen=True, slots=True)
class Services:
    """State, rules in force, trusted keys, metrics, and time: one of each for all logs."""

    store: Store
    rules: RuleKeeper
    trust: TrustKeeper
    meter: Meter
    timing: Timing

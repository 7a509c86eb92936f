"""Outcomes of passes over the logs: the exit code, and lines for a terminal or a log file."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from alerts.alert import Owner, counted
from monitor.commands.terminal import Exit
from monitor.config import Config
from monitor.daemon.followed_logs import not_followed
from monitor.daemon.pass_result import PassResult
from monitor.judging.coverage import LogCoverage
from monitor.judging.reevaluation import RecheckCounts
from monitor.store.reading import OpenEvidence
from monitor.trust.trust_root import TrustRoot

EVIDENCE_SHOWN: Final = 20
_TRUST_ROOT: Final = "trust root"


class TimedResult(Struct, frozen=True):
    """Result for one tree, its duration in seconds, and the coverage of its rules."""

    outcome: PassResult
    seconds: float
    coverage: LogCoverage | None = None


def unfollowed(config: Config, root: TrustRoot) -> list[PassResult]:
    """Outcome for each log of the trust root that cannot be followed, so that no entry of it was read."""
    return [PassResult(_TRUST_ROOT, Owner.OURSELVES, "log-not-followed", each) for each in not_followed(config, root)]


def verdict(outcomes: list[PassResult], again: RecheckCounts, evidence: Sequence[OpenEvidence] = ()) -> Exit:
    """Exit code for passes, second judgements and open evidence: misbehaviour before outage, outage before success."""
    if (
        evidence
        or again.unexpected
        or any(outcome.owner is Owner.LOG_MISBEHAVED or outcome.findings.get("unexpected") for outcome in outcomes)
    ):
        return Exit.MISBEHAVED
    # A rule may select an entry that cannot be read, or may have been left out for an entry: the result is unknown.
    is_ill = bool(again.trouble) or not outcomes or any(each.unreadable or each.dropped for each in outcomes)
    # Too few witnesses do not accuse the log: the required cosignatures are missing.
    is_ill = is_ill or not all(outcome.cosigned for outcome in outcomes)
    return Exit.UNFINISHED if is_ill or any(outcome.owner is not None for outcome in outcomes) else Exit.FINE


def rechecked_line(again: RecheckCounts) -> str:
    """Result of second judgements, for a terminal or a log file."""
    if again.trouble:
        return f"second judgements: not finished: {again.trouble}"
    waiting = f"; {again.waiting} wait on: a log that would show more was not read" if again.waiting else ""
    return f"second judgements: {again.looked_at} were due, {again.unexpected} are unexpected{waiting}"


def unreadable_line(count: int) -> str:
    """Number of new entries to which no rule could be applied."""
    return "1 new entry cannot be read" if count == 1 else f"{count} new entries cannot be read"


def dropped_line(count: int) -> str:
    """Number of matches of new entries that were not judged."""
    return f"{counted(count, 'match')} left out: more rules may select an entry than are judged"


def one_line(outcome: PassResult) -> str:
    """Result of one pass, for a terminal or a log file."""
    read = ""
    if outcome.first is not None and outcome.last is not None:
        first, last = outcome.first, outcome.last
        read = f" read entries {first} to {last};" if last > first else f" nothing new after {counted(last, 'entry')};"
    found = ", ".join(f"{count} {name}" for name, count in sorted(outcome.findings.items()))
    if outcome.unreadable:
        found = f"{found}; {unreadable_line(outcome.unreadable)}".removeprefix("; ")
    if outcome.dropped:
        found = f"{found}; {dropped_line(outcome.dropped)}".removeprefix("; ")
    trouble = f" {outcome.owner.value} ({outcome.reason}): {outcome.detail}" if outcome.owner else " no trouble"
    if outcome.note:
        trouble = f"{trouble}; {outcome.note}"
    if outcome.witnessed is not None and not outcome.cosigned:
        short = f" too few cosignatures: {outcome.witnessed.line}"
        trouble = f"{trouble};{short}" if outcome.owner else short
    return f"{outcome.log}:{read}{' ' + found + ';' if found else ''}{trouble}"

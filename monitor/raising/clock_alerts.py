"""Times a log claims that contradict others known: its clock is the news, not what was signed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from alerts.alert import Alert, Owner, Severity
from monitor.model.heads import SignedHead
from monitor.model.pace import CLOCK_SKEW
from monitor.model.state import Finding
from monitor.raising.log_alerts import alert_id, day_of, rfc3339
from sigstore_entries.signing import ChainTrust

INTEGRATED_TIME: Final = "integrated-time"
REFUTED_TIME: Final = "refuted-integrated-time"
_SIDE: Final = {True: "behind", False: "before"}


def is_ahead(told: datetime, now: datetime) -> bool:
    """Whether a claimed time lies further ahead of ours than clocks may differ."""
    return told > now + CLOCK_SKEW


def clock_alert_of_head(head: SignedHead, now: datetime) -> list[Alert]:
    """Alert for a head that is signed with a time ahead of ours."""
    if head.timestamp is None or not is_ahead(head.timestamp, now):
        return []
    return [
        _clock_alert(head.log, ("Its newest head says", head.timestamp), ("here it is", now), now, Owner.COULD_NOT_ASK)
    ]


@dataclass(frozen=True, slots=True)
class Disordered:
    """Entry `index` is said to be taken in at `told`, and entry `other` next to it in the wrong order, at `known`."""

    index: int
    told: datetime
    other: int
    known: datetime


def disordered(times: Sequence[datetime | None], start: int) -> dict[int, Disordered]:
    """Entries of a batch, from index `start` on, whose claimed times contradict those of their neighbours, by index.

    A log takes entries in one after the other, so a later one is not taken in earlier by more than clocks may differ.
    Of such a pair neither time can be believed.
    """
    found: dict[int, Disordered] = {}
    for order, sign in ((range(len(times)), 1), (range(len(times) - 1, -1, -1), -1)):
        worst: tuple[datetime, int] | None = None
        for at in order:
            told = times[at]
            if told is None:
                continue
            if worst is not None and (worst[0] - told) * sign > CLOCK_SKEW:
                found.setdefault(start + at, Disordered(start + at, told, start + worst[1], worst[0]))
            if worst is None or (told - worst[0]) * sign > timedelta(0):
                worst = (told, at)
    return found


def clock_alerts_of_entries(log: str, times: Sequence[datetime | None], start: int, now: datetime) -> list[Alert]:
    """Alert for entries that the log claims to have taken in at a time ahead of ours, or out of their order."""
    latest = max((at for at in times if at is not None), default=None)
    found = disordered(times, start)
    if found:
        first = found[min(found)]
        told = (f"Entry {first.index} is said to be taken in at", first.told)
        known = (f"entry {first.other}, {_SIDE[first.other > first.index]} it, at", first.known)
        return [_clock_alert(log, told, known, now, Owner.LOG_MISBEHAVED)]
    if latest is None or not is_ahead(latest, now):
        return []
    return [
        _clock_alert(
            log, ("An entry is said to be taken in at", latest), ("it was met here at", now), now, Owner.COULD_NOT_ASK
        )
    ]


def clock_alerts_of_findings(log: str, findings: Sequence[Finding], now: datetime) -> list[Alert]:
    """Alert for signings that the log claims to have taken in before their trusted certificate was made, or logged.

    The clock of an authority may run ahead of the log's by as much as clocks may differ: that is no news.
    """
    for finding in findings:
        told = next((time.at for time in finding.signing.times if time.source == INTEGRATED_TIME), None)
        begins = [
            signer.not_before
            for signer in finding.signing.signers
            if signer.trust is ChainTrust.TRUSTED and signer.not_before is not None
        ]
        begins += [promise.at for promise in finding.promises] if begins else []
        if told is not None and begins and told < max(begins) - CLOCK_SKEW:
            what = f"Entry {finding.signing.where.index} is said to be taken in at"
            return [
                _clock_alert(log, (what, told), ("its certificate was made at", max(begins)), now, Owner.LOG_MISBEHAVED)
            ]
    return []


def _clock_alert(
    log: str, told: tuple[str, datetime], known: tuple[str, datetime], now: datetime, owner: Owner
) -> Alert:
    """`owner`: a time that only this machine's clock contradicts does not tell which of the two clocks is wrong."""
    return Alert(
        id=alert_id("log-clock", log, day_of(now)),
        kind="log-clock",
        owner=owner,
        severity=Severity.WARN,
        title=f"{log} tells a time that cannot be right",
        summary=f"{told[0]} {rfc3339(told[1])}; {known[0]} {rfc3339(known[1])}.",
        consequence="Times in this log prove nothing until this is explained; its entries are still being checked, "
        "without the times that contradict others.",
        next_step="Check this machine's clock first, then ask the log's operator.",
        created_at=now,
        facts=(("Log", log), ("Time told", rfc3339(told[1])), ("Time known", rfc3339(known[1]))),
        log=log,
    )

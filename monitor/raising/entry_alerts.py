"""Alerts about the entries of a batch: contradictory times, entries that cannot be read, matches left out.

A contradictory time is a fault of the log's clock or of this machine's; it says nothing about the signed artifacts.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from alerts.alert import Alert, Owner, Severity, alert_id, counted, day_of, rfc3339
from monitor.model.log_source import CLOCK_SKEW, SignedHead, TimedEntry
from monitor.model.state import Finding, LeftOut, UnreadableEntry
from sigstore_entries.entry import readable_part
from sigstore_entries.signing import UNREADABLE_SIGNER, ChainTrust

INTEGRATED_TIME: Final = "integrated-time"
REFUTED_TIME: Final = "refuted-integrated-time"
_SIDE: Final = {True: "behind", False: "before"}
_IN_PART: Final = "The rules were asked about the readable part; it is not known whether one selects the rest. "
_WHOLE: Final = "It is not known whether a rule selects these entries. "


def is_ahead(told: datetime, now: datetime) -> bool:
    """True if a claimed time is ahead of `now` by more than the allowed difference of clocks."""
    return told > now + CLOCK_SKEW


def clock_alert_of_head(head: SignedHead, now: datetime) -> list[Alert]:
    """Alert for a head with a signed time ahead of `now`."""
    if head.timestamp is None or not is_ahead(head.timestamp, now):
        return []
    return [
        _clock_alert(head.log, ("Its newest head says", head.timestamp), ("here it is", now), now, Owner.COULD_NOT_ASK)
    ]


class TimeDisorder(Struct, frozen=True):
    """The log claims to have taken in entry `index` at `told` and its neighbour `other` at `known`, out of order."""

    index: int
    told: datetime
    other: int
    known: datetime


def disordered(timed: Sequence[TimedEntry]) -> dict[int, TimeDisorder]:
    """Entries whose claimed times contradict those of their neighbours, by index; `timed` is in the order of the log.

    A log takes entries in one after the other, so a later entry is not earlier by more than the allowed difference
    of clocks. Of such a pair neither time counts. The first of `timed` may be the last entry of the batch before, so
    that a clock that jumped between two batches is noticed too.
    """
    found: dict[int, TimeDisorder] = {}
    for order, sign in ((timed, 1), (timed[::-1], -1)):
        worst: TimedEntry | None = None
        for each in order:
            if worst is not None and (worst.at - each.at) * sign > CLOCK_SKEW:
                found.setdefault(each.entry, TimeDisorder(each.entry, each.at, worst.entry, worst.at))
            if worst is None or (each.at - worst.at) * sign > timedelta(0):
                worst = each
    return found


def clock_alerts_of_entries(log: str, timed: Sequence[TimedEntry], now: datetime) -> list[Alert]:
    """Alert for entries that the log claims to have taken in at a time ahead of `now`, or out of order."""
    latest = max((each.at for each in timed), default=None)
    found = disordered(timed)
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

    The clock of an authority may be ahead of the log's by the allowed difference of clocks without an alert.
    """
    for finding in findings:
        told = next((time.at for time in finding.selected.signing.times if time.source == INTEGRATED_TIME), None)
        begins = [
            signer.not_before
            for signer in finding.selected.signing.signers
            if signer.trust is ChainTrust.TRUSTED and signer.not_before is not None
        ]
        begins += [promise.at for promise in finding.promises] if begins else []
        if told is not None and begins and told < max(begins) - CLOCK_SKEW:
            what = f"Entry {finding.selected.signing.where.index} is said to be taken in at"
            return [
                _clock_alert(log, (what, told), ("its certificate was made at", max(begins)), now, Owner.LOG_MISBEHAVED)
            ]
    return []


def _clock_alert(
    log: str, told: tuple[str, datetime], known: tuple[str, datetime], now: datetime, owner: Owner
) -> Alert:
    """`owner`: if only this machine's clock contradicts the time, either of the two clocks may be wrong."""
    return Alert(
        id=alert_id("log-clock", log, day_of(now)),
        kind="log-clock",
        owner=owner,
        severity=Severity.WARN,
        title=f"{log} tells a time that cannot be right",
        summary=f"{told[0]} {rfc3339(told[1])}; {known[0]} {rfc3339(known[1])}.",
        consequence="Do not rely on times in this log until the cause is known. Its entries are still being checked; "
        "contradicted times are ignored.",
        next_step="Check this machine's clock first, then ask the log's operator.",
        created_at=now,
        facts=(("Log", log), ("Time told", rfc3339(told[1])), ("Time known", rfc3339(known[1]))),
        log=log,
    )


def alerts_of_unreadable(log: str, unreadable: Sequence[UnreadableEntry], now: datetime) -> list[Alert]:
    """One alert per reason for the entries of one batch that cannot be decoded; the database keeps these entries.

    Every batch with such entries makes an alert: a second entry must not hide behind the first.
    """
    firsts = {entry.unreadable.code: entry for entry in reversed(unreadable)}
    counts = Counter(entry.unreadable.code for entry in unreadable)
    return [_unreadable_alert(log, firsts[code], counts[code], now) for code in sorted(firsts)]


def _unreadable_alert(log: str, first: UnreadableEntry, count: int, now: datetime) -> Alert:
    where, code = first.unreadable.where, first.unreadable.code
    more = f", with {count - 1} more in the same batch" if count > 1 else ""
    return Alert(
        id=alert_id("entry-unreadable", log, code, str(where.index)),
        kind="entry-unreadable",
        owner=Owner.OURSELVES,
        severity=Severity.WARN,
        title=f"{log} holds entries that this version cannot read",
        summary=f"Entry {where.index}{more}: {first.unreadable.reason}",
        consequence=f"{_IN_PART if code == UNREADABLE_SIGNER else _WHOLE}They are kept whole and counted.",
        next_step="Check whether the readable part names you. `signwatch status` counts such entries; a later version "
        "that can read them judges them again.",
        created_at=now,
        facts=(
            ("Log", log),
            ("Reason", code),
            ("First index", str(where.index)),
            ("Entries", str(count)),
            ("Readable in it", readable_part(first.leaf)),
        ),
        log=log,
        index=where.index,
    )


DROPPED: Final = "rules-dropped"


def alerts_of_dropped(log: str, dropped: Sequence[LeftOut], now: datetime) -> list[Alert]:
    """One alert for the entries of a batch that more rules may select than are judged.

    Every batch with such entries makes an alert: a second entry must not hide behind the first.
    """
    if not dropped:
        return []
    first, matches = dropped[0], sum(each.matches for each in dropped)
    others = f" and {counted(len(dropped) - 1, 'more entry')} of the same batch" if len(dropped) > 1 else ""
    return [
        Alert(
            id=alert_id(DROPPED, log, str(first.index)),
            kind=DROPPED,
            owner=Owner.OURSELVES,
            severity=Severity.WARN,
            title=f"More rules select an entry of {log} than are judged",
            summary=f"Left out: {counted(matches, 'match')} of entry {first.index}{others}. The rules that come first "
            "in the file, and the signers with the fewest names and keys, were judged.",
            consequence="The recipients of the rules that were left out get no alert about this entry.",
            next_step="Look at the entry and at the rules that select it: one rule with a list of channels can "
            "replace many rules. `signwatch status` counts the matches left out.",
            created_at=now,
            facts=(
                ("Log", log),
                ("First index", str(first.index)),
                ("Rules left out of it", str(first.matches)),
                ("Matches left out", str(matches)),
                ("Entries", str(len(dropped))),
                ("Readable in it", first.readable),
            ),
            log=log,
            index=first.index,
        )
    ]

"""Alerts about what rules were not asked about: matches beyond the cap, older entries that cannot be had."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from alerts.alert import Alert, Owner, Severity
from monitor.raising.log_alerts import alert_id, lasting, rfc3339

DROPPED: Final = "rules-dropped"


def alerts_of_dropped(log: str, dropped: Sequence[tuple[int, int]], now: datetime) -> list[Alert]:
    """One alert for the entries of a batch, as (index, matches left out), that more rules may select than are judged.

    Every batch that meets more of them is news: a second entry must not hide behind the first.
    """
    if not dropped:
        return []
    index, matches = dropped[0][0], sum(count for _, count in dropped)
    others = f" and {len(dropped) - 1} more entries of the same batch" if len(dropped) > 1 else ""
    return [
        Alert(
            id=alert_id(DROPPED, log, str(index)),
            kind=DROPPED,
            owner=Owner.OURSELVES,
            severity=Severity.WARN,
            title=f"More rules select an entry of {log} than are judged",
            summary=f"{matches} matches of entry {index}{others} were left out. The rules that come first in the file, "
            "and the signers with the fewest names and keys, were judged.",
            consequence="The recipients of the rules that were left out are not told of this entry.",
            next_step="Look at the entry and at the rules that select it: one rule with a list of channels does the "
            "work of many. `signwatch status` counts what was left out.",
            created_at=now,
            facts=(("Log", log), ("First index", str(index)), ("Matches left out", str(matches))),
            log=log,
            index=index,
        )
    ]


def back_scan_stuck_alert(log: str, detail: str, remaining: int, since: datetime, now: datetime) -> Alert:
    """Alert for a range of a log that rules ask to be looked at and that could not be had since `since`."""
    return Alert(
        id=alert_id("back-scan-stuck", log, since.isoformat()),
        kind="back-scan-stuck",
        owner=Owner.COULD_NOT_ASK,
        severity=Severity.WARN,
        title=f"Looking back in {log} has not got on for {lasting(now - since)}",
        summary=detail,
        consequence=f"{remaining} older entries that rules ask to be looked at were not. New entries are followed.",
        next_step="Nothing needs to be reset: it goes on where it stands once the log answers. If the log no longer "
        "serves old entries, ask its operator, or take back the rule's `backscan`.",
        created_at=now,
        facts=(("Log", log), ("Entries left", str(remaining)), ("Since", rfc3339(since))),
        log=log,
    )

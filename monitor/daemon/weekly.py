"""The weekly summary: once a week a channel gets the list of watched logs and the number of alerts.

It distinguishes a quiet channel from a broken one. The week is the ISO week (Monday 00:00 UTC to the next), so that
all replicas make the same summary and send it once.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from alerts.alert import Alert, Owner, Severity, alert_id, counted, exactly
from monitor.store.events import Events, FindingFilter
from monitor.store.history import History, pauses
from monitor.store.reading import AlertsAbout, Reading
from monitor.store.store import Store
from rules.rule import Outcome

KIND: Final = "weekly-summary"
_WEEK: Final = timedelta(days=7)
_ALERTS: Final = 10_000
_LOGS: Final = 20


def last_week(now: datetime) -> tuple[datetime, datetime]:
    """The newest ISO week that is over, as `[begin, end)`."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    end = midnight - timedelta(days=midnight.weekday())
    return end - _WEEK, end


def weekly_summary(
    store: Store, channel: str, rules: Sequence[str], now: datetime, longest_pause: Callable[[str], timedelta]
) -> Alert | None:
    """The summary of last week for a channel that gets alerts of `rules`; `None` if it was sent or is too early.

    `longest_pause` is the time between two passes in which a log still counts as watched.

    It is too early if no log was followed before the week ended.
    """
    begin, end = last_week(now)
    identifier = alert_id(KIND, channel, f"{begin:%Y-%m-%d}")
    reading = Reading(store.database)
    if reading.alerts(1, ids=[identifier]) or all(each.baseline_at >= end for each in reading.followed().values()):
        return None
    counts = _counts(store, rules, begin, end)
    coverage, missed = _coverage(store, begin, end, now, longest_pause)
    unexpected = counts[Outcome.UNEXPECTED.value]
    trouble = [
        each
        for each in reading.alerts(_ALERTS, about=AlertsAbout(begin=begin, end=end))
        if each.alert.owner is Owner.LOG_MISBEHAVED
    ]
    against = reading.open_evidence_counts()
    lied = bool(against or trouble)
    title = _title(unexpected, lied=lied, missed=missed)
    found = ", ".join(f"{counts[each.value]} {each.value}" for each in Outcome)
    given_up = reading.given_up().get(channel, 0)
    return Alert(
        id=identifier,
        kind=KIND,
        owner=Owner.OURSELVES,
        severity=Severity.INFO,
        title=f"Week of {begin:%Y-%m-%d}: {title}",
        summary=f"{len(rules)} {'rule alerts' if len(rules) == 1 else 'rules alert'} this channel. "
        f"From {begin:%Y-%m-%d} to {end:%Y-%m-%d}, events found: {found}.",
        consequence="None: this message shows that the channel works, and lists the watched logs."
        if not (unexpected or lied or missed)
        else "Each of these had an alert of its own, or is a gap that the facts name.",
        next_step="No step is needed. If this message does not come, run `signwatch status`."
        if not (unexpected or lied or missed)
        else f"`signwatch report --from {begin:%Y-%m-%d} --to {end:%Y-%m-%d}` has the details.",
        created_at=now,
        facts=(
            ("Channel", channel),
            *coverage,
            ("Open evidence", str(sum(against.values()))),
            ("Deliveries given up on this channel", str(given_up)),
        ),
    )


def rules_of(channel: str, rules: Sequence[str], own: Mapping[str, Sequence[str]], default: Sequence[str]) -> list[str]:
    """Rules with alerts for a channel: those that name it, and, for a default channel, those that name none."""
    return [rule for rule in rules if channel in (own.get(rule) or default)]


def _title(unexpected: int, *, lied: bool, missed: bool) -> str:
    if lied:
        return "a log broke a promise"
    if unexpected:
        return f"{unexpected} unexpected {'signing' if unexpected == 1 else 'signings'}"
    return "nothing unexpected, with gaps in watching" if missed else "nothing unexpected"


def _counts(store: Store, rules: Sequence[str], begin: datetime, end: datetime) -> dict[str, int]:
    events = Events(store.database)
    found = events.count(FindingFilter(begin=begin, end=end, rules=tuple(rules)))
    return {outcome.value: found.get(outcome.value, 0) for outcome in Outcome}


def _coverage(
    store: Store, begin: datetime, end: datetime, now: datetime, longest_pause: Callable[[str], timedelta]
) -> tuple[list[tuple[str, str]], bool]:
    """One fact for each log (entries read, time without watching), and true if there is a gap."""
    history, rows, missed = History(store.database), [], False
    followed = Reading(store.database).followed()
    for log, each in sorted(followed.items()):
        days = history.days(log, begin.date(), (end - timedelta(microseconds=1)).date())
        read = days[-1].last - days[0].first if days else 0
        since = max(begin, min(each.baseline_at, end))
        spans = history.spans(log, since, end, now, longest_pause(log))
        gone = sum((pause.length for pause in pauses(spans, since, end, None)), timedelta())
        is_final = each.position.head.head.final
        missed = missed or (gone >= timedelta(hours=1) and not is_final)
        hours = f"not watched for {exactly(gone)}" if gone else "watched throughout"
        rows.append((log, f"{counted(read, 'entry')} read and proven, {hours}"))
    if len(rows) > _LOGS:
        rows = [*rows[:_LOGS], ("Further logs", str(len(rows) - _LOGS))]
    return rows, missed

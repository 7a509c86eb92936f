"""The weekly mail: logs watched, findings, and logs that could not be read."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select, update

from monitor.site.parts import Site
from monitor.site.rendering import ago, day, number
from monitor.store.destinations import READY
from monitor.store.signings import LogRead
from monitor.store.site_tables import SubscriberRow
from monitor.store.sql import table
from monitor.store.subscribers import WEEK, Subscriber
from rules.matching.matcher import PREFIX

_SUBSCRIBER: Final = table(SubscriberRow)
_AT_ONCE: Final = 500
_OUTCOMES: Final = ("unexpected", "expected", "unverified")
_STALE: Final = timedelta(hours=6)


def put_weekly(site: Site) -> int:
    """Queue the weekly mail of each account whose week is over, one transaction each; returns their number."""
    now = site.clock()
    due = (
        select(_SUBSCRIBER.c.id)
        .where(_SUBSCRIBER.c.weekly_due <= now, _SUBSCRIBER.c.suspended_at.is_(None))
        .order_by(_SUBSCRIBER.c.weekly_due)
        .limit(_AT_ONCE)
    )
    with site.database.read() as connection:
        ids = list(connection.execute(due).scalars())
    logs = site.found.logs()
    for each in ids:
        subscriber = site.subscribers.by_id(each)
        if subscriber is not None and subscriber.weekly_due is not None:
            _put_one(site, subscriber, logs, now)
    return len(ids)


def forget_old(site: Site) -> None:
    """Forget links a day after they ended, and messages after the configured time."""
    now = site.clock()
    site.subscribers.forget_old(now - timedelta(days=1))
    site.notices.forget_old(now - site.config.limits.keep)


def _put_one(site: Site, subscriber: Subscriber, logs: Sequence[LogRead], now: datetime) -> None:
    document = weekly_document(site, subscriber, logs, now)
    week = f"{subscriber.weekly_due:%Y-%m-%d}"
    # After a longer outage one mail covers all missed weeks, and the next mail is due a week from now.
    values = {"weekly_due": now + WEEK, "weekly_from": now}
    mine = (_SUBSCRIBER.c.id == subscriber.id, _SUBSCRIBER.c.weekly_due == subscriber.weekly_due)
    with site.database.write() as connection:
        if connection.execute(update(_SUBSCRIBER).where(*mine).values(**values)).rowcount == 1 and document:
            site.notices.put_letter(connection, f"weekly:{subscriber.id}:{week}", document, now)


def weekly_document(site: Site, subscriber: Subscriber, logs: Sequence[LogRead], now: datetime) -> dict[str, Any]:
    """Contents of the mail; empty for an account without subscriptions, and for an address that gets no alerts.

    A mail about a quiet week would mislead a reader who stopped the alerts, and a bouncing address takes no mail.
    """
    own = subscriber.address.lower()
    if not any(
        each.kind == "mail" and each.target.lower() == own and each.state == READY
        for each in site.subscribers.destinations.of(subscriber.id)
    ):
        return {}
    subscriptions = site.subscribers.subscriptions(subscriber.id)
    since = subscriber.weekly_from
    outcomes = site.found.outcomes([f"{PREFIX}{each.ask}" for each in subscriptions], since)
    counted = [
        {"title": each.title, **{name: outcomes.get(f"{PREFIX}{each.ask}", {}).get(name, 0) for name in _OUTCOMES}}
        for each in subscriptions
    ]
    if not counted:
        return {}
    unexpected, expected = (
        sum(outcomes.get(f"{PREFIX}{each.ask}", {}).get(name, 0) for each in subscriptions) for name in _OUTCOMES[:2]
    )
    behind = [log for log in logs if log.trouble or log.at is None or now - log.at > _STALE or log.last < log.head]
    offered = [site.subscribers.asks.coverage(each.change) for each in subscriptions]
    missing = sorted({log for spans in offered for log, span in spans.items() if span is None})
    if unexpected:
        line = f"{unexpected} unexpected, {expected} expected"
        worth = "Each unexpected one was told by itself; My subscriptions lists them."
    elif behind or missing or not logs:
        line = f"Nothing unexpected, {expected} expected, but not everything was read"
        worth = "The logs below that are behind may hold signings that were not looked at yet."
    else:
        line = f"Nothing unexpected, {expected} expected"
        many = "1 log" if len(logs) == 1 else f"{len(logs)} logs"
        worth = f"Every entry of {many} was read and proven, so silence means just that."
    return {
        "letter": "weekly",
        "to": subscriber.address,
        "subscriber": subscriber.id,
        "line": line,
        "worth": worth,
        "since": day(since),
        "until": day(now),
        "subscriptions": counted,
        "logs": [{"log": log.log, "text": _text(log, now)} for log in logs],
    }


def _text(log: LogRead, now: datetime) -> str:
    text = f"every entry up to {number(log.last)}"
    if log.last < log.head:
        text += f" of {number(log.head)}; the rest is being read"
    if log.trouble or log.at is None or now - log.at > _STALE:
        text += f"; it last answered {ago(log.at, now)}"
    return text

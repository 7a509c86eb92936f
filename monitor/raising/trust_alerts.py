"""Alerts about the trust root itself: its changes, logs that ended, contradictory sources, and a stale root."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from alerts.alert import Alert, Owner, Severity, alert_id, counted, rfc3339
from monitor.trust.history import Change, TrustChangeKind
from monitor.trust.trust_root import TrustedLog

_EXPIRES_SOON: Final = timedelta(days=1)
_NEXT: Final = "Check that the operator announced it, and compare with the trust root that your own clients use."


def change_alert(change: Change, number: int, now: datetime, *, followed: bool) -> Alert:
    """Alert for one difference between root `number` and the one before.

    `followed`: all logs of the root are followed, without a list in the configuration.
    """
    appeared = change.kind is TrustChangeKind.LOG_APPEARED
    return Alert(
        id=alert_id(
            "log-appeared" if appeared else "trust-changed", change.kind, change.subject, change.key, f"{number}"
        ),
        kind="log-appeared" if appeared else "trust-changed",
        owner=Owner.LOG_MISBEHAVED,
        severity=Severity.INFO if appeared else Severity.WARN,
        title=_title(change),
        summary=f"{change.subject} (key {change.key}): {change.detail}.",
        consequence=_CONSEQUENCES[change.kind](followed),
        next_step=_NEXT if followed or change.log is None else f"{_NEXT} Then look at `logs` in the configuration.",
        created_at=now,
        facts=(
            ("Subject", change.subject),
            ("Key", change.key),
            ("What", change.kind.value),
            ("Detail", change.detail),
        ),
    )


def _title(change: Change) -> str:
    match change.kind:
        case TrustChangeKind.LOG_APPEARED:
            return f"A new log appeared: {change.subject}"
        case TrustChangeKind.LOG_MOVED:
            return f"A log moved to {change.subject}"
        case TrustChangeKind.LOG_GONE:
            return f"The trust root no longer names {change.subject}"
        case _:
            return f"The trust root changed: {change.kind.value}: {change.subject}"


def _new_log(followed: bool) -> str:
    if followed:
        return "It is followed from its first entry on, as a log of its own."
    return "It is not followed: the configuration lists which logs are. Signings in this log are not being checked."


def _moved(followed: bool) -> str:
    if followed:
        return (
            "Signwatch asks the new address from now on, under the same name. It continues from its position: the "
            "first head at the new address must be proven to extend the last head at the old one."
        )
    return (
        "The configuration lists the logs to follow and their addresses, so Signwatch still asks the old address. It "
        "misses signings once the log adds entries at the new address only."
    )


_CONSEQUENCES: Final[Mapping[TrustChangeKind, Callable[[bool], str]]] = {
    TrustChangeKind.LOG_APPEARED: _new_log,
    TrustChangeKind.KEY_CHANGED: lambda followed: (
        "The known log stays pinned to its key. As for the log under the new key: " + _new_log(followed)
    ),
    TrustChangeKind.LOG_GONE: lambda _: (
        "Clients no longer accept it. Signwatch reads it to its end under the same key; each later head raises an "
        "alert."
    ),
    TrustChangeKind.LOG_MOVED: _moved,
    TrustChangeKind.LOG_PERIOD: lambda _: "The change is in force: entries are judged by the new period.",
    TrustChangeKind.AUTHORITY_APPEARED: lambda _: (
        "The authority is in force. Earlier signings without a trusted certificate are judged again: those with its "
        "certificates raise an alert if they are unexpected."
    ),
    TrustChangeKind.AUTHORITY_GONE: lambda _: "Its certificates count as unverified from now on.",
    TrustChangeKind.AUTHORITY_PERIOD: lambda _: (
        "The change is in force: certificates are judged by the new period, including those that were not trusted "
        "before."
    ),
}


def log_ended_alert(log: TrustedLog, until: datetime, now: datetime) -> Alert:
    """Alert for a log whose key is no longer valid, or that the trust root no longer names."""
    return Alert(
        id=alert_id("log-ended", log.url, log.log_id.hex(), until.isoformat()),
        kind="log-ended",
        owner=Owner.LOG_MISBEHAVED,
        severity=Severity.INFO,
        title=f"{log.url} ended",
        summary=f"By the trust root its key {log.log_id.hex()} signs nothing after {rfc3339(until)}.",
        consequence="Signwatch reads the entries that the log signed until then, to the last one. Later entries raise "
        "an alert.",
        next_step="No step is needed for this log. Check with `signwatch status` that its successor is followed.",
        created_at=now,
        facts=(("Log", log.url), ("Key", log.log_id.hex()), ("Ended", rfc3339(until))),
    )


def log_final_alert(name: str, size: int, until: datetime, now: datetime) -> Alert:
    """Alert for an ended log that was read to its last entry: no new head is expected."""
    return Alert(
        id=alert_id("log-ended", name, "final"),
        kind="log-ended",
        owner=Owner.LOG_MISBEHAVED,
        severity=Severity.INFO,
        title=f"{name} was read to its end",
        summary=f"It ended {rfc3339(until)}. Signwatch has checked all of its entries: {counted(size, 'entry')}.",
        consequence="It counts as final: Signwatch expects no new head. Growth raises the alert log-key-expired.",
        next_step="No step is needed.",
        created_at=now,
        facts=(("Log", name), ("Entries", str(size)), ("Ended", rfc3339(until))),
        log=name,
    )


def disagreement_alert(url: str, reason: str, fingerprint: str, now: datetime) -> Alert:
    """Alert for a log that the signing configuration names and the trust root does not."""
    return Alert(
        id=alert_id("trust-sources-disagree", url, reason),
        kind="trust-sources-disagree",
        owner=Owner.COULD_NOT_ASK,
        severity=Severity.WARN,
        title=f"Clients are sent to {url}, which Signwatch cannot watch",
        summary=f"The signing configuration names {url}, but {reason}.",
        consequence="Signings in this log are not being checked, because Signwatch has no key to verify its entries.",
        next_step="Ask the operator of the trust repository for the log's key, or report the mistake.",
        created_at=now,
        facts=(("Log", url), ("Reason", reason), ("Trust root", fingerprint)),
    )


def stale_root_alert(
    refreshed_at: datetime, expires: datetime | None, stale_after: timedelta, error: str, now: datetime
) -> Alert | None:
    """Alert for a root with an old refresh, or with metadata that expires soon; otherwise `None`."""
    age = now - refreshed_at
    over = age > stale_after or (expires is not None and now >= expires)
    soon = age > stale_after / 2 or (expires is not None and expires - now < _EXPIRES_SOON)
    if not soon and not over:
        return None
    expiry = f"; its metadata expires {rfc3339(expires)}" if expires is not None else ""
    return Alert(
        id=alert_id("trust-root-stale", refreshed_at.date().isoformat(), str(expires and expires.date()), f"{over}"),
        kind="trust-root-stale",
        owner=Owner.COULD_NOT_ASK,
        severity=Severity.PAGE if over else Severity.WARN,
        title="The trust root is stale" if over else "The trust root is getting old",
        summary=f"Last refreshed {rfc3339(refreshed_at)}{expiry}. {error or 'The last refresh succeeded'}.",
        consequence="The last known keys stay in force. Signwatch does not see new logs, rotated keys and rotated "
        "authorities: signings under them count as unverified, or are not being read.",
        next_step="Check that the trust repository or file named under `trust` can be read; `signwatch doctor` tries "
        "a refresh.",
        created_at=now,
        facts=(("Refreshed", rfc3339(refreshed_at)), ("Expires", rfc3339(expires) if expires else "never")),
    )

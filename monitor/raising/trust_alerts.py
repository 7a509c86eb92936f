"""Alerts about the trust root itself: its changes, logs that ended, sources that disagree, old age."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from alerts.alert import Alert, Owner, Severity, alert_id, counted, rfc3339
from monitor.trust.history import Change, ChangeKind
from monitor.trust.trust_root import TrustedLog

_EXPIRES_SOON: Final = timedelta(days=1)
_NEXT: Final = "Check that the operator announced it, and compare with the trust root that your own clients use."


def change_alert(change: Change, number: int, now: datetime, *, followed: bool) -> Alert:
    """Alert for one difference that root `number` makes. `followed`: logs of the root are followed unasked."""
    appeared = change.kind is ChangeKind.LOG_APPEARED
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
        case ChangeKind.LOG_APPEARED:
            return f"A new log appeared: {change.subject}"
        case ChangeKind.LOG_MOVED:
            return f"A log moved to {change.subject}"
        case ChangeKind.LOG_GONE:
            return f"The trust root no longer names {change.subject}"
        case _:
            return f"The trust root changed: {change.kind.value}: {change.subject}"


def _new_log(followed: bool) -> str:
    if followed:
        return "It is followed from its first entry on, as a log of its own."
    return "It is not followed: the configuration lists which logs are. Signings in it are not being checked."


def _moved(followed: bool) -> str:
    if followed:
        return (
            "It is asked there from now on, under the name it had. Nothing is begun anew: the first head it shows "
            "there must be proven to extend the last one it showed before."
        )
    return (
        "The configuration lists which logs are followed, and where: its old address is still the one that is asked. "
        "Once the log adds its entries elsewhere only, signings are missed."
    )


_CONSEQUENCES: Final[Mapping[ChangeKind, Callable[[bool], str]]] = {
    ChangeKind.LOG_APPEARED: _new_log,
    ChangeKind.KEY_CHANGED: lambda followed: (
        "The log known before stays pinned to the key it had. As for the log under the new key: " + _new_log(followed)
    ),
    ChangeKind.LOG_GONE: lambda _: (
        "Clients no longer accept it. It is read to its end under the key it had; each later head raises an alert."
    ),
    ChangeKind.LOG_MOVED: _moved,
    ChangeKind.LOG_PERIOD: lambda _: "It is in force now: entries are judged by the new period.",
    ChangeKind.AUTHORITY_APPEARED: lambda _: (
        "It is in force now. Signings without a trusted certificate so far are judged again: those that it vouches for "
        "raise an alert if they are unexpected."
    ),
    ChangeKind.AUTHORITY_GONE: lambda _: "Certificates it issued are counted as unverified from now on.",
    ChangeKind.AUTHORITY_PERIOD: lambda _: (
        "It is in force now: certificates are judged by the new period, also those that were not trusted before."
    ),
}


def log_ended_alert(log: TrustedLog, until: datetime, now: datetime) -> Alert:
    """Alert for a log whose key's time is over, or that the trust root no longer names."""
    return Alert(
        id=alert_id("log-ended", log.url, log.log_id.hex(), until.isoformat()),
        kind="log-ended",
        owner=Owner.LOG_MISBEHAVED,
        severity=Severity.INFO,
        title=f"{log.url} ended",
        summary=f"By the trust root its key {log.log_id.hex()} signs nothing after {rfc3339(until)}.",
        consequence="The entries that it signed until then are read to the last one. Later entries raise an alert.",
        next_step="Nothing needs to be done. Check that its successor is followed: `signwatch status`.",
        created_at=now,
        facts=(("Log", log.url), ("Key", log.log_id.hex()), ("Ended", rfc3339(until))),
    )


def log_final_alert(name: str, size: int, until: datetime, now: datetime) -> Alert:
    """Alert for an ended log that was read to its last entry: nothing more is expected of it."""
    return Alert(
        id=alert_id("log-ended", name, "final"),
        kind="log-ended",
        owner=Owner.LOG_MISBEHAVED,
        severity=Severity.INFO,
        title=f"{name} was read to its end",
        summary=f"It ended {rfc3339(until)}. All that it signed was checked since: {counted(size, 'entry')}.",
        consequence="It counts as final: no new head is expected of it. Growth raises the alert log-key-expired.",
        next_step="Nothing needs to be done.",
        created_at=now,
        facts=(("Log", name), ("Entries", str(size)), ("Ended", rfc3339(until))),
        log=name,
    )


def disagreement_alert(url: str, reason: str, fingerprint: str, now: datetime) -> Alert:
    """Alert for a log that one source of the trust repository names and another knows nothing of."""
    return Alert(
        id=alert_id("trust-sources-disagree", url, reason),
        kind="trust-sources-disagree",
        owner=Owner.COULD_NOT_ASK,
        severity=Severity.WARN,
        title=f"Clients are told to sign into {url}, which cannot be watched",
        summary=f"The signing configuration names {url}, but {reason}.",
        consequence="Signings that clients log there are not checked: no entry can be verified without the log's key.",
        next_step="Ask the operator of the trust repository for the log's key, or tell them of the mistake.",
        created_at=now,
        facts=(("Log", url), ("Reason", reason), ("Trust root", fingerprint)),
    )


def stale_root_alert(
    refreshed_at: datetime, expires: datetime | None, stale_after: timedelta, error: str, now: datetime
) -> Alert | None:
    """Alert for a root whose last refresh is long ago, or whose metadata expires soon; `None` when all is well."""
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
        title="The trust root is stale" if over else "The trust root grows old",
        summary=f"Last refreshed {rfc3339(refreshed_at)}{expiry}. {error or 'The last refresh itself went well'}.",
        consequence="The keys known last stay in force. New logs, rotated keys and rotated authorities are not seen: "
        "signings under them are counted as unverified, or are not being read.",
        next_step="Check that the trust repository or file named under `trust` can be read; `signwatch doctor` tries.",
        created_at=now,
        facts=(("Refreshed", rfc3339(refreshed_at)), ("Expires", rfc3339(expires) if expires else "never")),
    )

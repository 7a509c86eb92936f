"""Many alerts in one message: their titles, their number, and a link to each."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Final, TypeVar

from alerts.alert import Alert, Owner, Severity, counted, rfc3339
from alerts.outbox import Delivery

_Item = TypeVar("_Item")

_SHOWN: Final = 20
_RULES_SHOWN: Final = 10
_OWNER_ORDER: Final = (Owner.LOG_MISBEHAVED, Owner.SIGNING, Owner.COULD_NOT_ASK, Owner.OURSELVES)
_LOUDNESS: Final = (Severity.PAGE, Severity.WARN, Severity.INFO)


def digest_id(deliveries: Sequence[Delivery]) -> str:
    """Id of a digest: the same members give the same id, in any order."""
    members = "\n".join(sorted(delivery.alert.id for delivery in deliveries))
    return "digest-" + hashlib.sha256(members.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def digest_alert(digest: str, alerts: Sequence[Alert]) -> Alert:
    """One alert in place of `alerts` (at least one); the same members give the same message."""
    ordered = sorted(alerts, key=lambda alert: (_LOUDNESS.index(alert.severity), alert.created_at, alert.id))
    severity = ordered[0].severity
    owner = min((alert.owner for alert in alerts), key=_OWNER_ORDER.index)
    count = len(ordered)
    reasons = tuple(f"{alert.title} ({rfc3339(alert.created_at)}, {alert.id})" for alert in ordered[:_SHOWN])
    if count > _SHOWN:
        reasons = (*reasons, f"… and {count - _SHOWN} more")
    return Alert(
        id=digest,
        kind="digest",
        owner=owner,
        severity=severity,
        title=f"{counted(count, 'alert')} in one digest",
        summary=f"This channel takes single messages only at a limited rate: {counted(count, 'alert')} came faster.",
        consequence="The database keeps each of them; this message replaces their single messages.",
        next_step=f"Run `signwatch alerts list --digest {digest}` to read each one.",
        created_at=max(alert.created_at for alert in alerts),
        reasons=reasons,
        facts=_counts(ordered),
    )


def _counts(alerts: Sequence[Alert]) -> tuple[tuple[str, str], ...]:
    kinds = Counter((alert.severity.value, alert.kind) for alert in alerts)
    rules = Counter(alert.rule for alert in alerts if alert.rule is not None)
    logs = Counter(alert.log for alert in alerts if alert.log is not None)
    rows = [(f"{severity}, {kind}", f"{count:,}") for (severity, kind), count in _by_count(kinds)]
    rows += [(f"rule {rule}", f"{count:,}") for rule, count in _by_count(rules)[:_RULES_SHOWN]]
    rows += [(f"log {log}", f"{count:,}") for log, count in _by_count(logs)[:_RULES_SHOWN]]
    first, last = min(alert.created_at for alert in alerts), max(alert.created_at for alert in alerts)
    return (*rows, ("first", rfc3339(first)), ("last", rfc3339(last)))


def _by_count(counts: Counter[_Item]) -> list[tuple[_Item, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))

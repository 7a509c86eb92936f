"""Alerts about logs whose newest head too few witnesses cosigned."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from alerts.alert import Alert, Owner, Severity
from monitor.model.heads import SignedHead
from monitor.model.witness_policy import Witnessed, WitnessPolicy
from monitor.raising.log_alerts import alert_id, day_of, rfc3339


def witness_alerts(
    policy: WitnessPolicy, witnessed: Witnessed, head: SignedHead, now: datetime, patience: timedelta
) -> Sequence[Alert]:
    """One alert a day for a log that had too few witnesses for longer than `patience`; none otherwise.

    Witnesses cosign after the log signs, so a newest head without them is ordinary for a while.
    """
    cosigning, standing = witnessed.cosigning, witnessed.standing
    since = standing.short_since
    if since is None or now - since <= patience:
        return ()
    facts = [("Log", head.log), ("Size", str(head.size)), ("Required", f"{policy.required} of {len(policy.names)}")]
    facts += [("Cosigned by", ", ".join(cosigning.present) or "no witness")]
    facts += [("Missing", f"{name} since {rfc3339(at)}") for name, at in standing.missing_since]
    return (
        Alert(
            id=alert_id("witness-missing", head.log, day_of(now)),
            kind="witness-missing",
            owner=Owner.COULD_NOT_ASK,
            severity=Severity.WARN,
            title=f"{head.log} is seen by too few witnesses",
            summary=f"{len(cosigning.present)} of the {policy.required} witnesses wanted cosigned the newest head of "
            f"late; it has been too few since {rfc3339(since)}.",
            consequence="Entries are being checked as before, but only the log's own word says that others see the "
            "same history. This shows no wrongdoing of the log.",
            next_step="Ask the missing witnesses' operators, and compare heads with another installation: "
            "`signwatch peers compare`.",
            created_at=now,
            facts=tuple(facts),
            log=head.log,
        ),
    )

"""Alerts of the canary: the one that its signing makes, and those that tell that the canary is overdue."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from alerts.alert import Alert, Owner, Severity, alert_id
from monitor.model.state import Finding
from rules.canary import CANARY
from rules.rule import Outcome
from rules.selection import digest_text

SEEN: Final = "canary-seen"
MISSED: Final = "canary-missed"
NOT_SIGNED: Final = "canary-not-signed"
_SEVERITY: Final = {Owner.OURSELVES: Severity.PAGE, Owner.LOG_MISBEHAVED: Severity.PAGE}


def canary_seen_alerts(findings: Sequence[Finding], now: datetime) -> list[Alert]:
    """The alert that an announced signing of the canary makes: it goes the way of every alert, to the canary alone.

    Its id holds the digest, so that the canary knows its own.
    """
    return [
        Alert(
            id=f"{SEEN}-{digest_text(finding.selected.signing.digests[0])}",
            kind="canary-seen",
            owner=Owner.OURSELVES,
            severity=Severity.INFO,
            title="The canary's signing was seen",
            summary="The canary signed, and the way from the log to an alert works.",
            consequence="None.",
            next_step="Nothing.",
            created_at=now,
            log=finding.selected.signing.where.log,
            index=finding.selected.signing.where.index,
            rule=CANARY,
        )
        for finding in findings
        if finding.rule == CANARY and finding.verdict.outcome is Outcome.EXPECTED and finding.selected.signing.digests
    ]


def canary_missed_alert(log: str, first: int, owner: Owner, detail: str, now: datetime) -> Alert:
    """Alert for a signing that was not seen in time. `first` is the number of the first such run in a row."""
    return Alert(
        id=alert_id("canary-missed", log, str(first)),
        kind="canary-missed",
        owner=owner,
        severity=_SEVERITY.get(owner, Severity.WARN),
        title=f"The canary signed in {log}, and no alert came of it in time",
        summary=detail,
        consequence="A signing in your name may now go unseen, or be seen late.",
        next_step="Run `signwatch status` and `signwatch doctor`, and look at the daemon's log. The alert is resolved "
        "when a canary is seen in time again.",
        created_at=now,
        facts=(("Log", log), ("Run", str(first))),
        log=log,
    )


def canary_not_signed_alert(log: str, first: int, owner: Owner, detail: str, now: datetime) -> Alert:
    """Alert for a canary that could not sign. `first` is the number of the first such run in a row."""
    return Alert(
        id=alert_id("canary-not-signed", log, str(first)),
        kind="canary-not-signed",
        owner=owner,
        severity=Severity.WARN,
        title=f"The canary cannot sign in {log}",
        summary=detail,
        consequence="Whether alerts reach a person is not tried until the canary can sign again.",
        next_step="Sign by hand with `sign-lite sign` and the same token. Mend the token where it was refused, or wait "
        "for the signing service.",
        created_at=now,
        facts=(("Log", log), ("Run", str(first))),
        log=log,
    )

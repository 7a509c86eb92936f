"""Alerts for tests."""

from datetime import UTC, datetime

from alerts.alert import Alert, FactGroup, Owner, Severity

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def an_alert(
    number: int = 1,
    *,
    severity: Severity = Severity.PAGE,
    title: str = "Unexpected signing as release@acme.example",
    summary: str = "Somebody signed as release@acme.example outside the release workflow.",
    reasons: tuple[str, ...] = ("The workflow is evil.yml, not release.yml.",),
    facts: tuple[tuple[str, str], ...] = (("identity", "release@acme.example"), ("issuer", "https://accounts.example")),
    consequence: str = "Whoever trusts this identity accepts what was signed.",
    next_step: str = "Find out who ran the workflow; revoke the artifact if it was not you.",
    alert_id: str | None = None,
    groups: tuple[FactGroup, ...] = (),
) -> Alert:
    """One unexpected signing; `number` tells alerts apart."""
    return Alert(
        id=alert_id or f"rekor-v2/{number}/acme-release",
        kind="unexpected-signing",
        owner=Owner.SIGNING,
        severity=severity,
        title=title,
        summary=summary,
        consequence=consequence,
        next_step=next_step,
        created_at=NOW,
        reasons=reasons,
        facts=facts,
        groups=groups,
        log="rekor-v2",
        index=number,
        rule="acme-release",
    )

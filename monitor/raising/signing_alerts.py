"""From findings to alerts: who signed, why it was not expected, what it means and what to do next.

Every text here may hold words an attacker chose; each is cut to a length a person would read.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from alerts.alert import Alert, FactGroup, Owner, Severity
from monitor.model.state import Finding
from monitor.raising.log_alerts import alert_id, day_of
from monitor.raising.signing_words import describe
from rules.judge import WRONG_SIGNATURE
from rules.rule import CT_KINDS, Outcome, Reason, Rule, RuleSeverity
from sigstore_entries.signing import EntryRef

_SEVERITY: Final = {
    RuleSeverity.PAGE: Severity.PAGE,
    RuleSeverity.WARN: Severity.WARN,
    RuleSeverity.INFO: Severity.INFO,
}


def alerts_of_findings(findings: Sequence[Finding], rules: Mapping[str, Rule], now: datetime) -> list[Alert]:
    """One alert per unexpected signing, one a day per rule for signings without a trusted certificate, else none."""
    alerts = [
        _alert_of_unexpected(finding, rules[finding.rule], now)
        for finding in findings
        if finding.verdict.outcome is Outcome.UNEXPECTED
    ]
    wrong = [finding for finding in findings if WRONG_SIGNATURE in finding.verdict.reasons]
    unverified = [
        finding
        for finding in findings
        if finding.verdict.outcome is Outcome.UNVERIFIED and WRONG_SIGNATURE not in finding.verdict.reasons
    ]
    counts = Counter(finding.rule for finding in unverified)
    firsts = {finding.rule: finding for finding in reversed(unverified)}
    alerts += [_alert_of_unverified(firsts[rule], rules[rule], counts[rule], now) for rule in sorted(firsts)]
    return alerts + _alerts_of_wrong_signatures(wrong, now)


def _alert_of_unexpected(finding: Finding, rule: Rule, now: datetime) -> Alert:
    signing = finding.signing
    where = signing.where
    issued = signing.kind in CT_KINDS
    told = describe(finding, rule)
    return Alert(
        id=alert_id("unexpected-signing", where.log, str(where.index), finding.rule),
        kind="unexpected-signing",
        owner=Owner.SIGNING,
        severity=_SEVERITY[rule.severity],
        title=told.title,
        summary=told.summary + (" No log entry has used it yet." if issued else ""),
        consequence="The holder of this certificate can sign under your identity: the signature verifies as yours."
        if issued
        else "What was signed verifies as yours, wherever it is shown.",
        next_step=f"If it was you: acknowledge it and extend the rule {rule.id}. If not: revoke the token, workflow or "
        "account behind the identity first, then warn the people who rely on what was signed.",
        created_at=now,
        reasons=tuple(_sentence(reason) for reason in finding.verdict.reasons),
        facts=told.facts,
        groups=(*told.groups, _proof(where)),
        identity=told.identity,
        log=where.log,
        index=where.index,
        rule=finding.rule,
    )


def _proof(where: EntryRef) -> FactGroup:
    command = f"signwatch search --entry {where.log}:{where.index} --prove signing.json"
    return FactGroup(
        "Proof",
        (
            ("In the log", "The entry was hashed into a tree head that the log signed, before this alert was made."),
            ("To show others", f"{command} (where the log is archived)"),
        ),
    )


def _alerts_of_wrong_signatures(findings: Sequence[Finding], now: datetime) -> list[Alert]:
    """One alert a day and log for entries that the log should not have taken: a log verifies each signature."""
    entries: dict[str, dict[int, Finding]] = {}
    for finding in findings:
        entries.setdefault(finding.signing.where.log, {}).setdefault(finding.signing.where.index, finding)
    return [
        Alert(
            id=alert_id("entry-signature-wrong", log, day_of(now)),
            kind="entry-signature-wrong",
            owner=Owner.LOG_MISBEHAVED,
            severity=Severity.WARN,
            title=f"{log} took an entry whose signature does not verify",
            summary=f"{len(met)} in the batch that met them first today, of those that your rules select; the first is "
            f"{min(met)}.",
            consequence="The log broke its own rules. Such an entry says nothing about its alleged signer: it counts "
            "as no signing of theirs, and no client accepts it.",
            next_step="Nothing was signed in your name. Tell the log's operator, with the log's name and the index: "
            "the entry itself is the evidence, and anyone can verify it.",
            created_at=now,
            facts=(("Log", log), ("First index", str(min(met))), ("Rule", met[min(met)].rule)),
            log=log,
            index=min(met),
        )
        for log, met in sorted(entries.items())
    ]


def _alert_of_unverified(first: Finding, rule: Rule, count: int, now: datetime) -> Alert:
    where, told = first.signing.where, describe(first, rule)
    return Alert(
        id=alert_id("unverified-signing", where.log, first.rule, day_of(now)),
        kind="unverified-signing",
        owner=Owner.SIGNING,
        severity=Severity.INFO,
        title=f"Entries in your name that no trusted authority vouches for: {first.rule}",
        summary=f"{count} in the batch that met them first today; the first is {where.index} in {where.log}.",
        consequence="Anyone can log a self-made certificate or PGP key with any name in it, and no client accepts it.",
        next_step="Nothing, unless you issue certificates of your own: then add their authority to the trust root. "
        "Select keys of your own by fingerprint.",
        created_at=now,
        facts=told.facts,
        groups=told.groups,
        identity=told.identity,
        log=where.log,
        rule=first.rule,
    )


def _sentence(reason: Reason) -> str:
    wanted = f" Expected: {reason.expected:.500}." if reason.expected else ""
    found = f" Found: {reason.found:.500}." if reason.found else ""
    return reason.sentence + wanted + found

"""From findings to alerts: who signed, why it was not expected, what it means and what to do next.

Every text here may hold words an attacker chose; each is cut to a length a person would read.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from alerts.alert import Alert, Owner, Severity
from monitor.model.state import Finding
from monitor.raising.log_alerts import alert_id, day_of
from rules.judge import WRONG_SIGNATURE
from rules.rule import Rule, RuleSeverity
from rules.selection import matched_values
from rules.verdict import Outcome, Reason
from sigstore_entries.signing import Signing

_SEVERITY: Final = {
    RuleSeverity.PAGE: Severity.PAGE,
    RuleSeverity.WARN: Severity.WARN,
    RuleSeverity.INFO: Severity.INFO,
}
_CERTIFICATES: Final = {"certificate", "precertificate"}
_MAX_FACTS: Final = 40
_MAX_TEXT: Final = 500


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
    issued = signing.kind in _CERTIFICATES
    return Alert(
        id=alert_id("unexpected-signing", where.log, str(where.index), finding.rule),
        kind="unexpected-signing",
        owner=Owner.SIGNING,
        severity=_SEVERITY[rule.severity],
        title=f"Unexpected {'certificate' if issued else 'signing'}: {rule.title or rule.id}",
        summary=f"{_who(rule, finding)} {'was issued a signing certificate' if issued else 'signed something'} in a "
        f"way the rule {rule.id} does not expect.{' No log entry has used it yet.' if issued else ''}",
        consequence="The signer could act under your identity: their signatures verify as yours."
        if issued
        else "What was signed verifies as yours, wherever it is shown.",
        next_step="If it was you, extend the rule. If not, find out how the identity was used: revoke the token, "
        "workflow or account behind it, and warn the people who rely on it. "
        f"`signwatch search --entry {where.log}:{where.index} --prove signing.json` exports a proof of it that others "
        "can check, where the log is archived.",
        created_at=now,
        reasons=tuple(_sentence(reason) for reason in finding.verdict.reasons),
        facts=_facts(rule, signing),
        log=where.log,
        index=where.index,
        rule=finding.rule,
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
    where = first.signing.where
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
        facts=_facts(rule, first.signing),
        log=where.log,
        rule=first.rule,
    )


def _who(rule: Rule, finding: Finding) -> str:
    """The name or key by which the rule selects a signer, vouched ones first, else the selected signer's first one."""
    signing, selected = finding.signing, finding.selected
    signers = selected.vouched or tuple(each.signer for each in selected.signers if each.signer is not None)
    for signer in signers:
        if name := next(matched_values(rule.select, "identity", signing, signer), ""):
            return name[:_MAX_TEXT]
        if key := next(matched_values(rule.select, "fingerprint", signing, signer), ""):
            return f"The key {key}"[:_MAX_TEXT]
    names = [name.value for signer in signers for name in signer.names[:1]]
    keys = [f"The key {signer.fingerprints[0]}" for signer in signers if signer.fingerprints]
    return (names or keys or ["An unnamed signer"])[0][:_MAX_TEXT]


def _sentence(reason: Reason) -> str:
    wanted = f" Expected: {reason.expected:.500}." if reason.expected else ""
    found = f" Found: {reason.found:.500}." if reason.found else ""
    return reason.sentence + wanted + found


def _facts(rule: Rule, signing: Signing) -> tuple[tuple[str, str], ...]:
    """What the entry says, the signers that the rule selects first, each with the selected name and key first."""
    facts = [("Log", signing.where.log), ("Index", str(signing.where.index)), ("Kind", signing.kind)]
    for signer in sorted(signing.signers, key=lambda each: not rule.select.holds(signing, each)):
        names = dict.fromkeys(matched_values(rule.select, "identity", signing, signer))
        keys = dict.fromkeys(matched_values(rule.select, "fingerprint", signing, signer))
        names |= dict.fromkeys(name.value for name in signer.names)
        keys |= dict.fromkeys(signer.fingerprints)
        facts += [("Identity", name) for name in names]
        facts += [("Issuer", signer.issuer)] if signer.issuer else []
        facts += sorted(signer.claims.items())
        facts += [("Issued by", signer.trusted_by or signer.trust.value)]
        facts += [("Fingerprint", key) for key in keys]
    facts += [(f"Digest of {digest.of}", f"{digest.algorithm}:{digest.value}") for digest in signing.digests]
    facts += [(f"Time ({time.source})", time.at.isoformat()) for time in signing.times]
    if len(facts) > _MAX_FACTS:
        # An entry may name thousands of subjects; the alert says that it does, the entry itself is kept whole.
        facts = [*facts[:_MAX_FACTS], ("More", f"{len(facts) - _MAX_FACTS} further facts are left out")]
    return tuple((label[:_MAX_TEXT], value[:_MAX_TEXT]) for label, value in facts)

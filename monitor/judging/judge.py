"""The real `Judge`: who issued the certificate, what each rule expects, and how loudly to say that it is otherwise."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from typing_extensions import override

from alerts.alert import Alert
from monitor.judging.history import BatchFacts
from monitor.model.inclusion_promise import Promise, promises_of
from monitor.model.state import FactStore, Finding, Hit
from monitor.raising.signing_alerts import alerts_of_findings
from rules.index import Matcher
from rules.judge import judge, recheck_at
from rules.verdict import Outcome
from sigstore_entries.signing import ChainTrust, Signer, Signing
from sigstore_entries.trust import CertificateAuthorities, CtLogKey


class Judge(Protocol):
    """Says of each hit what its rules make of it: chain of trust first, then the expectations."""

    def judge(self, hits: Sequence[Hit], now: datetime) -> Sequence[Finding]:
        """One finding per hit and rule. Each judgement knows of the ones before it, as if they were stored already."""

    def alerts(self, findings: Sequence[Finding], now: datetime) -> Sequence[Alert]:
        """Alerts that these findings call for; expected ones call for none."""


class RuleJudge(Judge):
    """Judges hits of one set of rules. `authorities` is asked anew for each hit: the trust root may have moved on.

    What must follow a signing is left to a second judgement, however late the entry is met: the logs that would show it
    may be read only after this one. A judge that is `final` looks at it now, because nobody judges again.
    """

    def __init__(
        self,
        matcher: Matcher,
        facts: FactStore,
        authorities: Callable[[], tuple[CertificateAuthorities, Sequence[CtLogKey]]],
        *,
        final: bool = False,
    ) -> None:
        self._final = final
        self._rules = {rule.id: rule for rule in matcher.rules}
        self._facts, self._authorities = facts, authorities

    @override
    def judge(self, hits: Sequence[Hit], now: datetime) -> Sequence[Finding]:
        facts = BatchFacts(self._facts.ahead(hits), now)
        findings = []
        for hit in hits:
            signing, promises = self._labelled(hit.signing)
            for name in hit.rules:
                rule = self._rules[name]
                verdict = judge(rule, signing, facts, now, again=self._final)
                due = None if self._final else recheck_at(rule, signing, facts, now)
                again = None if due is None else max(due, now)
                # What nobody vouches for may be vouched for by an authority that is not known yet.
                is_open = again is not None or verdict.outcome is Outcome.UNVERIFIED
                finding = Finding(name, signing, verdict, hit.leaf, hit.extra if is_open else b"", again, promises)
                facts.remember(finding)
                findings.append(finding)
        return findings

    @override
    def alerts(self, findings: Sequence[Finding], now: datetime) -> Sequence[Alert]:
        return alerts_of_findings(findings, self._rules, now)

    def _labelled(self, signing: Signing) -> tuple[Signing, tuple[Promise, ...]]:
        """What the trust root says of the signers, and what CT logs promised whoever was issued their certificates."""
        authorities, ct_keys = self._authorities()
        at = next((time.at for time in signing.times if time.source == "integrated-time"), None)
        promises: list[Promise] = []

        def label(signer: Signer) -> Signer:
            judged = authorities.judge_chain(signer, at)
            if judged.trust is not ChainTrust.TRUSTED:
                # Whatever a CT log says of a certificate that nobody issued, it is nobody's.
                return judged
            scts = authorities.embedded_scts(judged, ct_keys)
            promises.extend(promises_of(scts or ()))
            return replace(judged, sct_verified=None if scts is None else bool(scts))

        labelled = replace(signing, signers=tuple(label(signer) for signer in signing.signers))
        return labelled, tuple(promises)

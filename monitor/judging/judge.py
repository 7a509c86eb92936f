"""The judge of hits: the certificate's chain, each rule's expectations, and the alert about a signing that differs."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import cache
from hashlib import sha256
from typing import Protocol

from msgspec.structs import replace
from typing_extensions import override

from alerts.alert import Alert
from monitor.model.inclusion_promise import InclusionPromise, promise_of
from monitor.model.state import FactStore, Finding, Hit
from monitor.raising.entry_alerts import INTEGRATED_TIME, REFUTED_TIME, is_ahead
from monitor.raising.signing_alerts import alerts_of_findings
from monitor.store.findings import BatchPastFacts
from rules.facts import Facts
from rules.judge import judge_selected, recheck_at
from rules.matching.matcher import PREFIX, LayeredMatcher, Matcher
from rules.rule import CT_KINDS, JudgedByFacts, Outcome
from rules.selection import Condition, Selected, select
from sigstore_entries import der
from sigstore_entries.der import certificate_key, tbs_key
from sigstore_entries.signatures import check_signers
from sigstore_entries.signing import ChainTrust, KnownTime, Signer, Signing
from sigstore_entries.trust import CertificateAuthorities, CtLogKey
from tlog.ct import EntryType, MalformedCt, parse_leaf


class Judge(Protocol):
    """Judges each hit under each of its rules: chain of trust first, then the expectations."""

    def judge(self, hits: Sequence[Hit], now: datetime) -> Sequence[Finding]:
        """One finding per hit and rule.

        Each judgement takes the earlier ones of the call into account, as if they were stored.
        """

    def alerts(self, findings: Sequence[Finding], now: datetime) -> Sequence[Alert]:
        """Alerts about these findings; none for expected ones."""


class RuleJudge(Judge):
    """Judges hits of one set of rules. `authorities` is called for each hit, because the trust root may change.

    A second judgement decides about events after a signing, even if the entry is read late: the logs with these
    events may be read after this one. A judge that is `final` decides at once, because there is no second judgement.
    """

    def __init__(
        self,
        matcher: Matcher | LayeredMatcher,
        facts: FactStore,
        authorities: Callable[[], tuple[CertificateAuthorities, Sequence[CtLogKey]]],
        *,
        final: bool = False,
    ) -> None:
        self._final = final
        self._rule = matcher.rule
        self._by_past = {
            rule.id for rule in matcher.rules if any(isinstance(each, JudgedByFacts) for each in rule.expect)
        }
        self._facts, self._authorities = facts, authorities

    @override
    def judge(self, hits: Sequence[Hit], now: datetime) -> Sequence[Finding]:
        # Read before any fact: the commit of the findings then notices a past that grew meanwhile.
        past = self._facts.revisions({name for hit in hits for name in hit.rules if self._is_by_past(name)})
        facts = self._facts.ahead(hits)
        batch = BatchPastFacts(facts.past, now)
        facts = replace(facts, past=batch)
        findings = []
        for hit in hits:
            signing, promises = labelled(hit, *self._authorities(), now)
            # By the condition's identity: subscribers who ask the same share it (`rules.asking.rule_of`).
            known: dict[int, tuple[Condition, Selected]] = {}
            for name in hit.rules:
                rule = self._rule(name)
                if rule is None:
                    continue  # a subscription that ended while the batch was read
                if id(rule.select) not in known:
                    known[id(rule.select)] = rule.select, select(rule.select, signing)
                selected = known[id(rule.select)][1]
                verdict = judge_selected(rule, selected, facts, now, again=self._final)
                due = None if self._final else recheck_at(rule, selected, facts, now)
                again = None if due is None else max(due, now)
                # A further authority of a later trust root may have issued the certificate.
                is_open = again is not None or verdict.outcome is Outcome.UNVERIFIED
                extra = hit.extra if is_open else b""
                finding = Finding(name, selected, verdict, hit.leaf, extra, again, promises, past.get(name))
                batch.remember(finding)
                findings.append(finding)
        return findings

    def _is_by_past(self, name: str) -> bool:
        if name in self._by_past:
            return True
        rule = self._rule(name) if name.startswith(PREFIX) else None
        return rule is not None and any(isinstance(each, JudgedByFacts) for each in rule.expect)

    @override
    def alerts(self, findings: Sequence[Finding], now: datetime) -> Sequence[Alert]:
        rules = {name: rule for name in {finding.rule for finding in findings} if (rule := self._rule(name))}
        told = [finding for finding in findings if finding.rule in rules]

        @cache
        def facts() -> Facts:
            unexpected = [each for each in told if each.verdict.outcome is Outcome.UNEXPECTED]
            return self._facts.ahead([Hit(each.selected.signing, (each.rule,), each.leaf) for each in unexpected])

        return alerts_of_findings(told, rules, now, facts)


def labelled(
    hit: Hit, authorities: CertificateAuthorities, ct_keys: Sequence[CtLogKey], now: datetime
) -> tuple[Signing, tuple[InclusionPromise, ...]]:
    """The signing with each signer's chain of trust and signature checked, and the promises of CT logs in it."""
    signing = _without_refuted_time(hit.signing, now)
    at = next((time.at for time in signing.times if time.source == INTEGRATED_TIME), None)
    promises: list[InclusionPromise] = []

    def label(judged: Signer) -> Signer:
        if judged.trust is not ChainTrust.TRUSTED:
            # A CT log's promise counts only for a certificate of a trusted authority.
            return judged
        scts = authorities.embedded_scts(judged, ct_keys)
        promises.extend(promise for each in scts or () if (promise := promise_of(each)) is not None)
        known = None if scts is None else bool(scts)
        return dataclasses.replace(judged, sct_verified=known, issued=_issued(judged, hit))

    chained = tuple(authorities.judge_chain(signer, _use_of(signer, at)) for signer in signing.signers)
    # Only for entries that a rule selects: a log holds too many to verify them all. A stranger can log self-made
    # certificates by the thousand, so the check of these must be fast.
    checked = check_signers(
        hit.leaf, replace(signing, signers=chained), lambda signer: signer.trust is not ChainTrust.UNTRUSTED
    )
    signers = tuple(map(label, checked.signers))
    is_same = all(before is after for before, after in zip(checked.signers, signers, strict=True))
    return checked if is_same else replace(checked, signers=signers), tuple(promises)


def _without_refuted_time(signing: Signing, now: datetime) -> Signing:
    """The signing without the log's integrated time, if that time is ahead of `now`.

    The tree does not cover the integrated time: such a claim is a fault of the log's clock and says nothing about the
    signing.
    """
    return _refute(signing, lambda at: is_ahead(at, now))


def without_times(hits: Sequence[Hit], refuted: Collection[int]) -> Sequence[Hit]:
    """The hits; a hit with a refuted index loses the log's integrated time."""
    return [
        replace(hit, signing=_refute(hit.signing, lambda _: True)) if hit.signing.where.index in refuted else hit
        for hit in hits
    ]


def _refute(signing: Signing, is_refuted: Callable[[datetime], bool]) -> Signing:
    refuted = [time for time in signing.times if time.source == INTEGRATED_TIME and is_refuted(time.at)]
    if not refuted:
        return signing
    times = tuple(KnownTime(REFUTED_TIME, time.at) if time in refuted else time for time in signing.times)
    return replace(signing, times=times)


def _use_of(signer: Signer, at: datetime | None) -> datetime | None:
    """Time of the signer's signature, if the log's claim is credible.

    No key is used before its certificate is made: an earlier claim comes from a clock that is behind.
    """
    is_before = at is not None and signer.not_before is not None and at < signer.not_before
    return None if is_before else at


def _issued(signer: Signer, hit: Hit) -> bytes:
    """Identity of a trusted certificate, equal in every log that shows it.

    For a CT entry it is computed from the leaf alone, because the server's additions are unverified. If it cannot be
    computed, it is unique to this entry: the certificate is then an event of its own, which no other entry settles.
    """
    try:
        if hit.signing.kind in CT_KINDS:
            leaf = parse_leaf(hit.leaf)
            return (tbs_key if leaf.entry_type is EntryType.PRECERT else certificate_key)(leaf.certificate)
        if signer.certificate is not None:
            return certificate_key(signer.certificate)
    except (der.MalformedDer, MalformedCt):
        pass
    where = hit.signing.where
    return sha256(f"signwatch entry\x00{where.log}\x00{where.index}".encode()).digest()

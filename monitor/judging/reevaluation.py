"""Second judgements: after the time for a required later entry, and after the trust root names a further authority."""

import logging
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from monitor.judging.active_rules import HeldRules
from monitor.judging.judge import RuleJudge
from monitor.model.errors import OwnFault
from monitor.model.state import Finding, Hit
from monitor.store.findings import DueFinding, due_findings, postpone
from monitor.store.store import Store
from monitor.trust.provider import TrustKeeper
from rules.judge import recheck_at
from rules.rule import DelayedExpectation, Outcome, Rule, Verdict
from rules.selection import Selected
from sigstore_entries.entry import decode_ct, decode_rekor
from sigstore_entries.signing import Signing, Unreadable

_LOG: Final = logging.getLogger(__name__)
_AT_ONCE: Final = 500
_ASK_AGAIN: Final = timedelta(minutes=1)
_ROUNDS: Final = 20


class RecheckCounts(Struct, frozen=True):
    """Numbers of findings judged again, found unexpected, and still waiting because a log did not answer.

    `trouble` is a fault of Signwatch that kept findings from being judged; they stay due.
    """

    looked_at: int = 0
    unexpected: int = 0
    waiting: int = 0
    trouble: str = ""


def recheck_all(store: Store, held: HeldRules, trust: TrustKeeper, now: datetime) -> RecheckCounts:
    """Judge all due findings again, for a command that ends; at most `_ROUNDS * _AT_ONCE` findings.

    Further findings stay due for the next command or a daemon. A fault of Signwatch is returned as a value, so that
    the command still reports the logs.
    """
    total = RecheckCounts()
    for _ in range(_ROUNDS):
        try:
            done = recheck(store, held, trust, now)
        except OwnFault as fault:
            return replace(total, trouble=str(fault))
        total = RecheckCounts(
            total.looked_at + done.looked_at,
            total.unexpected + done.unexpected,
            total.waiting + done.waiting,
            total.trouble or done.trouble,
        )
        if done.looked_at < _AT_ONCE:
            break
    return total


def recheck(store: Store, held: HeldRules, trust: TrustKeeper, now: datetime) -> RecheckCounts:
    """Judge due findings again, at most some hundred.

    A crash between two findings repeats none: each is committed with its alert and the end of its wait.
    """
    again = _Again(store, held, trust, now)
    due = due_findings(store.database, now, _AT_ONCE)
    for each in due:
        again.look_at(each)
    return again.ended(len(due))


class _Again:
    """Second judgements over one set of rules, at one moment."""

    def __init__(self, store: Store, held: HeldRules, trust: TrustKeeper, now: datetime) -> None:
        self._store, self._now = store, now
        self._rule = held.everything.rule
        self._first = RuleJudge(held.everything, store.facts, trust.authorities)
        self._last = RuleJudge(held.everything, store.facts, trust.authorities, final=True)
        self._still_unverified: list[DueFinding] = []
        self._unexpected = self._waiting = 0
        self._trouble = ""

    def look_at(self, due: DueFinding) -> None:
        """Judge one finding again, if the required logs were read."""
        rule = self._rule(due.rule)
        if rule is None:
            # The rule was removed, and its recipients with it.
            self._store.rejudged(due, None, ())
            return
        signing = _signing(due)
        if isinstance(signing, Unreadable):
            # This finding must not block the judgement of later ones.
            postpone(self._store.database, due, self._now + _ASK_AGAIN)
            where = f"{due.where.log}: entry {due.where.index}"
            self._trouble = self._trouble or f"{where} was read once and cannot be read again: {signing.reason}"
        elif due.was is Outcome.UNVERIFIED:
            self._ask_authorities(due, signing)
        else:
            self._look_for_what_follows(due, signing, rule)

    def ended(self, looked_at: int) -> RecheckCounts:
        """Let findings without a trusted certificate wait further; returns the numbers."""
        if self._still_unverified:
            self._store.wait_on(self._still_unverified)
        return RecheckCounts(looked_at, self._unexpected, self._waiting, self._trouble)

    def _ask_authorities(self, due: DueFinding, signing: Signing) -> None:
        """Judge a finding as if its entry had just been read: it may need a second judgement of its own."""
        [finding] = self._first.judge([Hit(signing, (due.rule,), due.leaf, due.extra)], self._now)
        if finding.verdict.outcome is Outcome.UNVERIFIED:
            self._still_unverified.append(due)
            return
        self._note(due, finding)
        self._store.vouched_for(due, finding, self._first.alerts([finding], self._now))

    def _look_for_what_follows(self, due: DueFinding, signing: Signing, rule: Rule) -> None:
        [finding] = self._last.judge([Hit(signing, (due.rule,), due.leaf, due.extra)], self._now)
        by = recheck_at(rule, finding.selected, self._store.facts.stored, self._now)
        if _cannot_tell(self._store, due, finding.selected, by):
            # During an outage the finding waits: a missing answer does not count against a signing.
            postpone(self._store.database, due, self._now + _ASK_AGAIN)
            self._waiting += 1
            return
        finding = _of_what_follows(finding, rule)
        worse = finding if finding.verdict.outcome is not Outcome.EXPECTED else None
        self._note(due, finding)
        self._store.rejudged(due, worse, self._last.alerts([finding], self._now))

    def _note(self, due: DueFinding, finding: Finding) -> None:
        if finding.verdict.outcome is not due.was:
            _LOG.info("verdict_changed log=%s index=%d rule=%s", due.where.log, due.where.index, due.rule)
        self._unexpected += finding.verdict.outcome is Outcome.UNEXPECTED


def _of_what_follows(finding: Finding, rule: Rule) -> Finding:
    """Keep only the reasons about a required later entry.

    All other reasons were judged with the entry: later signings, perhaps under a stolen identity, must not make it
    unexpected.
    """
    if finding.verdict.outcome is not Outcome.UNEXPECTED:
        return finding
    late = {each.id for each in rule.expect if isinstance(each, DelayedExpectation)}
    reasons = tuple(reason for reason in finding.verdict.reasons if reason.id in late)
    return replace(finding, verdict=Verdict(Outcome.UNEXPECTED if reasons else Outcome.EXPECTED, reasons))


def _cannot_tell(store: Store, due: DueFinding, selected: Selected, by: datetime | None) -> bool:
    """True if some log that could hold the required later entry was not read since `by`."""
    facts = store.facts.known
    logs, shown = (
        (facts.signature_logs, facts.in_signature_log)
        if due.is_certificate
        else (facts.certificate_logs, facts.in_certificate_log)
    )
    answers = [shown(signer.issued) for signer in selected.vouched if signer.issued is not None]
    if not logs or all(answers):
        return False
    return None in answers or (by is not None and not facts.were_read(logs, by))


def _signing(due: DueFinding) -> Signing | Unreadable:
    if due.is_certificate:
        return decode_ct(due.leaf, due.where, due.extra)
    return decode_rekor(due.leaf, due.where, due.integrated_time)

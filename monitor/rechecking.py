"""Second judgements: what must follow a signing is looked for once its time is over."""

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from monitor.errors import OwnFault
from monitor.examine import Hit
from monitor.judging import RuleJudge
from monitor.rule_keeper import HeldRules
from monitor.store.rechecks import DueFinding, due_findings, postpone
from monitor.store.store import Store
from monitor.trust_keeper import TrustKeeper
from rules.judge import recheck_at
from rules.verdict import Outcome
from sigstore_entries.ct_leaf import decode_ct
from sigstore_entries.rekor import decode_rekor
from sigstore_entries.signing import Signing, Unreadable

_LOG: Final = logging.getLogger(__name__)
_AT_ONCE: Final = 500
_ASK_AGAIN: Final = timedelta(minutes=1)
_ROUNDS: Final = 20


@dataclass(frozen=True, slots=True)
class Rechecked:
    """How many findings were looked at, turned out unexpected, and wait on because a log could not be asked.

    `trouble` is our own, when it kept one or more from being judged; they stay due.
    """

    looked_at: int = 0
    unexpected: int = 0
    waiting: int = 0
    trouble: str = ""


def recheck_all(store: Store, held: HeldRules, trust: TrustKeeper, now: datetime) -> Rechecked:
    """Judge again everything that is due, for a command that ends; at most `_ROUNDS * _AT_ONCE` findings.

    What is left beyond that is still due: the next command, or a daemon, goes on. Our own trouble is a value here: what
    a log did must be told all the same.
    """
    total = Rechecked()
    for _ in range(_ROUNDS):
        try:
            done = recheck(store, held, trust, now)
        except OwnFault as fault:
            return replace(total, trouble=str(fault))
        total = Rechecked(
            total.looked_at + done.looked_at,
            total.unexpected + done.unexpected,
            total.waiting + done.waiting,
            total.trouble or done.trouble,
        )
        if done.looked_at < _AT_ONCE:
            break
    return total


def recheck(store: Store, held: HeldRules, trust: TrustKeeper, now: datetime) -> Rechecked:
    """Judge again what is due, at most some hundred findings.

    A crash between two of them repeats none: each is committed with its alert and with the end of its wait.
    """
    unexpected = waiting = 0
    trouble = ""
    judge = RuleJudge(held.matcher, store.facts, trust.authorities, final=True)
    rules = {rule.id: rule for rule in held.rules.rules}
    due = due_findings(store.database, now, _AT_ONCE)
    for each in due:
        if each.rule not in held.selections:
            # The rule is gone, and whom it would have told with it.
            store.rejudged(each, None, ())
            continue
        signing = _signing(each)
        if isinstance(signing, Unreadable):
            # Must not keep those behind it from being judged.
            postpone(store.database, each, now + _ASK_AGAIN)
            where = f"{each.where.log}: entry {each.where.index}"
            trouble = trouble or f"{where} was read once and cannot be read again: {signing.reason}"
            continue
        if _cannot_tell(store, each, signing, recheck_at(rules[each.rule], signing, store.facts, now)):
            # An outage is told as an outage: nothing is held against a signing for what we could not ask.
            postpone(store.database, each, now + _ASK_AGAIN)
            waiting += 1
            continue
        [finding] = judge.judge([Hit(signing, (each.rule,), each.leaf, each.extra)], now)
        worse = finding if finding.verdict.outcome is not Outcome.EXPECTED else None
        if worse is not None:
            _LOG.info("verdict_changed log=%s index=%d rule=%s", each.where.log, each.where.index, each.rule)
        store.rejudged(each, worse, judge.alerts([finding], now))
        unexpected += finding.verdict.outcome is Outcome.UNEXPECTED
    return Rechecked(len(due), unexpected, waiting, trouble)


def _cannot_tell(store: Store, due: DueFinding, signing: Signing, by: datetime | None) -> bool:
    """Whether the logs that would show what had to follow `by` then were not all read since."""
    facts = store.facts
    logs, shown = (
        (facts.signature_logs, facts.in_signature_log)
        if due.is_certificate
        else (facts.certificate_logs, facts.in_certificate_log)
    )
    known = [signer.fingerprints for signer in signing.signers if signer.fingerprints]
    answers = [shown(fingerprints) for fingerprints in known]
    if not logs or all(answers):
        return False
    return None in answers or (by is not None and not facts.were_read(logs, by))


def _signing(due: DueFinding) -> Signing | Unreadable:
    if due.is_certificate:
        return decode_ct(due.leaf, due.where, due.extra)
    return decode_rekor(due.leaf, due.where, due.integrated_time)

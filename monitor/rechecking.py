"""Second judgements: what must follow a signing is looked for once its time is over."""

import logging
from datetime import datetime, timedelta
from typing import Final

from monitor.errors import OwnFault
from monitor.examine import Hit
from monitor.judging import RuleJudge
from monitor.rule_keeper import HeldRules
from monitor.store.rechecks import DueFinding, due_findings, postpone
from monitor.store.store import Store
from monitor.trust_keeper import TrustKeeper
from rules.verdict import Outcome
from sigstore_entries.ct_leaf import decode_ct
from sigstore_entries.rekor import decode_rekor
from sigstore_entries.signing import Signing, Unreadable

_LOG: Final = logging.getLogger(__name__)
_AT_ONCE: Final = 500
_ASK_AGAIN: Final = timedelta(minutes=1)


def recheck(store: Store, held: HeldRules, trust: TrustKeeper, now: datetime) -> int:
    """Judge again what is due, at most some hundred findings; returns how many.

    A crash between two of them repeats none: each is committed with its alert and with the end of its wait.
    """
    judge = RuleJudge(held.matcher, store.facts, trust.authorities)
    due = due_findings(store.database, now, _AT_ONCE)
    for each in due:
        if each.rule not in held.selections:
            # The rule is gone, and whom it would have told with it.
            store.rejudged(each, None, ())
            continue
        signing = _signing(each)
        if _cannot_tell(store, each, signing):
            # An outage is told as an outage: nothing is held against a signing for what we could not ask.
            postpone(store.database, each, now + _ASK_AGAIN)
            continue
        [finding] = judge.judge([Hit(signing, (each.rule,), each.leaf, each.extra)], now)
        worse = finding if finding.verdict.outcome is not Outcome.EXPECTED else None
        if worse is not None:
            _LOG.info("verdict_changed log=%s index=%d rule=%s", each.where.log, each.where.index, each.rule)
        store.rejudged(each, worse, judge.alerts([finding], now))
    return len(due)


def _cannot_tell(store: Store, due: DueFinding, signing: Signing) -> bool:
    facts = store.facts
    logs, shown = (
        (facts.signature_logs, facts.in_signature_log)
        if due.is_certificate
        else (facts.certificate_logs, facts.in_certificate_log)
    )
    known = [signer.fingerprints for signer in signing.signers if signer.fingerprints]
    return bool(logs) and any(shown(fingerprints) is None for fingerprints in known)


def _signing(due: DueFinding) -> Signing:
    if due.is_certificate:
        signing: Signing | Unreadable = decode_ct(due.leaf, due.where, due.extra)
    else:
        signing = decode_rekor(due.leaf, due.where, due.integrated_time)
    if isinstance(signing, Unreadable):
        raise OwnFault(
            f"{due.where.log}: entry {due.where.index} was read once and cannot be read again: {signing.reason}"
        )
    return signing

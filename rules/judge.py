"""Expected, unexpected or unverified: one signing under one rule, with every reason."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from rules.expectations.implied_repository import implied_repository
from rules.facts import Facts
from rules.rule import Case, DelayedExpectation, Rule, unmet
from rules.selected import Selected, SelectedSigner, Voucher, select
from rules.verdict import Outcome, Reason, Verdict
from sigstore_entries.signing import Signer, Signing

# Worst first: an unexpected signature is news even beside one without a trusted certificate.
_WORST_FIRST: Final = (Outcome.UNEXPECTED, Outcome.UNVERIFIED, Outcome.EXPECTED)

NO_EXPECTATIONS: Final = Reason(
    "no-expectations", "The rule says nothing about what is expected, so every match is news."
)
CHAIN_NOT_CHECKED: Final = Reason(
    "chain-not-checked", "The certificate was not checked against the trusted authorities."
)
UNTRUSTED_CHAIN: Final = Reason(
    "untrusted-chain", "The certificate does not come from a trusted authority; anybody can make one."
)
NAME_ALONE: Final = Reason(
    "name-alone", "The key was selected by a name alone; anyone can put this name on a key of their own."
)
LOGGED_AFTER_EXPIRY: Final = "logged-after-expiry"
WRONG_SIGNATURE: Final = Reason(
    "wrong-signature", "The signature in the entry is not that of its key: it says nothing about the alleged signer."
)
ONLY_LISTED: Final = Reason(
    "only-listed", "The entry lists this key or certificate; another one made the signature. Anyone can list it."
)
SIGNER_UNKNOWN: Final = Reason(
    "signer-unknown", "The entry lists several keys or certificates and does not show which of them signed."
)
_UNVERIFIED: Final = {
    Voucher.ONLY_LISTED: ONLY_LISTED,
    Voucher.UNTRUSTED_CHAIN: UNTRUSTED_CHAIN,
    Voucher.NAME_ALONE: NAME_ALONE,
    Voucher.WRONG_SIGNATURE: WRONG_SIGNATURE,
}
NOT_SELECTED: Final = Reason("not-selected", "No signer of this entry is one that the rule selects.")


def judge(rule: Rule, signing: Signing, facts: Facts, now: datetime, *, again: bool = True) -> Verdict:
    """Judge every signer the rule selects; see `judge_selected`."""
    return judge_selected(rule, select(rule.select, signing), facts, now, again=again)


def judge_selected(rule: Rule, selected: Selected, facts: Facts, now: datetime, *, again: bool = True) -> Verdict:
    """Judge every selected signer; the worst outcome wins and every reason is told once.

    Without `again`, what must happen later is left to a second judgement, at `recheck_at`. A signing the rule does not
    select is `expected`, with the reason `not-selected`: call this for matches only.
    """
    if not selected.signers:
        return Verdict(Outcome.EXPECTED, (NOT_SELECTED,))
    cases = [(each, case_of(rule, selected, each, facts, now)) for each in selected.signers]
    verdicts = [_judge_signer(each, case, again=again) for each, case in cases]
    outcome = min((verdict.outcome for verdict in verdicts), key=_WORST_FIRST.index)
    return Verdict(outcome, tuple(dict.fromkeys(reason for verdict in verdicts for reason in verdict.reasons)))


def recheck_at(rule: Rule, selected: Selected, facts: Facts, seen_at: datetime) -> datetime | None:
    """When a signing can be judged again, for expectations on what happens later; `None` when it has none.

    The latest of several times: by then all of them can be told. It may be over when an entry is met late. A verdict
    can only get worse.
    """
    delayed = [each for each in rule.expect if isinstance(each, DelayedExpectation)]
    if not delayed:
        return None
    times: list[datetime] = []
    for signer in selected.signers:
        case = case_of(rule, selected, signer, facts, seen_at)
        times.extend(due for each in delayed if (due := each.due_at(case)) is not None)
    return max(times, default=None)


def case_of(rule: Rule, selected: Selected, signer: SelectedSigner, facts: Facts, now: datetime) -> Case:
    """What expectations are asked about one selected signer."""
    return Case(rule, selected.signing, signer.believed, facts, now, selected.certificates)


def _judge_signer(selected: SelectedSigner, case: Case, *, again: bool) -> Verdict:
    reasons = tuple(_reasons(selected, case, again=again))
    if selected.is_unverified:
        # Matching comes before judging the chain: the reasons stay, so that a reader sees what was attempted.
        return Verdict(Outcome.UNVERIFIED, (_UNVERIFIED[selected.voucher], *reasons))
    return Verdict(Outcome.UNEXPECTED if reasons else Outcome.EXPECTED, reasons)


def _reasons(selected: SelectedSigner, case: Case, *, again: bool) -> Iterator[Reason]:
    signer = case.signer
    if selected.voucher is Voucher.NOT_CHECKED:
        yield CHAIN_NOT_CHECKED
    if selected.voucher is Voucher.SIGNER_UNKNOWN:
        yield SIGNER_UNKNOWN
    yield from _logged_after_expiry(case)
    if not case.rule.expect:
        yield NO_EXPECTATIONS
        return
    if signer is not None:
        yield from _unreadable(signer)
    yield from implied_repository(case)
    for expectation in case.rule.expect:
        if again or not isinstance(expectation, DelayedExpectation):
            yield from unmet(expectation, case)


def _logged_after_expiry(case: Case) -> Iterator[Reason]:
    """A reason when the log was read after the certificate's end and did not hold the entry yet.

    Rekor v2 says of no entry when it was logged; where a log does, the chain is judged with that time.
    """
    signer, signing = case.signer, case.signing
    if signer is None or signer.not_after is None or case.certificate_only:
        return
    if any(time.source == "integrated-time" for time in signing.times):
        return
    absent_at = case.facts.past.absent_at(signing.where)
    # A clock that was ahead once may have left a time in the future.
    if absent_at is not None and signer.not_after < absent_at <= case.now:
        sentence = (
            "The certificate had expired before this entry was logged: a key that should be gone signed or logged."
        )
        expected, found = f"logged by {signer.not_after.isoformat()}", f"not in the log at {absent_at.isoformat()}"
        yield Reason(LOGGED_AFTER_EXPIRY, sentence, expected, found)


def _unreadable(signer: Signer) -> Iterator[Reason]:
    for defect in signer.defects:
        # An unreadable part may be the one that would have shown the fault.
        yield Reason("unreadable-part", "A part of the certificate or key could not be read.", "readable", defect)

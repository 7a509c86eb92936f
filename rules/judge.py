"""Expected, unexpected or unverified: one signing under one rule, with every reason."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from rules.expectations.case import Case, DelayedExpectation, unmet
from rules.expectations.implied_repository import implied_repository
from rules.facts import Facts
from rules.rule import Rule
from rules.selection import matching_signers
from rules.verdict import Outcome, Reason, Verdict
from sigstore_entries.signing import ChainTrust, Signer, Signing

# Worst first: an unexpected signature is news even beside one whose certificate nobody vouches for.
_WORST_FIRST: Final = (Outcome.UNEXPECTED, Outcome.UNVERIFIED, Outcome.EXPECTED)

NO_EXPECTATIONS: Final = Reason(
    "no-expectations", "The rule says nothing about what is expected, so every match is news."
)
CHAIN_NOT_CHECKED: Final = Reason(
    "chain-not-checked", "Nobody checked whether the certificate comes from a trusted authority."
)
UNTRUSTED_CHAIN: Final = Reason(
    "untrusted-chain", "The certificate does not come from a trusted authority; anybody can make one."
)
NOT_SELECTED: Final = Reason("not-selected", "No signer of this entry is one that the rule selects.")


def judge(rule: Rule, signing: Signing, facts: Facts, now: datetime, *, again: bool = True) -> Verdict:
    """Judge every signer the rule selects; the worst outcome wins and every reason is told once.

    Without `again`, what must happen later is left to a second judgement, at `recheck_at`. A signing the rule does not
    select is `expected`, with the reason `not-selected`: call this for matches only.
    """
    signers = matching_signers(rule.select, signing)
    if not signers:
        return Verdict(Outcome.EXPECTED, (NOT_SELECTED,))
    verdicts = [_judge_signer(Case(rule, signing, signer, facts, now), again=again) for signer in signers]
    outcome = min((verdict.outcome for verdict in verdicts), key=_WORST_FIRST.index)
    return Verdict(outcome, tuple(dict.fromkeys(reason for verdict in verdicts for reason in verdict.reasons)))


def recheck_at(rule: Rule, signing: Signing, facts: Facts, seen_at: datetime) -> datetime | None:
    """When a signing can be judged again, for expectations on what happens later; `None` when it has none.

    The latest of several times: by then all of them can be told. It may be over when an entry is met late. A verdict
    can only get worse.
    """
    delayed = [each for each in rule.expect if isinstance(each, DelayedExpectation)]
    if not delayed:
        return None
    times: list[datetime] = []
    for signer in matching_signers(rule.select, signing):
        case = Case(rule, signing, signer, facts, seen_at)
        times.extend(due for each in delayed if (due := each.due_at(case)) is not None)
    return max(times, default=None)


def _judge_signer(case: Case, *, again: bool) -> Verdict:
    reasons = tuple(_reasons(case, again=again))
    if case.signer is not None and case.signer.trust is ChainTrust.UNTRUSTED:
        # Matching comes before judging the chain: the reasons stay, so that a reader sees what was attempted.
        return Verdict(Outcome.UNVERIFIED, (UNTRUSTED_CHAIN, *reasons))
    return Verdict(Outcome.UNEXPECTED if reasons else Outcome.EXPECTED, reasons)


def _reasons(case: Case, *, again: bool) -> Iterator[Reason]:
    signer = case.signer
    if signer is not None and signer.trust is ChainTrust.NOT_CHECKED:
        yield CHAIN_NOT_CHECKED
    if not case.rule.expect:
        yield NO_EXPECTATIONS
        return
    if signer is not None:
        yield from _unreadable(signer)
    yield from implied_repository(case)
    for expectation in case.rule.expect:
        if again or not isinstance(expectation, DelayedExpectation):
            yield from unmet(expectation, case)


def _unreadable(signer: Signer) -> Iterator[Reason]:
    for defect in signer.defects:
        # A part nobody could read may be the one that would have shown what is wrong.
        yield Reason("unreadable-part", "A part of the certificate or key could not be read.", "readable", defect)

"""The verdict on one signing under one rule, with every reason, and its explanation claim by claim."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from rules.acknowledged import ID as ACKNOWLEDGED_PATTERN
from rules.acknowledged import SignerPattern
from rules.facts import Facts
from rules.pattern import any_of
from rules.rule import Case, DelayedExpectation, Outcome, Reason, Rule, Verdict, unmet
from rules.selection import (
    AllOf,
    AnyOf,
    Condition,
    FieldMatch,
    Not,
    Selected,
    SelectedSigner,
    Voucher,
    constrains,
    select,
    values,
)
from sigstore_entries.signing import Signer, Signing

# Worst first: an unexpected signature counts even beside one without a trusted certificate.
_WORST_FIRST: Final = (Outcome.UNEXPECTED, Outcome.UNVERIFIED, Outcome.EXPECTED)

NO_EXPECTATIONS: Final = Reason("no-expectations", "The rule has no expectations, so every match is reported.")
CHAIN_NOT_CHECKED: Final = Reason(
    "chain-not-checked", "The certificate was not checked against the trusted authorities."
)
UNTRUSTED_CHAIN: Final = Reason(
    "untrusted-chain", "The certificate does not come from a trusted authority; any person can make such a certificate."
)
NAME_ALONE: Final = Reason(
    "name-alone", "The rule selected the key by a name alone; any person can put this name on a key of their own."
)
LOGGED_AFTER_EXPIRY: Final = "logged-after-expiry"
WRONG_SIGNATURE: Final = Reason(
    "wrong-signature",
    "The signature in the entry was not made by the key in it, so it says nothing about the alleged signer.",
)
ONLY_LISTED: Final = Reason(
    "only-listed", "The entry lists this key or certificate; another key made the signature. Any person can list it."
)
SIGNER_UNKNOWN: Final = Reason(
    "signer-unknown", "The entry lists several keys or certificates and does not show which of them signed."
)
_BUILD_KEYS: Final = frozenset({"workflow", "ref", "trigger", "runner", "environment", "visibility"})
_REPOSITORY_KEYS: Final = frozenset({"repository", "repository_identifier", "owner_identifier"})
_REPOSITORY_FIELDS: Final = frozenset(
    {
        "source_repository_uri",
        "source_repository_identifier",
        "source_repository_owner_uri",
        "source_repository_owner_identifier",
        "github_workflow_repository",
    }
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
    """Judge every selected signer; the worst outcome counts, with every reason once.

    Without `again`, a second judgement at `recheck_at` decides about later events. A signing that the rule does not
    select is `expected`, with the reason `not-selected`: call this for matches only.
    """
    if not selected.signers:
        return Verdict(Outcome.EXPECTED, (NOT_SELECTED,))
    cases = [(each, case_of(rule, selected, each, facts, now)) for each in selected.signers]
    verdicts = [_judge_signer(each, case, again=again) for each, case in cases]
    outcome = min((verdict.outcome for verdict in verdicts), key=_WORST_FIRST.index)
    return Verdict(outcome, tuple(dict.fromkeys(reason for verdict in verdicts for reason in verdict.reasons)))


def recheck_at(rule: Rule, selected: Selected, facts: Facts, seen_at: datetime) -> datetime | None:
    """Time to judge a signing again, for expectations on later events; `None` when its rule has none.

    It is the latest of the times of all such expectations. It may be in the past for an entry that is read late. A
    second verdict can only be worse.
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
    """The case that expectations judge, for one selected signer."""
    return Case(rule, selected.signing, signer.believed, facts, now, selected.certificates)


def _judge_signer(selected: SelectedSigner, case: Case, *, again: bool) -> Verdict:
    reasons = tuple(_reasons(selected, case, again=again))
    if selected.is_unverified:
        # Matching comes before judging the chain: the other reasons stay, so that a reader sees the attempt.
        return Verdict(Outcome.UNVERIFIED, (_UNVERIFIED[selected.voucher], *reasons))
    if reasons and selected.is_vouched and (pattern := _acknowledged(case, reasons)) is not None:
        return Verdict(Outcome.EXPECTED, (_like_acknowledged(pattern),))
    return Verdict(Outcome.UNEXPECTED if reasons else Outcome.EXPECTED, reasons)


def _acknowledged(case: Case, reasons: Sequence[Reason]) -> SignerPattern | None:
    """The first acknowledged pattern that covers the signer and all reasons against the signing."""
    if case.signer is None:
        return None
    patterns, ids = case.facts.authorised.patterns(case.rule.id), {reason.id for reason in reasons}
    return next((each for each in patterns if each.covers(case.signer, ids)), None)


def _like_acknowledged(pattern: SignerPattern) -> Reason:
    sentence = "A person acknowledged signings like this one as a pattern."
    return Reason(ACKNOWLEDGED_PATTERN, sentence, found=f"pattern {pattern.number}")


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
    yield from _implied_repository(case)
    for expectation in case.rule.expect:
        if again or not isinstance(expectation, DelayedExpectation):
            yield from unmet(expectation, case)


def _implied_repository(case: Case) -> Iterator[Reason]:
    """Implied by a rule about a workflow that names no repository: the build is for the identity's own repository.

    A workflow that others may call signs under its own name for each caller: ref and trigger are then the caller's,
    and the caller's ref may be named `v1`.
    """
    keys = {expectation.key for expectation in case.rule.expect}
    if not keys & _BUILD_KEYS or keys & _REPOSITORY_KEYS or constrains(case.rule.select, _REPOSITORY_FIELDS):
        return
    repository = case.repository
    if repository is None or any(identity.startswith(repository + "/") for identity in case.identities):
        return
    sentence = "Another repository called this workflow. If this is allowed, list the repository under `repository`."
    yield Reason("repository", sentence, "the repository the identity names", repository)


def _logged_after_expiry(case: Case) -> Iterator[Reason]:
    """A reason when the log was read after the certificate's end and did not hold the entry yet.

    Rekor v2 states no time of logging; where a log states one, the chain is judged at that time.
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
            "The certificate had expired before this entry was logged: the signer used a key that should no longer "
            "exist."
        )
        expected = f"logged by {signer.not_after:%Y-%m-%dT%H:%M:%SZ}"
        found = f"not in the log at {absent_at:%Y-%m-%dT%H:%M:%SZ}"
        yield Reason(LOGGED_AFTER_EXPIRY, sentence, expected, found)


def _unreadable(signer: Signer) -> Iterator[Reason]:
    for defect in signer.defects:
        # An unreadable part may hold the sign of an attack.
        yield Reason("unreadable-part", "A part of the certificate or key could not be read.", "readable", defect)


class ExplanationRow(Struct, frozen=True):
    """One line of an explanation. `part` is `select` or `expect`, `signer` counts from 1, 0 is the entry itself."""

    part: str
    signer: int
    label: str
    expected: str
    found: str
    ok: bool


class Explanation(Struct, frozen=True):
    """Selection by the rule, its verdict on a selected signing, and every compared value."""

    selected: bool
    verdict: Verdict | None
    rows: tuple[ExplanationRow, ...]


def explain(rule: Rule, signing: Signing, facts: Facts, now: datetime) -> Explanation:
    """Make every comparison, met or unmet. Names and claims are untrusted text."""
    selected = select(rule.select, signing)
    signers: tuple[Signer | None, ...] = signing.signers or (None,)
    rows: list[ExplanationRow] = []
    for number, signer in enumerate(signers, start=1 if signing.signers else 0):
        rows.extend(_select_rows(rule.select, signing, signer, number, wanted=True))
        for each in selected.signers:
            if each.signer is signer:
                rows.extend(_expect_rows(case_of(rule, selected, each, facts, now), each, number))
    verdict = judge_selected(rule, selected, facts, now) if selected.signers else None
    return Explanation(bool(selected.signers), verdict, tuple(rows))


def _select_rows(
    condition: Condition, signing: Signing, signer: Signer | None, number: int, *, wanted: bool
) -> Iterator[ExplanationRow]:
    if isinstance(condition, FieldMatch):
        found = list(dict.fromkeys(values(condition.field, signing, signer)))
        expected = any_of(condition.patterns)
        holds = condition.holds(signing, signer) is wanted
        shown = expected if wanted else f"not {expected}"
        yield ExplanationRow("select", number, condition.field, shown, ", ".join(found[:10]) or "(nothing)", holds)
    elif isinstance(condition, Not):
        yield from _select_rows(condition.condition, signing, signer, number, wanted=not wanted)
    else:
        for each in condition.conditions:
            yield from _select_rows(each, signing, signer, number, wanted=wanted)
        if isinstance(condition, (AllOf, AnyOf)) and len(condition.conditions) > 1:
            label = "all of these" if isinstance(condition, AllOf) else "any of these"
            holds = condition.holds(signing, signer)
            yield ExplanationRow("select", number, label, str(wanted).lower(), str(holds).lower(), holds is wanted)


def _expect_rows(case: Case, selected: SelectedSigner, number: int) -> Iterator[ExplanationRow]:
    if selected.signer is not None and case.signer is not None:
        trust = selected.signer.trust
        wanted = "trusted, or no certificate"
        yield ExplanationRow("expect", number, "chain", wanted, trust, trust in ("trusted", "no-certificate"))
        wanted = "a trusted authority, or the key's fingerprint in the rule"
        yield ExplanationRow("expect", number, "vouched for by", wanted, selected.voucher, not selected.is_unverified)
        for defect in case.signer.defects:
            yield ExplanationRow("expect", number, "unreadable part", "readable", defect, ok=False)
    for reason in _implied_repository(case):
        yield ExplanationRow("expect", number, reason.id, reason.expected, reason.found, ok=False)
    for expectation in case.rule.expect:
        for check in expectation.checks(case):
            yield ExplanationRow(
                "expect", number, f"{expectation.key}: {check.label}", check.expected, check.found, check.ok
            )

"""Why a rule says what it says of one signing: claim by claim, for people and for `rules explain`."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from rules.expectations.implied_repository import implied_repository
from rules.facts import Facts
from rules.judge import case_of, judge_selected
from rules.rule import Case, Rule
from rules.selected import SelectedSigner, select
from rules.selection import AllOf, AnyOf, Condition, Match, Not, values
from rules.verdict import Verdict
from sigstore_entries.signing import Signer, Signing


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an explanation. `part` is `select` or `expect`, `signer` counts from 1, 0 is the entry itself."""

    part: str
    signer: int
    label: str
    expected: str
    found: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether the rule selects the signing, its verdict if so, and every value that was looked at."""

    selected: bool
    verdict: Verdict | None
    rows: tuple[Row, ...]


def explain(rule: Rule, signing: Signing, facts: Facts, now: datetime) -> Explanation:
    """Look at everything, met or not. Names and claims are untrusted text."""
    selected = select(rule.select, signing)
    signers: tuple[Signer | None, ...] = signing.signers or (None,)
    rows: list[Row] = []
    for number, signer in enumerate(signers, start=1 if signing.signers else 0):
        rows.extend(_select_rows(rule.select, signing, signer, number, wanted=True))
        for each in selected.signers:
            if each.signer is signer:
                rows.extend(_expect_rows(case_of(rule, selected, each, facts, now), each, number))
    verdict = judge_selected(rule, selected, facts, now) if selected.signers else None
    return Explanation(bool(selected.signers), verdict, tuple(rows))


def _select_rows(
    condition: Condition, signing: Signing, signer: Signer | None, number: int, *, wanted: bool
) -> Iterator[Row]:
    if isinstance(condition, Match):
        found = list(dict.fromkeys(values(condition.field, signing, signer)))
        expected = " or ".join(str(pattern) for pattern in condition.patterns)
        holds = condition.holds(signing, signer) is wanted
        shown = expected if wanted else f"not {expected}"
        yield Row("select", number, condition.field, shown, ", ".join(found[:10]) or "(nothing)", holds)
    elif isinstance(condition, Not):
        yield from _select_rows(condition.condition, signing, signer, number, wanted=not wanted)
    else:
        for each in condition.conditions:
            yield from _select_rows(each, signing, signer, number, wanted=wanted)
        if isinstance(condition, (AllOf, AnyOf)) and len(condition.conditions) > 1:
            label = "all of these" if isinstance(condition, AllOf) else "any of these"
            holds = condition.holds(signing, signer)
            yield Row("select", number, label, str(wanted).lower(), str(holds).lower(), holds is wanted)


def _expect_rows(case: Case, selected: SelectedSigner, number: int) -> Iterator[Row]:
    if selected.signer is not None and case.signer is not None:
        trust = selected.signer.trust
        wanted = "trusted, or no certificate"
        yield Row("expect", number, "chain", wanted, trust, trust in ("trusted", "no-certificate"))
        wanted = "a trusted authority, or the key's fingerprint in the rule"
        yield Row("expect", number, "vouched for by", wanted, selected.voucher, not selected.is_unverified)
        for defect in case.signer.defects:
            yield Row("expect", number, "unreadable part", "readable", defect, ok=False)
    for reason in implied_repository(case):
        yield Row("expect", number, reason.id, reason.expected, reason.found, ok=False)
    for expectation in case.rule.expect:
        for check in expectation.checks(case):
            yield Row("expect", number, f"{expectation.key}: {check.label}", check.expected, check.found, check.ok)

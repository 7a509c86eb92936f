"""Signings in a name, each compared with an expectation; used by pages, API and exports."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from alerts.alert import counted
from monitor.model.state import Finding
from monitor.site.rendering import NEVER, Timeline, timeline
from monitor.site.search_form import FormSearch
from monitor.store.findings import BatchPastFacts, SeenFact, is_certificate_only, seen_in
from monitor.store.signings import LogRead, PastSigning, SigningCursor, Signings, as_events, signings_once
from rules.asking import Ask, ask_of, rule_of
from rules.expectations.kinds import BY_KEY
from rules.facts import Facts
from rules.judge import NOT_SELECTED as UNSELECTED
from rules.judge import judge_selected
from rules.learning import (
    FEW,
    LEARNED,
    NoAuthorisationFacts,
    NoKnownFacts,
    NoPastFacts,
    ProposedExpectation,
    learn,
    verdict_of,
    word,
)
from rules.rule import JudgedByFacts, Outcome, Reason, Rule, Verdict
from rules.selection import digest_text, select
from rules.subject import Subject
from settings.document import DocumentError
from sigstore_entries.signing import EntryRef, NameForm, Signer, Signing

SHOWN: Final = 20
_HIGHEST: Final = 2**62
_ABOUT_TRUST: Final = frozenset(
    {"untrusted-chain", "chain-not-checked", "name-alone", "only-listed", "wrong-signature"}
)
_WORDS: Final[Mapping[str, str]] = {
    "workflow": "Another workflow",
    "ref": "Another branch or tag",
    "trigger": "Started in another way",
    "issuer": "Vouched for by another login service",
    "repository": "From another repository",
    "repository-identifier": "From a repository with another number",
    "owner-identifier": "From an owner with another number",
    "runner": "On other runners",
    "builder": "By other build instructions",
    "digests": "A digest that is not listed",
    "no-expectations": "Nothing was signed in this way before",
    "new-issuer": "Vouched for by another login service than before",
    "repository-identifier-changed": "The repository has another number than before",
    "rate": "More signings than usual",
    "authorised": "You did not announce it",
}
_KEYS: Final = {kind.id: key for key, kind in BY_KEY.items()}
"""Keys of `expect` by the ids of the reasons that their expectations give."""
NOT_ARCHIVED: Final = frozenset(BY_KEY) - {
    *LEARNED,
    "digests",
    "authorised",
    "rate",
    "same_issuer",
    "same_repository_identifier",
}
"""Keys of `expect` that the columns of an archived row cannot answer."""
_OPEN: Final = frozenset({"chain-not-checked", UNSELECTED.id})
"""Ids of reasons that may disappear once the whole entry is read."""
NOT_SELECTED: Final = "not-selected"
"""Outcome of a signing that a rule does not select."""


class NameHistory(Protocol):
    """Source of a name's past. `source` names it on the page: `findings` or `archive`."""

    @property
    def source(self) -> str:
        """`findings`: entries that a rule or subscription selected; `archive`: every entry that was read."""

    @property
    def deepest(self) -> int | None:
        """Number of newest signings that pages list; `None` for all."""

    def signings(self, subject: Subject, limit: int = ...) -> Signings:
        """Newest signings in a name, at most `limit` vouched ones. Raises `OwnFault`."""

    def older(self, subject: Subject, after: SigningCursor, limit: int) -> list[PastSigning]:
        """Vouched signings older than a place, newest first. Raises `OwnFault`."""

    def entry(self, subject: Subject, log: str, index: int) -> PastSigning | None:
        """One signing in a name, of any age. Raises `OwnFault`."""

    def logs(self) -> list[LogRead]:
        """Entries read of each log. Raises `OwnFault`."""


class SearchedNameHistory(NameHistory, Protocol):
    """A past from an archive, which can also be searched by a part of a name and by time."""

    def search(self, clock: Callable[[], datetime]) -> FormSearch:
        """The search of the archive."""


class SigningRow(Struct, frozen=True):
    """One signing as a list shows it. `failing` are the keys of the expectations it does not meet."""

    signing: Signing
    at: datetime
    outcome: str
    what: str
    details: tuple[str, ...]
    why: tuple[tuple[str, str, str], ...]
    failing: tuple[str, ...]
    also: tuple[str, ...] = ()
    answer: bool | None = None

    @property
    def log(self) -> str:
        """Id of the log that holds the signing."""
        return self.signing.where.log

    @property
    def index(self) -> int:
        """Index of the entry in its log."""
        return self.signing.where.index


class NameReport(Struct, frozen=True):
    """The whole answer about a name: `total` vouched signings, and `unverified` other entries.

    Both are least numbers if it `is_lower_bound`, because a part of the archive was not searched.
    """

    subject: Subject
    found: tuple[PastSigning, ...]
    rows: tuple[SigningRow, ...]
    total: int
    parts: tuple[ProposedExpectation, ...]
    ask: Ask
    rule: Rule
    unverified: int
    timeline: Timeline | None
    logs: tuple[LogRead, ...]
    source: str
    now: datetime
    lacks: tuple[str, ...] = ()
    is_lower_bound: bool = False

    @property
    def trusted(self) -> tuple[SigningRow, ...]:
        """Signings that a trusted authority vouches for."""
        return tuple(row for row in self.rows if row.outcome != Outcome.UNVERIFIED)

    @property
    def unlike(self) -> tuple[SigningRow, ...]:
        """Trusted signings that do not meet the proposed expectation."""
        return tuple(row for row in self.rows if row.outcome == Outcome.UNEXPECTED)

    @property
    def others(self) -> tuple[SigningRow, ...]:
        """The newest of the entries that no authority vouches for."""
        return tuple(row for row in self.rows if row.outcome == Outcome.UNVERIFIED)

    @property
    def last(self) -> SigningCursor | None:
        """Place of the first signing read beyond the rows; `None` when every signing read is a row."""
        # All signings of its moment come again: a certificate and the entry made with it have the same time.
        return SigningCursor(self.trusted[-1].at, _HIGHEST, "") if self.total > len(self.trusted) > 0 else None

    @property
    def since(self) -> datetime | None:
        """Time of the oldest shown signing."""
        return self.trusted[-1].at if self.trusted else None

    @property
    def read_at(self) -> datetime | None:
        """Time of the last answer of the log whose last answer is oldest."""
        asked = [log.at for log in self.logs]
        return None if not asked or None in asked else min(at for at in asked if at is not None)


def look(past: NameHistory, subject: Subject, now: datetime, expect: Mapping[str, Any] | None = None) -> NameReport:
    """Answer about a name; `expect`, if given, replaces the learned expectation."""
    known = past.signings(subject)
    found = known.shown
    parts = learn(subject, signings_once(found))
    try:
        chosen = {part.key: part.expect for part in parts} if expect is None else dict(expect)
        ask = ask_of(subject.select(), chosen)
    except DocumentError:
        if expect is not None:
            raise
        # A certificate may hold a text that no rule can: one with a control character, or of 8,000 characters.
        parts, ask = [], ask_of(subject.select(), {})
    rule = rule_of(0, ask.document)
    rows = rows_of(found, rule, now)
    return NameReport(
        subject=subject,
        found=found,
        rows=rows,
        total=known.vouched - (len(found) - len(rows)),
        parts=tuple(parts),
        ask=ask,
        rule=rule,
        unverified=known.unverified,
        timeline=timeline([(row.at, row.outcome) for row in rows], now),
        logs=tuple(past.logs()),
        source=past.source,
        now=now,
        lacks=known.lacks,
        is_lower_bound=known.is_part,
    )


def compared(looked: NameReport, ask: Ask) -> NameReport:
    """The same answer about a name, compared with another request, without reading again."""
    rule = rule_of(0, ask.document)
    rows = rows_of(looked.found, rule, looked.now)
    picture = timeline([(row.at, row.outcome) for row in rows], looked.now)
    return replace(looked, ask=ask, rule=rule, rows=rows, timeline=picture)


def rows_of(
    found: Sequence[PastSigning],
    rule: Rule | None,
    now: datetime,
    answers: Mapping[tuple[str, int], bool] | None = None,
    *,
    unread: Collection[EntryRef] = (),
) -> tuple[SigningRow, ...]:
    """Rows of signings, newest first. `rule` judges them now; without it they keep their verdicts.

    Of `unread` entries only the archived columns are known: expectations of other columns do not count against them.
    """
    ordered = sorted(as_events(found), key=lambda pair: (pair[0].at, pair[0].signing.where.index), reverse=True)
    if rule is None:
        verdicts = {each.signing.where: each.verdict for each, _ in ordered}
    elif any(isinstance(each, JudgedByFacts) for each in rule.expect):
        verdicts = _verdicts([each for each, _ in ordered], rule, now)
    else:
        verdicts = {each.signing.where: verdict_of(rule, each.signing, now) for each, _ in ordered}
    verdicts |= {where: _as_far_as_archived(verdicts[where]) for where in unread if where in verdicts}
    return tuple(_row(each, verdicts[each.signing.where], tuple(also), answers or {}) for each, also in ordered)


def known_before(past: NameHistory, ask: Ask, subject: Subject, now: datetime) -> list[tuple[EntryRef, SeenFact]]:
    """Signings that a new subscription counts as seen, if it compares with its past: the expected rows of its page."""
    if not ask.by_past:
        return []
    rule = rule_of(0, ask.document)
    rows = rows_of(past.signings(subject).shown, rule, now)
    expected = [row.signing for row in rows if row.outcome == Outcome.EXPECTED]
    verdict = Verdict(Outcome.EXPECTED)
    findings = [
        Finding(rule.id, select(rule.select, _with_certificates(signing)), verdict, b"") for signing in expected
    ]
    return [(finding.selected.signing.where, seen) for finding in findings for seen in seen_in(finding)]


def _as_far_as_archived(verdict: Verdict) -> Verdict:
    """The verdict without the reasons that depend on bytes of the entry that were not read."""
    reasons = tuple(each for each in verdict.reasons if _KEYS.get(each.id) not in NOT_ARCHIVED and each.id not in _OPEN)
    is_clear = verdict.outcome is not Outcome.UNVERIFIED and not reasons
    return Verdict(Outcome.EXPECTED, ()) if is_clear else Verdict(verdict.outcome, reasons)


def _verdicts(found: Sequence[PastSigning], rule: Rule, now: datetime) -> dict[EntryRef, Verdict]:
    """Verdicts of a rule that compares with the past: each signing, oldest first, with all earlier ones."""
    past = BatchPastFacts(NoPastFacts(), now)
    facts = Facts(past, NoAuthorisationFacts(), NoKnownFacts())
    told: dict[EntryRef, Verdict] = {}
    for each in sorted(found, key=lambda each: each.at):
        selected = select(rule.select, _with_certificates(each.signing))
        told[each.signing.where] = verdict = judge_selected(rule, selected, facts, now)
        past.remember(Finding(rule.id, selected, verdict, b""))
    return told


def _with_certificates(signing: Signing) -> Signing:
    """The signing with an identity for each signer's certificate: a stored signing does not keep it."""
    where = signing.where
    mark = sha256(f"signwatch entry\x00{where.log}\x00{where.index}".encode()).digest()
    return replace(signing, signers=tuple(dataclasses.replace(each, issued=mark) for each in signing.signers))


def reason_words(reason: Reason) -> tuple[str, str, str]:
    """A reason as (differing part, expected, found)."""
    expected = " or ".join(_in_words(each) for each in reason.expected.split(" or ")) if reason.expected else ""
    return _WORDS.get(reason.id, reason.sentence.rstrip(".")), expected, reason.found


def _in_words(expected: str) -> str:
    """A pattern in words for people: `glob:refs/tags/v*` is `tags v…`."""
    form, colon, text = expected.partition(":")
    return word({form: text}) if colon and form in ("glob", "regex") else expected


def headline(looked: NameReport) -> tuple[str, str, str]:
    """The answer in one line, its tone (`good`, `bad`, `warn`, `calm`) and the content of the round mark."""
    if looked.trusted:
        return _headline_of_signings(looked, len(looked.trusted), len(looked.unlike))
    if looked.unverified:
        part = ", in the part that was searched" if looked.is_lower_bound else ""
        return f"Nothing that a trusted authority vouches for{part}", "warn", "?"
    partly = ("Nothing found in the part that was searched", "warn", "?")
    return partly if looked.is_lower_bound else ("Nothing found in this name", "calm", "0")


def _headline_of_signings(looked: NameReport, trusted: int, unlike: int) -> tuple[str, str, str]:
    if trusted > 1 and not looked.parts:
        return f"{counted(trusted, 'signing')}, and nothing to compare them by", "calm", str(trusted)
    if unlike and looked.parts:
        number = "One signing does" if unlike == 1 else f"{unlike} signings do"
        return f"{number} not look like the others", "bad", str(unlike)
    if trusted == 1:
        return "One signing, and nothing to compare it with", "calm", "1"
    if any(part.past <= FEW and len(part.values) > 1 for part in looked.parts):
        return f"{counted(trusted, 'signing')} that differ, too few to tell which are usual", "warn", str(trusted)
    least = "at least " if looked.is_lower_bound else ""
    which = f"The newest {trusted} of {least}{looked.total}" if least or looked.total > trusted else f"All {trusted}"
    return f"{which} signings look alike", "good", "✓"


def headline_detail(looked: NameReport) -> str:
    """The sentence under the headline."""
    unlike, trusted = looked.unlike, looked.trusted
    if trusted and not looked.parts:
        return "A key's signing names no workflow, branch or login. Subscribe to hear of each further one."
    if unlike:
        usual = {part.key: " or ".join(word(value) for value in part.values) for part in looked.parts}
        others = len(trusted) - len(unlike)
        source = f" from {usual['workflow']}" if "workflow" in usual else ""
        where = f" on {usual['ref']}" if "ref" in usual else ""
        came = "comes" if others == 1 else "come"
        rest = f" The other {others} {came}{source}{',' if source and where else ''}{where}." if others else ""
        return f"{_first(unlike[0])}{rest if source or where else ''}".replace("….", "…")
    if trusted:
        shown = "; ".join(part.sentence for part in looked.parts if part.key in ("workflow", "ref", "issuer"))
        # Names keep their case: `capitalize` would lower all but the first letter.
        return f"{shown[:1].upper()}{shown[1:]}." if shown else ""
    if looked.unverified:
        return "Any person can log a self-made certificate with any name in it. No Sigstore client accepts one."
    return (
        "That is no all-clear: this site read what is listed below, and nothing else. Subscribe to hear of the first."
    )


def _first(row: SigningRow) -> str:
    differs = "; ".join(f"{label.lower()}, {found}" if found else label.lower() for label, _, found in row.why[:2])
    when = "In an entry without a time" if row.at == NEVER else f"On {row.at:%-d %B %Y}"
    return f"{when}: {differs}."


def _row(
    each: PastSigning, verdict: Verdict, also: tuple[str, ...], answers: Mapping[tuple[str, int], bool]
) -> SigningRow:
    signing = each.signing
    outcome = verdict.outcome
    what, details = _words(signing)
    reasons = [reason for reason in verdict.reasons if reason.id not in _ABOUT_TRUST and reason is not UNSELECTED]
    return SigningRow(
        signing=signing,
        at=each.at,
        outcome=NOT_SELECTED if verdict.reasons == (UNSELECTED,) else outcome.value,
        what=what,
        details=details,
        why=tuple(reason_words(reason) for reason in reasons) if outcome is Outcome.UNEXPECTED else (),
        failing=tuple(dict.fromkeys(_KEYS.get(reason.id, reason.id.replace("-", "_")) for reason in reasons)),
        also=also,
        answer=answers.get((signing.where.log, signing.where.index)),
    )


def _words(signing: Signing) -> tuple[str, tuple[str, ...]]:
    """First line of a row, and the parts of the small line below."""
    signer = next(iter(signing.signers), None)
    claims: Mapping[str, str] = signer.claims if signer is not None else {}
    ref = claims.get("source_repository_ref") or claims.get("github_workflow_ref")
    workflow = claims.get("build_config_uri") or claims.get("build_signer_uri")
    details = []
    if ref and workflow:
        details.append(workflow.partition("@refs/")[0].rpartition("/")[2])
    trigger = claims.get("build_trigger") or claims.get("github_workflow_trigger")
    if trigger:
        details.append(trigger)
    if not ref and signer is not None and signer.issuer:
        details.append(f"login by {signer.issuer.removeprefix('https://')}")
    details += [_artifact(signing)]
    return ref or _who(signer) or "an entry without a readable signer", tuple(each for each in details if each)


def _artifact(signing: Signing) -> str:
    if is_certificate_only(signing):
        return "a certificate; no entry made with it was seen"
    if not signing.digests:
        return signing.kind
    first, more = signing.digests[0], len(signing.digests) - 1
    text = digest_text(first)
    shown = f"{text[:15]}…{text[-4:]}"
    return f"{shown} and {more} more" if more else shown


def _who(signer: Signer | None) -> str:
    if signer is None:
        return ""
    names = [name.value for name in signer.names if name.form is not NameForm.DNS]
    return next(iter([*names, *signer.fingerprints]), "")


def signing_json(row: SigningRow) -> dict[str, Any]:
    """One signing for programs."""
    signers = [
        {
            "names": [name.value for name in signer.names],
            "issuer": signer.issuer,
            "claims": dict(signer.claims),
            "fingerprints": list(signer.fingerprints),
            "trust": signer.trust.value,
        }
        for signer in row.signing.signers
    ]
    return {
        "log": row.log,
        "index": row.index,
        "kind": row.signing.kind,
        "signed_at": None if row.at == NEVER else row.at,
        "outcome": row.outcome,
        "reasons": [{"what": what, "expected": expected, "found": found} for what, expected, found in row.why],
        "signers": signers,
        "digests": [digest_text(digest) for digest in row.signing.digests],
        "also_in": list(row.also),
        "answer": None if row.answer is None else ("mine" if row.answer else "not mine"),
    }


def covers(looked: NameReport) -> str:
    """Kind of answer, by its source."""
    if looked.source == "archive":
        return (
            "This answer comes from the archive of this site, which has every entry of these ranges, and from what was "
            "selected since."
        )
    return (
        "This answer holds the signings that a rule or a subscription of this site selected when they were read. What "
        "was signed in a name before a rule or a subscription was about it is not in it."
    )

"""A subscription as described by its form, and the preview: its verdict on past signings.

The verdict equals that of the subscription itself: the shown entries are read whole, from findings or from their log,
and judged by the same code. For an unread entry the preview names the parts that were not compared, and never calls
the entry expected.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from monitor.site.lookup import NOT_ARCHIVED, NameReport, SigningRow, compared, look, rows_of
from monitor.site.parts import Site
from monitor.site.sessions import Form, RequestRefused, first
from monitor.store.signings import ArchivedEntry, PastSigning, Unread
from rules.asking import Ask, ask_of, read_ask, rule_of, yaml_of
from rules.expectations.kinds import BY_KEY
from rules.learning import ProposedExpectation, describe, offers
from rules.lint import lint
from rules.rule import Outcome, Rule, RuleSet
from rules.subject import NotASubject, Subject, read_subject
from settings.document import DocumentError
from sigstore_entries.signing import EntryRef, Signing

NOT_COMPARED: Final = "not-compared"
"""Outcome of a signing that fits all compared parts, while other parts could not be compared."""
_SHOWN: Final = 8
_UNVERIFIED_SHOWN: Final = 2
"""Number of signings with a self-made certificate in the preview: any person can log hundreds of them."""
_LIVE: Final = frozenset(BY_KEY) - {"digests_from", "log_entry_within", "certificate_log_within"}
"""Keys of `expect` whose tick boxes change the verdicts on the page at once, through its style sheet."""
_NEVER_ARCHIVED: Final = ("signature",)
_ASKS_NO_LOG: Final = "this site asks no log"
_NOT_SHOWN: Final = f"at most {_SHOWN} entries are read for one preview"


class SubscriptionDraft(Struct, frozen=True):
    """A subscription as the form describes it: ticked parts, or a rule written by hand, with its defects.

    `parts` compare with the entry alone, `offers` with the subscriber's own past. `everything` is the rule with all
    parts.
    """

    subject: Subject
    looked: NameReport
    parts: tuple[ProposedExpectation, ...]
    offers: tuple[ProposedExpectation, ...]
    used: tuple[str, ...]
    text: str
    by_hand: bool
    ask: Ask | None
    everything: Rule
    problems: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


def draft_of(site: Site, name: str, form: Form | None, current: Mapping[str, Any] | None = None) -> SubscriptionDraft:
    """A form's draft, checked. Raises `RequestRefused` for a name that cannot be subscribed to.

    `current` is the expectation of the subscription under change: its values replace learned ones.
    """
    try:
        subject = read_subject(name)
    except NotASubject as wrong:
        hint = f" Did you mean {wrong.repair}?" if wrong.repair else ""
        raise RequestRefused(400, "That cannot be subscribed to", f"{wrong}{hint}") from None
    learned = look(site.past, subject, site.clock())
    parts, offered = _proposed(learned, current or {})
    known = {part.key: part.expect for part in (*parts, *offered)}
    if form is not None and "ticked" in form:
        used = tuple(key for key in form.get("use") or [] if key in known)
    else:
        used = tuple(part.key for part in parts) if current is None else tuple(current)
    ticked = _made(subject, {key: known[key] for key in used})
    text, shown = yaml_of(ticked.document), first(form or {}, "shown", 20_000)
    written = (form or {}).get("rule", [""])[0].replace("\r\n", "\n")
    by_hand = bool(written.strip()) and written.strip() != shown.replace("\r\n", "\n").strip()
    ask: Ask | None = ticked
    problems: list[str] = []
    if by_hand:
        text = written
        try:
            ask = read_ask(written)
        except DocumentError as error:
            ask = None
            problems = [f"line {each.line}, column {each.column}: {each.message}" for each in error.problems]
        else:
            by_hand = ask.document != ticked.document
    hints = [] if ask is None else [hint.message for hint in lint(RuleSet((rule_of(0, ask.document),)))]
    looked = learned if ask is None or ask.document == learned.ask.document else compared(learned, ask)
    everything = rule_of(0, _made(subject, known).document)
    return SubscriptionDraft(
        subject, looked, parts, offered, used, text, by_hand, ask, everything, tuple(problems), tuple(hints)
    )


def _made(subject: Subject, expect: Mapping[str, Any]) -> Ask:
    """A request from tick boxes. Raises `RequestRefused` for more values than a subscription may have."""
    try:
        return ask_of(subject.select(), expect)
    except DocumentError as error:
        raise RequestRefused(
            400, "Too much is ticked", f"{error}. Write the rule yourself, or untick a part."
        ) from None


def _proposed(
    learned: NameReport, current: Mapping[str, Any]
) -> tuple[tuple[ProposedExpectation, ...], tuple[ProposedExpectation, ...]]:
    """Parts and offers of a form; a present expectation keeps its values."""
    now = [ProposedExpectation(key, (value,), describe(key, value)) for key, value in current.items()]
    held = {part.key: part for part in now}
    times = [row.at for row in learned.trusted]
    parts = [held.get(part.key, part) for part in learned.parts]
    offered = [held.get(part.key, part) for part in offers(times)]
    shown = {part.key for part in (*parts, *offered)}
    more = [part for part in now if part.key not in shown]
    return (*parts, *more), tuple(offered)


class JudgedSigning(Struct, frozen=True):
    """One past signing under a draft. `why` is the reason for an unread entry, `lacks` the parts not compared.

    `marks` are the style sheet's classes for its row, by the parts that it does not meet.
    """

    row: SigningRow
    marks: str = ""
    why: str = ""
    lacks: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """Outcome of its row; never `expected` while a part was not compared."""
        return NOT_COMPARED if self.why and self.row.outcome == Outcome.EXPECTED else self.row.outcome


def preview_of(site: Site, draft: SubscriptionDraft, client: str) -> list[JudgedSigning]:
    """Signings that show a draft's verdicts: first those that would cause alerts, then the newest."""
    shown = {row.signing.where for row in _chosen(draft.looked.rows)}
    judged = [each for each in every_judged(site, draft, client) if each.row.signing.where in shown]
    return sorted(judged, key=lambda each: _rank(each.row))


def every_judged(site: Site, draft: SubscriptionDraft, client: str) -> list[JudgedSigning]:
    """Every signing that a look-up shows, newest first; entries of the preview are read whole."""
    ask = draft.ask
    if ask is None:
        return []
    signings, shown = draft.looked.found, {row.signing.where for row in _chosen(draft.looked.rows)}
    whole, why = _read(site, draft.subject, [each for each in signings if each.signing.where in shown], client)
    found = [whole.get(each.signing.where, each) for each in signings]
    unread = {each.signing.where for each in found if each.leaf_hash and each.signing.where not in whole}
    now, is_known = site.clock(), not any(each.leaf_hash for each in signings)
    rows = draft.looked.rows if is_known else rows_of(found, draft.looked.rule, now, unread=unread)
    parts = rows_of(found, draft.everything, now, unread=unread)
    failing = {row.signing.where: row.failing for row in parts}
    expect = json.loads(ask.document).get("expect", {})
    lacks = (*_NEVER_ARCHIVED, *(key.replace("_", " ") for key in expect if key in NOT_ARCHIVED))
    return [
        JudgedSigning(
            row,
            _marks(draft, row, failing.get(row.signing.where, ())),
            why.get(row.signing.where, _NOT_SHOWN) if row.signing.where in unread else "",
            lacks if row.signing.where in unread else (),
        )
        for row in rows
    ]


def notes_of(draft: SubscriptionDraft, preview: Sequence[JudgedSigning]) -> list[str]:
    """Sentences about entries that were not read, and entries that the subscription does not search for."""
    counts: dict[str, int] = {}
    for each in preview:
        if each.why:
            counts[each.why] = counts.get(each.why, 0) + 1
    notes = [
        f"{count} of these {'was' if count == 1 else 'were'} compared only in what the archive keeps of it: {why}."
        for why, count in counts.items()
    ]
    if draft.ask is not None and draft.looked.rule.select != draft.everything.select:
        notes.append(f"Signings in the name of {draft.subject.title} are listed; the rule may select others too.")
    return notes


def _rank(row: SigningRow) -> int:
    return {Outcome.UNEXPECTED.value: 0, Outcome.UNVERIFIED.value: 2}.get(row.outcome, 1)


def _chosen(rows: Sequence[SigningRow]) -> list[SigningRow]:
    others = [row for row in rows if row.outcome == Outcome.UNVERIFIED]
    kept = [row for row in rows if row.outcome != Outcome.UNVERIFIED] + others[:_UNVERIFIED_SHOWN]
    return sorted(kept, key=_rank)[:_SHOWN]


def _marks(draft: SubscriptionDraft, row: SigningRow, failing: Collection[str]) -> str:
    is_told = row.outcome == Outcome.UNEXPECTED
    if draft.by_hand:
        return "always" if is_told else ""
    # Only a ticked box that the style sheet knows can remove a reason from the page.
    fixed = any(key != "no_expectations" and (key not in _LIVE or key not in draft.used) for key in row.failing)
    return " ".join([*(f"fails-{key}" for key in failing), *(["always"] if is_told and fixed else [])])


def verdict_style() -> str:
    """Rules of the style sheet: the verdicts of the preview follow the tick boxes."""
    nothing = ".rule:not(:has(.parts :checked)):not(.by-hand) .preview"
    rules = []
    for outcome, display in ((Outcome.EXPECTED, "none"), (Outcome.UNEXPECTED, "inline-block")):
        ticked = [f".rule:has(#use-{key}:checked) .fails-{key} .chip.{outcome}" for key in sorted(_LIVE)]
        rules.append(f"{', '.join([*ticked, f'{nothing} .chip.{outcome}'])} {{ display: {display}; }}\n")
    return "".join(rules)


def _read(
    site: Site, subject: Subject, signings: Sequence[PastSigning], client: str
) -> tuple[dict[EntryRef, PastSigning], dict[EntryRef, str]]:
    """Signings with the full content of their entries, and for each unread one the reason."""
    whole: dict[EntryRef, PastSigning] = {}
    archived: dict[EntryRef, PastSigning] = {}
    for each in signings:
        where = each.signing.where
        known = site.found.entry(subject, where.log, where.index) if each.leaf_hash else each
        if known is None:
            archived[where] = each
        else:
            whole[where] = known
    wanted = [ArchivedEntry(where, each.leaf_hash) for where, each in archived.items()]
    if site.read_entries is None:
        return whole, dict.fromkeys(archived, _ASKS_NO_LOG)
    if not wanted:
        return whole, {}
    read = site.read_entries(wanted, client, lambda: site.limits.entry(client))
    why = {where: answer.why for where, answer in read.items() if isinstance(answer, Unread)}
    for where, answer in read.items():
        if isinstance(answer, Signing):
            whole[where] = replace(archived[where], signing=answer, leaf_hash="")
    return whole, why

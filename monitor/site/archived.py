"""The past of a name from the archive: every entry that was read, selected by a rule or not.

A look-up is bounded: the newest signings are shown and all are counted. A name with too many values to count for one
page, in number or in time, is answered for the newest ranges; the answer says so, and its numbers are least numbers.
The archive's index counts entries without a trusted certificate separately, so any number of them hides no signing.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from alerts.alert import counted
from monitor.archive.answer import ArchiveRow, LogSearchCoverage, SearchCoverage
from monitor.archive.query import MOST_OF_A_PAGE, SECONDS_OF_A_PAGE, MatchMode, Query, keys_of
from monitor.archive.rows import KEYS, SIGNER_TEXTS, Chain
from monitor.archive.search import Archive
from monitor.archive.search_index import KeyKind
from monitor.site.rendering import NEVER
from monitor.store.signings import FindingsHistory, LogRead, PastSigning, SigningCursor, Signings
from rules.rule import Outcome, Verdict
from rules.selection import names_of
from rules.subject import Subject, SubjectKind
from sigstore_entries.signing import (
    ChainTrust,
    Digest,
    EntryRef,
    KnownTime,
    Name,
    NameForm,
    Signer,
    SignerForm,
    Signing,
)

if TYPE_CHECKING:
    from monitor.site.archive_search import ArchiveFormSearch

MAX_SHOWN: Final = 100
"""Signings whose rows are read for one page; all are counted."""
_DEEPEST: Final = 5_000
"""Number of newest signings that the pages of a name list; `signwatch search` lists all."""
_MAX_OTHERS: Final = 20
_MOST_KEYS: Final = MOST_OF_A_PAGE
_SECONDS: Final = SECONDS_OF_A_PAGE
_REMEMBERED: Final = 128
_CUT_REMEMBERED: Final = 60.0
"""Seconds for which an answer in part stands in for another search: a later one may read more in its time."""
_TRUST: Final = {
    Chain.TRUSTED: ChainTrust.TRUSTED,
    Chain.UNTRUSTED: ChainTrust.UNTRUSTED,
    Chain.KEY: ChainTrust.NO_CERTIFICATE,
    Chain.NOT_CHECKED: ChainTrust.NOT_CHECKED,
    # A listed certificate is not shown to have made the signature, so its chain does not count.
    Chain.LISTED: ChainTrust.UNTRUSTED,
}
_CLAIMS: Final = {
    "repositories": "source_repository_uri",
    "refs": "source_repository_ref",
    "triggers": "build_trigger",
    "repository_ids": "source_repository_identifier",
    "owner_ids": "source_repository_owner_identifier",
    "runners": "runner_environment",
}
_NO_VERDICT: Final = Verdict(Outcome.UNVERIFIED, ())


class ArchivedHistory:
    """`monitor.site.lookup.NameHistory` from the archive, and from findings where the archive does not reach yet."""

    source: Final = "archive"

    def __init__(self, archive: Archive, found: FindingsHistory, clock: Callable[[], float] = time.monotonic) -> None:
        self._archive, self._found, self._clock = archive, found, clock
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[object, ...], tuple[Signings, float]] = OrderedDict()

    @property
    def deepest(self) -> int:
        """Number of newest signings that pages lead to."""
        return _DEEPEST

    def signings(self, subject: Subject, limit: int = MAX_SHOWN) -> Signings:
        """Newest signings in a name, and how many there are. Raises `OwnFault`."""
        generations = tuple((log, each.generation) for log, each in self._archive.manifests().items())
        key = (subject, limit, generations)
        with self._lock:
            known, until = self._known.get(key, (None, 0.0))
        if known is None or until < self._clock():
            known = self._searched(subject, limit)
            with self._lock:
                self._known[key] = known, self._clock() + _CUT_REMEMBERED if known.is_part else math.inf
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        return self._with_findings(subject, known)

    def older(self, subject: Subject, after: SigningCursor, limit: int) -> list[PastSigning]:
        """Signings older than a place, newest first, among the newest five thousand. Raises `OwnFault`."""
        behind = [
            each
            for each in self.signings(subject, _DEEPEST).shown
            if each.place.behind(after) and _is_vouched(each.signing)
        ]
        return sorted(behind, key=lambda each: (each.at, each.place.index, each.place.log), reverse=True)[:limit]

    def entry(self, subject: Subject, log: str, index: int) -> PastSigning | None:
        """One signing in a name: a finding, or an archived entry of any age. Raises `OwnFault`."""
        found = self._found.entry(subject, log, index)
        if found is not None:
            return found
        row = self._archive.entry(log, index)
        if row is not None and (prints := _fingerprints(subject)):
            for _, rows in self._archive.rows(log, index, index + 1, (), prints):
                row = _with_fingerprints(row, rows[KEYS.name][0].as_py())
        archived = None if row is None else past_of_row(row)
        return archived if archived is not None and _is_of(subject, archived.signing) else None

    def search(self, clock: Callable[[], datetime]) -> "ArchiveFormSearch":
        """The search of the archive by a part of a name, a login service and time."""
        from monitor.site.archive_search import ArchiveFormSearch  # noqa: PLC0415  imports this module

        return ArchiveFormSearch(self._archive, clock)

    def logs(self) -> list[LogRead]:
        """Archived entries of each log, or read entries where no entry is archived. Raises `OwnFault`."""
        archived = {each.log: each for each in self._coverage().logs if each.spans}
        read = {each.log: each for each in self._found.logs()}
        return [
            _read_of(archived[log], read.get(log)) if log in archived else read[log]
            for log in sorted(archived.keys() | read.keys())
        ]

    def _coverage(self) -> SearchCoverage:
        return self._archive.coverage(Query("*", match=MatchMode.GLOB), {})

    def _searched(self, subject: Subject, limit: int) -> Signings:
        first, *also = queries_of(subject)
        if subject.kind is SubjectKind.FINGERPRINT:
            # The subject is the key itself, so the issuer of its certificate does not count.
            answer = self._archive.search(replace(first, limit=limit), also=also)
            found = [_with_fingerprints(row, _fingerprints(subject)) for row in answer.rows]
            rows, vouched, others, coverages = tuple(found), answer.total, 0, [answer.coverage]
        else:
            trusted = self._archive.search(replace(first, limit=limit, trusted=True), also=also)
            rest = self._archive.search(replace(first, limit=_MAX_OTHERS, trusted=False), also=also)
            rows, vouched, others = (*trusted.rows, *rest.rows), trusted.total, rest.total
            # Each of the two may end at another place, and find another file damaged.
            coverages = [trusted.coverage, rest.coverage]
        lacks = dict.fromkeys(sentence for each in coverages for sentence in _lacking(each))
        is_part = any(map(is_in_part, coverages))
        return Signings(tuple(map(past_of_row, rows)), vouched, others, tuple(lacks), is_part)

    def _with_findings(self, subject: Subject, archived: Signings) -> Signings:
        """Merge in the findings: they hold more of an entry than its row, and reach beyond the archive."""
        found = self._found.signings(subject)
        details = {_place(each.signing): each for each in found.shown}
        spans = {each.log: each.spans for each in self._coverage().logs}
        shown = [details.get(_place(each.signing), each) for each in archived.shown]
        newer = [
            each
            for each in found.shown
            if not any(
                first <= each.signing.where.index < last for first, last in spans.get(each.signing.where.log, ())
            )
        ]
        vouched = [each for each in newer if each.verdict.outcome is not Outcome.UNVERIFIED]
        return replace(
            archived,
            shown=tuple(sorted((*newer, *shown), key=lambda each: each.at, reverse=True)),
            vouched=archived.vouched + len(vouched),
            unverified=archived.unverified + len(newer) - len(vouched),
        )


def _is_vouched(signing: Signing) -> bool:
    return any(each.trust in (ChainTrust.TRUSTED, ChainTrust.NO_CERTIFICATE) for each in signing.signers)


def _is_of(subject: Subject, signing: Signing) -> bool:
    """True if the entry is filed under the name, or under a name inside of it (`queries_of`)."""
    names = {name.lower() for name in names_of(signing)}
    inside = f"{subject.key}/" if subject.kind in (SubjectKind.REPOSITORY, SubjectKind.OWNER) else None
    return subject.key in names or (inside is not None and any(name.startswith(inside) for name in names))


def _place(signing: Signing) -> tuple[str, int]:
    return signing.where.log, signing.where.index


def queries_of(subject: Subject) -> list[Query]:
    """Bounded searches that together find the entries filed under the name (`rules.selection.names_of`)."""
    text, inside = subject.text, f"{subject.text}/"
    match subject.kind:
        case SubjectKind.REPOSITORY:
            found = [
                Query(inside, frozenset({KeyKind.IDENTITY}), MatchMode.PREFIX),
                Query(text, frozenset({KeyKind.REPOSITORY})),
                Query(inside, frozenset({KeyKind.REPOSITORY}), MatchMode.PREFIX),
            ]
        case SubjectKind.OWNER:
            kinds = frozenset({KeyKind.IDENTITY, KeyKind.REPOSITORY})
            found = [Query(inside, kinds, MatchMode.PREFIX)]
        case SubjectKind.EMAIL:
            found = [Query(text, frozenset({KeyKind.IDENTITY}))]
        case SubjectKind.FINGERPRINT:
            found = [Query(subject.key, frozenset({KeyKind.FINGERPRINT}))]
        case _:
            found = [Query(text, frozenset({KeyKind.DIGEST}))]
    return [replace(each, most=_MOST_KEYS, seconds=_SECONDS) for each in found]


def is_in_part(coverage: SearchCoverage) -> bool:
    """True if archived entries, or a followed log, were not searched."""
    left_out = any(each.unsearched or each.damaged for each in coverage.logs)
    return left_out or bool(coverage.missing or coverage.unread)


def _lacking(coverage: SearchCoverage) -> tuple[str, ...]:
    """Sentences about gaps of an answer, apart from the begin and end of the archived ranges."""
    lacking = []
    for each in coverage.logs:
        lacking += [
            f"{each.log}: entries {first} to {last - 1} were not searched, because a look-up may read a "
            "million values and take three seconds. Look up a repository in place of its owner, or search by time."
            for first, last in each.unsearched
        ]
        lacking += [
            f"{each.log}: entries {first} to {last - 1} could not be searched: a file of the archive is damaged."
            for first, last, _ in each.damaged
        ]
        if each.spans and len(each.spans) > 1:
            gaps = ", ".join(
                f"{end} to {begin - 1}" for (_, end), (begin, _) in zip(each.spans, each.spans[1:], strict=False)
            )
            lacking.append(f"{each.log}: entries {gaps} are not archived.")
        if each.unreadable or each.defective:
            lacking.append(
                f"{each.log}: not read: {counted(each.unreadable, 'entry')}, read only in part: {each.defective}. "
                "They are of any name."
            )
    lacking += [f"{log}: nothing of it is archived; findings alone are shown." for log in coverage.missing]
    lacking += [f"{log}: its archive cannot be read now; findings alone are shown." for log, _ in coverage.unread]
    return tuple(lacking)


def _read_of(archived: LogSearchCoverage, read: LogRead | None) -> LogRead:
    first, last = archived.spans[0][0], archived.spans[-1][1]
    at, trouble = (archived.signed_at, False) if read is None else (read.at, read.trouble)
    return LogRead(archived.log, first, last, archived.size, at, trouble)


def _fingerprints(subject: Subject) -> list[bytes]:
    """The fingerprint that the subject is; empty for other subjects."""
    if subject.kind is not SubjectKind.FINGERPRINT:
        return []
    return [key.low[1:] for query in queries_of(subject) for key in keys_of(query)]


def _with_fingerprints(row: ArchiveRow, found: Sequence[bytes]) -> ArchiveRow:
    """A row of one signer with the fingerprints under which the index names it: its own lack its certificate's key."""
    return replace(row, fingerprints=tuple(dict.fromkeys([*row.fingerprints, *(each.hex() for each in found)])))


def past_of_row(row: ArchiveRow) -> PastSigning:
    """A row as a signing, as far as the archive keeps it, without a verdict."""
    at = row.not_before or row.time or NEVER
    return PastSigning(signing_of_row(row), at, _NO_VERDICT, leaf_hash=row.leaf_hash)


def signing_of_row(row: ArchiveRow) -> Signing:
    """A signing with the values of a row. Claims that are not archived are left out."""
    columns: Sequence[Mapping[str, tuple[str, ...]]] = row.signers or (
        {name: getattr(row, name) for name in (*SIGNER_TEXTS, "fingerprints")},
    )
    signers = tuple(_signer(row, each, chain) for each, chain in zip(columns, row.chains, strict=False))
    times = () if row.time is None else (KnownTime(row.time_source or "", row.time),)
    digests = tuple(Digest(*text.split(":", 1)) for text in row.digests)
    return Signing(EntryRef(row.log, row.index), row.kind, "", signers, digests, times)


def _signer(row: ArchiveRow, columns: Mapping[str, tuple[str, ...]], chain: Chain) -> Signer:
    names = tuple(Name(_form(text), text) for text in columns["identities"])
    claims = {claim: columns[column][0] for column, claim in _CLAIMS.items() if columns[column]}
    uri = next((name.value for name in names if name.form is NameForm.URI), None)
    workflow = next(iter(columns["workflows"]), uri if columns["repositories"] else None)
    if workflow is not None:
        claims["build_config_uri"] = workflow
    if uri is not None and columns["repositories"]:
        claims["build_signer_uri"] = uri
    issuers = columns["issuers"]
    return Signer(
        form=SignerForm.KEY if chain is Chain.KEY else SignerForm.CERTIFICATE,
        names=names,
        issuer=next(iter(issuers), None),
        claims=MappingProxyType(claims | ({"issuer_v1": issuers[1]} if len(issuers) > 1 else {})),
        fingerprints=columns["fingerprints"],
        not_before=row.not_before if len(row.chains) == 1 else None,
        trust=_TRUST[chain],
        only_listed=columns["fingerprints"] if chain is Chain.LISTED else (),
        defects=() if row.defect is None else (f"{row.defect}: could not be read",),
    )


def _form(text: str) -> NameForm:
    if "://" in text:
        return NameForm.URI
    return NameForm.EMAIL if "@" in text else NameForm.OTHER

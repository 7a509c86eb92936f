"""Search of the archive for people: a name or a glob, a login service, a span of time.

Any person can ask. So a search reads a bounded number of search keys in a bounded time, few searches run at once, and
an answer holds a bounded number of rows. All of these bounds are told: `SearchResult` counts the entries that it leaves
out, and its coverage names the entries that were not searched.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from alerts.alert import counted
from monitor.archive.answer import ArchiveRow, LogSearchCoverage, SearchAnswer
from monitor.archive.query import (
    MOST_OF_A_PAGE,
    SECONDS_OF_A_PAGE,
    BadQuery,
    Query,
    guessed_match,
    keys_of,
    read_moment,
    whole_name,
)
from monitor.archive.rows import Chain
from monitor.archive.search import Archive
from monitor.archive.search_index import KeyKind
from monitor.site.archived import is_in_part, queries_of
from monitor.site.rendering import moment, number
from monitor.site.search_form import MalformedSearchForm, SearchForm, SearchHit, SearchResult
from monitor.site.sessions import RequestRefused
from rules.pattern import glob_literals
from rules.subject import MAX_TEXT, NotASubject, SubjectKind, read_subject

_NAMES: Final = frozenset({KeyKind.IDENTITY, KeyKind.REPOSITORY, KeyKind.WORKFLOW})
_LEAST: Final = 3  # characters of a pattern beside its stars
_MOST_STARS: Final = 10
_KINDS: Final = {"hashedrekord": "", "dsse": "attestation", "intoto": "attestation"}
"""Kinds of entries in other words; a signed file goes without saying."""
_SECONDS: Final = SECONDS_OF_A_PAGE
_TRIED: Final = 16  # names of one entry: a certificate may hold thousands
_AT_ONCE: Final = 2
_WAITING: Final = 6  # searches that wait for these
_PATIENCE: Final = 5.0  # seconds for which a search waits


class ArchiveFormSearch:
    """Answers search forms from one archive. Safe to use from several threads."""

    def __init__(self, archive: Archive, clock: Callable[[], datetime]) -> None:
        self._archive, self._clock = archive, clock
        self._room = threading.BoundedSemaphore(_AT_ONCE + _WAITING)
        self._turn = threading.BoundedSemaphore(_AT_ONCE)

    def __call__(self, asked: SearchForm, limit: int) -> SearchResult:
        """The newest `limit` entries that match, and their number.

        Raises `MalformedSearchForm`, `RequestRefused`, `OwnFault`.
        """
        title, queries, within, is_every = self._read(asked)
        first, *also = (replace(each, limit=limit, trusted=None if is_every else True) for each in queries)
        with self._its_turn():
            answer = self._archive.search(first, also=also, within=within, per_day=True)
            rest = None
            if not is_every:
                rest = self._archive.search(replace(first, limit=0, trusted=False), also=also, within=within)
        coverages = [each.coverage for each in (answer, rest) if each is not None]
        return SearchResult(
            title,
            answer,
            0 if rest is None else rest.total,
            any(map(is_in_part, coverages)),
            tuple(map(_hit, answer.rows)),
            tuple(map(_read_of, answer.coverage.logs)),
            _lacking(answer),
            first.since,
            first.until,
        )

    @contextmanager
    def _its_turn(self) -> Iterator[None]:
        if not self._room.acquire(blocking=False):
            raise _busy()
        try:
            if not self._turn.acquire(timeout=_PATIENCE):
                raise _busy()
            try:
                yield
            finally:
                self._turn.release()
        finally:
            self._room.release()

    def _read(self, asked: SearchForm) -> tuple[str, list[Query], list[Query], bool]:
        """Title, queries of the name, queries that restrict it, and whether untrusted signers are shown as well."""
        wrong: dict[str, str] = {}
        repair = ""
        named = _Named("", ())
        try:
            named = _name(asked.name)
        except NotASubject as error:
            wrong["name"], repair = str(error), error.repair
        within: list[Query] = []
        try:
            within = [_issuer(asked.issuer)] if asked.issuer else []
        except BadQuery as error:
            wrong["issuer"] = str(error)
        since, until = self._moment("since", asked.since, wrong), self._moment("until", asked.until, wrong)
        if since is not None and until is not None and since >= until:
            wrong["until"] = f"This is not later than {moment(since)}, so no time lies between the two."
        if wrong:
            raise MalformedSearchForm(wrong, repair)
        queries = [
            replace(each, since=since, until=until, most=MOST_OF_A_PAGE, seconds=_SECONDS) for each in named.queries
        ]
        return named.title, queries, within, asked.every or named.is_of_bytes

    def _moment(self, field: str, text: str, wrong: dict[str, str]) -> datetime | None:
        if not text:
            return None
        try:
            return read_moment(text, self._clock())
        except BadQuery:
            wrong[field] = "That is no time. Write a day such as 2026-01-31, or 30d for 30 days ago."
        return None


def _busy() -> RequestRefused:
    return RequestRefused(
        503, "Busy", "Many people search this archive now. Search again in a few seconds.", retry_after=5
    )


class _Named(Struct, frozen=True):
    """Title and queries of a name. `is_of_bytes` is true for a digest or a fingerprint.

    A key has no certificate, so a search for these is not restricted to trusted certificates.
    """

    title: str
    queries: tuple[Query, ...]
    is_of_bytes: bool = False


def _name(text: str) -> _Named:
    """Read a name or a pattern. Raises `NotASubject`."""
    if "*" not in text:
        subject = read_subject(text)
        of_bytes = subject.kind in {SubjectKind.DIGEST, SubjectKind.FINGERPRINT}
        return _Named(subject.title, tuple(queries_of(subject)), of_bytes)
    given = "".join(text.split())
    if len(text) > MAX_TEXT or not text.isprintable():
        raise NotASubject(f"That is longer than {MAX_TEXT} characters or holds control characters.")
    if given.count("*") > _MOST_STARS:
        raise NotASubject(f"At most {_MOST_STARS} stars can be searched for.")
    if sum(map(len, glob_literals(given))) < _LEAST:
        raise NotASubject(f"Write at least {_LEAST} characters beside the stars.")
    given = f"https://{given[7:]}" if given.lower().startswith("http://") else whole_name(given)
    query = Query(given, _NAMES, guessed_match(given))
    try:
        keys_of(query)
    except BadQuery as error:
        raise NotASubject(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
    return _Named(given.removeprefix("https://"), (query,))


def _issuer(text: str) -> Query:
    """The query for a login service. Raises `BadQuery`."""
    given = "".join(text.split())
    if len(text) > MAX_TEXT or not text.isprintable() or not given:
        raise BadQuery(f"That is empty, longer than {MAX_TEXT} characters, or holds control characters.")
    if given.count("*") > _MOST_STARS:
        raise BadQuery(f"At most {_MOST_STARS} stars can be searched for.")
    if "://" not in given and not given.startswith("*"):
        given = f"https://{given}"
    query = Query(given, frozenset({KeyKind.ISSUER}), guessed_match(given))
    keys_of(query)
    return query


def _hit(row: ArchiveRow) -> SearchHit:
    who = next(iter((*row.identities, *row.fingerprints, *row.digests)), "an entry without a readable signer")
    details = [f"login by {each.removeprefix('https://')}" for each in row.issuers[:1]]
    details += [each.removeprefix("refs/") for each in row.refs[:1] if each not in who]
    details += [f"{row.digests[0][:15]}…{row.digests[0][-4:]}" for _ in row.digests[:1]]
    kind = _KINDS.get(row.kind, row.kind)
    return SearchHit(row, _chain(row), who, (*details, *([kind] if kind else [])), _subject_of(row))


def _chain(row: ArchiveRow) -> str:
    """`trusted`, `key`, `untrusted` or `unverified`: as much as one trusted signer, or else one key, says.

    `unverified` is a certificate whose chain was not checked, or that is not shown to have made the signature.
    """
    words = {Chain.TRUSTED: "trusted", Chain.KEY: "key", Chain.UNTRUSTED: "untrusted"}
    return next((word for chain, word in words.items() if chain in row.chains), "unverified")


def _subject_of(row: ArchiveRow) -> str:
    """A name that `read_subject` reads and that the entry is filed under; empty if the first few are none."""
    fingerprints = (bytes.fromhex(each).hex(":") for each in row.fingerprints[:_TRIED])
    names = (row.repositories, row.identities, row.digests)
    for text in (*(text for each in names for text in each[:_TRIED]), *fingerprints):
        try:
            return read_subject(text).text
        except NotASubject:
            continue
    return ""


def _read_of(log: LogSearchCoverage) -> tuple[str, str, bool]:
    if log.complete:
        said = f"every entry so far, 0 to {number(log.size - 1)}" if log.size else "no entry yet"
    else:
        spans = ", ".join(f"{number(first)} to {number(last - 1)}" for first, last in log.spans) or "none"
        said = f"archived: entries {spans} of {number(log.size)}"
    if log.signed_at is not None:
        said += f"; the log signed this on {moment(log.signed_at)}"
    return log.log, said, not log.complete


def _lacking(answer: SearchAnswer) -> tuple[str, ...]:
    """Sentences about parts of the archive that were not searched, and entries whose names are unknown."""
    lacking = []
    for log in answer.coverage.logs:
        lacking += [
            f"{log.log}: entries {number(first)} to {number(last - 1)} were not searched, because a search may read a "
            "million values and take three seconds. Write more of the beginning of the name, or a shorter time."
            for first, last in log.unsearched
        ]
        lacking += [
            f"{log.log}: entries {number(first)} to {number(last - 1)} could not be searched: a file of the archive is "
            "damaged."
            for first, last, _ in log.damaged
        ]
        if log.unreadable or log.defective:
            lacking.append(
                f"{log.log}: not read: {counted(log.unreadable, 'entry')}, read only in part: {number(log.defective)}. "
                "They may be of any name."
            )
    lacking += [f"{log}: followed, and not archived yet." for log in answer.coverage.missing]
    lacking += [f"{log}: its archive cannot be read now." for log, _ in answer.coverage.unread]
    return tuple(lacking)

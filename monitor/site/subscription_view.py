"""Signings that one subscription saw: as a page, as a stream, as JSON and as CSV."""

import csv
import heapq
import io
import json
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain, groupby, islice
from typing import Any, Final
from urllib.parse import urlencode

from msgspec import Struct

from alerts.alert import counted
from alerts.inert import inert_cell, inert_json
from monitor.site.lookup import SigningRow, rows_of, signing_json
from monitor.site.parts import Site
from monitor.site.rendering import Timeline, plain, timeline
from monitor.store.signings import MAX_COUNTED, LogRead, PastSigning, SigningCursor
from monitor.store.subscribers import Subscription
from rules.learning import in_words
from rules.matching.matcher import PREFIX

PAGE: Final = 60
_CHUNK: Final = 500
_TOGETHER: Final = 1_000
"""Most signings of one moment merged at once: a certificate and the entry made with it have the same time."""
_DRAWN: Final = 1_000
_IN_LIST: Final = 300
"""Most signings of each subscription that a list counts and draws."""
_EXPORT_SECONDS: Final = 45.0
"""Time of one export, within the time that a server gives to an exchange (`ConnectionLimits.exchange`)."""
_CSV: Final = ("signed_at", "outcome", "log", "index", "kind", "identity", "issuer", "what", "reasons", "answer")


class SubscriptionPage(Struct, frozen=True):
    """Signings that one subscription saw: a page of rows, numbers, a picture, and the first entry read of each log.

    `total` and `unexpected` count the newest thousand, without rows the newest 300; `more` is true if others exist.
    `unexpected` leaves out signings that the subscriber confirmed as their own. `older` is the place of the next page.
    """

    subscription: Subscription
    rows: tuple[SigningRow, ...]
    older: SigningCursor | None
    total: int
    unexpected: int
    more: bool
    timeline: Timeline | None
    words: tuple[str, ...]
    coverage: tuple[tuple[LogRead, int | None], ...]
    now: datetime


def seen_by(
    site: Site, subscription: Subscription, limit: int = PAGE, after: SigningCursor | None = None
) -> SubscriptionPage:
    """Contents of one subscription's page: `limit` rows, newest first, older than `after` if given."""
    now = site.clock()
    answers = site.subscribers.answers(subscription.id)
    drawn = _DRAWN if limit else _IN_LIST
    marks = [
        mark
        for rule, since, until in _spans(site, subscription)
        for mark in site.found.marks(rule, since, until, drawn + 1)
    ]
    # A certificate and the entry made with it are one signing. Another entry of that second must not hide a certificate
    # that is not expected.
    entries = [mark for mark in marks if not mark.certificate_log]
    signed = {mark.at for mark in entries}
    wrong = {mark.at for mark in entries if mark.outcome == "unexpected"}
    counted = [
        mark
        for mark in marks
        if not mark.certificate_log or mark.at not in (wrong if mark.outcome == "unexpected" else signed)
    ]
    open_ones = [m for m in counted if m.outcome == "unexpected" and answers.get((m.log, m.index)) is not True]
    rows, older = _page(site, subscription, limit, after) if limit else ([], None)
    offered = site.subscribers.asks.coverage(subscription.change)
    coverage = tuple(
        (log, span[0] if (span := offered.get(log.log)) is not None else None) for log in site.found.logs()
    )
    return SubscriptionPage(
        subscription=subscription,
        rows=tuple(rows),
        older=older,
        total=len(counted),
        unexpected=len(open_ones),
        more=len(marks) > drawn,
        timeline=timeline([(mark.at, mark.outcome) for mark in counted], now, odd="unexpected"),
        words=tuple(in_words(json.loads(subscription.document).get("expect", {}))),
        coverage=coverage,
        now=now,
    )


def _page(
    site: Site, subscription: Subscription, limit: int, after: SigningCursor | None
) -> tuple[list[SigningRow], SigningCursor | None]:
    """At least `limit` rows, up to the end of a moment, so that a certificate and its entry stay on one page."""
    rows: list[SigningRow] = []
    for row in every_row(site, subscription, after, chunk=limit + 1):
        if len(rows) >= limit and (row.at != rows[-1].at or len(rows) >= limit + _TOGETHER):
            return rows, SigningCursor(rows[-1].at, 0, "")
        rows.append(row)
    return rows, None


def every_row(
    site: Site,
    subscription: Subscription,
    after: SigningCursor | None = None,
    *,
    outcome: str | None = None,
    chunk: int = _CHUNK,
) -> Iterator[SigningRow]:
    """Every signing that a subscription saw, newest first, in bounded memory; older than `after` if given."""
    now, answers = site.clock(), site.subscribers.answers(subscription.id)
    streams = [_stream(site, span, after, outcome, chunk) for span in _spans(site, subscription)]
    ordered = heapq.merge(*streams, key=lambda each: (each.at, each.place.index, each.place.log), reverse=True)
    for _, moment in groupby(ordered, key=lambda each: each.at):
        while together := list(islice(moment, _TOGETHER)):
            yield from rows_of(together, None, now, answers)


_Span = tuple[str, datetime, datetime | None]


def _spans(site: Site, subscription: Subscription) -> list[_Span]:
    """Rules of a subscription over time, each with the period in which its findings belong to the subscription."""
    stood = site.subscribers.stood_for(subscription.id)
    ends = [*(since for _, since in stood[1:]), None]
    return [(f"{PREFIX}{ask}", since, until) for (ask, since), until in zip(stood, ends, strict=True)]


def _stream(
    site: Site, span: _Span, after: SigningCursor | None, outcome: str | None, chunk: int
) -> Iterator[PastSigning]:
    rule, since, until = span
    while True:
        page = site.found.of_rule(rule, since, until, limit=chunk, after=after, outcome=outcome)
        yield from page
        if len(page) < chunk:
            return
        after = page[-1].place


def seen_json(seen: SubscriptionPage) -> dict[str, Any]:
    """A subscription's numbers for programs, without the signings."""
    return dict(
        inert_json(
            {
                "id": seen.subscription.id,
                "name": seen.subscription.subject,
                "title": seen.subscription.title,
                "rule": json.loads(seen.subscription.document),
                "created_at": plain(seen.subscription.created_at),
                "coverage": [
                    {"log": log.log, "from": first, "to": log.last, "asked_at": plain(log.at)}
                    for log, first in seen.coverage
                ],
            }
        )
    )


def row_json(row: SigningRow) -> Any:
    """One signing for programs, with the log's text made inert."""
    return inert_json(plain(signing_json(row)))


class SigningsExport:
    """Every signing that a subscription saw, newest first, or older than `after`, for a file of any length.

    A server ends an exchange after its time, in the middle of an answer. So an export ends by itself before, at the end
    of a moment: the file then tells its cut, and where the next file begins. `is_whole` is true after the last piece of
    a whole file.
    """

    def __init__(self, site: Site, subscription: Subscription, after: SigningCursor | None = None) -> None:
        self._site, self._subscription, self._after = site, subscription, after
        self._written = 0
        self._older: SigningCursor | None = None
        self.is_whole = False

    def as_json(self) -> Iterator[str]:
        """One JSON document in pieces. `cut` is its last key: null, or the end of a file that is not whole."""
        head = json.dumps(seen_json(seen_by(self._site, self._subscription, limit=0)), indent=1)
        yield head.removesuffix("\n}") + ',\n "signings": ['
        between = "\n"
        for row in self._rows():
            yield between + "  " + json.dumps(row_json(row))
            between = ",\n"
        yield f'\n ],\n "cut": {json.dumps(self._cut("json"))}\n}}\n'
        self.is_whole = self._older is None

    def as_csv(self) -> Iterator[str]:
        """CSV in pieces. The last line of a file that is not whole is a sentence in the first column."""
        for cells in chain([_CSV], map(_cells, self._rows())):
            yield _csv_line(cells)
        if (cut := self._cut("csv")) is not None:
            least = "at least " if cut["left_out"] >= MAX_COUNTED else ""
            told = (
                f"CUT: an export may take {_EXPORT_SECONDS:g} seconds. "
                f"This file holds {counted(cut['written'], 'signing')}; "
                f"{least}{counted(cut['left_out'], 'older entry')} left out. The next file: {cut['next']}"
            )
            yield _csv_line([told])
        self.is_whole = self._older is None

    def _rows(self) -> Iterator[SigningRow]:
        ends, last = time.monotonic() + _EXPORT_SECONDS, None
        for row in every_row(self._site, self._subscription, self._after):
            if last is not None and row.at != last and time.monotonic() > ends:
                self._older = SigningCursor(last, 0, "")
                return
            yield row
            self._written, last = self._written + 1, row.at

    def _cut(self, kind: str) -> dict[str, Any] | None:
        """Numbers of a cut file, and the path of the next one; `None` for a whole file."""
        older = self._older
        if older is None:
            return None
        spans = _spans(self._site, self._subscription)
        behind = sum(self._site.found.behind(*span, older) for span in spans)
        path = f"/subscriptions/{self._subscription.id}/signings.{kind}?{urlencode({'before': str(older)})}"
        return {"written": self._written, "left_out": behind, "next": self._site.url(path)}


def _csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


def _cells(row: SigningRow) -> list[str]:
    """Cells of one row. An apostrophe precedes text that a spreadsheet would run as a formula."""
    document = signing_json(row)
    names = [name for signer in document["signers"] for name in signer["names"]]
    issuers = [signer["issuer"] for signer in document["signers"] if signer["issuer"]]
    reasons = "; ".join(f"{each['what']}: {each['found']}" for each in document["reasons"])
    cells = (
        plain(row.at),
        row.outcome,
        row.log,
        str(row.index),
        document["kind"],
        " ".join(names),
        " ".join(issuers),
        row.what,
        reasons,
        document["answer"] or "",
    )
    return [inert_cell(_cell(cell)) for cell in cells]


def _cell(value: Any) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in str(value))

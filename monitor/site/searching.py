"""The public search: its page, the picture of entries a day, and the found rows as JSON and CSV."""

from collections.abc import Mapping
from datetime import date
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from msgspec.structs import replace

from alerts.alert import counted
from alerts.inert import inert_json
from monitor.archive.histogram import HistogramBars, as_svg, bars_of
from monitor.site.parts import Site
from monitor.site.rendering import Bar, Timeline
from monitor.site.search_form import MalformedSearchForm, SearchForm, SearchResult
from monitor.site.sessions import RequestRefused

SHOWN: Final = 50
MOST_ROWS: Final = 1_000
"""Rows of one JSON or CSV file."""
_WIDTH, _HEIGHT, _GROUND = 780, 132, 104
NO_ARCHIVE: Final = "This site keeps no archive, so it looks up whole names only: no part of a name, no span of time."
"""Reason why a search is refused."""


def router(site: Site) -> APIRouter:
    """Routes of the search."""
    routes = APIRouter()

    @routes.get("/search")
    def search(request: Request) -> HTMLResponse:
        asked = asked_of(request)
        try:
            return search_page(site, request, asked, found=_found(site, request, asked, SHOWN) if asked.name else None)
        except MalformedSearchForm as error:
            return search_page(site, request, asked, status=400, wrong=error.wrong, repair=error.repair)
        except RequestRefused as refused:
            return search_page(site, request, asked, refused=refused)

    @routes.get("/search.json")
    def as_json(request: Request) -> Response:
        asked = asked_of(request)
        try:
            return JSONResponse(_document(asked, _found(site, request, asked, MOST_ROWS)))
        except MalformedSearchForm as error:
            return JSONResponse({"error": "wrong fields", "fields": error.wrong, "repair": error.repair}, 400)
        except RequestRefused as refused:
            body = {"error": refused.title, "detail": refused.message}
            return JSONResponse(body, refused.status, headers=_again(refused))

    @routes.get("/search.csv")
    def as_csv(request: Request) -> Response:
        return _file(site, request, _csv)

    @routes.get("/search.svg")
    def as_picture(request: Request) -> Response:
        return _file(site, request, _svg)

    return routes


def asked_of(request: Request) -> SearchForm:
    """The form in the parameters of a request."""
    fields = {name: request.query_params.get(name, "").strip() for name in ("name", "issuer", "since", "until")}
    return SearchForm(**fields, every=bool(request.query_params.get("every")))


def search_page(
    site: Site,
    request: Request,
    asked: SearchForm,
    *,
    status: int = 200,
    found: SearchResult | None = None,
    wrong: Mapping[str, str] | None = None,
    repair: str = "",
    refused: RequestRefused | None = None,
) -> HTMLResponse:
    """The page with the filled form, and an answer, wrong fields or a refusal."""
    drawn = None if found is None else _drawn(found)
    page = site.page(
        request,
        "search",
        status=status if refused is None else refused.status,
        asked=asked,
        found=found,
        timeline=drawn,
        outside="" if found is None else ". ".join(bars_of(found.answer.per_day).outside()),
        link=urlencode(asked.values()),
        every_link=urlencode(asked.values() | {"every": "1"}),
        wide_link=urlencode(replace(asked, issuer="", since="", until="").values()),
        most=MOST_ROWS,
        wrong=wrong or {},
        repair=repair,
        refused="" if refused is None else refused.message,
    )
    page.headers.update({} if refused is None else _again(refused))
    return page


def _found(site: Site, request: Request, asked: SearchForm, limit: int) -> SearchResult:
    if site.search is None:
        raise RequestRefused(404, "No archive", NO_ARCHIVE)
    site.limits.search(site.door.client(request))
    return site.search(asked, limit)


def _again(refused: RequestRefused) -> dict[str, str]:
    return {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}


def _file(site: Site, request: Request, made: Any) -> Response:
    """A file of the answer; the page with the form where there is none."""
    asked = asked_of(request)
    try:
        response: Response = made(_found(site, request, asked, MOST_ROWS))
    except MalformedSearchForm as error:
        return search_page(site, request, asked, status=400, wrong=error.wrong, repair=error.repair)
    except RequestRefused as refused:
        return search_page(site, request, asked, refused=refused)
    return response


def _csv(found: SearchResult) -> Response:
    from monitor.archive.csv_rows import CSV_HEAD, csv_line  # noqa: PLC0415  imports pyarrow

    answer = found.answer
    # A table has no place for numbers about itself: the name of the file and the headers tell of a cut.
    is_whole = answer.coverage.complete
    count = f"newest-{len(answer.rows)}-of-{answer.total}" if answer.cut else f"{'all-' * is_whole}{answer.total}"
    count += "" if is_whole else "-of-the-searched-entries"
    headers = {
        "Content-Disposition": f'attachment; filename="signwatch-{count}.csv"',
        "X-Signwatch-Matches": str(answer.total),
        "X-Signwatch-Left-Out": str(answer.cut),
        "X-Signwatch-Unvouched": str(found.unvouched),
        "X-Signwatch-Coverage": "complete" if is_whole else "partial",
    }
    text = CSV_HEAD + "".join(map(csv_line, answer.rows))
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)


def _svg(found: SearchResult) -> Response:
    headers = {"Content-Disposition": 'attachment; filename="signwatch-entries.svg"'}
    title = f"Entries by {bars_of(found.answer.per_day).unit}"
    title += "" if found.answer.coverage.complete else ": only the searched entries are counted"
    return Response(as_svg(found.answer.per_day, title), media_type="image/svg+xml", headers=headers)


def _document(asked: SearchForm, found: SearchResult) -> dict[str, Any]:
    answer = found.answer
    document: dict[str, Any] = {
        "asked": asked.values(),
        "total": answer.total,
        "left_out": answer.cut,
        "unvouched": found.unvouched,
        "without_time": answer.timeless,
        "coverage": answer.coverage.document(),
    }
    # Lists inside a row are cut as in alerts; the list of rows is not.
    rows = [inert_json(row.document()) for row in answer.rows]
    return {**inert_json(document), "rows": rows, "per_day": {f"{at}": count for at, count in answer.per_day.items()}}


def _drawn(found: SearchResult) -> Timeline | None:
    """Entries by day, week, month or year; `None` when they have less than two days."""
    bars = bars_of(found.answer.per_day)
    return _timeline(bars, found.answer.per_day) if len(found.answer.per_day) > 1 else None


def _timeline(bars: HistogramBars, per_day: Mapping[date, int]) -> Timeline:
    most = max(count for _, count in bars.bars)
    pitch = _WIDTH / max(12, len(bars.bars))
    drawn = []
    for place, (begin, count) in enumerate(bars.bars):
        if count:
            height = round(max(4.0, count / most * (_GROUND - 14)), 1)
            parts = (("found", round(_GROUND - height, 1), height),)
            drawn.append(Bar(round(place * pitch, 1), round(max(3.0, pitch - 3), 1), parts, f"{begin}: {count}"))
    first = bars.bars[0][0] if bars.earlier else min(per_day)
    last = bars.bars[-1][0] if bars.later else max(per_day)
    total = sum(count for _, count in bars.bars)
    ends = f"{first:%-d %b %Y}", f"{last:%-d %b %Y}"
    ticks = ((0.0, "start", ends[0]), (float(_WIDTH), "end", ends[1]))
    summary = (
        f"{counted(total, 'entry')} from {ends[0]} to {ends[1]}, by {bars.unit}; at most {most} in one {bars.unit}."
    )
    return Timeline(tuple(drawn), ticks, bars.unit, summary, _WIDTH, _HEIGHT, _GROUND)

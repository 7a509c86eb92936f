"""Public pages: the search field, the answer about a name, one signing, and the explanation of the site."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from alerts.inert import inert_json
from monitor.site.lookup import (
    SHOWN,
    NameReport,
    SigningRow,
    covers,
    headline,
    headline_detail,
    look,
    rows_of,
    signing_json,
)
from monitor.site.parts import Site
from monitor.site.rendering import plain
from monitor.site.search_form import SearchForm
from monitor.site.searching import NO_ARCHIVE, asked_of
from monitor.site.sessions import RequestRefused
from monitor.store.signings import PastSigning, SigningCursor
from rules.learning import ProposedExpectation
from rules.subject import MAX_TEXT, NotASubject, Subject, read_subject

Name = Annotated[str, Query(max_length=MAX_TEXT)]
Before = Annotated[str, Query(max_length=250)]
_PAGE: Final = 100


def router(site: Site) -> APIRouter:  # noqa: C901  a list of routes
    """Routes of the public pages."""
    routes = APIRouter()

    @routes.get("/")
    def front(request: Request) -> HTMLResponse:
        return _front(site, request, SearchForm())

    @routes.get("/look")
    def looked_up(request: Request, name: Name = "", everything: str = "", before: Before = "") -> Response:
        asked = asked_of(request)
        if site.search is not None and asked.is_narrowed:
            return RedirectResponse(f"/search?{urlencode(asked.values())}", status_code=303)
        try:
            subject = read_subject(name)
        except NotASubject as wrong:
            return _front(site, request, asked, wrong)
        if subject.text != name or "issuer" in request.query_params:
            return RedirectResponse(f"/look?{_query(subject)}{'&everything=1' if everything else ''}", status_code=303)
        looked = look(site.past, subject, site.clock())
        rows, older = _behind(site, looked, before)
        if not before and not everything:
            rows, older = looked.trusted[:SHOWN], None
        shown = identity_values(looked) | {"shown": rows, "older": older, "is_older": bool(before)}
        shown |= {"deepest": site.past.deepest}
        return site.page(request, "identity", **shown, given=subject.text)

    @routes.get("/look.json")
    def looked_up_json(name: Name = "", before: Before = "") -> Response:
        try:
            subject = read_subject(name)
        except NotASubject as wrong:
            detail = {"error": "not a name", "detail": str(wrong), "repair": wrong.repair}
            return JSONResponse(detail, status_code=400)
        return JSONResponse(looked_json(site, look(site.past, subject, site.clock()), before))

    @routes.get("/signing")
    def one_signing(
        request: Request, name: Name, log: Annotated[str, Query(max_length=200)], index: int
    ) -> HTMLResponse:
        subject, row, found = _one(site, name, log, index)
        return site.page(
            request,
            "signing",
            subject=subject,
            row=row,
            raw=json.dumps(inert_json(plain(signing_json(row))), indent=2, ensure_ascii=True),
            leaf=found.leaf,
            given=subject.text,
        )

    @routes.get("/signing.bin")
    def raw_entry(name: Name, log: Annotated[str, Query(max_length=200)], index: int) -> Response:
        _, _, found = _one(site, name, log, index)
        if not found.leaf:
            raise RequestRefused(
                404, "Not kept", f"This site knows what entry {index} of {log} says, and keeps no copy of it."
            )
        headers = {"Content-Disposition": f'attachment; filename="entry-{index}.bin"'}
        return Response(found.leaf, media_type="application/octet-stream", headers=headers)

    for path, template in (("/how", "how"), ("/abuse", "abuse")):
        _add_page(routes, site, path, template)

    @routes.get("/privacy")
    def privacy(request: Request) -> HTMLResponse:
        text = ""
        if site.config.privacy_file is not None:
            text = site.config.privacy_file.read_text(encoding="utf-8")[:20_000]
        return site.page(request, "privacy", text=text)

    return routes


def _front(site: Site, request: Request, asked: SearchForm, wrong: NotASubject | None = None) -> HTMLResponse:
    """The front page, with the reason why a name cannot be looked up."""
    message = "" if wrong is None else str(wrong)
    if message and asked.is_narrowed:
        message = NO_ARCHIVE
    return site.page(
        request,
        "front",
        status=400 if wrong is not None and asked.name else 200,
        logs=site.past.logs(),
        source=site.past.source,
        asked=asked,
        wrong={"name": message} if message and asked.name else {},
        repair="" if wrong is None else wrong.repair,
    )


def _add_page(routes: APIRouter, site: Site, path: str, template: str) -> None:
    @routes.get(path)
    def page(request: Request) -> HTMLResponse:
        return site.page(request, template)


def identity_values(looked: NameReport) -> dict[str, Any]:
    """Contents of the page about a name."""
    title, tone, mark = headline(looked)
    return {
        "looked": looked,
        "subject": looked.subject,
        "headline": title,
        "tone": tone,
        "mark": mark,
        "detail": headline_detail(looked),
        "covers": covers(looked),
    }


def _behind(site: Site, looked: NameReport, before: str) -> tuple[Sequence[SigningRow], SigningCursor | None]:
    """A page of vouched signings in a name, and the place of the next page; the first page holds the compared rows."""
    after = SigningCursor.read(before)
    if after is None:
        return looked.trusted, looked.last
    found = site.past.older(looked.subject, after, _PAGE + 1)
    if len(found) <= _PAGE:
        return rows_of(found, looked.rule, looked.now), None
    # The page ends with the last signing of a moment, unless the whole page is of one moment.
    cut = next((place for place in range(_PAGE, 0, -1) if found[place].at != found[place - 1].at), _PAGE)
    return rows_of(found[:cut], looked.rule, looked.now), found[cut - 1].place


def part_json(part: ProposedExpectation) -> dict[str, Any]:
    """One part of an expectation for programs: `seen` of the `of` signings meet it."""
    return {"key": part.key, "expect": part.expect, "words": part.sentence, "seen": part.seen, "of": part.past}


def looked_json(site: Site, looked: NameReport, before: str = "") -> dict[str, Any]:
    """The answer about a name for programs. `older` is the value of `before` for the next page."""
    rows, older = _behind(site, looked, before)
    document: dict[str, Any] = {
        "name": looked.subject.text,
        "kind": looked.subject.kind.value,
        "source": looked.source,
        "total": looked.total,
        "unverified": looked.unverified,
        "at_least": looked.is_lower_bound,
        "suggested": [part_json(part) for part in looked.parts],
        "older": None if older is None else str(older),
        "covers": [
            {"log": log.log, "from": log.first, "to": log.last, "asked_at": plain(log.at)} for log in looked.logs
        ],
        "lacks": list(looked.lacks),
    }
    signings = [plain(signing_json(row)) for row in (rows if before else (*rows, *looked.others))]
    return dict(inert_json(document | {"signings": signings}))


def _one(site: Site, name: str, log: str, index: int) -> tuple[Subject, SigningRow, PastSigning]:
    """A signing in the name; other entries of the log are refused."""
    try:
        subject = read_subject(name)
    except NotASubject as wrong:
        raise RequestRefused(400, "Not a name", str(wrong)) from None
    looked = look(site.past, subject, site.clock())
    row = next((each for each in looked.rows if (each.log, each.index) == (log, index)), None)
    past = next((e for e in looked.found if (e.signing.where.log, e.signing.where.index) == (log, index)), None)
    if past is None and 0 <= index < 2**62:
        past = site.past.entry(subject, log, index)
    if row is None and past is not None:
        row = rows_of([past], looked.rule, looked.now)[0]
    if row is None or past is None:
        raise RequestRefused(
            404, "No such signing", "No signing in this name stands there, as far as this site has looked."
        )
    return subject, row, past


def _query(subject: Subject) -> str:
    return urlencode({"name": subject.text})

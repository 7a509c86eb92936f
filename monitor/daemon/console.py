"""The operator's pages behind the overview: alerts, rules, logs, signings, evidence, search, explanations. Read only.

The state of a log (`lied`, `outage`, `ill`, `warn`, `good`) comes from `monitor.daemon.status`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import HTMLResponse
from markupsafe import Markup
from msgspec import Struct

from alerts.inert import inert_json
from monitor.archive.histogram import as_svg
from monitor.daemon.pages import bars, environment, explanation
from monitor.daemon.status import Status
from monitor.model.errors import OwnFault
from monitor.store.events import Events, FindingFilter
from monitor.store.history import History, pauses
from monitor.store.patterns import Patterns
from monitor.store.reading import AlertsAbout, KeptEvidence, Reading
from monitor.store.store import Store
from rules.rule import Rule

_DAYS: Final = 30
_EVENTS: Final = 20
_ALERTS: Final = 50
_HEADS: Final = 10
_PAUSES: Final = 20
_ROWS: Final = 50
_RULES: Final = 500
_LONGEST_QUERY: Final = 500
_LONGEST_TIME: Final = 40
_LEAST_PREFIX: Final = 6
_MOST_ENTRIES: Final = 1 << 62
_EVIDENCE_BYTES: Final = 32 << 20
_Page = dict[str, Any]


ArchiveSearch = Callable[[str, str, str, int], Any]
"""The archive's `SearchAnswer` to a text, since, until and a limit of rows, as `signwatch search` reads them.

Raises `OwnFault` when it cannot be read, `ValueError` for a wrong text or time.
"""


class Console(Struct, frozen=True):
    """Sources of the pages' contents. `search` is `None` without a configured archive."""

    store: Store
    look: Callable[[], tuple[Status, _Page]]
    rules: Callable[[], Sequence[Rule]]
    clock: Callable[[], datetime]
    search: ArchiveSearch | None = None


def console_router(console: Console) -> APIRouter:
    """Every page but those of single alerts (`monitor.daemon.alert_pages`)."""
    router, pages = APIRouter(), _Pages(console)
    for path, page in (
        ("/alerts", pages.alerts),
        ("/rules", pages.rules),
        ("/rules/{rule:path}", pages.rule),
        ("/logs/{log:path}", pages.log),
        ("/signings/{log:path}/{index}", pages.signing),
        ("/evidence/{piece}.json", pages.evidence_file),
        ("/evidence/{piece}", pages.evidence),
        ("/search", pages.search),
        ("/explain/{folder}/{name}", pages.explain),
    ):
        router.add_api_route(path, page, methods=["GET"], response_class=HTMLResponse)
    return router


class _Pages:
    """One method for each page. A page about an unknown object is 404."""

    def __init__(self, console: Console) -> None:
        self._console = console
        database = console.store.database
        self._reading, self._events, self._history = Reading(database), Events(database), History(database)

    def alerts(self, *, every: bool = False) -> Response:
        kept = self._reading.alerts(_ALERTS + 1, open_only=not every)
        return self._html("alerts.html.j2", alerts=kept[:_ALERTS], every=every, is_cut=len(kept) > _ALERTS)

    def rules(self) -> Response:
        known, counts = self._console.rules(), self._events.by_rule()
        gone = sorted(set(counts) - {rule.id for rule in known})[:_RULES]
        return self._html("rules.html.j2", rules=known[:_RULES], total=len(known), counts=counts, gone=gone)

    def rule(self, rule: str) -> Response:
        known = next((each for each in self._console.rules() if each.id == rule), None)
        counts = self._events.by_rule().get(rule)
        alerts = self._reading.alerts(_EVENTS, about=AlertsAbout(rule=rule))
        if known is None and counts is None and not alerts:
            raise _unknown("rule", rule)
        wanted = FindingFilter(rule=rule)
        offered = [] if known is None else self._offered(known)
        return self._html(
            "rule.html.j2",
            id=rule,
            rule=known,
            events=self._events.newest(_EVENTS, wanted),
            counts=self._events.count(wanted),
            found=self._days(self._events.per_day(FindingFilter(rule=rule, begin=self._month()))),
            alerts=alerts,
            offered=offered,
            patterns=Patterns(self._console.store.database).all(rule=rule)[:_ROWS],
        )

    def log(self, log: str) -> Response:
        now, month = self._console.clock(), self._month()
        whole, document = self._console.look()
        status = next((each for each in document["logs"] if each["name"] == log), None)
        heads = self._history.heads(log, _HEADS)
        if status is None and not heads:
            raise _unknown("log", log)
        days = self._history.days(log, month.date(), now.date())
        longest_pause = next((each.longest_pause for each in whole.logs if each.name == log), timedelta())
        spans = self._history.spans(log, month, now, now, longest_pause)
        missed = list(pauses(spans, spans[0].began, now, None)) if spans else []
        return self._html(
            "log.html.j2",
            name=log,
            log=status,
            entries=self._days({each.day: each.last - each.first for each in days}),
            lags=self._days({each.day: each.lag for each in days}),
            found=self._days(self._events.per_day(FindingFilter(log=log, begin=month))),
            pauses=sorted(missed, key=lambda each: each.began, reverse=True)[:_PAUSES],
            pause_count=len(missed),
            heads=heads,
            head_count=self._history.head_count(log),
            evidence=self._evidence_of(log),
            events=self._events.newest(_EVENTS, FindingFilter(log=log)),
            alerts=self._reading.alerts(_EVENTS, about=AlertsAbout(log=log)),
        )

    def signing(self, log: str, index: int) -> Response:
        is_index = 0 <= index < _MOST_ENTRIES
        found = self._events.newest(_EVENTS, FindingFilter(log=log, index=index)) if is_index else []
        alerts = self._reading.alerts(_EVENTS, about=AlertsAbout(log=log, index=index)) if is_index else []
        if not found and not alerts:
            raise _unknown("finding", f"{log}:{index}")
        shown = found[0].worst if found else None
        signing = inert_json(shown.signing) if shown is not None else None
        return self._html(
            "signing.html.j2", log=log, index=index, events=found, signing=signing, found=shown, alerts=alerts
        )

    def evidence(self, piece: str) -> Response:
        kept = self._piece(piece)
        return self._html("evidence.html.j2", piece=kept, document=inert_json(dict(kept.document)))

    def evidence_file(self, piece: str) -> Response:
        kept = self._piece(piece)
        text = json.dumps(kept.document, indent=2) + "\n"
        if len(text) > _EVIDENCE_BYTES:
            raise HTTPException(413, f"export it with `signwatch evidence export {kept.id[:12]}`: it is too large")
        name = f"attachment; filename=evidence-{kept.id[:12]}.json" if kept.id[:12].isalnum() else "attachment"
        return Response(text, media_type="application/json", headers={"Content-Disposition": name})

    def search(self, q: str = "", since: str = "", until: str = "") -> Response:
        text = q.strip()[:_LONGEST_QUERY]
        if not text:
            return self._html("search.html.j2", q="", searched=False)
        since, until = since.strip()[:_LONGEST_TIME], until.strip()[:_LONGEST_TIME]
        _, document = self._console.look()
        answer, trouble = self._archived(text, since, until)
        is_id = len(text) >= _LEAST_PREFIX
        return self._html(
            "search.html.j2",
            q=text,
            since=since,
            until=until,
            searched=True,
            logs=[each["name"] for each in document["logs"] if text.lower() in each["name"].lower()],
            rules=[each for each in self._console.rules() if text.lower() in f"{each.id} {each.title}".lower()][
                :_EVENTS
            ],
            alerts=self._reading.alerts(_EVENTS, prefix=text) if is_id else [],
            evidence=self._reading.evidence(_EVENTS, prefix=text) if is_id else [],
            events=self._events.newest(_EVENTS, FindingFilter(name=text)),
            has_archive=self._console.search is not None,
            answer=answer,
            # Drawn by our own code: numbers, dates, and a title of ours.
            picture=Markup(as_svg(answer.per_day, "Entries a day")) if answer and answer.per_day else "",  # noqa: S704
            trouble=trouble,
        )

    def explain(self, folder: str, name: str) -> Response:
        text = explanation(folder, name)
        if text is None:
            raise _unknown("explanation", f"{folder}/{name}")
        # Signwatch's own documentation, rendered without raw HTML.
        return self._html("explain.html.j2", text=Markup(text), name=name)  # noqa: S704

    def _archived(self, text: str, since: str, until: str) -> tuple[Any, str]:
        if self._console.search is None:
            return None, ""
        try:
            return self._console.search(text, since, until, _ROWS), ""
        except (OwnFault, ValueError) as error:
            return None, str(error)

    def _offered(self, rule: Rule) -> list[tuple[str, tuple[tuple[int, int], ...], int]]:
        """Entries that a rule was offered: log, ranges, and the number of followed entries that it lacks."""
        found = []
        for log, followed in sorted(self._reading.followed().items()):
            coverage = self._console.store.coverage.of_rule(log, rule.id, rule.selection_id())
            lacks = coverage.missing(followed.baseline_size, followed.position.frontier.size)
            found.append((log, coverage.ranges[-5:], sum(last - first for first, last in lacks)))
        return found

    def _evidence_of(self, log: str) -> list[Any]:
        return [each for each in self._reading.open_evidence(_ROWS) if each.log in {log, log.partition("/")[0]}]

    def _piece(self, piece: str) -> KeptEvidence:
        found = [each for each in self._reading.evidence(2, prefix=piece) if each.id == piece]
        if not found:
            raise _unknown("evidence", piece)
        return found[0]

    def _month(self) -> datetime:
        now = self._console.clock()
        return now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=_DAYS - 1)

    def _days(self, values: Mapping[Any, int]) -> list[tuple[str, int]]:
        return bars(values, self._month().date(), self._console.clock().date())

    def _html(self, template: str, **values: Any) -> Response:
        page = environment().get_template(template)
        text = page.render(now=self._console.clock(), open_alerts=sum(self._reading.open_alerts().values()), **values)
        return HTMLResponse(text)


def _unknown(what: str, name: str) -> HTTPException:
    return HTTPException(404, f"there is no {what} {name[:200]!r}")

"""An alert as text, as an HTML page and as JSON. Users may use their own text and HTML templates."""

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from alerts.alert import Alert, rfc3339
from alerts.inert import inert_json
from alerts.links import NO_LINKS, Links
from alerts.page import Page, page_of
from alerts.user_template import TemplateFailed, UserTemplate

SCHEMA: Final = "signwatch-alert/1"
"""Name and version of the document that programs get: `docs/schemas/signwatch-alert-1.json`."""
_TEMPLATES: Final = Path(__file__).parent / "templates"
_MAX_LABEL: Final = 28
_MAX_ROWS: Final = 64


@cache
def _template(name: str) -> Any:
    # Most commands and most passes render no alert, so Jinja2 is imported late.
    from jinja2 import FileSystemLoader, StrictUndefined  # noqa: PLC0415
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


class Renderer(Struct, frozen=True):
    """Renders alerts, with the user's templates if there are any. `links` are the addresses for messages.

    If a user template fails, floods or stalls, the built-in page is used, with a note of the reason.
    """

    text_template: UserTemplate | None = None
    html_template: UserTemplate | None = None
    links: Links = NO_LINKS

    def page(self, alert: Alert, key: str, note: str = "") -> Page:
        """The content of a message, before a channel formats it."""
        return page_of(alert, key, note, self.links)

    def subject(self, alert: Alert, key: str) -> str:
        """One line for a subject or heading."""
        return self.page(alert, key).heading

    def text(self, alert: Alert, key: str) -> str:
        """The page as plain text, ending in a newline."""
        page = self.page(alert, key)
        if self.text_template is not None:
            try:
                return self.text_template.render(page)
            except TemplateFailed as failed:
                page = self.page(alert, key, note=str(failed))
        return text_page(page)

    def html(self, alert: Alert, key: str) -> str:
        """The page as one HTML document without a script or remote image. Links lead to this installation only."""
        page = self.page(alert, key)
        if self.html_template is not None:
            try:
                return self.html_template.render(page)
            except TemplateFailed as failed:
                page = self.page(alert, key, note=str(failed))
        return html_page(page)

    def document(self, alert: Alert, key: str) -> dict[str, Any]:
        """The alert for programs, as `json_document` makes it."""
        return json_document(alert, key, self.links)

    def line(self, alert: Alert, key: str) -> str:
        """One line of ASCII JSON. Control and bidi characters are escapes: a terminal shows them without effect."""
        return json.dumps(self.document(alert, key), ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def text_page(page: Page) -> str:
    """The built-in plain text page."""
    rows = [*page.facts, *(fact for section in page.claims for fact in section.facts)]
    width = min(_MAX_LABEL, max((len(label) for label, _ in rows), default=0))
    return str(_template("page.txt.j2").render(page=page, label_width=width))


def html_page(page: Page) -> str:
    """The built-in HTML page."""
    return str(_template("page.html.j2").render(page=page))


def json_document(alert: Alert, key: str, links: Links = NO_LINKS) -> dict[str, Any]:
    """The alert for programs, as `docs/schemas/signwatch-alert-1.json` describes it; long texts and lists are cut."""
    groups = {"event": _object(alert.facts)} if alert.facts else {}
    groups |= {_key(group.name): _object(group.facts) for group in alert.groups}
    document = {
        "schema": SCHEMA,
        "id": alert.id,
        "key": key,
        "kind": alert.kind,
        "owner": alert.owner.value,
        "severity": alert.severity.value,
        "created_at": rfc3339(alert.created_at),
        "title": alert.title,
        "summary": alert.summary,
        "consequence": alert.consequence,
        "next_step": alert.next_step,
        "reasons": list(alert.reasons),
        "identity": alert.identity,
        "rule": alert.rule,
        "log": alert.log,
        "index": alert.index,
        "link": links.page(alert) or None,
        "proof": links.proof(alert) or None,
        "evidence": links.evidence(alert) or None,
        "explanation": links.explanation(alert) or None,
        "facts": groups,
    }
    made: dict[str, Any] = inert_json(document)
    return made


def _object(facts: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Rows as an object: every value of a label, in order."""
    found: dict[str, list[str]] = {}
    for label, value in list(facts)[:_MAX_ROWS]:
        found.setdefault(_key(label), []).append(value)
    return found


def _key(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")[:60] or "other"

"""An alert as text, as an HTML page and as JSON. Users may bring their own text and HTML templates."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from alerts.alert import Alert
from alerts.inert import inert_json
from alerts.page import Page, page_of
from alerts.user_template import TemplateFailed, UserTemplate

_TEMPLATES: Final = Path(__file__).parent / "templates"
_COLOURS: Final = {"page": "#cf222e", "warn": "#bf8700", "info": "#0969da"}
_MAX_LABEL: Final = 28


def _environment(*, autoescape: bool) -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


_TEXT: Final = _environment(autoescape=False).get_template("page.txt.j2")
_HTML: Final = _environment(autoescape=True).get_template("page.html.j2")


@dataclass(frozen=True, slots=True)
class Renderer:
    """Renders alerts, with the user's templates where there are any.

    A user template that fails, floods or stalls costs its own page, never the alert: the built-in page is used, with a
    note that says why.
    """

    text_template: UserTemplate | None = None
    html_template: UserTemplate | None = None

    def subject(self, alert: Alert, key: str) -> str:
        """One line for a subject or heading."""
        return page_of(alert, key).heading

    def text(self, alert: Alert, key: str) -> str:
        """The page as plain text, ending in a newline."""
        page = page_of(alert, key)
        if self.text_template is not None:
            try:
                return self.text_template.render(page)
            except TemplateFailed as failed:
                page = page_of(alert, key, note=str(failed))
        return text_page(page)

    def html(self, alert: Alert, key: str) -> str:
        """The page as one HTML document without a link, script or remote image."""
        page = page_of(alert, key)
        if self.html_template is not None:
            try:
                return self.html_template.render(page)
            except TemplateFailed as failed:
                page = page_of(alert, key, note=str(failed))
        return _HTML.render(page=page, colour=_COLOURS[page.severity])


def text_page(page: Page) -> str:
    """The built-in plain text page."""
    width = min(_MAX_LABEL, max((len(label) for label, _ in page.facts), default=0))
    return _TEXT.render(page=page, label_width=width)


def json_document(alert: Alert, key: str) -> dict[str, Any]:
    """The alert for programs: `Alert.to_json` with the idempotency key, long texts and lists cut."""
    document: dict[str, Any] = inert_json(alert.to_json())
    document["key"] = inert_json(key)
    return document


def json_line(alert: Alert, key: str) -> str:
    """One line of ASCII JSON: a control or bidi character is an escape, so a terminal shows it and obeys nothing."""
    return json.dumps(json_document(alert, key), ensure_ascii=True, separators=(",", ":"), allow_nan=False)

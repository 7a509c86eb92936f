"""`signwatch report`: logs watched, findings and alerts of a period, for records and as proof."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from alerts.alert import counted, exactly, rfc3339
from alerts.inert import inert_line
from monitor.commands.report_document import ReportPeriod, report_document
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, note
from monitor.config import load_config
from monitor.model.errors import OwnFault
from monitor.program import utc_now
from monitor.store.database import open_database
from monitor.store.store import Store

_TEMPLATES: Final = Path(__file__).parent / "templates"
_LONGEST: Final = 500
_LONGEST_HEAD: Final = 200_000
_WEEK: Final = timedelta(days=7)
_PUNCTUATION: Final = frozenset("\\`*_{}[]<>()#+-.!|&~@:")
TROUBLES: Final = {
    "log-misbehaved": "the log broke a promise",
    "could-not-ask": "the log could not be asked",
    "ourselves": "Signwatch had a fault",
    "not-running": "no pass was tried: Signwatch was not running",
}
_TROUBLE_CLASSES: Final = {"log-misbehaved": "bad", "could-not-ask": "warn", "ourselves": "ill", "not-running": "ill"}


class ReportFormat(StrEnum):
    """Format of a report."""

    HTML = "html"
    MARKDOWN = "markdown"
    JSON = "json"


def report(
    begin: Annotated[
        str | None,
        typer.Option("--from", help="First moment, RFC 3339 or a date (UTC); a week before the end by default."),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="Moment after the last, RFC 3339 or a date (UTC); now by default.")
    ] = None,
    form: Annotated[
        ReportFormat | None, typer.Option("--format", help="html, markdown or json; by the file's name by default.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; standard output by default.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Report on a period: logs, ranges, signed heads, hours watched, findings, alerts, evidence.

    The report comes from the database, without requests to logs. It holds signed heads whole, with signatures that
    were verified again, so that a third party can check the coverage. The JSON form holds evidence whole as well.

    Examples:
      signwatch report --from 2026-11-01 --to 2026-12-01 --output november.html
      signwatch report --format markdown > week.md
      signwatch report --format json | jq .logs
    """
    now = utc_now()
    period = read_period(begin, end, now)
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        store = Store(database, clock=utc_now, route=lambda _alert: ())
        document = report_document(settings, store, period, now)
    text = RENDERERS[form or _form_of(output)](document)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OwnFault(
            f"{output}: the report cannot be written: {error.strerror}. Nothing else was changed."
        ) from error
    note(f"wrote {output}: {document['from']} to {document['to']}, {counted(len(document['logs']), 'log')}")


def read_period(begin: str | None, end: str | None, now: datetime) -> ReportPeriod:
    """Read the two options; a period does not reach into the future. Raises `typer.BadParameter`."""
    last = min(_moment(end, "--to"), now) if end is not None else now
    first = _moment(begin, "--from") if begin is not None else last - _WEEK
    if first >= last:
        raise typer.BadParameter(f"{rfc3339(first)} is not before {rfc3339(last)}", param_hint="--from")
    return ReportPeriod(first, last)


def as_html(document: Mapping[str, Any]) -> str:
    """One HTML file without scripts or external resources, fit for printing."""
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = _environment(autoescape=True).get_template("report.html.j2")
    # The hash of the style sheet in the policy excludes any other sheet.
    return template.render(report=document, style=Markup(style), style_hash=f"sha256-{digest}") + "\n"  # noqa: S704


def as_markdown(document: Mapping[str, Any]) -> str:
    """Markdown in which words from logs stand in code spans."""
    text = _environment(autoescape=False).get_template("report.md.j2").render(report=document)
    lines: list[str] = []
    for line in text.splitlines():
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).rstrip() + "\n"


def as_json(document: Mapping[str, Any]) -> str:
    """The document itself, in ASCII."""
    return json.dumps(document, indent=2) + "\n"


RENDERERS: Final[Mapping[ReportFormat, Callable[[Mapping[str, Any]], str]]] = {
    ReportFormat.HTML: as_html,
    ReportFormat.MARKDOWN: as_markdown,
    ReportFormat.JSON: as_json,
}


def _form_of(output: Path | None) -> ReportFormat:
    names = {".html": ReportFormat.HTML, ".htm": ReportFormat.HTML, ".json": ReportFormat.JSON}
    return names.get(output.suffix.lower() if output is not None else "", ReportFormat.MARKDOWN)


def _moment(text: str, option: str) -> datetime:
    try:
        # A date alone is its midnight.
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text[:40]!r} is neither a date such as 2026-11-01 nor a time such as 2026-11-01T09:00:00Z",
            param_hint=option,
        ) from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=autoescape,  # noqa: S701  off for Markdown only, where `code` keeps words from logs inert
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        inert=lambda value: inert_line("-" if value is None else str(value), _LONGEST),
        moment=lambda at: rfc3339(datetime.fromisoformat(at)),
        day=lambda at: at[:10],
        number=lambda value: f"{value:,}".replace(",", "\u202f"),
        counted=lambda value, noun: counted(value, noun).replace(",", "\u202f"),
        hours=lambda seconds: exactly(timedelta(seconds=seconds)),
        trouble=lambda name: TROUBLES.get(name, "unknown"),
        trouble_class=lambda name: _TROUBLE_CLASSES.get(name, "warn"),
        signed=_signed,
        code=_code,
        plain=_plain,
        fenced=_fenced,
    )
    return environment


def _signed(head: str | Mapping[str, str]) -> str:
    """A signed head line by line, as it was served; each line is made inert."""
    if isinstance(head, str):
        raw = base64.b64decode(head)
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = head
    else:
        text = head["text"] if "text" in head else head["base64"]
    return "\n".join(inert_line(line, _LONGEST_HEAD) for line in text.rstrip("\n").split("\n"))


def _code(value: object) -> str:
    """A Markdown code span: nothing in it is a link, a mention or markup."""
    text = inert_line("-" if value is None else str(value), _LONGEST)
    fence = "`" * (max((len(run) for run in _backticks(text)), default=0) + 1)
    # SPEC CommonMark 6.1: one space on each side is taken off.
    return f"{fence} {text} {fence}" if len(fence) > 1 or not text.strip() else f"{fence}{text}{fence}"


def _plain(text: str) -> str:
    """Text in which no punctuation is markup (CommonMark 2.4)."""
    return "".join(f"\\{char}" if char in _PUNCTUATION else char for char in text)


def _fenced(text: str) -> str:
    fence = "`" * max(3, max((len(run) for run in _backticks(text)), default=0) + 1)
    return f"{fence}text\n{text}\n{fence}"


def _backticks(text: str) -> list[str]:
    return [run for run in "".join(char if char == "`" else " " for char in text).split(" ") if run]

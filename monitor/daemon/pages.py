"""Templates of the operator's pages, and the explanations: the documentation's own pages on alerts and expectations.

Every text on a page may hold words of an attacker: it is escaped, cut and never a link.
"""

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from alerts.alert import counted, lasting, rfc3339
from alerts.inert import inert_line

if TYPE_CHECKING:
    from jinja2 import Environment
    from markdown_it.token import Token

TEMPLATES: Final = Path(__file__).parent / "templates"
# In an installation the pages are beside this file, in a checkout in `docs/`.
_DOCS: Final = (Path(__file__).parent / "explanations", Path(__file__).parents[2] / "docs")
_FOLDERS: Final = ("alerts", "expectations")
_EXPLAINED: Final = re.compile(r"(?:\.\./)?(?:(alerts|expectations)/)?([a-z0-9-]+)\.md(?:#.*)?", re.ASCII)
_LONGEST: Final = 300


@cache
def environment() -> "Environment":
    """Templates that escape everything, with the filters of every page."""
    # Imported for the first page: three MiB with the templates, which a daemon that is only asked for metrics lacks.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape  # noqa: PLC0415

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["inert"] = _inert
    made.filters["segment"] = lambda name: quote(str(name).encode("utf-8", "replace"), safe="")
    made.filters["ago"] = ago
    made.filters["moment"] = moment
    made.filters["number"] = lambda value: "-" if value is None else f"{value:,}".replace(",", "\u202f")
    made.filters["counted"] = lambda value, noun: counted(value, noun).replace(",", "\u202f")
    made.filters["length_of_time"] = lambda seconds: lasting(timedelta(seconds=seconds))
    made.globals["is_explained"] = lambda folder, name: name in explained(folder)
    return made


def moment(at: str | datetime) -> str:
    """A time in the common form: RFC 3339 in UTC, to the second."""
    return rfc3339(datetime.fromisoformat(at) if isinstance(at, str) else at)


def ago(at: str | datetime | None, now: str | datetime) -> str:
    """Time since a moment, in the unit a person would use."""
    if at is None:
        return "never"
    began = datetime.fromisoformat(at) if isinstance(at, str) else at
    ended = datetime.fromisoformat(now) if isinstance(now, str) else now
    return f"{lasting(ended - began)} ago"


def bars(per_day: Mapping[date, int], first: date, last: date) -> list[tuple[str, int]]:
    """A bar for each day from `first` to `last`, days without a value included."""
    days = range(first.toordinal(), last.toordinal() + 1)
    return [(date.fromordinal(day).isoformat(), per_day.get(date.fromordinal(day), 0)) for day in days]


@lru_cache
def explained(folder: str) -> frozenset[str]:
    """Names of the pages of a folder (`alerts`, `expectations`) of the documentation."""
    pages = _pages_in(folder)
    return frozenset(path.stem for path in pages.glob("*.md")) if pages is not None else frozenset()


@lru_cache
def explanation(folder: str, name: str) -> str | None:
    """One page of the documentation as HTML; `None` when there is none. Links lead to other explanations or nowhere."""
    pages = _pages_in(folder)
    if pages is None or name not in explained(folder):
        return None
    from markdown_it import MarkdownIt  # noqa: PLC0415  sixty modules for pages that are seldom read

    text = (pages / f"{name}.md").read_text(encoding="utf-8")
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(text)
    for token in tokens:
        _keep_links_here(token, folder)
    rendered: str = reader.renderer.render(tokens, reader.options, {})
    return rendered


def _pages_in(folder: str) -> Path | None:
    return next((docs / folder for docs in _DOCS if folder in _FOLDERS and (docs / folder).is_dir()), None)


def _keep_links_here(token: "Token", folder: str) -> None:
    for child in token.children or ():
        if child.type == "link_open":
            target = _EXPLAINED.fullmatch(str(child.attrs.get("href", "")))
            child.attrs = {}
            if target is not None and target[2] in explained(target[1] or folder):
                child.attrs = {"href": f"/explain/{target[1] or folder}/{target[2]}"}


def _inert(value: Any) -> str:
    return inert_line(str(value), _LONGEST)

"""Alerts as GitHub issues: one issue for each rule and cause, commented on when it happens again, closed at its end.

An issue is found again by a mark in its body, so that no state is kept here. API: docs.github.com/rest/issues.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from alerts.alert import Alert, AlertChange, ChangeKind, counted
from alerts.channels.channel import DeliveryFailed
from alerts.channels.guarded_http import GuardedPoster
from alerts.channels.settings import SecretFile, SecretUnreadable
from alerts.inert import inert_line
from alerts.page import Page
from alerts.rendering import Renderer

API_URL: Final = "https://api.github.com"
_LABEL: Final = "signwatch"
_PAGE: Final = 50
_MAX_PAGES: Final = 20
# The API refuses a title of more than 256 characters and a body of more than 65,536 for good (422).
_MAX_TITLE: Final = 256
_SHORT_TITLE: Final = 100
_MAX_BODY: Final = 60_000
_MAX_NOTE: Final = 4_000
_MAX_ANSWER: Final = 8 * 1024 * 1024
# GitHub reads Markdown, HTML, @mentions, #references and links. In a code block it reads none of them.
_FENCE: Final = "~" * 12
_STATE = re.compile(r"<!-- signwatch-(open|over) ([0-9a-f]{64}) -->")


class GitHubIssuesChannel(Struct, frozen=True):
    """Files issues in `repository` (owner/name) with a token that may write issues there."""

    name: str
    repository: str
    token: SecretFile
    poster: GuardedPoster
    url: str = API_URL
    renderer: Renderer = msgspec.field(default_factory=Renderer)
    digests: bool = False

    def send(self, alert: Alert, key: str, now: datetime) -> None:
        """Open an issue, or comment on the open issue of the same rule and cause unless it holds this alert already."""
        page, marks = self.renderer.page(alert, key), self._marks()
        body = f"{_block(self.renderer.text(alert, key))}\n{marks.told(key)}\n{marks.is_open(key)}\n"
        found = self._issue(marks.cause(alert), "open", now)
        if found is None:
            made = {"title": _plain_title(page, alert), "body": f"{body}{marks.cause(alert)}\n", "labels": [_LABEL]}
            self._ask("POST", "/issues", made, now)
        elif marks.told(key) not in self._lines(found, now):
            self._ask("POST", f"/issues/{int(found['number'])}/comments", {"body": body}, now)

    def tell(self, alert: Alert, change: AlertChange, key: str, now: datetime) -> None:
        """Comment on the alert's new state; close the issue once no alert in it is open, reopen it with one."""
        marks = self._marks()
        found = self._issue(marks.cause(alert), "open", now) or self._issue(marks.cause(alert), "closed", now)
        if found is None:
            return
        lines, told = self._lines(found, now), marks.told(f"{key}:{change.number}")
        if told not in lines:
            state = marks.is_open(key) if change.kind is ChangeKind.REOPENED else marks.is_over(key)
            note = inert_line(f"Alert {alert.id} was {change.kind.value} by {change.by}. {change.note}", _MAX_NOTE)
            body = f"{_block(note)}\n{told}\n{state}\n"
            self._ask("POST", f"/issues/{int(found['number'])}/comments", {"body": body}, now)
            lines.append(state)
        state = "open" if marks.are_open(lines) else "closed"
        self._ask("PATCH", f"/issues/{int(found['number'])}", {"state": state}, now)

    def _marks(self) -> "_Marks":
        try:
            return _Marks(self.token.read().encode())
        except SecretUnreadable as error:
            raise DeliveryFailed(str(error)) from error

    def _issue(self, wanted: str, state: str, now: datetime) -> dict[str, Any] | None:
        """The oldest issue with this mark: a stranger's copy is younger."""
        path = f"/issues?labels={_LABEL}&state={state}&sort=created&direction=asc&per_page={_PAGE}"
        for each in self._listed(path, now):
            # A pull request is an issue to this API.
            if wanted in _lines_of(each) and "pull_request" not in each:
                return each
        return None

    def _lines(self, issue: dict[str, Any], now: datetime) -> list[str]:
        """Lines of the issue and of its author's comments, oldest first.

        A stranger may comment too and copy a mark from our text: an "over" would close an issue with an open alert.
        """
        path = f"/issues/{int(issue['number'])}/comments?per_page={_PAGE}"
        ours = (each for each in self._listed(path, now) if _author(each) == _author(issue))
        return [*_lines_of(issue), *(line for each in ours for line in _lines_of(each))]

    def _listed(self, path: str, now: datetime) -> Iterator[dict[str, Any]]:
        for page in range(1, _MAX_PAGES + 1):
            found = self._ask("GET", f"{path}&page={page}", None, now)
            if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
                raise DeliveryFailed("GitHub answered with something else than a list")
            yield from found
            if len(found) < _PAGE:
                return
        raise DeliveryFailed(f"more than {_MAX_PAGES * _PAGE} issues or comments are to be searched: close old ones")

    def _ask(self, method: str, path: str, document: dict[str, Any] | None, now: datetime) -> Any:
        try:
            token = self.token.read()
        except SecretUnreadable as error:
            raise DeliveryFailed(str(error)) from error
        headers = {
            "authorization": f"Bearer {token}",
            "accept": "application/vnd.github+json",
            "x-github-api-version": "2022-11-28",
        }
        body = b"" if document is None else json.dumps(document, ensure_ascii=True).encode("ascii")
        url = f"{self.url}/repos/{self.repository}{path}"
        answer = self.poster.ask(method, url, body, headers, now, max_answer=_MAX_ANSWER)
        try:
            return json.loads(answer.body) if answer.body else None
        except ValueError as error:
            raise DeliveryFailed("GitHub answered with something else than JSON") from error


@dataclass(frozen=True, slots=True)
class _Marks:
    """Lines that name the subject of an issue or comment, as HTML comments, which GitHub does not show.

    Keyed with the token.

    Without the key, a stranger could make the line of a future alert and so suppress the alert. After a new token, a
    cause that is still open gets another issue.
    """

    key: bytes = field(repr=False)

    def cause(self, alert: Alert) -> str:
        """Rule and cause of an alert: the kind, the identity, and for an alert of no rule its log."""
        parts = (alert.rule or "", alert.kind, alert.log or "" if alert.rule is None else "", alert.identity or "")
        return self._line("cause", "\0".join(parts))

    def told(self, what: str) -> str:
        return self._line("told", what)

    def is_open(self, alert: str) -> str:
        return self._line("open", alert)

    def is_over(self, alert: str) -> str:
        return self._line("over", alert)

    def are_open(self, lines: Sequence[str]) -> bool:
        """True if these lines open an alert that no later line ends."""
        opened: set[str] = set()
        for line in lines:
            if match := _STATE.fullmatch(line):
                (opened.add if match[1] == "open" else opened.discard)(match[2])
        return bool(opened)

    def _line(self, what: str, text: str) -> str:
        # The same digest for `open` and `over`: the two belong to one alert.
        name = "state" if what in {"open", "over"} else what
        digest = hmac.new(self.key, f"{name}\0{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
        return f"<!-- signwatch-{what} {digest} -->"


def _lines_of(document: dict[str, Any]) -> list[str]:
    return str(document.get("body") or "").splitlines()


def _author(document: dict[str, Any]) -> object:
    user = document.get("user")
    return user.get("id") if isinstance(user, dict) else None


def _block(text: str) -> str:
    """Text as a code block that the text cannot end: no line of it can be a fence as long as this one."""
    shown = text.replace(_FENCE, "~").encode("utf-8", "replace").decode().rstrip()
    if len(shown) > _MAX_BODY:
        shown = f"{shown[:_MAX_BODY]}… (+{counted(len(shown) - _MAX_BODY, 'character')})"
    return f"{_FENCE}\n{shown}\n{_FENCE}"


def _plain_title(page: Page, alert: Alert) -> str:
    title = _unlinked(page.heading)
    if len(title) <= _MAX_TITLE:
        return title
    return _unlinked(replace(page, title=inert_line(alert.title, _SHORT_TITLE)).heading)


def _unlinked(title: str) -> str:
    # A title is no Markdown, but GitHub resolves mentions and references in it.
    return title.replace("@", "@\u2060").replace("#", "#\u2060")

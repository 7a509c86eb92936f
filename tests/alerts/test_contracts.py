"""Requests to services that cannot run here keep the services' published contracts, with any text of a log in them."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from msgspec.structs import replace
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from alerts.alert import AlertChange, ChangeKind
from alerts.channels.channel import Channel
from alerts.channels.github_issues import GitHubIssuesChannel
from alerts.channels.guarded_http import GuardedPoster
from alerts.channels.pagerduty import PagerDutyChannel
from alerts.channels.settings import SecretFile
from alerts.channels.slack import SlackBotChannel
from alerts.links import Links
from alerts.rendering import Renderer
from alerts.user_template import UserTemplate
from tests.alerts.test_rendering import HOSTILE, hostile_alert
from tests.support.alerts import NOW, an_alert
from tests.support.contracts import GITHUB_ISSUES, PAGERDUTY_EVENTS, SLACK_MESSAGES, asked

POSTER = GuardedPoster(allow_private=True)
LINKED = Renderer(links=Links("https://signwatch.acme.example", b"k" * 32))
CHANGES = (
    AlertChange(ChangeKind.ACKNOWLEDGED, 1, "mia" * 5_000, "#1 @everyone " * 5_000),
    AlertChange(ChangeKind.REOPENED, 2, "bob"),
)
LONG = HOSTILE | {
    "mentions": "@" * 5_000,
    "references": "#1 " * 5_000,
    "emoji": "🔴" * 5_000,
    "control": "release@acme.example",
}


class Receiver:
    """Keeps each request and answers as the three services do: an empty list, an issue, an accepted message."""

    def __init__(self, server: HTTPServer, folder: Path) -> None:
        self.requests: list[dict[str, Any]] = []
        self._server, self._folder = server, folder
        for path in ("", "/1", "/1/comments"):
            server.expect_request(f"/repos/acme/widget/issues{path}").respond_with_handler(self._answer)
        for path in ("/v2/enqueue", "/api/chat.postMessage"):
            server.expect_request(path).respond_with_handler(self._answer)
        self._issue: dict[str, Any] | None = None

    def _answer(self, request: Request) -> Response:
        made = asked(request)
        self.requests.append(made)
        if made["path"].endswith("/issues") and made["method"] == "POST":
            self._issue = {"number": 1, "user": {"id": 1}, **made["body"]}
        listed = [self._issue] if self._issue and made["path"].endswith("/issues") else []
        document: Any = listed if made["method"] == "GET" else {"ok": True}
        return Response(json.dumps(document), 200, content_type="application/json")

    def channels(self) -> dict[Channel, Draft202012Validator]:
        (self._folder / "secret").write_text("r" * 32)
        secret = SecretFile(self._folder / "secret")
        url, hook = self._server.url_for("").rstrip("/"), self._server.url_for("/v2/enqueue")
        slack = SlackBotChannel("slack", secret, "#alerts", self._server.url_for("/api/"), renderer=LINKED)
        return {
            GitHubIssuesChannel("issues", "acme/widget", secret, POSTER, url, LINKED): GITHUB_ISSUES,
            PagerDutyChannel("pagerduty", secret, POSTER, hook, LINKED): PAGERDUTY_EVENTS,
            slack: SLACK_MESSAGES,
        }


@pytest.fixture
def receiver(httpserver: HTTPServer, tmp_path: Path) -> Receiver:
    return Receiver(httpserver, tmp_path)


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_any_text_of_a_log_keeps_the_contract_of_each_service(receiver: Receiver, text: str) -> None:
    alert = replace(hostile_alert(text), rule=text, log=text, identity=text)
    for channel, validator in receiver.channels().items():
        receiver.requests.clear()
        channel.send(alert, f"key {text}", NOW)
        if isinstance(channel, GitHubIssuesChannel | PagerDutyChannel):
            for change in CHANGES:
                channel.tell(alert, change, f"key {text}", NOW)
        assert receiver.requests
        for request in receiver.requests:
            validator.validate(request)


def test_a_title_cut_for_github_says_so(receiver: Receiver) -> None:
    (channel,) = [each for each in receiver.channels() if isinstance(each, GitHubIssuesChannel)]
    channel.send(an_alert(title="@#" * 2_500), "1", NOW)
    (made,) = [each["body"] for each in receiver.requests if each["method"] == "POST"]
    assert made["title"].endswith("… (+4900 characters)")
    assert made["title"].startswith("[page] @\u2060#\u2060")


def test_a_long_page_of_an_operators_own_template_is_cut_for_github_and_says_so(
    receiver: Receiver, tmp_path: Path
) -> None:
    (channel,) = [each for each in receiver.channels() if isinstance(each, GitHubIssuesChannel)]
    template = tmp_path / "long.txt"
    template.write_text("{% for each in range(1000) %}" + "x" * 100 + "{% endfor %}")
    assert isinstance(channel, GitHubIssuesChannel)
    replace(channel, renderer=Renderer(UserTemplate("long", template.read_text()))).send(an_alert(), "1", NOW)
    (made,) = [each for each in receiver.requests if each["method"] == "POST"]
    GITHUB_ISSUES.validate(made)
    assert "… (+40,000 characters)\n~~~" in made["body"]["body"]


def test_a_link_that_slack_would_refuse_is_left_out_and_named(receiver: Receiver) -> None:
    (channel,) = [each for each in receiver.channels() if isinstance(each, SlackBotChannel)]
    channel.send(an_alert(alert_id="🔴" * 300), "1", NOW)
    (made,) = receiver.requests
    SLACK_MESSAGES.validate(made)
    assert "Links left out" in json.dumps(made["body"]["blocks"])
    assert "Acknowledge, Open this alert, Its proof" in json.dumps(made["body"]["blocks"])


def at(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set the value at a path such as `body.payload.summary`."""

    def broken(request: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        place: Any = request
        for each in parents:
            place = place[int(each) if each.isdigit() else each]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return broken


BREAKS: dict[str, tuple[tuple[str, Any], ...]] = {
    "issues": (
        *(("body.title", "x" * 257), ("body.title", None), ("body.title", 7), ("body.body", "x" * 65_537)),
        *(("body.labels", "signwatch"), ("body.labels", ["x" * 51]), ("body.lables", []), ("body", None)),
        *(("headers.user-agent", None), ("headers.x-github-api-version", None), ("headers.authorization", "r")),
        *(("headers.accept", "*/*"), ("headers.content-type", "text/plain"), ("method", "PUT"), ("path", "/issues")),
    ),
    "pagerduty": (
        *(("body.routing_key", "r" * 31), ("body.event_action", "open"), ("body.dedup_key", "x" * 256)),
        *(("body.payload", None), ("body.payload.summary", "x" * 1025), ("body.payload.source", None)),
        *(("body.payload.severity", "page"), ("body.payload.timestamp", "yesterday"), ("size", 524_289)),
        *(("body.payload.custom_details", "text"), ("body.client_url", "javascript:1"), ("body.links", [{}])),
    ),
    "slack": (
        *(("body.blocks", [{"type": "divider"}] * 51), ("body.blocks", []), ("body.channel", None), ("body.text", "")),
        *(
            ("body.blocks.0.text.text", "x" * 151),
            ("body.blocks.0.text.type", "mrkdwn"),
            ("body.blocks.1.type", "text"),
        ),
        *(("body.blocks.1.text.text", "x" * 3001), ("body.blocks.1.text.text", ""), ("headers.authorization", None)),
        ("body.blocks.1.fields", [{"type": "plain_text", "text": "x"}] * 11),
        ("body.blocks.1.fields", [{"type": "plain_text", "text": "x" * 2001}]),
    ),
}


def test_control_a_request_that_breaks_a_contract_is_noticed(receiver: Receiver) -> None:
    for channel, validator in receiver.channels().items():
        receiver.requests.clear()
        channel.send(an_alert(), "key", NOW)
        (good,) = [each for each in receiver.requests if each["method"] == "POST"]
        validator.validate(good)
        for path, value in BREAKS[channel.name]:
            wrong = copy.deepcopy(good)
            at(path, value)(wrong)
            assert not validator.is_valid(wrong), f"{channel.name}: {path} = {str(value)[:40]} is taken"

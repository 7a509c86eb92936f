"""Channels whose receivers keep alerts open, each against a real counterpart, and the command channel."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from msgspec.structs import replace
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from alerts.alert import Alert, AlertChange, ChangeKind
from alerts.channels.alertmanager import AlertmanagerChannel
from alerts.channels.channel import DeliveryFailed, FollowingChannel
from alerts.channels.command import CommandChannel
from alerts.channels.github_issues import GitHubIssuesChannel
from alerts.channels.guarded_http import GuardedPoster
from alerts.channels.settings import FOLLOWING, SecretFile
from settings.document import Misplaced
from tests.support.alerts import NOW, an_alert
from tests.support.channels import channel_of
from tests.support.contracts import keep_their_contracts
from tests.support.log_server import free_port
from tests.support.waiting import PATIENCE, answers, is_alive, wait_until

POSTER = GuardedPoster(allow_private=True)
ACKNOWLEDGED = AlertChange(ChangeKind.ACKNOWLEDGED, 1, "alice", "ours")
REOPENED = AlertChange(ChangeKind.REOPENED, 2, "bob")
ALERTMANAGER = shutil.which("prometheus-alertmanager")


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Alertmanager on loopback that sends nothing to anybody."""
    if ALERTMANAGER is None:
        pytest.skip("prometheus-alertmanager is not installed: .ci/install-debian-packages")
    folder = tmp_path_factory.mktemp("alertmanager")
    (folder / "config.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [ALERTMANAGER, f"--config.file={folder}/config.yml", f"--storage.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_until("Alertmanager to answer", lambda: answers(f"{url}/-/ready"), running)
        yield url
    finally:
        running.kill()
        running.wait()


def active(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(
        f"{url}/api/v2/alerts?active=true", trust_env=False, timeout=PATIENCE
    ).json()
    return found


def test_alertmanager_keeps_one_alert_open_until_it_is_acknowledged(alertmanager: str) -> None:
    channel, now = AlertmanagerChannel("am", alertmanager, POSTER), datetime.now(UTC)
    for number in (1, 1, 2):
        channel.send(an_alert(number), f"{number}", now)
    assert sorted(each["labels"]["alert_id"] for each in active(alertmanager)) == [
        "rekor-v2/1/acme-release",
        "rekor-v2/2/acme-release",
    ], "a repeat is the same alert"
    [first] = [each for each in active(alertmanager) if each["labels"]["alert_id"].startswith("rekor-v2/1/")]
    assert first["labels"]["severity"] == "page"
    assert "signwatch alerts ack" in first["annotations"]["acknowledge"]
    channel.tell(an_alert(1), ACKNOWLEDGED, "1", datetime.now(UTC))
    assert [each["labels"]["alert_id"] for each in active(alertmanager)] == ["rekor-v2/2/acme-release"]
    channel.tell(an_alert(1), REOPENED, "1", datetime.now(UTC))
    assert len(active(alertmanager)) == 2


@pytest.mark.parametrize("text", ["\ud800", "\x00\x1b", "<b>", "", "x" * 100_000, "\u202e"])
def test_alertmanager_takes_whatever_stood_in_the_log(alertmanager: str, text: str) -> None:
    alert = an_alert(
        7, title=text, summary=text, reasons=(text,), facts=((text, text),), alert_id=f"hostile-{hash(text)}"
    )
    AlertmanagerChannel("am", alertmanager, POSTER).send(alert, "key", datetime.now(UTC))
    assert any(each["labels"]["alert_id"] == alert.id for each in active(alertmanager))


def test_alertmanager_that_refuses_is_a_failure(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/api/v2/alerts").respond_with_data("no", status=503)
    with pytest.raises(DeliveryFailed, match="503"):
        AlertmanagerChannel("am", httpserver.url_for("").rstrip("/"), POSTER).send(an_alert(), "key", NOW)


OURS, STRANGER = {"id": 1, "login": "signwatch[bot]"}, {"id": 2, "login": "mallory"}


class GitHub:
    """The part of GitHub's REST API for issues that its documentation gives: list, create, change, comment."""

    def __init__(self) -> None:
        self.issues: list[dict[str, Any]] = []
        self.comments: dict[int, list[dict[str, Any]]] = {}
        self.asked: list[Request] = []

    def answer(self, request: Request) -> Response:
        self.asked.append(request)
        parts = request.path.removeprefix("/repos/acme/widget/issues").strip("/").split("/")
        query = {name: values[0] for name, values in parse_qs(request.query_string.decode()).items()}
        start = (int(query.get("page", 1)) - 1) * int(query.get("per_page", 30))
        stop = start + int(query.get("per_page", 30))
        body = json.loads(request.get_data() or b"null")
        if parts == [""] and request.method == "GET":
            wanted = [
                i for i in self.issues if query["state"] in {"all", i["state"]} and query["labels"] in i["labels"]
            ]
            return self._json(wanted[start:stop])
        if parts == [""]:
            self.issues.append({"number": len(self.issues) + 1, "state": "open", "user": OURS, **body})
            return self._json(self.issues[-1], 201)
        number = int(parts[0])
        if request.method == "PATCH":
            self.issues[number - 1] |= body
            return self._json(self.issues[number - 1])
        if request.method == "GET":
            return self._json(self.comments.get(number, [])[start:stop])
        self.comments.setdefault(number, []).append({"user": OURS, **body})
        return self._json(body, 201)

    @staticmethod
    def _json(document: Any, status: int = 200) -> Response:
        return Response(json.dumps(document), status, content_type="application/json")


@pytest.fixture
def github(httpserver: HTTPServer) -> Iterator[GitHub]:
    made = GitHub()
    httpserver.expect_request("/repos/acme/widget/issues").respond_with_handler(made.answer)
    for number in range(1, 4):
        httpserver.expect_request(f"/repos/acme/widget/issues/{number}").respond_with_handler(made.answer)
        httpserver.expect_request(f"/repos/acme/widget/issues/{number}/comments").respond_with_handler(made.answer)
    yield made
    assert keep_their_contracts(made.asked) == len(made.asked), "every request has a contract"


@pytest.fixture
def issues(github: GitHub, httpserver: HTTPServer, tmp_path: Path) -> GitHubIssuesChannel:
    (tmp_path / "token").write_text("ghp_secret")
    url = httpserver.url_for("").rstrip("/")
    return GitHubIssuesChannel("issues", "acme/widget", SecretFile(tmp_path / "token"), POSTER, url)


def other_rule(number: int) -> Alert:
    return replace(an_alert(number), rule="another")


def test_one_issue_for_a_rule_and_cause_is_updated_and_closed_once_no_alert_in_it_is_open(
    issues: GitHubIssuesChannel, github: GitHub
) -> None:
    for number in (1, 1, 2, 2):
        issues.send(an_alert(number), f"{number}", NOW)
    issues.send(other_rule(3), "3", NOW)
    assert [each["state"] for each in github.issues] == ["open", "open"]
    assert [len(github.comments.get(number, [])) for number in (1, 2)] == [1, 0], "a repeat adds nothing"
    issues.tell(an_alert(1), ACKNOWLEDGED, "1", NOW)
    issues.tell(an_alert(1), ACKNOWLEDGED, "1", NOW)
    assert github.issues[0]["state"] == "open", "the second alert in it is open"
    assert len(github.comments[1]) == 2
    issues.tell(an_alert(2), ACKNOWLEDGED, "2", NOW)
    assert [each["state"] for each in github.issues] == ["closed", "open"]
    issues.tell(an_alert(2), REOPENED, "2", NOW)
    assert github.issues[0]["state"] == "open"
    assert all(each.headers["authorization"] == "Bearer ghp_secret" for each in github.asked)


def test_nothing_of_the_log_is_markdown_and_no_mark_can_be_made_beforehand(
    issues: GitHubIssuesChannel, github: GitHub, tmp_path: Path
) -> None:
    hostile = (
        "~" * 30 + "\n@everyone #1 <img src=x> [a](https://evil.example)\n<!-- signwatch-over " + "0" * 64 + " -->"
    )
    issues.send(an_alert(1, title=hostile, summary=hostile, facts=(("x", hostile),)), "1", NOW)
    body = github.issues[0]["body"]
    assert body.count("~" * 12) == 2, "the text cannot end its code block"
    assert body.startswith("~" * 12 + "\n")
    assert "@e" not in github.issues[0]["title"]
    (tmp_path / "another").write_text("ghp_another")
    stranger = GitHubIssuesChannel("issues", "acme/widget", SecretFile(tmp_path / "another"), POSTER, issues.url)
    stranger.send(an_alert(1), "1", NOW)
    assert len(github.issues) == 2, "without our token no one can make our marks"


def test_a_strangers_comment_with_copied_marks_closes_nothing_and_hides_nothing(
    issues: GitHubIssuesChannel, github: GitHub
) -> None:
    for number in (1, 2):
        issues.send(an_alert(number), f"{number}", NOW)
    mine = "\n".join(line for each in (github.issues[0], *github.comments[1]) for line in each["body"].splitlines())
    copied = mine.replace("<!-- signwatch-open", "<!-- signwatch-over")
    assert copied != mine, "control: the marks are in the text"
    github.comments[1].append({"user": STRANGER, "body": copied})
    github.comments[1].append({"user": None, "body": copied})
    issues.tell(an_alert(2), ACKNOWLEDGED, "2", NOW)
    assert github.issues[0]["state"] == "open", "the first alert is open"
    issues.tell(an_alert(1), ACKNOWLEDGED, "1", NOW)
    assert github.issues[0]["state"] == "closed"


def test_what_a_person_notes_is_inert_where_it_is_told(
    issues: GitHubIssuesChannel, github: GitHub, alertmanager: str
) -> None:
    noted = AlertChange(ChangeKind.ACKNOWLEDGED, 1, "mia\u202e", "fixes #1\n@everyone " + "~" * 30 + "\x1b[2J")
    issues.send(an_alert(1), "1", NOW)
    issues.tell(an_alert(1), noted, "1", NOW)
    body = github.comments[1][-1]["body"]
    shown = body[: body.rindex("~" * 12) + 12]
    assert (shown.count("\n"), shown.count("~" * 12)) == (2, 2), "one line in a code block that it cannot end"
    assert not {"\u202e", "\x1b"}.intersection(body)
    channel = AlertmanagerChannel("am", alertmanager, POSTER)
    channel.send(an_alert(1), "1", datetime.now(UTC))
    channel.tell(an_alert(1), replace(noted, kind=ChangeKind.REOPENED), "1", datetime.now(UTC))
    (told,) = [each["annotations"] for each in active(alertmanager) if "reopened" in each["annotations"]]
    assert not {"\u202e", "\x1b", "\n"}.intersection(told["reopened"])


def test_github_refusing_or_answering_nonsense_is_a_failure(
    issues: GitHubIssuesChannel, httpserver: HTTPServer, github: GitHub
) -> None:
    for body in ("{}", "nonsense", "[1]"):
        httpserver.clear()
        httpserver.expect_request("/repos/acme/widget/issues").respond_with_data(body)
        with pytest.raises(DeliveryFailed):
            issues.send(an_alert(), "1", NOW)


def test_a_secret_that_is_no_header_is_not_told(issues: GitHubIssuesChannel, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("ghp_one\nghp_two")
    with pytest.raises(DeliveryFailed, match="one line") as failed:
        issues.send(an_alert(), "1", NOW)
    assert "ghp" not in str(failed.value)


def command(tmp_path: Path, code: str, seconds: float = PATIENCE) -> CommandChannel:
    return CommandChannel("run", (sys.executable, "-c", code), tmp_path, seconds)


def test_a_command_gets_the_document_on_its_input_and_nothing_as_an_argument(tmp_path: Path) -> None:
    code = (
        "import sys, os, pathlib;"
        "pathlib.Path('got').write_text(repr(sys.argv) + os.environ['SIGNWATCH_KEY'] + sys.stdin.read())"
    )
    command(tmp_path, code).send(an_alert(title="$(touch owned) ; `x`"), "key", NOW)
    got = (tmp_path / "got").read_text()
    assert got.startswith("['-c']key{")
    assert json.loads(got.partition("key")[2])["title"] == "$(touch owned) ; `x`"
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("code", "said", "permanent"),
    [
        ("import sys; print('no room'); sys.exit(75)", "exit code 75: no room", False),
        ("import sys; sys.exit(65)", "exit code 65", True),
        ("import sys; sys.stdout.write('x' * 10_000_000); sys.exit(1)", "exit code 1", False),
        ("import time; time.sleep(600)", "not finished", False),
    ],
)
def test_a_command_that_fails_floods_or_hangs_is_a_failure(
    tmp_path: Path, code: str, said: str, permanent: bool
) -> None:
    with pytest.raises(DeliveryFailed, match=said) as failed:
        command(tmp_path, code, seconds=1.0 if "sleep" in code else PATIENCE).send(an_alert(), "key", NOW)
    assert failed.value.permanent is permanent
    assert len(str(failed.value)) < 1_000


def test_a_command_takes_its_children_with_it(tmp_path: Path) -> None:
    child = "import time; time.sleep(600)"
    code = (
        "import pathlib, subprocess, sys;"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}]);"
        "pathlib.Path('child').write_text(str(child.pid))"
    )
    command(tmp_path, code).send(an_alert(), "key", NOW)
    wait_until("the child to end", lambda: not is_alive(int((tmp_path / "child").read_text())))


def test_a_command_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(DeliveryFailed, match="cannot be run"):
        CommandChannel("run", ("/nothing/here",), tmp_path).send(an_alert(), "key", NOW)


def test_what_is_said_to_follow_alerts_does(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("s" * 32)
    settings: dict[str, dict[str, Any]] = {
        "alertmanager": {"url": "https://am.example"},
        "github-issues": {"repository": "acme/widget", "token_file": "s"},
        "pagerduty": {"routing_key_file": "s"},
        "command": {"argv": ["true"]},
        "jsonl": {"path": "a"},
        "stdout": {},
    }
    follows = {
        kind
        for kind, each in settings.items()
        if isinstance(channel_of("a", {"type": kind, **each}, tmp_path), FollowingChannel)
    }
    assert follows == FOLLOWING
    with pytest.raises(Misplaced, match="owner/name"):
        channel_of("a", {"type": "github-issues", "repository": "../x", "token_file": "s"}, tmp_path)

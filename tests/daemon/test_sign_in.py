"""An operator signs in with the token: forms for that browser, until the sign-in ends; for every other one none."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn

import httpx
import pytest
from msgspec.structs import replace

from alerts.alert import Owner
from alerts.links import Links
from monitor.config import WebConfig
from monitor.daemon.alert_pages import AlertDesk, alert_router
from monitor.daemon.search_limit import limit_searches
from monitor.daemon.signing_proofs import SigningProofs
from monitor.daemon.web import create_app
from monitor.daemon.web_server import WebServer
from monitor.store.alert_life import AlertLife
from monitor.store.database import Database
from monitor.store.reading import Reading
from monitor.telemetry.prometheus import PrometheusMeter
from tests.support.alerts import an_alert
from tests.support.parts import Clock, a_store
from tests.support.waiting import PATIENCE

TOKEN = "t" * 40
UNEXPECTED = replace(an_alert(1, alert_id=f"{1:032x}"), rule="acme-release", identity="ci@acme.example")
LIE = replace(an_alert(2, alert_id=f"{2:032x}"), rule="acme-release", owner=Owner.LOG_MISBEHAVED)
HERE = f"/alerts/{UNEXPECTED.id}"
HOSTILE = "<script>alert(1)</script>\u202e\x1b[2J"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(database: Database, clock: Clock) -> AlertDesk:
    store = a_store(database, ["mail"], clock)
    store.enqueue([UNEXPECTED, LIE])
    proofs = SigningProofs(store, list, None)
    life = AlertLife(database, ["mail"])
    return AlertDesk(life, Reading(database), Links(), TOKEN.encode(), clock, proofs)


@contextmanager
def served(desk: AlertDesk) -> Iterator[httpx.Client]:
    config = WebConfig(("127.0.0.1", 0))
    app = create_app(nothing_to_look_at, PrometheusMeter("test"))
    limit_searches(app, config)
    app.include_router(alert_router(desk))
    server = WebServer(app, config)
    server.start()
    try:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE) as made:
            yield made
    finally:
        server.stop()


@pytest.fixture
def client(desk: AlertDesk) -> Iterator[httpx.Client]:
    with served(desk) as made:
        yield made


def nothing_to_look_at() -> NoReturn:
    raise AssertionError


def sign_in(client: httpx.Client, token: str = TOKEN) -> httpx.Response:
    return client.post("/login", data={"token": token, "next": HERE}, headers={"Origin": str(client.base_url)})


def csrf(client: httpx.Client, path: str = HERE) -> str:
    found = re.search('name="csrf" value="([0-9a-f]{64})"', client.get(path).text)
    assert found is not None
    return found[1]


def state(desk: AlertDesk) -> str:
    return desk.kept(UNEXPECTED.id).state


def test_a_signed_in_operator_acknowledges_and_reopens_and_is_recorded(client: httpx.Client, desk: AlertDesk) -> None:
    assert "/login?next=" in client.get(HERE).text
    answer = sign_in(client)
    assert (answer.status_code, answer.headers["location"]) == (303, HERE)
    assert {"HttpOnly", "SameSite=strict", "Max-Age=28800"} <= set(answer.headers["set-cookie"].split("; "))
    assert TOKEN not in answer.headers["set-cookie"]
    assert client.get("/login", params={"next": HERE}).headers["location"] == HERE, "signed in already"
    form = {"csrf": csrf(client), "by": "alice", "note": HOSTILE}
    shown = client.post(HERE, data={**form, "change": "acknowledge"}).text
    assert "This alert is acknowledged" in shown
    assert not {"<script>", "\u202e", "\x1b"} & set(re.findall("<script>|\u202e|\x1b", shown))
    assert state(desk) == "acknowledged"
    client.post(HERE, data={**form, "change": "reopen"})
    assert state(desk) == "open"
    assert [(each.kind, each.by) for each in desk.life.changes(UNEXPECTED.id)] == [
        ("acknowledged", "alice"),
        ("reopened", "alice"),
    ]


def test_a_signed_in_operator_silences_by_a_trait_until_an_end_and_ends_it(
    client: httpx.Client, desk: AlertDesk, clock: Clock
) -> None:
    sign_in(client)
    form = {"csrf": csrf(client), "by": "alice", "note": HOSTILE, "change": "silence", "hours": "8"}
    for trait in ("rule", "identity", "kind"):
        shown = client.post(HERE, data={**form, "like": trait})
        assert shown.status_code == 200
        assert "<script>" not in shown.text
    made = sorted(desk.life.silences.all(), key=lambda each: each.number)
    assert [(each.rule, each.identity, each.kind) for each in made] == [
        ("acme-release", None, None),
        (None, "ci@acme.example", None),
        (None, None, UNEXPECTED.kind),
    ]
    assert {each.by for each in made} == {"alice"}
    assert {each.expires for each in made} == {clock() + timedelta(hours=8)}
    for wrong in ({"hours": "9999", "like": "rule"}, {"hours": "", "like": "rule"}, {"like": "log"}, {}):
        assert client.post(HERE, data={**form, **wrong}).status_code == 422
    assert "End silence 1" in client.get(HERE).text
    client.post(HERE, data={"csrf": form["csrf"], "change": "unsilence", "silence": "1"})
    assert "End silence 1" not in client.get(HERE).text
    assert len(desk.life.silences.all()) == 3


def test_a_logs_lie_is_never_silenced(client: httpx.Client, desk: AlertDesk) -> None:
    sign_in(client)
    where = f"/alerts/{LIE.id}"
    assert 'value="silence"' in client.get(HERE).text, "control"
    assert 'value="silence"' not in client.get(where).text
    for trait in ("rule", "kind"):
        form = {"csrf": csrf(client), "by": "a", "change": "silence", "hours": "8", "like": trait}
        assert client.post(where, data=form).status_code == 422
    assert desk.life.silences.all() == []


def refused(client: httpx.Client, desk: AlertDesk, form: dict[str, str], **headers: str) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    for change in ("acknowledge", "silence"):
        data = {"by": "eve", "change": change, "hours": "8", "like": "rule", **form}
        assert client.post(HERE, data=data, headers=named).status_code == 403
    assert state(desk) == "open"
    assert desk.life.silences.all() == []


def test_without_a_sign_in_there_is_no_form_and_no_change(client: httpx.Client, desk: AlertDesk) -> None:
    assert 'method="post"' not in client.get(HERE).text
    refused(client, desk, {})
    refused(client, desk, {"csrf": "0" * 64})
    assert client.post("/logout", data={"csrf": ""}).status_code == 403


def test_a_form_of_another_sign_in_or_of_another_site_is_refused(client: httpx.Client, desk: AlertDesk) -> None:
    sign_in(client)
    first = csrf(client)
    foreign = {"Origin": "https://evil.example"}
    for headers in (foreign, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        refused(client, desk, {"csrf": first}, **headers)
    assert client.post("/login", data={"token": TOKEN}, headers=foreign).status_code == 403
    sign_in(client)
    assert csrf(client) != first
    for wrong in (first, "", "é"):
        refused(client, desk, {"csrf": wrong})
    refused(client, desk, {})


def test_a_wrong_token_is_refused_and_guesses_are_slowed(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    answer = sign_in(client, "guess-" * 6)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert "guess-" not in answer.text + caplog.text
    assert "sign_in_refused" in caplog.text
    statuses = [sign_in(client, f"guess {number}").status_code for number in range(10)]
    assert statuses == [403] * 9 + [429]
    assert sign_in(client).status_code == 429, "the right token is no oracle in the meantime"


def expired(client: httpx.Client, clock: Clock) -> None:
    assert csrf(client)
    clock.advance(hours=8)


def signed_out(client: httpx.Client, _clock: Clock) -> None:
    answer = client.post("/logout", data={"csrf": csrf(client)})
    assert answer.headers["location"] == "/alerts"


def forged(client: httpx.Client, _clock: Clock) -> None:
    (cookie,) = client.cookies.jar
    client.cookies.set(cookie.name, f"{cookie.value}x", domain=cookie.domain, path=cookie.path)


@pytest.mark.parametrize("end", [expired, signed_out, forged])
def test_a_sign_in_ends(
    client: httpx.Client, desk: AlertDesk, clock: Clock, end: Callable[[httpx.Client, Clock], None]
) -> None:
    sign_in(client)
    form = {"csrf": csrf(client)}
    end(client, clock)
    assert 'method="post"' not in client.get(HERE).text
    refused(client, desk, form)


def test_another_token_ends_every_sign_in(client: httpx.Client, desk: AlertDesk) -> None:
    sign_in(client)
    form = {"csrf": csrf(client)}
    with served(replace(desk, token=b"u" * 40)) as other:
        other.cookies.update(client.cookies)
        assert 'method="post"' not in other.get(HERE).text
        refused(other, desk, form)


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/\\evil.example", "/x\r\nSet-Cookie: a"])
def test_a_sign_in_leads_to_no_other_site(client: httpx.Client, target: str) -> None:
    answer = client.post("/login", data={"token": TOKEN, "next": target})
    assert (answer.status_code, answer.headers["location"]) == (303, "/alerts")


def test_under_https_the_cookie_is_for_this_host_and_encrypted_connections(desk: AlertDesk) -> None:
    public = "https://signwatch.acme.example"
    with served(replace(desk, links=Links(public))) as client:
        answer = client.post("/login", data={"token": TOKEN}, headers={"Origin": public})
        assert answer.headers["set-cookie"].startswith("__Host-signwatch-operator=")
        assert "Secure" in answer.headers["set-cookie"].split("; ")


def test_a_signed_link_silences_nothing(desk: AlertDesk) -> None:
    links = Links("https://signwatch.acme.example", b"k" * 32)
    with served(replace(desk, links=links)) as client:
        link = links.acknowledge(UNEXPECTED).partition("?")[2]
        refused_form = dict(part.split("=", 1) for part in link.split("&"))
        assert 'value="acknowledge"' in client.get(f"{HERE}?{link}").text, "control: the link has its form"
        assert 'value="silence"' not in client.get(f"{HERE}?{link}").text
        answer = client.post(HERE, data={**refused_form, "change": "silence", "hours": "8", "like": "rule"})
        assert answer.status_code == 403
    assert desk.life.silences.all() == []


def test_without_a_token_there_is_no_sign_in(desk: AlertDesk) -> None:
    with served(replace(desk, token=b"")) as client:
        assert client.get("/login").status_code == 404
        assert client.post("/login", data={"token": ""}).status_code in {404, 405}
        assert "/login" not in client.get(HERE).text
        refused(client, desk, {"csrf": "0" * 64})

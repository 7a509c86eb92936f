"""Open, acknowledged, silenced, resolved, reopened, escalated: every change is kept, told on, and never a way past."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import httpx
import pytest
from msgspec.structs import replace
from pytest_httpserver import HTTPServer

from alerts.alert import Alert, AlertChange, ChangeKind, Owner, Severity
from alerts.channels.guarded_http import GuardedPoster
from alerts.channels.pagerduty import PagerDutyChannel
from alerts.channels.settings import SecretFile
from alerts.delivery import DeliveryPolicy, deliver_channel
from alerts.links import Links
from monitor.config import WebConfig
from monitor.daemon.alert_pages import AlertDesk, alert_router
from monitor.daemon.signing_proofs import SigningProofs
from monitor.daemon.web import create_app
from monitor.daemon.web_server import WebServer
from monitor.store.alert_life import AlertLife, ChangeAuthor, NoSuchAlert, silence_ended_alert
from monitor.store.database import Database
from monitor.store.outbox import Silence
from monitor.store.reading import Reading
from monitor.store.sql import broken_seals
from monitor.telemetry.prometheus import PrometheusMeter
from tests.support.alerts import NOW, an_alert
from tests.support.parts import Clock, a_store
from tests.support.waiting import PATIENCE

ALICE = ChangeAuthor("alice", "it was us")
HOUR = timedelta(hours=1)


def alert(number: int, **changes: object) -> Alert:
    return replace(an_alert(number, alert_id=f"{number:032x}"), **changes)


def broken_rows(database: Database) -> list[str]:
    with database.read() as connection:
        return list(broken_seals(connection))


def state(database: Database, number: int) -> str:
    (kept,) = Reading(database).alerts(1, ids=[f"{number:032x}"])
    return kept.state


def test_an_alert_is_acknowledged_once_and_by_whom_is_kept(database: Database) -> None:
    store, life = a_store(database, ["mail"], Clock()), AlertLife(database, [])
    store.enqueue([alert(1), alert(2)])
    assert state(database, 1) == "open"
    assert life.acknowledge(alert(1).id, ALICE, NOW)
    assert not life.acknowledge(alert(1).id, ChangeAuthor("bob"), NOW), "the first answer stands"
    assert (state(database, 1), state(database, 2)) == ("acknowledged", "open")
    assert [(each.kind, each.by, each.note) for each in life.changes(alert(1).id)] == [
        ("acknowledged", "alice", "it was us")
    ]
    assert life.reopen(alert(1).id, ChangeAuthor("carol"), NOW)
    assert not life.reopen(alert(1).id, ChangeAuthor("carol"), NOW), "it is open already"
    assert state(database, 1) == "open"
    assert life.resolve([alert(1).id], ALICE, NOW) == 1
    assert life.resolve([alert(1).id], ALICE, NOW) == 0
    assert state(database, 1) == "resolved"
    assert [each.kind for each in life.changes(alert(1).id)] == ["acknowledged", "reopened", "resolved"]
    assert broken_rows(database) == []


def test_an_alert_is_found_by_the_beginning_of_its_id_alone_if_that_is_the_only_one(database: Database) -> None:
    store, life = a_store(database, ["mail"], Clock()), AlertLife(database, [])
    store.enqueue([alert(1), alert(2)])
    assert life.find(alert(2).id[:32]) == alert(2).id
    for wrong in ("0000", "", "f", "%"):
        with pytest.raises(NoSuchAlert):
            life.find(wrong)


@pytest.mark.parametrize(
    ("silence", "kept_back"),
    [
        ({"rule": "acme-release"}, True),
        ({"rule": "another"}, False),
        ({"identity": "a@acme.example"}, True),
        ({"identity": "b@acme.example"}, False),
        ({"kind": "unexpected-signing"}, True),
        ({"rule": "acme-release", "kind": "unverified-signing"}, False),
    ],
)
def test_a_silence_keeps_alerts_of_its_sort_from_the_channels_and_records_them(
    database: Database, silence: dict[str, str], kept_back: bool
) -> None:
    store, life = a_store(database, ["mail"], Clock()), AlertLife(database, [])
    life.silences.add(replace(Silence(NOW + HOUR, "alice", "maintenance"), **silence), NOW)
    store.enqueue([alert(1, identity="a@acme.example")])
    assert store.outbox.claim("mail", NOW, HOUR, 9) == [] if kept_back else store.outbox.claim("mail", NOW, HOUR, 9)
    assert state(database, 1) == ("silenced" if kept_back else "open")
    assert sum(life.open_counts().values()) == (0 if kept_back else 1)


def test_a_log_that_lies_is_told_whatever_is_silenced(database: Database) -> None:
    store, life = a_store(database, ["mail"], Clock()), AlertLife(database, [])
    lie = alert(1, owner=Owner.LOG_MISBEHAVED, kind="log-forked", rule="acme-release", identity="a")
    for silence in ({"kind": "log-forked"}, {"rule": "acme-release"}, {"identity": "a"}):
        life.silences.add(replace(Silence(NOW + HOUR, "mallory", ""), **silence), NOW)
    store.enqueue([lie, replace(lie, id="2" * 32, owner=Owner.SIGNING)])
    assert [each.alert.id for each in store.outbox.claim("mail", NOW, HOUR, 9)] == [lie.id], "and control"


def test_a_silence_ends_by_itself_or_early_and_its_end_is_told_with_a_count(database: Database) -> None:
    clock = Clock()
    store, life = a_store(database, ["mail"], clock), AlertLife(database, [])
    first = life.silences.add(Silence(NOW + HOUR, "alice", "", rule="acme-release"), NOW)
    second = life.silences.add(Silence(NOW + 9 * HOUR, "alice", "", kind="other"), NOW)
    store.enqueue([alert(1), alert(2)])
    assert life.take_ended_silences(NOW) == []
    assert life.silences.end(second, NOW)
    assert not life.silences.end(second, NOW)
    [early, over] = sorted(life.take_ended_silences(NOW + HOUR), key=lambda each: -each.number)
    assert (early.silenced, over.silenced) == (0, 2)
    told = silence_ended_alert(over, NOW + HOUR)
    assert "2 alerts kept" in told.title
    assert f"--silence {first}" in told.next_step
    assert life.take_ended_silences(NOW + 2 * HOUR) == [], "once"
    assert [each.alert.id for each in Reading(database).alerts(9, silence=first)] == [alert(1).id, alert(2).id]
    clock.advance(hours=2)
    store.enqueue([alert(3)])
    assert [each.alert.id for each in store.outbox.claim("mail", NOW + 2 * HOUR, HOUR, 9)] == [alert(3).id]
    assert broken_rows(database) == []


@pytest.mark.parametrize(
    "wrong",
    [
        Silence(NOW + HOUR, "a", ""),
        Silence(NOW, "a", "", rule="r"),
        Silence(NOW + timedelta(days=32), "a", "", rule="r"),
    ],
)
def test_a_silence_has_an_object_and_an_end(database: Database, wrong: Silence) -> None:
    with pytest.raises(ValueError, match="silence"):
        AlertLife(database, []).silences.add(wrong, NOW)


def test_a_page_that_stays_open_goes_to_a_second_channel_once(database: Database) -> None:
    store, life = a_store(database, ["mail"], Clock()), AlertLife(database, [])
    store.enqueue([alert(1), alert(2), alert(3, severity=Severity.WARN)])
    life.acknowledge(alert(2).id, ALICE, NOW)
    assert life.escalate(HOUR, ["phone"], NOW + HOUR / 2) == []
    assert life.escalate(HOUR, ["phone"], NOW + HOUR) == [alert(1).id]
    assert life.escalate(HOUR, ["phone"], NOW + 2 * HOUR) == []
    assert [each.alert.id for each in store.outbox.claim("phone", NOW + HOUR, HOUR, 9)] == [alert(1).id]
    assert broken_rows(database) == []


def test_a_change_waits_until_the_alert_itself_was_told(database: Database) -> None:
    """A receiver that heard of the end first would keep the alert open for ever."""
    store, life = a_store(database, ["pager"], Clock()), AlertLife(database, ["pager"])
    store.enqueue([alert(1)])
    life.acknowledge(alert(1).id, ALICE, NOW)
    life.resolve([alert(1).id], ALICE, NOW)
    [raised] = store.outbox.claim("pager", NOW, HOUR, 9)
    assert raised.change is None
    store.outbox.failed([raised], attempts=3, retry_at=NOW + HOUR, error="down")
    assert store.outbox.claim("pager", NOW, HOUR, 9) == []
    [raised] = store.outbox.claim("pager", NOW + HOUR, HOUR, 9)
    store.outbox.delivered([raised], NOW + HOUR)
    [acknowledged] = store.outbox.claim("pager", NOW + HOUR, HOUR, 9)
    assert acknowledged.change == AlertChange(ChangeKind.ACKNOWLEDGED, 1, "alice", "it was us")
    store.outbox.delivered([acknowledged], NOW + HOUR)
    [resolved] = store.outbox.claim("pager", NOW + HOUR, HOUR, 9)
    assert resolved.change is not None
    assert resolved.change.kind is ChangeKind.RESOLVED


def test_only_channels_that_keep_alerts_open_hear_of_changes(database: Database) -> None:
    store, life = a_store(database, ["mail", "pager"], Clock()), AlertLife(database, ["pager", "other"])
    store.enqueue([alert(1)])
    for channel in ("mail", "pager"):
        store.outbox.delivered(store.outbox.claim(channel, NOW, HOUR, 9), NOW)
    life.acknowledge(alert(1).id, ALICE, NOW)
    assert store.outbox.claim("mail", NOW, HOUR, 9) == []
    assert store.outbox.claim("other", NOW, HOUR, 9) == []
    assert len(store.outbox.claim("pager", NOW, HOUR, 9)) == 1


def test_pagerduty_is_told_of_acknowledgement_resolution_and_reopening(
    database: Database, httpserver: HTTPServer, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("r" * 32)
    httpserver.expect_request("/v2/enqueue").respond_with_data("{}", status=202)
    poster = GuardedPoster(allow_private=True)
    pager = PagerDutyChannel("pager", SecretFile(tmp_path / "key"), poster, httpserver.url_for("/v2/enqueue"))
    store, life = a_store(database, ["pager"], Clock()), AlertLife(database, ["pager"])
    store.enqueue([alert(1)])
    life.acknowledge(alert(1).id, ALICE, NOW)
    life.resolve([alert(1).id], ALICE, NOW)
    life.reopen(alert(1).id, ALICE, NOW)
    deliver_channel(store.outbox, pager, NOW, random=lambda: 0.0, policy=DeliveryPolicy())
    sent = [json.loads(request.get_data()) for request, _ in httpserver.log]
    assert [each["event_action"] for each in sent] == ["trigger", "acknowledge", "resolve", "trigger"]
    assert {each["dedup_key"] for each in sent} == {f"{alert(1).id}:pager"}, "one incident"
    assert set(sent[1]) == {"routing_key", "dedup_key", "event_action"}


KEY, TOKEN = b"k" * 32, b"t" * 32


@pytest.fixture
def desk(database: Database) -> AlertDesk:
    store = a_store(database, ["mail"], Clock())
    store.enqueue([alert(1, title="<b>It</b> \u202eforked")])
    links = Links("https://signwatch.acme.example", KEY)
    proofs = SigningProofs(store, list, None)
    return AlertDesk(AlertLife(database, ["mail"]), Reading(database), links, TOKEN, lambda: NOW, proofs)


@pytest.fixture
def client(desk: AlertDesk) -> Iterator[httpx.Client]:
    with served(desk) as made:
        yield made


@contextmanager
def served(desk: AlertDesk) -> Iterator[httpx.Client]:
    app = create_app(nothing_to_look_at, PrometheusMeter("test"))
    app.include_router(alert_router(desk))
    server = WebServer(app, WebConfig(("127.0.0.1", 0)))
    server.start()
    try:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE) as made:
            yield made
    finally:
        server.stop()


def nothing_to_look_at() -> NoReturn:
    raise AssertionError


def path_of(link: str) -> str:
    return link.removeprefix("https://signwatch.acme.example")


def test_a_signed_link_shows_a_form_and_only_its_post_acknowledges(client: httpx.Client, desk: AlertDesk) -> None:
    link = path_of(desk.links.acknowledge(alert(1)))
    page = client.get(link)
    assert page.status_code == 200
    assert "<b>" not in page.text
    assert "\u202e" not in page.text
    assert "form-action 'self'" in page.headers["content-security-policy"]
    assert desk.kept(alert(1).id).state == "open", "a program that follows links changes nothing"
    form = dict(part.split("=", 1) for part in link.partition("?")[2].split("&"))
    answered = client.post(link.partition("?")[0], data={**form, "by": "alice", "note": "<i>us</i>"})
    assert answered.status_code == 200
    assert "<i>" not in answered.text
    assert "This alert is acknowledged" in answered.text
    assert [(each.by, each.note) for each in desk.life.changes(alert(1).id)] == [("alice", "<i>us</i>")]
    client.post(link.partition("?")[0], data={**form, "change": "reopen"})
    assert desk.kept(alert(1).id).state == "open"


@pytest.mark.parametrize(
    "change",
    [
        {"signature": "A" * 24},
        {"signature": ""},
        {"until": "99999999999"},
        {"until": "-1"},
        {"until": "²"},
        {"until": ""},
    ],
)
def test_a_link_that_was_not_signed_here_changes_nothing(
    client: httpx.Client, desk: AlertDesk, change: dict[str, str]
) -> None:
    link = path_of(desk.links.acknowledge(alert(1)))
    form = dict(part.split("=", 1) for part in link.partition("?")[2].split("&")) | change
    assert client.post(link.partition("?")[0], data=form).status_code == 403
    assert client.post(link.partition("?")[0], data={**form, "note": "x" * 20_000}).status_code == 413
    assert desk.kept(alert(1).id).state == "open"
    assert 'method="post"' not in client.get(f"/alerts/{alert(1).id}").text, (
        "control: a page without a signature has no form"
    )


def test_the_api_changes_alerts_for_its_token_alone(client: httpx.Client, desk: AlertDesk) -> None:
    where, body = f"/api/alerts/{alert(1).id[:32]}", {"by": "alice", "note": "ours"}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic"}):
        assert client.post(f"{where}/acknowledge", json=body, headers=headers).status_code == 401
    assert desk.kept(alert(1).id).state == "open"
    right = {"Authorization": f"Bearer {TOKEN.decode()}"}
    for change, after in (("acknowledge", "acknowledged"), ("reopen", "open"), ("resolve", "resolved")):
        answer = client.post(f"{where}/{change}", json=body, headers=right)
        assert (answer.status_code, answer.json()["state"]) == (200, after)
    assert [each["by"] for each in client.get(where).json()["changes"]] == ["alice"] * 3
    assert client.post("/api/alerts/ffff/acknowledge", json=body, headers=right).status_code == 404
    made = client.post("/api/silences", json={**body, "rule": "acme-release", "hours": 2}, headers=right)
    assert made.status_code == 201
    assert client.post("/api/silences", json={**body, "hours": 2}, headers=right).status_code == 422
    assert client.delete(f"/api/silences/{made.json()['number']}", headers=right).status_code == 204
    assert client.delete(f"/api/silences/{made.json()['number']}", headers=right).status_code == 404


def test_without_a_token_file_the_api_is_read_only(desk: AlertDesk) -> None:
    with served(replace(desk, token=b"")) as client:
        answer = client.post(
            f"/api/alerts/{alert(1).id}/acknowledge", json={"by": "a"}, headers={"Authorization": "Basic"}
        )
        assert answer.status_code == 403

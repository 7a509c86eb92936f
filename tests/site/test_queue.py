"""What is on its way to subscribers: nothing lost, nothing under another key, and quiet weeks that say their worth."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
from aiosmtpd.controller import Controller
from limits import RateLimitItemPerSecond
from msgspec.structs import replace
from sqlalchemy import select
from typer.testing import CliRunner

from alerts.alert import Alert, Owner, Severity
from monitor.commands.subscribers import bring, delete, export, list_subscribers, show, stats
from monitor.site.fan_out import FanOut
from monitor.site.weekly import put_weekly
from monitor.store.asks import Asks
from monitor.store.database import Database
from monitor.store.notices import Notices
from monitor.store.outbox import QueuedAlert, put
from monitor.store.site_tables import NoticeRow
from monitor.store.sql import table
from rules.matching.matcher import PREFIX
from tests.site.scene import REPOSITORY, Scene, config_for, link_in, scene, text_of, write_config

MIA = "mia@acme.example"


class Killed(BaseException):
    """The process ends here."""


def an_alert(acme: Scene, number: int = 1) -> Alert:
    """An alert of what the first subscription asks for, committed as following commits one."""
    account = acme.site.subscribers.all(1)[0]
    ask = acme.site.subscribers.subscriptions(account.id)[0].ask
    alert = Alert(
        id=f"alert-{number}",
        kind="unexpected-signing",
        owner=Owner.SIGNING,
        severity=Severity.PAGE,
        title="Unexpected signing",
        summary="Somebody signed.",
        consequence="It verifies as yours.",
        next_step="Look.",
        created_at=acme.clock(),
        reasons=("It was built from a branch.",),
        log="rekor-v2",
        index=number,
        rule=f"{PREFIX}{ask}",
    )
    with acme.store.database.write() as connection:
        put(connection, [QueuedAlert(alert, ["subscribers"], acme.clock())], acme.clock())
    return alert


def keys_of(acme: Scene) -> list[str]:
    with acme.store.database.read() as connection:
        return sorted(connection.execute(select(table(NoticeRow).c.key)).scalars())


def test_a_fan_out_that_was_killed_is_finished_with_the_same_keys(acme: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        acme.subscribe(acme.visitor(), f"u{number}@acme.example")
    alert = an_alert(acme)
    chunks = Notices._add_alerts
    done: list[int] = []

    def dying(self: Notices, *arguments: Any) -> int:
        if len(done) == 2:
            raise Killed
        done.append(1)
        return chunks(self, *arguments)

    monkeypatch.setattr("monitor.site.fan_out._CHUNK", 1)
    monkeypatch.setattr(Notices, "_add_alerts", dying)
    with pytest.raises(Killed):
        FanOut(acme.store.database).send(alert, alert.id, acme.clock())
    monkeypatch.setattr(Notices, "_add_alerts", chunks)
    half = [key for key in keys_of(acme) if key.startswith("alert-1")]
    assert len(half) == 2
    FanOut(acme.store.database).send(alert, alert.id, acme.clock())
    whole = [key for key in keys_of(acme) if key.startswith("alert-1")]
    assert len(whole) == 5
    assert set(half) < set(whole)
    FanOut(acme.store.database).send(alert, alert.id, acme.clock())
    assert [key for key in keys_of(acme) if key.startswith("alert-1")] == whole


def test_a_crash_after_the_mail_repeats_the_same_mail(acme: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    acme.subscribe(acme.visitor(), MIA)
    alert = an_alert(acme)
    FanOut(acme.store.database).send(alert, alert.id, acme.clock())

    def dying(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Notices, "finish", dying)
        with pytest.raises(Killed):
            acme.deliver()
    acme.site.notices.release()
    acme.deliver()
    first, second = acme.mailbox.to(MIA)[1:]
    assert first["Message-ID"] == second["Message-ID"]
    assert text_of(first) == text_of(second)
    acme.deliver()
    assert len(acme.mailbox.to(MIA)) == 3


def test_a_confirmation_is_whole_or_not_there(acme: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = acme.visitor()
    visitor.post(
        "/subscribe", {"name": REPOSITORY, "email": MIA, "do": "subscribe"}, page=f"/subscribe?name={REPOSITORY}"
    )
    acme.deliver()
    token = link_in(acme.mailbox.to(MIA)[-1], "confirm").rpartition("/")[2]

    def dying(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("monitor.store.subscribers.count", dying)
        with pytest.raises(Killed):
            acme.site.subscribers.confirm(token)
    assert acme.site.subscribers.by_address(MIA) is None
    assert Asks(acme.store.database).in_force() == 0
    assert acme.site.subscribers.confirm(token) is not None
    assert acme.site.subscribers.confirm(token) is None
    assert Asks(acme.store.database).in_force() == 1


@pytest.fixture
def hook() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]], list[int]]]:
    """A receiver: what it got, and the statuses it answers with next."""
    got: list[tuple[dict[str, str], bytes]] = []
    statuses: list[int] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            code = str(json.loads(body)["data"].get("code", "")).encode()
            self.send_response(statuses.pop(0) if statuses else 200)
            self.send_header("content-length", str(len(code)))
            self.end_headers()
            self.wfile.write(code)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook", got, statuses
    server.shutdown()
    server.server_close()


def test_a_webhook_is_proven_signed_and_its_secret_changes_with_overlap(
    acme: Scene, hook: tuple[str, list[tuple[dict[str, str], bytes]], list[int]]
) -> None:
    url, got, _ = hook
    mia = acme.visitor()
    acme.subscribe(mia, MIA)
    page = mia.post("/destinations", {"kind": "webhook", "target": url}, page="/account", expect=200).text
    first = page.partition('class="secret">')[2].partition("<")[0]
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    place = acme.site.subscribers.destinations.of(account.id)[1]
    assert place.state == "ready"
    page = mia.post(f"/destinations/{place.id}/rotate", page="/account", expect=200).text
    second = page.partition('class="secret">')[2].partition("<")[0]
    assert second not in mia.get("/destinations").text
    alert = an_alert(acme)
    FanOut(acme.store.database).send(alert, alert.id, acme.clock())
    acme.deliver()
    headers, body = got[-1]
    for secret in (first, second):
        assert _signature(secret, headers, body) in headers["webhook-signature"].split(" ")
    acme.clock.advance(hours=25)
    alert = an_alert(acme, 2)
    FanOut(acme.store.database).send(alert, alert.id, acme.clock())
    acme.deliver()
    headers, body = got[-1]
    assert headers["webhook-signature"] == _signature(second, headers, body)


def _signature(secret: str, headers: dict[str, str], body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def test_a_receiver_that_is_down_waits_alone_and_is_suspended_after_a_week(
    acme: Scene, hook: tuple[str, list[tuple[dict[str, str], bytes]], list[int]]
) -> None:
    url, got, statuses = hook
    mia = acme.visitor()
    acme.subscribe(mia, MIA)
    mia.post("/destinations", {"kind": "webhook", "target": url}, page="/account", expect=200)
    statuses += [503] * 50
    alert = an_alert(acme)
    FanOut(acme.store.database).send(alert, alert.id, acme.clock())
    acme.deliver()
    assert len(acme.mailbox.to(MIA)) == 2, "the mail does not wait for the webhook"
    for _ in range(9):
        acme.clock.advance(days=1)
        acme.deliver()
    ids = {headers["webhook-id"] for headers, _ in got[1:]}
    assert len(ids) == 1, "each attempt has the same key"
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    assert [each.state for each in acme.site.subscribers.destinations.of(account.id)] == ["ready", "suspended"]


def test_the_limit_for_one_receiving_host_postpones_and_counts_no_failure(
    acme: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        acme.subscribe(acme.visitor(), f"u{number}@acme.example")
    acme.courier.close()
    monkeypatch.setattr(acme.courier, "_threads", ThreadPoolExecutor(2))
    monkeypatch.setattr(acme.courier, "_per_host", RateLimitItemPerSecond(2))
    alert = an_alert(acme)
    FanOut(acme.store.database).send(alert, alert.id, acme.clock())
    before = len(acme.mailbox.messages)
    sent = acme.courier.run_pass()
    assert (sent.delivered, sent.failed) == (2, 0)
    assert len(acme.mailbox.messages) - before == 2


@pytest.mark.parametrize("allowed", [1, 3])
def test_one_address_gets_so_many_messages_a_minute_and_the_rest_in_one_digest(
    tmp_path: Path, database: Database, allowed: int
) -> None:
    limits = replace(config_for(tmp_path, 1, 1).limits, messages_per_address_per_minute=allowed)
    with scene(tmp_path, database, limits=limits) as acme:
        for address in (MIA, "theo@acme.example"):
            acme.subscribe(acme.visitor(), address)
        acme.mailbox.messages.clear()
        acme.clock.advance(minutes=2)

        def tell(number: int) -> None:
            alert = an_alert(acme, number)
            FanOut(acme.store.database).send(alert, alert.id, acme.clock())

        for number in range(8):
            tell(number)
            sent = acme.courier.run_pass()
            assert (sent.failed, sent.given_up) == (0, 0)
            acme.clock.advance(seconds=2)
        assert [len(acme.mailbox.to(each)) for each in (MIA, "theo@acme.example")] == [allowed, allowed]
        acme.clock.advance(minutes=1)
        acme.deliver()
        for address in (MIA, "theo@acme.example"):
            *singles, digest = acme.mailbox.to(address)
            assert len(singles) == allowed
            assert text_of(digest).startswith(f"{8 - allowed} signings you did not expect"), "nothing is lost"
        with acme.store.database.read() as connection:
            rows = connection.execute(select(table(NoticeRow).c.attempts, table(NoticeRow).c.state)).all()
        assert {tuple(row) for row in rows if row.state != "pending"} == {(0, "delivered")}, "waiting is no attempt"
        assert "pending" not in {row.state for row in rows}


def test_a_mail_server_that_is_not_there_delays_and_loses_nothing(acme: Scene) -> None:
    acme.subscribe(acme.visitor(), MIA)
    alert = an_alert(acme)
    FanOut(acme.store.database).send(alert, alert.id, acme.clock())
    port = acme.smtp.port
    acme.smtp.stop()
    sent = acme.courier.run_pass()
    assert (sent.delivered, sent.failed, sent.given_up) == (0, 1, 0)
    acme.smtp = Controller(acme.mailbox, hostname="127.0.0.1", port=port)
    acme.smtp.start()
    acme.clock.advance(hours=2)
    acme.deliver()
    acme.deliver()
    assert len(acme.mailbox.to(MIA)) == 2


def test_a_quiet_week_says_what_its_silence_is_worth(acme: Scene) -> None:
    acme.subscribe(acme.visitor(), MIA)
    acme.clock.advance(days=8)
    acme.store.health.went_well("rekor-v2", acme.clock(), acme.clock())
    assert put_weekly(acme.site) == 1
    assert put_weekly(acme.site) == 0, "once a week"
    acme.deliver()
    first = text_of(acme.mailbox.to(MIA)[-1])
    assert first.splitlines()[0] == "Nothing unexpected, 0 expected, but not everything was read."
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    change = acme.site.subscribers.subscriptions(account.id)[0].change
    Asks(acme.store.database).offered_from("rekor-v2", change, acme.clock())
    acme.clock.advance(days=8)
    acme.store.health.went_well("rekor-v2", acme.clock(), acme.clock())
    put_weekly(acme.site)
    acme.deliver()
    second = text_of(acme.mailbox.to(MIA)[-1])
    assert second.splitlines()[0] == "Nothing unexpected, 0 expected."
    assert "Every entry of 1 log was read and proven" in second
    assert "/leave/" in str(acme.mailbox.to(MIA)[-1]["List-Unsubscribe"])
    acme.site.subscribers.set_weekly(account.id, on=False)
    acme.clock.advance(days=30)
    assert put_weekly(acme.site) == 0


def test_old_messages_and_links_are_forgotten(acme: Scene) -> None:
    acme.subscribe(acme.visitor(), MIA)
    acme.clock.advance(days=100)
    acme.courier.tidy()
    with acme.store.database.read() as connection:
        left = connection.execute(select(table(NoticeRow)).where(table(NoticeRow).c.state != "pending")).all()
    assert left == []


def test_the_operators_commands_show_move_and_delete_accounts(tmp_path: Path, acme: Scene) -> None:
    acme.subscribe(acme.visitor(), MIA)
    config = write_config(tmp_path, acme)
    app = typer.Typer()
    for name, command in (
        ("list", list_subscribers),
        ("show", show),
        ("export", export),
        ("import", bring),
        ("delete", delete),
        ("stats", stats),
    ):
        app.command(name)(command)

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "--config", str(config)])
        assert done.exit_code == 0, done.output
        return done.output

    assert MIA in run("list")
    assert json.loads(run("show", MIA))["subscriptions"][0]["name"] == REPOSITORY
    run("export", "--output", str(tmp_path / "out.jsonl"))
    run("delete", MIA, "--yes")
    assert acme.site.subscribers.by_address(MIA) is None
    run("import", str(tmp_path / "out.jsonl"))
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    assert [each.subject for each in acme.site.subscribers.subscriptions(account.id)] == [REPOSITORY]
    counted = json.loads(run("stats", "--json"))
    assert (counted["subscribers"], counted["left"]) == (1, 1)
    assert {each["action"] for each in counted["actions"]} >= {"show", "export", "delete", "import"}

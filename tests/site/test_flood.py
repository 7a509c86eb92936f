"""Many at once: requests, sign-ups, subscribers of a name, alerts for a channel. Small here, whole in `make soak`.

`SIGNWATCH_SOAK_REQUESTS` and `SIGNWATCH_SOAK_MAILS` make the numbers of requests and of mails others.
"""

import gc
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from limits import RateLimitItemPerSecond
from sqlalchemy import func, select

from monitor.site.fan_out import FanOut
from monitor.site.weekly import forget_old
from monitor.site_config import SiteLimits
from monitor.store.database import Database
from monitor.store.site_tables import (
    DestinationRow,
    LinkRow,
    NoticeRow,
    RateRow,
    SessionRow,
    SubscriberRow,
    SubscriptionRow,
)
from monitor.store.sql import new_id, table, text_key
from tests.site.scene import LOG, REPOSITORY, Mailbox, Scene, scene, text_of
from tests.site.test_queue import an_alert
from tests.support.waiting import PATIENCE

_MIB = 1024
_SOAK = pytest.mark.soak
_REQUESTS = int(os.environ.get("SIGNWATCH_SOAK_REQUESTS", "50000"))
_MAILS = int(os.environ.get("SIGNWATCH_SOAK_MAILS", "100000"))


def resident() -> int:
    """KiB of this process in memory."""
    gc.collect()
    fields = Path("/proc/self/status").read_text(encoding="ascii").split()
    return int(fields[fields.index("VmRSS:") + 1])


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def rows(acme: Scene) -> dict[str, int]:
    kept = (LinkRow, NoticeRow, RateRow, SessionRow, SubscriberRow, SubscriptionRow, DestinationRow)
    with acme.store.database.read() as connection:
        return {
            model.__name__: connection.execute(select(func.count()).select_from(table(model))).scalar_one()
            for model in kept
        }


def ask(client: httpx.Client, number: int) -> int:
    """One of the things that visitors, scanners and programs ask for; the status of the answer."""
    paths = (
        "/",
        f"/look?name={REPOSITORY}",
        f"/look?name=github.com/acme/other-{number}",
        "/look?name=gihub.com/acme/widget",
        f"/subscribe?name={REPOSITORY}",
        f"/signing?name={REPOSITORY}&log={LOG}&index={number % 30}",
        f"/look.json?name={REPOSITORY}",
        "/confirm/" + "0" * 64,
        f"/leave/{number}",
        "/subscriptions",
        "/api/v1/subscriptions",
        "/api/openapi.json",
        "/style.css",
        f"/nothing/{number}",
    )
    forwarded = {"x-forwarded-for": f"198.51.{number % 40}.{number % 250}"}
    return client.get(paths[number % len(paths)], headers=forwarded).status_code


@pytest.mark.parametrize("requests", [420, pytest.param(_REQUESTS, marks=_SOAK)])
def test_requests_leave_no_memory_descriptor_or_row_behind(tmp_path: Path, database: Database, requests: int) -> None:
    limits = SiteLimits(requests_per_minute=1_000_000, api_requests_per_minute=1_000_000)
    with scene(tmp_path, database, limits=limits, trusted_proxies=("127.0.0.1/32",)) as acme:
        acme.a_year()
        with (
            httpx.Client(base_url=acme.url, trust_env=False, timeout=PATIENCE) as client,
            ThreadPoolExecutor(4) as threads,
        ):
            warm = Counter(threads.map(lambda number: ask(client, number), range(280)))
            before, open_before, kept = resident(), descriptors(), rows(acme)
            seen: Counter[int] = Counter()
            for start in range(0, requests, 500):
                # Part by part: a future for each request would be memory of this test.
                part = range(start, min(start + 500, requests))
                seen.update(threads.map(lambda number: ask(client, number), part))
            grown, opened = resident() - before, descriptors() - open_before
        assert set(seen) == set(warm) == {200, 303, 400, 401, 404}
        assert grown < 48 * _MIB, f"{grown // _MIB} MiB more after {requests} requests"
        assert opened <= 8
        acme.clock.advance(days=2)
        forget_old(acme.site)
        assert rows(acme) == kept


@pytest.mark.parametrize("number", [60, pytest.param(10_000, marks=_SOAK)])
def test_sign_ups_from_one_address_are_slowed_without_slowing_others(
    tmp_path: Path, database: Database, number: int
) -> None:
    with scene(tmp_path, database, limits=SiteLimits(), trusted_proxies=("127.0.0.1/32",)) as acme:
        visitor = acme.visitor()
        csrf = visitor.csrf()

        def sign_up(client: str, address: str) -> httpx.Response:
            fields = {"csrf": csrf, "name": REPOSITORY, "email": address, "do": "subscribe"}
            headers = {"origin": acme.url, "x-forwarded-for": client}
            return visitor.http.post("/subscribe", data=fields, headers=headers)

        answers: Counter[int] = Counter()
        others = 0
        for each in range(number):
            answer = sign_up("203.0.113.7", f"victim{each}@acme.example")
            answers[answer.status_code] += 1
            assert answer.status_code != 429 or int(answer.headers["retry-after"]) >= 1
            if each % (number // 5) == number // 10:
                others += 1
                assert sign_up(f"198.51.100.{others}", f"person{others}@other.example").status_code == 303
        assert answers == {303: 10, 429: number - 10}
        while acme.courier.run_pass().delivered:
            pass
        got = Counter(str(mail["To"]).partition("@")[2] for mail in acme.mailbox.messages)
        assert got == {"acme.example": 10, "other.example": others}


def follow_by(acme: Scene, number: int, domains: int) -> None:
    """Accounts that ask for what the first one asks for, each told at its own address."""
    first = acme.site.subscribers.all(1)[0]
    [mine] = acme.site.subscribers.subscriptions(first.id)
    now = acme.clock()
    for start in range(0, number, 5_000):
        people, held, places = [], [], []
        for each in range(start, min(start + 5_000, number)):
            # Every fourth has an address at one large provider.
            domain = "large.example" if each % 4 == 0 else f"d{each % domains}.example"
            person, address = new_id(), f"u{each}@{domain}"
            people.append(
                {
                    "id": person,
                    "address": address,
                    "address_key": text_key(address),
                    "confirmed_at": now,
                    "suspended_why": "",
                    "weekly_from": now,
                }
            )
            row = {"id": person, "subscriber": person, "ask": mine.ask, "created_at": now}
            held.append(row | {"subject": REPOSITORY, "title": "acme/widget"})
            place = {"id": new_id(), "subscriber": person, "kind": "mail", "target": address, "host": domain}
            texts = dict.fromkeys(("secret", "former_secret", "error"), "")
            places.append(place | texts | {"state": "ready", "created_at": now, "bounces": 0})
        with acme.store.database.write() as connection:
            for model, several in ((SubscriberRow, people), (SubscriptionRow, held), (DestinationRow, places)):
                connection.execute(table(model).insert(), several)


@pytest.mark.parametrize("number", [300, pytest.param(_MAILS, marks=_SOAK)])
def test_every_subscriber_of_one_name_gets_one_mail_in_bounded_batches_and_politely(
    tmp_path: Path, database: Database, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scene(tmp_path, database) as acme:
        acme.subscribe(acme.visitor(), "mia@acme.example")
        follow_by(acme, number, domains=number // 3)
        acme.mailbox.messages.clear()
        alert = an_alert(acme)
        got: Counter[str] = Counter()

        async def counted_mail(_mailbox: Mailbox, _server: SMTP, _session: Session, envelope: Envelope) -> str:
            # Counted and forgotten: a hundred thousand kept mails would be memory of this test.
            got[envelope.rcpt_tos[0]] += 1
            return "250 taken"

        monkeypatch.setattr(Mailbox, "handle_DATA", counted_mail)
        before = resident()
        FanOut(acme.store.database).send(alert, alert.id, acme.clock())
        claims: list[int] = []
        postponed: Counter[str] = Counter()
        claim, postpone = acme.site.notices.claim, acme.site.notices.postpone

        def counted(*arguments: object) -> object:
            found = claim(*arguments)  # type: ignore[arg-type]
            claims.append(len(found))
            return found

        def noted(notices: list[object], at: object) -> None:
            postponed["later"] += len(notices)
            postpone(notices, at)  # type: ignore[arg-type]

        monkeypatch.setattr(type(acme.site.notices), "claim", lambda _, *arguments: counted(*arguments))
        monkeypatch.setattr(type(acme.site.notices), "postpone", lambda _, *arguments: noted(*arguments))
        monkeypatch.setattr(acme.courier, "_per_host", RateLimitItemPerSecond(max(20, number // 100)))
        delivered = 0
        while delivered < number + 1:
            sent = acme.courier.run_pass()
            delivered += sent.delivered
            assert (sent.failed, sent.given_up) == (0, 0)
            acme.clock.advance(seconds=2)
        grown = resident() - before
        assert grown < 96 * _MIB, f"{grown // _MIB} MiB more after {number} mails"
        assert len(got) == number + 1
        assert set(got.values()) == {1}
        assert max(claims) <= 1_000, "one bounded batch at a time"
        assert postponed["later"] > 0, "one provider is not told of all at once"


@pytest.fixture
def slack() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """A receiver like Slack's: it takes a message and says ok."""
    got: list[dict[str, object]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/services/x", got
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("number", [60, pytest.param(5_000, marks=_SOAK)])
def test_a_flood_of_alerts_is_few_messages_in_a_slack_channel_and_counts_all(
    tmp_path: Path, database: Database, number: int, slack: tuple[str, list[dict[str, object]]]
) -> None:
    url, got = slack
    with scene(tmp_path, database) as acme:
        acme.subscribe(acme.visitor(), "mia@acme.example")
        account = acme.site.subscribers.by_address("mia@acme.example")
        assert account is not None
        place = {"host": "127.0.0.1", "secret": "", "state": "ready"}
        acme.site.subscribers.destinations.add(account.id, "slack", url, **place)
        for each in range(number):
            alert = an_alert(acme, each)
            FanOut(acme.store.database).send(alert, alert.id, acme.clock())
        while acme.courier.run_pass().delivered:
            acme.clock.advance(seconds=2)
        batches = -(-2 * number // 1_000)
        told = sum(
            int(str(each["text"]).split()[0]) for each in got if "signings you did not expect" in str(each["text"])
        )
        assert told + sum("signings" not in str(each["text"]) for each in got) == number
        assert len(got) <= batches + 10
        blocks = json.dumps(got[0])
        assert "was it you?" in blocks
        assert len(blocks) < 20_000
        mails = acme.mailbox.to("mia@acme.example")[1:]
        assert sum(int(text_of(mail).split()[0]) for mail in mails) == number

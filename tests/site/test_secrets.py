"""Five hundred secrets of forty subscribers are on no other's page, and in no log line, metric, error or Referer."""

import json
import logging
import re
import secrets
from dataclasses import dataclass, field
from datetime import timedelta

import httpx
import pytest
from limits import RateLimitItemPerSecond
from sqlalchemy import select, text

from monitor.site.fan_out import FanOut
from monitor.site.leaving import DESTINATION, SUBSCRIPTION, WEEKLY, leave_link
from monitor.site.parts import Site
from monitor.site.sessions import Visitor as Browser
from monitor.site.weekly import put_weekly
from monitor.store.site_tables import NoticeRow
from monitor.store.sql import table
from monitor.telemetry.prometheus import PrometheusMeter
from rules.asking import ask_of
from rules.subject import read_subject
from tests.site.scene import REPOSITORY, Scene
from tests.site.test_queue import an_alert
from tests.site.test_safety import _all_routes, paths_of
from tests.support.waiting import PATIENCE

PEOPLE = 40
OWN, VICTIM = "theo@acme.example", "person0@acme.example"


@dataclass
class Kept:
    """Secrets by the address they belong to, and the paths that hold one."""

    of: dict[str, list[str]] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)

    def found(self, told: str, besides: str = "") -> list[str]:
        """Secrets of others than one address in a text."""
        return [each for owner, several in self.of.items() if owner != besides for each in several if each in told]


@pytest.fixture
def kept(acme: Scene) -> Kept:
    """Forty accounts, each with thirteen secrets: tokens, sessions, links of mails, feeds, receivers and their keys."""
    made, site = Kept(), acme.site
    for number in range(PEOPLE + 1):
        address = OWN if number == PEOPLE else f"person{number}@acme.example"
        account = site.subscribers.ensure_account(address)
        mine = site.subscribers.subscribe(
            account.id, ask_of(read_subject(REPOSITORY).select(), {}), REPOSITORY, "widget"
        )
        token, session, browser = f"swt_{secrets.token_urlsafe(32)}", secrets.token_hex(32), secrets.token_hex(32)
        site.subscribers.add_token(account.id, token, "script", "write")
        site.subscribers.open_session(session, account.id)
        hook, former, feed = (f"whsec_{secrets.token_hex(20)}AAA=" for _ in range(3))
        slack = f"https://127.0.0.1/services/{secrets.token_hex(12)}"
        add = site.subscribers.destinations.add
        hook_id = add(account.id, "webhook", "https://127.0.0.1/hook", host="127.0.0.1", secret=hook, state="waiting")
        site.subscribers.destinations.change(hook_id, account.id, former_secret=former)
        add(account.id, "slack", slack, host="127.0.0.1", secret="", state="waiting")
        feed_id = add(account.id, "atom", "", host="", secret=feed, state="ready")
        visitor = Browser(browser, is_new=False, csrf="", subscriber=account, session=session, client="203.0.113.7")
        sealed = [
            site.keys.seal("answer", mine.id, "rekor-v2", 1),
            site.keys.seal("feed", feed_id, feed),
            *(
                leave_link(site, kind, each).rpartition("/")[2]
                for kind, each in ((SUBSCRIPTION, mine.id), (DESTINATION, hook_id), (WEEKLY, account.id))
            ),
        ]
        for purpose in ("confirm", "sign-in"):
            payload = {"document": "{}", "keys": "[]", "subject": REPOSITORY, "title": "widget"}
            site.mail_link(purpose, address, visitor, payload, timedelta(hours=1), letter={"title": "widget"})
        links = [site.keys.link_token(nonce) for nonce in nonces_of(site, address)]
        made.of[address] = [token, session, browser, hook, former, feed, slack.rpartition("/")[2], *sealed, *links]
        answers = (f"/{page}/{sealed[0]}" for page in ("answer", "widen", "not-mine", "evidence"))
        leaves = (f"/leave/{each}" for each in sealed[2:])
        made.paths += [*answers, f"/feed/{sealed[1]}", *leaves, f"/confirm/{links[0]}", f"/sign-in/{links[1]}"]
    return made


def nonces_of(site: Site, address: str) -> list[str]:
    """Nonces of the letters that wait for an address, in their order."""
    notice = table(NoticeRow)
    with site.database.read() as connection:
        letters = connection.execute(select(notice.c.document).where(notice.c.kind == "letter").order_by(notice.c.id))
        read = [json.loads(each) for each in letters.scalars()]
    return [each["nonce"] for each in read if each.get("to") == address]


def everything_asked(acme: Scene, client: httpx.Client, csrf: str, kept: Kept) -> list[tuple[str, httpx.Response]]:
    """Each route with the victim's ids, and each secret path with a letter changed, as another visitor asks."""
    answers = []
    for method in ("GET", "POST", "PUT", "DELETE"):
        for route in _all_routes(acme, method):
            path = paths_of(acme, VICTIM, route)
            body = {
                "csrf": csrf,
                "name": REPOSITORY,
                "email": "x@acme.example",
                "kind": "webhook",
                "target": "https://x",
            }
            if path == "/account/delete" or "sign-out" in path or route.path in {"/api/v1/account", "/leave/{token}"}:
                continue
            sent = {"json": body} if route.path.startswith("/api/") else {"data": body}
            known = {"name": REPOSITORY, "log": "rekor-v2", "index": 0}
            more = {"params": known} if method == "GET" else sent
            answers.append((path, client.request(method, path, headers={"origin": acme.url}, **more)))
    for path in kept.paths[:: len(kept.paths) // 40]:
        for wrong in (path[:-1], f"{path}x", path.replace("/", "/x", 1)):
            answers.append((wrong, client.get(wrong)))  # noqa: PERF401  a request is no item of a list
    return answers


def written(caplog: pytest.LogCaptureFixture) -> str:
    """Lines that the site logged, with tracebacks, without those of the test's own client and mail server."""
    form = logging.Formatter("%(name)s %(message)s")
    ours = (each for each in caplog.records if not each.name.startswith(("http", "asyncio", "mail")))
    return "\n".join(form.format(each) for each in ours)


def test_no_secret_is_on_a_page_of_others_in_a_log_a_metric_an_error_or_a_referer(
    acme: Scene, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert sum(map(len, kept.of.values())) >= 500
    assert all(len(each) >= 20 for several in kept.of.values() for each in several), "control"
    theo, stranger = acme.visitor(), acme.visitor()
    theo.http.cookies.update({"signwatch": kept.of[OWN][1], "signwatch-browser": kept.of[OWN][2]})
    assert "acme/widget" in theo.get("/subscriptions").text or "widget" in theo.get("/subscriptions").text, "control"
    token = {"authorization": f"Bearer {kept.of[OWN][0]}"}
    with httpx.Client(base_url=acme.url, headers=token, trust_env=False, timeout=PATIENCE) as program:
        clients = ((theo.http, theo.csrf("/account")), (stranger.http, stranger.csrf()), (program, ""))
        answers = [each for client, csrf in clients for each in everything_asked(acme, client, csrf, kept)]
    assert len(answers) > 250
    for path, answer in answers:
        told = f"{answer.text}\n{answer.headers}"
        assert kept.found(told, besides=OWN) == [], path
        assert answer.headers["referrer-policy"] == "same-origin", path
    # Where a secret stands in the address, the page leads nowhere that a browser would tell the address.
    for path in kept.paths[:9]:
        page = stranger.http.get(path)
        assert not re.search(r"""(?:href|src|action)=["'](?:https?:)?//(?!127\.0\.0\.1)""", page.text), path
        assert page.headers["cache-control"] == "no-store"


def test_no_secret_is_logged_or_told_when_mails_go_out_and_when_the_site_is_ill(
    acme: Scene, kept: Kept, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(acme.courier, "_per_host", RateLimitItemPerSecond(10_000))
    alert = an_alert(acme)
    FanOut(acme.store.database).send(alert, alert.id, acme.clock())
    acme.clock.advance(days=8)
    put_weekly(acme.site)
    for _ in range(30):
        acme.courier.run_pass()
        acme.clock.advance(seconds=2)
    subjects = {str(mail["Subject"]) for mail in acme.mailbox.messages}
    assert len(acme.mailbox.messages) >= 3 * PEOPLE, subjects
    for mail in acme.mailbox.messages:
        assert kept.found(str(mail), besides=str(mail["To"])) == [], mail["Subject"]
    meter = PrometheusMeter("test", ["notices"])
    meter.subscribers(acme.courier.tidy())
    assert kept.found(meter.expose().decode()) == []
    stranger = acme.visitor()
    with acme.store.database.write() as connection:
        for name in ("link", "subscription", "destination"):
            connection.execute(text(f"ALTER TABLE {name} RENAME TO {name}_away"))
    ill = [stranger.http.get(path) for path in kept.paths[:27]]
    refused = [each for each in ill if each.status_code == 503]
    assert len(refused) > 15, "control: the site is ill"
    for answer in refused:
        assert kept.found(answer.text) == []
    told = written(caplog)
    assert "site_fault" in told, "control: it is logged"
    assert kept.found(told) == []
    assert not [address for address in kept.of if address in told]

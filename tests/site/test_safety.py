"""A public page on the Internet: each test is a thing that a stranger, another subscriber or a log must not achieve."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import event, func, select

from monitor.cli import run_command
from monitor.site.app import create_site
from monitor.site.leaving import DESTINATION, SUBSCRIPTION, WEEKLY, leave_link
from monitor.site.sessions import RequestRefused
from monitor.site_config import SiteLimits
from monitor.store.database import Database
from monitor.store.sql import Base
from rules.asking import ask_of, read_ask
from rules.subject import NotASubject, read_subject
from settings.document import DocumentError
from sigstore_entries.signing import ChainTrust
from tests.site.scene import HOSTILE, REPOSITORY, Scene, Visitor, link_in, scene, shown, text_of, write_config
from tests.support.waiting import PATIENCE

MIA, THEO = "mia@acme.example", "theo@acme.example"


def routes_of(acme: Scene, method: str) -> list[APIRoute]:
    """Every route of the application that takes a method."""
    app = create_site(acme.site)
    found = [route for route in _flat(app.routes) if isinstance(route, APIRoute) and method in (route.methods or ())]
    assert len(found) > 5, "control: there are routes"
    return found


def _flat(routes: Any) -> Iterator[Any]:
    for route in routes:
        inner = getattr(getattr(route, "original_router", None), "routes", None)
        yield from _flat(inner) if inner is not None else (route,)


def everything(database: Database) -> dict[str, list[Any]]:
    """All that is stored, by table."""
    with database.read() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table)).all()))
            for table in Base.metadata.sorted_tables
            # A counter of requests is not a change that anyone asked for.
            if table.name != "rate"
        }


def an_account(acme: Scene, address: str) -> Visitor:
    """A browser that is signed in with a subscription, a webhook, a feed and a token."""
    visitor = acme.visitor()
    acme.subscribe(visitor, address)
    account = acme.site.subscribers.by_address(address)
    assert account is not None
    acme.site.subscribers.destinations.add(
        account.id,
        "webhook",
        "https://hook.example/x",
        host="hook.example",
        secret="whsec_" + "A" * 43 + "=",
        state="ready",
    )
    acme.site.subscribers.destinations.add(account.id, "atom", "", host="", secret="feed", state="ready")
    acme.site.subscribers.add_token(account.id, f"swt_{address}", "script", "write")
    return visitor


def paths_of(acme: Scene, address: str, route: APIRoute) -> str:
    """A route's path with what belongs to an account filled in."""
    subscribers = acme.site.subscribers
    account = subscribers.by_address(address)
    assert account is not None
    values = {
        "subscription": subscribers.subscriptions(account.id)[0].id,
        "destination": subscribers.destinations.of(account.id)[1].id,
        "token_id": subscribers.tokens(account.id)[0].id,
        "number": "1",
        "action": "remove",
        "token": "0" * 64,
    }
    return re.sub(r"{(\w+)}", lambda found: values[found[1]], route.path)


def test_a_form_of_another_site_or_without_its_token_changes_nothing(acme: Scene) -> None:
    mia = an_account(acme, MIA)
    csrf = mia.csrf("/account")
    before = everything(acme.store.database)
    for route in routes_of(acme, "POST"):
        if route.path.startswith("/api/") or route.path == "/leave/{token}":
            continue
        path = paths_of(acme, MIA, route)
        for headers, data in (
            ({}, {}),
            ({"origin": "https://evil.example"}, {"csrf": csrf}),
            ({"origin": "null"}, {"csrf": csrf}),
            ({"sec-fetch-site": "cross-site"}, {"csrf": csrf}),
            ({"origin": acme.url}, {"csrf": "0" * 64}),
        ):
            answer = mia.http.post(path, data=data, headers=headers)
            assert answer.status_code in (403, 405, 404), (path, headers, answer.status_code)
    assert everything(acme.store.database) == before


def test_a_get_changes_nothing_whoever_follows_the_link(acme: Scene) -> None:
    acme.a_year()
    mia = an_account(acme, MIA)
    fields = {"name": REPOSITORY, "email": THEO, "do": "subscribe"}
    acme.visitor().post("/subscribe", fields, page=f"/subscribe?name={REPOSITORY}")
    acme.deliver()
    links = [link_in(acme.mailbox.to(THEO)[-1], "confirm")]
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    subscription = acme.site.subscribers.subscriptions(account.id)[0].id
    [mail, *_] = acme.site.subscribers.destinations.of(account.id)
    stops = ((SUBSCRIPTION, subscription), (DESTINATION, mail.id), (WEEKLY, account.id))
    links += [leave_link(acme.site, kind, each).removeprefix(acme.url) for kind, each in stops]
    before = everything(acme.store.database)
    scanner = acme.visitor()
    for link in links:
        scanner.get(link)
        assert scanner.http.head(link).status_code in (200, 405)
    for route in routes_of(acme, "GET"):
        mia.http.get(paths_of(acme, MIA, route), params={"name": REPOSITORY, "log": "rekor-v2", "index": 0})
    assert everything(acme.store.database) == before


def test_nobody_sees_or_changes_what_is_anothers_on_any_route(acme: Scene) -> None:
    mia, theo, nobody = an_account(acme, MIA), an_account(acme, THEO), acme.visitor()
    csrf = {id(each): each.csrf("/how" if each is nobody else "/account") for each in (theo,)}
    before = {name: rows for name, rows in everything(acme.store.database).items() if name != "session"}
    secrets = {"whsec_", MIA}
    checked = 0
    for method in ("GET", "POST", "PUT", "DELETE"):
        for route in _all_routes(acme, method):
            if (
                "{subscription}" not in route.path
                and "{destination}" not in route.path
                and "{token_id}" not in route.path
            ):
                continue
            path = paths_of(acme, MIA, route)
            is_api = route.path.startswith("/api/")
            body = {"csrf": csrf[id(theo)], "email": "x@acme.example", "do": "subscribe"}
            token = {"authorization": f"Bearer swt_{THEO}"}
            if is_api:
                payload = {
                    "rule": "select: {identity: a@acme.example}",
                    "log": "x",
                    "index": 0,
                    "mine": True,
                    "action": "remove",
                }
                answers = [
                    theo.http.request(method, path, json=_for(route, payload), headers=token),
                    nobody.http.request(method, path, json=_for(route, payload)),
                ]
            else:
                answers = [
                    theo.http.request(
                        method, path, data=body if method == "POST" else None, headers={"origin": acme.url}
                    ),
                    nobody.http.request(method, path),
                ]
            for answer in answers:
                assert answer.status_code in (401, 403, 404, 405), (method, path, answer.status_code, answer.text[:300])
                assert not any(secret in answer.text for secret in secrets)
            checked += 1
    assert checked >= 14
    after = {name: rows for name, rows in everything(acme.store.database).items() if name != "session"}
    assert {k: v for k, v in after.items() if k != "api_token"} == {k: v for k, v in before.items() if k != "api_token"}
    assert "acme/widget" in shown(mia.get("/subscriptions")), "control: the owner still has it"


def _all_routes(acme: Scene, method: str) -> list[APIRoute]:
    app = create_site(acme.site)
    return [route for route in _flat(app.routes) if isinstance(route, APIRoute) and method in (route.methods or ())]


def _for(route: APIRoute, payload: dict[str, Any]) -> dict[str, Any] | None:
    if "announcements" in route.path:
        return {"digest": "ab" * 32} if "POST" in (route.methods or ()) else None
    if "answers" in route.path:
        return {key: payload[key] for key in ("log", "index", "mine")}
    if "destination" in route.path:
        return {"action": payload["action"]}
    return {"rule": payload["rule"]} if "PUT" in (route.methods or ()) else None


def test_a_known_and_an_unknown_address_get_the_same_page_and_the_same_work(acme: Scene) -> None:
    acme.subscribe(acme.visitor(), MIA)
    pages, work = [], []
    for address in (MIA, "unknown@acme.example"):
        visitor = acme.visitor()
        csrf = visitor.csrf()
        with statements(acme.store.database) as counted:
            answer = visitor.http.post("/sign-in", data={"csrf": csrf, "email": address}, headers={"origin": acme.url})
        work.append([each.split("(")[0].split(" SET")[0][:60] for each in counted])
        pages.append((answer.status_code, answer.headers["location"], shown(visitor.get("/sent?what=sign-in"))))
    assert pages[0] == pages[1]
    assert work[0] == work[1]
    acme.deliver()
    assert acme.mailbox.to("unknown@acme.example") == []


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Statements that are executed meanwhile."""
    found: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        found.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def test_no_token_is_stored_logged_or_shown_again(acme: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    mia = acme.visitor()
    acme.subscribe(mia, MIA)
    mia.post("/sign-in", {"email": MIA}, page="/account", expect=303)
    acme.deliver()
    link = link_in(acme.mailbox.to(MIA)[-1], "sign-in")
    made = mia.post("/account/tokens", {"name": "x", "scope": "read"}, page="/account", expect=200)
    token = re.search(r"swt_[A-Za-z0-9_-]{40,}", made.text)
    assert token
    session = mia.http.cookies["signwatch"]
    stored = json.dumps(everything(acme.store.database))
    for secret in (link.rpartition("/")[2], token[0], session):
        assert secret not in stored
        assert secret not in ours(caplog)
    assert token[0] not in mia.get("/account").text
    assert MIA not in ours(caplog)


def ours(caplog: pytest.LogCaptureFixture) -> str:
    """What the site logged, without what the test's own HTTP client did."""
    return "\n".join(
        record.getMessage() for record in caplog.records if not record.name.startswith(("http", "asyncio", "mail"))
    )


def test_sessions_rotate_end_by_idleness_and_everywhere_at_once(acme: Scene) -> None:
    mia = acme.visitor()
    acme.subscribe(mia, MIA)
    first = mia.http.cookies["signwatch"]
    second = acme.visitor()
    second.post("/sign-in", {"email": MIA})
    acme.deliver()
    link = link_in(acme.mailbox.to(MIA)[-1], "sign-in")
    second.post(link, page=link)
    assert second.http.cookies["signwatch"] != first
    second.post("/sign-out", {"everywhere": "yes"}, page="/account")
    mia.get("/subscriptions", expect=401)
    third = acme.visitor()
    third.post("/sign-in", {"email": MIA})
    acme.deliver()
    link = link_in(acme.mailbox.to(MIA)[-1], "sign-in")
    third.post(link, page=link)
    acme.clock.advance(days=10)
    third.get("/subscriptions")
    acme.clock.advance(days=15)
    third.get("/subscriptions", expect=401)


def test_a_session_ends_after_sixty_days_even_where_it_is_used_every_week(acme: Scene) -> None:
    mia = acme.visitor()
    acme.subscribe(mia, MIA)
    for _ in range(8):
        acme.clock.advance(days=7)
        mia.get("/subscriptions")
    acme.clock.advance(days=3, hours=23)
    mia.get("/subscriptions")
    acme.clock.advance(hours=2)
    assert "Sign in first" in shown(mia.get("/subscriptions", expect=401))


def test_a_sign_in_link_works_for_fifteen_minutes_and_then_leads_to_a_new_one(acme: Scene) -> None:
    mia, late = acme.visitor(), acme.visitor()
    acme.subscribe(acme.visitor(), MIA)
    for browser in (mia, late):
        browser.post("/sign-in", {"email": MIA})
        acme.deliver()
    first, second = (link_in(mail, "sign-in") for mail in acme.mailbox.to(MIA)[-2:])
    acme.clock.advance(minutes=14)
    mia.post(first, page=first)
    mia.get("/subscriptions")
    form = {"csrf": late.csrf()}
    acme.clock.advance(minutes=2)
    opened = late.get(second, expect=410)
    pressed = late.http.post(second, data=form, headers={"origin": acme.url})
    assert pressed.status_code == 410
    for page in (opened, pressed):
        assert "This link is too old" in shown(page)
        assert "It worked for 15 minutes. Nothing was changed: ask for a new one." in shown(page)
        assert 'href="/sign-in"' in page.text
    late.get("/subscriptions", expect=401)


def test_cookies_over_https_are_bound_to_the_host(tmp_path: Path, database: Database) -> None:
    with scene(tmp_path, database, public_url="https://watch.example") as acme:
        assert acme.site.config.listen is not None
        host, port = acme.site.config.listen
        answer = httpx.get(
            f"http://{host}:{port}/sign-in", headers={"host": "watch.example"}, trust_env=False, timeout=PATIENCE
        )
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-signwatch-browser=")
        for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
            assert part in cookie
        assert "Domain" not in cookie
        assert answer.headers["strict-transport-security"]


def test_another_host_is_refused_and_never_comes_into_a_mail(acme: Scene) -> None:
    mia = acme.visitor()
    answer = mia.http.get("/", headers={"host": "evil.example"})
    assert answer.status_code == 421
    assert acme.site.config.public_url in answer.text, "the way to the site"
    fields = {"name": REPOSITORY, "email": MIA, "do": "subscribe"}
    mia.post("/subscribe", fields, page=f"/subscribe?name={REPOSITORY}")
    acme.deliver()
    assert (
        re.findall(r"https?://[^/\s]+", text_of(acme.mailbox.to(MIA)[-1]).partition("Open this page")[2])[0] == acme.url
    )


def test_pages_allow_no_script_and_what_a_log_says_stays_inert(acme: Scene) -> None:
    acme.a_year()
    acme.sign(ref=f"refs/heads/{HOSTILE}", days_ago=0.5)
    mia = acme.visitor()
    acme.subscribe(mia, MIA)
    for path in (
        "/",
        f"/look?name={REPOSITORY}",
        f"/subscribe?name={REPOSITORY}",
        "/subscriptions",
        "/account",
        "/how",
    ):
        answer = mia.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script|\son\w+=|\sstyle=|javascript:", answer.text), path
        assert "\u202e" not in answer.text
        assert answer.headers["x-robots-tag"].startswith("noindex")
        assert len(answer.content) < 50_000
    hrefs = re.findall(r'href="([^"]*)"', mia.get(f"/look?name={REPOSITORY}").text)
    assert all(href.startswith(("/", "#")) for href in hrefs), "nothing that a log says is a link"


def test_redirects_stay_on_the_site(acme: Scene) -> None:
    for name in ("//evil.example/x", "https://evil.example/a/b?next=//evil.example", "/\\evil.example/a"):
        answer = acme.visitor().http.get("/look", params={"name": name})
        location = answer.headers.get("location", "/")
        assert location.startswith("/")
        assert not location.startswith("//")


def test_one_client_that_floods_is_told_when_to_come_back_and_slows_only_itself(
    tmp_path: Path, database: Database
) -> None:
    limits = SiteLimits(requests_per_minute=100_000, mails_per_client_per_hour=10)
    with scene(tmp_path, database, limits=limits, trusted_proxies=("127.0.0.1/32",)) as acme:
        flood = acme.visitor()
        csrf = flood.csrf()

        def ask(number: int, client: str) -> httpx.Response:
            headers = {"origin": acme.url, "x-forwarded-for": client}
            data = {"csrf": csrf, "name": REPOSITORY, "email": f"victim{number}@acme.example", "do": "subscribe"}
            return flood.http.post("/subscribe", data=data, headers=headers)

        answers = [ask(number, "203.0.113.9") for number in range(40)]
        assert [each.status_code for each in answers] == [303] * 10 + [429] * 30
        assert 0 < int(answers[-1].headers["retry-after"]) <= 3600
        assert ask(99, "198.51.100.7").status_code == 303
        acme.deliver()
        assert len(acme.mailbox.messages) == 11


def test_a_forwarded_address_counts_only_behind_a_configured_proxy(tmp_path: Path, database: Database) -> None:
    limits = SiteLimits(requests_per_minute=100_000, mails_per_client_per_hour=2)
    with scene(tmp_path, database, limits=limits) as acme:
        flood = acme.visitor()
        csrf = flood.csrf()
        codes = []
        for number in range(4):
            headers = {"origin": acme.url, "x-forwarded-for": f"203.0.113.{number}"}
            data = {"csrf": csrf, "email": f"victim{number}@acme.example"}
            codes.append(flood.http.post("/sign-in", data=data, headers=headers).status_code)
        assert codes == [303, 303, 429, 429]


def test_an_address_gets_at_most_three_mails_a_day_and_the_page_does_not_tell(acme: Scene) -> None:
    for _ in range(5):
        visitor = acme.visitor()
        fields = {"name": REPOSITORY, "email": MIA, "do": "subscribe"}
        page = visitor.post("/subscribe", fields, page=f"/subscribe?name={REPOSITORY}")
        assert "Look into your mailbox" in shown(page)
    acme.deliver()
    assert len(acme.mailbox.to(MIA)) == 3


def test_links_that_cannot_be_used_say_what_happened_and_what_to_do(acme: Scene) -> None:
    mia = acme.visitor()
    fields = {"name": REPOSITORY, "email": MIA, "do": "subscribe"}
    mia.post("/subscribe", fields, page=f"/subscribe?name={REPOSITORY}")
    acme.deliver()
    link = link_in(acme.mailbox.to(MIA)[-1], "confirm")
    assert "incomplete" in shown(mia.get(link[:-9], expect=404))
    acme.clock.advance(hours=25)
    assert "too old" in shown(mia.get(link, expect=410))
    foreign = acme.site.keys.seal("answer", "x", "y", 1)
    assert "not one that this site sent" in shown(mia.get(f"/leave/{foreign}", expect=404))
    assert "not one that this site sent" in shown(mia.get("/answer/%E2%80%AE", expect=404))


def test_webhooks_do_not_reach_private_addresses(tmp_path: Path, database: Database) -> None:
    with scene(tmp_path, database, allow_private=False) as acme:
        mia = acme.visitor()
        acme.subscribe(mia, MIA)
        for target in (
            "https://127.0.0.1/x",
            "https://169.254.169.254/latest",
            "http://hook.example/",
            "file:///etc/passwd",
        ):
            page = mia.post("/destinations", {"kind": "webhook", "target": target}, page="/account", expect=200)
            assert "This URL" in shown(page), target
        account = acme.site.subscribers.by_address(MIA)
        assert account is not None
        assert [each.kind for each in acme.site.subscribers.destinations.of(account.id)] == ["mail"]


def test_what_would_match_half_the_log_is_refused_with_the_reason() -> None:
    with pytest.raises(NotASubject, match="large part of every log"):
        read_subject("https://github.com/")
    for select_text in (
        "{identity: {glob: 'https://github.com/*'}}",
        "{identity: {regex: '.*'}}",
        "{issuer: https://token.actions.githubusercontent.com}",
        "{not: {identity: a@acme.example}}",
    ):
        with pytest.raises(DocumentError):
            read_ask(f"select: {select_text}")
    for expect in ("{digests_from: {command: [sh]}}", "{digests_from: {url: 'http://x'}}", "{rate: {at_most: 1}}"):
        with pytest.raises(DocumentError, match="subscription"):
            read_ask(f"select: {{identity: a@acme.example}}\nexpect: {expect}")
    many = [f"a{number}@acme.example" for number in range(21)]
    with pytest.raises(DocumentError, match="20"):
        ask_of({"identity": many}, {})


def test_a_regular_expression_of_a_subscriber_is_bounded_in_length_number_and_memory() -> None:
    """Also those of `expect`: each is kept compiled as long as entries show the name."""
    control = read_ask("select: {identity: {regex: 'https://github\\.com/acme/widget/.*@refs/tags/v[0-9.]{1,20}'}}")
    assert "acme" in control.keys
    name = "select: {identity: a@acme.example}\nexpect: {ref: %s}"
    assert read_ask(name % "{regex: 'refs/tags/v[0-9]{1,100}'}").document
    large, unread = "(?:(?:(?:a{1,10}){1,10}){1,10})", "[[:^alpha:]]{1000}"
    for refused, why in (
        (f"{{regex: '{large}'}}", "compiled size"),
        (f"{{regex: '{unread}'}}", "compiled size|RE2"),
        ("{regex: '\\pL{500}'}", "RE2"),
        ("{regex: '(((('}", "RE2"),
        (f"{{regex: '{'a' * 201}'}}", "200 characters"),
        ("[" + ", ".join(f"{{regex: 'v{number}'}}" for number in range(21)) + "]", "20"),
    ):
        with pytest.raises(DocumentError, match=why):
            read_ask(name % refused)
        with pytest.raises(DocumentError):
            read_ask(f"select: {{identity: {refused}}}")


def test_an_account_is_deleted_everywhere(acme: Scene) -> None:
    mia = an_account(acme, MIA)
    mia.post("/sign-in", {"email": MIA}, page="/account")
    mia.post("/account/delete", {"address": MIA}, page="/account", expect=200)
    acme.site.subscribers.forget_old(acme.clock())
    assert MIA not in json.dumps(everything(acme.store.database))


def test_an_operators_actions_are_recorded(acme: Scene) -> None:
    acme.subscribe(acme.visitor(), MIA)
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    acme.site.subscribers.suspend(account.id, "asked by phone", "root")
    assert acme.site.subscribers.delete(account.id, "root")
    actions = [(each["who"], each["action"], each["detail"]) for each in acme.site.subscribers.actions(10)]
    assert actions == [("root", "delete", ""), ("root", "suspend", "asked by phone")]


def test_a_suspended_account_is_told_nothing_and_cannot_sign_in(acme: Scene) -> None:
    mia = acme.visitor()
    acme.subscribe(mia, MIA)
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    acme.site.subscribers.suspend(account.id, "a complaint by phone", "root")
    mia.get("/subscriptions", expect=401)
    mia.post("/sign-in", {"email": MIA})
    acme.deliver()
    link = link_in(acme.mailbox.to(MIA)[-1], "sign-in")
    page = shown(mia.post(link, page=link, expect=403))
    assert "This account is suspended" in page
    assert "complaint" not in page, "the reason is the operator's record"
    mia.get("/subscriptions", expect=401)


def test_a_suspended_account_confirms_nothing_and_the_link_works_after_it_is_resumed(acme: Scene) -> None:
    mia = acme.visitor()
    acme.subscribe(mia, MIA)
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    name, browser = "https://github.com/acme/other", acme.visitor()
    fields = {"name": name, "email": MIA, "do": "subscribe"}
    browser.post("/subscribe", fields, page=f"/subscribe?name={name}")
    acme.deliver()
    link = link_in(acme.mailbox.to(MIA)[-1], "confirm")
    acme.site.subscribers.suspend(account.id, "a complaint by phone", "root")
    assert "This account is suspended" in shown(browser.get(link, expect=403))
    browser.post(link, expect=403)
    assert len(acme.site.subscribers.subscriptions(account.id)) == 1
    acme.site.subscribers.suspend(account.id, "", "root")
    browser.post(link, page=link, expect=200)
    assert len(acme.site.subscribers.subscriptions(account.id)) == 2


def test_self_made_certificates_by_the_hundred_hide_no_real_signing(acme: Scene) -> None:
    acme.sign(days_ago=2)
    for number in range(120):
        acme.sign(ref=f"refs/tags/v9.{number}", trust=ChainTrust.UNTRUSTED)
    page = shown(acme.visitor().get("/look", params={"name": REPOSITORY}))
    assert "1 signing in the name" in page
    assert "120 entries with self-made certificates" in page


def test_a_subscription_is_shared_and_handed_over_only_when_the_other_agrees(acme: Scene) -> None:
    mia, theo = acme.visitor(), acme.visitor()
    acme.subscribe(mia, MIA)
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    subscription = acme.site.subscribers.subscriptions(account.id)[0].id
    fields = {"email": THEO, "how": "hand-over"}
    mia.post(f"/subscriptions/{subscription}/share", fields, page="/account", expect=200)
    acme.deliver()
    assert acme.site.subscribers.by_address(THEO) is None
    link = link_in(acme.mailbox.to(THEO)[-1], "confirm")
    theo.post(link, page=link, expect=200)
    assert acme.site.subscribers.subscriptions(account.id) == []
    other = acme.site.subscribers.by_address(THEO)
    assert other is not None
    assert [each.id for each in acme.site.subscribers.subscriptions(other.id)] == [subscription]


def test_who_may_subscribe_is_what_the_operator_says(tmp_path: Path, database: Database) -> None:
    with scene(tmp_path, database, sign_up="domains", domains=("acme.example",)) as acme:
        fields = {"name": REPOSITORY, "email": "x@other.example", "do": "subscribe"}
        page = acme.visitor().post("/subscribe", fields, page=f"/subscribe?name={REPOSITORY}", expect=400)
        assert "Only addresses of acme.example" in shown(page)


def test_invited_people_get_a_mail_and_others_the_same_page(tmp_path: Path, database: Database) -> None:
    with scene(tmp_path, database, sign_up="invited") as acme:
        config = write_config(tmp_path, acme)
        assert run_command(["subscribers", "invite", MIA, "--config", str(config)]) == 0
        assert ("invite", "") in [(each["action"], each["detail"]) for each in acme.site.subscribers.actions(10)]
        for address in (MIA, THEO):
            fields = {"name": REPOSITORY, "email": address, "do": "subscribe"}
            page = acme.visitor().post("/subscribe", fields, page=f"/subscribe?name={REPOSITORY}")
            assert "If this address may subscribe here" in shown(page)
        acme.deliver()
        assert (len(acme.mailbox.to(MIA)), len(acme.mailbox.to(THEO))) == (1, 0)


def test_a_refusal_has_a_status_a_sentence_and_no_secret() -> None:
    refused = RequestRefused(429, "Too often", "Wait.", retry_after=3)
    assert (refused.status, str(refused)) == (429, "Wait.")


def test_counters_of_limits_hold_no_address(acme: Scene) -> None:
    acme.visitor().post("/sign-in", {"email": MIA})
    with acme.store.database.read() as connection:
        rate = Base.metadata.tables["rate"]
        assert connection.execute(select(func.count()).select_from(rate)).scalar_one() >= 2
        assert MIA.encode() not in b"".join(connection.execute(select(rate.c.key)).scalars())


@pytest.mark.parametrize("branch", ["\U0001f680", "a\x7fb", "a" * 3000])
def test_a_name_is_shown_whatever_its_branches_are_called(acme: Scene, branch: str) -> None:
    for _ in range(3):
        acme.sign(ref=f"refs/heads/{branch}")
    looked = httpx.get(f"{acme.url}/api/v1/look", params={"name": REPOSITORY}, trust_env=False, timeout=PATIENCE)
    assert looked.status_code == 200, looked.text
    assert looked.json()["total"] == 3
    assert bool(looked.json()["suggested"]) is (branch.isprintable() and len(branch) < 2000)

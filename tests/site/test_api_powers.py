"""A program can do what a page can: each page's change has its route, with the page's effect and limits."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from msgspec.structs import replace

from monitor.site.app import create_site
from monitor.site.subscribing import add_subscription
from monitor.site_config import SiteLimits
from monitor.store.database import Database
from monitor.store.subscribers import Subscriber, Subscription
from rules.asking import read_ask
from rules.matching.matcher import PREFIX
from tests.site.scene import LOG, REPOSITORY, Scene, Visitor, link_in, scene, text_of
from tests.support.waiting import PATIENCE

MIA, THEO, ANN = "mia@acme.example", "theo@acme.example", "ann@acme.example"
RULE = f"select: {{source_repository_uri: '{REPOSITORY}'}}\nexpect: {{ref: {{glob: 'refs/tags/*'}}}}\n"
MAIN = "refs/heads/main"
TAGS: Any = {"glob": "refs/tags/*"}

COUNTERPARTS = {
    "/subscribe": ("POST /subscriptions", "POST /preview"),
    "/subscriptions/{subscription}/edit": (
        "PUT /subscriptions/{subscription}",
        "POST /subscriptions/{subscription}/preview",
    ),
    "/subscriptions/{subscription}/end": ("DELETE /subscriptions/{subscription}",),
    "/subscriptions/{subscription}/share": ("POST /subscriptions/{subscription}/invitations",),
    "/subscriptions/{subscription}/announce": ("POST /subscriptions/{subscription}/announcements",),
    "/subscriptions/{subscription}/withdraw/{number}": ("DELETE /subscriptions/{subscription}/announcements/{number}",),
    "/answer/{token}": ("POST /subscriptions/{subscription}/answers", "GET /subscriptions/{subscription}/evidence"),
    "/widen/{token}": ("POST /subscriptions/{subscription}/widening", "GET /subscriptions/{subscription}/widening"),
    "/destinations": ("POST /destinations", "GET /destinations"),
    "/destinations/{destination}/{action}": ("POST /destinations/{destination}",),
    "/account/weekly": ("PUT /account/weekly",),
    "/account/tokens": ("POST /account/tokens", "GET /account/tokens"),
    "/account/tokens/{token_id}/revoke": ("DELETE /account/tokens/{token}",),
    "/account/delete": ("POST /account/delete",),
    "/sign-out": ("POST /account/sign-out",),
    "/leave/{token}/back": ("POST /destinations/{destination}", "PUT /account/weekly"),
}
BROWSER_ONLY = {
    "/sign-in": "mails a link that opens a session in a browser; a program has its token",
    "/sign-in/{token}": "opens a session in the browser that asked",
    "/confirm/{token}": "proves that the receiver of the mail agrees",
    "/leave/{token}": "RFC 8058: a mail program sends it, and the link's token alone decides",
}


def api_of(acme: Scene, address: str, scope: str = "write") -> httpx.Client:
    """A program with a new token of an account, which is made where there is none."""
    account = acme.site.subscribers.ensure_account(address)
    token = f"swt_{address}-{scope}"
    acme.site.subscribers.add_token(account.id, token, "script", scope)
    headers = {"authorization": f"Bearer {token}"}
    client = httpx.Client(base_url=f"{acme.url}/api/v1", headers=headers, trust_env=False, timeout=PATIENCE)
    acme.visitors.callback(client.close)
    return client


def account_of(acme: Scene, address: str) -> Subscriber:
    found = acme.site.subscribers.by_address(address)
    assert found is not None
    return found


def subscribed(acme: Scene, address: str) -> Subscription:
    account = acme.site.subscribers.ensure_account(address)
    return add_subscription(acme.site, account.id, read_ask(RULE), REPOSITORY, "Widget")


def signed_in(acme: Scene, address: str) -> Visitor:
    visitor = acme.visitor()
    visitor.post("/sign-in", {"email": address})
    acme.deliver()
    link = link_in(acme.mailbox.to(address)[-1], "sign-in")
    visitor.post(link, page=link)
    return visitor


def ref_of(acme: Scene, subscription: Subscription) -> Any:
    now = acme.site.subscribers.subscription(subscription.id, None)
    assert now is not None
    return json.loads(now.document)["expect"]["ref"]


def routes_of(routes: Iterable[Any]) -> Iterator[APIRoute]:
    """Every route of the pages, those of included routers as well."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router") and not route.include_context.prefix:
            yield from routes_of(route.original_router.routes)


def test_each_change_that_a_page_makes_is_in_the_api_or_named_as_a_browsers_own(acme: Scene) -> None:
    app = create_site(acme.site)
    changing = {
        route.path
        for route in routes_of(app.routes)
        if not route.path.startswith("/api/") and (route.methods or set()) - {"GET", "HEAD"}
    }
    assert changing == COUNTERPARTS.keys() | BROWSER_ONLY.keys()
    assert not COUNTERPARTS.keys() & BROWSER_ONLY.keys()
    described = {
        f"{method.upper()} {path.removeprefix('/api/v1')}": operation
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    }
    wanted = {each for routes in COUNTERPARTS.values() for each in routes}
    assert wanted <= described.keys()
    assert all(operation["summary"] and "429" in operation["responses"] for operation in described.values())


@pytest.mark.parametrize("how", ["copy", "hand-over"])
def test_an_invitation_by_the_api_is_the_one_that_the_page_sends(acme: Scene, how: str) -> None:
    mine, api = subscribed(acme, MIA), api_of(acme, MIA)
    path = f"/subscriptions/{mine.id}"
    signed_in(acme, MIA).post(f"{path}/share", {"email": ANN, "how": how}, page="/account", expect=200)
    assert api.post(f"{path}/invitations", json={"email": THEO, "how": how}).status_code == 202
    assert api.post(f"{path}/invitations", json={"email": "not an address"}).status_code == 400
    acme.deliver()
    by_page, by_api = (
        re.sub(r"/confirm/\S+", "", text_of(acme.mailbox.to(who)[-1])).replace(who, "") for who in (ANN, THEO)
    )
    assert by_page == by_api
    assert acme.site.subscribers.by_address(THEO) is None, "nothing changes before the receiver agrees"
    link = link_in(acme.mailbox.to(THEO)[-1], "confirm")
    acme.visitor().post(link, page=link, expect=200)
    theirs = acme.site.subscribers.subscriptions(account_of(acme, THEO).id)
    kept = acme.site.subscribers.subscriptions(account_of(acme, MIA).id)
    assert [each.subject for each in theirs] == [REPOSITORY]
    assert ([each.id for each in theirs] == [mine.id], len(kept)) == ((True, 0) if how == "hand-over" else (False, 1))


def test_widening_by_the_api_is_the_one_of_the_page_and_evidence_outlives_it(acme: Scene) -> None:
    mine, theirs = subscribed(acme, MIA), subscribed(acme, THEO)
    assert mine.ask == theirs.ask, "control: equal requests are one"
    index = acme.sign(ref=MAIN, rule=f"{PREFIX}{mine.ask}").where.index
    api, path = api_of(acme, MIA), f"/subscriptions/{mine.id}"
    here: dict[str, Any] = {"log": LOG, "index": index}
    assert api.get(f"{path}/widening", params=here).json() == {"adds": ["branch main"]}
    assert ref_of(acme, mine) == TAGS, "reading changes nothing"
    token = acme.site.keys.seal("answer", theirs.id, LOG, index)
    page = acme.visitor()
    page.post(f"/widen/{token}", page=f"/answer/{token}", expect=200)
    wider = api.post(f"{path}/widening", json=here)
    assert wider.json()["rule"]["expect"] == {"ref": [TAGS, MAIN]}
    assert ref_of(acme, mine) == ref_of(acme, theirs) == [TAGS, MAIN]
    evidence = api.get(f"{path}/evidence", params=here).json()
    assert (evidence["index"], bool(evidence["leaf"])) == (index, True)
    by_page = page.get(f"/evidence/{token}").json()
    assert by_page["leaf"] == evidence["leaf"]
    nowhere = here | {"index": index + 1}
    assert api.get(f"{path}/evidence", params=nowhere).status_code == 404
    assert api.get(f"{path}/widening", params=nowhere).status_code == 404
    assert api.post(f"{path}/widening", json=nowhere).status_code == 404


def test_a_rule_that_is_full_is_not_widened_and_says_so(acme: Scene) -> None:
    account = acme.site.subscribers.ensure_account(MIA)
    refs = [f"refs/heads/b{number}" for number in range(199)]
    rule = json.dumps({"select": {"source_repository_uri": REPOSITORY}, "expect": {"ref": refs}})
    full = add_subscription(acme.site, account.id, read_ask(rule), REPOSITORY, "Widget")
    index = acme.sign(ref=MAIN, rule=f"{PREFIX}{full.ask}").where.index
    answer = api_of(acme, MIA).post(f"/subscriptions/{full.id}/widening", json={"log": LOG, "index": index})
    assert (answer.status_code, answer.json()["error"]) == (409, "Too many values for one rule")
    token = acme.site.keys.seal("answer", full.id, LOG, index)
    acme.visitor().post(f"/widen/{token}", page=f"/answer/{token}", expect=409)
    assert ref_of(acme, full) == refs


def test_a_preview_says_what_a_rule_would_have_said_and_subscribes_to_nothing(acme: Scene) -> None:
    acme.a_year()
    api = api_of(acme, MIA, "read")
    tags = api.post("/preview", json={"name": REPOSITORY, "rule": RULE}).json()
    assert tags["rule"]["expect"] == {"ref": TAGS}
    outcomes = [each["outcome"] for each in tags["signings"]]
    assert (tags["unexpected"], outcomes.count("unexpected"), outcomes.count("expected")) == (1, 1, 24)
    none = api.post("/preview", json={"name": REPOSITORY, "rule": RULE.replace("tags", "heads")}).json()
    assert none["unexpected"] == 24
    proposed = api.post("/preview", json={"name": REPOSITORY}).json()
    keys = [each["key"] for each in proposed["parts"]]
    assert proposed["used"] == keys
    assert sorted(keys) == sorted(proposed["rule"]["expect"])
    one = api.post("/preview", json={"name": REPOSITORY, "use": keys[:1]}).json()
    assert list(one["rule"]["expect"]) == keys[:1]
    wrong = api.post("/preview", json={"name": REPOSITORY, "rule": "select: {nonsense: x}"}).json()
    assert (wrong["rule"], wrong["signings"]) == (None, [])
    assert "line 1" in wrong["problems"][0]
    assert api.get("/subscriptions").json() == []
    mine = subscribed(acme, MIA)
    path = f"/subscriptions/{mine.id}/preview"
    assert api.post(path, json={}).json()["rule"] == json.loads(mine.document)
    assert api.post(path, json={"rule": RULE.replace("tags", "heads")}).json()["unexpected"] == 24
    assert ref_of(acme, mine) == TAGS


def test_the_weekly_mail_is_turned_off_and_on(acme: Scene) -> None:
    api = api_of(acme, MIA)
    for on in (False, True):
        assert api.put("/account/weekly", json={"on": on}).json() == {"on": on}
        assert api.get("/account").json()["weekly_mail"] is on


def test_tokens_are_listed_made_and_revoked(acme: Scene) -> None:
    api, theirs = api_of(acme, MIA), api_of(acme, THEO)
    made = api.post("/account/tokens", json={"name": "ci", "scope": "read"})
    assert made.status_code == 201
    headers = {"authorization": f"Bearer {made.json()['token']}"}
    assert api.get("/account", headers=headers).json()["address"] == MIA
    assert api.put("/account/weekly", json={"on": True}, headers=headers).status_code == 403
    listed = api.get("/account/tokens").json()
    assert [(each["name"], each["scope"]) for each in listed] == [("script", "write"), ("ci", "read")]
    assert made.json()["token"] not in json.dumps(listed)
    path = f"/account/tokens/{listed[1]['id']}"
    assert theirs.delete(path).status_code == 404
    assert api.get("/account", headers=headers).status_code == 200
    assert api.delete(path).status_code == 204
    assert api.get("/account", headers=headers).status_code == 401
    assert api.delete(path).status_code == 404
    codes = [api.post("/account/tokens", json={}).status_code for _ in range(20)]
    assert codes == [201] * 19 + [409]


def test_every_browser_is_signed_out_and_no_one_elses(acme: Scene) -> None:
    api, _ = api_of(acme, MIA), api_of(acme, THEO)
    browsers, other = [signed_in(acme, MIA) for _ in range(2)], signed_in(acme, THEO)
    assert api.post("/account/sign-out").status_code == 204
    for browser in browsers:
        browser.get("/account", expect=401)
    other.get("/account")
    assert api.get("/account").status_code == 200


def test_an_account_is_deleted_only_with_its_address_and_wholly(acme: Scene) -> None:
    api, other = api_of(acme, MIA), api_of(acme, THEO)
    mine, theirs = subscribed(acme, MIA), subscribed(acme, THEO)
    browser = signed_in(acme, MIA)
    assert api.post("/account/delete", json={}).status_code == 422
    assert api.post("/account/delete", json={"address": THEO}).status_code == 400
    assert api.get("/account").json()["address"] == MIA
    assert api.post("/account/delete", json={"address": MIA.upper()}).status_code == 204
    assert acme.site.subscribers.by_address(MIA) is None
    assert acme.site.subscribers.subscription(mine.id, None) is None
    assert api.get("/account").status_code == 401
    browser.get("/account", expect=401)
    assert [each["id"] for each in other.get("/subscriptions").json()] == [theirs.id]


def test_another_accounts_subscription_is_answered_like_one_that_does_not_exist(acme: Scene) -> None:
    mine = subscribed(acme, MIA)
    index = acme.sign(ref=MAIN, rule=f"{PREFIX}{mine.ask}").where.index
    api = api_of(acme, THEO)
    here: dict[str, Any] = {"log": LOG, "index": index}
    for identifier in (mine.id, "no-such-id"):
        path = f"/subscriptions/{identifier}"
        answers = [
            api.post(f"{path}/invitations", json={"email": THEO, "how": "hand-over"}),
            api.post(f"{path}/preview", json={}),
            api.get(f"{path}/widening", params=here),
            api.post(f"{path}/widening", json=here),
            api.get(f"{path}/evidence", params=here),
            api.post(f"{path}/answers", json=here | {"mine": True}),
        ]
        assert [each.status_code for each in answers] == [404] * 6
        assert {each.json()["error"] for each in answers} == {"No such subscription"}
    assert ref_of(acme, mine) == TAGS
    acme.deliver()
    assert acme.mailbox.messages == []


def test_a_token_for_reading_makes_none_of_the_changes(acme: Scene) -> None:
    mine, api = subscribed(acme, MIA), api_of(acme, MIA, "read")
    path = f"/subscriptions/{mine.id}"
    answers = [
        api.post(f"{path}/invitations", json={"email": THEO}),
        api.post(f"{path}/widening", json={"log": LOG, "index": 0}),
        api.put("/account/weekly", json={"on": False}),
        api.post("/account/tokens", json={"scope": "write"}),
        api.delete("/account/tokens/x"),
        api.post("/account/sign-out"),
        api.post("/account/delete", json={"address": MIA}),
    ]
    assert [each.status_code for each in answers] == [403] * 7
    assert acme.site.subscribers.by_address(MIA) is not None


@contextmanager
def limited(folder: Path, database: Database, **limits: Any) -> Iterator[Scene]:
    most = replace(SiteLimits(requests_per_minute=100_000, api_requests_per_minute=100_000), **limits)
    with scene(folder, database, limits=most, trusted_proxies=("127.0.0.1/32",)) as made:
        yield made


def is_told_to_wait(answer: httpx.Response) -> bool:
    return answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 60


def test_changes_of_an_account_have_one_limit_on_pages_and_by_the_api(tmp_path: Path, database: Database) -> None:
    with limited(tmp_path, database, requests_per_minute=80) as acme:
        api, other = api_of(acme, MIA), api_of(acme, THEO)
        page = signed_in(acme, MIA)
        answers = [api.put("/account/weekly", json={"on": False}) for _ in range(21)]
        assert [each.status_code for each in answers] == [200] * 20 + [429]
        assert is_told_to_wait(answers[-1])
        assert "Nothing was changed" in answers[-1].json()["detail"]
        assert is_told_to_wait(api.post("/account/delete", json={"address": MIA}))
        assert is_told_to_wait(page.post("/account/weekly", {"on": "yes"}, page="/account", expect=429))
        assert api.get("/account").json()["weekly_mail"] is False
        assert other.put("/account/weekly", json={"on": False}).status_code == 200


def test_requests_of_a_program_have_a_limit_for_each_account_and_without_one_for_each_address(
    tmp_path: Path, database: Database
) -> None:
    with limited(tmp_path, database, api_requests_per_minute=5) as acme:
        api, other = api_of(acme, MIA), api_of(acme, THEO)
        answers = [api.get("/account") for _ in range(6)]
        assert [each.status_code for each in answers] == [200] * 5 + [429]
        assert is_told_to_wait(answers[-1])
        assert other.get("/account").status_code == 200
        wrong = {"authorization": "Bearer swt_guess"}
        guesses = [api.get("/account", headers=wrong) for _ in range(6)]
        assert [each.status_code for each in guesses] == [401] * 5 + [429]
        assert is_told_to_wait(api.get("/look", params={"name": REPOSITORY}))
        assert api.get("/account", headers=wrong | {"x-forwarded-for": "198.51.100.7"}).status_code == 401


def test_pages_have_a_limit_for_each_address(tmp_path: Path, database: Database) -> None:
    with limited(tmp_path, database, requests_per_minute=6) as acme:
        visitor = acme.visitor()
        answers = [visitor.http.get("/how") for _ in range(7)]
        assert [each.status_code for each in answers] == [200] * 6 + [429]
        assert is_told_to_wait(answers[-1])
        assert is_told_to_wait(api_of(acme, MIA).get("/account"))
        visitor.get("/style.css")
        visitor.get("/how", headers={"x-forwarded-for": "198.51.100.7"})

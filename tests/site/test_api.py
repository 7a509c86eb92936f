"""The API against its own description, with and without a token, and the same powers as the site."""

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rules.asking import ask_of
from rules.subject import NotASubject, read_subject
from tests.site.scene import REPOSITORY, Scene
from tests.support.waiting import PATIENCE

MIA = "mia@acme.example"


@pytest.fixture
def token(acme: Scene) -> str:
    acme.subscribe(acme.visitor(), MIA)
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    acme.site.subscribers.add_token(account.id, "swt_test-token", "script", "write")
    return "swt_test-token"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("with_token", [True, False])
def test_no_request_made_from_the_description_ends_in_a_server_error(
    acme: Scene, token: str, *, with_token: bool
) -> None:
    document = httpx.get(f"{acme.url}/api/openapi.json", trust_env=False, timeout=PATIENCE).json()
    schema = schemathesis.openapi.from_dict(document)
    headers = {"authorization": f"Bearer {token}"} if with_token else {}
    tried = []
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]  # a broken description fails the test

        @given(case=operation.as_strategy())
        @settings(
            max_examples=12,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        def run(case: Any) -> None:
            answer = case.call(base_url=acme.url, headers=headers)
            assert answer.status_code < 500, (case.method, case.path, answer.text)
            described = case.operation.definition.raw["responses"]
            assert str(answer.status_code) in {*described, "405", "413", "415"}, (
                case.method,
                case.path,
                answer.status_code,
            )

        run()
        tried.append(operation.label)
    assert len(tried) >= 26


def test_the_api_can_what_the_site_can(acme: Scene, token: str) -> None:
    acme.a_year()
    with httpx.Client(
        base_url=f"{acme.url}/api/v1", headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=PATIENCE
    ) as api:
        looked = api.get("/look", params={"name": REPOSITORY}).json()
        assert (looked["total"], looked["unverified"], looked["source"]) == (25, 1, "findings")
        made = api.post("/subscriptions", json={"name": "release@acme.example", "title": "Releases"})
        assert made.status_code == 201
        path = f"/subscriptions/{made.json()['id']}"
        rule = "select: {identity: release@acme.example}\nexpect: {issuer: https://accounts.google.com}"
        assert api.put(path, json={"rule": rule}).json()["rule"]["expect"] == {"issuer": "https://accounts.google.com"}
        assert api.put(path, json={"rule": "select: {issuer: x}"}).status_code == 400
        assert api.get(path).json()["signings"] == []
        assert api.delete(path).status_code == 204
        assert api.get(path).status_code == 404
        feed = api.post("/destinations", json={"kind": "atom"}).json()
        assert feed["ok"]
        [atom] = [each for each in api.get("/destinations").json() if each["kind"] == "atom"]
        assert (
            httpx.get(atom["url"], trust_env=False, timeout=PATIENCE)
            .headers["content-type"]
            .startswith("application/atom+xml")
        )
        assert api.post(f"/destinations/{atom['id']}", json={"action": "renew"}).json()["ok"]
        assert httpx.get(atom["url"], trust_env=False, timeout=PATIENCE).status_code == 404


def test_a_token_for_reading_changes_nothing(acme: Scene, token: str) -> None:
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    acme.site.subscribers.add_token(account.id, "swt_read", "script", "read")
    with httpx.Client(
        base_url=f"{acme.url}/api/v1", headers={"authorization": "Bearer swt_read"}, trust_env=False, timeout=PATIENCE
    ) as api:
        assert api.get("/account").json()["address"] == MIA
        assert api.post("/subscriptions", json={"name": REPOSITORY}).status_code == 403
    [read] = [each for each in acme.site.subscribers.tokens(account.id) if each.scope == "read"]
    assert acme.site.subscribers.revoke_token(read.id, account.id)
    assert (
        httpx.get(
            f"{acme.url}/api/v1/account",
            headers={"authorization": "Bearer swt_read"},
            trust_env=False,
            timeout=PATIENCE,
        ).status_code
        == 401
    )


@given(name=st.text(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_name_or_refused_with_a_sentence(name: str) -> None:
    subject, refused = None, ""
    try:
        subject = read_subject(name)
    except NotASubject as error:
        refused = str(error)
    assert (subject is None) == bool(refused)
    if subject is not None:
        assert ask_of(subject.select(), {}).keys

"""Nothing is cut in silence: pages lead to the next one, exports are whole, and what is left out is counted."""

import csv
import io
import json
from datetime import timedelta

import pytest

from alerts.inert import inert_json
from monitor.model.state import Finding
from rules.matching.matcher import PREFIX
from rules.rule import Outcome, Verdict
from rules.selection import select
from sigstore_entries.signing import ChainTrust, EntryRef
from tests.rules import signings
from tests.site.scene import LOG, REPOSITORY, SELECT, Scene, Visitor, shown

MIA = "mia@acme.example"
MANY = 730


@pytest.fixture
def seen(acme: Scene) -> tuple[Visitor, str, str]:
    """A subscriber, the subscription, and a token; the subscription saw more than one page or chunk holds."""
    visitor = acme.visitor()
    acme.subscribe(visitor, MIA)
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    [mine] = acme.site.subscribers.subscriptions(account.id)
    acme.site.subscribers.add_token(account.id, "swt_mia", "script", "write")
    now = acme.clock()
    found = []
    for number in range(MANY):
        # Eleven of each moment: pages must not lose what has the time of their last row.
        at = now - timedelta(hours=number // 11)
        made = signings.signing({}, where=EntryRef(LOG, number), not_before=at)
        outcome = Outcome.UNEXPECTED if number % 100 == 0 else Outcome.EXPECTED
        found.append(Finding(f"{PREFIX}{mine.ask}", select(SELECT, made), Verdict(outcome), f"leaf {number}".encode()))
    acme.keep(found)
    return visitor, mine.id, "swt_mia"


def test_exports_hold_every_signing(seen: tuple[Visitor, str, str]) -> None:
    visitor, mine, _ = seen
    document = json.loads(visitor.get(f"/subscriptions/{mine}/signings.json").text)
    assert sorted(each["index"] for each in document["signings"]) == list(range(MANY))
    rows = list(csv.DictReader(io.StringIO(visitor.get(f"/subscriptions/{mine}/signings.csv").text)))
    assert sorted(int(row["index"]) for row in rows) == list(range(MANY))
    times = [row["signed_at"] for row in rows]
    assert times == sorted(times, reverse=True)


def test_pages_of_a_subscription_lead_to_every_signing(seen: tuple[Visitor, str, str]) -> None:
    visitor, mine, token = seen
    path, told = f"/subscriptions/{mine}", 0
    for _ in range(40):
        page = visitor.get(path)
        told += page.text.count('class="chip expected"') + page.text.count('class="chip unexpected"')
        if "Older signings</a>" not in page.text:
            break
        path = page.text.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
    assert told == MANY
    indexes: list[int] = []
    before: str | None = ""
    while before is not None:
        headers = {"authorization": f"Bearer {token}"}
        answer = visitor.get(f"/api/v1/subscriptions/{mine}", params={"before": before}, headers=headers).json()
        indexes += [each["index"] for each in answer["signings"]]
        before = answer["older"]
    assert sorted(indexes) == list(range(MANY))


def test_pages_of_a_name_lead_to_every_signing_and_say_how_many_there_are(seen: tuple[Visitor, str, str]) -> None:
    visitor, _, _ = seen
    found: set[int] = set()
    before: str | None = ""
    while before is not None:
        answer = visitor.get("/look.json", params={"name": REPOSITORY, "before": before}).json()
        assert answer["total"] == MANY
        found |= {each["index"] for each in answer["signings"]}
        before = answer["older"]
    assert found == set(range(MANY))
    first = visitor.get("/look", params={"name": REPOSITORY})
    assert f"All {MANY} signings" in shown(first)
    every = visitor.get("/look", params={"name": REPOSITORY, "everything": "1"})
    older = every.text.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
    assert "Older signings" in shown(visitor.get(older))


def test_a_signing_beyond_the_first_page_has_its_page_and_takes_an_answer(seen: tuple[Visitor, str, str]) -> None:
    visitor, mine, token = seen
    oldest = MANY - 1
    page = visitor.get("/signing", params={"name": REPOSITORY, "log": LOG, "index": oldest})
    assert "Who and what" in shown(page)
    said = {"log": LOG, "index": oldest, "mine": True}
    headers = {"authorization": f"Bearer {token}"}
    answer = visitor.http.post(f"/api/v1/subscriptions/{mine}/answers", json=said, headers=headers)
    assert answer.status_code == 204


def test_text_that_is_no_place_is_the_first_page(seen: tuple[Visitor, str, str]) -> None:
    visitor, mine, _ = seen
    for wrong in ("x", "-1.2.log", "1.2", "9" * 40 + ".1.log", "1." + "9" * 40 + ".log", "\u0661.1.log"):
        assert "signings seen since you subscribed" in shown(
            visitor.get(f"/subscriptions/{mine}", params={"before": wrong})
        )
        visitor.get("/look", params={"name": REPOSITORY, "before": wrong})


def test_a_name_that_a_stranger_logged_first_is_vouched_for_when_a_real_signing_of_the_entry_is_found(
    acme: Scene,
) -> None:
    made = signings.signing({}, where=EntryRef(LOG, 1), trust=ChainTrust.UNTRUSTED)
    real = signings.signing({}, where=EntryRef(LOG, 1))
    for rule, each in (("one", made), ("two", real), ("three", made)):
        acme.keep([Finding(rule, select(SELECT, each), Verdict(Outcome.EXPECTED), b"leaf")])
    page = shown(acme.visitor().get("/look", params={"name": REPOSITORY}))
    assert "1 signing in the name" in page
    assert "self-made" not in page


def test_a_list_of_objects_is_whole_and_a_cut_list_of_texts_says_so() -> None:
    rows = [{"index": number, "names": [str(each) for each in range(100)]} for number in range(1000)]
    shown_rows = inert_json(rows)
    assert [row["index"] for row in shown_rows] == list(range(1000))
    assert shown_rows[0]["names"][-1] == "… (+36 items)"

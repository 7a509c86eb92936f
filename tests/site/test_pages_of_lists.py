"""Nothing is cut in silence: pages lead to the next one, exports are whole, and what is left out is counted."""

import asyncio
import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from alerts.inert import inert_json
from monitor.model.state import Finding
from monitor.site import accounts, subscription_view
from monitor.store.signings import SigningCursor
from rules.matching.matcher import PREFIX
from rules.rule import Outcome, Verdict
from rules.selection import select
from sigstore_entries.signing import ChainTrust, EntryRef
from tests.rules import signings
from tests.site.scene import LOG, REPOSITORY, SELECT, Scene, Visitor, shown
from tests.support.waiting import wait_until

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


@pytest.mark.parametrize("outcome", [Outcome.EXPECTED, Outcome.UNEXPECTED])
def test_an_unexpected_certificate_counts_beside_a_signing_of_the_same_second(acme: Scene, outcome: Outcome) -> None:
    visitor = acme.visitor()
    acme.subscribe(visitor, MIA)
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    [mine] = acme.site.subscribers.subscriptions(account.id)
    at = acme.clock()
    release = signings.signing({}, where=EntryRef(LOG, 1), not_before=at)
    stolen = signings.signing({}, where=EntryRef("ct", 1), not_before=at, kind="precertificate", digests=())
    for made, verdict in ((release, outcome), (stolen, Outcome.UNEXPECTED)):
        acme.keep([Finding(f"{PREFIX}{mine.ask}", select(SELECT, made), Verdict(verdict), made.where.log.encode())])
    assert "1 signing you did not expect" in shown(visitor.get(f"/subscriptions/{mine.id}"))


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
    wrong_times = ("9" * 40 + ".1.log", "9" * 19 + ".1.log", "-" + "9" * 19 + ".1.log", "\u0661.1.log")
    wrong_entries = ("1.", "1." + "9" * 40 + ".log", "1." + "9" * 19 + ".log", "1.2.lo\0g")
    for wrong in ("x", "-", "--1.2.log", *wrong_times, *wrong_entries):
        assert SigningCursor.read(wrong) is None
        assert "signings seen since you subscribed" in shown(
            visitor.get(f"/subscriptions/{mine}", params={"before": wrong})
        )
        visitor.get("/look", params={"name": REPOSITORY, "before": wrong})
    assert SigningCursor.read("1.2") == SigningCursor(datetime.fromtimestamp(1e-6, UTC), 2, ""), "control"


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


def test_a_json_export_that_ran_out_of_time_tells_the_cut_and_where_the_next_begins(
    acme: Scene, seen: tuple[Visitor, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor, mine, _ = seen
    whole = json.loads(visitor.get(f"/subscriptions/{mine}/signings.json").text)
    assert whole["cut"] is None, "control: a whole file says so"
    monkeypatch.setattr(subscription_view, "_EXPORT_SECONDS", -1.0)
    path, indexes, files = f"/subscriptions/{mine}/signings.json", [], 0
    for _ in range(MANY):
        document = json.loads(visitor.get(path).text)
        indexes += [each["index"] for each in document["signings"]]
        files += 1
        if (cut := document["cut"]) is None:
            break
        assert cut["written"] == len(document["signings"]) == 11
        assert cut["left_out"] == MANY - len(indexes)
        path = cut["next"].removeprefix(acme.site.config.public_url)
    assert sorted(indexes) == list(range(MANY))
    # A file is counted once it is sent, which is after its reader has it.
    wait_until("every cut file is counted", lambda: acme.site.subscribers.stats()["cut"] == files - 1)


def test_a_client_that_leaves_before_the_end_gets_no_end_and_is_counted(
    acme: Scene, seen: tuple[Visitor, str, str]
) -> None:
    """The server ends an exchange after its time in the same way: a body in chunks without its last one."""
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    [mine] = acme.site.subscribers.subscriptions(account.id)
    export = subscription_view.SigningsExport(acme.site, mine)
    left, sent = asyncio.Event(), list[Any]()

    async def receive() -> Any:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        left.set()
        await asyncio.sleep(0)

    download = accounts._Download(acme.site, export, export.as_json(), "application/json", "signings.json")
    asyncio.run(download({"type": "http", "method": "GET"}, receive, send))
    assert not export.is_whole
    assert all(each.get("more_body", True) for each in sent)
    assert acme.site.subscribers.stats()["cut"] == 1


def test_the_last_line_of_a_cut_table_tells_the_cut(
    acme: Scene, seen: tuple[Visitor, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor, mine, _ = seen
    monkeypatch.setattr(subscription_view, "_EXPORT_SECONDS", -1.0)
    *rows, last = csv.reader(io.StringIO(visitor.get(f"/subscriptions/{mine}/signings.csv").text))
    assert len(rows) == 1 + 11
    assert len(last) == 1
    assert f"This file holds 11 signings; {MANY - 11} older entries left out. The next file: http" in last[0]
    rest = last[0].rpartition(" ")[2].removeprefix(acme.site.config.public_url)
    monkeypatch.setattr(subscription_view, "_EXPORT_SECONDS", 1e6)
    assert len(list(csv.DictReader(io.StringIO(visitor.get(rest).text)))) == MANY - 11

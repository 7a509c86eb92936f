"""Expectations that depend on a subscriber's own past: announced, known login services, so many in a day.

What one subscriber answers, announces or hands over never changes what another one is told.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from alerts.alert import Alert
from monitor.model.log_source import Position
from monitor.model.state import Batch
from tests.site.followed import NAME, Followed, followed
from tests.site.scene import Visitor, link_in, shown, text_of
from tests.support.database_fixtures import postgres_url, where
from tests.support.entries import CA_NOT_AFTER, GOOGLE_ISSUER, hashedrekord_v2, make_certificate
from tests.support.served_log import CA, signing_body

__all__ = ["postgres_url", "where"]
MIA, THEO, MALLORY = "mia@acme.example", "theo@acme.example", "mallory@evil.example"
ALICE = "alice@acme.example"
KEEPS_ISSUER = f"select: {{identity: {ALICE}}}\nexpect: {{same_issuer: true}}\n"
ANNOUNCED = f"select: {{source_repository_uri: '{NAME}'}}\nexpect: {{authorised: []}}\n"


@pytest.fixture
def live(tmp_path: Path, where: str) -> Iterator[Followed]:
    with followed(tmp_path, where) as made:
        yield made


def digest_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def by_alice(live: Followed, issuer: str, name: str) -> None:
    """A signing by a person, whom a login service vouches for."""
    serial = int(digest_of(name)[:12], 16)
    certificate = make_certificate(CA, san=ALICE, issuer=issuer, not_after=CA_NOT_AFTER, serial=serial)
    live.served.log.append(hashedrekord_v2(certificate, digest_of(name)))
    live.follow()


def told(live: Followed, address: str) -> int:
    """How many unexpected signings an address was told of."""
    return sum("did not expect" in text_of(mail).splitlines()[0] for mail in live.mailbox.to(address))


def subscribed(live: Followed, address: str, name: str, rule: str) -> tuple[Visitor, str]:
    """A person who wrote the rule, and the subscription's number."""
    visitor = live.visitor()
    subscription = live.subscribe(visitor, address, name, rule=rule)
    live.follow()
    return visitor, subscription


def answer(live: Followed, visitor: Visitor, address: str, *, mine: bool) -> None:
    link = link_in(live.mailbox.to(address)[-1], "answer").split("?")[0]
    visitor.post(link, {"mine": "yes" if mine else "no"}, page=link, expect=200 if mine else 303)


def test_another_login_service_is_told_until_its_owner_says_it_was_them(live: Followed) -> None:
    mia, _ = subscribed(live, MIA, ALICE, KEEPS_ISSUER)
    by_alice(live, GOOGLE_ISSUER, "a")
    assert told(live, MIA) == 0, "control: the first sighting is fine"
    by_alice(live, "https://login.evil.example", "b")
    assert told(live, MIA) == 1
    by_alice(live, "https://login.evil.example", "c")
    assert told(live, MIA) == 2, "what was unexpected teaches nothing"
    answer(live, mia, MIA, mine=True)
    by_alice(live, "https://login.evil.example", "d")
    assert told(live, MIA) == 2


def test_one_subscribers_answer_leaves_anothers_verdict_alone(live: Followed) -> None:
    mallory, _ = subscribed(live, MALLORY, ALICE, KEEPS_ISSUER)
    subscribed(live, MIA, ALICE, KEEPS_ISSUER)
    by_alice(live, GOOGLE_ISSUER, "a")
    by_alice(live, "https://login.evil.example", "b")
    assert (told(live, MALLORY), told(live, MIA)) == (1, 1)
    answer(live, mallory, MALLORY, mine=True)
    by_alice(live, "https://login.evil.example", "c")
    assert (told(live, MALLORY), told(live, MIA)) == (1, 2)
    answer(live, mallory, MALLORY, mine=False)


def test_a_subscription_begins_with_the_past_that_its_page_showed_as_expected(live: Followed) -> None:
    subscribed(live, THEO, ALICE, f"select: {{identity: {ALICE}}}\n")
    by_alice(live, GOOGLE_ISSUER, "a")
    subscribed(live, MIA, ALICE, KEEPS_ISSUER)
    by_alice(live, "https://login.evil.example", "b")
    assert told(live, MIA) == 1, "not a first sighting: the page showed one before"


def test_a_changed_expectation_keeps_the_past_of_its_subscription(live: Followed) -> None:
    mia, number = subscribed(live, MIA, ALICE, KEEPS_ISSUER)
    by_alice(live, GOOGLE_ISSUER, "a")
    stricter = KEEPS_ISSUER.replace("true", "true, rate: {at_most: 2, per: 1d}")
    page = f"/subscriptions/{number}/edit"
    mia.post(page, {"name": ALICE, "ticked": "1", "rule": stricter, "shown": "-", "do": "subscribe"}, page=page)
    live.follow()
    by_alice(live, "https://login.evil.example", "b")
    assert told(live, MIA) == 1
    assert "signed with certificates of another issuer" in text_of(live.mailbox.to(MIA)[-1])
    by_alice(live, GOOGLE_ISSUER, "c")
    assert told(live, MIA) == 2, "the third in a day"


def test_only_announced_digests_are_expected_and_each_for_one_subscriber(live: Followed) -> None:
    mia, number = subscribed(live, MIA, NAME, ANNOUNCED)
    mallory, other = subscribed(live, MALLORY, NAME, ANNOUNCED)
    page = f"/subscriptions/{other}"
    said = mallory.post(f"{page}/announce", {"digest": digest_of("stolen"), "count": "9"}, page=page, expect=200)
    assert "Announced" in shown(said)
    live.served.log.append(signing_body(artifact=digest_of("stolen")))
    live.follow()
    assert (told(live, MALLORY), told(live, MIA)) == (0, 1)
    page = f"/subscriptions/{number}"
    mia.post(f"{page}/announce", {"digest": f"sha256:{digest_of('release')}"}, page=page, expect=200)
    live.served.log.append(signing_body(artifact=digest_of("release")))
    live.follow()
    assert (told(live, MALLORY), told(live, MIA)) == (1, 1)
    live.served.log.append(signing_body(artifact=digest_of("release")))
    live.follow()
    assert told(live, MIA) == 2, "announced once"


def test_an_announcement_of_another_person_can_neither_be_made_nor_withdrawn(live: Followed) -> None:
    mia, number = subscribed(live, MIA, NAME, ANNOUNCED)
    mallory, other = subscribed(live, MALLORY, NAME, ANNOUNCED)
    page = f"/subscriptions/{number}"
    mia.post(f"{page}/announce", {"digest": digest_of("release")}, page=page, expect=200)
    [given] = live.courier.site.subscribers.announced(number)
    own = f"/subscriptions/{other}"
    for path in (f"{page}/announce", f"{page}/withdraw/{given.number}", f"{own}/withdraw/{given.number}"):
        mallory.post(path, {"digest": digest_of("stolen")}, page=own, expect=404)
    assert live.courier.site.subscribers.announced(number) == [given]
    assert live.courier.site.subscribers.announced(other) == []


def test_a_handed_over_subscription_shares_nothing_with_the_one_its_giver_makes_again(live: Followed) -> None:
    mallory, number = subscribed(live, MALLORY, NAME, ANNOUNCED)
    page = f"/subscriptions/{number}"
    mallory.post(f"{page}/share", {"email": MIA, "how": "hand-over"}, page=page, expect=200)
    live.courier.run_pass()
    mia = live.visitor()
    link = link_in(live.mailbox.to(MIA)[-1], "confirm")
    mia.post(link, page=link, expect=200)
    asks = live.courier.site.subscribers
    account = asks.by_address(MALLORY)
    assert account is not None
    mallory.post("/subscribe", {"name": NAME, "rule": ANNOUNCED, "do": "subscribe"}, page=f"/subscribe?name={NAME}")
    again = asks.subscriptions(account.id)[-1]
    theirs = asks.subscription(number, None)
    assert theirs is not None
    assert again.document == theirs.document
    assert again.ask != theirs.ask


def test_a_wrong_announcement_says_what_is_wrong_and_records_nothing(live: Followed) -> None:
    mia, number = subscribed(live, MIA, NAME, ANNOUNCED)
    page = f"/subscriptions/{number}"
    for fields in ({"digest": "sha256:abc"}, {"digest": digest_of("x"), "count": "0"}, {"digest": "x", "days": "x"}):
        said = mia.post(f"{page}/announce", fields, page=page, expect=400)
        assert "Nothing was announced" in shown(said)
    shared, other = subscribed(live, THEO, NAME, "")
    said = shared.post(
        f"/subscriptions/{other}/announce", {"digest": digest_of("x")}, page=f"/subscriptions/{other}", expect=409
    )
    assert "Change what you expect first" in shown(said)
    assert live.courier.site.subscribers.announced(number) == []


def test_entries_of_a_popular_name_are_committed_in_parts_and_every_subscriber_is_told_of_each(
    live: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [f"u{number}@acme.example" for number in range(3)]
    for address in people:
        subscribed(live, address, NAME, ANNOUNCED)
    monkeypatch.setattr("monitor.following.follower.MAX_MATCHES", 4)
    parts: list[int] = []
    advance = live.monitor.store.advance

    def counted(old: Position, new: Position, batch: Batch, alerts: Sequence[Alert]) -> None:
        parts.append(len(batch.findings))
        advance(old, new, batch, alerts)

    monkeypatch.setattr(live.monitor.store, "advance", counted)
    live.served.log.append(*(signing_body(artifact=digest_of(f"release {number}")) for number in range(5)))
    live.follow()
    assert [number for number in parts if number] == [4] * 5, "one finding for each subscriber and the rule of the file"
    assert [told(live, address) for address in people] == [5, 5, 5]


def test_the_form_offers_them_and_shows_which_past_signings_each_would_tell_of(live: Followed) -> None:
    visitor = live.visitor()
    page = visitor.get(f"/subscribe?name={NAME}").text
    for key in ("same_issuer", "rate", "authorised"):
        assert f'id="use-{key}" name="use" value="{key}">' in page, "offered, and not ticked"
    assert "fails-authorised" in page
    number = live.subscribe(visitor, MIA, ticked="1", use=["ref", "authorised"])
    live.follow()
    text = shown(visitor.get(f"/subscriptions/{number}"))
    assert "you announced its digest before" in text
    assert "Announce a signing" in text
    edited = visitor.get(f"/subscriptions/{number}/edit").text
    assert 'id="use-authorised" name="use" value="authorised" checked' in edited


def test_deleting_the_account_deletes_what_it_announced_and_asked(live: Followed) -> None:
    mia, number = subscribed(live, MIA, MIA, f"select: {{identity: {MIA}}}\nexpect: {{authorised: []}}\n")
    page = f"/subscriptions/{number}"
    note = "only for the Thursday build"
    mia.post(f"{page}/announce", {"digest": digest_of("release"), "note": note}, page=page, expect=200)
    site = live.courier.site
    mia.post("/account/delete", {"address": MIA}, page="/account", expect=200)
    live.follow()
    live.clock.advance(minutes=20)
    site.subscribers.forget_old(live.clock())
    with live.monitor.store.database.read() as connection:
        kept = [
            str(dict(row))
            for name in ("ask", "authorisation", "subscription", "subscriber", "link", "destination")
            for row in connection.exec_driver_sql(f"SELECT * FROM {name}").mappings()
        ]
    assert not [each for each in kept if MIA in each or note in each]

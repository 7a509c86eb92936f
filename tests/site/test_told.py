"""From a signing in a followed log to the subscriber's mail, and what its buttons do."""

import json
from collections.abc import Iterator
from email.message import EmailMessage
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from monitor.cli import run_command
from monitor.commands.site import site_alone
from monitor.config import WebConfig, load_config
from monitor.daemon.web_server import SITE_LIMITS, WebServer
from monitor.site.app import create_site
from monitor.site.weekly import put_weekly
from monitor.store.asks import Asks
from tests.site.followed import NAME, Followed, followed
from tests.site.scene import Visitor, link_in, shown, text_of
from tests.support.database_fixtures import postgres_url, where
from tests.support.entries import CA_NOT_AFTER, hashedrekord_v2, make_certificate, make_key, spki_of
from tests.support.log_server import free_port
from tests.support.served_log import CA, signing_body

__all__ = ["postgres_url", "where"]
MIA = "mia@acme.example"
OWNER = "https://github.com/acme"


@pytest.fixture
def live(tmp_path: Path, where: str) -> Iterator[Followed]:
    with followed(tmp_path, where) as made:
        yield made


def test_the_next_signing_that_was_not_expected_is_told_with_buttons(live: Followed) -> None:
    visitor = live.visitor()
    assert "All 3 signings look alike" in shown(visitor.get("/look", params={"name": NAME}))
    live.subscribe(visitor, MIA)
    live.follow()
    live.sign("refs/tags/v1.2.4")
    assert len(live.mailbox.to(MIA)) == 1, "control: a release is expected"
    live.sign("refs/heads/totally-legit")
    alert = live.mailbox.to(MIA)[-1]
    first, second = text_of(alert).splitlines()[:2]
    assert first == "A signing you did not expect: acme/widget."
    assert second.startswith("It matters unless it was you")
    assert "refs/heads/totally-legit" in text_of(alert)
    assert alert["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_it_was_me_offers_exactly_what_differed_and_widens_only_when_asked(live: Followed) -> None:
    visitor = live.visitor()
    page = live.subscribe(visitor, MIA)
    live.follow()
    live.sign("refs/heads/main")
    link = link_in(live.mailbox.to(MIA)[-1], "answer")
    noted = shown(visitor.post(link.split("?")[0], {"mine": "yes"}, page=link, expect=200))
    assert "exactly what differed: branch main" in noted
    live.sign("refs/heads/main")
    assert len(live.mailbox.to(MIA)) == 3, "an answer widens nothing by itself"
    widen = link.split("?")[0].replace("/answer/", "/widen/")
    assert "wider now" in shown(visitor.post(widen, page=link, expect=200))
    live.follow()
    live.sign("refs/heads/main")
    assert len(live.mailbox.to(MIA)) == 3
    assert "branch main" in shown(visitor.get(f"/subscriptions/{page}"))


def test_it_was_not_me_leads_to_what_is_right_for_the_issuer(live: Followed, tmp_path: Path) -> None:
    visitor = live.visitor()
    live.subscribe(visitor, MIA)
    live.follow()
    live.sign("refs/heads/totally-legit")
    link = link_in(live.mailbox.to(MIA)[-1], "answer").split("?")[0]
    page = shown(visitor.post(link, {"mine": "no"}, page=link))
    for said in ("GitHub Actions", "audit log", "Save the evidence"):
        assert said in page
    for wrong in ("GitLab", "password"):
        assert wrong not in page
    file = tmp_path / "evidence.json"
    evidence = link.replace("/answer/", "/evidence/")
    file.write_bytes(visitor.get(evidence).content)
    verify = ["evidence", "verify", str(file), "--trusted-root", str(live.served.folder / "trusted_root.json")]
    assert run_command(verify) == 0
    document = json.loads(file.read_text())
    assert document["about"]["signing"]["index"] == 3
    (entry,) = document["logs"][0]["entries"]
    entry["path"][0] = entry["leafHash"]
    file.write_text(json.dumps(document))
    assert run_command(verify) == 1
    live.served.down = True
    without = visitor.get(evidence).json()
    assert (without["index"], bool(without["leaf"])) == (3, True)
    assert "download the file again later" in without["proof_missing"]


WORDS = {
    "github": ("GitHub Actions", "Actions tab", "organisation's audit log", ".github/workflows", "after the run"),
    "gitlab": ("GitLab CI job", "Build, Pipelines", "audit events", "runner registration tokens", "after the job"),
    "ci": ("an automated build", "build service's audit log", "revoke the service's tokens"),
    "person": ("Change its password", "second factors", "thief of this login", "after the login"),
    "key": (
        "another person has the private key",
        "revocation certificate",
        "allowed signers",
        "where the key was stored",
    ),
}
KEY = spki_of(make_key("stolen"))


def forged(source: str) -> tuple[str, bytes]:
    """A name that can be subscribed to, and the body of a signing in it by the credential of one kind."""
    if source == "key":
        return sha256(KEY).digest().hex(":"), hashedrekord_v2(KEY)
    if source == "github":
        return NAME, signing_body("refs/heads/totally-legit")
    if source == "person":
        name = san = "release@acme.example"
        claims, issuer = None, "https://accounts.google.com"
    else:
        host = "gitlab.com" if source == "gitlab" else "builds.acme.example"
        name, issuer = f"https://{host}/acme/widget", f"https://{host}"
        san = f"{name}//.gitlab-ci.yml@refs/heads/main"
        claims = {"build_config_uri": san, "source_repository_uri": name, "source_repository_ref": "refs/heads/main"}
    return name, hashedrekord_v2(make_certificate(CA, san=san, issuer=issuer, claims=claims, not_after=CA_NOT_AFTER))


@pytest.mark.parametrize("source", list(WORDS))
def test_advice_after_a_theft_fits_the_credential_and_names_no_other(live: Followed, source: str) -> None:
    name, body = forged(source)
    visitor = live.visitor()
    live.subscribe(visitor, MIA, name=name)
    live.follow()
    live.served.log.append(body)
    live.follow()
    link = link_in(live.mailbox.to(MIA)[-1], "answer").split("?")[0]
    page = shown(visitor.post(link, {"mine": "no"}, page=link))
    assert [words for words in WORDS[source] if words not in page] == []
    others = [words for other, said in WORDS.items() if other != source for words in said]
    assert [words for words in others if words in page] == []
    advice = page.partition("Warn the people who rely on it")[0].partition("Do this in order.")[2]
    for word, of in {"GitHub": "github", "GitLab": "gitlab", "password": "person", "private key": "key"}.items():
        assert (word in advice) == (of == source)
    assert "Warn the people who rely on it" in page
    assert "Save the evidence" in page


def test_a_site_without_the_daemon_proves_a_signing_from_the_archive(live: Followed, tmp_path: Path) -> None:
    visitor = live.visitor()
    live.subscribe(visitor, MIA)
    live.follow()
    live.sign("refs/heads/totally-legit")
    link = link_in(live.mailbox.to(MIA)[-1], "answer").split("?")[0]
    evidence = link.replace("/answer/", "/evidence/")

    def saved() -> dict[str, Any]:
        settings = load_config(live.served.config)
        listen = ("127.0.0.1", free_port())
        server = WebServer(
            create_site(site_alone(settings, live.monitor.store.database)),
            WebConfig(listen),
            SITE_LIMITS,
            "site",
        )
        server.start()
        replica = Visitor(f"http://127.0.0.1:{listen[1]}")
        try:
            document: dict[str, Any] = replica.get(evidence, headers={"Host": live.url.removeprefix("http://")}).json()
        finally:
            replica.close()
            server.stop()
        return document

    missing = saved()["proof_missing"]
    assert "signwatch search --entry rekor-v2:3 --prove FILE" in missing
    with live.served.config.open("a", encoding="utf-8") as config:
        config.write("\narchive: {location: archive}\n")
    named = ("--config", str(live.served.config))
    assert "proof_missing" in saved(), "control: nothing is archived yet"
    assert run_command(["archive", "build", "--log", "rekor-v2", "--jobs", "1", *named]) == 0
    live.served.down = True
    file = tmp_path / "evidence.json"
    file.write_text(json.dumps(saved()))
    root = str(live.served.folder / "trusted_root.json")
    assert run_command(["evidence", "verify", str(file), "--trusted-root", root]) == 0


def test_one_persons_answer_forgives_nothing_from_another(live: Followed) -> None:
    mia, theo = live.visitor(), live.visitor()
    live.subscribe(mia, MIA)
    live.subscribe(theo, "theo@acme.example")
    assert Asks(live.monitor.store.database).in_force() == 1, "control: equal requests are one"
    live.follow()
    live.sign("refs/heads/stolen")
    assert len(live.mailbox.to(MIA)) == len(live.mailbox.to("theo@acme.example")) == 2
    link = link_in(live.mailbox.to(MIA)[-1], "answer").split("?")[0]
    mia.post(link, {"mine": "yes"}, page=link, expect=200)
    mia.post(link.replace("/answer/", "/widen/"), page=link, expect=200)
    live.follow()
    live.sign("refs/heads/stolen")
    assert len(live.mailbox.to(MIA)) == 2
    assert len(live.mailbox.to("theo@acme.example")) == 3


def test_one_click_leaves_and_a_scanner_that_follows_links_does_not(live: Followed) -> None:
    visitor, program = live.visitor(), live.visitor()
    live.subscribe(visitor, MIA)
    live.follow()
    live.sign("refs/heads/x")
    link = link_in(live.mailbox.to(MIA)[-1], "leave")
    assert "Stop mails about acme/widget?" in shown(program.get(link))
    assert "acme/widget" in shown(visitor.get("/subscriptions")), "control: a GET changes nothing"
    one_click(program, link)
    live.follow()
    live.sign("refs/heads/y")
    assert len(live.mailbox.to(MIA)) == 2
    assert "Nothing yet" in shown(visitor.get("/subscriptions"))
    assert "You left already" in shown(program.get(link))


def one_click(program: Visitor, link: str) -> None:
    """What a mail program sends when its reader presses *Unsubscribe* (RFC 8058 3.2)."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = program.http.post(link, content="List-Unsubscribe=One-Click", headers=form)
    assert answer.status_code == 200


def header_link(mail: EmailMessage) -> str:
    """The path in `List-Unsubscribe` of a mail that a program may press."""
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    return "/" + str(mail["List-Unsubscribe"]).strip("<>").split("/", 3)[3]


def flood(live: Followed) -> EmailMessage:
    """Thirty signings that two subscriptions tell of; returns the digest."""
    live.served.log.append(*[signing_body(f"refs/heads/flood-{number}") for number in range(30)])
    live.follow()
    return live.mailbox.to(MIA)[-1]


@pytest.fixture
def flooded(live: Followed) -> tuple[Visitor, str]:
    """A subscriber of a repository and of its owner who got a digest of both, and the digest's one-click link."""
    visitor = live.visitor()
    live.subscribe(visitor, MIA)
    visitor.post("/subscribe", {"name": OWNER, "do": "subscribe"}, page=f"/subscribe?name={OWNER}")
    live.follow()
    digest = flood(live)
    first = text_of(digest).splitlines()[0]
    assert first.startswith("60 signings you did not expect: "), "control"
    assert {"acme", "acme/widget"} == set(first.partition(": ")[2].rstrip(".").split(", ")), "control"
    return visitor, header_link(digest)


def test_one_click_on_a_digest_stops_every_mail_to_that_address_and_leaves_the_others(
    live: Followed, flooded: tuple[Visitor, str]
) -> None:
    visitor, link = flooded
    account = live.courier.site.subscribers.by_address(MIA)
    assert account is not None
    place = {"host": "acme.example", "secret": "", "state": "ready"}
    live.courier.site.subscribers.destinations.add(account.id, "mail", "team@acme.example", **place)
    program, before = live.visitor(), len(live.mailbox.to(MIA))
    assert f"Stop every mail to {MIA}?" in shown(program.get(link))
    one_click(program, link)
    flood(live)
    live.clock.advance(days=8)
    put_weekly(live.courier.site)
    live.deliver()
    assert len(live.mailbox.to(MIA)) == before, "neither alerts nor a weekly mail that would call silence safe"
    assert live.mailbox.to("team@acme.example"), "another place of the same account goes on"
    page = shown(visitor.get("/subscriptions"))
    assert f"Mails to {MIA} are stopped" in page
    assert "acme/widget" in page, "the subscriptions stay"
    assert "Stopped by a link in a mail" in shown(visitor.get("/destinations"))
    assert live.courier.site.subscribers.stats()["left"] == 1


def test_the_page_after_a_digests_link_says_what_stopped_and_leads_back(
    live: Followed, flooded: tuple[Visitor, str]
) -> None:
    _, link = flooded
    reader, before = live.visitor(), len(live.mailbox.to(MIA))
    said = shown(reader.post(link, expect=200))
    assert f"No more mails to {MIA}" in said
    assert "Nothing was deleted" in said
    live.sign("refs/heads/unheard")
    assert len(live.mailbox.to(MIA)) == before
    assert "are stopped" in shown(reader.get(link)), "also for who pressed the button of the mail program"
    assert "You are told again" in shown(reader.post(f"{link}/back", page=link, expect=200))
    reader.post(f"{link}/back", expect=410)
    live.clock.advance(hours=2)
    live.sign("refs/heads/heard")
    told = live.mailbox.to(MIA)[before:]
    assert len(told) == 2, "one of each subscription"
    assert all("refs/heads/heard" in text_of(each) for each in told)


def test_a_digest_ends_one_of_its_subscriptions_by_a_link_of_its_own(
    live: Followed, flooded: tuple[Visitor, str]
) -> None:
    visitor, _ = flooded
    text = text_of(live.mailbox.to(MIA)[-1])
    link = text.partition("Stop mails about acme: ")[2].split()[0].removeprefix(live.url)
    assert "Stop mails about acme?" in shown(visitor.get(link))
    assert "is deleted" in shown(visitor.post(link, page="/account", expect=200))
    account = live.courier.site.subscribers.by_address(MIA)
    assert account is not None
    assert [each.title for each in live.courier.site.subscribers.subscriptions(account.id)] == ["acme/widget"]


def test_one_click_on_the_weekly_mail_turns_it_off_and_the_alerts_stay(live: Followed) -> None:
    live.subscribe(live.visitor(), MIA)
    live.follow()
    live.clock.advance(days=8)
    put_weekly(live.courier.site)
    live.deliver()
    link = header_link(live.mailbox.to(MIA)[-1])
    program = live.visitor()
    assert "Turn the weekly mail off?" in shown(program.get(link))
    one_click(program, link)
    live.clock.advance(days=30)
    assert put_weekly(live.courier.site) == 0
    live.sign("refs/heads/x")
    assert text_of(live.mailbox.to(MIA)[-1]).startswith("A signing you did not expect")
    assert "The weekly mail is off" in shown(program.get(link))
    program.post(f"{link}/back", page=link, expect=200)
    live.clock.advance(days=8)
    assert put_weekly(live.courier.site) == 1


def test_an_address_that_was_suspended_gets_no_weekly_mail(live: Followed) -> None:
    live.subscribe(live.visitor(), MIA)
    live.follow()
    live.mailbox.refuse[MIA] = "550 no such user"
    live.sign("refs/heads/x")
    for _ in range(3):
        live.clock.advance(hours=3)
        live.deliver()
    live.mailbox.refuse.clear()
    live.clock.advance(days=8)
    put_weekly(live.courier.site)
    live.deliver()
    assert len(live.mailbox.to(MIA)) == 1


def test_a_subscription_says_from_which_entry_on_it_is_covered(live: Followed) -> None:
    visitor = live.visitor()
    page = live.subscribe(visitor, MIA)
    assert "not in force there yet" in shown(visitor.get(f"/subscriptions/{page}"))
    live.follow()
    assert "every entry from 3 on, 0 so far" in shown(visitor.get(f"/subscriptions/{page}"))
    live.sign("refs/tags/v2.0.0")
    assert "every entry from 3 on, 1 so far" in shown(visitor.get(f"/subscriptions/{page}"))


def test_a_mail_server_that_is_down_delays_and_loses_nothing(live: Followed) -> None:
    live.subscribe(live.visitor(), MIA)
    live.follow()
    live.mailbox.refuse[MIA] = "450 come back later"
    live.sign("refs/heads/x")
    assert len(live.mailbox.to(MIA)) == 1
    del live.mailbox.refuse[MIA]
    live.clock.advance(hours=2)
    live.deliver()
    first = live.mailbox.to(MIA)[1:]
    assert [text_of(each).splitlines()[0] for each in first] == ["A signing you did not expect: acme/widget."]


def test_the_third_bounce_suspends_and_the_subscriber_sees_it(live: Followed) -> None:
    visitor = live.visitor()
    live.subscribe(visitor, MIA)
    live.follow()
    live.mailbox.refuse[MIA] = "550 no such user"
    live.sign("refs/heads/x")
    for _ in range(3):
        live.clock.advance(hours=3)
        live.deliver()
    page = shown(visitor.get("/subscriptions"))
    assert "A destination was suspended" in page
    assert "550 no such user" in shown(visitor.get("/destinations"))
    stats = live.courier.site.subscribers.stats()
    assert (stats["bounced"], stats["destinations_suspended"]) == (3, 1)


def test_many_signings_at_once_become_one_mail(live: Followed) -> None:
    live.subscribe(live.visitor(), MIA)
    live.follow()
    live.served.log.append(*[signing_body(f"refs/heads/flood-{number}") for number in range(30)])
    live.follow()
    [digest] = live.mailbox.to(MIA)[1:]
    assert text_of(digest).startswith("30 signings you did not expect")


def test_confirming_another_subscription_starts_the_mails_again(live: Followed, flooded: tuple[Visitor, str]) -> None:
    """A page that says *you are subscribed* must be true for an address whose mails were stopped."""
    _, link = flooded
    one_click(live.visitor(), link)
    before = len(live.mailbox.to(MIA))
    live.subscribe(live.visitor(), MIA, name=f"{NAME}-other")
    account = live.courier.site.subscribers.by_address(MIA)
    assert account is not None
    [place] = live.courier.site.subscribers.destinations.of(account.id)
    assert place.state == "ready"
    live.follow()
    live.sign("refs/heads/heard")
    assert len(live.mailbox.to(MIA)) > before + 1, "the confirming mail, and alerts"

"""The ten journeys of a subscriber in Debian's chromium: on a phone and a desk, in light and dark."""

import csv
import io
import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from monitor.cli import run_command
from monitor.model.state import Finding
from monitor.site.leaving import DESTINATION, SUBSCRIPTION, leave_link
from monitor.site.weekly import put_weekly
from monitor.store.database import create
from rules.asking import ask_of, rule_of
from rules.rule import Outcome, Verdict
from rules.selection import select
from rules.subject import read_subject
from sigstore_entries.signing import ChainTrust, EntryRef, Name, NameForm
from tests.browser.pictures import PICTURES, take
from tests.browser.site_pages import Eyes, chromium, eyes
from tests.rules import signings
from tests.site.followed import NAME, Followed, followed
from tests.site.scene import HOSTILE, LOG, REPOSITORY, Scene, link_in, scene, text_of
from tests.support.database_fixtures import postgres_database, postgres_url
from tests.support.served_log import signing_body

__all__ = ["postgres_url"]
pytestmark = pytest.mark.skipif(chromium() is None, reason="chromium is not installed (Debian: chromium)")
MIA = "mia@acme.example"
BUSY, FORGED = "https://github.com/busy/monorepo", "https://github.com/acme/forged"
LONG = f"https://github.com/{'o' * 39}/{'r' * 100}"


_RUNS = [
    pytest.param("sqlite", 390, False, id="390-light"),
    pytest.param("sqlite", 390, True, id="390-dark"),
    pytest.param("sqlite", 1280, False, id="1280-light"),
    pytest.param("sqlite", 1280, True, id="1280-dark"),
    pytest.param("postgresql", 390, False, id="390-light-postgresql"),
]


@pytest.fixture
def live(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Followed]:
    is_postgres = request.param == "postgresql"
    where = postgres_database(request.getfixturevalue("postgres_url")) if is_postgres else None
    with followed(tmp_path, where) as made:
        made.served.log.append(*[signing_body(f"refs/tags/v1.{number}.0") for number in range(6)])
        made.sign("refs/heads/totally-legit")
        yield made


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """A webhook's receiver that answers the challenge with its code."""
    got: list[dict[str, object]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["content-length"])))
            got.append(document)
            body = str(document["data"].get("code", "")).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook", got
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("live", "width", "dark"), _RUNS, indirect=["live"])
def test_all_ten_journeys(live: Followed, hook: tuple[str, list[dict[str, object]]], width: int, *, dark: bool) -> None:
    with eyes(live.url, width=width, dark=dark) as mia:
        _look_and_subscribe(live, mia)
        _be_told(live, mia)
        _see(live, mia)
        _destinations(live, mia, hook)
        _exports(live, mia)
        _quiet_week(live, mia)
        _sign_in_again(live, mia)
        _operate(live, mia)
        _leave(live, mia)
        for page in ("how", "privacy", "abuse"):
            mia.open(f"/{page}")
            mia.look(page)
        assert len(mia.seen) >= 20


def _look_and_subscribe(live: Followed, mia: Eyes) -> None:
    mia.open("/")
    assert "Was anything signed in your name?" in mia.look("front")
    mia.page.get_by_role("searchbox").fill("gihub.com/acme/widget")
    mia.press("Look up")
    assert "Did you mean" in mia.look("mistyped")
    mia.press(NAME)
    assert "One signing does not look like the others" in mia.look("identity")
    mia.press("Details", exact=False)
    assert "Who and what" in mia.look("signing")
    mia.page.go_back()
    mia.press("Subscribe")
    text = mia.look("subscribe")
    assert "they are built on tags v…" in text.lower()
    # The verdicts of the past follow the tick boxes at once, without a script.
    told = mia.page.locator(".preview .chip.unexpected:visible")
    assert told.count() == 1
    for key in ("ref",):
        mia.page.locator(f"#use-{key}").uncheck()
    assert told.count() == 0
    mia.page.locator("#use-ref").check()
    mia.page.get_by_label("Your address").fill(MIA)
    mia.press("Subscribe")
    assert "Look into your mailbox" in mia.look("sent")
    live.courier.run_pass()
    mia.open(link_in(live.mailbox.to(MIA)[-1], "confirm"))
    assert "Tell you about acme/widget?" in mia.look("confirm")
    mia.press("Yes, tell me")
    assert "You are subscribed" in mia.look("confirmed")
    live.follow()


def _be_told(live: Followed, mia: Eyes) -> None:
    live.sign("refs/tags/v2.0.0")
    live.sign("refs/heads/main")
    mail = live.mailbox.to(MIA)[-1]
    _mail(mia, mail, "mail-alert")
    link = link_in(mail, "answer")
    mia.open(link)
    assert "Was this you?" in mia.look("answer")
    mia.press("It was me")
    assert "Expect this from now on?" in mia.look("mine")
    mia.press("Expect it too")
    mia.look("widened")
    live.follow()
    live.sign("refs/heads/evil")
    mia.open(link_in(live.mailbox.to(MIA)[-1], "answer").replace("mine=yes", "mine=no"))
    mia.press("It was not me: what now?")
    assert "GitHub Actions" in mia.look("not-mine")


def _see(live: Followed, mia: Eyes) -> None:
    mia.open("/subscriptions")
    mia.look("subscriptions")
    mia.press("acme/widget")
    text = mia.look("subscription")
    assert "every entry from" in text
    mia.press("Change what I expect")
    mia.look("edit")
    mia.page.get_by_text("Write the rule yourself").click()
    mia.page.get_by_label("Rule (YAML)").fill("select: {identity: {regex: '.*'}}")
    mia.press("Save")
    assert "The rule cannot be used" in mia.look("bad-rule")


def _destinations(live: Followed, mia: Eyes, hook: tuple[str, list[dict[str, object]]]) -> None:
    mia.open("/destinations")
    mia.page.get_by_label("Kind").select_option("webhook")
    mia.page.get_by_label("Address or URL").fill(hook[0])
    mia.press("Add")
    assert "The receiver answered with the code" in mia.look("destinations")
    live.sign("refs/heads/again")
    assert [each["type"] for each in hook[1]] == ["signwatch.challenge", "signwatch.unexpected-signing"]
    mia.open("/account")
    mia.page.get_by_label("Name").fill("deploy script")
    mia.press("Make a token")
    assert "shown this once" in mia.look("account")


def _exports(live: Followed, mia: Eyes) -> None:
    """What one subscription saw, as files for programs and as a feed that a reader without cookies fetches."""
    signed = {"refs/heads/main": True, "refs/heads/evil": True, "refs/heads/again": True, "refs/tags/v2.0.0": False}
    mia.open("/subscriptions")
    mia.press("acme/widget")
    rows = json.loads(_download(mia, "JSON", "signings.json"))["signings"]
    named = {ref: row for ref in signed for row in rows if ref in json.dumps(row)}
    assert {ref: row["outcome"] == "unexpected" for ref, row in named.items()} == signed
    lines = list(csv.DictReader(io.StringIO(_download(mia, "CSV", "signings.csv"))))
    assert [(line["log"], int(line["index"])) for line in lines] == [(row["log"], row["index"]) for row in rows]
    mia.open("/destinations")
    mia.page.get_by_label("Kind").select_option("atom")
    mia.press("Add")
    found = re.search(r"https?://\S+(/feed/\S+)", mia.look("feed"))
    assert found
    live.sign("refs/heads/for-the-feed")
    feed = live.visitor().get(found[1])
    assert feed.headers["content-type"].startswith("application/atom+xml")
    newest = ET.fromstring(feed.content).find("{http://www.w3.org/2005/Atom}entry")
    assert newest is not None
    assert "refs/heads/for-the-feed" in "".join(newest.itertext())


def _download(mia: Eyes, link: str, name: str) -> str:
    with mia.page.expect_download() as download:
        mia.page.get_by_role("link", name=link, exact=True).click()
    assert download.value.suggested_filename == name
    return Path(download.value.path()).read_text(encoding="utf-8")


def _quiet_week(live: Followed, mia: Eyes) -> None:
    live.clock.advance(days=8)
    put_weekly(live.courier.site)
    live.courier.run_pass()
    weekly = live.mailbox.to(MIA)[-1]
    assert "unexpected" in text_of(weekly).splitlines()[0]
    _mail(mia, weekly, "mail-weekly")
    mia.open(link_in(weekly, "leave"))
    assert "Turn the weekly mail off?" in mia.look("leave-weekly")
    mia.press("Turn it off")
    assert "The weekly mail is off" in mia.look("left-weekly")
    mia.press("Start them again")
    assert "You are told again" in mia.look("back")


def _sign_in_again(live: Followed, mia: Eyes) -> None:
    mia.open("/account")
    mia.press("Sign out")
    mia.open("/subscriptions")
    assert "Sign in first" in mia.look("refused")
    mia.press("Sign in")
    mia.look("sign-in")
    _ask_for_a_link(live, mia)
    mia.look("sign-in-link")
    mia.press("Sign in")
    assert "My subscriptions" in mia.look("signed-in")


def _operate(live: Followed, mia: Eyes) -> None:
    """The operator suspends the account, and lets it go on: the subscriber is told nothing meanwhile, and told why."""
    named = ("--config", str(live.served.config))
    mails = len(live.mailbox.to(MIA))
    assert run_command(["subscribers", "suspend", MIA, "--why", "a complaint", *named]) == 0
    mia.open("/subscriptions")
    assert "Sign in first" in mia.look("suspended")
    live.sign("refs/heads/while-suspended")
    assert len(live.mailbox.to(MIA)) == mails
    _ask_for_a_link(live, mia)
    mia.press("Sign in")
    assert "This account is suspended" in mia.look("suspended-sign-in")
    assert run_command(["subscribers", "suspend", MIA, "--resume", *named]) == 0
    _ask_for_a_link(live, mia)
    mia.press("Sign in")
    assert "acme/widget" in mia.look("resumed")
    live.clock.advance(hours=2)
    live.sign("refs/heads/after-the-suspension")
    assert "refs/heads/after-the-suspension" in text_of(live.mailbox.to(MIA)[-1])
    done = [each["action"] for each in live.courier.site.subscribers.actions(2)]
    assert done == ["resume", "suspend"]


def _ask_for_a_link(live: Followed, mia: Eyes) -> None:
    mia.open("/sign-in")
    mia.page.get_by_label("Your address").fill(MIA)
    mia.press("Send me a link")
    live.courier.run_pass()
    mia.open(link_in(live.mailbox.to(MIA)[-1], "sign-in"))


def _leave(live: Followed, mia: Eyes) -> None:
    alert = next(mail for mail in reversed(live.mailbox.to(MIA)) if "did not expect" in text_of(mail).splitlines()[0])
    mia.open(link_in(alert, "leave"))
    mia.look("leave")
    mia.press("Yes, stop")
    assert "You get no more mail about this" in mia.look("left")
    mia.open("/account")
    mia.page.get_by_text("Delete the account").first.click()
    mia.page.get_by_label("Write your address to be sure").fill(MIA)
    mia.press("Delete the account")
    assert "Your account is deleted" in mia.look("deleted")
    assert live.courier.site.subscribers.by_address(MIA) is None


def _mail(mia: Eyes, mail: object, name: str) -> None:
    """Show a mail's HTML as a mail program would."""
    body = mail.get_body(("html",))  # type: ignore[attr-defined]
    page = mia.context.new_page()
    page.set_content(str(body.get_content()))
    if mia.pictures is not None:
        page.screenshot(path=mia.pictures / f"{name}-{mia.label}.png", full_page=True)
    room = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert room[0] <= room[1]
    page.close()


def fill(acme: Scene) -> None:
    """A year of releases, a name of thousands, one that strangers alone used, and one of hostile lengths."""
    acme.a_year()
    for name, number, refs, trust in (
        (BUSY, 3_000, ("refs/tags/v1.{}.0", "refs/heads/main", "refs/pull/{}/merge"), ChainTrust.TRUSTED),
        (FORGED, 30, ("refs/heads/main",), ChainTrust.UNTRUSTED),
        (LONG, 12, (f"refs/tags/{HOSTILE}{'w' * 300}-{{}}", "refs/tags/v{}"), ChainTrust.TRUSTED),
    ):
        wanted, found = rule_of(0, ask_of(read_subject(name).select(), {}).document).select, []
        for each in range(number):
            workflow = f"{name}/.github/workflows/{'release' if each % 3 else 'x' * 90}.yml"
            ref = refs[each % len(refs)].format(each)
            claims: dict[str, str | None] = {
                "source_repository_uri": name,
                "github_workflow_repository": name.removeprefix("https://github.com/"),
                "source_repository_ref": ref,
                "github_workflow_ref": ref,
                "build_config_uri": f"{workflow}@{ref}",
                "build_signer_uri": f"{workflow}@{ref}",
            }
            made = signings.signing(
                claims,
                where=EntryRef(LOG, 10_000 + acme.next_index),
                names=(Name(NameForm.URI, f"{workflow}@{ref}"),),
                not_before=acme.clock() - timedelta(hours=each * 3),
                trust=trust,
            )
            acme.next_index += 1
            found.append(Finding("file-rule", select(wanted, made), Verdict(Outcome.EXPECTED), b"leaf"))
        acme.keep(found)


def _asides(acme: Scene) -> dict[str, str]:
    """Pages that the journeys do not come by: names and paths."""
    visitor = acme.visitor()
    acme.subscribe(visitor, MIA)
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    [place, *_] = acme.site.subscribers.destinations.of(account.id)
    used = link_in(acme.mailbox.to(MIA)[-1], "confirm")
    acme.visitor().post(
        "/subscribe",
        {"name": LONG, "email": f"{'l' * 60}@acme.example", "do": "subscribe"},
        page=f"/subscribe?name={LONG}",
    )
    acme.deliver()
    expired = link_in(acme.mailbox.messages[-1], "confirm")
    acme.clock.advance(hours=25)
    stop = leave_link(acme.site, DESTINATION, place.id).removeprefix(acme.url)
    leave = leave_link(acme.site, SUBSCRIPTION, acme.site.subscribers.subscriptions(account.id)[0].id)
    acme.site.subscribers.destinations.add(
        account.id, "webhook", f"https://hook.example/{'x' * 300}", host="hook.example", secret="", state="waiting"
    )
    return {
        "known": f"/look?name={REPOSITORY}",
        "everything": f"/look?name={REPOSITORY}&everything=1",
        "unknown": "/look?name=https://github.com/acme/nothing-here",
        "self-made": f"/look?name={FORGED}",
        "thousands": f"/look?name={BUSY}",
        "thousands-subscribe": f"/subscribe?name={BUSY}",
        "hostile": f"/look?name={LONG}",
        "hostile-subscribe": f"/subscribe?name={LONG}",
        "link-used": used,
        "link-expired": expired,
        "link-foreign": "/confirm/" + "0" * 64,
        "link-malformed": leave.removeprefix(acme.url)[:-3],
        "answer-malformed": "/answer/x",
        "stop-all": stop,
        "nothing": "/nothing/here",
        "odd-name": f"/look?name={'%3Cscript%3E' * 12}",
    }


@pytest.mark.parametrize(("width", "dark"), [(320, False), (390, True), (1280, False)])
def test_pages_beside_the_journeys_fit_and_axe_finds_nothing(tmp_path: Path, width: int, *, dark: bool) -> None:
    """Names of thousands, of strangers and of hostile length; links that are used, old, foreign and cut."""
    database = create(str(tmp_path / "signwatch.db"), datetime.now(UTC), "test")
    with scene(tmp_path, database) as acme, eyes(acme.url, width=width, dark=dark) as mia:
        fill(acme)
        pages = _asides(acme)
        for name, path in pages.items():
            mia.open(path)
            assert mia.look(name)
        mia.open(pages["stop-all"])
        mia.press("Yes, stop")
        assert f"No more mails to {MIA}" in mia.look("stopped-all")
        mia.press("My subscriptions")
        mia.press("Sign in")
        mia.page.get_by_label("Your address").fill(MIA)
        mia.press("Send me a link")
        acme.deliver()
        mia.open(link_in(acme.mailbox.to(MIA)[-1], "sign-in"))
        mia.press("Sign in")
        assert "are stopped" in mia.look("subscriptions-stopped")
        mia.press("Start them again")
        assert "Stopped by a link in a mail" in mia.look("destinations-stopped")
    database.close()


def test_the_pictures_of_the_documentation_can_be_made_again(tmp_path: Path) -> None:
    made = take(tmp_path)
    assert [each.name for each in made] == [name for name, *_ in PICTURES]
    assert all(each.read_bytes().startswith(b"\x89PNG") for each in made)
    documented = {path.name for path in (Path(__file__).parents[2] / "docs" / "images").glob("site-*.png")}
    assert documented == {each.name for each in made}

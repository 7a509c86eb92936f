"""The status page in a real browser: nothing in it runs, nothing overflows, and it says how things stand."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from msgspec.structs import replace

from alerts.alert import Owner
from monitor.store.coverage import BackScan
from tests.browser.chromium import Browser, chromium, running_browser
from tests.daemon.test_web import HOSTILE, Place
from tests.support.alerts import NOW, an_alert
from tests.support.parts import LOG, a_batch, a_finding, a_position, a_signing

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="chromium is not installed: .ci/install-debian-packages does it"),
]
LONG = HOSTILE + "W" * 3000
NARROW, WIDE = 360, 1280


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.client.close()
    made.server.stop()
    made.store.close()


def fill_with_hostile_words(place: Place) -> None:
    """Words an attacker chose in every place of the page that shows any, as long as they like."""
    place.store.baseline(a_position(0, head=9), "index 0")
    signing = a_signing(1, identity=LONG, issuer=LONG)
    alerts = [
        replace(an_alert(1, title=LONG), log=LONG),
        replace(an_alert(2, title=LONG), owner=Owner.LOG_MISBEHAVED, kind="log-forked"),
    ]
    batch = a_batch(0, 9, [a_finding(1, signing=signing)], unreadable=[5])
    place.store.advance(a_position(0, head=9), a_position(9), batch, alerts)
    place.store.health.went_wrong(LOG, NOW, Owner.COULD_NOT_ASK, "malformed", LONG)
    late = {f"{number}-{'w' * 90}": "selection" for number in range(12)}
    place.store.coverage.activate(LOG, late)
    place.store.back_scans.went_wrong(BackScan(LOG, NOW, 9), Owner.COULD_NOT_ASK, "malformed", LONG)


def page_of(html: str) -> str:
    return "data:text/html," + quote("<!doctype html><title>control</title>" + html)


def test_the_browser_tells_of_scripts_blocked_content_and_overflow(browser: Browser) -> None:
    """Control: each thing the other tests are sure is absent is seen when it is there."""
    assert browser.visit(page_of("<p>calm"), width=NARROW).complaints == []
    assert "consoleAPICalled" in browser.visit(page_of("<script>console.log(1)</script>"), width=NARROW).complaints[0]
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
    blocked = browser.visit(page_of(policy + "<script>1</script>"), width=NARROW)
    assert "Content Security Policy" in " ".join(blocked.complaints)
    wide = browser.visit(page_of("<div style='width:900px'>wide</div>"), width=NARROW)
    assert wide.width > wide.room


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_hostile_words_run_nothing_and_fit(browser: Browser, place: Place, width: int, dark: bool) -> None:
    fill_with_hostile_words(place)
    seen = browser.visit(place.server.url, width=width, dark=dark)
    assert "<script>alert(1)</script>" in seen.text, "control: the words are shown"
    assert seen.complaints == []
    assert seen.width <= seen.room
    assert all(link.startswith(place.server.url) for link in seen.links)


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_an_empty_installation_and_a_quiet_one_are_shown_in_words(browser: Browser, place: Place, width: int) -> None:
    empty = browser.visit(place.server.url, width=width)
    assert "Needs attention" in empty.text
    assert "signwatch init" in empty.text
    place.follow()
    quiet = browser.visit(place.server.url, width=width)
    assert "All read and proven" in quiet.text
    assert "9 entries read and proven" in " ".join(quiet.text.split())
    for seen in (empty, quiet):
        assert seen.complaints == []
        assert seen.width <= seen.room <= width


def test_a_log_that_broke_its_promise_stays_red_until_somebody_acknowledges_it(browser: Browser, place: Place) -> None:
    place.follow()
    fork = replace(an_alert(title="It forked", alert_id="c3"), owner=Owner.LOG_MISBEHAVED)
    place.store.enqueue([fork])
    seen = browser.visit(place.server.url, width=WIDE)
    assert "A log broke its promise" in seen.text
    assert "signwatch alerts ack c3" in seen.text
    assert seen.text.index("It forked") < seen.text.index("Findings"), "what matters comes first"


def test_dark_and_light_are_two_looks_of_one_page(browser: Browser, place: Place) -> None:
    place.follow()
    looks = set()
    for dark in (False, True):
        browser.visit(place.server.url, width=WIDE, dark=dark)
        looks.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(looks) == 2

"""The operator's pages in Debian's chromium: on a phone and a desk, in light and dark."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from alerts.alert import Owner
from alerts.links import Links
from monitor.store.alert_life import AlertLife, ChangeAuthor
from monitor.store.patterns import Patterns
from monitor.store.reading import Reading
from tests.browser.site_pages import Eyes, chromium, eyes
from tests.daemon.test_console import found, searchable
from tests.daemon.test_web import Place
from tests.site.scene import REPOSITORY
from tests.support.alerts import NOW
from tests.support.parts import LOG, some_evidence

__all__ = ["searchable"]
pytestmark = pytest.mark.skipif(chromium() is None, reason="chromium is not installed (Debian: chromium)")
LONG = "release-of-a-project-with-a-name-that-does-not-fit-anywhere@a-rather-long-name-of-a-company.example"
LINKS = Links("http://127.0.0.1", b"k" * 32)
TOKEN = "t" * 32


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, LINKS, TOKEN.encode())
    found(made, LONG)
    made.store.keep_evidence(some_evidence(), [])
    made.clock.advance(hours=3)
    made.store.health.went_wrong(LOG, made.clock.now, Owner.COULD_NOT_ASK, "timeout", "no complete answer in time")
    yield made
    made.client.close()
    made.server.stop()
    made.store.close()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_page_fits_and_axe_finds_nothing(place: Place, width: int, *, dark: bool) -> None:
    reading = Reading(place.store.database)
    (alert,) = [each for each in reading.alerts(9) if each.alert.kind == "unexpected-signing"]
    (piece,) = reading.evidence(9)
    with eyes(place.server.url, width=width, dark=dark) as sre:
        look(sre, "status", "/")
        look(sre, "alerts", "/alerts")
        link = LINKS.acknowledge(alert.alert).removeprefix(LINKS.base)
        assert "Expect signings like this one" in look(sre, "alert", link)
        sre.page.get_by_label("Your name").fill("alice")
        sre.page.get_by_label("Expect signings like this one, until it is revoked").check()
        sre.press("Acknowledge")
        assert "This alert is acknowledged" in sre.look("acknowledged")
        (pattern,) = Patterns(place.store.database).all()
        assert pattern.by == "alice"
        assert "Acknowledged patterns" in look(sre, "rule", "/rules/acme-release")
        look(sre, "rules", "/rules")
        look(sre, "log", f"/logs/{LOG}")
        look(sre, "signing", f"/signings/{LOG}/1")
        look(sre, "evidence", f"/evidence/{piece.id}")
        assert "Releases of Acme" in look(sre, "search", "/search?q=releases")
        look(sre, "found", f"/search?q={quote(LONG)}")
        look(sre, "explained", "/explain/alerts/canary-missed")
        sre.open(link)
        sre.press("Revoke pattern 1")
        assert "revoked" in sre.look("revoked")
    assert Patterns(place.store.database).all()[0].revoked_at is not None
    assert not Patterns(place.store.database).revoke(1, ChangeAuthor("bob"), NOW), "control: it is revoked"


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)], ids=["390-light", "1280-dark"])
def test_the_archive_is_searched_within_a_time_and_drawn(searchable: Place, width: int, *, dark: bool) -> None:
    with eyes(searchable.server.url, width=width, dark=dark) as sre:
        assert "12 entries of every log" in look(sre, "archive", f"/search?q={quote(REPOSITORY + '/*')}")
        assert sre.page.locator(".histogram rect").count() > 0
        sre.page.get_by_label("Signed since").fill("35d")
        sre.press("Show")
        assert "4 entries of every log" in sre.look("archive-since")
        assert sre.page.get_by_label("Signed since").input_value() == "35d"
        sre.page.get_by_label("and before").fill("soon")
        sre.press("Show")
        assert "is no moment" in sre.look("archive-wrong-time")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_an_operator_signs_in_silences_acknowledges_and_signs_out(place: Place, width: int, *, dark: bool) -> None:
    life, reading = AlertLife(place.store.database, []), Reading(place.store.database)
    (kept,) = [each for each in reading.alerts(9) if each.alert.kind == "unexpected-signing"]
    with eyes(place.server.url, width=width, dark=dark) as sre:
        look(sre, "read-only", f"/alerts/{kept.alert.id}")
        sre.press("Sign in")
        sre.look("operator-sign-in")
        sre.page.get_by_label("Token of web.token_file").fill("guess")
        sre.press("Sign in")
        assert "This is not the token" in sre.page.locator("body").inner_text()
        # The browser tells its console of the status 403.
        sre.complaints.clear()
        sre.look("operator-wrong-token")
        sre.page.get_by_label("Token of web.token_file").fill(TOKEN)
        sre.press("Sign in")
        sre.look("operator-signed-in")
        sre.page.get_by_label("Silence alerts with the same").select_option("rule")
        sre.page.get_by_label("Your name, for the silence").fill("alice")
        sre.press("Silence")
        assert "End silence 1" in sre.look("operator-silenced")
        sre.page.get_by_label("Your name", exact=True).fill("alice")
        sre.press("Acknowledge")
        assert "This alert is acknowledged" in sre.look("operator-acknowledged")
        sre.press("Sign out")
        sre.open(f"/alerts/{kept.alert.id}")
        assert "Sign in" in sre.look("operator-signed-out")
    assert [(each.kind, each.by) for each in life.changes(kept.alert.id)] == [("acknowledged", "alice")]
    assert [(each.rule, each.by) for each in life.silences.all()] == [("acme-release", "alice")]


def look(sre: Eyes, name: str, path: str) -> str:
    sre.open(path)
    return sre.look(f"operator-{name}")

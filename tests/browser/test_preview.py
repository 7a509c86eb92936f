"""The preview in Debian's chromium: judged by whole entries, and plain about the ones that could not be read."""

from collections.abc import Iterator

import pytest

from tests.browser.site_pages import Eyes, chromium, eyes
from tests.site.followed import Followed
from tests.site.test_preview import GADGET, PROTECTED, live, reader_of, small_ranges

__all__ = ["live", "small_ranges"]
pytestmark = pytest.mark.skipif(chromium() is None, reason="chromium is not installed (Debian: chromium)")


@pytest.fixture(params=[(390, False), (1280, True)], ids=["390-light", "1280-dark"])
def mia(live: Followed, request: pytest.FixtureRequest) -> Iterator[Eyes]:
    width, dark = request.param
    with eyes(live.url, width=width, dark=dark) as made:
        yield made


def chips(mia: Eyes) -> dict[str, str]:
    """What the reader sees beside each tag or branch."""
    found = {}
    for row in mia.page.locator(".preview .rows > li").all():
        (chip,) = [each for each in row.locator(".chip").all() if each.is_visible()]
        found[row.locator("b").inner_text().rpartition("/")[2]] = chip.inner_text()
    return found


def test_a_preview_is_of_whole_entries(mia: Eyes, live: Followed) -> None:
    mia.open(f"/subscribe?name={GADGET}")
    mia.look("preview")
    read = {"v1.0.0": "expected", "v1.1.0": "expected", "v1.2.0": "expected", "v1.4.0": "expected"}
    assert chips(mia) == {**read, "evil": "you are told", "v1.5.0": "counted only"}
    mia.page.locator("#use-ref").uncheck()
    mia.page.locator("#use-workflow").check()
    assert chips(mia)["evil"] == "expected"
    _write(mia, PROTECTED)
    assert chips(mia)["v1.4.0"] == "you are told", "its repository was private: the archive does not keep that"
    mia.look("preview-of-a-rule")


def test_a_preview_without_the_log_shows_no_green(mia: Eyes, live: Followed) -> None:
    live.served.down = True
    mia.open(f"/subscribe?name={GADGET}")
    text = mia.look("preview-not-read")
    assert "the log could not be asked" in text
    assert "Not compared: signature" in text
    unread = dict.fromkeys(("v1.0.0", "v1.1.0", "v1.2.0", "v1.4.0", "v1.5.0"), "not compared")
    assert chips(mia) == {**unread, "evil": "you are told"}
    mia.page.locator("#use-ref").uncheck()
    assert chips(mia)["evil"] == "not compared"
    _write(mia, PROTECTED)
    assert chips(mia) == {**unread, "evil": "you are told"}
    live.served.down = False
    for line in reader_of(live)._lines.values():
        line.failed_until = 0.0
    mia.press("Check again")
    assert "expected" in chips(mia).values()


def _write(mia: Eyes, rule: str) -> None:
    mia.page.get_by_text("Write the rule yourself").click()
    mia.page.get_by_label("Rule (YAML)").fill(rule)
    mia.press("Check again")

"""The search of the front page in a browser: on a phone and a desk, in light and dark, without script."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.site_pages import chromium, eyes
from tests.site.scene import Scene, scene
from tests.site.test_from_archive import archive_of, empty
from tests.site.test_search import EVERYTHING

pytestmark = pytest.mark.skipif(chromium() is None, reason="chromium is not installed (Debian: chromium)")
MORE = "More: part of a name, login service, time"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Scene]:
    with scene(tmp_path, empty(tmp_path), archive_of(tmp_path, EVERYTHING)) as made:
        yield made


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False), (1280, True)])
def test_a_search_from_the_front_page_to_one_entry(site: Scene, width: int, *, dark: bool) -> None:
    with eyes(site.url, width=width, dark=dark) as mia:
        mia.open("/")
        mia.look("front")
        assert not mia.page.get_by_label("Signed since").is_visible()
        mia.page.get_by_text(MORE).click()
        mia.look("front-more")
        mia.page.get_by_role("searchbox").fill("github.com/acme/*")
        mia.page.get_by_label("Login service").fill("token.actions.githubusercontent.com")
        mia.page.get_by_label("Signed since").fill("30th of May")
        mia.press("Search")
        assert "That is no time. Write a day such as 2026-01-31" in mia.look("search-wrong")
        assert mia.page.get_by_role("searchbox").input_value() == "github.com/acme/*"
        assert mia.page.get_by_label("Login service").input_value() == "token.actions.githubusercontent.com"
        assert mia.page.get_by_label("Signed since").input_value() == "30th of May"
        mia.page.get_by_label("Signed since").fill("30d")
        mia.press("Search")
        text = mia.look("search-found")
        assert "1 entry by signers that logged in at token.actions.githubusercontent.com, signed since" in text
        assert "every entry so far, 0 to 166" in text
        assert not mia.page.get_by_label("Signed since").is_visible(), "an answer comes first"
        mia.press("Show them too")
        assert "self-made" in mia.look("search-all")
        with mia.page.expect_download() as download:
            mia.page.get_by_role("link", name="CSV", exact=True).click()
        assert download.value.suggested_filename == "signwatch-all-151.csv"
        mia.open("/search?name=github.com/acme/*&since=30d")
        mia.press("Details of rekor-v2 entry 12", exact=False)
        assert "refs/heads/totally-legit" in mia.look("search-entry")
        mia.open("/search?name=*nothing*")
        assert "No entry matches" in mia.look("search-none")

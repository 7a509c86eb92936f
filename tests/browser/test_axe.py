"""A run without axe-core does not count as one that looked for barriers."""

from pathlib import Path

import pytest

from tests.browser import site_pages
from tests.browser.site_pages import chromium, eyes

pytestmark = pytest.mark.skipif(chromium() is None, reason="chromium is not installed (Debian: chromium)")


def _looks(seen: list[str]) -> None:
    with eyes("", width=390, dark=False) as mia:
        mia.page.set_content("<h1>Signwatch</h1>")
        seen.append(mia.look("page"))


def test_without_axe_a_test_that_looked_at_a_page_is_reported_as_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_pages, "AXE", tmp_path / "axe.min.js")
    seen: list[str] = []
    with pytest.raises(pytest.skip.Exception, match="axe-core is not installed"):
        _looks(seen)
    assert seen == ["Signwatch"], "all else is checked first"
    with eyes("", width=390, dark=False) as mia:
        mia.page.set_content("<h1>a page for a picture, that no test looks at</h1>")

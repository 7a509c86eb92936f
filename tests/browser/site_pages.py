"""The site in a real browser: pages opened, forms filled, links of mails followed, everything looked at on the way."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.support.waiting import PATIENCE

AXE = Path(__file__).parent / "axe" / "node_modules" / "axe-core" / "axe.min.js"
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
]
_MILLISECONDS = PATIENCE * 1000


def chromium() -> str | None:
    """Debian's browser, where it is installed."""
    return shutil.which("chromium")


@dataclass
class Eyes:
    """One person's browser. `pictures` is a folder for a screenshot of each page that is looked at."""

    context: BrowserContext
    page: Page
    url: str
    label: str
    pictures: Path | None = None
    complaints: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Open a page of the site."""
        self.page.goto(f"{self.url}{path}")

    def press(self, name: str, *, exact: bool = True) -> None:
        """Press the button or follow the first link of this name (a part of it unless `exact`), and wait for its page.

        A click alone returns before the next page is there: a look would then see the old one, or half of the new one.
        """
        found = self.page.get_by_role("button", name=name, exact=exact)
        if not found.count():
            found = self.page.get_by_role("link", name=name, exact=exact)
        with self.page.expect_navigation():
            found.first.click()

    def look(self, name: str) -> str:
        """Check the page that is shown, and return its text: it fits, nothing was blocked, axe-core finds nothing."""
        self.seen.append(name)
        if self.pictures is not None:
            self.page.screenshot(path=self.pictures / f"{name}-{self.label}.png", full_page=True)
        room = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert room[0] <= room[1], f"{name} is {room[0]} pixels wide in a window of {room[1]}"
        assert self.complaints == [], f"{name}: {self.complaints}"
        weight = len(self.page.content())
        assert weight < 50_000, f"{name} has {weight} bytes"
        if AXE.exists():  # where it is not, `eyes` reports the test as skipped
            # Evaluated by the driver: the page's own policy allows no script.
            self.page.evaluate(AXE.read_text(encoding="utf-8"))
            found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            assert _told(found["violations"]) == [], f"{name}: {_told(found['violations'])}"
        return self.page.locator("body").inner_text()

    def _heard(self, message: ConsoleMessage) -> None:
        # A refusal (401, 404, 410) is part of a journey; the browser logs each as an error of the page.
        if message.type in {"error", "warning"} and "status of 4" not in message.text:
            self.complaints.append(message.text)


def _told(violations: list[dict[str, Any]]) -> list[str]:
    return [f"{each['id']}: {[node['html'][:160] for node in each['nodes'][:3]]}" for each in violations]


@contextmanager
def eyes(url: str, *, width: int, dark: bool) -> Iterator[Eyes]:
    """A browser window of one width in one colour scheme.

    Without axe-core everything else is checked, and the test that looked at a page then counts as skipped.
    """
    folder = os.environ.get("SIGNWATCH_PICTURES")
    pictures = Path(folder) if folder else None
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=_ARGUMENTS)
        context = browser.new_context(
            viewport={"width": width, "height": 844 if width < 600 else 900},
            color_scheme="dark" if dark else "light",
        )
        context.set_default_timeout(_MILLISECONDS)
        page = context.new_page()
        made = Eyes(context, page, url, f"{width}-{'dark' if dark else 'light'}", pictures)
        page.on("console", made._heard)
        page.on("pageerror", lambda error: made.complaints.append(str(error)))
        try:
            yield made
        finally:
            context.close()
            browser.close()
    if made.seen and not AXE.exists():
        pytest.skip("axe-core is not installed (.ci/install-npm-client): all but its checks went well")

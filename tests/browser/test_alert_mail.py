"""The mail of an alert, laid out by a real browser as narrow as a phone, in light and in dark mode."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from alerts.alert import FactGroup
from alerts.links import Links
from alerts.rendering import Renderer
from tests.browser.chromium import Browser, chromium, running_browser
from tests.support.alerts import an_alert

pytestmark = pytest.mark.skipif(chromium() is None, reason="chromium is not installed: .ci/install-debian-packages")
BASE = "https://signwatch.acme.example"
LONG = (
    "https://github.com/acme/" + "very-long-name-without-a-break" * 6 + "/.github/workflows/release.yml@refs/heads/evil"
)
ALERT = replace(
    an_alert(
        title=f"{LONG[:90]}… signed an artifact on branch evil instead of tag v*", summary=LONG, reasons=(LONG,) * 3
    ),
    groups=(
        FactGroup("Source", (("Repository", LONG), ("Commit", "d4" * 20))),
        FactGroup("Entry", (("Digest of artifact", "sha256:" + "9f" * 32),)),
        FactGroup("Claims", (("token_subject", LONG), ("x" * 60, "y" * 300)), raw=True),
    ),
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 800])
def test_a_mail_is_readable_on_a_phone(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    mail = tmp_path / "mail.html"
    mail.write_text(Renderer(links=Links(BASE, b"k" * 32)).html(ALERT, "key"), encoding="utf-8")
    seen = browser.visit(mail.as_uri(), width=width, dark=dark)
    assert seen.complaints == []
    assert seen.width <= seen.room, "nothing is cut off or must be scrolled to sideways"
    assert seen.links
    ours = (f"{BASE}/alerts/", f"{BASE}/proofs/", f"{BASE}/explain/alerts/")
    assert all(link.startswith(ours) for link in seen.links)
    long = "[...document.querySelectorAll('.value')].filter(each => each.textContent.length > 60)"
    letters = browser.evaluate(f"Math.min(...{long}.map(each => each.clientWidth))")
    assert letters >= 200, "a value has room for more than a few letters in a line"
    assert float(browser.evaluate("parseFloat(getComputedStyle(document.querySelector('.value')).fontSize)")) >= 14
    assert browser.evaluate(_CONTRAST) >= 4.5, "WCAG 2.2, 1.4.3: text stands out from what is behind it"


def test_light_and_dark_are_two_looks_of_one_mail(browser: Browser, tmp_path: Path) -> None:
    mail = tmp_path / "mail.html"
    mail.write_text(Renderer().html(ALERT, "key"), encoding="utf-8")
    looks = set()
    for dark in (False, True):
        browser.visit(mail.as_uri(), width=390, dark=dark)
        looks.add(browser.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor"))
    assert len(looks) == 2


_CONTRAST = """(() => {
  const light = text => { const [r, g, b] = text.match(/[0-9.]+/g).map(Number).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b }
  const behind = each => { while (each) { const colour = getComputedStyle(each).backgroundColor
    if (!/, 0\\)$/.test(colour) && colour !== 'transparent') return colour; each = each.parentElement }
    return 'rgb(255, 255, 255)' }
  return Math.min(...[...document.querySelectorAll('h1, h2, p, li, .label, .value, .button, code')].map(each => {
    const [a, b] = [light(getComputedStyle(each).color), light(behind(each))].sort((x, y) => y - x)
    return (a + 0.05) / (b + 0.05) }))
})()"""

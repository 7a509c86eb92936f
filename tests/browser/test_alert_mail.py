"""The mail of an alert, laid out by a real browser as narrow as a phone, in light and in dark mode."""

import base64
import html
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

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


LOOKS = [("html", 320, False), ("html", 320, True), ("html", 600, False), ("text", 320, False)]
FEWEST_COLOURS = 8
"""Letters alone have as many, from the smoothing of their edges; a blank picture has one or two."""


@pytest.mark.parametrize(("form", "width", "dark"), LOOKS)
def test_a_mail_has_a_picture_in_which_something_is_drawn(
    browser: Browser, tmp_path: Path, form: str, width: int, dark: bool
) -> None:
    renderer = Renderer(links=Links(BASE, b"k" * 32))
    mail = tmp_path / "mail.html"
    mail.write_text(
        renderer.html(ALERT, "key") if form == "html" else as_a_phone_shows(renderer.text(ALERT, "key")),
        encoding="utf-8",
    )
    seen = browser.visit(mail.as_uri(), width=width, dark=dark)
    assert seen.complaints == []
    assert seen.width <= seen.room, "nothing is cut off or must be scrolled to sideways"
    drawn = base64.b64decode(
        browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=whole(browser))["data"]
    )
    folder = Path(os.environ.get("SIGNWATCH_PICTURES", str(tmp_path)))
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"mail-{form}-{width}-{'dark' if dark else 'light'}.png"
    picture.write_bytes(drawn)
    found = looked_at(browser, tmp_path, picture.read_bytes())
    assert found["width"] == width
    assert found["height"] > 800
    assert found["colours"] >= FEWEST_COLOURS


def test_a_line_of_the_plain_text_is_wider_than_a_phone_only_by_one_unbroken_word(
    browser: Browser, tmp_path: Path
) -> None:
    mail = tmp_path / "mail.html"
    text = Renderer(links=Links(BASE, b"k" * 32)).text(ALERT, "key")
    mail.write_text(as_a_phone_shows(text, breaks=False), encoding="utf-8")
    browser.visit(mail.as_uri(), width=320)
    wide = browser.evaluate(_WIDE_WORDS)
    assert wide, "control: a link has no place for a break"
    assert all(len(word) > 30 and " " not in word for word in wide)


def as_a_phone_shows(text: str, *, breaks: bool = True) -> str:
    """Plain text as a mail program on a phone lays it out: lines wrap; with `breaks`, a long word does too."""
    style = "white-space: pre-wrap" + ("; overflow-wrap: anywhere" if breaks else "")
    return (
        f'<!doctype html><meta charset="utf-8"><body style="margin: 8px"><pre style="{style}">{html.escape(text)}</pre>'
    )


def whole(browser: Browser) -> dict[str, float]:
    """Clip of a screenshot that holds the whole page, in CSS pixels."""
    size = browser.evaluate("({width: innerWidth, height: document.documentElement.scrollHeight})")
    return {"x": 0, "y": 0, "scale": 1, **size}


def looked_at(browser: Browser, folder: Path, png: bytes) -> dict[str, int]:
    """Width and height of a picture in pixels, and how many colours it has, as the browser reads it."""
    blank = folder / "blank.html"
    blank.write_text("<!doctype html><title>blank</title>", encoding="utf-8")
    browser.visit(blank.as_uri(), width=320)
    script = _COLOURS.replace("PICTURE", base64.b64encode(png).decode())
    answer = browser.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
    found: dict[str, int] = answer["result"]["value"]
    return found


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
_COLOURS = """(async () => {
  const picture = new Image()
  picture.src = 'data:image/png;base64,PICTURE'
  await picture.decode()
  const canvas = new OffscreenCanvas(picture.width, picture.height).getContext('2d')
  canvas.drawImage(picture, 0, 0)
  const points = new Uint32Array(canvas.getImageData(0, 0, picture.width, picture.height).data.buffer)
  return {width: picture.width, height: picture.height, colours: new Set(points).size}
})()"""
_WIDE_WORDS = """(() => {
  const text = document.querySelector('pre').firstChild, wide = []
  for (const word of text.data.matchAll(/[^ \\n]+/g)) {
    const range = document.createRange()
    range.setStart(text, word.index)
    range.setEnd(text, word.index + word[0].length)
    if ([...range.getClientRects()].some(box => box.right > innerWidth)) wide.push(word[0])
  }
  return wide })()"""

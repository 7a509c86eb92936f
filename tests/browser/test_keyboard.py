"""The journeys by keyboard alone: each form is reached by Tab, filled and sent by Enter, and the focus is seen."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.site_pages import Eyes, chromium, eyes
from tests.site.followed import NAME, Followed, followed
from tests.site.scene import link_in
from tests.support.served_log import signing_body

pytestmark = pytest.mark.skipif(chromium() is None, reason="chromium is not installed (Debian: chromium)")
MIA = "mia@acme.example"
MOST = 150
FOCUSED = """() => {
  const each = document.activeElement, style = getComputedStyle(each), box = each.getBoundingClientRect();
  const label = each.labels && each.labels.length ? each.labels[0].innerText : '';
  const ring = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
  return {text: (label || each.innerText || each.value || each.getAttribute('aria-label') || '').trim(),
          kind: each.tagName.toLowerCase(), name: each.getAttribute('name') || '',
          ring: ring || style.boxShadow !== 'none',
          seen: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight};
}"""


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Followed]:
    with followed(tmp_path) as made:
        made.served.log.append(*[signing_body(f"refs/tags/v1.{number}.0") for number in range(3)])
        made.sign("refs/heads/totally-legit")
        yield made


class Keys:
    """A person who has a keyboard and no pointer."""

    def __init__(self, mia: Eyes) -> None:
        self.mia, self.page = mia, mia.page

    def tab_to(self, text: str = "", *, name: str = "", kind: str = "") -> None:
        """Press Tab until an element of this text or form name has the focus, which must show at each step."""
        for _ in range(MOST):
            self.page.keyboard.press("Tab")
            found = self.page.evaluate(FOCUSED)
            if found["kind"] == "body":
                continue  # past the last element
            assert found["seen"], f"{found} has the focus and is not on the screen"
            assert found["ring"], f"{found} has the focus and does not show it"
            is_it = found["name"] == name if name else text in found["text"]
            if is_it and kind in {"", found["kind"]}:
                return
        raise AssertionError(f"{text or name} is not reached by Tab on {self.page.url}")

    def enter(self) -> None:
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")

    def type_into(self, name: str, text: str) -> None:
        self.tab_to(name=name)
        self.page.keyboard.type(text)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["1280-light", "390-dark"])
def test_each_form_of_the_journeys_is_filled_and_sent_by_tab_and_enter_alone(
    live: Followed, width: int, *, dark: bool
) -> None:
    with eyes(live.url, width=width, dark=dark) as mia:
        keys = Keys(mia)
        _subscribe(live, mia, keys)
        _answer_and_change(live, mia, keys)
        _sign_in_again_and_leave(live, mia, keys)


def _subscribe(live: Followed, mia: Eyes, keys: Keys) -> None:
    mia.open("/")
    keys.type_into("name", NAME)
    keys.enter()
    keys.tab_to("Subscribe")
    keys.enter()
    keys.tab_to(name="use")
    mia.page.keyboard.press("Space")
    mia.page.keyboard.press("Space")
    keys.type_into("email", MIA)
    keys.enter()
    assert "Look into your mailbox" in mia.look("sent")
    live.courier.run_pass()
    mia.open(link_in(live.mailbox.to(MIA)[-1], "confirm"))
    keys.tab_to("Yes, tell me")
    keys.enter()
    assert "You are subscribed" in mia.look("confirmed")
    live.follow()


def _answer_and_change(live: Followed, mia: Eyes, keys: Keys) -> None:
    live.sign("refs/heads/main")
    mia.open(link_in(live.mailbox.to(MIA)[-1], "answer"))
    keys.tab_to("It was me")
    keys.enter()
    keys.tab_to("Expect it too")
    keys.enter()
    mia.open("/subscriptions")
    keys.tab_to("acme/widget")
    keys.enter()
    keys.tab_to("Change what I expect")
    keys.enter()
    keys.tab_to("Write the rule yourself")
    mia.page.keyboard.press("Enter")
    keys.tab_to(name="rule")
    mia.page.keyboard.press("Control+A")
    mia.page.keyboard.type("select: {identity: {regex: '.*'}}")
    keys.tab_to("Save")
    keys.enter()
    assert "The rule cannot be used" in mia.look("bad-rule")


def _sign_in_again_and_leave(live: Followed, mia: Eyes, keys: Keys) -> None:
    mia.open("/account")
    keys.type_into("name", "deploy script")
    keys.tab_to("Make a token")
    keys.enter()
    assert "shown this once" in mia.look("account")
    keys.tab_to("Sign out")
    keys.enter()
    mia.open("/sign-in")
    keys.type_into("email", MIA)
    keys.enter()
    live.courier.run_pass()
    mia.open(link_in(live.mailbox.to(MIA)[-1], "sign-in"))
    keys.tab_to("Sign in", kind="button")
    keys.enter()
    assert "My subscriptions" in mia.look("signed-in")
    alert = next(mail for mail in live.mailbox.to(MIA) if "/leave/" in str(mail["List-Unsubscribe"]))
    mia.open(link_in(alert, "leave"))
    keys.tab_to("Yes, stop")
    keys.enter()
    assert "You get no more mail about this" in mia.look("left")

"""A page shows every text of a log and obeys none of it."""

import json
import re
import unicodedata
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError
from msgspec.structs import replace

from alerts.alert import Alert, FactGroup
from alerts.channels.apprise_urls import defuse
from alerts.channels.mail import compose
from alerts.channels.pagerduty import event
from alerts.channels.slack import blocks, fallback
from alerts.channels.webhook import encode
from alerts.inert import header_token, inert_line
from alerts.links import Links, is_signed, sign
from alerts.page import page_of
from alerts.rendering import Renderer
from tests.support.alerts import NOW, an_alert

HOSTILE = {
    "a plain name (control)": "release@acme.example",
    "ansi escape": "\x1b[2J\x1b[31mall is well\x1b[0m",
    "osc title": "\x1b]0;owned\x07",
    "eight-bit csi": "\x9b2J",
    "bidi override": "user@\u202eelpmaxe.live\u202c",
    "bidi isolate": "\u2066evil\u2069",
    "zero width": "rel\u200bease@acme.example",
    "tag characters": "ok\U000e0041\U000e0042",
    "newline": "first\nBcc: everybody@example.org\r\n\r\nbody",
    "line separator": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "nul": "a\x00b",
    "lone surrogate": "a\ud800b",
    "script": "<script>alert(1)</script>",
    "attribute": "\" onmouseover=\"alert(1)' x='",
    "image": "<img src=x onerror=alert(1)>",
    "comment": "--><!-- ]]> <!DOCTYPE",
    "template": "{{ 7*7 }}{% for x in ().__class__.__mro__ %}{{ x }}{% endfor %}",
    "slack everybody": "<!channel> <!here> <!everyone> <@U0123> <#C0123>",
    "slack link": "<https://evil.example|https://acme.example> *bold* _it_ `code`",
    "marks pile": "Z" + "\u0301" * 500,
    "hangul filler": "a\u3164b",
    "very long": "x" * 200_000,
    "very long escapes": "\x1b" * 200_000,
    "private use": "\ue000\uf8ff",
    "noncharacter": "\uffff",
}
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def hostile_alert(text: str) -> Alert:
    return an_alert(
        title=text,
        summary=text,
        consequence=text,
        next_step=text,
        reasons=(text,) * 60,
        facts=((text, text),) * 20,
        groups=(FactGroup(text, ((text, text),) * 20), FactGroup("Claims", ((text, text),) * 50, raw=True)),
        alert_id=f"id/{text[:300]}",
    )


def assert_visible(text: str, *, allowed: str = "\n") -> None:
    seen = [char for char in text if char not in allowed and unicodedata.category(char) in UNSEEN]
    assert seen == [], f"{[hex(ord(char)) for char in seen][:5]}"


class Tags(HTMLParser):
    """Every tag and attribute name of a document, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.urls: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.urls |= {value for name, value in attrs if name in {"href", "src"} and value}

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(document: str) -> Tags:
    tags = Tags()
    tags.feed(document)
    tags.close()
    return tags


BENIGN = parsed(Renderer().html(hostile_alert("release@acme.example"), "key"))
BASE = "https://signwatch.acme.example"
OURS = (f"{BASE}/alerts/", f"{BASE}/proofs/", f"{BASE}/explain/alerts/")
LINKED = Renderer(links=Links(BASE, b"k" * 32))


def check_text(alert: Alert) -> None:
    page = Renderer().text(alert, "key")
    assert_visible(page)
    assert len(page) < 80_000
    assert page.count("\n") < 140


def check_html(alert: Alert) -> None:
    document = Renderer().html(alert, "key")
    assert_visible(document)
    assert len(document) < 600_000
    found = parsed(document)
    assert found.tags == BENIGN.tags
    assert found.attributes == BENIGN.attributes
    assert not found.tags & {"a", "img", "script", "link", "iframe", "form"}
    linked = parsed(LINKED.html(alert, "key"))
    assert linked.tags - BENIGN.tags == {"a"}
    assert {url.partition("?")[0] for url in linked.urls} == {
        LINKED.links.page(alert),
        LINKED.links.proof(alert),
        LINKED.links.explanation(alert),
    }
    assert all(url.startswith(OURS) for url in linked.urls)


def slack_texts(block: dict[str, Any]) -> list[dict[str, Any]]:
    """The text objects of one block."""
    held = [block["text"]] if "text" in block else []
    return [
        *held,
        *block.get("fields", ()),
        *(each.get("text", each) if each["type"] == "button" else each for each in block.get("elements", ())),
    ]


def check_slack(alert: Alert) -> None:
    shown = blocks(LINKED.page(alert, "key"))
    assert 0 < len(shown) <= 50
    texts = [text for block in shown for text in slack_texts(block)]
    urls = [each["url"] for block in shown if block["type"] == "actions" for each in block["elements"]]
    assert all(url.startswith(OURS) for url in urls)
    assert all(len(url) <= 3000 for url in urls)
    assert all(len(block.get("fields", ())) <= 10 for block in shown)
    assert {text["type"] for text in texts} == {"plain_text"}, "plain text has neither markup nor mentions"
    assert {text["emoji"] for text in texts} == {False}
    for text in texts:
        assert_visible(text["text"])
        assert 0 < len(text["text"]) <= 3000
    assert len(texts[0]["text"]) <= 150
    assert not re.search(r"[<>]", fallback(page_of(alert, "key")))
    assert_visible(fallback(page_of(alert, "key")), allowed="")


def check_json(alert: Alert) -> None:
    for line in (Renderer().line(alert, "key"), encode(alert, "key", Renderer()).decode("ascii")):
        assert_visible(line, allowed="")
        assert line.isascii()
        assert len(line) < 3_000_000
        # A strict reader must take it: no lone surrogate.
        json.dumps(json.loads(line), ensure_ascii=False).encode()


def check_mail(alert: Alert) -> None:
    message = compose(alert, alert.id, NOW, sender="a@example.org", to=("b@example.org",), renderer=Renderer())
    raw = message.as_bytes()
    benign = compose(an_alert(), "k", NOW, sender="a@example.org", to=("b@example.org",), renderer=Renderer())
    assert set(message.keys()) == set(benign.keys())
    assert raw.isascii()
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert_visible(str(message["Subject"]), allowed="")
    assert message["To"] == "b@example.org"
    assert re.fullmatch(r"<[0-9a-f]{40}@example\.org>", message["Message-ID"])


def check_pagerduty(alert: Alert) -> None:
    document = event(alert, alert.id, "r" * 32, LINKED)
    assert len(document["payload"]["summary"]) <= 1024
    assert len(document["dedup_key"]) <= 255
    assert document["dedup_key"].isascii()
    assert len(json.dumps(document)) < 512_000
    for value in (document["payload"]["summary"], document["payload"]["source"]):
        assert_visible(value, allowed="")


def check_apprise(alert: Alert) -> None:
    shown = defuse(Renderer().text(alert, "key"))
    assert not re.search(r"[<>`\[\]*]|@(?!\u2060)", shown)


CHECKS = [check_text, check_html, check_slack, check_json, check_mail, check_pagerduty, check_apprise]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_log_content_is_inert_everywhere(check: object, text: str) -> None:
    assert callable(check)
    check(hostile_alert(text))


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=200))
def test_any_text_is_inert_everywhere(text: str) -> None:
    for check in CHECKS:
        check(hostile_alert(text))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=300), st.integers(0, 100))
def test_a_line_is_visible_bounded_and_stable(text: str, limit: int) -> None:
    shown = inert_line(text, limit)
    assert_visible(shown, allowed="")
    assert len(shown) <= limit + 40
    assert inert_line(inert_line(text, 10_000), 10_000) == inert_line(text, 10_000)


def test_what_was_cut_is_said() -> None:
    assert inert_line("x" * 10, 10) == "x" * 10
    for undrawn in "\u034f\u17b4\u180b\u180f\ufe00\ufe0f\U000e0100\U000e01ef":
        shown = inert_line(f"alice{undrawn}@acme.example", 200)
        assert shown == f"alice\\u{{{ord(undrawn):x}}}@acme.example", "it does not look like alice"
    assert inert_line("x" * 15, 10) == "xxxxxxxxxx… (+5 characters)"
    page = Renderer().text(replace(an_alert(), reasons=("r",) * 30, facts=(("f", "v"),) * 50), "k")
    assert "… and 5 more" in page
    assert "and 10 more" in page


def test_ordinary_names_in_any_script_stay_readable() -> None:
    for name in (
        "release@acme.example",
        "Zoë Müller",
        "田中",
        "Владимир",
        "नमस्ते",
        "https://github.com/a/b@refs/tags/v1",
    ):
        assert inert_line(name, 200) == name


@pytest.mark.parametrize("part", ["title", "summary", "consequence", "next_step", "reason", "fact", "label"])
def test_every_part_of_the_alert_is_on_every_page(part: str) -> None:
    marked = an_alert(
        title="the title",
        summary="the summary",
        consequence="the consequence",
        next_step="the next_step",
        reasons=("the reason",),
        facts=(("the label", "the fact"),),
    )
    wanted = f"the {part}"
    assert wanted in Renderer().text(marked, "k")
    assert wanted in Renderer().html(marked, "k")
    assert wanted in json.dumps(blocks(page_of(marked, "k")))
    assert wanted in json.dumps(event(marked, "k", "r", Renderer()))
    assert (wanted if part != "label" else "the_label") in Renderer().line(marked, "k")


def test_a_page_names_the_rule_the_log_the_entry_and_the_key() -> None:
    for page in (Renderer().text(an_alert(7), "the-key"), Renderer().html(an_alert(7), "the-key")):
        assert "rule acme-release, log rekor-v2, entry 7" in page
        assert "the-key" in page
        assert "2026-03-01T12:00:00Z" in page


def test_a_stored_alert_reads_back_as_the_alert() -> None:
    alert = hostile_alert("a plain name")
    assert Alert.from_json(json.loads(json.dumps(alert.to_json()))) == alert


SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "signwatch-alert-1.json").read_text())


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_programs_get_is_as_its_published_schema_says(text: str) -> None:
    validator = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for alert in (an_alert(), hostile_alert(text), replace(hostile_alert(text), log=None, index=None, rule=None)):
        document = json.loads(LINKED.line(alert, "key"))
        validator.validate(document)
        assert set(document) == set(SCHEMA["properties"]), "every field is described"
    assert document["facts"]
    with pytest.raises(ValidationError):
        validator.validate(document | {"owner": "nobody"})
    with pytest.raises(ValidationError):
        validator.validate(document | {"facts": {"event": {"log": "v2"}}})


def test_the_first_lines_say_what_happened_and_what_to_do_and_raw_claims_come_last() -> None:
    groups = (FactGroup("Claims", (("token_subject", "raw"),), raw=True), FactGroup("Build", (("Run", "run 7"),)))
    page = LINKED.text(replace(an_alert(), groups=groups), "key")
    places = [
        page.index(each)
        for each in (
            "Unexpected signing as",
            "What to do",
            "Acknowledge:",
            "signwatch alerts ack",
            "Why",
            "Facts",
            "Build",
            "Claims",
        )
    ]
    assert places == sorted(places)
    assert page.startswith("[page] Unexpected signing as release@acme.example\n")


def test_a_link_to_acknowledge_holds_for_one_alert_and_a_time() -> None:
    key = b"k" * 32
    signature = sign(key, "a", 2_000_000_000)
    assert is_signed(key, "a", 2_000_000_000, signature, NOW)
    assert not is_signed(key, "b", 2_000_000_000, signature, NOW)
    assert not is_signed(key, "a", 2_000_000_001, signature, NOW)
    assert not is_signed(b"l" * 32, "a", 2_000_000_000, signature, NOW)
    assert not is_signed(key, "a", 2_000_000_000, "\u00fc", NOW)
    late = datetime.fromtimestamp(2_000_000_000, UTC)
    assert not is_signed(key, "a", 2_000_000_000, signature, late)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_mail_stays_under_100_kb(text: str) -> None:
    raw = compose(hostile_alert(text), "k", NOW, sender="a@example.org", to=("b@example.org",), renderer=LINKED)
    assert len(raw.as_bytes()) < 100_000
    assert len(LINKED.html(hostile_alert(text), "k").encode()) < 100_000


def test_an_alert_of_evidence_links_it_and_every_alert_its_explanation() -> None:
    forked = replace(an_alert(), kind="log-forked", evidence="ab" * 16)
    page = LINKED.page(forked, "key")
    assert page.evidence_link == f"{BASE}/evidence/{'ab' * 16}"
    assert page.explanation_link == f"{BASE}/explain/alerts/log-forked"
    for form in (LINKED.text(forked, "key"), LINKED.html(forked, "key"), json.dumps(blocks(page))):
        assert page.evidence_link in form
        assert page.explanation_link in form
    document = LINKED.document(forked, "key")
    assert (document["evidence"], document["explanation"]) == (page.evidence_link, page.explanation_link)
    assert LINKED.page(an_alert(), "key").evidence_link == ""
    unlinked = Renderer().page(forked, "key")
    assert (unlinked.evidence_link, unlinked.explanation_link) == ("", "")


def test_a_digest_and_a_test_have_no_page_and_nothing_to_acknowledge() -> None:
    for kind in ("digest", "test"):
        page = LINKED.page(replace(an_alert(), kind=kind), "key")
        assert (page.link, page.acknowledge_link, page.command) == ("", "", "")
    assert LINKED.subject(replace(an_alert(), kind="test"), "key").startswith("[test] ")


def test_a_header_token_keeps_plain_keys_and_hashes_the_rest() -> None:
    assert header_token("rekor-v2/7/rule:mail") == "rekor-v2/7/rule:mail"
    for key in ("", "a b", "a\r\nX: y", "ü", "x" * 181, "a\n"):
        assert re.fullmatch(r"sha256-[0-9a-f]{64}", header_token(key))
        assert header_token(key) == header_token(key)

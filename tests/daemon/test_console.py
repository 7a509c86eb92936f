"""The operator's pages: everything is linked, counted once, in the colour of whose trouble it is, and inert."""

import re
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from alerts.alert import Owner
from monitor.daemon.pages import explained, explanation
from monitor.daemon.rekor_search import page_search
from monitor.raising.log_alerts import ALERT_KINDS
from monitor.store.history import Pass
from rules.rule_file import load_rules
from tests.daemon.test_web import _OURS, HOSTILE, Place, _Tags
from tests.site.scene import REPOSITORY
from tests.site.test_from_archive import NOW as NOW_OF_BODIES
from tests.site.test_from_archive import archive_of, body
from tests.support.alerts import NOW, an_alert
from tests.support.parts import DIGEST, LOG, a_batch, a_finding, a_position, a_signing, some_evidence

MAX_PAGE = 100_000
LIMIT = timedelta(minutes=5)
RULES = """\
version: 1
rules:
  - id: acme-release
    title: Releases of Acme
    select: {identity: release@acme.example}
    expect: {issuer: "https://accounts.example"}
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.client.close()
    made.server.stop()
    made.store.close()


def found(place: Place, text: str = "release@acme.example") -> None:
    """A followed log with one attack in it: a certificate, and two entries made with it."""
    place.rules = list(load_rules(RULES, "rules.yaml").rules)
    place.follow()
    key = sha256(b"certificate").digest()
    signings = [a_signing(index, identity=text, issuer=text, issued=key) for index in (1, 2)]
    other = a_signing(3, identity=text, issuer=text)
    batch = a_batch(9, 12, [a_finding(each.where.index, signing=each) for each in (*signings, other)])
    alert = replace(an_alert(1, title=f"Unexpected signing {text}"), kind="unexpected-signing", log=LOG, index=1)
    place.store.advance(a_position(9), a_position(12), batch, [replace(alert, rule="acme-release")])
    place.store.record_head(a_position(12).head.head)
    place.store.health.went_well(LOG, NOW, NOW, progress=Pass(12, 4, LIMIT))


def pages_of(place: Place) -> dict[str, str]:
    """Every page that can be reached by links from the overview, by path."""
    seen: dict[str, str] = {}
    todo = ["/"]
    while todo:
        path = todo.pop()
        answer = place.client.get(path)
        if path.startswith("/proofs/"):
            # A proof is made of the log's answers, and no log is here to ask; one alert here is of an entry not kept.
            assert "cannot be built now" in answer.text or "no stored signing" in answer.text, path
        else:
            assert answer.status_code == 200 or path == "/readyz", path
        seen[path] = answer.text
        tags = _Tags()
        tags.feed(answer.text)
        links = {attrs.get("href") or "" for tag, attrs in tags.found if tag == "a"}
        todo += [link for link in links if link.startswith("/") and link not in seen and link not in todo]
        assert len(seen) < 300
    return seen


def test_everything_is_linked_from_the_overview_and_no_link_is_broken(place: Place) -> None:
    found(place)
    place.store.keep_evidence(some_evidence(), [])
    paths = set(pages_of(place))
    alert = place.client.get("/api/status.json").json()["open_alerts"][0]["id"]
    piece = place.client.get("/api/status.json").json()["evidence"][0]["id"]
    wanted = {
        "/alerts",
        "/alerts/" + quote(alert, safe=""),
        "/rules",
        "/rules/acme-release",
        f"/logs/{LOG}",
        f"/signings/{LOG}/1",
    }
    wanted |= {f"/evidence/{piece}", f"/evidence/{piece}.json", "/explain/alerts/unexpected-signing"}
    assert wanted | {"/explain/expectations/ref"} <= paths


def test_one_attack_is_one_event_on_every_page(place: Place) -> None:
    found(place)
    status = place.client.get("/api/status.json").json()["findings"]
    assert status["by_outcome"] == {"unexpected": 3}, "control: three entries"
    assert status["events_by_outcome"] == {"unexpected": 2}
    for path in ("/", "/rules/acme-release", f"/logs/{LOG}"):
        page = place.client.get(path).text
        assert page.count('<p class="verdict"><span class="chip unexpected">') == 2, path
    assert "2 unexpected" in place.client.get("/").text


def test_outage_lie_and_illness_have_a_colour_each(place: Place) -> None:
    place.follow()
    states = {}
    for owner in (Owner.COULD_NOT_ASK, Owner.OURSELVES, Owner.LOG_MISBEHAVED):
        place.store.health.went_wrong(LOG, NOW, owner, "reason", "detail")
        [log] = place.client.get("/api/status.json").json()["logs"]
        states[owner] = log["state"]
        for path in ("/", f"/logs/{LOG}"):
            page = place.client.get(path).text
            assert f'<header class="{log["state"]}">' in page
            assert '<header class="good"' not in page
        assert f'class="card {log["state"]}"' in place.client.get("/").text
    assert list(states.values()) == ["outage", "ill", "lied"]
    style = place.client.get("/style.css").text
    for state in states.values():
        assert f".{state} .lamp" in style
        assert f"header.{state}" in style
    place.store.health.went_well(LOG, NOW, NOW)
    assert place.client.get("/api/status.json").json()["logs"][0]["state"] == "good", "control"


@pytest.mark.parametrize("against", [LOG, "shards"])
def test_no_lamp_is_green_under_kept_evidence(place: Place, against: str) -> None:
    tree = LOG if against == LOG else "shards/11"
    place.store.baseline(a_position(0, head=9, log=tree), "index 0")
    place.store.advance(a_position(0, head=9, log=tree), a_position(9, log=tree), replace(a_batch(0, 9), log=tree), [])
    place.store.health.went_well(tree, NOW, NOW)
    assert 'class="card good"' in place.client.get("/").text, "control"
    place.store.keep_evidence(replace(some_evidence(), log=against), [])
    for path in ("/", f"/logs/{tree}"):
        page = place.client.get(path).text
        assert 'class="card good"' not in page
        assert '<header class="lied">' in page


def test_hostile_words_are_inert_on_every_page(place: Place) -> None:
    words = HOSTILE + "/../..//evil.example?q=#x"
    found(place, words)
    place.store.keep_evidence(replace(some_evidence(), detail=words), [replace(an_alert(7, title=words), rule=words)])
    pages = pages_of(place)
    pages["/search"] = place.client.get("/search", params={"q": words}).text
    assert sum("&lt;script&gt;" in page for page in pages.values()) >= 6, "control: the words are shown"
    for path, page in pages.items():
        if path.endswith(".json") or path in {"/metrics", "/readyz"}:
            continue
        tags = _Tags()
        tags.feed(page)
        assert {tag for tag, _ in tags.found}.isdisjoint({"script", "img", "iframe", "object", "style", "base"}), path
        attributes = [(name, value or "") for _, attrs in tags.found for name, value in attrs.items()]
        assert not [name for name, _ in attributes if name.startswith("on") or name == "style"], path
        outside = [
            v for n, v in attributes if n in {"href", "src", "action"} and not _OURS.fullmatch(v) and v != "/search"
        ]
        assert [v for v in outside if not v.endswith(".json")] == [], path
        assert "\u202e" not in page
        assert "\x1b" not in page


def test_pages_stay_under_100_kb_however_much_an_attacker_logs(place: Place) -> None:
    place.rules = list(load_rules(RULES, "rules.yaml").rules)
    place.store.baseline(a_position(0, head=400), "index 0")
    signings = [a_signing(index, identity="W" * 3000, issuer="<" * 3000) for index in range(300)]
    findings = [a_finding(each.where.index, signing=each) for each in signings]
    alerts = [replace(an_alert(index, title="<" * 900), log=LOG, rule="acme-release") for index in range(300)]
    place.store.advance(a_position(0, 400), a_position(400), a_batch(0, 400, findings), alerts)
    for number in range(100):
        place.store.keep_evidence(replace(some_evidence(f"event {number}"), detail="<" * 3000), [])
    for path in (
        "/",
        "/alerts",
        "/rules",
        "/rules/acme-release",
        f"/logs/{LOG}",
        f"/signings/{LOG}/7",
        "/search?q=" + "W" * 300,
    ):
        page = place.client.get(path)
        assert page.status_code == 200
        assert len(page.content) < MAX_PAGE, path


def test_search_finds_names_digests_logs_rules_alerts_and_evidence(place: Place) -> None:
    found(place)
    place.store.keep_evidence(some_evidence(), [])
    status = place.client.get("/api/status.json").json()
    for text, link in {
        "release@acme.example": f"/signings/{LOG}/1",
        f"sha256:{DIGEST}": f"/signings/{LOG}/1",
        "rekor": f"/logs/{LOG}",
        "releases of": "/rules/acme-release",
        status["open_alerts"][0]["id"]: "/alerts/" + quote(status["open_alerts"][0]["id"], safe=""),
        status["evidence"][0]["id"][:12]: "/evidence/" + status["evidence"][0]["id"],
    }.items():
        page = place.client.get("/search", params={"q": text}).text
        assert f'href="{link}"' in page, text
    nothing = place.client.get("/search", params={"q": "stranger@else.example"}).text
    assert "No finding carries exactly this." in nothing
    assert "No archive is configured" in nothing
    assert "/signings/" not in nothing


@pytest.fixture
def searchable(tmp_path: Path) -> Iterator[Place]:
    """The pages over an archive of releases that no rule asked for, one every ten days."""
    releases = [body(number, f"refs/tags/v1.{number}.0", 10 * number) for number in range(12)]
    made = Place(tmp_path, search=page_search(archive_of(tmp_path, releases)))
    yield made
    made.client.close()
    made.server.stop()
    made.store.close()


def test_the_archive_is_searched_within_a_time_and_drawn(searchable: Place) -> None:
    def answer(**asked: str) -> tuple[str, str]:
        page = searchable.client.get("/search", params={"q": f"{REPOSITORY}/*", **asked})
        assert page.status_code == 200
        assert len(page.content) < MAX_PAGE
        return page.text, " ".join(re.sub(r"<[^>]+>", " ", page.text.partition("<h2>Archive</h2>")[2]).split())

    page, said = answer()
    assert "12 entries of every log that is archived" in said
    drawn = ET.fromstring(f"<svg{page.partition('<svg')[2].partition('</svg>')[0]}</svg>")
    titles = [title.text or "" for title in drawn.findall(".//{*}rect/{*}title")]
    assert sum(int(title.rpartition(" ")[2]) for title in titles) == 12
    assert 'name="since"' in page
    page, said = answer(since="35d")
    assert "4 entries of every log that is archived" in said
    assert 'value="35d"' in page
    day = f"{NOW_OF_BODIES - timedelta(days=35):%Y-%m-%d}"
    assert "4 entries" in answer(since=day)[1]
    assert "8 entries" in answer(until=day)[1]
    assert "1 entry of every" in answer(since=f"{NOW_OF_BODIES - timedelta(days=45):%Y-%m-%d}", until=day)[1]
    page, said = answer(since="2030-01-01")
    assert "0 entries of every" in said
    assert "<svg" not in page
    for wrong in ("yesterday", "<script>", "99999999999d", "2026-13-01"):
        page, said = answer(since=wrong)
        assert "is no moment: write 2026-01-31" in said, wrong
        assert "<script" not in page


@pytest.mark.parametrize(("text", "count"), [("*release.yml@refs/tags/v1.1*", 3), ("*@nowhere.example", 0)])
def test_a_glob_is_searched_for_on_the_page_too(searchable: Place, text: str, count: int) -> None:
    page = searchable.client.get("/search", params={"q": text}).text
    assert f"{count} entries of every log that is archived" in page


@pytest.mark.parametrize(
    "path",
    [
        "/alerts/none",
        "/rules/none",
        "/logs/none",
        "/signings/none/1",
        "/evidence/none",
        "/explain/alerts/none",
        "/explain/../pyproject/toml",
        "/explain/decisions/rich",
        "/signings/rekor-v2/99999999999999999999999",
    ],
)
def test_what_is_unknown_is_404(place: Place, path: str) -> None:
    found(place)
    assert place.client.get(path).status_code == 404


def test_the_pages_change_nothing(place: Place) -> None:
    found(place)
    for path in ("/alerts", "/rules", f"/logs/{LOG}", "/search"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert place.client.request(method, path).status_code == 405


def test_a_log_page_shows_its_history(place: Place) -> None:
    found(place)
    place.clock.advance(seconds=30)
    assert "No pause since following began." in place.client.get(f"/logs/{LOG}").text
    place.clock.advance(hours=3)
    place.store.health.went_wrong(LOG, place.clock.now, Owner.COULD_NOT_ASK, "timeout", "too slow")
    page = " ".join(place.client.get(f"/logs/{LOG}").text.split())
    assert f"{NOW:%Y-%m-%d}: 12 entries" in page
    assert "most on a day: 4 entries" in page, "lag"
    assert a_position(12).head.head.root.hex() in page
    assert "<td>3 hours</td><td>the log could not be asked</td>" in page


def test_every_kind_of_alert_is_explained_and_explanations_link_only_here() -> None:
    assert set(ALERT_KINDS) <= explained("alerts")
    for folder in ("alerts", "expectations"):
        for name in explained(folder):
            text = explanation(folder, name)
            assert text is not None
            tags = _Tags()
            tags.feed(text)
            links = [attrs["href"] or "" for tag, attrs in tags.found if tag == "a" and "href" in attrs]
            assert [link for link in links if not link.startswith("/explain/")] == []
            for link in links:
                _, _, where, page = link.split("/")
                assert page in explained(where)
    assert "/explain/expectations/issuer" not in (explanation("alerts", "digest") or "")

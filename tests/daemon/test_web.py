"""The page shows everything and nothing on it can run; the probes say the truth."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from alerts.alert import Owner
from alerts.links import NO_LINKS, Links
from monitor.config import Config, WebConfig, parse_config
from monitor.daemon.alert_pages import AlertDesk, alert_router
from monitor.daemon.console import ArchiveSearch, Console, console_router
from monitor.daemon.signing_proofs import SigningProofs
from monitor.daemon.status import Status, read_status, status_document
from monitor.daemon.web import create_app
from monitor.daemon.web_server import WebServer
from monitor.judging.coverage import read_coverage
from monitor.model.errors import OwnFault
from monitor.store.alert_life import AlertLife
from monitor.store.coverage import BackScan
from monitor.store.database import create
from monitor.store.reading import Reading
from monitor.store.store import Store
from monitor.telemetry.prometheus import PrometheusMeter
from rules.rule import Rule
from tests.support.alerts import NOW
from tests.support.parts import (
    LOG,
    Clock,
    a_batch,
    a_finding,
    a_position,
    a_signing,
    a_store,
    alert_for,
    some_evidence,
)
from tests.support.waiting import PATIENCE

CONFIG = """\
version: 1
database: signwatch.db
trust: {trusted_root: root.json}
logs: [{name: rekor-v2, url: "http://localhost:1", busy: true}]
rules: rules.yaml
"""
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><a href=javascript:alert(1)>\u202emoc\x00\x1b[2J"


class Place:
    """A store, a web server over it, and what the daemon says of itself."""

    def __init__(
        self, folder: Path, links: Links = NO_LINKS, token: bytes = b"", search: ArchiveSearch | None = None
    ) -> None:
        self.clock = Clock()
        self.config: Config = parse_config(CONFIG, folder / "signwatch.yaml")
        database = create(self.config.database, NOW, "test")
        self.store: Store = a_store(database, ["mail"], self.clock)
        self.meter = PrometheusMeter("test", ["mail"])
        self.fault: OwnFault | None = None
        self.rules: list[Rule] = []
        web = create_app(self.look, self.meter)
        web.include_router(console_router(Console(self.store, self.look, lambda: self.rules, self.clock, search)))
        life, reading = AlertLife(database, ["mail"]), Reading(database)
        web.include_router(
            alert_router(AlertDesk(life, reading, links, token, self.clock, SigningProofs(self.store, list, None)))
        )
        self.server = WebServer(web, WebConfig(("127.0.0.1", 0)))
        self.server.start()
        self.client = httpx.Client(base_url=self.server.url, trust_env=False, timeout=PATIENCE)

    def look(self) -> tuple[Status, dict[str, Any]]:
        if self.fault is not None:
            raise self.fault
        status = read_status(self.config, self.store, self.clock.now)
        return status, status_document(status, self.store)

    def follow(self) -> None:
        self.store.baseline(a_position(0, head=9), "index 0")
        self.store.advance(a_position(0, head=9), a_position(9), a_batch(0, 9), [])
        self.store.health.went_well(LOG, self.clock.now, self.clock.now)

    def reasons(self) -> list[str]:
        answer = self.client.get("/readyz")
        reasons: list[str] = answer.json()["reasons"]
        assert answer.status_code == (503 if reasons else 200)
        return reasons


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.client.close()
    made.server.stop()
    made.store.close()


def test_green_is_earned(place: Place) -> None:
    assert place.client.get("/healthz").status_code == 200, "the process lives from the start"
    assert any("not followed" in reason for reason in place.reasons())
    place.follow()
    assert place.reasons() == []


@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_that_vanished_under_the_daemon_is_not_ready(
    place: Place, tmp_path: Path, *, replaced: bool
) -> None:
    place.follow()
    assert place.reasons() == [], "control"
    path = tmp_path / "signwatch.db"
    path.rename(tmp_path / "elsewhere.db")
    if replaced:
        other = tmp_path / "other.db"
        create(str(other), NOW, "test").close()
        other.rename(path)  # `init` itself refuses: parts of the other database are still there
    (told,) = place.reasons()
    assert "deleted or replaced" in told
    assert place.client.get("/healthz").status_code == 200, "a restart helps nothing"
    if not replaced:
        (tmp_path / "elsewhere.db").rename(path)
        assert place.reasons() == [], "put back, nothing was lost"


def test_an_old_success_a_stale_head_and_a_waiting_alert_are_not_green(place: Place) -> None:
    place.follow()
    place.store.enqueue([alert_for(1)])
    assert place.reasons() == [], "control: a moment is allowed"
    place.clock.advance(hours=2)
    told = " ".join(place.reasons())
    assert "last pass that succeeded" in told
    assert "no newer tree head" in told
    assert "1 alert waiting" in told


def test_a_gap_beyond_the_objective_is_not_green(place: Place) -> None:
    place.store.baseline(a_position(0, head=10_001), "index 0")
    place.store.health.went_well(LOG, NOW, NOW)
    assert any("not read yet" in reason for reason in place.reasons())


def test_an_ill_database_is_an_answer_not_a_traceback(place: Place) -> None:
    place.fault = OwnFault("the database failed: disk full")
    answer = place.client.get("/readyz")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["the database failed: disk full"])
    assert place.client.get("/").status_code == 503
    assert place.client.get("/metrics").status_code == 200


def test_open_evidence_keeps_the_page_and_the_log_red_until_it_is_closed(place: Place) -> None:
    place.follow()
    assert place.reasons() == [], "control"
    assert 'class="card good"' in place.client.get("/").text, "control"
    place.store.keep_evidence(some_evidence(), [])
    [reason] = place.reasons()
    [piece] = place.client.get("/api/status.json").json()["evidence"]
    assert f"signwatch evidence close {piece['id'][:12]} --note" in reason
    page = place.client.get("/").text
    assert "A log broke its promise" in page
    assert 'class="card lied"' in page
    assert f"signwatch evidence export {piece['id'][:12]}" in page
    place.meter.open_evidence(Reading(place.store.database).open_evidence_counts())
    assert f'signwatch_evidence_open{{log="{LOG}"}} 1.0' in place.client.get("/metrics").text
    assert place.store.close_evidence(piece["id"], "dealt with")
    assert not place.store.close_evidence(piece["id"], "twice")
    assert place.reasons() == []
    assert 'class="card good"' in place.client.get("/").text
    place.meter.open_evidence(Reading(place.store.database).open_evidence_counts())
    assert f'signwatch_evidence_open{{log="{LOG}"}} 0.0' in place.client.get("/metrics").text


# Paths of this server; a name in one is percent-encoded.
_OURS = re.compile(
    r"#main|/(\?live=1)?|/style\.css|/api/status\.json|/metrics|/readyz"
    r"|/(alerts|proofs|rules|logs|signings|evidence|explain)(/[A-Za-z0-9._~%-]+)*(/[0-9]+)?(\?every=true)?"
)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_hostile_content_is_inert(place: Place) -> None:
    place.store.baseline(a_position(0, head=9), "index 0")
    signing = a_signing(1, identity=HOSTILE, issuer=HOSTILE)
    place.store.advance(a_position(0, head=9), a_position(9), a_batch(0, 9, [a_finding(1, signing=signing)]), [])
    place.store.health.went_wrong(LOG, NOW, Owner.COULD_NOT_ASK, "malformed", HOSTILE)
    page = place.client.get("/")
    tags = _Tags()
    tags.feed(page.text)
    names = {tag for tag, _ in tags.found}
    assert "bdi" in names, "control: the identity is shown"
    assert names.isdisjoint({"script", "img", "iframe", "object", "style"})
    [form] = [attrs for tag, attrs in tags.found if tag == "form"]
    assert (form["action"], form["method"]) == ("/search", "get")
    attributes = [(name, value or "") for _, attrs in tags.found for name, value in attrs.items()]
    assert not [name for name, _ in attributes if name.startswith("on")]
    links = {value for name, value in attributes if name in {"href", "src"}}
    assert "/signings/rekor-v2/1" in links, "control"
    assert [link for link in links if not _OURS.fullmatch(link)] == []
    assert "\u202e" not in page.text
    assert "\x1b" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "<script" not in place.client.get("/api/status.json").headers["content-type"]


@pytest.mark.parametrize("path", ["/", "/api/status.json", "/metrics", "/readyz", "/healthz", "/style.css", "/nothing"])
def test_every_answer_forbids_scripts_frames_and_guessing(place: Place, path: str) -> None:
    headers = place.client.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "script-src" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "server" not in headers


def test_nothing_can_be_changed_over_the_web(place: Place) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert place.client.request(method, "/").status_code == 405


def test_the_document_says_what_was_not_looked_at(place: Place) -> None:
    place.store.baseline(a_position(4, head=9), "index 4")
    place.store.advance(a_position(4, head=9), a_position(7, head=9), a_batch(4, 7, unreadable=[5]), [])
    document = place.client.get("/api/status.json").json()
    assert document["logs"][0]["verified_size"] == 7
    assert document["not_looked_at"] == {
        "logs_not_followed": [],
        "unread_entries": {LOG: 2},
        "unreadable_entries": {LOG: 1},
        "before_baseline": {LOG: 4},
        "rules_not_covered": {},
        "matches_dropped": {},
    }


def test_a_port_in_use_is_told(place: Place) -> None:
    port = int(place.server.url.rpartition(":")[2])
    with pytest.raises(OwnFault, match="cannot be had"):
        WebServer(create_app(place.look, place.meter), WebConfig(("127.0.0.1", port)))


def test_what_rules_were_not_offered_is_shown_least_covered_first_and_bounded(place: Place) -> None:
    place.store.baseline(a_position(0, head=9), "index 0")
    place.store.coverage.activate(LOG, {"from-the-start": "s"})
    place.store.advance(a_position(0, head=9), a_position(6, head=9), a_batch(0, 6), [])
    late = {f"late-{number:03}": "s" for number in range(300)}
    place.store.coverage.activate(LOG, {"from-the-start": "s", **late})
    place.store.advance(a_position(6, head=9), a_position(9), a_batch(6, 9), [])
    place.store.coverage.offered(LOG, {"late-000": "s"}, 2, 4)
    place.store.coverage.offered(LOG, {"late-001": "s"}, 0, 6)
    place.store.back_scans.got_on(BackScan(LOG, NOW, 6, 40))
    coverage = place.client.get("/api/status.json").json()["logs"][0]["coverage"]
    assert (coverage["from"], coverage["to"], coverage["rules"]) == (0, 9, 301)
    assert (coverage["rules_not_covered"], coverage["entries_not_covered"]) == (299, 6)
    assert len(coverage["least_covered"]) == 50
    assert coverage["least_covered"][0] == {"rule": "late-002", "covered": [[6, 9]], "entries_not_covered": 6}
    page = place.client.get("/").text
    assert "299 of 301 rules not offered some of 6 entries" in page
    assert "<strong>6</strong> entries left, 40 a second" in page
    assert page.count(" lacks ") == 5
    assert "and 294 more" in page
    [found] = read_coverage(place.store, Reading(place.store.database).followed(), 1000).values()
    [offered] = [each.ranges for each in found.least if each.rule == "late-000"]
    assert offered == ((2, 4), (6, 9))
    [cut] = read_coverage(place.store, Reading(place.store.database).followed(), 1000, looked_at=10).values()
    assert (cut.uncovered, cut.unlooked, len(cut.least)) == (290 + 9, 290, 9), "those not looked at count as uncovered"


def test_looking_back_that_hangs_is_not_green(place: Place) -> None:
    place.follow()
    scan = BackScan(LOG, NOW, 6)
    place.store.back_scans.went_wrong(scan, Owner.COULD_NOT_ASK, "timeout", "too slow")
    assert place.reasons() == [], "control: an outage is given time"
    place.store.back_scans.went_wrong(scan, Owner.LOG_MISBEHAVED, "log-entry-missing", "it hides entry 3")
    assert any("looking back" in reason and "it hides entry 3" in reason for reason in place.reasons())
    place.store.back_scans.got_on(scan)
    place.clock.advance(minutes=1)
    assert place.reasons() == []
    place.store.back_scans.went_wrong(scan, Owner.COULD_NOT_ASK, "timeout", "too slow")
    place.clock.advance(hours=2)
    assert any("looking back" in reason and "too slow" in reason for reason in place.reasons())

"""The daemon looks after itself: what is wrong with it is not green, and told when it lasts."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from alerts.alert import Owner
from monitor.config import WebConfig, load_config
from monitor.daemon import daemon
from monitor.daemon.assembly import assemble
from monitor.daemon.console import Console, console_router
from monitor.daemon.daemon import Daemon
from monitor.daemon.daemon_lock import only_daemon
from monitor.daemon.status import Status, read_status, status_document
from monitor.daemon.web import create_app
from monitor.daemon.web_server import WebServer
from monitor.following.follower import Timing
from monitor.model.errors import OwnFault
from monitor.program import utc_now
from monitor.raising.log_alerts import could_not_ask_alert
from monitor.store.database import create
from monitor.store.outbox import Silence, Silences
from monitor.store.reading import Reading
from monitor.telemetry.prometheus import PrometheusMeter
from tests.support.alerts import NOW
from tests.support.parts import Clock, alert_for
from tests.support.served_log import RULES, ServedLog, served_log, signing_body
from tests.support.waiting import PATIENCE, wait_until


class Place:
    """A daemon that is not started: its jobs are run by hand, at times the test chooses."""

    def __init__(self, served: ServedLog) -> None:
        self.served, self.clock = served, Clock()
        config = load_config(served.config)
        create(config.database, NOW, "test").close()
        self.meter = PrometheusMeter("test", config.channels)
        timing = Timing(self.clock, lambda _seconds: None)
        self.monitor = assemble(config, self.meter, timing)
        self.daemon = Daemon(self.monitor)

    def alerts(self) -> list[str]:
        return [each.alert.title for each in Reading(self.monitor.store.database).alerts(100)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with served_log(tmp_path) as served:
        made = Place(served)
        yield made
        made.monitor.close()


def test_a_bad_rule_file_is_not_green_and_told_when_it_lasts(place: Place) -> None:
    place.daemon.heartbeat()
    assert place.daemon.reasons() == [], "control: all is well"
    rules = place.served.folder / "rules.yaml"
    rules.write_text("version: 1\nrules: nonsense\n", encoding="utf-8")
    place.daemon.heartbeat()
    assert place.daemon.reasons() == [], "it may still be being written"
    place.daemon.heartbeat()
    assert "rules.yaml" in place.daemon.reasons()[0]
    assert place.alerts() == []
    place.clock.advance(minutes=6)
    place.daemon.heartbeat()
    place.daemon.heartbeat()
    assert len(place.alerts()) == 1
    assert place.monitor.rules.held.generation == 1, "the rules that were good stay in force"
    rules.write_text(RULES + "    severity: warn\n", encoding="utf-8")
    place.daemon.heartbeat()
    place.daemon.heartbeat()
    assert place.daemon.reasons() == []
    assert place.monitor.rules.held.generation == 2
    place.daemon.heartbeat()
    assert [each.state for each in Reading(place.monitor.store.database).alerts(9)] == ["resolved"], "it is over"


SECRET = "hunter2"
ON_A_LIST = """\
version: 1
rules:
  - id: widget
    select: {identity: {glob: "https://github.com/acme/widget/**"}}
    expect: {digests_from: {%s}}
"""


class Echo(BaseHTTPRequestHandler):
    """Answers as many servers do: with the URL that it was asked for."""

    def do_GET(self) -> None:
        if "redirected" in self.path:
            self.send_response(302)
            self.send_header("Location", f"/elsewhere/{self.path}")
            self.end_headers()
        else:
            self.send_error(404, "Not Found", f"Cannot GET {self.path}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        pass


@contextmanager
def echoing() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        serving.join(10)


def shown_by(place: Place, *paths: str) -> dict[str, str]:
    """What the daemon's page answers under these paths."""
    store, config, held = place.monitor.store, place.monitor.config, place.monitor.rules

    def look() -> tuple[Status, dict[str, Any]]:
        status = read_status(config, store, place.clock.now, place.daemon.reasons())
        return status, status_document(status, store)

    web = create_app(look, place.meter)
    web.include_router(console_router(Console(store, look, lambda: held.held.rules.rules, place.clock)))
    server = WebServer(web, WebConfig(("127.0.0.1", 0)))
    server.start()
    try:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE) as client:
            return {path: client.get(path).text for path in paths}
    finally:
        server.stop()


@pytest.mark.parametrize(
    "named",
    ["url: '{}/list?token={}'", "url_file: '{}/list-{}'", "url_file: '{}/redirected/list-{}'"],
    ids=["query", "path in a file", "redirected path in a file"],
)
def test_the_secret_in_the_url_of_a_failing_digest_list_is_told_nowhere(
    named: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with served_log(tmp_path) as served, echoing() as server, caplog.at_level(logging.INFO):
        key, url = named.format(server, SECRET).split(": ", 1)
        (served.folder / "list.url").write_text(url.strip("'"), encoding="utf-8")
        target = url if key == "url" else "list.url"
        (served.folder / "rules.yaml").write_text(ON_A_LIST % f"{key}: {target}", encoding="utf-8")
        place = Place(served)
        place.daemon.refresh_lists()
        place.clock.advance(minutes=6)
        place.daemon.heartbeat()
        place.daemon.heartbeat()
        shown = shown_by(place, "/readyz", "/api/status.json", "/", "/rules/widget", "/metrics")
        stored = Reading(place.monitor.store.database).alerts(9)
        (alert,) = [each.alert for each in stored if each.alert.kind == "signwatch-ill"]
        shown |= {"the alert": str(alert), "the log lines": caplog.text}
        place.monitor.close()
    for where in ("/readyz", "/api/status.json", "/", "the alert", "the log lines"):
        assert "404" in shown[where] or "redirected" in shown[where], f"control: {where} tells of the failure"
    assert [where for where, text in shown.items() if SECRET in text] == []


def test_an_outage_that_ends_resolves_its_alert_and_no_other(place: Place) -> None:
    store, began = place.monitor.store, place.clock()
    log = place.monitor.logs[0].name
    store.health.went_wrong(log, began, Owner.COULD_NOT_ASK, "connection", "no answer")
    store.enqueue([could_not_ask_alert(log, "connection", "no answer", began, began), alert_for(1)])
    place.daemon.heartbeat()
    assert open_kinds(place) == ["log-unreachable", "unexpected-signing"], "control: it lasts"
    assert 'signwatch_alerts_open{owner="could-not-ask",severity="warn"} 1.0' in place.meter.expose().decode()
    store.health.went_well(log, place.clock(), None)
    place.daemon.heartbeat()
    assert open_kinds(place) == ["unexpected-signing"]
    assert 'signwatch_alerts_open{owner="could-not-ask",severity="warn"} 0.0' in place.meter.expose().decode()


def open_kinds(place: Place) -> list[str]:
    return sorted(each.alert.kind for each in Reading(place.monitor.store.database).alerts(9, open_only=True))


def test_the_end_of_a_silence_is_told_once(place: Place) -> None:
    store = place.monitor.store
    Silences(store.database).add(
        Silence(place.clock() + timedelta(hours=1), "alice", "", kind="unexpected-signing"), place.clock()
    )
    store.enqueue([alert_for(1)])
    place.clock.advance(hours=2)
    place.daemon.heartbeat()
    place.daemon.heartbeat()
    assert open_kinds(place) == ["silence-ended"]


def test_an_alert_that_nobody_gets_is_an_alert(place: Place) -> None:
    place.monitor.store.enqueue([alert_for(1)])
    place.daemon.heartbeat()
    assert len(place.alerts()) == 1, "control: a moment is allowed"
    place.clock.advance(hours=1)
    place.daemon.heartbeat()
    place.daemon.heartbeat()
    assert [title for title in place.alerts() if "delivery to file" in title] == place.alerts()[:1]
    assert 'signwatch_outbox_oldest_age_seconds{channel="file"} 3600.0' in place.meter.expose().decode()
    for channel in place.monitor.channels:
        place.daemon.deliver(channel)
    assert place.monitor.store.outbox.backlog() == {}


def test_a_trust_root_that_cannot_be_read_again_leaves_the_old_one_in_force(place: Place) -> None:
    place.daemon.refresh_trust()
    assert place.daemon.reasons() == []
    root = place.served.folder / "trusted_root.json"
    good = root.read_bytes()
    root.unlink()
    place.daemon.refresh_trust()
    assert "trusted_root.json" in place.daemon.reasons()[0]
    assert place.monitor.trust.current().logs, "the last good one stays"
    place.clock.advance(days=4)
    place.daemon.heartbeat()
    assert len(place.alerts()) == 1
    root.write_bytes(good)
    place.daemon.refresh_trust()
    assert place.daemon.reasons() == []


def test_a_second_daemon_on_one_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "signwatch.db"
    with only_daemon(path):
        with pytest.raises(OwnFault, match="another daemon"), only_daemon(path):
            pass
        with only_daemon(None):
            pass
    with only_daemon(path):
        pass


def test_a_late_rule_is_looked_back_for_shown_and_counted(place: Place) -> None:
    [watch], [log] = place.monitor.watches, place.monitor.logs
    watch.baseline(0)
    place.daemon.follow(watch)
    (place.served.folder / "rules.yaml").write_text(
        RULES + '  - {id: late, select: {identity: {glob: "https://github.com/acme/**"}}, backscan: followed}\n'
    )
    place.daemon.heartbeat()
    place.daemon.heartbeat()
    place.daemon.follow(watch)
    place.daemon.tell_coverage()
    shown = place.meter.expose().decode()
    assert 'signwatch_rules_uncovered{log="rekor-v2"} 1.0' in shown
    assert 'signwatch_uncovered_entries{log="rekor-v2"} 3.0' in shown
    assert "signwatch_rules 2.0" in shown
    backscan = place.monitor.make.backscan(log)
    place.daemon.look_back(backscan)
    place.daemon.tell_coverage()
    assert 'signwatch_rules_uncovered{log="rekor-v2"} 0.0' in place.meter.expose().decode()
    assert len([found for found in Reading(place.monitor.store.database).findings(100) if found.rule == "late"]) == 3
    assert place.daemon.reasons() == []


def test_our_own_trouble_in_looking_back_is_not_green_until_it_is_mended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    backscan = place.monitor.make.backscan(place.monitor.logs[0])
    monkeypatch.setattr(place.monitor.rules, "_held", None)
    for _ in range(2):
        place.daemon.look_back(backscan)
        assert "looking back in rekor-v2" in place.daemon.reasons()[0], "a defect ends no daemon"
    monkeypatch.undo()
    place.clock.advance(minutes=1)
    place.daemon.look_back(backscan)
    assert place.daemon.reasons() == []


def test_findings_of_a_pass_are_delivered_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "_DELIVER_EVERY", 24 * 3600)
    stop = Event()
    with served_log(tmp_path) as served:
        config = load_config(served.config)
        create(config.database, utc_now(), "test").close()
        monitor = assemble(config, PrometheusMeter("test", config.channels), Timing(utc_now, stop.wait, stop.is_set))
        monitor.watches[0].baseline("head")
        running = Daemon(monitor)
        running.start()
        try:
            served.log.append(signing_body(ref="refs/heads/evil"))
            told = tmp_path / "alerts.jsonl"
            wait_until("the alert", lambda: told.exists() and "refs/heads/evil" in told.read_text())
        finally:
            stop.set()
            running.stop()
            monitor.close()

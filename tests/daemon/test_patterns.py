"""Acknowledged as a pattern: equal signings are expected until it is revoked, by command, by link and by the API."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from alerts.links import Links
from monitor.cli import run_command
from monitor.commands.terminal import Exit
from monitor.config import WebConfig, load_config
from monitor.daemon.alert_pages import AlertDesk, alert_router
from monitor.daemon.assembly import Monitor, assemble
from monitor.daemon.signing_proofs import SigningProofs
from monitor.daemon.web import create_app
from monitor.daemon.web_server import WebServer
from monitor.following.follower import Timing
from monitor.program import utc_now
from monitor.store.alert_life import AlertLife
from monitor.store.patterns import Patterns
from monitor.store.reading import KeptAlert, Reading
from monitor.store.sql import broken_seals
from monitor.telemetry.prometheus import PrometheusMeter
from tests.support.entries import CA_NOT_AFTER, hashedrekord_v2, make_certificate
from tests.support.served_log import CA, ISSUER, ServedLog, served_log, signing_body
from tests.support.waiting import PATIENCE

KEY, TOKEN = b"k" * 32, b"t" * 32


class Scene:
    """A followed log, and the pages of its alerts."""

    def __init__(self, served: ServedLog) -> None:
        self.served = served
        assert run_command(["init", "--config", str(served.config)]) == Exit.FINE
        config = load_config(served.config)
        meter = PrometheusMeter("test", config.channels)
        self.monitor: Monitor = assemble(config, meter, Timing(utc_now, lambda _seconds: None))
        self.database = self.monitor.store.database
        self.links = Links("https://signwatch.acme.example", KEY)
        web = create_app(lambda: (None, {}), meter)  # type: ignore[arg-type, return-value]
        proofs = SigningProofs(self.monitor.store, list, None)
        desk = AlertDesk(AlertLife(self.database, []), Reading(self.database), self.links, TOKEN, utc_now, proofs)
        web.include_router(alert_router(desk))
        self.server = WebServer(web, WebConfig(("127.0.0.1", 0)))
        self.server.start()
        self.client = httpx.Client(base_url=self.server.url, trust_env=False, timeout=PATIENCE)

    def sign(self, body: bytes) -> list[KeptAlert]:
        """Log an entry, follow, and return the alerts that came of it."""
        before = {each.alert.id for each in Reading(self.database).alerts(100)}
        self.served.log.append(body)
        for watch in self.monitor.watches:
            watch.run_pass()
        return [each for each in Reading(self.database).alerts(100) if each.alert.id not in before]

    def command(self, *arguments: str) -> int:
        return run_command([*arguments, "--config", str(self.served.config)])

    def link(self, kept: KeptAlert) -> str:
        return self.links.acknowledge(kept.alert).removeprefix(self.links.base)


@pytest.fixture
def scene(tmp_path: Path, where: str) -> Iterator[Scene]:
    with served_log(tmp_path) as served:
        text = served.config.read_text()
        assert "database: signwatch.db" in text, "control"
        served.config.write_text(text.replace("database: signwatch.db", f"database: {json.dumps(where)}"))
        made = Scene(served)
        yield made
        made.client.close()
        made.server.stop()
        made.monitor.close()


def test_by_command_until_it_is_revoked(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    (first,) = scene.sign(signing_body("refs/heads/nightly"))
    assert len(scene.sign(signing_body("refs/heads/nightly"))) == 1, "control: an equal one is news"
    assert scene.command("alerts", "ack", first.alert.id[:12], "--pattern", "--note", "nightly builds") == Exit.FINE
    out = capsys.readouterr().out
    assert "pattern 1: expected under the rule widget" in out
    assert "On refs/heads/nightly" in out
    assert scene.sign(signing_body("refs/heads/nightly", artifact="ab" * 32)) == []
    assert len(scene.sign(signing_body("refs/heads/evil"))) == 1, "another branch is news"
    scene.command("alerts", "patterns")
    assert re.search(r"\b1\s+in force\s+widget", capsys.readouterr().out)
    scene.command("alerts", "show", first.alert.id)
    assert "nightly builds (pattern 1)" in capsys.readouterr().out
    assert scene.command("alerts", "revoke", "1") == Exit.FINE
    assert scene.command("alerts", "revoke", "1") == Exit.MISUSED
    assert len(scene.sign(signing_body("refs/heads/nightly"))) == 1
    with scene.database.read() as connection:
        assert list(broken_seals(connection)) == []


def test_a_glob_for_the_ref_is_asked_for_and_stays_within_its_kind(scene: Scene) -> None:
    (first,) = scene.sign(signing_body("refs/heads/release-1"))
    for wrong in ("*", "refs/tags/*", "refs/heads/main*"):
        assert scene.command("alerts", "ack", first.alert.id, "--pattern", "--ref", wrong) == Exit.MISUSED
    assert Patterns(scene.database).all() == []
    assert scene.command("alerts", "ack", first.alert.id, "--ref", "refs/heads/release-*") == Exit.MISUSED
    assert scene.command("alerts", "ack", first.alert.id, "--pattern", "--ref", "refs/heads/release-*") == Exit.FINE
    assert scene.sign(signing_body("refs/heads/release-2")) == []
    assert len(scene.sign(signing_body("refs/heads/main"))) == 1


def test_a_persons_starter_rule_is_quiet_about_an_acknowledged_pattern_and_no_other_issuer(scene: Scene) -> None:
    rules = scene.served.folder / "rules.yaml"
    rules.write_text(
        "version: 1\nrules:\n  - id: alice\n    select: {identity: alice@acme.example}\n    expect: {authorised: []}\n"
    )
    scene.monitor.rules.reload()

    def by_alice(issuer: str, artifact: str) -> bytes:
        return hashedrekord_v2(
            make_certificate(CA, san="alice@acme.example", issuer=issuer, not_after=CA_NOT_AFTER), artifact
        )

    (first,) = scene.sign(by_alice(ISSUER, "01" * 32))
    assert scene.command("alerts", "ack", first.alert.id, "--pattern") == Exit.FINE
    assert scene.sign(by_alice(ISSUER, "02" * 32)) == []
    assert len(scene.sign(by_alice("https://evil.example", "03" * 32))) == 1


def test_by_the_link_of_a_mail(scene: Scene) -> None:
    (first,) = scene.sign(signing_body("refs/heads/nightly"))
    link = scene.link(first)
    page = scene.client.get(link).text
    assert "Expect signings like this one" in page
    assert "Expect signings" not in scene.client.get(link.partition("?")[0]).text, "without the link there is no form"
    fields = dict(re.findall(r'name="(until|signature)" value="([^"]*)"', page))
    form = {**fields, "by": "alice", "pattern": "like", "ref": "refs/heads/nightly", "change": "acknowledge"}
    path = link.partition("?")[0]
    assert scene.client.post(path, data={**form, "signature": "x"}).status_code == 403
    page = scene.client.post(path, data=form).text
    assert "Revoke pattern 1" in page
    assert scene.sign(signing_body("refs/heads/nightly")) == []
    (other,) = scene.sign(signing_body("refs/heads/evil"))
    others = dict(re.findall(r'name="(until|signature)" value="([^"]*)"', scene.client.get(scene.link(other)).text))
    path_of_other = scene.link(other).partition("?")[0]
    revoke = {"change": "revoke", "pattern": "1", "by": "mallory"}
    assert scene.client.post(path_of_other, data={**others, **revoke}).status_code == 404, "of this alert alone"
    assert "was revoked" not in page
    assert scene.client.post(path, data={**fields, **revoke, "by": "alice"}).status_code == 200
    assert len(scene.sign(signing_body("refs/heads/nightly"))) == 1


def test_by_the_api_and_reopening_revokes_it(scene: Scene) -> None:
    (first,) = scene.sign(signing_body("refs/heads/nightly"))
    path, headers = f"/api/alerts/{first.alert.id}", {"Authorization": f"Bearer {TOKEN.decode()}"}
    body = {"by": "alice", "pattern": True}
    assert scene.client.post(f"{path}/acknowledge", json=body).status_code == 401
    assert scene.client.post(f"{path}/resolve", json=body, headers=headers).status_code == 422
    assert scene.client.post(f"{path}/acknowledge", json=body, headers=headers).status_code == 200
    (pattern,) = scene.client.get("/api/patterns").json()["patterns"]
    assert (pattern["number"], pattern["rule"], pattern["by"]) == (1, "widget", "alice")
    assert scene.sign(signing_body("refs/heads/nightly")) == []
    assert scene.client.post(f"{path}/reopen", json={"by": "alice"}, headers=headers).status_code == 200
    assert len(scene.sign(signing_body("refs/heads/nightly"))) == 1
    assert scene.client.delete("/api/patterns/1", headers=headers).status_code == 404, "it is revoked already"


def test_an_alert_that_is_about_no_signing_makes_no_pattern(scene: Scene) -> None:
    scene.served.log.append(b"{}")
    for watch in scene.monitor.watches:
        watch.run_pass()
    (kept,) = Reading(scene.database).alerts(1)
    assert kept.alert.kind == "entry-unreadable"
    assert scene.command("alerts", "ack", kept.alert.id, "--pattern") == Exit.MISUSED
    assert Reading(scene.database).alerts(1)[0].state == "open"

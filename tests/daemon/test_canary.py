"""The canary tells that the way from a log to an alert is broken, whose trouble it is, and makes no noise itself."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from alerts.alert import Owner
from monitor.cli import run_command
from monitor.commands.status import _show_canary
from monitor.commands.terminal import Exit
from monitor.config import CanaryConfig, load_config
from monitor.daemon import assembly, canary
from monitor.daemon.assembly import assemble
from monitor.daemon.canary import CannotSign, SignedCanary, sign_with_sign_lite
from monitor.daemon.daemon import Daemon
from monitor.following.follower import Timing
from monitor.model.errors import BadConfig
from monitor.program import utc_now
from monitor.store import canaries as runs
from monitor.store.reading import Reading
from monitor.telemetry.prometheus import PrometheusMeter
from tests.support.entries import CA_NOT_AFTER, hashedrekord_v2, make_certificate
from tests.support.misbehaving_log import RekorV2Log, spki_of
from tests.support.served_log import CA, ISSUER, ServedLog, served_log
from tlog.note import tile_log_key

IDENTITY = "canary@acme.example"
BUNDLE = b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}'
CANARY = (
    f"canary: {{log: rekor-v2, identity: {IDENTITY}, issuer: '{ISSUER}', trust_config: trust.json, notify: [pager]}}\n"
)


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return utc_now() + self.ahead

    def advance(self, **by: float) -> None:
        self.ahead += timedelta(**by)


class Scene:
    """A daemon that is not started; its canary signs into the served log itself, where `trouble` does not keep it."""

    def __init__(self, served: ServedLog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.served, self.clock = served, Clock()
        self.trouble: CannotSign | None = None
        self.log_id = tile_log_key(RekorV2Log.host, spki_of(served.log.log_key)).log_id.hex()
        text = served.config.read_text().replace("notify: [file]", "notify: [file]\n" + CANARY)
        served.config.write_text(
            text.replace("channels:\n", "channels:\n  pager: {type: jsonl, path: pager.jsonl}\n", 1)
        )
        assert run_command(["init", "--config", str(served.config)]) == Exit.FINE
        config = load_config(served.config)
        self.meter = PrometheusMeter("test", config.channels)
        self.monitor = assemble(config, self.meter, Timing(self.clock, lambda _seconds: None))
        monkeypatch.setattr(assembly, "Canary", partial(canary.Canary, sign=self.sign))
        self.daemon = Daemon(self.monitor)

    def sign(self, _config: CanaryConfig, artifact: bytes) -> SignedCanary:
        if self.trouble is not None:
            raise self.trouble
        self.log(sha256(artifact).hexdigest())
        return SignedCanary(self.log_id, BUNDLE)

    def log(self, digest: str) -> None:
        certificate = make_certificate(CA, san=IDENTITY, issuer=ISSUER, not_after=CA_NOT_AFTER)
        self.served.log.append(hashedrekord_v2(certificate, digest))

    def follow(self) -> None:
        for watch in self.monitor.watches:
            self.daemon.follow(watch)

    def deliver(self) -> None:
        for channel in self.monitor.channels:
            self.daemon.deliver(channel)

    def round(self) -> None:
        """Everything that the daemon does again and again, once."""
        self.daemon.sign_canary()
        self.follow()
        self.deliver()
        self.daemon.watch_canary()
        self.deliver()

    def told(self, channel: str) -> list[tuple[str, str, str]]:
        path = self.served.folder / f"{channel}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        documents = [json.loads(line) for line in lines]
        return [(each["kind"], each["owner"], each["severity"]) for each in documents]

    def metric(self, name: str) -> str:
        text = self.meter.expose().decode()
        return next(line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} "))

    def results(self) -> list[str]:
        return [run.result for run in self.monitor.store.canaries.newest(9)]

    def open_kinds(self) -> list[str]:
        return [each.alert.kind for each in Reading(self.monitor.store.database).alerts(9, open_only=True)]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with served_log(tmp_path) as served:
        (tmp_path / "alerts.jsonl").touch()
        made = Scene(served, monkeypatch)
        yield made
        made.monitor.close()


def test_a_canary_that_is_seen_makes_no_noise(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.round()
    assert scene.results() == ["seen"]
    assert scene.told("pager") == []
    assert (scene.served.folder / "alerts.jsonl").read_text() == ""
    reading = Reading(scene.monitor.store.database)
    assert reading.alerts(9) == []
    assert reading.outcomes() == {}, "control: the other entries were there before following began"
    assert scene.daemon.reasons() == []
    assert scene.metric("signwatch_canary_failing") == "0.0"
    assert scene.metric('signwatch_canary_runs_total{result="seen"}') == "1.0"
    assert float(scene.metric("signwatch_canary_last_seen_timestamp_seconds")) > 0
    capsys.readouterr()
    run_command(["status", "--config", str(scene.served.config)])
    assert "canary: last seen at " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("took", "says"),
    [
        (1.5, "canary: last seen at 2026-01-01T00:00:00Z, 1.5 seconds after it was logged\n"),
        # An entry may be seen before the program that signed it has ended.
        (None, "canary: last seen at 2026-01-01T00:00:00Z\n"),
    ],
)
def test_status_tells_when_the_canary_was_seen(
    capsys: pytest.CaptureFixture[str], took: float | None, says: str
) -> None:
    seen = {"seen": "2026-01-01T00:00:00Z", "latency_seconds": took}
    _show_canary({"newest": {"result": "waiting", "detail": ""}, "last_seen": seen})
    assert capsys.readouterr().out == says


def test_the_next_one_waits_for_its_time_also_after_a_restart(scene: Scene) -> None:
    scene.round()
    Daemon(scene.monitor).sign_canary()
    assert len(scene.results()) == 1
    scene.clock.advance(minutes=61)
    scene.round()
    assert scene.results() == ["seen", "seen"]


def test_a_log_that_does_not_answer_is_an_outage_told_through_the_canarys_channel(scene: Scene) -> None:
    scene.daemon.sign_canary()
    scene.served.down = True
    scene.follow()
    scene.daemon.watch_canary()
    assert scene.daemon.reasons() == [], "control: it may take its time"
    scene.clock.advance(minutes=11)
    scene.follow()
    scene.daemon.watch_canary()
    scene.deliver()
    assert scene.told("pager") == [("canary-missed", "could-not-ask", "warn")]
    assert scene.metric("signwatch_canary_failing") == "1.0"
    assert len(scene.daemon.reasons()) == 1


def test_a_broken_way_of_ours_pages_once_and_is_resolved_when_a_canary_is_seen_again(scene: Scene) -> None:
    database = scene.monitor.store.database
    with database.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER broken BEFORE INSERT ON finding BEGIN SELECT RAISE(ABORT, 'no finding is kept'); END"
        )
    for _ in range(2):
        scene.daemon.sign_canary()
        scene.follow()
        scene.clock.advance(minutes=61)
        scene.follow()
        scene.daemon.watch_canary()
        scene.deliver()
    assert scene.results() == ["missed", "missed"]
    assert scene.told("pager") == [("canary-missed", "ourselves", "page")], "two in a row are one alert"
    assert any(reason.startswith("canary: ") for reason in scene.daemon.reasons())
    with database.write() as connection:
        connection.exec_driver_sql("DROP TRIGGER broken")
    scene.clock.advance(minutes=61)
    scene.round()
    assert scene.results()[0] == "seen"
    assert not any(reason.startswith("canary") for reason in scene.daemon.reasons())
    assert "canary-missed" not in scene.open_kinds()


def test_an_alert_that_comes_late_is_late(scene: Scene) -> None:
    scene.daemon.sign_canary()
    scene.clock.advance(minutes=11)
    scene.daemon.watch_canary()
    assert scene.results() == ["missed"]
    scene.follow()
    scene.deliver()
    scene.daemon.watch_canary()
    assert scene.results() == ["late"]
    assert scene.open_kinds() == ["canary-missed"], "it stays open until one is seen in time"
    assert float(scene.metric("signwatch_canary_latency_seconds")) >= 660


@pytest.mark.parametrize(("owner", "silent"), [(Owner.COULD_NOT_ASK, False), (Owner.OURSELVES, True)], ids=str)
def test_a_canary_that_cannot_sign_says_so(scene: Scene, owner: Owner, silent: bool) -> None:
    scene.trouble = CannotSign(owner, "https://fulcio.example answered 503: no reason given")
    scene.round()
    assert scene.results() == ["not-signed"]
    assert scene.told("pager") == [("canary-not-signed", owner.value, "warn")]
    [reason] = scene.daemon.reasons()
    assert "answered 503" in reason
    asked: list[None] = []

    class Service:
        def ask(self) -> None:
            asked.append(None)

    scene.daemon.tell_dead_man(Service())  # type: ignore[arg-type]
    assert bool(asked) is not silent, "an outage elsewhere does not silence the heartbeat, our own illness does"


def test_a_signature_in_another_log_is_no_canary(scene: Scene) -> None:
    scene.log_id = "00" * 32
    scene.round()
    assert scene.results() == ["not-signed"]
    assert scene.told("pager") == [("canary-not-signed", "ourselves", "warn")]


def test_a_stolen_canary_is_an_unexpected_signing_like_any_other(scene: Scene) -> None:
    scene.round()
    scene.log("ab" * 32)
    scene.round()
    documents = [json.loads(each) for each in (scene.served.folder / "alerts.jsonl").read_text().splitlines()]
    assert [each["kind"] for each in documents] == ["unexpected-signing"]
    assert IDENTITY in documents[0]["title"]


def test_without_its_state_it_tells_the_channels_directly(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.round()
    path = scene.monitor.store.database.path
    assert path is not None
    path.rename(path.with_name("moved"))
    scene.daemon.watch_canary()
    assert scene.told("pager") == [], "control: a moment is allowed"
    scene.clock.advance(minutes=11)
    scene.daemon.watch_canary()
    scene.daemon.watch_canary()
    assert scene.told("pager") == [("canary-missed", "ourselves", "page")]
    path.with_name("moved").rename(path)


def test_what_could_never_sign_is_refused_at_the_start(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    text = scene.served.config.read_text()
    scene.served.config.write_text(text.replace("canary: {log: rekor-v2", "canary: {log: rekor-v9"))
    with pytest.raises(BadConfig, match="'rekor-v9' is not followed"):
        load_config(scene.served.config)
    scene.served.config.write_text(text.replace("notify: [pager]", "notify: [nobody]"))
    with pytest.raises(BadConfig, match="no channel 'nobody'"):
        load_config(scene.served.config)
    scene.served.config.write_text(text)
    monkeypatch.setattr(canary, "find_spec", lambda _name: None)
    with pytest.raises(BadConfig, match="`sign` extra"):
        canary.check_canary(load_config(scene.served.config))


def test_sign_lites_and_the_token_commands_failures_are_told_by_their_owner(tmp_path: Path) -> None:
    config = CanaryConfig("rekor-v2", IDENTITY, ISSUER, str(tmp_path / "none.json"), token_command=("false",))
    with pytest.raises(CannotSign) as failed:
        sign_with_sign_lite(config, b"artifact")
    assert failed.value.owner is Owner.OURSELVES
    assert "token_command false" in failed.value.detail
    config = CanaryConfig("rekor-v2", IDENTITY, ISSUER, str(tmp_path / "none.json"), token_command=("echo", "a.b.c"))
    with pytest.raises(CannotSign) as failed:
        sign_with_sign_lite(config, b"artifact")
    assert failed.value.owner is Owner.OURSELVES
    assert "none.json" in failed.value.detail


def signwatch(scene: Scene, *words: str, expect: Exit = Exit.FINE) -> None:
    assert run_command([*words, "--config", str(scene.served.config)]) == expect


def test_the_bundle_of_a_missed_run_is_kept_as_proof_and_that_of_a_seen_one_is_not(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.round()
    scene.clock.advance(minutes=61)
    scene.daemon.sign_canary()
    scene.clock.advance(minutes=11)
    scene.daemon.watch_canary()
    assert scene.results() == ["missed", "seen"], "control"
    signwatch(scene, "canary", "export", "2", "--output", str(tmp_path / "missed.json"))
    assert (tmp_path / "missed.json").read_bytes() == BUNDLE
    capsys.readouterr()
    signwatch(scene, "canary", "list")
    assert [line.split("\t")[:3] for line in capsys.readouterr().out.splitlines()] == [
        ["2", "rekor-v2", "missed"],
        ["1", "rekor-v2", "seen"],
    ]
    signwatch(scene, "canary", "list", "--json")
    assert [each["has_bundle"] for each in json.loads(capsys.readouterr().out)["runs"]] == [True, False]
    signwatch(scene, "canary", "export", "1", expect=Exit.MISUSED)
    assert "no bundle is kept for run 1" in capsys.readouterr().err
    # It comes after all: the log showed it.
    scene.follow()
    scene.deliver()
    scene.daemon.watch_canary()
    assert scene.results()[0] == "late"
    signwatch(scene, "canary", "export", "2", expect=Exit.MISUSED)


def test_old_runs_are_forgotten_but_never_the_last_that_was_seen(scene: Scene) -> None:
    scene.round()
    for _ in range(2):
        scene.clock.advance(minutes=61)
        scene.trouble = CannotSign(Owner.COULD_NOT_ASK, "no answer")
        scene.round()
    assert [run.number for run in scene.monitor.store.canaries.newest(9)] == [3, 2, 1], "control"
    scene.clock.advance(days=runs.KEPT.days + 1)
    scene.round()
    assert [run.number for run in scene.monitor.store.canaries.newest(9)] == [4, 3, 1], (
        "nor the newest, whose number would be given again"
    )
    last = scene.monitor.store.canaries.last_seen()
    assert last is not None
    assert last.number == 1


def test_a_report_counts_the_runs_of_its_time(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    signwatch(scene, "report", "--format", "markdown")
    assert "The canary" not in capsys.readouterr().out, "control: none ran"
    scene.round()
    signwatch(scene, "report", "--format", "json")
    assert json.loads(capsys.readouterr().out)["canary"] == {"seen": 1}
    signwatch(scene, "report", "--format", "markdown")
    assert "1 seen in time, 0 late, 0 missed, 0 could not sign." in capsys.readouterr().out
    signwatch(scene, "report", "--format", "html")
    assert "<h2>The canary</h2>" in capsys.readouterr().out
    signwatch(scene, "report", "--format", "json", "--to", "2026-01-01")
    assert json.loads(capsys.readouterr().out)["canary"] == {}

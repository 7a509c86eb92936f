"""What goes wrong is said where the asker will read it: once, with what it means and what to do next."""

import json
import logging
from pathlib import Path

import pytest

from monitor.cli import run_command
from monitor.daemon.supervisor import LogThrottle
from monitor.model.errors import OwnFault
from monitor.program import utc_now
from monitor.store.database import create
from tests.support.misbehaving_log import RekorV2Log
from tests.support.parts import Clock
from tests.support.served_log import ServedLog, served_log
from tests.threats.watched import Watched, signing

Captured = pytest.CaptureFixture[str]


def files(folder: Path) -> Path:
    """A configuration whose log is nowhere."""
    served = ServedLog(RekorV2Log(), "http://127.0.0.1:9", folder)
    served.write_files()
    return served.config


def told(capsys: Captured, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run_command(words)
    done = capsys.readouterr()
    return code, done.out, done.err


MISTAKES = {
    "no configuration": (["status", "--config", "none.yaml"], 2, "misused", "there is no configuration here"),
    "an unknown option": (["audit", "--nonsense"], 2, "misused", "--nonsense"),
    "a command that needs more": (["check-bundle"], 2, "misused", "FILE"),
    "no database": (["audit"], 3, "ourselves", "there is no database here"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_who_asked_for_json_gets_the_error_as_json_with_the_exit_code(
    name: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path)
    monkeypatch.chdir(tmp_path)
    words, expected, trouble, message = MISTAKES[name]
    code, out, err = told(capsys, *words)
    assert (code, out) == (expected, ""), "control: people are told on standard error alone"
    assert message in " ".join(err.split())
    code, out, err = told(capsys, *words, "--json")
    [line] = out.splitlines()
    document = json.loads(line)
    assert (code, document["exit_code"], document["error"]["trouble"]) == (expected, expected, trouble)
    assert message in document["error"]["message"]
    assert message in " ".join(err.split())


def test_an_outage_is_told_as_one_in_json(tmp_path: Path, capsys: Captured) -> None:
    config = files(tmp_path)
    create(str(tmp_path / "signwatch.db"), utc_now(), "test").close()
    code, out, _ = told(capsys, "peers", "compare", "http://127.0.0.1:9", "--config", str(config), "--json")
    document = json.loads(out.splitlines()[-1])
    assert (code, document["error"]["trouble"]) == (3, "could-not-ask")
    for url in ("127.0.0.1:9464", "peer.example", "ftp://peer.example"):
        code, out, _ = told(capsys, "peers", "compare", url, "--config", str(config), "--json")
        document = json.loads(out.splitlines()[-1])
        assert (code, document["error"]["trouble"]) == (2, "misused")
        assert "begins with https:// or http://" in document["error"]["message"]


@pytest.mark.parametrize("command", ["init", "audit", "status", "fsck"])
def test_a_folder_in_the_place_of_the_database_is_named_with_a_next_step(
    command: str, tmp_path: Path, capsys: Captured
) -> None:
    config = files(tmp_path)
    (tmp_path / "signwatch.db").mkdir()
    code, _, err = told(capsys, command, "--config", str(config))
    said = " ".join(err.split())
    assert code == 3
    for part in (
        str(tmp_path / "signwatch.db"),
        "it is a folder",
        "Signwatch cannot follow logs without it",
        "under `database`",
    ):
        assert part in said


def test_an_audit_that_finds_nothing_new_says_so(tmp_path: Path, capsys: Captured) -> None:
    with served_log(tmp_path) as served:
        assert told(capsys, "init", "--config", str(served.config))[0] == 0
        code, out, _ = told(capsys, "audit", "--config", str(served.config))
        assert (code, "nothing new after 3 entries" in out) == (0, True)
        served.log.append(signing())
        _, out, _ = told(capsys, "audit", "--config", str(served.config))
        assert "read entries 3 to 4" in out


def test_a_trouble_is_news_when_it_begins_when_it_lasts_and_when_it_comes_back() -> None:
    clock = Clock()
    throttle = LogThrottle(clock)
    said = []
    for _ in range(5):
        said.append(throttle.admits("disk"))
        clock.advance(minutes=25)
    assert said == [True, False, False, True, False]
    assert throttle.admits("another"), "troubles are apart"
    throttle.reset("disk")
    assert throttle.admits("disk")


def lines(caplog: pytest.LogCaptureFixture, event: str) -> int:
    return sum(record.getMessage().startswith(event) for record in caplog.records)


def test_a_database_that_takes_nothing_is_logged_once_and_then_seldom(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(RekorV2Log([signing()]), tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OwnFault("database or disk is full")

    caplog.set_level(logging.ERROR)
    with monkeypatch.context() as patch:
        for name in ("went_well", "went_wrong"):
            patch.setattr(watched.store.health, name, full)
        for _ in range(10):
            assert watched.run().unrecorded, "each pass says so to the daemon all the same"
            watched.clock.pass_by(seconds=30)
        assert lines(caplog, "state_failed") == 1
        watched.clock.pass_by(hours=1)
        assert watched.run().unrecorded
        assert lines(caplog, "state_failed") == 2
    assert not watched.run().unrecorded
    with monkeypatch.context() as patch:
        for name in ("went_well", "went_wrong"):
            patch.setattr(watched.store.health, name, full)
        watched.run()
    assert lines(caplog, "state_failed") == 3, "it is news when it comes back"
    watched.store.close()

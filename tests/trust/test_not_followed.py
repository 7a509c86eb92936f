"""A log of the trust root that cannot be followed is named by every command, and nothing is green."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from monitor.cli import run_command
from monitor.config import load_config
from monitor.daemon.status import read_status, status_document
from monitor.model.errors import OwnFault
from monitor.store.database import open_database
from monitor.trust.trust_root import read_trust_root
from tests.support.misbehaving_log import RekorV2Log
from tests.support.parts import a_store
from tests.support.served_log import ServedLog, served_log

Root = dict[str, Any]


@pytest.fixture(autouse=True)
def quiet_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedLog]:
    """A log that the trust root alone names: it signs under the address it has there."""
    with served_log(tmp_path) as log:
        monkeypatch.setattr(RekorV2Log, "host", log.url.partition("://")[2])
        log.write_files()
        config = log.config.read_text(encoding="utf-8")
        before, _, after = config.partition("logs:\n")
        log.config.write_text(before + after.partition("\n")[2], encoding="utf-8")
        yield log


def change(served: ServedLog, how: Callable[[Root], None]) -> None:
    path = served.folder / "trusted_root.json"
    root = json.loads(path.read_text(encoding="utf-8"))
    how(root)
    path.write_text(json.dumps(root), encoding="utf-8")


def without(key: str) -> Callable[[Root], None]:
    """Add a second Rekor log that lacks a member."""

    def change_it(root: Root) -> None:
        root["tlogs"].append({name: value for name, value in root["tlogs"][0].items() if name != key})

    return change_it


@pytest.mark.parametrize(
    ("lacks", "told"), [("baseUrl", "has no http(s) URL (`baseUrl`)"), ("logId", "has no log id (`logId.keyId`)")]
)
def test_every_command_names_it_and_none_is_green(
    served: ServedLog, capsys: pytest.CaptureFixture[str], lacks: str, told: str
) -> None:
    def command(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = run_command([*words, "--config", str(served.config)])
        out, err = capsys.readouterr()
        return code, out + err

    report = served.folder / "audit.xml"
    commands = [["run", "--once"], ["audit"], ["audit", "--junit", str(report)], ["status"], ["doctor"]]
    assert command("init")[0] == 0, "control"
    assert [command(*words)[0] for words in commands] == [0] * len(commands), "control"
    change(served, without(lacks))
    for words in (["init"], *commands):
        code, said = command(*words)
        assert (code, told in " ".join(said.split())) == (3, True), (words, said)
    suite = ET.fromstring(report.read_bytes())
    assert suite.attrib["errors"] == "1"
    _, said = command("status", "--json")
    document = json.loads(said)
    assert not document["ready"]
    assert len(document["not_looked_at"]["logs_not_followed"]) == 1
    status = read_status_of(served)
    assert any(told in reason for reason in status)


def read_status_of(served: ServedLog) -> list[str]:
    config = load_config(served.config)
    database = open_database(config.database)
    try:
        store = a_store(database)
        status = read_status(config, store, store._clock())
        assert status_document(status, store)["ready"] is status.ready
        return list(status.reasons)
    finally:
        database.close()


def test_with_logs_configured_only_those_are_wanted(served: ServedLog, capsys: pytest.CaptureFixture[str]) -> None:
    served.write_files()
    change(served, without("baseUrl"))
    for words in (["init"], ["run", "--once"], ["audit"], ["status"], ["doctor"]):
        assert run_command([*words, "--config", str(served.config)]) == 0, words
    assert "useless, and not among `logs`" in capsys.readouterr().out


def test_the_message_about_a_key_fits_what_is_in_the_file(served: ServedLog) -> None:
    path = served.folder / "trusted_root.json"
    root = json.loads(path.read_text(encoding="utf-8"))

    def message(url: str = served.url) -> str:
        with pytest.raises(OwnFault) as caught:
            read_trust_root(json.dumps(root).encode()).log_at(url)
        return str(caught.value)

    assert read_trust_root(json.dumps(root).encode()).log_at(served.url).url == served.url, "control"
    assert "holds no key for a log at http://other" in message("http://other")
    root["tlogs"].append(dict(root["tlogs"][0]))
    assert "2 times" in message()
    assert "log_id" not in message(), "no id tells one key from itself"
    for log in root["tlogs"]:
        del log["logId"]
    assert "has no log id (`logId.keyId`)" in message()
    assert "holds no key" in message()

"""`signwatch scan` over HTTP: what it prints, what it keeps, what it exits with, and that killing it loses nothing."""

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from monitor.cli import run_command
from monitor.judging.rule_file import read_rules
from monitor.program import utc_now
from monitor.store.database import open_database
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from monitor.store.store import Store
from tests.support.entries import CA_NOT_AFTER, PLACEHOLDER_SIGNATURE, hashedrekord_v2, make_ca, make_github_certificate
from tests.support.served_log import CA, ServedLog, served_log, signing_body
from tests.support.waiting import PATIENCE

# Tests may themselves run in the background, where a shell lets Ctrl-C be ignored; what a terminal starts does not.
FOREGROUND = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
SIGNWATCH = (sys.executable, "-c", FOREGROUND + "from monitor.cli import main; main()")
EXPECTED, STRANGER = signing_body(), signing_body("refs/heads/evil")
SELF_MADE = signing_body("refs/heads/evil", make_ca(seed=99))
WRONGLY_SIGNED = hashedrekord_v2(
    make_github_certificate(CA, not_after=CA_NOT_AFTER), "ab" * 32, signature=PLACEHOLDER_SIGNATURE
)
FEW = """\
version: 1
rules:
  - id: evil
    select: {identity: {glob: "https://github.com/acme/widget/**/release.yml@refs/heads/evil"}}
"""
OTHER_RULES = """\
version: 1
rules:
  - id: everything-of-acme
    select: {identity: {glob: "https://github.com/acme/**"}}
"""


@dataclass
class Place:
    """A served log, and the folder `signwatch` runs in."""

    served: ServedLog
    capsys: pytest.CaptureFixture[str]

    @property
    def folder(self) -> Path:
        return self.served.folder

    def run(self, *arguments: str, expect: int = 0) -> tuple[str, str]:
        """Run a command in this process."""
        self.capsys.readouterr()
        alone = ("--jobs", "1") if arguments[0] == "scan" and "--jobs" not in arguments else ()
        there = ("--config", str(self.served.config)) if arguments[:2] != ("evidence", "verify") else ()
        code = run_command([*arguments, *alone, *there])
        out, errors = self.capsys.readouterr()
        assert code == expect, f"{arguments} ended with {code}:\n{out}\n{errors}"
        return out, errors

    def apart(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a scan as a process of its own, with two processes to examine."""
        return subprocess.Popen(
            [*SIGNWATCH, "scan", "--log", "rekor-v2", "--json", "--jobs", "2", *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def scan(self, *arguments: str, expect: int = 0) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Findings and summary of a scan."""
        out, _ = self.run("scan", "--log", "rekor-v2", "--json", *arguments, expect=expect)
        *findings, last = [json.loads(line) for line in out.splitlines()]
        return findings, last["summary"]


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Place]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with served_log(tmp_path) as served:
        yield Place(served, capsys)
    root.handlers[:] = handlers
    root.setLevel(level)


def found(findings: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    return [(each["index"], each["rule"], each["outcome"]) for each in findings]


def test_a_scan_tells_every_finding_and_keeps_and_alerts_nothing(place: Place) -> None:
    place.served.log.append(STRANGER, SELF_MADE, b"{garbage")
    findings, summary = place.scan("--from", "1", expect=1)
    assert found(findings) == [
        (1, "widget", "expected"),
        (2, "widget", "expected"),
        (3, "widget", "unexpected"),
        (4, "widget", "unverified"),
    ]
    assert findings[2]["reasons"][0]["sentence"]
    assert (summary["from"], summary["to"], summary["entries"]) == (1, 6, 5)
    assert summary["findings"] == {"expected": 2, "unexpected": 1, "unverified": 1}
    assert summary["unreadable"] == 1
    assert summary["head"]["root"] == place.served.log.oracle().root(6).hex()
    assert not (place.folder / "signwatch.db").exists()
    assert not (place.folder / "scans").exists()


def test_nothing_unexpected_is_exit_code_0_and_other_rules_find_other_things(place: Place) -> None:
    assert found(place.scan("--from", "0", "--to", "3")[0]) == [(i, "widget", "expected") for i in range(3)]
    (place.folder / "draft.yaml").write_text(OTHER_RULES)
    findings, _ = place.scan("--from", "0", "--rules", str(place.folder / "draft.yaml"), expect=1)
    assert found(findings) == [(i, "everything-of-acme", "unexpected") for i in range(3)]


def test_rows_are_tab_separated_when_piped_and_progress_is_on_stderr(place: Place) -> None:
    place.served.log.append(STRANGER)
    out, errors = place.run("scan", "--log", "rekor-v2", "--from", "2", expect=1)
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[:4] for row in rows] == [
        ["rekor-v2", "2", "widget", "expected"],
        ["rekor-v2", "3", "widget", "unexpected"],
    ]
    assert "proven up to entry 4, 100 % of 2-4" in errors
    assert "2 entries read and proven: 1 expected, 1 unexpected" in errors


def test_an_entry_that_cannot_be_read_leaves_scan_and_backscan_unfinished(place: Place) -> None:
    place.scan("--from", "0")
    place.served.log.append(b"{garbage", b"{more")
    _, summary = place.scan("--from", "0", expect=3)
    assert summary["unreadable"] == 2
    _, errors = place.run("scan", "--log", "rekor-v2", "--from", "0", "--to", "4", expect=3)
    assert "1 entry cannot be read, so whether a rule selects it is not known" in errors
    place.run("init")
    _, errors = place.run("backscan", "--from", "0", expect=3)
    assert "2 entries cannot be read, so whether a rule selects them is not known" in errors
    place.run("backscan", "--from", "0")


def test_a_wrong_signature_is_told_and_kept_by_scan_and_by_backscan(place: Place) -> None:
    """The log broke its own rules, whenever that is noticed; following would have kept the same evidence."""
    place.served.log.append(WRONGLY_SIGNED)
    found_, summary = place.scan("--from", "0", expect=1)
    assert found(found_)[-1] == (3, "widget", "unverified")
    assert summary["wrong_signatures"] == 1
    (file,) = (place.folder / "scans").glob("evidence-*.json")
    assert json.loads(file.read_text())["kind"] == "entry-signature-wrong"
    place.run("init")
    _, errors = place.run("backscan", "--from", "0", expect=1)
    assert "the log misbehaved: 1 of them are in entries whose signature does not verify" in errors
    assert "is kept: `signwatch evidence export" in errors
    assert kept(place) == (["entry-signature-wrong"], ["entry-signature-wrong"])


def kept(place: Place) -> tuple[list[str], list[str]]:
    """Kinds of the evidence in the database, and of its alerts."""
    with closing(open_database(str(place.folder / "signwatch.db"))) as database:
        reading = Reading(database)
        return [each.kind for each in reading.evidence(10)], [each.alert.kind for each in reading.alerts(10)]


def test_one_job_and_several_find_the_same(place: Place) -> None:
    place.served.log.append(*[EXPECTED] * 4500, STRANGER, *[EXPECTED] * 50)
    (place.folder / "rules.yaml").write_text(FEW)
    one = place.scan("--from", "7", expect=1)
    assert one[1]["findings"] == {"unexpected": 1}
    with place.apart("--from", "7") as process:
        out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    *findings, last = [json.loads(line) for line in out.splitlines()]
    assert (findings, last["summary"]) == one


def test_a_new_rule_is_offered_what_it_missed_and_coverage_says_so(place: Place) -> None:
    place.served.log.append(STRANGER)
    (place.folder / "signwatch.yaml").write_text(
        (place.folder / "signwatch.yaml").read_text().replace("poll_seconds: 1", "poll_seconds: 1, start: 0")
    )
    place.run("init")
    place.run("audit", expect=1)
    rules = (place.folder / "rules.yaml").read_text() + OTHER_RULES.partition("rules:\n")[2]
    (place.folder / "rules.yaml").write_text(rules)
    out, _ = place.run("backscan", "--json", expect=1)
    *findings, last = [json.loads(line) for line in out.splitlines()]
    assert {(each["rule"], each["index"]) for each in findings} == {("everything-of-acme", i) for i in range(4)}
    assert last["summary"]["ranges"] == [{"log": "rekor-v2", "from": 0, "to": 4, "rules": 1}]
    # Kept, with an alert each that waits for the next full hour, and never offered again.
    with closing(open_database(str(place.folder / "signwatch.db"))) as database:
        reading = Reading(database)
        assert reading.outcomes() == {"expected": 3, "unexpected": 5}
        told = [each for each in reading.alerts(100) if each.alert.rule == "everything-of-acme"]
        assert len(told) == 4
        assert all(each.alert.title.startswith("Looking back: ") for each in told)
        assert all(set(each.deliveries.values()) == {"pending"} for each in told)
        assert fsck(database) == []
    out, _ = place.run("backscan", "--json")
    assert json.loads(out)["summary"]["ranges"] == []
    place.run("audit")
    place.run("backscan", "--json", "--rule", "everything-of-acme")


def test_a_backscan_covers_entries_before_following_began_once_they_are_asked_for(place: Place) -> None:
    place.run("init")
    place.served.log.append(STRANGER)
    place.run("audit", expect=1)
    out, _ = place.run("backscan", "--json")
    assert json.loads(out)["summary"]["ranges"] == [], "by default from where following began"
    out, _ = place.run("backscan", "--from", "0", "--json")
    assert json.loads(out.splitlines()[-1])["summary"]["ranges"] == [
        {"log": "rekor-v2", "from": 0, "to": 3, "rules": 1}
    ]
    with closing(open_database(str(place.folder / "signwatch.db"))) as database:
        store = Store(database, clock=utc_now, route=lambda _: ())
        selection = next(iter(_selections(place).values()))
        assert store.coverage.of_rule("rekor-v2", "widget", selection).ranges == ((0, 4),)
        assert fsck(database) == []


def _selections(place: Place) -> dict[str, str]:
    return {rule.id: rule.selection_id() for rule in read_rules(place.folder / "rules.yaml").rules}


def test_a_log_that_forked_since_it_was_followed_is_caught_by_a_scan(place: Place) -> None:
    place.run("init")
    place.served.log.leaves[1] = STRANGER
    place.served.log.append(EXPECTED)
    _, errors = place.run("scan", "--log", "rekor-v2", "--from", "0", expect=1)
    assert "is kept: `signwatch evidence export" in errors
    with closing(open_database(str(place.folder / "signwatch.db"))) as database:
        (kept,) = Reading(database).evidence(10)
        assert (kept.kind, kept.document["strength"]) == ("log-forked", "transferable")


def test_evidence_of_a_scan_without_a_database_is_a_file_that_verifies(place: Place) -> None:
    place.served.log.swap_leaf(1, STRANGER)
    place.run("scan", "--log", "rekor-v2", "--from", "0", expect=1)
    (file,) = (place.folder / "scans").glob("evidence-*.json")
    config = str(place.served.config)
    out, _ = place.run("evidence", "verify", str(file), "--config", config, expect=3)
    assert "a record only" in out


def test_a_log_that_cannot_be_asked_is_exit_code_3(place: Place) -> None:
    place.served.down = True
    place.run("scan", "--log", "rekor-v2", "--from", "0", "--patience", "0", expect=3)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--log"),
        (("--log", "rekor-v2"), "--from"),
        (("--log", "nothing", "--from", "0"), "no log is named 'nothing'"),
        (("--log", "rekor-v2/17", "--from", "0"), "no tree"),
        (("--log", "rekor-v2", "--from", "4"), "has 3 entries"),
        (("--log", "rekor-v2", "--from", "-1"), "--from"),
        (("--log", "rekor-v2", "--from", "0", "--rule", "nope"), "no rule 'nope'"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_is_right(place: Place, arguments: tuple[str, ...], told: str) -> None:
    _, errors = place.run("scan", *arguments, expect=2)
    assert told in " ".join(errors.replace("│", " ").split())


def test_killed_at_any_moment_a_scan_goes_on_and_leaves_no_process_behind(place: Place) -> None:
    place.served.log.append(*([EXPECTED] * 1500 + [STRANGER]) * 6)
    (place.folder / "rules.yaml").write_text(FEW)
    asked = ["--from", "3", "--to", "8500"]
    expected = place.scan(*asked, expect=1)
    assert len(expected[0]) == 5
    scans = place.folder / "scans"
    for kill_at in (0, 1, 4096):
        with slowly(place), place.apart(*asked, "--resume") as process:
            wait_for_progress(scans, kill_at, process)
            children = children_of(process.pid)
            process.kill()
            assert process.communicate(timeout=PATIENCE)[0] == b""
        deadline = time.monotonic() + PATIENCE
        while any(Path(f"/proc/{child}").exists() for child in children):
            assert time.monotonic() < deadline, "a process of the scan outlived it"
            time.sleep(0.05)
    place.run("scan", "--log", "rekor-v2", *asked, expect=2)
    assert place.scan(*asked, "--resume", expect=1) == expected


@contextmanager
def slowly(place: Place) -> Iterator[None]:
    """Few requests a second, so that a scan is still under way when it is interrupted."""
    config = place.served.config
    text = config.read_text()
    config.write_text(text.replace("poll_seconds: 1", "poll_seconds: 1, requests_per_second: 5"))
    yield
    config.write_text(text)


def wait_for_progress(scans: Path, entries: int, process: "subprocess.Popen[bytes]") -> None:
    """Until a ledger stands at `entries` or beyond; 0 is before there is any."""
    deadline = time.monotonic() + PATIENCE
    while entries:
        assert time.monotonic() < deadline
        assert process.poll() is None, "the scan ended before it could be killed"
        for path in scans.glob("*.db"):
            with closing(open_database(str(path))) as database:
                followed = Reading(database).followed()
                if followed and followed["rekor-v2"].position.frontier.size >= entries:
                    return
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(each) for each in path.read_text().split()] if path.exists() else []


def test_ctrl_c_ends_a_scan_in_order_and_it_goes_on_later(place: Place) -> None:
    place.served.log.append(*[EXPECTED] * 8500)
    (place.folder / "rules.yaml").write_text(FEW)
    with slowly(place), place.apart("--from", "0") as process:
        wait_for_progress(place.folder / "scans", 1, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3
    assert b"Traceback" not in errors
    assert place.scan("--from", "0", "--resume")[1]["entries"] == 8503

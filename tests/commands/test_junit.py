"""`signwatch audit --junit`: what CI systems read says who is to blame, and no log can write into it."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.alert import Owner
from monitor.cli import run_command
from monitor.commands.junit import junit, write_junit
from monitor.commands.outcomes import TimedResult
from monitor.daemon.pass_result import PassResult
from monitor.judging.reevaluation import RecheckCounts
from monitor.model.log_source import SignedHead
from tests.support.served_log import ServedLog, served_log, signing_body
from tlog.merkle import EMPTY_ROOT

AT = datetime(2031, 3, 1, 12, 0, tzinfo=UTC)
FINE = PassResult("rekor-v2", first=3, last=7, head=SignedHead("rekor-v2", 7, EMPTY_ROOT, b"note"))


def parsed(*outcomes: PassResult) -> ET.Element:
    return ET.fromstring(junit([TimedResult(outcome, 1.5) for outcome in outcomes], RecheckCounts(), AT))


def test_an_honest_log_is_a_passed_case_with_the_range_it_covered() -> None:
    root = parsed(FINE)
    assert root.attrib == {
        "name": "signwatch audit",
        "tests": "1",
        "failures": "0",
        "errors": "0",
        "skipped": "0",
        "time": "1.500",
    }
    (suite,) = root
    assert suite.attrib["timestamp"] == "2031-03-01T12:00:00+00:00"
    (case,) = suite
    assert (case.tag, case.attrib["name"], case.attrib["time"]) == ("testcase", "rekor-v2", "1.500")
    assert [child.tag for child in case] == ["system-out"]
    told = case.findtext("system-out") or ""
    assert "covered: entries 3 to 7" in told
    assert f"head: size 7, root {EMPTY_ROOT.hex()}" in told


UNEXPECTED = "unexpected-signing"


@pytest.mark.parametrize(
    ("again", "tag", "kind"),
    [
        (RecheckCounts(3, 1, 1), "failure", "unexpected-signing"),
        (RecheckCounts(trouble="disk full"), "error", "own-fault"),
        (RecheckCounts(2, 0, 2), None, None),
    ],
)  # fmt: skip
def test_second_judgements_are_a_case_of_their_own(again: RecheckCounts, tag: str | None, kind: str | None) -> None:
    [suite] = ET.fromstring(junit([TimedResult(FINE, 1.5)], again, AT))
    [_, case] = suite
    found = [(child.tag, child.attrib["type"]) for child in case if child.tag != "system-out"]
    assert case.attrib["name"] == "second judgements"
    assert found == ([(tag, kind)] if tag else [])


@pytest.mark.parametrize(
    ("outcome", "tag", "kind"),
    [
        (PassResult("v2", Owner.LOG_MISBEHAVED, "log-forked", "two roots", evidence=["3f2a"]), "failure", "log-forked"),
        (PassResult("v2", findings={"unexpected": 2, "expected": 5}), "failure", "unexpected-signing"),
        (PassResult("v2", Owner.COULD_NOT_ASK, "timeout", "no answer"), "error", "timeout"),
        (PassResult("v2", Owner.OURSELVES, "own-fault", "disk full"), "error", "own-fault"),
        (PassResult("v2", Owner.COULD_NOT_ASK, "late", "", findings={"unexpected": 1}), "failure", UNEXPECTED),
    ],
)  # fmt: skip
def test_what_a_log_did_is_a_failure_and_what_befell_us_an_error(outcome: PassResult, tag: str, kind: str) -> None:
    root = parsed(FINE, outcome, FINE)
    assert (root.attrib["tests"], root.attrib["failures"], root.attrib["errors"]) == (
        "3",
        "1" if tag == "failure" else "0",
        "1" if tag == "error" else "0",
    )
    trouble, out = root[0][1]
    assert (trouble.tag, trouble.attrib["type"], out.tag) == (tag, kind, "system-out")
    assert trouble.attrib["message"] == trouble.text
    assert all(each in (out.text or "") for each in outcome.evidence)


def test_nothing_audited_is_no_success() -> None:
    assert parsed().attrib["errors"] == "1"


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_a_log_says_the_report_is_well_formed_and_visible(name: str, detail: str) -> None:
    root = parsed(PassResult(name, Owner.LOG_MISBEHAVED, detail, detail, evidence=[detail]))
    case = root[0][0]
    assert len(case) == 2
    for text in (case.attrib["name"], case[0].attrib["message"], *(case[1].text or "").split("\n")):
        assert all(char.isprintable() for char in text)


def test_markup_and_control_characters_stay_text() -> None:
    hostile = '</failure><testcase name="x"/>\x1b[31m\x00\u202e]]>\ud800&lt;'
    root = parsed(PassResult("v2", Owner.LOG_MISBEHAVED, "log-forked", hostile))
    assert len(root[0]) == 1
    assert '</failure><testcase name="x"/>' in root[0][0][0].attrib["message"]
    assert "\x1b" not in (root[0][0][0].text or "")


def test_a_report_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "audit.xml"
    write_junit(path, [TimedResult(FINE, 0.1)], RecheckCounts(), AT)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="format"):
        write_junit(path, [TimedResult(FINE, "x")], RecheckCounts(), AT)  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["audit.xml"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedLog]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with served_log(tmp_path) as log:
        yield log
    root.handlers[:] = handlers
    root.setLevel(level)


def test_an_audit_writes_it_whatever_its_exit_code(served: ServedLog, tmp_path: Path) -> None:
    config = ["--config", str(served.config)]
    assert run_command(["init", *config]) == 0
    report = tmp_path / "report.xml"

    def audited(expect: int) -> ET.Element:
        assert run_command(["audit", "--junit", str(report), *config]) == expect
        return ET.fromstring(report.read_bytes())[0][0]

    assert audited(0).find("failure") is None
    served.log.append(signing_body("refs/heads/evil"))
    failure = audited(1).find("failure")
    assert failure is not None
    assert failure.attrib["type"] == "unexpected-signing"
    served.down = True
    error = audited(3).find("error")
    assert error is not None
    assert run_command(["audit", "--junit", str(tmp_path / "no" / "folder.xml"), *config]) == 3


def test_an_audit_says_what_rules_were_not_offered(
    served: ServedLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(served.config)]
    served.config.write_text(served.config.read_text().replace("poll_seconds: 1", "poll_seconds: 1, start: 0"))
    assert run_command(["init", *config]) == 0
    report = tmp_path / "report.xml"

    def audited() -> tuple[str, dict[str, Any]]:
        capsys.readouterr()
        assert run_command(["audit", "--json", "--junit", str(report), *config]) == 0
        case = ET.fromstring(report.read_bytes())[0][0]
        return case.findtext("system-out") or "", json.loads(capsys.readouterr().out)["logs"][0]["coverage"]

    told, coverage = audited()
    assert "coverage: entries 0 to 3 were offered to 1 rule, the number in force" in told
    assert (coverage["rules_not_covered"], coverage["least_covered"]) == (0, [])
    rules = tmp_path / "rules.yaml"
    rules.write_text(rules.read_text() + "  - {id: late, select: {identity: late@acme.example}}\n")
    served.log.append(signing_body())
    told, coverage = audited()
    assert (
        "coverage: not all of entries 0 to 4 were offered to 1 of 2 rules; without at least one rule: 3 entries" in told
    )
    [late] = coverage["least_covered"]
    assert late == {"rule": "late", "covered": [[3, 4]], "entries_not_covered": 3}

    capsys.readouterr()
    assert run_command(["status", "--rule", "late", "--json", *config]) == 0
    document = json.loads(capsys.readouterr().out)
    [asked] = document["rules_asked_for"]
    assert asked == {"rule": "late", "log": "rekor-v2", "covered": [[3, 4]], "not_offered": 3}
    assert document["rules"]["in_force"] == 2
    assert run_command(["status", "--rule", "late", *config]) == 0
    assert "3 to 4" in capsys.readouterr().out
    assert run_command(["status", "--rule", "unknown", *config]) == 2

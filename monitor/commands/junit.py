"""An audit's report as JUnit XML: a case per log tree, one for second judgements, one per open evidence.

A failure is misbehaviour of a log or an unexpected signing; an error is a log that did not answer, or a fault of
Signwatch.
"""

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from alerts.alert import Owner, counted
from alerts.inert import inert_line
from monitor.commands.outcomes import TimedResult, dropped_line, unreadable_line
from monitor.daemon.pass_result import PassResult
from monitor.judging.coverage import coverage_line
from monitor.judging.reevaluation import RecheckCounts
from monitor.model.errors import OwnFault
from monitor.store.reading import OpenEvidence

_NAME: Final = "signwatch audit"
_LONGEST: Final = 2_000


def junit(
    found: Sequence[TimedResult], again: RecheckCounts, at: datetime, evidence: Sequence[OpenEvidence] = ()
) -> bytes:
    """JUnit XML of an audit that ended `at`. Text from a log in it is one visible line, escaped and cut."""
    suite = ET.Element("testsuite", {"name": _NAME, "timestamp": at.isoformat(timespec="seconds")})
    for each in found:
        _add_case(suite, each)
    if again != RecheckCounts():
        _add_rechecked(suite, again)
    for piece in evidence:
        case = ET.SubElement(
            suite, "testcase", {"classname": _NAME, "name": f"evidence {piece.id[:12]}", "time": "0.000"}
        )
        _add(case, "failure", piece.kind, piece.sentence)
    if not found:
        # An audit without a log is no success.
        case = ET.SubElement(suite, "testcase", {"classname": _NAME, "name": "logs", "time": "0.000"})
        ET.SubElement(case, "error", {"type": "ourselves", "message": "no log was audited"})
    counts = {
        "tests": str(len(suite)),
        "failures": str(len(suite.findall("testcase/failure"))),
        "errors": str(len(suite.findall("testcase/error"))),
        "skipped": "0",
        "time": f"{sum(each.seconds for each in found):.3f}",
    }
    suite.attrib.update(counts)
    root = ET.Element("testsuites", {"name": _NAME, **counts})
    root.append(suite)
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def write_junit(
    path: Path, found: Sequence[TimedResult], again: RecheckCounts, at: datetime, evidence: Sequence[OpenEvidence] = ()
) -> None:
    """Write the report, whole or not at all. Raises `OwnFault`."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(junit(found, again, at, evidence))
            # mkstemp's files have mode 0600; the user of the CI must be able to read a report.
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise OwnFault(
            f"{path}: the report cannot be written: {error.strerror}. The audit itself is done; its findings are in "
            "the database."
        ) from error


def _add_case(suite: ET.Element, each: TimedResult) -> None:
    outcome = each.outcome
    case = ET.SubElement(
        suite, "testcase", {"classname": _NAME, "name": _inert(outcome.log), "time": f"{each.seconds:.3f}"}
    )
    unexpected = outcome.findings.get("unexpected", 0)
    if outcome.owner is Owner.LOG_MISBEHAVED:
        _add(case, "failure", outcome.reason, outcome.detail)
    elif unexpected:
        _add(
            case,
            "failure",
            "unexpected-signing",
            f"{counted(unexpected, 'signing')} different from the rules' expectations",
        )
    elif outcome.owner is not None:
        _add(case, "error", outcome.reason, outcome.detail)
    elif outcome.unreadable:
        _add(case, "error", "entry-unreadable", unreadable_line(outcome.unreadable))
    elif outcome.dropped:
        _add(case, "error", "rules-dropped", dropped_line(outcome.dropped))
    elif outcome.witnessed is not None and not outcome.cosigned:
        _add(case, "error", "witness-missing", outcome.witnessed.line)
    lines = [*_lines(outcome), *([coverage_line(each.coverage)] if each.coverage is not None else [])]
    ET.SubElement(case, "system-out").text = "\n".join(map(_inert, lines))


def _add_rechecked(suite: ET.Element, again: RecheckCounts) -> None:
    case = ET.SubElement(suite, "testcase", {"classname": _NAME, "name": "second judgements", "time": "0.000"})
    if again.unexpected:
        detail = f"{counted(again.unexpected, 'signing')} without what the rules expect to follow"
        _add(case, "failure", "unexpected-signing", detail)
    elif again.trouble:
        _add(case, "error", "own-fault", again.trouble)
    told = f"due: {again.looked_at}\nwaiting for a log that was not read: {again.waiting}"
    ET.SubElement(case, "system-out").text = told


def _add(case: ET.Element, tag: str, kind: str, detail: str) -> None:
    told = ET.SubElement(case, tag, {"type": _inert(kind), "message": _inert(detail)})
    told.text = _inert(detail)


def _lines(outcome: PassResult) -> list[str]:
    lines = [_covered(outcome)]
    if outcome.head is not None:
        lines.append(f"head: size {outcome.head.size}, root {outcome.head.root.hex()}")
    found = ", ".join(f"{count} {name}" for name, count in sorted(outcome.findings.items()))
    lines += [f"findings: {found or 'none'}", f"unreadable entries: {outcome.unreadable}"]
    if outcome.dropped:
        lines.append(f"matches left out: {outcome.dropped}")
    if outcome.witnessed is not None:
        lines.append(f"witnesses: {outcome.witnessed.line}")
    if outcome.owner is not None:
        lines.append(f"trouble: {outcome.owner.value} ({outcome.reason}): {outcome.detail}")
    return lines + [f"evidence: {each}" for each in outcome.evidence]


def _covered(outcome: PassResult) -> str:
    if outcome.first is None or outcome.last is None:
        return "covered: nothing"
    if outcome.first == outcome.last:
        return f"covered: nothing new after {counted(outcome.last, 'entry')}"
    return f"covered: entries {outcome.first} to {outcome.last}"


def _inert(text: str) -> str:
    return inert_line(text, _LONGEST)

"""`signwatch audit`: ask every log once, prove its entries, judge the new ones, and print one report."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from alerts.alert import Severity, counted
from alerts.inert import inert_json
from monitor.commands.outcomes import (
    EVIDENCE_SHOWN,
    TimedResult,
    dropped_line,
    one_line,
    rechecked_line,
    unfollowed,
    unreadable_line,
    verdict,
)
from monitor.commands.report_document import signed_head_document
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, say, when
from monitor.config import load_config
from monitor.daemon.assembly import assemble
from monitor.daemon.pass_result import PassResult
from monitor.daemon.supervisor import LogSupervisor
from monitor.following.follower import Timing
from monitor.judging.coverage import coverage_document, coverage_line, read_coverage
from monitor.judging.reevaluation import RecheckCounts, recheck_all
from monitor.model.errors import NotShown
from monitor.program import utc_now
from monitor.store.reading import Reading
from monitor.telemetry.hooks import Meter

_FURTHER_PASSES = 2
_EVIDENCE = 1_000
_RULES_SHOWN = 20
_MEANING = {
    Exit.FINE: "honest: every log proved that it only grew, and every new entry was read",
    Exit.MISBEHAVED: "a log misbehaved, evidence against one is open, or there was an unexpected signing",
    Exit.UNFINISHED: (
        "not finished: a log could not be asked or tells a time that ours contradicts, too few witnesses cosigned, "
        "or we are ill"
    ),
}


def audit(
    config: ConfigOption = DEFAULT_CONFIG,
    only: Annotated[list[str] | None, typer.Option("--log", help="Audit only this log; may be given again.")] = None,
    *,
    as_json: JsonOption = False,
    report: Annotated[Path | None, typer.Option("--junit", help="Also write JUnit XML here.", dir_okay=False)] = None,
) -> None:
    """Check every log once, from its last position: signatures, consistency, and each new entry against the rules.

    Then the audit judges again the findings with a due second judgement. It needs no daemon, and may run beside one.
    Alerts go to the outbox, for `signwatch run` to deliver. The exit code is for a scheduler: 0 honest; 1 a log
    misbehaved or there was an unexpected signing; 3 a log did not answer, or new entries cannot be read or are
    selected by more rules than are judged. Earlier evidence counts until `signwatch evidence close` closes it.

    Examples:
      signwatch audit
      signwatch audit --json --log rekor-v2
      signwatch audit --junit audit.xml
    """
    settings = load_config(config)
    monitor = assemble(settings, Meter(), Timing(utc_now, time.sleep))
    try:
        known = [log.name for log in monitor.logs]
        if unknown := sorted(set(only or ()) - set(known)):
            raise typer.BadParameter(f"no log is named {unknown[0]!r}; logs: {', '.join(known)}", param_hint="--log")
        watches = [watch for watch in monitor.watches if not only or watch.name in only]
        with ThreadPoolExecutor(max(1, len(watches))) as at_once:
            timed = [each for found in at_once.map(_timed, watches) for each in found]
        timed += [TimedResult(outcome, 0.0) for outcome in unfollowed(settings, monitor.trust.kept().root) if not only]
        again = recheck_all(monitor.store, monitor.rules.held, monitor.trust, utc_now())
        reading = Reading(monitor.store.database)
        evidence = [each for each in reading.open_evidence(_EVIDENCE) if not only or each.log.partition("/")[0] in only]
        alerts = reading.open_alerts()
        waiting = sum(reading.pending().values())
        coverage = read_coverage(monitor.store, reading.followed(), _RULES_SHOWN)
        timed = [replace(each, coverage=coverage.get(each.outcome.log)) for each in timed]
    finally:
        monitor.close()
    outcomes = [each.outcome for each in timed]
    code = verdict(outcomes, again, evidence)
    if report is not None:
        from monitor.commands.junit import write_junit  # noqa: PLC0415  imports an XML library

        write_junit(report, timed, again, utc_now(), evidence)
    if as_json:
        document = inert_json(
            {
                "at": when(utc_now()),
                "exit_code": int(code),
                "verdict": meaning(code, outcomes),
                "second_judgements": {
                    "due": again.looked_at,
                    "unexpected": again.unexpected,
                    "waiting": again.waiting,
                    "trouble": again.trouble or None,
                },
                "open_evidence": [each.document() for each in evidence],
                "open_alerts": {severity.value: alerts.get(severity.value, 0) for severity in Severity},
                "alerts_waiting": waiting,
            }
        )
        # Every log, and signed heads whole: a cut head proves nothing.
        document["logs"] = [_log_document(each) for each in timed]
        typer.echo(json.dumps(document, indent=2))
    else:
        for each in timed:
            say(one_line(each.outcome))
            if each.coverage is not None and each.coverage.uncovered:
                say(f"{each.outcome.log}: {coverage_line(each.coverage)}", "yellow")
        if again != RecheckCounts():
            say(rechecked_line(again))
        for piece in evidence[:EVIDENCE_SHOWN]:
            say(piece.sentence, "bold red")
        if len(evidence) > EVIDENCE_SHOWN:
            say(f"and more open evidence: {len(evidence) - EVIDENCE_SHOWN}", "bold red")
        if pages := alerts.get(Severity.PAGE.value, 0):
            say(f"{counted(pages, 'open alert')} at the severity page: `signwatch alerts list --open`", "yellow")
        say(meaning(code, outcomes), "green" if code is Exit.FINE else "bold red")
    raise leave(code)


def _log_document(each: TimedResult) -> dict[str, Any]:
    coverage = coverage_document(each.coverage) if each.coverage is not None else None
    document: dict[str, Any] = inert_json(document_of(each.outcome) | {"coverage": coverage})
    if each.outcome.head is not None:
        document["head"]["signed"] = signed_head_document(each.outcome.head.raw)
    return document


def meaning(code: Exit, outcomes: Sequence[PassResult]) -> str:
    """Result of the audit in one sentence, always with the numbers of unread entries and unjudged matches."""
    told = []
    if count := sum(outcome.unreadable for outcome in outcomes):
        them = "it" if count == 1 else "them"
        told.append(f"{unreadable_line(count)}, so whether a rule selects {them} is not known")
    if dropped := sum(outcome.dropped for outcome in outcomes):
        told.append(dropped_line(dropped))
    if not told:
        return _MEANING[code]
    is_all = code is Exit.UNFINISHED and all(outcome.owner is None and outcome.cosigned for outcome in outcomes)
    return "; ".join(["not finished: " + told[0], *told[1:]] if is_all else [_MEANING[code], *told])


def _timed(watch: LogSupervisor) -> list[TimedResult]:
    """Pass over one log, timed; trees of one log share its time."""
    began = time.monotonic()
    outcomes = pass_with_retries(watch)
    seconds = (time.monotonic() - began) / max(1, len(outcomes))
    return [TimedResult(outcome, seconds) for outcome in outcomes]


def pass_with_retries(watch: LogSupervisor) -> list[PassResult]:
    """Pass over one log; again, up to a bound, while it does not keep a signed promise, as a lagging replica might.

    The daemon reports a broken promise only after several passes. An audit has to decide before it ends.
    """
    outcomes = watch.run_pass()
    for _ in range(_FURTHER_PASSES):
        if not any(outcome.reason == NotShown.reason for outcome in outcomes):
            break
        outcomes = [*(each for each in outcomes if each.reason != NotShown.reason), *_again(watch, outcomes)]
    return outcomes


def _again(watch: LogSupervisor, before: list[PassResult]) -> list[PassResult]:
    """Outcomes of a further pass for trees with an unkept promise, with the entries read by the pass before."""
    unkept = {outcome.log: outcome for outcome in before if outcome.reason == NotShown.reason}
    found = []
    for outcome in watch.run_pass():
        if (earlier := unkept.get(outcome.log)) is not None:
            outcome.first = earlier.first
            outcome.findings = dict(Counter(earlier.findings) + Counter(outcome.findings))
            outcome.unreadable += earlier.unreadable
            outcome.dropped += earlier.dropped
            found.append(outcome)
    return found


def document_of(outcome: PassResult) -> dict[str, Any]:
    """One pass over one log as plain JSON types."""
    head = outcome.head
    return {
        "log": outcome.log,
        "trouble": outcome.owner.value if outcome.owner else None,
        "kind": outcome.reason or None,
        "detail": outcome.detail or None,
        "note": outcome.note or None,
        "covered": None if outcome.first is None else {"from": outcome.first, "to": outcome.last},
        "head": {"size": head.size, "root": head.root.hex()} if head else None,
        "findings": outcome.findings,
        "unreadable": outcome.unreadable,
        "matches_left_out": outcome.dropped,
        "witnesses": outcome.witnessed.document() if outcome.witnessed else None,
        "evidence": outcome.evidence,
    }

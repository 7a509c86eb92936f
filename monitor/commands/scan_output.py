"""Output of a scan: a progress bar on a terminal, else occasional lines; findings as rows or JSON lines."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

from msgspec import to_builtins

from alerts.alert import counted
from alerts.inert import inert_json
from monitor.backscan.ledger import LedgerFinding
from monitor.commands.terminal import note, table
from monitor.model.state import Finding
from monitor.store.findings import signing_document

_LINE_EVERY: Final = 10.0
_ROWS: Final = 1_000
Tell = Callable[[int], None]


@contextmanager
def progress(log: str, first: int, last: int, at: int) -> Iterator[Tell]:
    """Show progress through `[first, last)` on standard error from `at` on; call the result with each position."""
    if not sys.stderr.isatty():
        yield _lines(log, first, last)
        return
    # For a terminal only: rich has fifty modules.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text  # noqa: PLC0415

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(Text(f"{log} {first}-{last}").plain, total=last - first, completed=at - first)
        yield lambda end: bar.update(task, completed=end - first)


def _lines(log: str, first: int, last: int) -> Tell:
    told_at = time.monotonic()

    def tell(end: int) -> None:
        nonlocal told_at
        now = time.monotonic()
        if end >= last or now - told_at >= _LINE_EVERY:
            told_at = now
            note(f"{log}: proven up to entry {end}, {100 * (end - first) // max(1, last - first)} % of {first}-{last}")

    return tell


def stored(finding: Finding) -> LedgerFinding:
    """The finding in the form that the database gives back."""
    where = finding.selected.signing.where
    reasons = to_builtins(finding.verdict.reasons)
    outcome, signing = finding.verdict.outcome.value, signing_document(finding.selected.signing)
    return LedgerFinding(where.log, where.index, finding.rule, outcome, reasons, signing)


def show_findings(findings: Iterator[LedgerFinding], *, as_json: bool) -> None:
    """Print findings: JSON lines for scripts, else one row each, up to a readable number."""
    if as_json:
        for finding in findings:
            json_line(
                {
                    "log": finding.log,
                    "index": finding.index,
                    "rule": finding.rule,
                    "outcome": finding.outcome,
                    "reasons": finding.reasons,
                    "signing": finding.signing,
                }
            )
        return
    rows = [_row(finding) for finding in islice(findings, _ROWS)]
    if rows:
        table(("log", "entry", "rule", "verdict", "who", "why"), rows)
    if more := sum(1 for _ in findings):
        note(f"not shown: {counted(more, 'more finding')}; --json prints all", "yellow")


def json_line(document: Mapping[str, Any]) -> None:
    """Print one JSON document on one line; every text in it is escaped to ASCII and cut."""
    sys.stdout.write(json.dumps(inert_json(dict(document))) + "\n")
    sys.stdout.flush()


def _row(finding: LedgerFinding) -> Sequence[object]:
    signers = finding.signing.get("signers", [])
    names = [name["value"] for signer in signers for name in signer["names"]]
    keys = [signer["fingerprints"][0] for signer in signers if signer["fingerprints"]]
    why = "; ".join(reason["sentence"] for reason in finding.reasons)
    return finding.log, finding.index, finding.rule, finding.outcome, next(iter([*names, *keys]), None), why

"""Archived rows as CSV (RFC 4180, LF): lists joined by spaces, and no cell that begins like a spreadsheet formula."""

import csv
import io
import json
from collections.abc import Iterable
from typing import Any, Final

from alerts.inert import inert_cell, inert_line
from monitor.archive.answer import ArchiveRow

_LONGEST: Final = 10_000  # characters of a cell


def csv_line(row: ArchiveRow) -> str:
    """One row as a line."""
    return _line(map(_cell, row.document().values()))


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, list):
        text = " ".join(each if isinstance(each, str) else json.dumps(each) for each in value)
    else:
        text = "" if value is None else str(value)
    return inert_cell(inert_line(text, _LONGEST))


CSV_HEAD: Final = _line(ArchiveRow.__struct_fields__)
"""The first line: the name of each column."""

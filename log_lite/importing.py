"""Adding raw leaf bodies to a log: real entries from elsewhere, or hostile ones, for tests of a reader."""

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from log_lite.home import NotApplicable
from log_lite.ledger import V2, Ledger, PendingEntry, Receipt, SealedLeaf
from log_lite.proposals.rekor_v2 import MAX_BODY
from tlog.merkle import leaf_hash

_BATCH: Final = 256
_MAX_LINE: Final = 32 * 1024 * 1024


def import_bodies(
    ledger: Ledger, log: str, file: Path, now_ms: Callable[[], int], advance: Callable[[int], None]
) -> tuple[int, int]:
    """Add every body in `file`; returns the number added, and the number that the log already held.

    Raises `NotApplicable`.
    """
    added = skipped = 0
    bodies = _bodies(file, log, advance)
    while batch := list(islice(bodies, _BATCH)):
        results = ledger.commit([_draft(log, body) for body in batch], now_ms())
        if not all(isinstance(result, Receipt) for result in results):
            raise NotApplicable(f"{ledger.active(log).row.origin} is frozen and takes no entries")
        new = sum(1 for result in results if isinstance(result, Receipt) and not result.duplicate)
        added, skipped = added + new, skipped + len(results) - new
    return added, skipped


def _draft(log: str, body: bytes) -> PendingEntry:
    return PendingEntry(log, leaf_hash(body), lambda _index, _now: SealedLeaf(body))


def _bodies(file: Path, log: str, advance: Callable[[int], None]) -> Iterator[bytes]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_MAX_LINE), b""), 1):
                advance(len(line))
                if line.strip():
                    yield _checked(_body(line, f"{file}:{number}"), log, f"{file}:{number}")
    except OSError as error:
        raise NotApplicable(f"cannot read {file}: {error.strerror}") from error


def _body(line: bytes, where: str) -> bytes:
    try:
        value = json.loads(line)
        if isinstance(value, dict):
            value = value.get("tlogEntry", value)
            value = value.get("canonicalizedBody") or value.get("body") or value.get("leaf_input")
        return base64.b64decode(value, validate=True)
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise NotApplicable(f"{where}: neither a base64 string nor an object with a base64 body: {error}") from error


def _checked(body: bytes, log: str, where: str) -> bytes:
    if log == V2 and len(body) > MAX_BODY:
        raise NotApplicable(f"{where}: {len(body)} bytes do not fit into an entry bundle (at most {MAX_BODY})")
    return body

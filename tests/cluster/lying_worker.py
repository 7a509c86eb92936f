"""Loaded into a worker before it starts: what the file named by `SIGNWATCH_TEST_ORDERS` says is what it does wrong.

Every range that the worker is asked for is written to `asked.txt` beside that file.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec.structs import replace

import monitor.cluster.worker as theirs
from monitor.archive.rows import MADE_SCHEMA

_ORDERS = Path(os.environ["SIGNWATCH_TEST_ORDERS"])
_true_read, _true_build, _true_enlist = getattr(theirs, "true", (theirs.read_range, theirs.build_id, theirs.enlist))
setattr(theirs, "true", (_true_read, _true_build, _true_enlist))  # noqa: B010


def _order() -> str:
    name, _, order = _ORDERS.read_text().partition(":")
    return order if name == os.environ["SIGNWATCH_TEST_NAME"] else ""


def _lying(run: str, start: int, stop: int, head: Any) -> Any:
    with (_ORDERS.parent / "asked.txt").open("a") as file:
        file.write(f"{os.environ['SIGNWATCH_TEST_NAME']} {start} {stop}\n")
    order = _order()
    if order == "stall":
        (_ORDERS.parent / "stalled").write_text(str(os.getpid()))
        time.sleep(600)
    if order == "die":
        os._exit(1)
    if order == "raise":
        raise RuntimeError("the worker is ill")
    reply = _true_read(run, start, stop, head)
    if order == "one row":
        try:
            (_ORDERS.parent / "lied").open("x").close()
        except FileExistsError:
            return reply
        return _one_identity(reply)
    return _LIES[order](reply) if order in _LIES else reply


def _wrong_hash(reply: theirs.Reply) -> theirs.Reply:
    return replace(reply, hashes=bytes(32) + reply.hashes[32:])


def _one_identity(reply: theirs.Reply) -> theirs.Reply:
    rows = pa.ipc.open_stream(reply.rows).read_all()
    wrong = rows["identities"].to_pylist()
    wrong[len(wrong) // 2] = ["mallory@example.com"]
    at = MADE_SCHEMA.get_field_index("identities")
    (batch,) = (
        rows.set_column(at, MADE_SCHEMA.field(at), pa.array(wrong, MADE_SCHEMA.field(at).type))
        .combine_chunks()
        .to_batches()
    )
    return replace(reply, rows=theirs.to_stream([batch]))


def _cut(reply: theirs.Reply) -> theirs.Reply:
    return replace(reply, rows=(reply.rows or b"")[: len(reply.rows or b"") // 2])


def _fewer(reply: theirs.Reply) -> theirs.Reply:
    rows = pa.ipc.open_stream(reply.rows).read_all().combine_chunks().to_batches()[0]
    return replace(reply, rows=theirs.to_stream([rows.slice(0, len(rows) - 1)]), hashes=reply.hashes[:-32])


def _foreign(reply: theirs.Reply) -> theirs.Reply:
    rows = pa.ipc.open_stream(reply.rows).read_all().combine_chunks().to_batches()[0]
    at = MADE_SCHEMA.get_field_index("log")
    columns = [pa.array(["other"] * len(rows)) if number == at else each for number, each in enumerate(rows.columns)]
    return replace(reply, rows=theirs.to_stream([pa.RecordBatch.from_arrays(columns, schema=MADE_SCHEMA)]))


def _no_matches(reply: theirs.Reply) -> theirs.Reply:
    return replace(reply, scan=None if reply.scan is None else replace(reply.scan, hits=()))


_LIES: dict[str, Callable[[theirs.Reply], Any]] = {
    "hash": _wrong_hash,
    "identity": _one_identity,
    "cut": _cut,
    "fewer": _fewer,
    "foreign": _foreign,
    "other range": lambda reply: replace(reply, start=reply.start + 1, stop=reply.stop + 1),
    "nothing": lambda _: None,
    "no matches": _no_matches,
}


def _build() -> str:
    return _true_build().replace("signwatch ", "signwatch 0.0.1-") if _order() == "older" else _true_build()


def _enlist(run: theirs.WorkerJob) -> str:
    _true_enlist(run)
    return _build()


# The client names functions, and the worker looks them up by these names. This file may be loaded twice.
for _name, _function in (("read_range", _lying), ("build_id", _build), ("enlist", _enlist)):
    _function.__module__, _function.__qualname__ = theirs.__name__, _name
    setattr(theirs, _name, _function)

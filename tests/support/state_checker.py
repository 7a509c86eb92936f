"""Checks a monitor's whole state against the log it followed: what is stored is what was signed, and nothing is owed.

Works on the rows alone, with a Merkle tree of its own, so that it judges the store rather than repeats it.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, select

from monitor.store.database import Database
from monitor.store.fsck import fsck
from monitor.store.sql import table
from monitor.store.tables import (
    AlertRow,
    DeliveryRow,
    EvidenceRow,
    FindingRow,
    HeadRow,
    KindCount,
    LogPosition,
    ScannedRange,
    UnreadableRow,
)
from tests.support.rfc6962_oracle import TreeOracle

Rows = Sequence[Mapping[str, Any]]
_ALWAYS_WITH_EVIDENCE = {
    "log-entries-not-in-tree",
    "log-entry-missing",
    "log-forked",
    "log-head-refused",
    "log-inconsistent",
    "log-promise-broken",
    "log-shard-vanished",
    "log-unfrozen",
}


def check_state(
    database: Database, trees: Mapping[str, TreeOracle], channels: Sequence[str], *, complete: bool = False
) -> None:
    """Fail with a sentence when something does not hold. `trees` are the logs' honest trees, `channels` the route.

    With `complete`, every log must also have been read to the head that is trusted, and every delivery be over.
    """
    assert fsck(database) == []
    with database.read() as connection:
        positions = _rows(connection, LogPosition)
        for position in positions:
            _check_position(position, trees.get(position["log"]), complete=complete)
        _check_chain(_rows(connection, HeadRow))
        where = {row["log"]: range(row["baseline_size"], row["size"]) for row in positions}
        for row in (*_rows(connection, FindingRow), *_rows(connection, UnreadableRow)):
            _check_entry(row, where, trees)
        _check_counts(_rows(connection, KindCount), where)
        _check_outbox(connection, channels, complete=complete)
        _check_evidence(connection)
        _check_ranges(_rows(connection, ScannedRange), where)


def _rows(connection: Connection, model: Any) -> Rows:
    return [dict(row) for row in connection.execute(select(table(model))).mappings()]


def _check_position(row: Mapping[str, Any], tree: TreeOracle | None, *, complete: bool) -> None:
    assert row["baseline_size"] <= row["size"] <= row["head_size"], "a position lies between its baseline and its head"
    if complete:
        assert row["size"] == row["head_size"], "everything below the trusted head was read"
    if tree is None:
        return
    assert bytes(row["head_root"]) == tree.root(row["head_size"]), "the trusted head is the honest one"
    frontier, at = [], 0
    for bit in reversed(range(row["size"].bit_length())):
        if row["size"] >> bit & 1:
            frontier.append(tree.range_root(at, at + (1 << bit)))
            at += 1 << bit
    assert bytes(row["frontier"]) == b"".join(frontier), "the frontier is the one of the log's own entries"


def _check_chain(rows: Rows) -> None:
    """Each link is SHA-256 over the previous one and the row's contents, as `monitor.store.history` documents it."""
    for log in {row["log"] for row in rows}:
        link = sha256(f"signwatch head history\n{log}".encode()).digest()
        for number, row in enumerate(sorted((row for row in rows if row["log"] == log), key=lambda r: r["number"])):
            assert row["number"] == number, f"{log}: head {number} is missing from the history"
            told = [log, number, row["size"], bytes(row["root"]).hex(), row["final"], bytes(row["raw"]).hex()]
            told.append(row["seen_at"].isoformat())
            link = sha256(link + json.dumps(told, separators=(",", ":")).encode()).digest()
            assert bytes(row["link"]) == link, f"{log}: the history does not hold together at head {number}"


def _check_entry(row: Mapping[str, Any], where: Mapping[str, range], trees: Mapping[str, TreeOracle]) -> None:
    log, index = row["log"], row["entry"]
    assert index in where[log], f"{log}: entry {index} is recorded but lies outside what was verified"
    if log in trees:
        assert bytes(row["leaf"]) == trees[log].leaves[index], f"{log}: entry {index} differs from the log's"


def _check_counts(rows: Rows, where: Mapping[str, range]) -> None:
    for log, followed in where.items():
        counts = [row["entries"] for row in rows if row["log"] == log]
        assert sum(counts) == len(followed), f"{log}: every verified entry is counted once, by kind"


def _check_outbox(connection: Connection, channels: Sequence[str], *, complete: bool) -> None:
    alerts, deliveries = _rows(connection, AlertRow), _rows(connection, DeliveryRow)
    told = sorted((row["log"], row["entry"], row["rule"]) for row in alerts if row["kind"] == "unexpected-signing")
    found = _rows(connection, FindingRow)
    wanted = sorted((row["log"], row["entry"], row["rule"]) for row in found if row["outcome"] == "unexpected")
    assert told == wanted, "each unexpected signing has exactly one alert"
    due = sorted((row["id"], channel) for row in alerts for channel in channels)
    assert sorted((row["alert"], row["channel"]) for row in deliveries) == due, "each alert goes to each channel once"
    if complete:
        states = {row["state"] for row in deliveries}
        assert states <= {"delivered", "withdrawn"}, "nothing waits and nothing was given up"
        _check_withdrawn(alerts, deliveries)


def _check_withdrawn(alerts: Rows, deliveries: Rows) -> None:
    """An alert that was taken back was answered, or its note names one that the same channel was told of."""
    notes = {row["id"]: row["note"] or "" for row in alerts}
    for row in deliveries:
        if row["state"] == "withdrawn":
            note, same = notes[row["alert"]], [each for each in deliveries if each["channel"] == row["channel"]]
            told = [each["alert"] for each in same if each["state"] == "delivered"]
            assert "as expected" in note or any(each in note for each in told), "no alert was sent in its place"


def _check_evidence(connection: Connection) -> None:
    """An alert of evidence has the evidence's id, as `monitor.raising.log_alerts.alert_of_evidence` documents it."""
    kept = {row["id"]: (row["log"], row["kind"]) for row in _rows(connection, EvidenceRow)}
    alerts = {row["id"]: (row["log"], row["kind"]) for row in _rows(connection, AlertRow)}
    kinds = {kind for _, kind in kept.values()} | _ALWAYS_WITH_EVIDENCE
    told = {id_: about for id_, about in alerts.items() if about[1] in kinds}
    assert told == kept, "each misbehaviour that an alert tells of is on disk, and each one on disk has an alert"


def _check_ranges(rows: Rows, where: Mapping[str, range]) -> None:
    for row in rows:
        last = row["last"] if row["last"] is not None else where[row["log"]].stop
        assert row["first"] <= last <= where[row["log"]].stop, "a rule was offered no more than was verified"

"""What a story came to: every row that must not depend on how often it was interrupted, and every message received."""

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from monitor.store.database import open_database
from monitor.store.sql import Base, table
from monitor.store.tables import AlertRow, DeliveryRow, FindingRow, LogDay, UnreadableRow, WatchedSpan
from tests.crash.scene import (
    CERTIFICATE_LOG,
    CERTIFICATES_FOUND,
    CHANNELS,
    FORK,
    FOUND,
    LOG,
    TOLD,
    UNREADABLE,
    certificate_log_at,
    log_at,
)
from tests.support.state_checker import check_state

# When and how often something was tried differs between an interrupted run and another; nothing else may.
_INCIDENTAL: Final = {
    "delivery": {"id", "attempts", "due_at", "lease", "leased_until", "digest", "finished_at", "error"},
    "scanned_range": {"id"},
    # `check_tries` holds these to bounds.
    "log_day": {"passes", "failures"},
    "watched_span": {"trouble"},
}
# Whose trouble a disturbed life may meet where the undisturbed one met none: never the log's.
_DISTURBED: Final = frozenset({"ourselves", "could-not-ask"})


def outcome(folder: Path) -> dict[str, Any]:
    """Every table by name, and which alerts the file channel holds."""
    with closing(open_database(str(folder / "signwatch.db"))) as database, database.read() as connection:
        tables = {
            name: sorted(
                json.dumps(_plain(row, _INCIDENTAL.get(name, set())), sort_keys=True)
                for row in connection.execute(select(each)).mappings()
            )
            for name, each in Base.metadata.tables.items()
        }
    return {**tables, "file": sorted(messages(folder, "file"))}


@dataclass(frozen=True, slots=True)
class Tries:
    """What a restart adds to: passes and failures by log and UTC day; by log, the trouble after each watched span."""

    passes: Mapping[tuple[str, str], tuple[int, int]]
    troubles: Mapping[str, tuple[str | None, ...]]

    @property
    def failures(self) -> int:
        """Passes that failed, of every log and day."""
        return sum(failures for _, failures in self.passes.values())


def tries(folder: Path) -> Tries:
    """Read the tries; fails where two watched spans of a log overlap."""
    days, spans = table(LogDay), table(WatchedSpan)
    with closing(open_database(str(folder / "signwatch.db"))) as database, database.read() as connection:
        passes = {(row.log, row.day): (row.passes, row.failures) for row in connection.execute(select(days))}
        rows = connection.execute(select(spans).order_by(spans.c.log, spans.c.began_at)).all()
    for before, after in pairwise(rows):
        assert before.log != after.log or before.began_at <= before.ended_at < after.began_at, "watched twice at once"
    return Tries(passes, {log: tuple(row.trouble for row in rows if row.log == log) for log in {r.log for r in rows}})


def check_tries(found: Tries, expected: Tries, *, lives: int, pauses: int = 0) -> None:
    """Hold a disturbed life's tries to what `lives` processes can add to the undisturbed one's.

    A process goes on until passes go well again, so a disturbance adds a failed pass and two others at most.
    `pauses` are the restarts long enough to end a watched span.
    """
    assert found.passes.keys() == expected.passes.keys(), "passes of other logs or days"
    for key, (passes, failures) in expected.passes.items():
        again, failed = found.passes[key]
        assert passes <= again, f"{key}: {again} passes are recorded, {passes} without a disturbance"
        # The disturbance may be that the record of a failed pass cannot be written: it is one less then.
        assert failures - 1 <= failed, f"{key}: {failed} failures are recorded, {failures} without a disturbance"
        assert again + failed <= lives * (passes + failures + 2), f"{key}: {again} passes and {failed} failures"
    assert found.troubles.keys() == expected.troubles.keys(), "other logs were watched"
    for log, wanted in expected.troubles.items():
        told = found.troubles[log]
        assert len(wanted) <= len(told) <= len(wanted) + pauses, f"{log} was watched {len(told)} times"
        other = [trouble for trouble, usual in zip_longest(told, wanted) if trouble != usual]
        assert set(other) <= (_DISTURBED | {None} if pauses else _DISTURBED), f"{log}: trouble {told}"
        assert not any(other) or found.failures > expected.failures, f"{log}: {told} without a failed pass"


def _plain(row: Mapping[Any, Any], without: set[str]) -> dict[str, Any]:
    return {
        str(name): value.hex() if isinstance(value, bytes) else str(value)
        for name, value in row.items()
        if name not in without
    }


def messages(folder: Path, channel: str) -> dict[str, str]:
    """What a channel received, by key; fails when the same key ever came with another content."""
    found: dict[str, str] = {}
    path = folder / f"{channel}.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        document = json.loads(line)
        key = document.pop("key")
        content = json.dumps(document, sort_keys=True)
        assert found.setdefault(key, content) == content, f"two different messages under the key {key}"
    return found


def check_truth(folder: Path) -> None:
    """Whether a life found and told what the scene says, neither more nor less."""
    found, unread, alerts = table(FindingRow), table(UnreadableRow), table(AlertRow)
    with closing(open_database(str(folder / "signwatch.db"))) as database, database.read() as connection:
        for log, wanted in ((LOG, FOUND), (CERTIFICATE_LOG, CERTIFICATES_FOUND)):
            rows = connection.execute(select(found.c.entry, found.c.rule, found.c.outcome).where(found.c.log == log))
            assert {(row.entry, row.rule): row.outcome for row in rows} == wanted
        assert set(connection.execute(select(unread.c.entry)).scalars()) == UNREADABLE
        assert Counter(connection.execute(select(alerts.c.kind)).scalars()) == TOLD


def check_delivered(folder: Path) -> None:
    """Every delivery is over, and its receiver holds the message it became part of; nothing else was ever sent.

    But for those taken back: the whole-state checker looks whether another alert was told in their place.
    """
    with closing(open_database(str(folder / "signwatch.db"))) as database, database.read() as connection:
        deliveries = table(DeliveryRow)
        rows = connection.execute(select(deliveries).where(deliveries.c.state != "withdrawn")).mappings().all()
    for channel in CHANNELS:
        keys = {f"{row['digest'] or row['alert']}:{channel}" for row in rows if row["channel"] == channel}
        received = set(messages(folder, channel))
        assert received == keys, f"{channel}: only received {received - keys}, only due {keys - received}"


def check_remains(folder: Path, stage: int) -> None:
    """Check the state a dead process left behind, on a copy: looking must not repair what a restart has to bear."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as copy:
        for name in ("signwatch.db", "signwatch.db-wal", "signwatch.db-shm"):
            if (folder / name).exists():
                shutil.copy(folder / name, copy)
        check_folder(Path(copy), stage)


def check_folder(folder: Path, stage: int, *, complete: bool = False) -> None:
    """The whole-state checker on the database in `folder`. A forked log is held to the history it showed first."""
    with closing(open_database(str(folder / "signwatch.db"))) as database:
        honest = {
            LOG: log_at(min(stage, FORK - 1)).oracle(),
            CERTIFICATE_LOG: certificate_log_at(stage).oracle(),
        }
        check_state(database, honest, CHANNELS, complete=complete)

"""Following into the real database: SQLite on disk, killed around every write, opened again from the file."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from alerts.alert import Alert
from monitor.following.follower import FollowLimits, LogFollower, Timing, baseline
from monitor.model.errors import Evidence, LogMisbehaved
from monitor.model.log_source import Position, SignedHead
from monitor.model.state import Batch
from monitor.store.database import create, open_database
from monitor.store.sql import table
from monitor.store.store import Store
from monitor.store.tables import EvidenceRow, FindingRow
from tests.support.harness import KINDS, NOW, EverythingIsNews, NumberScanner
from tests.support.memory_state import Died, Steps
from tests.support.misbehaving_log import MisbehavingLog, RekorV2Log

LIMITS = FollowLimits(batch_entries=64)


class Mortal:
    """A store that dies before or after a write, at the step it was told to."""

    def __init__(self, store: Store, steps: Steps) -> None:
        self._store, self._steps = store, steps

    def position(self, log: str) -> Position | None:
        return self._store.position(log)

    def baseline(self, position: Position, how: str) -> None:
        self._around(lambda: self._store.baseline(position, how))

    def advance(self, old: Position, new: Position, batch: Batch, alerts: Sequence[Alert]) -> None:
        self._around(lambda: self._store.advance(old, new, batch, alerts))

    def record_head(self, head: SignedHead) -> None:
        self._around(lambda: self._store.record_head(head))

    def keep_evidence(self, evidence: Evidence, alerts: Sequence[Alert]) -> bool:
        return bool(self._around(lambda: self._store.keep_evidence(evidence, alerts)))

    def enqueue(self, alerts: Sequence[Alert]) -> None:
        self._around(lambda: self._store.enqueue(alerts))

    def _around(self, write: Any) -> Any:
        self._steps.step()
        result = write()
        self._steps.step()
        return result


def opened(path: Path) -> Store:
    return Store(open_database(str(path), check=False), clock=lambda: NOW, route=lambda _: ["console"])


def follow_once(log: MisbehavingLog, path: Path, steps: Steps) -> None:
    """One life of the process: open the file, baseline if it never was, follow, close."""
    store = opened(path)
    state = Mortal(store, steps)
    source = log.source()
    try:
        if state.position(source.identity.log) is None:
            baseline(source, state, 0)
        LogFollower(
            source,
            state,
            NumberScanner(),
            EverythingIsNews(),
            Timing(lambda: NOW, lambda _: None),
            limits=LIMITS,
        ).run_pass()
    finally:
        store.close()


def outcome(path: Path, log: str) -> dict[str, Any]:
    store = opened(path)
    found = table(FindingRow)
    with store.database.read() as connection:
        rows = connection.execute(select(found.c.log, found.c.entry, found.c.rule).order_by(found.c.entry)).all()
        evidence = connection.execute(select(table(EvidenceRow).c.id)).all()
    position = store.position(log)
    store.close()
    assert position is not None
    return {
        "findings": [tuple(row) for row in rows],
        "evidence": sorted(row.id for row in evidence),
        "position": (position.frontier, position.head.head.size),
    }


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database; copied, because making one runs every migration."""
    path = tmp_path_factory.mktemp("empty") / "signwatch.db"
    create(str(path), NOW, "test").close()
    return path


@pytest.fixture
def path(empty: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(empty, tmp_path / "signwatch.db"))


def story(kind: type[MisbehavingLog], path: Path, steps: Steps) -> dict[str, Any]:
    log = kind()
    for count in (40, 50):
        log.grow(count)
        for _ in range(2):
            try:
                follow_once(log, path, steps)
                break
            except Died:
                continue
    return outcome(path, log.source().identity.log)


def test_killed_around_any_write_it_ends_with_the_same_rows(empty: Path, path: Path, tmp_path: Path) -> None:
    undisturbed = Steps()
    expected = story(RekorV2Log, path, undisturbed)
    assert [entry for _, entry, _ in expected["findings"]] == list(range(0, 90, 7))
    for step in range(1, undisturbed.taken + 1):
        copy = Path(shutil.copy(empty, tmp_path / f"{step}.db"))
        assert story(RekorV2Log, copy, Steps(die_at=step)) == expected, step


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.api)
def test_every_kind_of_log_is_stored_and_read_back(kind: type[MisbehavingLog], path: Path) -> None:
    seen = story(kind, path, Steps())
    assert [entry for _, entry, _ in seen["findings"]] == list(range(0, 90, 7))
    assert seen["position"][0].size == 90


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.api)
def test_a_fork_leaves_its_evidence_in_the_file_once(kind: type[MisbehavingLog], path: Path) -> None:
    log = kind()
    log.grow(50)
    follow_once(log, path, Steps())
    log.rewrite_from(20)
    for _ in range(2):
        log.grow(5)
        with pytest.raises(LogMisbehaved):
            follow_once(log, path, Steps())
    seen = outcome(path, log.source().identity.log)
    assert len(seen["evidence"]) == 1
    assert seen["position"][1] == 50

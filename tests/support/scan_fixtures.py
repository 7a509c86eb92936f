"""A store of its own for each test: the empty database is made once and copied."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.store.database import create, open_database
from monitor.store.fsck import fsck
from monitor.store.store import Store
from tests.support.harness import NOW


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, to be copied."""
    path = tmp_path_factory.mktemp("empty") / "signwatch.db"
    create(str(path), NOW, "test").close()
    return path


@pytest.fixture
def store(empty: Path, tmp_path: Path) -> Iterator[Store]:
    """A store over a copy of it, which has to be sound when the test ends."""
    path = shutil.copy(empty, tmp_path / "signwatch.db")
    opened = Store(open_database(str(path)), clock=lambda: NOW, route=lambda _: ["console"])
    yield opened
    assert fsck(opened.database) == []
    opened.close()

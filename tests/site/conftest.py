"""A site for each test, on every database that can run here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.store.database import Database
from tests.site.scene import Scene, scene
from tests.support.database_fixtures import database, postgres_url, where

__all__ = ["database", "postgres_url", "where"]


@pytest.fixture
def acme(tmp_path: Path, database: Database) -> Iterator[Scene]:
    with scene(tmp_path, database) as made:
        yield made

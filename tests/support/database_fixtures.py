"""A fresh database for each test, on every engine that can run here."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from monitor.store.database import Database, create
from tests.support.alerts import NOW
from tests.support.databases import postgres, postgres_programs

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed here (Debian: postgresql), so its half of the store is not tested")
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a database can be made."""
    if request.param == "sqlite":
        return str(tmp_path / "signwatch.db")
    return postgres_database(request.getfixturevalue("postgres_url"))


def postgres_database(server: str, made: str = "") -> str:
    """URL of a new database of a PostgreSQL server; `made` are parameters of CREATE DATABASE."""
    name = f"test_{next(_NUMBERS)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} {made}"))
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def database(where: str) -> Iterator[Database]:
    made = create(where, NOW, "test")
    yield made
    made.close()

"""Fixtures that this room shares with others."""

from tests.support.database_fixtures import database, postgres_url, where
from tests.support.scan_fixtures import empty, store

__all__ = ["database", "empty", "postgres_url", "store", "where"]

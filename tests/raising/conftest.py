"""Fixtures that this room shares with others."""

from tests.support.database_fixtures import database, postgres_url, where

__all__ = ["database", "postgres_url", "where"]

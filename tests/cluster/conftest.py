"""Fixtures that this room shares with others."""

from tests.archive.conftest import place, small_ranges

__all__ = ["place", "small_ranges"]

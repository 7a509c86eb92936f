"""Ends a writer to a database before one of its statements, and checks that nothing of it was kept."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from sqlalchemy import event, select

from monitor.store.database import Database
from monitor.store.fsck import fsck
from monitor.store.sql import Base


class Died(BaseException):
    """The process is gone: nothing may catch this and go on."""


def die_before_each_statement(database: Database, act: Callable[[], object]) -> int:
    """Do something again and again, dying one statement later each time, until it is done; returns how many deaths.

    For what is one transaction: after every death the database holds what it held before.
    """
    before = everything(database)
    for step in count(1):
        try:
            with _death(database, step):
                act()
        except Died:
            assert everything(database) == before, f"dying before statement {step} left something"
            assert fsck(database) == []
        else:
            return step - 1
    raise AssertionError


def everything(database: Database) -> dict[str, list[str]]:
    """Every row of every table."""
    with database.read() as connection:
        return {
            name: sorted(json.dumps([str(value) for value in row]) for row in connection.execute(select(table)))
            for name, table in Base.metadata.tables.items()
        }


@contextmanager
def _death(database: Database, step: int) -> Iterator[None]:
    left = step

    def before(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Died

    # Everything the driver is asked to do, a commit included, comes after one of these.
    names = ("before_cursor_execute", "commit")
    for name in names:
        event.listen(database.engine, name, before)
    try:
        yield
    finally:
        for name in names:
            event.remove(database.engine, name, before)

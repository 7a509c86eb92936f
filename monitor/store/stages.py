"""Stages of a subscription, and how often each was reached."""

from typing import Final

from sqlalchemy import Connection, Table, select

from monitor.store.sql import add_up, table

STAGES: Final = ("asked", "confirmed", "told", "bounced", "left", "suspended", "cut")


def count(connection: Connection, stage: str, more: int = 1) -> None:
    """Count a stage within a transaction."""
    add_up(connection, _stage(), [{"stage": stage, "entries": more}], ("stage",))


def reached(connection: Connection) -> dict[str, int]:
    """Times that each stage was reached."""
    found = {row.stage: int(row.entries) for row in connection.execute(select(_stage()))}
    return {stage: found.get(stage, 0) for stage in STAGES}


def _stage() -> Table:
    # Imported here: metrics name the stages, and most monitors have no site.
    from monitor.store.site_tables import StageCount  # noqa: PLC0415

    return table(StageCount)

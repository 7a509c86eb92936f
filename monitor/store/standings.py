"""How logs stand with their witnesses, kept so that a restart does not forget since when there are too few."""

import json
from datetime import datetime

from sqlalchemy import delete, select

from monitor.model.errors import OwnFault
from monitor.model.witness_policy import WitnessStatus
from monitor.store.database import Database
from monitor.store.tables import WitnessStanding, table
from monitor.store.writing import add_or_replace

_STANDING = table(WitnessStanding)


class Standings:
    """Standings of all logs in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def standing(self, log: str) -> WitnessStatus:
        """How a log stood when its witnesses were last counted. Raises `OwnFault` when what is stored is damaged."""
        with self._database.read() as connection:
            row = connection.execute(select(_STANDING).where(_STANDING.c.log == log)).mappings().first()
        if row is None:
            return WitnessStatus()
        try:
            missing = tuple((str(name), datetime.fromisoformat(at)) for name, at in json.loads(row["missing"]))
        except (ValueError, TypeError) as error:
            raise OwnFault(
                f"{log}: what is stored about its witnesses is damaged: {error}. Restore the database from a backup."
            ) from error
        return WitnessStatus(missing, row["short_since"])

    def keep(self, log: str, standing: WitnessStatus) -> None:
        """Replace what is known of a log."""
        missing = json.dumps([(name, at.isoformat()) for name, at in standing.missing_since])
        row = {"log": log, "short_since": standing.short_since, "missing": missing}
        with self._database.write() as connection:
            add_or_replace(connection, _STANDING, row, ("log",))

    def forget(self, log: str) -> None:
        """Drop what is known of a log that no witnesses are wanted for."""
        with self._database.read() as connection:
            if connection.execute(select(_STANDING.c.log).where(_STANDING.c.log == log)).first() is None:
                return
        with self._database.write() as connection:
            connection.execute(delete(_STANDING).where(_STANDING.c.log == log))

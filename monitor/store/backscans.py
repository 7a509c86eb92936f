"""How looking back goes in each log, kept so that `signwatch status` can tell, and a restart remembers since when."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, select

from alerts.alert import Owner
from monitor.store.database import Database
from monitor.store.health import Trouble
from monitor.store.tables import BackScanRow, table
from monitor.store.writing import add_or_replace

_BACK_SCAN: Final = table(BackScanRow)
_MAX_DETAIL: Final = 2_000


@dataclass(frozen=True, slots=True)
class BackScan:
    """Looking back in one log as it was `at`: entries still to be read for some rule, and entries a second lately."""

    log: str
    at: datetime
    remaining: int
    rate: int = 0
    trouble: Trouble | None = None


class BackScans:
    """Back-scans under way, in the database; one that ended leaves nothing behind."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[str, BackScan]:
        """By log."""
        with self._database.read() as connection:
            return {row["log"]: _back_scan(row) for row in connection.execute(select(_BACK_SCAN)).mappings()}

    def got_on(self, now: BackScan) -> None:
        """Record progress; earlier trouble is over, and with nothing left the back-scan too."""
        with self._database.write() as connection:
            if now.remaining:
                add_or_replace(connection, _BACK_SCAN, _row(replace(now, trouble=None)), ("log",))
            else:
                connection.execute(delete(_BACK_SCAN).where(_BACK_SCAN.c.log == now.log))

    def went_wrong(self, now: BackScan, owner: Owner, reason: str, detail: str) -> BackScan:
        """Record trouble. `since` stays for as long as the same kind of trouble lasts."""
        known = self.all().get(now.log)
        before = known.trouble if known is not None else None
        since = before.since if before is not None and before.owner is owner else now.at
        now = replace(now, rate=0, trouble=Trouble(owner, reason, detail[:_MAX_DETAIL], since))
        with self._database.write() as connection:
            add_or_replace(connection, _BACK_SCAN, _row(now), ("log",))
        return now


def _row(scan: BackScan) -> dict[str, Any]:
    trouble = scan.trouble
    return {
        "log": scan.log,
        "at": scan.at,
        "remaining": scan.remaining,
        "rate": scan.rate,
        "trouble": trouble.owner.value if trouble else None,
        "reason": trouble.reason if trouble else None,
        "detail": trouble.detail if trouble else None,
        "since": trouble.since if trouble else None,
    }


def _back_scan(row: Any) -> BackScan:
    trouble = None
    if row["trouble"] is not None and row["since"] is not None:
        trouble = Trouble(Owner(row["trouble"]), row["reason"] or "", row["detail"] or "", row["since"])
    return BackScan(row["log"], row["at"], row["remaining"], row["rate"], trouble)

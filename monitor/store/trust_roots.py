"""Trust roots in the database: one row for each that came into force, numbered without a gap."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from monitor.store.tables import TrustRootRow, table
from monitor.store.writing import add_new

_ROOT = table(TrustRootRow)


@dataclass(frozen=True, slots=True)
class KeptRoot:
    """A trust root file as it was read, `number` counting from 0; `fingerprint` is the hex SHA-256 of `document`."""

    number: int
    fingerprint: str
    document: bytes
    seen_at: datetime


def kept_roots(connection: Connection) -> list[KeptRoot]:
    """Every root, oldest first."""
    rows = connection.execute(select(_ROOT).order_by(_ROOT.c.number)).mappings()
    return [KeptRoot(row["number"], row["fingerprint"], bytes(row["document"]), row["seen_at"]) for row in rows]


def add_root(connection: Connection, root: KeptRoot) -> bool:
    """Add a root; false when its number is taken."""
    row = {
        "number": root.number,
        "fingerprint": root.fingerprint,
        "document": root.document,
        "seen_at": root.seen_at,
    }
    add_new(connection, _ROOT, [row])
    query = select(_ROOT.c.fingerprint, _ROOT.c.seen_at).where(_ROOT.c.number == root.number)
    return tuple(connection.execute(query).one()) == (root.fingerprint, root.seen_at)

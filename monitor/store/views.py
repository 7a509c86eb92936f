"""Views of logs that users' bundles proved, kept whole, and the tree nodes that each of them fixes."""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from hashlib import sha256

from msgspec import Struct
from sqlalchemy import Connection, select, tuple_

from monitor.store.database import Database
from monitor.store.sql import add_new, chunks, table
from monitor.store.tables import NodeRow, ViewRow
from tlog.merkle import HASH_SIZE, NodeHash, ProofInvalid, RootHash, leaf_hash
from tlog.nodes import Coordinate, full_subtrees

_VIEW = table(ViewRow)
_NODE = table(NodeRow)


class KeptView(Struct, frozen=True):
    """A view as it was verified when it was kept: raw head, leaf, and the inclusion proof between the two."""

    tree: str
    size: int
    root: RootHash
    head: bytes
    index: int
    leaf: bytes
    proof: tuple[NodeHash, ...]

    @property
    def id(self) -> str:
        """Id of the proven statement, the same for every signature of the head."""
        parts = (self.tree, str(self.size), self.root.hex(), str(self.index), sha256(self.leaf).hexdigest())
        return sha256("\0".join(parts).encode()).hexdigest()


def tree_id(spki: bytes, origin: str) -> str:
    """Identifier of one tree from its key and the origin in its heads, independent of its name."""
    return sha256(spki + b"\n" + origin.encode()).hexdigest()


class Views:
    """Views and nodes in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, view: KeptView, nodes: Mapping[Coordinate, bytes], now: datetime) -> None:
        """Store a view and the nodes that no earlier view proved; the other nodes keep their first view."""
        row = {
            "id": view.id,
            "tree": view.tree,
            "size": view.size,
            "root": bytes(view.root),
            "head": view.head,
            "entry": view.index,
            "leaf": view.leaf,
            "proof": b"".join(view.proof),
            "seen_at": now,
        }
        rows = [
            {"tree": view.tree, "level": level, "place": place, "hash": bytes(value), "view": view.id}
            for (level, place), value in nodes.items()
        ]
        with self._database.write() as connection:
            add_new(connection, _VIEW, [row])
            add_new(connection, _NODE, rows)

    def known(self, tree: str, places: Collection[Coordinate]) -> dict[Coordinate, tuple[NodeHash, str]]:
        """Hashes known for these places, each with the id of the view that proved it first."""
        found: dict[Coordinate, tuple[NodeHash, str]] = {}
        with self._database.read() as connection:
            for part in chunks(sorted(places)):
                wanted = tuple_(_NODE.c.level, _NODE.c.place).in_(list(part))
                for row in connection.execute(select(_NODE).where(_NODE.c.tree == tree, wanted)).mappings():
                    found[row["level"], row["place"]] = NodeHash(bytes(row["hash"])), row["view"]
        return found

    def view(self, view_id: str) -> KeptView | None:
        """One view by its id."""
        with self._database.read() as connection:
            found = _views(connection, _VIEW.c.id == view_id)
        return found[0] if found else None

    def of_size(self, tree: str, size: int, limit: int = 16) -> list[KeptView]:
        """Views of a tree of exactly this size; more than one root among them is a fork."""
        with self._database.read() as connection:
            return _views(connection, _VIEW.c.tree == tree, _VIEW.c.size == size, limit=limit)


def broken_views(connection: Connection) -> Iterator[str]:
    """Recompute every node from its view; one sentence for each view that does not lead to its nodes."""
    for row in connection.execute(select(_VIEW.c.id).order_by(_VIEW.c.id)).all():
        (view,) = _views(connection, _VIEW.c.id == row.id)
        rows = connection.execute(select(_NODE).where(_NODE.c.view == row.id)).mappings().all()
        try:
            shown = full_subtrees(view.index, view.size, leaf_hash(view.leaf), view.proof, view.root)
        except ProofInvalid as error:
            yield f"view {row.id} of a bundle differs from the verified bundle: {error}"
            continue
        if view.id != row.id or any(shown.get((each["level"], each["place"])) != bytes(each["hash"]) for each in rows):
            yield f"view {row.id} of a bundle does not lead to its tree nodes"


def _views(connection: Connection, *wanted: object, limit: int = 1) -> list[KeptView]:
    query = select(_VIEW).where(*wanted).order_by(_VIEW.c.seen_at).limit(limit)  # type: ignore[arg-type]
    return [
        KeptView(
            tree=row["tree"],
            size=row["size"],
            root=RootHash(bytes(row["root"])),
            head=bytes(row["head"]),
            index=row["entry"],
            leaf=bytes(row["leaf"]),
            proof=tuple(
                NodeHash(bytes(row["proof"][i : i + HASH_SIZE])) for i in range(0, len(row["proof"]), HASH_SIZE)
            ),
        )
        for row in connection.execute(query).mappings()
    ]

"""What judgements may ask about: `rules.facts.Facts` over the database."""

from collections.abc import Collection, Mapping, Sequence

from typing_extensions import override

from monitor.model.state import FactStore, Hit
from monitor.store.database import Database
from monitor.store.facts_ahead import BatchHits, LeaveAhead, PastAhead
from monitor.store.past import revisions
from monitor.store.stored_facts import StoredKnown, StoredLeave, StoredPast
from rules.facts import Facts


class DatabaseFacts(FactStore):
    """Facts from the database: `stored` answers one question at a time, `ahead` many of one batch at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.known = StoredKnown(database)
        self.stored = Facts(StoredPast(database), StoredLeave(database), self.known)

    @override
    def ahead(self, hits: Sequence[Hit]) -> Facts:
        about = BatchHits(hits)
        return Facts(PastAhead(self._database, about), LeaveAhead(self._database, about), self.known)

    @override
    def revisions(self, rules: Collection[str]) -> Mapping[str, int]:
        if not rules:
            return {}
        with self._database.read() as connection:
            return revisions(connection, rules)

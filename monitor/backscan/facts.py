"""Facts for the judgements of a scan: from the entries that the scan read, so that its findings depend on nothing else.

Only what people decide (authorisations, digest lists) and what other logs show is asked of the monitor's database.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from typing_extensions import override

from monitor.model.state import FactStore, Hit
from rules.facts import Facts


class ScanFacts(FactStore):
    """The past from `read`, the rest from `known`."""

    def __init__(self, read: FactStore, known: FactStore) -> None:
        self._read, self._known = read, known

    @override
    def revisions(self, rules: Collection[str]) -> Mapping[str, int]:
        """Of the scan's own past."""
        return self._read.revisions(rules)

    @override
    def ahead(self, hits: Sequence[Hit]) -> Facts:
        return replace(self._known.ahead(hits), past=self._read.ahead(hits).past)

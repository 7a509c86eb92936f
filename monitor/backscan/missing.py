"""Which entries rules were never offered, and the scans that would offer them."""

from collections.abc import Mapping

from monitor.store.coverage import Gap
from monitor.store.reading import Reading
from monitor.store.store import Store


def missing_ranges(store: Store, log: str, rules: Mapping[str, str], first: int | None = None) -> list[Gap]:
    """Ranges below the verified position that some of `rules` (id to what they select) were not offered, in order.

    From the log's baseline on, which is as far back as it was ever followed, unless `first` says otherwise. None for a
    log that is not followed: what cannot be verified against anything is not missing.
    """
    followed = Reading(store.database).followed().get(log)
    if followed is None:
        return []
    start = followed.baseline_size if first is None else first
    return store.coverage.gaps(log, rules, start, followed.position.frontier.size)

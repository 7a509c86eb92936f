"""Runs of the canary: old ones are forgotten, and of the bundles of missed ones the newest are kept."""

from datetime import timedelta

import pytest

from monitor.store import canaries as runs
from monitor.store.canaries import Canaries
from monitor.store.database import Database
from tests.support.alerts import NOW

BUNDLE = b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}'


def ended(canaries: Canaries, number: int, result: str, days: int = 0) -> None:
    """One run that began so many days ago and ended so."""
    now = NOW - timedelta(days=days)
    assert canaries.begin("rekor-v2", f"sha256:{number:064x}", now) == number
    canaries.signed(number, now, BUNDLE)
    if result == runs.SEEN:
        assert canaries.seen(f"sha256:{number:064x}", now)
    canaries.end(number, result)


def test_only_a_missed_run_keeps_its_bundle(database: Database) -> None:
    canaries = Canaries(database)
    for number, result in enumerate((runs.SEEN, runs.LATE, runs.MISSED), 1):
        ended(canaries, number, result)
    assert [canaries.bundle(number) for number in (1, 2, 3, 4)] == [None, None, BUNDLE, None]
    assert [run.has_bundle for run in canaries.newest(9)] == [True, False, False]
    assert canaries.counts(NOW, NOW + timedelta(days=1)) == {runs.SEEN: 1, runs.LATE: 1, runs.MISSED: 1}
    assert canaries.counts(NOW - timedelta(days=1), NOW) == {}


def test_a_month_of_missed_runs_keeps_the_newest_bundles_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MOST_BUNDLES", 2)
    canaries = Canaries(database)
    for number in range(1, 6):
        ended(canaries, number, runs.MISSED)
    canaries.begin("rekor-v2", "sha256:" + "ab" * 32, NOW)
    assert [run.number for run in canaries.newest(9) if run.has_bundle] == [5, 4]
    assert len(canaries.newest(9)) == 6, "the runs themselves stay"


def test_old_runs_are_forgotten_but_never_the_newest_and_the_last_that_was_seen(database: Database) -> None:
    canaries = Canaries(database)
    for number, result in enumerate((runs.SEEN, runs.SEEN, runs.MISSED, runs.MISSED), 1):
        ended(canaries, number, result, days=runs.KEPT.days + 10 - number)
    assert len(canaries.newest(9)) == 4, "control: none was old yet"
    # The number of a newest row that is gone would be given again, and it is in the id of an alert.
    ended(canaries, 5, runs.MISSED)
    assert [run.number for run in canaries.newest(9)] == [5, 4, 2]

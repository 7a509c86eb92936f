"""A running daemon with an archive is killed at any moment: what it leaves verifies, and the next one goes on."""

import random

import pytest

from monitor.archive.query import MatchMode, Query
from monitor.archive.writing import read_manifest
from tests.archive.conftest import Place, readable_bodies
from tests.archive.daemon import running

ENTRIES = 600


def archived(place: Place) -> int:
    manifest = read_manifest(place.files, "rekor-v2")
    return 0 if manifest is None else manifest.runs[-1].last


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_daemon_leaves_an_archive_that_verifies(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    place.served.log.leaves[:] = readable_bodies(100)
    config = place.served.config.read_text().replace("poll_seconds: 1", "poll_seconds: 1, start: 0")
    place.served.config.write_text(config)
    place.run("init")
    for size in (100, 250, 400, ENTRIES):
        grown = len(place.served.log.leaves)
        place.served.log.append(*readable_bodies(size - grown, grown))
        with running(place.served, until_up=False) as daemon:
            wanted = archived(place) + chance.randrange(1, 100)
            daemon.until(lambda: archived(place) >= min(wanted, size) or None)  # noqa: B023  asked for here alone
            daemon.kill()
        if archived(place):
            place.run("archive", "verify", "--offline")
    with running(place.served) as daemon:
        daemon.until(lambda: archived(place) == ENTRIES or None)
        daemon.kill()
    place.run("archive", "verify", "--all")
    everything = place.archive.search(Query("*", match=MatchMode.GLOB, limit=1000))
    assert sorted(row.index for row in everything.rows) == list(range(ENTRIES)), "each entry is there once"

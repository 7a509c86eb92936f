"""`signwatch peers compare` asks another running installation: the roots of both archives' indexes are compared."""

import json
from dataclasses import replace

import httpx
import pytest

from tests.archive.conftest import RANGE, Place, readable_bodies
from tests.archive.daemon import running
from tests.archive.test_verify_and_compact import other_identity, rewritten
from tests.support.waiting import PATIENCE

_SMALL_RANGES = f"""
from monitor.archive import map_answers, map_building, map_files, ranges, writing
ranges.RANGE = writing.RANGE = map_files.RANGE = map_building.RANGE = map_answers.RANGE = {RANGE}
map_files.PART = map_building.PART = map_answers.PART = 16
"""
"""What the fixture `small_ranges` does in this process."""


def archived(place: Place) -> Place:
    """Follow the log from its first entry, and archive it."""
    place.run("init")
    place.run("run", "--once")
    place.build()
    return place


@pytest.mark.parametrize("honest", [True, False])
def test_two_installations_with_archives_compare_their_index_roots(place: Place, honest: bool) -> None:
    place.served.log.leaves[:] = readable_bodies(200)
    config = place.served.config.read_text().replace("poll_seconds: 1", "poll_seconds: 1, start: 0")
    folder = place.folder / "other"
    folder.mkdir()
    other = Place(replace(place.served, folder=folder), place.capsys)
    other.served.write_files()
    for each in (place, other):
        each.served.config.write_text(config)
        archived(each)
    if not honest:
        rewritten(other, other_identity, with_index=True)
    with running(other.served, before=_SMALL_RANGES) as daemon:
        (shown,) = httpx.get(f"{daemon.url}/api/checkpoints", trust_env=False, timeout=PATIENCE).json()["checkpoints"]
        assert max(size for size, _ in shown["index"]["roots"]) == 192
        out, _ = place.run("peers", "compare", "--json", daemon.url, expect=0 if honest else 3)
    found = json.loads(out)["logs"]
    assert [each["relation"] for each in found] == ["same", "index-same" if honest else "index-differs"]
    assert ("agree up to entry 191" in found[1]["detail"]) is honest

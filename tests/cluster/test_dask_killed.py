"""`archive build --dask` on the cores of this machine dies by SIGKILL: no process stays, and the next one goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from monitor.archive.writing import read_manifest
from tests.archive.conftest import RANGE, Place, readable_bodies
from tests.cluster.test_dask import built, digests
from tests.support.waiting import PATIENCE

_ENTRIES = 400
# The sizes of `small_ranges`, in a process of its own; workers take ranges as they are asked for.
_RUNNER = f"""
import sys
from monitor.archive import map_answers, map_building, map_files, ranges, writing
from monitor.cli import run_command
from monitor.cluster import pipeline
ranges.RANGE = writing.RANGE = map_files.RANGE = map_building.RANGE = map_answers.RANGE = {RANGE}
map_files.PART = map_building.PART = map_answers.PART = writing.ROW_GROUP = writing.INDEX_GROUP = pipeline.PART = 16
sys.exit(run_command(sys.argv[1:]))
"""


def parents() -> dict[int, int]:
    """The parent of each process that has not ended."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            if state not in "ZX":
                found[int(folder.name)] = int(parent)
    return found


def descendants(of: int) -> set[int]:
    """Processes below one."""
    every, found = parents(), {of}
    while more := {each for each, parent in every.items() if parent in found} - found:
        found |= more
    return found - {of}


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 2 * PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_no_worker_outlives_a_killed_build_and_the_next_one_goes_on(place: Place) -> None:
    place.served.log.leaves[:] = readable_bodies(_ENTRIES)
    built(place, "here", "--jobs", "1")
    config = place.served.config
    text = config.read_text().replace("location: here", "location: dask")
    config.write_text(text.replace("poll_seconds: 1", "poll_seconds: 1, requests_per_second: 8"))
    words = ["archive", "build", "--log", "rekor-v2", "--dask", "--jobs", "2", "--config", str(config)]
    dask = type(place.files)(str(place.folder / "dask"))
    said = place.folder / "said.txt"
    with said.open("wb") as output:
        build = subprocess.Popen(
            [sys.executable, "-c", _RUNNER, *words], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    workers: set[int] = set()
    try:
        wait_until(lambda: build.poll() is not None or read_manifest(dask, "rekor-v2") is not None, "nothing archived")
        workers = descendants(build.pid)
        assert build.poll() is None, said.read_text()
        assert len(workers) >= 2
        build.kill()
        build.wait()
        wait_until(lambda: not workers & parents().keys(), "workers outlive the process that started them")
    finally:
        build.kill()
        build.wait()
        for each in workers & parents().keys():
            os.kill(each, signal.SIGKILL)
    manifest = read_manifest(dask, "rekor-v2")
    assert manifest is not None
    ((first, end),) = manifest.spans()
    assert (first, 0 < end < _ENTRIES) == (0, True)
    config.write_text(text)
    done, _ = built(place, "dask", "--dask", "--jobs", "2")
    assert done["archived"] == _ENTRIES - end
    assert digests(place, "dask") == digests(place, "here")
    place.run("archive", "verify", "--all")

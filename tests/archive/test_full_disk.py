"""A full disk stops archiving, not following; it is told, and archiving goes on once there is room."""

from pathlib import Path

import pytest

from monitor.archive.files import ArchiveFiles
from monitor.archive.handover import Archiver
from monitor.archive.writing import read_manifest
from monitor.store.reading import Reading
from tests.daemon.test_daemon import Place, shown_by
from tests.support.served_log import ServedLog, served_log, signing_body

FULL = Path("/dev/full")
SAID = "no room is left on the disk"
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="/dev/full is not there: Linux has it")


def fill(served: ServedLog, last: int) -> None:
    """Make the next write of the first rows of a log of `last` entries end as on a full disk (ENOSPC)."""
    rows = served.folder / "archive" / "rekor-v2" / "rows"
    rows.mkdir(parents=True, exist_ok=True)
    (rows / f".{0:012d}-{last:012d}.parquet.new").symlink_to(FULL)


def archived(served: ServedLog) -> list[tuple[int, int]]:
    manifest = read_manifest(ArchiveFiles(str(served.folder / "archive")), "rekor-v2")
    return [] if manifest is None else manifest.spans()


def kinds(place: Place) -> set[str]:
    return {each.alert.kind for each in Reading(place.monitor.store.database).alerts(100, open_only=True)}


def archive(place: Place, archiver: Archiver) -> None:
    """The daemon's job, as often as it comes in two seconds: rows wait for one."""
    for _ in range(3):
        place.daemon.archive(archiver)
        place.clock.advance(seconds=1)


def test_a_full_disk_stops_archiving_and_not_following_and_is_told(tmp_path: Path) -> None:
    with served_log(tmp_path) as served:
        served.log.leaves[:] = [signing_body() for _ in range(3)]
        served.config.write_text(served.config.read_text() + "archive: {location: archive, write_every: 1s}\n")
        place = Place(served)
        (watch,) = place.monitor.watches
        archiver = place.monitor.make.archiver(place.monitor.logs[0])
        assert archiver is not None
        watch.baseline(0)
        place.daemon.follow(watch)
        fill(served, 3)
        archive(place, archiver)
        place.daemon.heartbeat()
        shown = shown_by(place, "/readyz", "/api/status.json", "/")
        assert [where for where, text in shown.items() if SAID not in text] == []
        assert archived(served) == []

        served.log.append(signing_body("refs/heads/evil"))
        place.daemon.follow(watch)
        assert kinds(place) == {"unexpected-signing"}, "the log is followed, and its entries are judged"
        place.clock.advance(minutes=6)
        place.daemon.heartbeat()
        place.daemon.heartbeat()
        assert kinds(place) == {"unexpected-signing", "signwatch-ill"}

        archive(place, archiver)
        archive(place, archiver)
        assert archived(served) == [(0, 4)], "there is room again"
        place.daemon.heartbeat()
        assert place.daemon.reasons() == []
        assert kinds(place) == {"unexpected-signing"}, "it is over"
        archiver.close()
        place.monitor.close()

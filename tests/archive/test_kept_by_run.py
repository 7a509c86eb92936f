"""`signwatch run` archives what it proved; no trouble of the archive keeps the log from being followed."""

import json

import pytest

from monitor.archive.query import MatchMode, Query
from monitor.archive.writing import read_manifest
from tests.archive.conftest import Place, readable_bodies
from tests.support.served_log import signing_body


@pytest.fixture
def followed(place: Place) -> Place:
    """The log, with entries that can be read, is followed from its first entry on."""
    place.served.log.leaves[:] = readable_bodies(200)
    config = place.served.config.read_text().replace("poll_seconds: 1", "poll_seconds: 1, start: 0")
    place.served.config.write_text(config)
    place.run("init")
    return place


def spans(place: Place) -> list[tuple[int, int]]:
    manifest = read_manifest(place.files, "rekor-v2")
    if manifest is None:
        return []
    for run in manifest.runs:
        run.check()
    return manifest.spans()


def test_a_pass_archives_what_it_proved_and_the_next_goes_on(followed: Place) -> None:
    followed.run("run", "--once", expect=0)
    assert spans(followed) == [(0, 200)]
    followed.served.log.append(*readable_bodies(70, 200))
    followed.run("run", "--once")
    assert spans(followed) == [(0, 270)]
    assert followed.archive.search(Query("*", match=MatchMode.GLOB)).total == 270


def test_what_was_followed_without_the_archive_is_read_again(followed: Place) -> None:
    followed.run("audit")
    assert spans(followed) == []
    followed.served.log.append(*readable_bodies(10, 200))
    followed.run("run", "--once")
    assert spans(followed) == [(0, 210)]


def test_a_range_that_was_built_beside_it_is_not_archived_twice(followed: Place) -> None:
    followed.build("--from", "50", "--to", "120")
    followed.run("run", "--once")
    assert spans(followed) == [(0, 200)]


def test_an_archive_that_cannot_be_written_stops_archiving_and_not_following(followed: Place) -> None:
    (followed.folder / "archive").write_text("a file where the folder should be")
    followed.served.log.append(signing_body("refs/heads/evil"))
    _, said = followed.run("run", "--once", expect=1)
    assert "archiving rekor-v2" in said
    alerts = [json.loads(line) for line in (followed.folder / "alerts.jsonl").read_text().splitlines()]
    assert [alert["index"] for alert in alerts if alert["kind"] == "unexpected-signing"] == [200]
    (followed.folder / "archive").unlink()
    followed.run("run", "--once")
    found, _ = followed.found("https://github.com/acme/widget/*")
    assert [(each["index"], each["verdicts"]) for each in found] == [(200, {"widget": "unexpected"})]
    assert "widget: unexpected" in followed.run("search", "https://github.com/acme/widget/*")[0]
    assert spans(followed) == [(0, 201)]


def test_entries_the_log_did_not_sign_are_never_archived(followed: Place) -> None:
    followed.served.log.served[70] = followed.served.log.leaves[71]
    followed.run("run", "--once", expect=1)
    assert all(last <= 70 for _, last in spans(followed))

"""The alert of an unexpected signing links a file that proves it to be in the log, and the file is checked offline."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from monitor.archive.writing import read_manifest
from monitor.cli import run_command
from tests.archive.conftest import Place, readable_bodies
from tests.archive.daemon import RunningDaemon, running
from tests.support.served_log import signing_body
from tests.support.waiting import PATIENCE


def followed(place: Place, *, archived: bool) -> None:
    place.served.log.leaves[:] = readable_bodies(75)
    config = place.served.config.read_text().replace("poll_seconds: 1", "poll_seconds: 1, start: 0")
    if not archived:
        config = config.replace("archive:", "# archive:")
    place.served.config.write_text(config)
    place.run("init")


def alert_of(place: Place, daemon: RunningDaemon) -> dict[str, Any]:
    """The alert of the one unexpected signing, as the channel got it."""

    def found() -> dict[str, Any] | None:
        path = place.folder / "alerts.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        alerts = [json.loads(line) for line in lines if line.endswith("\n")]
        return next((each for each in alerts if each["kind"] == "unexpected-signing"), None)

    return daemon.until(found)


def verify(place: Place, file: Path) -> int:
    place.capsys.readouterr()
    return run_command(["evidence", "verify", str(file), "--trusted-root", str(place.folder / "trusted_root.json")])


@pytest.mark.parametrize("archived", [True, False])
def test_from_the_alert_over_its_link_to_a_file_that_verifies(place: Place, tmp_path: Path, archived: bool) -> None:
    followed(place, archived=archived)
    file = tmp_path / "signing.json"
    with running(place.served) as daemon:
        place.served.log.append(signing_body("refs/heads/evil"), *readable_bodies(5))
        alert = alert_of(place, daemon)
        assert alert["proof"].startswith(f"{daemon.url}/proofs/")
        if archived:
            daemon.until(lambda: has_archived(place, 76))
            # Nothing is asked of the log for it: a log that hides the entry today is proven all the same.
            place.served.down = True
        answer = httpx.get(alert["proof"], trust_env=False, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        assert "attachment" in answer.headers["content-disposition"]
        file.write_bytes(answer.content)
        page = httpx.get(alert["link"], trust_env=False, timeout=PATIENCE).text
        assert "A file that proves the entry to be in the log" in page
        assert httpx.get(f"{daemon.url}/proofs/no-such-alert", trust_env=False, timeout=PATIENCE).status_code == 404
        if not archived:
            place.served.down = True
            refused = httpx.get(alert["proof"], trust_env=False, timeout=PATIENCE)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "60")
    assert verify(place, file) == 0
    assert "refs/heads/evil" in place.capsys.readouterr().out
    document = json.loads(file.read_text())
    (entry,) = document["logs"][0]["entries"]
    assert (entry["index"], document["about"]["rule"]) == (75, "widget")
    for name, value in (("leaf", "AAAA"), ("leafHash", entry["leafHash"][::-1]), ("index", 74)):
        file.write_text(json.dumps(document | {"logs": [document["logs"][0] | {"entries": [entry | {name: value}]}]}))
        assert verify(place, file) == 1, name


def has_archived(place: Place, size: int) -> bool | None:
    manifest = read_manifest(place.files, "rekor-v2")
    return (manifest is not None and manifest.runs[-1].last >= size) or None

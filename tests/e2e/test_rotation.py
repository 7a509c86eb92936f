"""A log that begins a new tree: what is signed in its first seconds is told at once, and once."""

import json
from pathlib import Path

from monitor.demo.processes import wait_until
from tests.e2e.loop import Loop, running_loop
from tests.support.waiting import PATIENCE

ALICE = "alice@example.com"


def trees(loop: Loop) -> set[str]:
    return {log["name"] for log in loop.status()["logs"] if log["name"].startswith("rekor-v1/")}


def tellings(loop: Loop) -> list[str]:
    """Alerts about Alice's signings, by the digest that was signed; the rotation itself is another matter."""
    return [each["title"] for each in loop.alerts() if ALICE in json.dumps(each)]


def test_a_signing_right_after_a_rotation_is_told_once(tmp_path: Path) -> None:
    with running_loop(tmp_path) as loop:
        loop.start_monitor()
        wait_until("the first tree", lambda: len(trees(loop)) == 1, seconds=PATIENCE)
        loop.run("log-lite", "rotate", "--dir", "log")
        # The monitor may not have looked since.
        loop.sigstore_sign("early.txt", loop.token("--email", ALICE), 1)
        wait_until("the new tree", lambda: len(trees(loop)) == 2, seconds=PATIENCE)
        wait_until("the alert", lambda: bool(tellings(loop)), seconds=PATIENCE)
        loop.sigstore_sign("later.txt", loop.token("--email", ALICE), 1)
        wait_until("the second alert", lambda: len(tellings(loop)) >= 2, seconds=PATIENCE)
        loop.sigstore_sign("last.txt", loop.token("--email", ALICE), 2)
        wait_until("the third alert", lambda: len(tellings(loop)) >= 3, seconds=PATIENCE)
        assert len(tellings(loop)) == 3, tellings(loop)

"""Five channels, one dead and one slow, a thousand findings and twenty kills: every live channel gets every alert."""

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from monitor.program import utc_now
from monitor.store.database import create, open_database
from monitor.store.outbox import DatabaseOutbox, QueuedAlert, put
from tests.crash.five_channels import NAMES
from tests.support.alerts import an_alert
from tests.support.waiting import PATIENCE

FINDINGS = 1_000
KILLS = 20


@contextmanager
def receiver() -> Iterator[tuple[str, dict[str, list[str]]]]:
    """A server that notes the key of each message, before it answers."""
    got: dict[str, list[str]] = {"hook": [], "slow": []}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert json.loads(body)["data"]["schema"] == "signwatch-alert/1"
            if self.path == "/slow":
                time.sleep(0.02)
            got[self.path.strip("/")].append(self.headers["webhook-id"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


def keys_in(path: Path) -> list[str]:
    """Keys of the lines that are whole; a kill leaves at most half a line."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line)["key"])
        except ValueError:
            continue
    return found


def test_every_live_channel_gets_every_alert_and_repeats_have_the_same_key(tmp_path: Path) -> None:
    where = tmp_path / "signwatch.db"
    now = utc_now()
    with closing(create(str(where), now, "test")) as database, database.write() as connection:
        put(connection, [QueuedAlert(an_alert(n, alert_id=f"{n:032x}"), NAMES, now) for n in range(FINDINGS)], now)
    chosen = random.Random(20260301)
    with receiver() as (url, got):
        command = [sys.executable, "-m", "tests.crash.five_channels", str(where), url]
        killed = 0
        while True:
            running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert running.stdout is not None
            with running.stdout:
                assert running.stdout.readline() == "delivering\n"
                if killed < KILLS:
                    time.sleep(chosen.uniform(0, 0.6))
                    running.kill()
                    killed += running.wait() == -9
                    continue
                assert running.stdout.readline() == "done\n"
                assert running.wait() == 0
                break
    assert killed == KILLS
    received = {
        "hook": got["hook"],
        "slow": got["slow"],
        "file": keys_in(tmp_path / "file.jsonl"),
        "program": (tmp_path / "program.txt").read_text().splitlines(),
    }
    for channel, keys in received.items():
        wanted = {f"{n:032x}:{channel}" for n in range(FINDINGS)}
        assert set(keys) == wanted, f"{channel}: none lost, and no key but its own"
        repeats = sum(count - 1 for count in Counter(keys).values())
        assert repeats <= KILLS, f"{channel}: {repeats} repeats, at most the one that each kill left in doubt"
    with closing(open_database(str(where))) as database:
        left = DatabaseOutbox(database).backlog()
    assert set(left) == {"dead"}
    assert left["dead"].pending == FINDINGS, "what cannot be delivered waits, and is not lost"

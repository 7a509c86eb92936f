"""The process that is killed: delivers to five channels until it is told to stop. Arguments: database, base address."""

import random
import sys
import time
from datetime import timedelta
from pathlib import Path

from alerts.channels.channel import Channel
from alerts.channels.command import CommandChannel
from alerts.channels.guarded_http import GuardedPoster
from alerts.channels.jsonl import JsonlChannel
from alerts.channels.webhook import WebhookChannel
from alerts.delivery import DeliveryPolicy, deliver_due
from monitor.program import utc_now
from monitor.store.database import open_database
from monitor.store.outbox import DatabaseOutbox

NAMES = ("file", "hook", "program", "slow", "dead")
POLICY = DeliveryPolicy(
    first_retry=timedelta(seconds=1),
    longest_retry=timedelta(seconds=2),
    singles=1_000_000,
    urgent_singles=1_000_000,
    claim=50,
    claims_per_pass=1,
)


def channels(folder: Path, url: str) -> list[Channel]:
    """Five channels: a file, a fast and a slow receiver, a program, and one without a listener."""
    poster = GuardedPoster(allow_private=True)
    # Appends one short line in one write: what is stopped in the middle has written it or not.
    append = 'cat > /dev/null; printf "%s\\n" "$SIGNWATCH_KEY" >> program.txt'
    return [
        JsonlChannel("file", folder / "file.jsonl"),
        WebhookChannel("hook", f"{url}/hook", poster),
        CommandChannel("program", ("/bin/sh", "-c", append), folder),
        WebhookChannel("slow", f"{url}/slow", poster),
        WebhookChannel("dead", "http://127.0.0.1:9/", poster),
    ]


def main() -> None:
    """Deliver until all but the dead channel are done, then say so."""
    database = open_database(sys.argv[1])
    outbox = DatabaseOutbox(database)
    # As `signwatch run` does: the process that held these leases is dead.
    outbox.release()
    built = channels(Path(sys.argv[1]).parent, sys.argv[2])
    print("delivering", flush=True)
    while set(outbox.backlog()) - {"dead"}:
        deliver_due(outbox, built, utc_now(), random=random.random, policy=POLICY)
        time.sleep(0.01)
    print("done", flush=True)


if __name__ == "__main__":
    main()

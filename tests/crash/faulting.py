"""`python -m tests.crash.faulting FOLDER WHICH PART PARTS`: every call fails once, in two ways, and life goes on.

A call that fails may have had its effect or not, and its caller cannot know: a commit that is reported as failed
may be durable, a message that timed out may have arrived, a request that broke off was counted by the server. WHICH is
`telling` (commits that change something, requests, sends) or `every` call; the log of the story does not count
requests, so of the telling ones they fail in one way. Prints one JSON line of figures, and its
progress on standard error; exits 1 with the first thing that differs from the undisturbed life.
"""

import json
import logging
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alerts.channels.channel import DeliveryFailed
from monitor.model.errors import FetchFailed
from tests.crash.forking import live
from tests.crash.scene import STAGES
from tests.crash.undisturbed import LIVES, Call, Undisturbed
from tests.support.progress import told


@dataclass
class Fault:
    """Fails one call: before it had any effect, or (`happened`) after it had all of it."""

    call: Call
    happened: bool
    seen: int = 0

    def around(self, seam: str, call: Callable[[], Any]) -> Any:
        if seam != self.call.seam:
            return call()
        self.seen += 1
        if self.seen != self.call.number:
            return call()
        if self.happened:
            call()
        raise _error(seam)


def _error(seam: str) -> Exception:
    match seam:
        case "fetch":
            return FetchFailed("the connection was reset")
        case "send":
            return DeliveryFailed("the receiver did not answer in time")
        case _:
            return sqlite3.OperationalError("disk I/O error")


def _is_telling(call: Call, *, happened: bool) -> bool:
    match call.seam:
        case "fetch":
            return not happened
        case "do_commit":
            return call.changed
        case _:
            return call.seam == "send"


def fail(undisturbed: Undisturbed, stage: int, fault: Fault) -> None:
    """Let one call fail, go on, restart where a process ends itself over it, and compare."""
    home = undisturbed.before(stage)
    ended = live(home, [stage], fault.around, lambda: fault.seen)
    for number in range(1, LIVES):
        if ended is not None:
            break
        ended = live(home, [stage], lambda _seam, call: call(), lambda: 0, number=number)
    assert ended is not None, "no restart got through"
    undisturbed.compare(home, stage)


def main(folder: Path, which: str, part: int, parts: int) -> None:
    """Fail every `parts`-th of the chosen calls, from the `part`-th on, in both ways."""
    logging.disable(logging.CRITICAL)
    undisturbed = Undisturbed(folder)
    chosen = [
        (stage, call, happened)
        for stage in range(len(STAGES))
        for call in undisturbed.calls(stage)
        for happened in (False, True)
        if which == "every" or _is_telling(call, happened=happened)
    ]
    for stage, call, happened in told(chosen[part::parts], "calls that failed"):
        try:
            fail(undisturbed, stage, Fault(call, happened))
        except AssertionError as error:
            effect = "had happened" if happened else "had not happened"
            print(f"{STAGES[stage]!r}: {call.seam} number {call.number} was reported as failed and {effect}: {error}")
            sys.exit(1)
    print(json.dumps({"faults": len(chosen[part::parts]), "of": len(chosen)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

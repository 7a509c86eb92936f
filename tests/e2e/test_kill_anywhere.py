"""Promise 3: SIGKILL at any moment loses no finding and repeats none."""

import random
import threading
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path

from monitor.demo.processes import wait_until
from tests.e2e.loop import Loop, running_loop
from tests.e2e.quick_signer import QuickSigner
from tests.support.waiting import PATIENCE

KILLS = 20
SEED = 20261120


def sign_until(stop: threading.Event, signer: QuickSigner, signed: list[int]) -> None:
    while not stop.is_set() and len(signed) < 2000:
        signed.append(signer.sign(sha256(b"artifact %d" % len(signed)).digest()))
        stop.wait(0.05)


def kill_at_random_moments(loop: Loop) -> None:
    moments = random.Random(SEED)
    for _ in range(KILLS):
        loop.start_monitor(ready=False)
        # Start-up takes part of this: kills land in imports, in the first pass, between passes and in commits alike.
        time.sleep(moments.uniform(0.3, 4.0))
        loop.kill_monitor()


def test_twenty_sigkills_during_signings_lose_no_finding_and_repeat_none(tmp_path: Path) -> None:
    with running_loop(tmp_path) as loop:
        signer = QuickSigner.certified(loop, loop.github_token("refs/heads/evil"))
        stop, signed = threading.Event(), list[int]()
        signing = threading.Thread(target=sign_until, args=(stop, signer, signed))
        signing.start()
        try:
            kill_at_random_moments(loop)
        finally:
            stop.set()
            signing.join(PATIENCE)
        loop.start_monitor(ready=False)
        wanted = set(signed)
        wait_until("every alert", lambda: wanted <= {alert["index"] for alert in loop.alerts()}, seconds=PATIENCE)

        delivered = Counter((alert["id"], alert["index"]) for alert in loop.alerts())
        assert {index for _, index in delivered} == wanted, "every signing was found, and nothing else"
        assert len(delivered) == len(wanted), "one finding an entry: a repeated delivery carries the same id"
        assert len(wanted) > KILLS, "the run must have signed enough to mean something"

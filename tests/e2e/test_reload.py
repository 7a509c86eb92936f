"""Rules change under a running daemon while signings stream in: none is lost or counts twice, gaps show and close."""

import signal
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from monitor.demo.processes import wait_until
from monitor.store.database import open_database
from monitor.store.reading import Reading
from tests.e2e.loop import Loop, running_loop
from tests.e2e.quick_signer import QuickSigner
from tests.support.waiting import PATIENCE

LATE = """\
  - id: late
    select: {identity: {glob: "https://github.com/acme/widget/**"}}
    severity: warn
"""
_MOST = 600


def sign_until(stop: threading.Event, signer: QuickSigner, signed: list[int]) -> None:
    while not stop.is_set() and len(signed) < _MOST:
        signed.append(signer.sign(sha256(b"artifact %d" % len(signed)).digest()))
        stop.wait(0.1)


def log_of(loop: Loop) -> dict[str, Any]:
    [found] = [log for log in loop.status()["logs"] if log["name"] == "rekor-v2"]
    return dict(found)


def wait_for(loop: Loop, what: str, reached: Callable[[dict[str, Any]], bool]) -> None:
    """Wait for the log's status to be so; a daemon that is still starting does not answer yet."""

    def is_so() -> bool:
        loop.children.check_alive()
        try:
            return reached(log_of(loop))
        except (httpx.HTTPError, ValueError):
            return False

    wait_until(what, is_so, seconds=PATIENCE)


def hang_up(loop: Loop) -> None:
    loop.children.running["signwatch"].send_signal(signal.SIGHUP)


def change_rules(loop: Loop, rules: str) -> None:
    """First something broken, then a part that is whole rules but not all of them, then the rest."""
    path = loop.folder / "rules.yaml"
    path.write_text("version: 1\nrules: nonsense\n")
    hang_up(loop)
    wait_until("the broken file to be told", lambda: "rules.yaml" in str(loop.status()["reasons"]), seconds=PATIENCE)
    with path.open("w") as file:
        file.write(rules[: rules.index("  - id: alice")])
        file.flush()
        hang_up(loop)
        file.write(rules[rules.index("  - id: alice") :])


def findings_of(loop: Loop) -> dict[str, list[int]]:
    database = open_database(str(loop.folder / "signwatch.db"))
    try:
        found = [each for each in Reading(database).findings(10 * _MOST) if each.log == "rekor-v2"]
        told = [each.alert for each in Reading(database).alerts(10 * _MOST) if each.alert.log == "rekor-v2"]
    finally:
        database.close()
    assert len({(alert.index, alert.rule) for alert in told}) == len(told), "one alert for one finding"
    return {rule: sorted(each.index for each in found if each.rule == rule) for rule in {each.rule for each in found}}


def test_rules_change_while_signings_stream_in_and_a_kill_comes_in_the_middle(tmp_path: Path) -> None:
    with running_loop(tmp_path) as loop:
        config = loop.folder / "signwatch.yaml"
        config.write_text(config.read_text() + "backscan: {entries_per_second: 8}\n")
        first = (loop.folder / "rules.yaml").read_text()
        signer = QuickSigner.certified(loop, loop.github_token("refs/heads/evil"))
        stop, signed = threading.Event(), list[int]()
        signing = threading.Thread(target=sign_until, args=(stop, signer, signed))
        signing.start()
        try:
            loop.start_monitor(ready=False)
            wait_for(loop, "entries to be followed", lambda log: log["verified_size"] >= 50)
            change_rules(loop, first + LATE)
            wait_for(loop, "entries judged by the new rule", is_judged_by_the_new_rule)
            coverage = log_of(loop)["coverage"]
            [late] = coverage["least_covered"]
            [[began, _]] = late["covered"]
            lacks = began - coverage["from"]
            assert (late["rule"], late["entries_not_covered"]) == ("late", lacks), "exactly what came before it"
            assert coverage["rules_not_covered"] == 1
            assert log_of(loop)["back_scan"] is None, "no rule asked for more"

            (loop.folder / "rules.yaml").write_text(first + LATE + "    backscan: all\n")
            # On a machine that paused for long, it may have ended before it was seen.
            wait_for(loop, "looking back", lambda log: log["back_scan"] is not None or is_covered(log))
            loop.kill_monitor()
            loop.start_monitor(ready=False)
            wait_for(loop, "the gap to close", is_covered)
        finally:
            stop.set()
            signing.join(PATIENCE)
        wait_for(loop, "the last entry", lambda log: log["verified_size"] > max(signed))
        loop.stop("signwatch")
        assert findings_of(loop) == {"widget-release": sorted(signed), "late": sorted(signed)}


def is_judged_by_the_new_rule(log: dict[str, Any]) -> bool:
    coverage = log["coverage"]
    return coverage["rules"] == 3 and all(each["covered"] for each in coverage["least_covered"])


def is_covered(log: dict[str, Any]) -> bool:
    return log["coverage"]["rules_not_covered"] == 0 and log["back_scan"] is None

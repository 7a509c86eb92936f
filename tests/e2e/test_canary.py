"""The canary signs with sign-lite at ca-lite into log-lite, and its own alert comes back; or a person is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from monitor.demo.processes import program, wait_until
from tests.e2e.loop import Loop, running_loop
from tests.support.waiting import PATIENCE

PATIENT, IMPATIENT = "5m", "1s"
EMAIL = "canary@example.com"


def configure(loop: Loop, within: str) -> None:
    """Sign whenever there is a moment; tell `second.jsonl` when no alert comes within this time."""
    config = loop.folder / "signwatch.yaml"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("canary:")]
    token = [program("ca-lite"), "token", "--dir", "ca", "--email", EMAIL]
    settings = {
        "log": "rekor-v2",
        "identity": EMAIL,
        "issuer": f"{loop.ca_url}/oidc",
        "trust_config": "ca/trust/client_trust_config.json",
        "rekor_version": 2,
        "token_command": token,
        "every": "1s",
        "within": within,
        "notify": ["second"],
    }
    text = "\n".join(lines).replace(
        "channels:\n  file", "channels:\n  second: {type: jsonl, path: second.jsonl}\n  file"
    )
    config.write_text(f"{text}\ncanary: {json.dumps(settings)}\n")


def canary(loop: Loop) -> dict[str, Any]:
    found: dict[str, Any] = loop.status()["canary"]
    return found


def told(loop: Loop) -> list[tuple[str, str]]:
    path = loop.folder / "second.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(each["kind"], each["owner"]) for each in map(json.loads, lines)]


def wait_for_told(loop: Loop, kind: str, before: int) -> str:
    """Wait for an alert of a kind after the first `before` ones; return its owner."""
    wait_until(f"the alert {kind}", lambda: any(each[0] == kind for each in told(loop)[before:]), seconds=PATIENCE)
    return next(owner for found, owner in told(loop)[before:] if found == kind)


def seen(loop: Loop) -> int:
    last = canary(loop)["last_seen"]
    return 0 if last is None else int(last["number"])


def test_the_whole_loop(tmp_path: Path) -> None:
    with running_loop(tmp_path) as loop:
        configure(loop, PATIENT)
        loop.start_monitor(ready=False)
        loop.wait_for(f"{loop.web_url}/healthz")
        wait_until("two canaries that were seen", lambda: seen(loop) >= 2, seconds=PATIENCE)
        # An entry may be seen before the program that signed it has ended.
        wait_until(
            "how long it took", lambda: canary(loop)["last_seen"]["latency_seconds"] is not None, seconds=PATIENCE
        )
        assert loop.alerts() == [], "it makes no noise"
        assert told(loop) == []
        assert loop.status()["findings"]["events_by_outcome"].get("expected", 0) == 0
        assert "canary: last seen at " in loop.run("signwatch", "status", "--config", "signwatch.yaml", expect=0)

        # The certificate authority is away: nothing can be signed, and that is said.
        before = len(told(loop))
        loop.stop("ca-lite")
        assert wait_for_told(loop, "canary-not-signed", before) == "could-not-ask"
        loop.children.start("ca-lite", [program("ca-lite"), "serve", "--dir", "ca"])
        number = seen(loop)
        wait_until("a canary after the outage", lambda: seen(loop) > number, seconds=PATIENCE)
        # The run is ended first, its alert after that.
        wait_until("the end of the alert", lambda: states(loop) == ["resolved"], seconds=PATIENCE)

        # The log takes what is signed and shows no head: no alert can come, and the second channel hears of it.
        loop.kill_monitor()
        configure(loop, IMPATIENT)
        loop.run("log-lite", "fault", "--dir", "log", "error-500", "--on", "head")
        before = len(told(loop))
        loop.start_monitor(ready=False)
        assert wait_for_told(loop, "canary-missed", before) == "could-not-ask"
        loop.kill_monitor()
        loop.run("log-lite", "fault", "--dir", "log", "none")
        configure(loop, PATIENT)
        number = seen_in_state(loop)
        loop.start_monitor(ready=False)
        loop.wait_for(f"{loop.web_url}/healthz")
        wait_until("a canary after that", lambda: canary(loop)["newest"]["number"] > number, seconds=PATIENCE)
        wait_until("that it is seen", lambda: seen(loop) > number, seconds=PATIENCE)


def states(loop: Loop) -> list[str]:
    listed = json.loads(loop.run("signwatch", "alerts", "list", "--json", "--config", "signwatch.yaml"))
    return [each["state"] for each in listed["alerts"]]


def seen_in_state(loop: Loop) -> int:
    document = json.loads(loop.run("signwatch", "status", "--json", "--config", "signwatch.yaml", expect=3))
    return int(document["canary"]["newest"]["number"])


@pytest.mark.parametrize("name", ["trust_config", "token_command"])
def test_the_configuration_names_it(name: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    assert f"| `{name}` |" in text.partition("## `canary`")[2]

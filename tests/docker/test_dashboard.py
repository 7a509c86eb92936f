"""A real Prometheus scrapes the daemon: every query of the dashboard answers, and rules fire in their drills."""

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from monitor.demo.processes import program, wait_until
from tests.docker.test_prometheus import rules
from tests.docs.blocks import ROOT
from tests.docs.rules_page import page
from tests.support.log_server import free_port
from tests.support.served_log import ServedLog, served_log, signing_body
from tests.support.waiting import PATIENCE

_DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "signwatch.json").read_text(encoding="utf-8"))


def panels() -> list[dict[str, Any]]:
    return [panel for panel in _DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """Every query, with the variables as they are when all is chosen."""
    texts = (target["expr"] for panel in panels() for target in panel["targets"])
    return [text.replace("$log", ".*").replace("$job", ".*") for text in texts]


def sooner(expression: str) -> str:
    """The rule's expression with its waiting times shortened: what it looks at stays the same."""
    ranges = re.sub(r"\[\d+[mhd]\]", "[20s]", expression)
    return re.sub(r"> (900|3600|1800)\b", "> 3", re.sub(r"<= 900\b", "<= 3", ranges))


def drill_rules() -> dict[str, Any]:
    hurried = [{key: value for key, value in rule.items() if key != "for"} for rule in rules()]
    return {"groups": [{"name": "drill", "rules": [rule | {"expr": sooner(rule["expr"])} for rule in hurried]}]}


class Scraped:
    """A daemon on a served log, and the Prometheus that scrapes it."""

    def __init__(self, served: ServedLog, daemon: "subprocess.Popen[bytes]", url: str) -> None:
        self.served, self.daemon, self.url = served, daemon, url

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = httpx.get(
            f"{self.url}/api/v1/query", params={"query": expression}, timeout=PATIENCE, trust_env=False
        ).json()
        assert answer["status"] == "success", (expression, answer)
        return list(answer["data"]["result"])

    def firing(self) -> set[str]:
        try:
            found = httpx.get(f"{self.url}/api/v1/alerts", timeout=PATIENCE, trust_env=False).json()["data"]["alerts"]
        except (httpx.HTTPError, ValueError):  # it says in plain text that it is starting
            return set()
        return {each["labels"]["alertname"] for each in found if each["state"] == "firing"}

    def wait_for(self, *names: str) -> None:
        wait_until(f"{names} to fire", lambda: set(names) <= self.firing(), seconds=PATIENCE)


@contextmanager
def scraped(folder: Path) -> Iterator[Scraped]:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("prometheus is missing: install the Debian package (.ci/install-debian-packages)")
    (folder / "log").mkdir()
    with served_log(folder / "log") as served:
        web, listen = free_port(), free_port()
        served.write_files(web)
        subprocess.run(
            [program("signwatch"), "init", "--config", str(served.config)], check=True, capture_output=True, timeout=120
        )
        (folder / "rules.yml").write_text(yaml.safe_dump(drill_rules()))
        scrape = {"job_name": "signwatch", "static_configs": [{"targets": [f"127.0.0.1:{web}"]}]}
        times = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        document = {"global": times, "rule_files": ["rules.yml"], "scrape_configs": [scrape]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(document))
        command = [
            prometheus,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{listen}",
        ]
        watching = [program("signwatch"), "run", "--config", str(served.config)]
        with (folder / "out").open("wb") as out, subprocess.Popen(watching, stderr=out) as daemon:
            try:
                with subprocess.Popen(command, stderr=out) as server:
                    try:
                        made = Scraped(served, daemon, f"http://127.0.0.1:{listen}")
                        wait_until("the first scrape", lambda: is_scraped(made), seconds=PATIENCE)
                        yield made
                    finally:
                        server.kill()
            finally:
                daemon.kill()


def is_scraped(made: Scraped) -> bool:
    try:
        return bool(made.query("signwatch_last_success_timestamp_seconds > 0"))
    except (httpx.HTTPError, ValueError):  # it says in plain text that it is starting
        return False


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    with scraped(tmp_path_factory.mktemp("scraped")) as made:
        yield made


def test_every_query_of_the_dashboard_is_answered_with_series(running: Scraped) -> None:
    # A rate needs two scrapes.
    wait_until("two scrapes", lambda: bool(running.query("rate(process_cpu_seconds_total[1m])")), seconds=PATIENCE)
    for expression in queries():
        assert running.query(expression), expression
    assert running.query('process_resident_memory_bytes{job="signwatch"}')


def test_rules_are_silent_while_all_is_well_and_fire_in_their_drills(running: Scraped) -> None:
    """One after another on one daemon: a stranger signs, the log is away, the log forks, the daemon ends."""
    assert running.firing() == set(), "control"
    running.served.log.append(signing_body("refs/heads/evil"))
    running.wait_for("SignwatchUnexpectedSigning")
    running.served.down = True
    running.wait_for("SignwatchFetchFailing", "SignwatchNoSuccess")
    assert not {"SignwatchLogInconsistent", "SignwatchEvidenceOpen"} & running.firing(), "an outage is no lie"
    running.served.down = False
    running.served.log.rewrite_from(1)
    running.served.log.append(signing_body())
    running.wait_for("SignwatchLogInconsistent", "SignwatchEvidenceOpen", "SignwatchCheckpointRefused")
    running.daemon.send_signal(signal.SIGTERM)
    assert running.daemon.wait(PATIENCE) == 0
    running.wait_for("SignwatchDown")


def test_the_dashboard_has_what_grafana_needs() -> None:
    ids = [panel["id"] for panel in _DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert _DASHBOARD["uid"]
    assert _DASHBOARD["schemaVersion"] >= 36
    assert {each["name"] for each in _DASHBOARD["templating"]["list"]} == {"datasource", "job", "log"}
    taken: set[tuple[int, int]] = set()
    for panel in _DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    for panel in panels():
        assert panel["description"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_the_runbook_is_written_from_the_rules_and_each_rule_names_its_section() -> None:
    again = "after changing a rule, run: python -m tests.docs.rules_page > docs/alert-rules.md"
    assert (ROOT / "docs" / "alert-rules.md").read_text(encoding="utf-8") == page(), again
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"docs/alert-rules.md#{rule['alert'].lower()}"
        assert f"\n## {rule['alert']}\n" in page()

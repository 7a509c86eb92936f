"""The alert rules are loud when they should be, quiet when all is well, and say what to do."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitor.telemetry.hooks import NOTICES
from monitor.telemetry.prometheus import PrometheusMeter

_FOLDER = Path(__file__).parents[2] / "docker" / "prometheus"


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((_FOLDER / "signwatch.rules.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: install the Debian package prometheus (.ci/install-debian-packages)")
    done = subprocess.run([program, *arguments], cwd=_FOLDER, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_and_the_rules_are_valid() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "signwatch.rules.yml")


def test_every_rule_behaves_as_its_tests_say() -> None:
    promtool("test", "rules", "signwatch.rules.test.yml")


def test_every_rule_has_a_control_and_a_case_that_fires() -> None:
    cases = yaml.safe_load((_FOLDER / "signwatch.rules.test.yml").read_text())["tests"]
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    assert [case["name"] for case in cases] == [f"{name} {kind}" for name in names for kind in ("control", "fires")]
    for case in cases:
        samples = case["promql_expr_test"][0]["exp_samples"]
        assert bool(samples) is case["name"].endswith("fires")


def test_every_rule_says_whose_trouble_it_is_what_it_means_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["owner"] in {"log-misbehaved", "could-not-ask", "ourselves", "signing"}, rule["alert"]
        assert rule["labels"]["severity"] in {"page", "warn"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "consequence", "action", "runbook_url"}, rule["alert"]


def test_a_log_that_lied_pages_at_once() -> None:
    (rule,) = [rule for rule in rules() if rule["alert"] == "SignwatchLogInconsistent"]
    assert rule["labels"] == {"severity": "page", "owner": "log-misbehaved"}
    assert "for" not in rule


def exposed() -> str:
    meter = PrometheusMeter("1.0", ["mail", NOTICES])
    meter.add_log("rekor-v2")
    return meter.expose().decode()


def test_the_rules_use_only_metrics_and_label_values_the_monitor_exposes_from_the_start() -> None:
    text = exposed()
    for rule in rules():
        for name, matchers in re.findall(r"(signwatch_\w+)(\{[^}]*\})?", rule["expr"]):
            assert re.search(rf"^{name}[ {{]", text, re.MULTILINE), (rule["alert"], name)
            for label, value in re.findall(r'(\w+)!?="([^"]*)"', matchers):
                assert re.search(rf'^{name}{{.*{label}="{value}"', text, re.MULTILINE), (rule["alert"], label, value)


def test_the_labels_a_message_shows_are_on_its_series() -> None:
    text = exposed()
    for rule in rules():
        names = re.findall(r"signwatch_\w+", rule["expr"])
        for label in re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())):
            assert any(re.search(rf"^{name}{{.*{label}=", text, re.MULTILINE) for name in names), (rule["alert"], label)

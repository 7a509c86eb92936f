"""The GitHub action: its shell is run for real against a served log; the workflows are checked by actionlint."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitor.demo.processes import program
from tests.support.served_log import RULES, ServedLog, served_log, signing_body

_ROOT = Path(__file__).parents[2]
_SCRIPTS = _ROOT / "deploy" / "github"
# GitHub's own program, as far as the scripts use it: it keeps issues in a folder.
_GH = """\
#!/usr/bin/env python3
import json, pathlib, sys
words, place = sys.argv[1:], pathlib.Path(__file__).parent / "issues.json"
issues = json.loads(place.read_text()) if place.exists() else []
def value(name): return words[words.index(name) + 1]
if words[:2] == ["issue", "list"]:
    print(json.dumps([{"number": i + 1, "title": each["title"]} for i, each in enumerate(issues)]))
elif words[:2] == ["issue", "create"]:
    issues.append({"title": value("--title"), "bodies": [open(value("--body-file")).read()]})
elif words[:2] == ["issue", "comment"]:
    issues[int(words[2]) - 1]["bodies"].append(open(value("--body-file")).read())
elif words[:2] != ["label", "create"]:
    sys.exit(f"unknown: {words}")
place.write_text(json.dumps(issues))
"""


@dataclass
class Runner:
    """A runner of GitHub: one folder, in which the steps of one job run after another."""

    folder: Path
    served: ServedLog
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.folder / "repository" / ".github" / "signwatch"
        config.mkdir(parents=True)
        text = self.served.config.read_text().replace("database: signwatch.db", "database: ../signwatch.db")
        (config / "signwatch.yaml").write_text(text)
        (config / "rules.yaml").write_text(RULES)
        shutil.copy(self.served.folder / "trusted_root.json", config)
        bin_folder = self.folder / "bin"
        bin_folder.mkdir()
        (bin_folder / "gh").write_text(_GH)
        (bin_folder / "gh").chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{bin_folder}{os.pathsep}{Path(program('signwatch')).parent}{os.pathsep}{os.environ['PATH']}",
            "RUNNER_TEMP": str(self.folder),
            "CONFIG": ".github/signwatch",
            "STATE": str(self.folder / "signwatch-state"),
            "LABEL": "signwatch",
            "RUN_URL": "https://github.example/run/1",
        }

    @property
    def state(self) -> Path:
        return self.folder / "signwatch-state"

    def audit(self, *, first_run: bool = False) -> dict[str, str]:
        """Outputs of the step that audits."""
        output, summary = self.folder / "output", self.folder / "summary"
        output.write_text("")
        self._run(
            "audit.sh",
            FIRST_RUN=str(first_run).lower(),
            GITHUB_OUTPUT=str(output),
            GITHUB_STEP_SUMMARY=str(summary),
        )
        return dict(line.split("=", 1) for line in output.read_text().splitlines())

    def open_issue(self, outputs: dict[str, str]) -> None:
        self._run("issue.sh", CODE=outputs["exit-code"], REPORT=outputs["report"])

    def issues(self) -> list[dict[str, Any]]:
        path = self.folder / "bin" / "issues.json"
        return list(json.loads(path.read_text())) if path.exists() else []

    def _run(self, script: str, **variables: str) -> None:
        done = subprocess.run(
            ["bash", str(_SCRIPTS / script)],
            cwd=self.folder / "repository",
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    for needed in ("bash", "jq"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is missing")
    (tmp_path / "log").mkdir()
    with served_log(tmp_path / "log") as served:
        yield Runner(tmp_path, served)


def test_state_is_kept_from_run_to_run_and_an_unexpected_signing_opens_one_issue(runner: Runner) -> None:
    assert runner.audit(first_run=True) | {"report": ""} == {"exit-code": "0", "keep": "true", "report": ""}
    assert runner.audit()["exit-code"] == "0", "control: the state of the last run is found"
    runner.served.log.append(signing_body("refs/heads/evil"))
    found = runner.audit()
    assert (found["exit-code"], found["keep"]) == ("1", "true")
    runner.open_issue(found)
    runner.open_issue(found)
    (issue,) = runner.issues()
    assert issue["title"] == "Signwatch: a log misbehaved or something unexpected was signed"
    assert len(issue["bodies"]) == 2, "the second is a comment"
    details = [line for line in issue["bodies"][0].splitlines() if "rekor-v2" in line]
    assert details == ["    rekor-v2: 1 unexpected; no trouble: "]
    assert runner.audit()["exit-code"] == "0", "told once"


def test_lost_state_fails_closed_and_is_told(runner: Runner) -> None:
    assert runner.audit() | {"report": ""} == {"exit-code": "3", "keep": "false", "report": ""}
    runner.audit(first_run=True)
    shutil.rmtree(runner.state)
    lost = runner.audit()
    assert (lost["exit-code"], lost["keep"]) == ("3", "false")
    assert not (runner.state / "signwatch.db").exists(), "nothing was begun"
    runner.open_issue(lost)
    assert "the state of the last run is lost" in runner.issues()[0]["bodies"][0]


def test_a_state_that_was_cut_short_fails_closed(runner: Runner) -> None:
    runner.audit(first_run=True)
    database = runner.state / "signwatch.db"
    database.write_bytes(database.read_bytes()[:4096])
    for beside in runner.state.glob("signwatch.db-*"):
        beside.unlink()
    assert runner.audit()["exit-code"] == "3"


def test_a_first_run_over_a_state_is_misuse(runner: Runner) -> None:
    runner.audit(first_run=True)
    assert runner.audit(first_run=True) | {"report": ""} == {"exit-code": "2", "keep": "false", "report": ""}


def test_an_outage_is_told_and_forgets_nothing(runner: Runner) -> None:
    runner.audit(first_run=True)
    runner.served.down = True
    found = runner.audit()
    assert (found["exit-code"], found["keep"]) == ("3", "true")
    runner.served.down = False
    runner.served.log.append(signing_body("refs/heads/evil"))
    assert runner.audit()["exit-code"] == "1"


def test_a_database_that_is_not_kept_is_misuse(runner: Runner) -> None:
    path = runner.folder / "repository" / ".github" / "signwatch" / "signwatch.yaml"
    path.write_text(path.read_text().replace("../signwatch.db", "signwatch.db"))
    assert runner.audit(first_run=True)["exit-code"] == "2"


def test_markdown_of_a_log_stays_text(runner: Runner) -> None:
    report = runner.folder / "hostile.json"
    evil = "```\n# Title\r\n@everyone [x](https://evil.example) <img src=x>"
    report.write_text(json.dumps({"verdict": evil, "logs": [{"log": "a", "trouble": "x", "detail": evil}]}))
    runner.open_issue({"exit-code": "3", "report": str(report)})
    lines = runner.issues()[0]["bodies"][0].splitlines()
    assert any("evil.example" in line for line in lines)
    assert [line for line in lines if "evil.example" in line or "Title" in line or "```" in line] == [
        line for line in lines if line.startswith("    ")
    ]


def steps() -> list[dict[str, Any]]:
    return list(yaml.safe_load((_ROOT / "action.yml").read_text())["runs"]["steps"])


def test_the_state_is_saved_only_after_the_issue_was_opened() -> None:
    names = [step["name"] for step in steps()]
    order = [next(i for i, name in enumerate(names) if word in name) for word in ("Restore", "Audit", "issue", "Keep")]
    assert order == sorted(order)
    assert not any("always()" in str(step.get("if", "")) or step.get("continue-on-error") for step in steps())
    assert names[-1] == "End with the audit's exit code"


def test_no_input_is_put_into_a_shell_text() -> None:
    """`${{ … }}` in `run:` is replaced before the shell reads it: text of others would be run."""
    for step in steps():
        assert "${{" not in step.get("run", ""), step["name"]


def actionlint(*arguments: str, cwd: Path) -> str:
    built = sorted((_ROOT / ".go-clients").glob("*/actionlint"))
    found = shutil.which("actionlint") or (str(built[-1]) if built else None)
    if found is None:
        pytest.skip("actionlint is not built: run .ci/install-go-clients")
    done = subprocess.run([found, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def test_actionlint_accepts_the_workflows(tmp_path: Path) -> None:
    workflows = sorted(str(each) for each in (_ROOT / ".github" / "workflows").glob("*.yml"))
    assert workflows
    assert actionlint(*workflows, cwd=_ROOT) == ""
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("on: push\njobs: {a: {runs-on: ubuntu-latest, steps: [{run: 'echo ${{ nothing.x }}'}]}}\n")
    assert "nothing" in actionlint(str(wrong), cwd=tmp_path), "control"


def test_actionlint_accepts_the_action_and_a_workflow_that_uses_it(tmp_path: Path) -> None:
    """Actionlint reads an action's inputs where a workflow of the same repository uses it."""
    (tmp_path / ".git").mkdir()
    shutil.copy(_ROOT / "action.yml", tmp_path)
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    use = "on: push\njobs: {a: {runs-on: ubuntu-latest, steps: [{uses: ./, with: {%s: 'true'}}]}}\n"
    (folder / "use.yml").write_text(use % "first-run")
    assert actionlint(str(folder / "use.yml"), cwd=tmp_path) == ""
    (folder / "use.yml").write_text(use % "frist-run")
    assert "frist-run" in actionlint(str(folder / "use.yml"), cwd=tmp_path), "control"


def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    found = shutil.which("shellcheck")
    if found is None:
        pytest.skip("shellcheck is missing: install the Debian package (.ci/install-debian-packages)")
    scripts = sorted(map(str, [*_SCRIPTS.glob("*.sh"), *(_ROOT / ".ci").iterdir()]))
    for number, step in enumerate(steps()):
        if "run" in step:
            path = tmp_path / f"{number}.sh"
            path.write_text("#!/usr/bin/env bash\n" + step["run"])
            scripts.append(str(path))
    done = subprocess.run([found, "--shell=bash", *scripts], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""

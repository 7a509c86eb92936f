"""A release is signed by its workflow and nothing else in it may sign; the documentation's rule tells of any other."""

import os
import re
import subprocess
import sysconfig
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from rules.judge import NOT_SELECTED, judge
from rules.learning import NO_FACTS
from rules.rule import Outcome
from rules.rule_file import load_rules
from sigstore_entries.signing import ChainTrust, Digest, EntryRef, Name, NameForm, Signer, SignerForm, Signing
from tests.docs.blocks import ROOT, blocks

REPOSITORY = "https://github.com/OWNER/signwatch"
NOW = datetime.fromisoformat("2026-11-28T12:00:00Z")


def workflow() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    return loaded


def test_one_job_may_sign_and_it_runs_nothing_that_was_not_locked() -> None:
    document = workflow()
    assert document["permissions"] == {}
    jobs = document["jobs"]
    may_sign = [name for name, job in jobs.items() if "id-token" in job["permissions"]]
    assert may_sign == ["sign"]
    assert "contents" in jobs["publish"]["permissions"]
    assert [name for name, job in jobs.items() if job["permissions"].get("contents") == "write"] == ["publish"]
    text = yaml.safe_dump(jobs["sign"])
    for install in re.findall(r"pip\" install[^\n]*", text):
        assert "--require-hashes" in install or "--no-index" in install, install
    assert "sign-lite" in text
    assert "sigstore verify identity" in text, "it is verified before it is published"
    assert jobs["publish"]["needs"] == "sign"


def test_no_text_of_a_run_is_taken_from_the_event() -> None:
    """A tag's name is an attacker's text for the shell: it comes in as a variable."""
    for job in workflow()["jobs"].values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")


def signed(workflow_file: str, ref: str, trigger: str = "push") -> Signing:
    uri = f"{REPOSITORY}/{workflow_file}@{ref}"
    issuer = "https://token.actions.githubusercontent.com"
    claims = {
        "issuer": issuer,
        "source_repository_uri": REPOSITORY,
        "source_repository_ref": ref,
        "source_repository_identifier": "17",
        "build_signer_uri": uri,
        "build_config_uri": uri,
        "build_trigger": trigger,
        "runner_environment": "github-hosted",
    }
    signer = Signer(
        SignerForm.CERTIFICATE, (Name(NameForm.URI, uri),), issuer, claims, trust=ChainTrust.TRUSTED, issued=b"c"
    )
    return Signing(EntryRef("v2", 1), "hashedrekord", "0.0.2", (signer,), (Digest("sha256", "00" * 32),))


@pytest.mark.parametrize(
    ("signing", "reasons"),
    [
        (signed(".github/workflows/release.yml", "refs/tags/v0.1.0"), set()),
        (signed(".github/workflows/audit.yml", "refs/tags/v0.1.0"), {"workflow"}),
        (signed(".github/workflows/release.yml", "refs/heads/main"), {"ref"}),
        (signed(".github/workflows/release.yml", "refs/tags/v0.1.0", "workflow_dispatch"), {"trigger"}),
    ],
)
def test_the_rule_in_the_documentation_expects_the_release_workflow_alone(signing: Signing, reasons: set[str]) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "releases.md").read_text(), re.DOTALL)
    (rule,) = load_rules(text, "docs/releases.md").rules
    verdict = judge(rule, signing, NO_FACTS, NOW)
    told = {each.id for each in verdict.reasons} - {"repository-identifier-changed"}
    assert told == reasons
    if reasons:
        assert verdict.outcome is Outcome.UNEXPECTED


def test_the_first_example_of_the_readme_watches_these_releases_and_then_the_readers_project(tmp_path: Path) -> None:
    (example,) = (each for each in blocks(ROOT / "README.md") if each.says == "write")
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HOME": str(tmp_path)}
    subprocess.run(
        ["bash", "-e", "-c", example.text], cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=120
    )
    releases, own = load_rules((tmp_path / "rules.yaml").read_text(), "rules.yaml").rules
    assert "acme/widget" in own.title
    release = signed(".github/workflows/release.yml", "refs/tags/v0.1.0")
    branch = signed(".github/workflows/release.yml", "refs/heads/main")
    assert judge(releases, branch, NO_FACTS, NOW).outcome is Outcome.UNEXPECTED
    told = {each.id for each in judge(releases, release, NO_FACTS, NOW).reasons} - {"repository-identifier-changed"}
    assert told == set()
    assert judge(own, branch, NO_FACTS, NOW).reasons == (NOT_SELECTED,), "control"

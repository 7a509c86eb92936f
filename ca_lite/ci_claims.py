"""Claims shaped like a GitHub Actions token's, for `ca-lite token --github`."""

import hashlib
import re
from pathlib import PurePosixPath
from typing import Any, Final

from msgspec import Struct

from ca_lite.errors import ConfigError

_REPOSITORY: Final = re.compile(r"[A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100}")
_SHA: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class GithubRun(Struct, frozen=True):
    """A workflow run: the other claims follow from these."""

    repository: str
    ref: str
    workflow: str  # path of the workflow file
    event: str
    sha: str = ""
    workflow_name: str = ""
    job_workflow_ref: str = ""  # a reusable workflow: OWNER/REPO/PATH@REF
    runner_environment: str = "github-hosted"
    visibility: str = "public"
    environment: str = ""
    run_id: int = 1
    run_attempt: int = 1


def github_claims(issuer: str, run: GithubRun) -> dict[str, Any]:
    """Claims of a run, named as GitHub names them. Raises `ConfigError` for input no real token could hold.

    Ids and the commit are derived from the names, so the same run always gives the same certificate content.
    """
    if not _REPOSITORY.fullmatch(run.repository):
        raise ConfigError(f"--github {run.repository!r} is not OWNER/REPO")
    if not run.ref.startswith("refs/"):
        raise ConfigError(f"--ref {run.ref!r} is not a full ref, e.g. refs/heads/main or refs/tags/v1.0")
    sha = run.sha or hashlib.sha1(f"{run.repository} {run.ref}".encode()).hexdigest()  # noqa: S324  looks like a commit
    if not _SHA.fullmatch(sha):
        raise ConfigError(f"--sha {sha!r} is not a commit id")
    owner = run.repository.partition("/")[0]
    workflow_ref = f"{run.repository}/{run.workflow}@{run.ref}"
    place = f"environment:{run.environment}" if run.environment else f"ref:{run.ref}"
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": f"repo:{run.repository}:{place}",
        "actor": owner,
        "actor_id": _stable_id(owner),
        "event_name": run.event,
        "job_workflow_ref": run.job_workflow_ref or workflow_ref,
        "job_workflow_sha": sha,
        "ref": run.ref,
        "ref_type": "tag" if run.ref.startswith("refs/tags/") else "branch",
        "repository": run.repository,
        "repository_id": _stable_id(run.repository),
        "repository_owner": owner,
        "repository_owner_id": _stable_id(owner),
        "repository_visibility": run.visibility,
        "run_attempt": str(run.run_attempt),
        "run_id": str(run.run_id),
        "run_number": str(run.run_id),
        "runner_environment": run.runner_environment,
        "sha": sha,
        "workflow": run.workflow_name or PurePosixPath(run.workflow).stem,
        "workflow_ref": workflow_ref,
        "workflow_sha": sha,
    }
    return {**claims, **({"environment": run.environment} if run.environment else {})}


def _stable_id(name: str) -> str:
    """A number in the form of GitHub's ids, the same for the same name."""
    return str(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))

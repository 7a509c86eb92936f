"""`ca-lite token`: identity tokens from the CA's own issuers."""

import json
import secrets
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ca_lite.ci_claims import GithubRun, github_claims
from ca_lite.commands.shared import Directory, reported
from ca_lite.errors import ConfigError
from ca_lite.keys import now, read_limited
from ca_lite.oidc_keys import OwnKeys, completed, email_claims
from ca_lite.settings import CLIENT_ID, Layout, load_settings, own_issuers


@reported
def token(
    *,
    directory: Directory,
    email: Annotated[str | None, typer.Option(help="Identity of a person: a verified e-mail address.")] = None,
    sub: Annotated[str | None, typer.Option(help="Identity of a machine: a URI below the CA's host.")] = None,
    github: Annotated[str | None, typer.Option(help="A GitHub-shaped run of OWNER/REPO.", metavar="OWNER/REPO")] = None,
    ref: Annotated[str, typer.Option(help="Ref of the run.")] = "refs/heads/main",
    workflow: Annotated[str, typer.Option(help="Workflow file of the run.")] = ".github/workflows/release.yml",
    event: Annotated[str, typer.Option(help="Event of the run.")] = "push",
    sha: Annotated[str, typer.Option(help="Commit of the run; derived when left out.")] = "",
    workflow_name: Annotated[str, typer.Option(help="Name of the workflow.")] = "",
    job_workflow_ref: Annotated[str, typer.Option(help="Reusable workflow that runs: OWNER/REPO/PATH@REF.")] = "",
    runner_environment: Annotated[str, typer.Option(help="github-hosted or self-hosted.")] = "github-hosted",
    visibility: Annotated[str, typer.Option(help="Visibility of the repository.")] = "public",
    environment: Annotated[str, typer.Option(help="Deployment environment of the run.")] = "",
    run_id: Annotated[int, typer.Option(help="Number of the run.")] = 1,
    run_attempt: Annotated[int, typer.Option(help="Attempt of the run.")] = 1,
    claims: Annotated[Path | None, typer.Option(help="JSON file of claims, - for stdin.", metavar="FILE")] = None,
    audience: Annotated[str, typer.Option(help="Audience of the token.")] = CLIENT_ID,
) -> None:
    """Print an identity token, valid for ten minutes. Any person who can read the directory's keys can do this.

    Example: ca-lite token --dir ca --github acme/widget --ref refs/tags/v1.0 --event push
    """
    layout = Layout(directory)
    own = own_issuers(load_settings(layout).url)
    given = [each for each in (email, sub, github, claims) if each is not None]
    if len(given) != 1:
        raise ConfigError("give exactly one of --email, --sub, --github and --claims")
    if email is not None:
        content = email_claims(own["email"], email)
    elif sub is not None:
        content = {"iss": own["uri"], "sub": sub}
    elif github is not None:
        run = GithubRun(
            repository=github,
            ref=ref,
            workflow=workflow,
            event=event,
            sha=sha,
            workflow_name=workflow_name,
            job_workflow_ref=job_workflow_ref,
            runner_environment=runner_environment,
            visibility=visibility,
            environment=environment,
            run_id=run_id,
            run_attempt=run_attempt,
        )
        content = github_claims(own["github"], run)
    else:
        content = {"iss": own["email"], **_claims_file(claims)}
    print(mint(layout, content, audience, now()))  # noqa: T201


def mint(layout: Layout, claims: dict[str, Any], audience: str, at: datetime) -> str:
    """Signed token with these claims."""
    full = completed(claims, audience=audience, token_id=secrets.token_urlsafe(12), now=at)
    return OwnKeys(layout.oidc).current().sign(full)


def _claims_file(path: Path | None) -> dict[str, Any]:
    raw = sys.stdin.read(1 << 20).encode() if str(path) == "-" else read_limited(path or Path())
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: not a JSON object of claims")
    return value

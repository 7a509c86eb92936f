"""The `ca-lite` command. Exit codes: 0 fine, 1 a token is refused, 2 wrong usage or configuration, 3 outage."""

import json
import os
import secrets
import sys
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from ca_lite.app import listen, serve
from ca_lite.ci_claims import GithubRun, github_claims
from ca_lite.errors import ConfigError, Outage, Refused
from ca_lite.explain import explain_token
from ca_lite.issuer_config import load_issuers
from ca_lite.journal import Issuance, Journal
from ca_lite.keys import now, read_limited
from ca_lite.logging_setup import configure
from ca_lite.oidc_keys import OwnKeys, completed, email_claims, rotate_oidc_keys
from ca_lite.self_check import self_check
from ca_lite.service import Keys, Service
from ca_lite.settings import Layout, load_settings, own_issuers
from ca_lite.setup import CLIENT_ID, initialise, write_trust

_P = ParamSpec("_P")
_R = TypeVar("_R")
_PASSPHRASE_VARIABLE: Final = "CA_LITE_PASSPHRASE_FILE"  # noqa: S105  a name

app = typer.Typer(
    help="A Fulcio-compatible certificate authority with its own OIDC issuer and timestamp authority.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
_errors = Console(stderr=True, soft_wrap=True, highlight=False)

Directory = Annotated[Path, typer.Option("--dir", help="Directory of the CA.", metavar="DIR")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="File with the passphrase of the private keys.", envvar=_PASSPHRASE_VARIABLE, metavar="FILE"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _reported(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Turn our errors into one line and an exit code."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except ConfigError as error:
            _errors.print(f"ca-lite: {error}", style="red", markup=False)
            raise typer.Exit(2) from error
        except (Outage, OSError) as error:
            _errors.print(f"ca-lite: {error}", style="red", markup=False)
            raise typer.Exit(3) from error

    return run


@app.command()
@_reported
def init(
    *,
    directory: Directory,
    log_trust: Annotated[Path, typer.Option(help="Output of `log-lite export-trust`.", metavar="FILE")],
    url: Annotated[
        str, typer.Option(help="Where clients reach this CA: scheme, host and port.")
    ] = "http://localhost:8080",
    organization: Annotated[str, typer.Option(help="Name in the CA's certificates.")] = "ca-lite",
    key: Annotated[str, typer.Option(help="Kind of the CA's keys: p256, p384 or rsa2048.")] = "p384",
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make keys, certificate chains, configuration and trust files.

    Example: log-lite export-trust --dir log > log.json && ca-lite init --dir ca --log-trust log.json
    """
    layout = initialise(
        directory,
        url,
        log_trust,
        now(),
        organization=organization,
        key_kind=key,
        passphrase=_passphrase(passphrase_file),
    )
    _errors.print(f"Made a CA for {url} in {directory}. Next:", markup=False)
    for line in (
        f"  log-lite serve --dir LOG --ct-roots {layout.trust / 'ca-chain.pem'}",
        f"  ca-lite serve --dir {directory}",
        f"  ca-lite token --dir {directory} --email you@example.com > token",
        f"  sigstore --trust-config {layout.trust}/client_trust_config.json sign --identity-token $(cat token) FILE",
    ):
        _errors.print(line, markup=False)


@app.command("serve")
@_reported
def serve_command(directory: Directory, passphrase_file: PassphraseFile = None) -> None:
    """Serve certificates, tokens, timestamps and trust files. Prints one line when ready.

    Example: ca-lite serve --dir ca
    """
    configure()
    service = Service(Layout(directory), _passphrase(passphrase_file))
    try:
        for warning in self_check(service, now()):
            _errors.print(f"ca-lite: warning: {warning}", style="yellow", markup=False)
        serve(service, listen(service.settings), f"ca-lite ready at {service.settings.url} (pid {os.getpid()})")
    finally:
        service.journal.close()


@app.command()
@_reported
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
    """Print an identity token, valid for ten minutes. Anyone who can read the directory's keys can do this.

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


@app.command("explain-token")
@_reported
def explain_command(
    directory: Directory,
    token_file: Annotated[Path, typer.Argument(help="File with the token, - for stdin.", metavar="TOKEN_FILE")],
    as_json: AsJson = False,
) -> None:
    """Say what this CA makes of a token: what is wrong with it, or the certificate it would become.

    Example: ca-lite token --dir ca --email you@example.com | ca-lite explain-token --dir ca -
    """
    layout = Layout(directory)
    settings = load_settings(layout)
    text = sys.stdin.read(1 << 20) if str(token_file) == "-" else read_limited(token_file).decode("ascii", "replace")
    issuers = load_issuers(read_limited(layout.issuers).decode(), str(layout.issuers))
    source = Keys(OwnKeys(layout.oidc), frozenset(own_issuers(settings.url).values()))
    try:
        explained = explain_token(text.strip(), issuers, source, now())
    except Refused as error:
        if as_json:
            print(json.dumps(error.body(), indent=2))  # noqa: T201
        else:
            print(f"refused: {error.reason}: {error.detail or error.message}")  # noqa: T201
        raise typer.Exit(1) from error
    _print_pairs(explained, as_json=as_json)


@app.command()
@_reported
def trust(
    directory: Directory,
    log_trust: Annotated[
        Path | None, typer.Option(help="New output of `log-lite export-trust`, after a rotation.", metavar="FILE")
    ] = None,
) -> None:
    """Write the trust files again; a running server takes the change up.

    Example: log-lite export-trust --dir log > log.json && ca-lite trust --dir ca --log-trust log.json
    """
    layout = Layout(directory)
    write_trust(layout, load_settings(layout), now(), log_trust)
    _errors.print(f"Wrote {layout.trust} and the TUF repository.", markup=False)


@app.command("rotate-oidc")
@_reported
def rotate_oidc(directory: Directory) -> None:
    """Make a new token-signing key; tokens signed with the last two stay valid until they expire."""
    layout = Layout(directory)
    load_settings(layout)
    print(rotate_oidc_keys(layout.oidc))  # noqa: T201


@app.command()
@_reported
def lint(
    issuers_file: Annotated[Path, typer.Argument(help="Issuer configuration in Fulcio's format.", metavar="FILE")],
) -> None:
    """Check an issuer configuration.

    Example: ca-lite lint ca/issuers.yaml
    """
    issuers = load_issuers(read_limited(issuers_file).decode("utf-8", "replace"), str(issuers_file))
    for warning in issuers.warnings:
        _errors.print(f"warning: {warning}", style="yellow", markup=False)
    print(f"{len(issuers.all())} issuers, {len(issuers.warnings)} warnings")  # noqa: T201


@app.command()
@_reported
def issued(
    *,
    directory: Directory,
    name: Annotated[str | None, typer.Option(help="Only this subject alternative name.")] = None,
    issuer: Annotated[str | None, typer.Option(help="Only this OIDC issuer.")] = None,
    serial: Annotated[str | None, typer.Option(help="Only this serial number, in hex.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many, newest first.", min=1, max=100_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List certificates from the issuance journal.

    Example: ca-lite issued --dir ca --name you@example.com --json
    """
    layout = Layout(directory)
    # Where there is no CA at all, a missing journal is not what is wrong.
    load_settings(layout)
    journal = Journal.open(layout.journal)
    try:
        rows = journal.search(name=name, issuer=issuer, serial=serial.lower() if serial else None, limit=limit)
    finally:
        journal.close()
    if as_json:
        print(json.dumps([_row_json(row) for row in rows], indent=2))  # noqa: T201
        return
    table = Table("serial", "not before", "state", "name", "issuer")
    for row in rows:
        table.add_row(row.serial, f"{row.not_before:%Y-%m-%dT%H:%M:%SZ}", row.state, row.name, row.issuer)
    if sys.stdout.isatty():
        Console(markup=False).print(table)
    else:
        for row in rows:
            print(row.serial, f"{row.not_before:%Y-%m-%dT%H:%M:%SZ}", row.state, row.name, row.issuer, sep="\t")  # noqa: T201


def _row_json(row: Issuance) -> dict[str, Any]:
    fields = row.model_dump(mode="json", exclude={"certificate", "id"})
    return {**fields, "certificate": row.certificate.hex() if row.certificate else None}


def _print_pairs(pairs: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(pairs, indent=2))  # noqa: T201
        return
    for key, value in pairs.items():
        if isinstance(value, dict):
            for name, text in value.items():
                print(f"{key}.{name}: {text}")  # noqa: T201
        else:
            print(f"{key}: {value}")  # noqa: T201


def _claims_file(path: Path | None) -> dict[str, Any]:
    raw = sys.stdin.read(1 << 20).encode() if str(path) == "-" else read_limited(path or Path())
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: not a JSON object of claims")
    return value


def _passphrase(path: Path | None) -> bytes | None:
    return read_limited(path).rstrip(b"\r\n") if path is not None else None


def main() -> None:
    """Run the command line."""
    app()

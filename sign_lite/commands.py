"""Commands of `sign-lite`."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, ParamSpec, TypeVar

import typer
from msgspec import Struct
from rich.console import Console
from rich.progress import track
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityToken

from sign_lite.errors import Misuse, SignLiteError, VerificationFailed
from sign_lite.files import (
    ATTESTATION_SUFFIX,
    bundles_named,
    check_writable,
    default_bundle,
    hash_file,
    hash_named,
    is_digest,
    read_small,
    write_bundle,
)
from sign_lite.keyed import load_key
from sign_lite.login import LoginKind, log_in
from sign_lite.private_key import KeyPair, read_key_pair
from sign_lite.signing import BundleSigner, build_statement, signer
from sign_lite.trust import (
    TOKEN_VARIABLE,
    Trust,
    is_repository,
    load_identity_token,
    load_trust,
    load_trust_config,
    over_tuf,
)
from sign_lite.verifying import WantedSigner, verify_file

_P = ParamSpec("_P")
_R = TypeVar("_R")

# cosign's name for the variable.
PASSWORD_VARIABLE: Final = "COSIGN_PASSWORD"  # noqa: S105  a name
_SHOWN: Final = 3
_errors = Console(stderr=True, soft_wrap=True, highlight=False)

Files = Annotated[list[Path], typer.Argument(help="Files.", metavar="FILE...")]
TrustConfig = Annotated[
    str,
    typer.Option(
        help="Client trust configuration of the deployment, URL of its TUF repository, public-good or staging.",
        metavar="JSON|URL",
    ),
]
Token = Annotated[str | None, typer.Option(help=f"Identity token; {TOKEN_VARIABLE} is taken when left out.")]
TokenFile = Annotated[Path | None, typer.Option(help="File with the identity token.", metavar="FILE")]
Login = Annotated[
    LoginKind | None,
    typer.Option(help="Sign in: browser here, code from a browser elsewhere, device for another machine's browser."),
]
SigningKey = Annotated[
    Path | None,
    typer.Option("--key", help="Private key in place of an identity: PKCS#8, or cosign's file.", metavar="PEM"),
]
RekorVersion = Annotated[
    int | None, typer.Option(help="Log API to enter the signature in; the newest when left out.", min=1, max=2)
]
BundleOption = Annotated[Path | None, typer.Option(help="Bundle file; beside the file when left out.", metavar="FILE")]
HeldBundles = Annotated[
    Path | None,
    typer.Option(
        help="Bundle file, a folder or a pattern of them, - for standard input; beside the file when left out.",
        metavar="FILE",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace bundles that exist.")]
PredicateFile = Annotated[Path, typer.Option(help="JSON object with the content of the predicate.", metavar="FILE")]
PredicateType = Annotated[str, typer.Option(help="URI that names the kind of predicate.", metavar="URI")]
TrustedRootFile = Annotated[
    Path | None, typer.Option(help="Trusted root of the deployment.", metavar="JSON", dir_okay=False)
]
TrustConfigFile = Annotated[
    str | None,
    typer.Option(
        help="Client trust configuration or URL of a TUF repository, in place of a trusted root.", metavar="JSON|URL"
    ),
]
Identity = Annotated[str | None, typer.Option(help="Name in the certificate that must have signed.")]
Issuer = Annotated[str | None, typer.Option(help="OIDC issuer that must have verified that name.", metavar="URL")]
PublicKey = Annotated[
    Path | None, typer.Option(help="Public key that must have signed, in place of an identity.", metavar="PEM")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def reported(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Turn our errors into one line and an exit code."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except SignLiteError as error:
            _errors.print(f"sign-lite: {error}", style="red", markup=False)
            raise typer.Exit(error.exit_code) from error

    return run


class SignerOptions(Struct, frozen=True):
    """Options of a command that name the signer."""

    token: str | None = None
    token_file: Path | None = None
    login: LoginKind | None = None
    key: Path | None = None


def signing_as(config: ClientTrustConfig, given: SignerOptions) -> IdentityToken | KeyPair:
    """The signer: a key, a person who signs in, or the identity of a token. Raises `SignLiteError`."""
    ways = [each for each in (given.token, given.token_file, given.login, given.key) if each is not None]
    if len(ways) > 1:
        raise Misuse("give one of --identity-token, --identity-token-file, --login and --key")
    if given.key is not None:
        return read_key_pair(read_small(given.key, "key"), str(given.key), key_password)
    if given.login is not None:
        return log_in(config, given.login)
    return load_identity_token(token=given.token, token_file=given.token_file, environment=os.environ)


def key_password() -> bytes:
    """Password of a private key, from the environment or from the terminal. Raises `Misuse`."""
    if (known := os.environ.get(PASSWORD_VARIABLE)) is not None:
        return known.encode()
    if not sys.stdin.isatty():
        raise Misuse(f"the key has a password: give it in {PASSWORD_VARIABLE}")
    asked: str = typer.prompt("Password of the key", hide_input=True, err=True)
    return asked.encode()


@contextmanager
def opened_signer(trust_config: str, rekor_version: int | None, given: SignerOptions) -> Iterator[BundleSigner]:
    """The signer and the deployment that the options name."""
    config = load_trust_config(trust_config, rekor_version)
    with signer(config, signing_as(config, given)) as opened:
        yield opened


def read_predicate(path: Path) -> dict[str, Any]:
    """The JSON object that a statement claims. Raises `Misuse`."""
    try:
        content = json.loads(read_small(path, "predicate"))
    except (ValueError, RecursionError) as error:
        raise Misuse(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise Misuse("the predicate must be a JSON object")
    return content


@reported
def sign(
    *,
    files: Files,
    trust_config: TrustConfig,
    identity_token: Token = None,
    identity_token_file: TokenFile = None,
    login: Login = None,
    key: SigningKey = None,
    rekor_version: RekorVersion = None,
    bundle: BundleOption = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Sign files; writes FILE.sigstore.json beside each.

    Example: sign-lite sign wheel.whl --trust-config ca/trust/client_trust_config.json --identity-token-file token
    """
    targets = _targets(files, bundle)
    for target in targets:
        check_writable(target, overwrite=overwrite)
    artifacts = [hash_file(file, more=key is not None) for file in files]
    results = []
    with opened_signer(
        trust_config, rekor_version, SignerOptions(identity_token, identity_token_file, login, key)
    ) as opened:
        work = zip(files, targets, artifacts, strict=True)
        for file, target, artifact in track(list(work), "signing", console=_errors, disable=not _errors.is_terminal):
            made = opened.file(artifact)
            write_bundle(target, made.json)
            results.append({"file": str(file), "sha256": artifact.sha256.hex(), "bundle": str(target), **made.told})
    print_results(results, "signed", as_json=as_json)


@reported
def initialize(
    *,
    mirror: Annotated[str, typer.Option(help="URL of the TUF repository.", metavar="URL")],
    root: Annotated[Path, typer.Option(help="Its root.json, from a source that you trust.", metavar="FILE")],
) -> None:
    """Trust a deployment's TUF repository from now on: `--trust-config` takes its URL then.

    Example: sign-lite initialize --mirror http://localhost:8080/tuf --root ca/tuf/1.root.json
    """
    if not is_repository(mirror):
        raise Misuse(f"--mirror {mirror!r} is not an http URL")
    over_tuf(mirror, root)
    print(f"trusted: now give --trust-config {mirror}")  # noqa: T201


@reported
def attest(
    *,
    files: Files,
    trust_config: TrustConfig,
    predicate: PredicateFile,
    predicate_type: PredicateType,
    identity_token: Token = None,
    identity_token_file: TokenFile = None,
    login: Login = None,
    key: SigningKey = None,
    rekor_version: RekorVersion = None,
    bundle: BundleOption = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Sign one in-toto statement about all the files; writes FILE.attestation.sigstore.json beside the first.

    Example: sign-lite attest a.whl --predicate sbom.json --predicate-type https://spdx.dev/D --trust-config tc.json
    """
    target = bundle or default_bundle(files[0], ATTESTATION_SUFFIX)
    check_writable(target, overwrite=overwrite)
    content = read_predicate(predicate)
    subjects = [(file, hash_file(file, more=False)) for file in files]
    statement = build_statement(subjects, predicate_type, content)
    with opened_signer(
        trust_config, rekor_version, SignerOptions(identity_token, identity_token_file, login, key)
    ) as opened:
        made = opened.statement(statement)
    write_bundle(target, made.json)
    results = [
        {"file": str(file), "sha256": artifact.sha256.hex(), "bundle": str(target), **made.told}
        for file, artifact in subjects
    ]
    print_results(results, "attested", as_json=as_json)


@reported
def verify_command(
    *,
    files: Annotated[list[Path], typer.Argument(help="Files, or sha256:HEX for one of them.", metavar="FILE...")],
    trusted_root: TrustedRootFile = None,
    trust_config: TrustConfigFile = None,
    identity: Identity = None,
    issuer: Issuer = None,
    key: PublicKey = None,
    bundle: HeldBundles = None,
    as_json: AsJson = False,
) -> None:
    """Verify files against their bundles; exit code 1 when any of them fails.

    A bundle file may be in any form in which bundles are held: a Sigstore bundle, several of them, PyPI provenance,
    npm's or GitHub's attestations. With --bundle a folder or a pattern, several files. One bundle in them must verify.

    Example: sign-lite verify a.whl --trust-config tc.json --identity me@example.com --issuer http://localhost:8080/oidc
    """
    who = signed_by(identity, issuer, key)
    if bundle is None and (digests := [str(each) for each in files if is_digest(each)]):
        raise Misuse(
            f"{digests[0]} is a digest: there is no file with a bundle beside it, so name the bundle with --bundle"
        )
    trust = trusted_by(trusted_root, trust_config)
    results: list[dict[str, Any]] = []
    for file, source in zip(files, _targets(files, bundle), strict=True):
        results.append(_verified(file, source, trust, who))
    print_results(results, "verified", as_json=as_json)
    if not all(each["verified"] for each in results):
        raise typer.Exit(1)


def _verified(file: Path, source: Path, trust: Trust, who: WantedSigner) -> dict[str, Any]:
    """Result for one file: that of the first bundle file of `source` that verifies, or why each one fails."""
    artifact = hash_named(file)
    result: dict[str, Any] = {"file": str(file), "sha256": artifact.sha256.hex()}
    problems = []
    for held, raw in bundles_named(source):
        try:
            return {**result, "bundle": str(held), "verified": True, **verify_file(raw, artifact, trust, who)}
        except VerificationFailed as error:
            problems.append(str(error) if held == source else f"{held}: {error}")
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return {**result, "bundle": str(source), "verified": False, "problem": "; ".join(problems[:_SHOWN]) + more}


def signed_by(identity: str | None, issuer: str | None, key: Path | None) -> WantedSigner:
    """The wanted signer, from the options of a command. Raises `Misuse`."""
    if key is not None:
        if identity is not None or issuer is not None:
            raise Misuse("give a key, or an identity with its issuer: a bundle has one of them")
        return WantedSigner(key=load_key(read_small(key, "key"), str(key)))
    if identity is None or issuer is None:
        raise Misuse("say who must have signed: --identity and --issuer, or --key")
    return WantedSigner(identity, issuer)


def trusted_by(trusted_root: Path | None, trust_config: str | None) -> Trust:
    """The trust that the options of a command name. Raises `SignLiteError`."""
    if (trusted_root is None) == (trust_config is None):
        raise Misuse("name the trust: one of --trusted-root and --trust-config")
    return load_trust(str(trusted_root or trust_config))


def _targets(files: list[Path], bundle: Path | None) -> list[Path]:
    if bundle is not None and len(files) > 1:
        raise Misuse("--bundle names one file; with several files leave it out")
    targets = [bundle] if bundle is not None else [default_bundle(file) for file in files]
    if len(set(targets)) != len(targets):
        raise Misuse("the same file is given twice")
    return targets


def print_results(results: list[dict[str, Any]], verb: str, *, as_json: bool) -> None:
    """Print the results: JSON, or a line for each; problems go to standard error."""
    if as_json:
        print(json.dumps(results, indent=2))  # noqa: T201
        return
    for each in results:
        if "problem" in each:
            problem = _visible(each["problem"])
            _errors.print(f"FAILED {each['file']}: {problem}", style="red", markup=False)
        else:
            names = ", ".join(_visible(name) for name in each["names"])
            print(f"{verb} {each['file']} by {names}, {each['entry_kind']} at index {each['log_index']}")  # noqa: T201


def _visible(text: str) -> str:
    """Names come from certificates: keep terminal control sequences from acting."""
    return "".join(character if character.isprintable() else "?" for character in text)

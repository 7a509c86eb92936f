"""The client protocol of sigstore-conformance: `sign-bundle` and `verify-bundle`, with its exact options.

SPEC sigstore-conformance docs/cli_protocol.md. The suite is given a program to run; `exec sign-lite conformance "$@"`
is such a program. Exit code 0 means success, any other one failure.
"""

import os
from pathlib import Path
from typing import Annotated

import typer
from sigstore.dsse import Statement
from sigstore.errors import Error

from sign_lite.commands import reported, signed_by
from sign_lite.errors import Misuse
from sign_lite.files import hash_file, hash_named, read_small, write_bundle
from sign_lite.signing import signer
from sign_lite.trust import load_identity_token, load_trust, public_trust, signing_trust
from sign_lite.verifying import verify_file

Staging = Annotated[bool, typer.Option("--staging", help="Use Sigstore's staging deployment.")]
BundlePath = Annotated[Path, typer.Option("--bundle", help="The bundle file.", metavar="FILE")]
TrustedRootPath = Annotated[
    Path | None, typer.Option("--trusted-root", help="Trusted root in place of a public one.", metavar="JSON")
]


@reported
def sign_bundle(
    file: Annotated[Path, typer.Argument(help="The file or statement.", metavar="FILE")],
    *,
    identity_token: Annotated[str, typer.Option("--identity-token", help="OIDC identity token.")],
    bundle: BundlePath,
    staging: Staging = False,
    in_toto: Annotated[bool, typer.Option("--in-toto", help="The file is an in-toto statement.")] = False,
    trusted_root: TrustedRootPath = None,
    signing_config: Annotated[
        Path | None, typer.Option("--signing-config", help="Signing configuration.", metavar="JSON")
    ] = None,
) -> None:
    """Sign a file, or with --in-toto the statement in it, and write the bundle.

    Example: sign-lite conformance sign-bundle --identity-token TOKEN --bundle a.json --trusted-root tr.json \
--signing-config sc.json a.txt
    """
    artifact = hash_file(file, more=False)
    statement = _statement(file) if in_toto else None
    config = signing_trust(trusted_root, signing_config, staging=staging)
    token = load_identity_token(token=identity_token, token_file=None, environment=os.environ)
    with signer(config, token) as opened:
        made = opened.file(artifact) if statement is None else opened.statement(statement)
    write_bundle(bundle, made.json)


@reported
def verify_bundle(
    file_or_digest: Annotated[Path, typer.Argument(help="A file, or sha256:HEX.", metavar="FILE_OR_DIGEST")],
    *,
    bundle: BundlePath,
    staging: Staging = False,
    certificate_identity: Annotated[
        str | None, typer.Option("--certificate-identity", help="Who must have signed.", metavar="IDENTITY")
    ] = None,
    certificate_oidc_issuer: Annotated[
        str | None, typer.Option("--certificate-oidc-issuer", help="Who must vouch for the identity.", metavar="URL")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Public key that must have signed.", metavar="PEM")] = None,
    trusted_root: TrustedRootPath = None,
) -> None:
    """Verify a file or its digest against a bundle; exit code 1 when it fails.

    Example: sign-lite conformance verify-bundle --bundle a.json --key key.pub --trusted-root tr.json a.txt
    """
    who = signed_by(certificate_identity, certificate_oidc_issuer, key)
    trust = load_trust(str(trusted_root)) if trusted_root is not None else public_trust(staging=staging)
    verify_file(read_small(bundle, "bundle"), hash_named(file_or_digest), trust, who)


def _statement(file: Path) -> Statement:
    try:
        return Statement(read_small(file, "statement"))
    except (Error, ValueError) as error:
        raise Misuse(f"{file}: not an in-toto statement: {error}") from error

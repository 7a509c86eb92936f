"""`ca-lite init`, `trust`, `rotate-oidc`: the directory of a CA."""

from pathlib import Path
from typing import Annotated

import typer

from ca_lite.commands.shared import Directory, PassphraseFile, errors, passphrase, reported
from ca_lite.keys import now
from ca_lite.oidc_keys import rotate_oidc_keys
from ca_lite.settings import Layout, load_settings
from ca_lite.setup import initialise, write_trust


@reported
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
    development_login: Annotated[
        bool, typer.Option(help="A login that takes any address with one secret: for development and drills only.")
    ] = False,
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
        passphrase=passphrase(passphrase_file),
        development_login=development_login,
    )
    errors.print(f"Made a CA for {url} in {directory}. Next:", markup=False)
    for line in (
        f"  log-lite serve --dir LOG --ct-roots {layout.trust / 'ca-chain.pem'}",
        f"  ca-lite serve --dir {directory}",
        f"  ca-lite token --dir {directory} --email you@example.com > token",
        f"  sigstore --trust-config {layout.trust}/client_trust_config.json sign --identity-token $(cat token) FILE",
    ):
        errors.print(line, markup=False)


@reported
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
    errors.print(f"Wrote {layout.trust} and the TUF repository.", markup=False)


@reported
def rotate_oidc(directory: Directory) -> None:
    """Make a new token-signing key; tokens signed with the last two stay valid until they expire."""
    layout = Layout(directory)
    load_settings(layout)
    print(rotate_oidc_keys(layout.oidc))  # noqa: T201

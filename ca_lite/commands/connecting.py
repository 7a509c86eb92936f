"""`ca-lite connect`: a company's own OpenID Connect issuer."""

import time
from pathlib import Path
from typing import Annotated

import typer
import yaml

from ca_lite.commands.shared import Directory, errors, reported
from ca_lite.errors import ConfigError
from ca_lite.issuer_config import load_issuers
from ca_lite.issuer_keys import Discovery
from ca_lite.issuers import IssuerType
from ca_lite.keys import now, read_limited, replace_file
from ca_lite.settings import CLIENT_ID, Layout, load_settings
from ca_lite.setup import write_trust


@reported
def connect(
    issuer: Annotated[str, typer.Argument(help="URL of the issuer, as its tokens write it.", metavar="URL")],
    *,
    directory: Directory,
    client_id: Annotated[str, typer.Option(help="Client ID of Sigstore's programs at the issuer.")] = CLIENT_ID,
    ca_cert: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of the authorities of the issuer's TLS certificate.", metavar="PEM", dir_okay=False
        ),
    ] = None,
    issuer_claim: Annotated[
        str,
        typer.Option(
            help="Claim of its tokens that names the upstream issuer, such as $.federated_claims.connector_id."
        ),
    ] = "",
    login: Annotated[bool, typer.Option(help="Send clients there to sign in, in place of the CA's own page.")] = True,
) -> None:
    """Believe a company's issuer, and send clients to its login. The e-mail addresses that it verified become names.

    Adds it to issuers.yaml, sets login_issuer in ca.yaml and writes the trust files again. Restart the server after.

    Example: ca-lite connect --dir ca https://dex.example.com/dex
    """
    layout = Layout(directory)
    settings = load_settings(layout)
    entry: dict[str, str] = {"issuer-url": issuer, "client-id": client_id, "type": IssuerType.EMAIL.value}
    if issuer_claim:
        entry["issuer-claim"] = issuer_claim
    if ca_cert is not None:
        entry["ca-cert"] = read_limited(ca_cert).decode("ascii", "replace")
    text = _with_issuer(layout, issuer, entry)
    issuers = load_issuers(text, str(layout.issuers))
    # The issuer is asked before any file is written: a mistyped URL would send every client to a wrong login.
    Discovery(time.monotonic).keys(issuers.exact[issuer], issuer, refresh=True)
    replace_file(layout.issuers, text.encode())
    if login and settings.login_issuer != issuer:
        _set_login(layout, issuer)
    settings = load_settings(layout)
    write_trust(layout, settings, now())
    errors.print(f"{issuer} is believed. Next:", markup=False)
    errors.print(
        f"  restart `ca-lite serve`, and hand {layout.trust} out again (clients of /tuf fetch it)", markup=False
    )
    errors.print(
        f"  register the public client {client_id!r} at the issuer, with the redirect http://localhost/auth/callback "
        "on any port",
        markup=False,
    )


def _with_issuer(layout: Layout, issuer: str, entry: dict[str, str]) -> str:
    """The configuration with one more issuer; comments are kept. Raises `ConfigError`."""
    text = read_limited(layout.issuers).decode("utf-8", "replace")
    known = load_issuers(text, str(layout.issuers))
    if issuer in known.exact:
        if known.exact[issuer].client_id != entry["client-id"]:
            raise ConfigError(f"{layout.issuers} has {issuer} with another client-id; change it there")
        return text
    block = yaml.safe_dump({issuer: entry}, sort_keys=False)
    indented = "".join(f"  {line}" for line in block.splitlines(keepends=True))
    changed = f"{text.rstrip()}\n{indented}"
    try:
        found = load_issuers(changed, str(layout.issuers))
    except ConfigError as error:
        raise ConfigError(f"{error}. Add it under oidc-issuers of {layout.issuers} by hand:\n{indented}") from error
    if set(found.exact) != {*known.exact, issuer} or found.wildcards != known.wildcards:
        raise ConfigError(f"oidc-issuers is not the last part of {layout.issuers}. Add this there by hand:\n{indented}")
    return changed


def _set_login(layout: Layout, issuer: str) -> None:
    text = read_limited(layout.settings).decode()
    kept = [line for line in text.splitlines() if not line.startswith("login_issuer:")]
    replace_file(layout.settings, "\n".join([*kept, yaml.safe_dump({"login_issuer": issuer}).strip(), ""]).encode())

"""`ca-lite explain-token`: explains how this CA reads a token."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ca_lite.commands.shared import AsJson, Directory, reported
from ca_lite.errors import CaRefused
from ca_lite.identity import challenges_of, principal_for
from ca_lite.issuer_config import load_issuers
from ca_lite.issuer_keys import KeySource
from ca_lite.issuers import Issuers
from ca_lite.keys import now, read_limited
from ca_lite.oidc_keys import CombinedKeys, OwnKeys
from ca_lite.settings import Layout, load_settings, own_issuers
from ca_lite.tokens import verify_token


@reported
def explain_command(
    directory: Directory,
    token_file: Annotated[Path, typer.Argument(help="File with the token, - for stdin.", metavar="TOKEN_FILE")],
    as_json: AsJson = False,
) -> None:
    """Explain a token: the rule of this CA that it breaks, or the certificate that it would give.

    Example: ca-lite token --dir ca --email you@example.com | ca-lite explain-token --dir ca -
    """
    layout = Layout(directory)
    settings = load_settings(layout)
    text = sys.stdin.read(1 << 20) if str(token_file) == "-" else read_limited(token_file).decode("ascii", "replace")
    issuers = load_issuers(read_limited(layout.issuers).decode(), str(layout.issuers))
    source = CombinedKeys(OwnKeys(layout.oidc), frozenset(own_issuers(settings.url).values()))
    try:
        explained = _explain(text.strip(), issuers, source, now())
    except CaRefused as error:
        if as_json:
            print(json.dumps(error.body(), indent=2))  # noqa: T201
        else:
            print(f"refused: {error.reason}: {error.detail or error.message}")  # noqa: T201
        raise typer.Exit(1) from error
    _print_pairs(explained, as_json=as_json)


def _explain(token: str, issuers: Issuers, source: KeySource, now: datetime) -> dict[str, Any]:
    """Issuer, name and claims of the certificate a token stands for. Raises `CaRefused` with the reason."""
    verified = verify_token(token, issuers, source, now)
    principal = principal_for(verified.issuer, verified.claims)
    return {
        "issuer": verified.claims["iss"],
        "issuer_type": verified.issuer.type.value,
        "expires_in_seconds": int(float(verified.claims["exp"]) - now.timestamp()),
        "proof_of_possession_over": list(challenges_of(verified.claims)),
        "name_form": principal.form.value,
        "name": principal.name,
        "claims": dict(principal.claims),
    }


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

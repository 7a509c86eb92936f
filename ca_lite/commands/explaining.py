"""`ca-lite explain-token`: explains how this CA reads a token."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ca_lite.commands.shared import AsJson, Directory, reported
from ca_lite.errors import Refused
from ca_lite.explain import explain_token
from ca_lite.issuer_config import load_issuers
from ca_lite.keys import now, read_limited
from ca_lite.oidc_keys import Keys, OwnKeys
from ca_lite.settings import Layout, load_settings, own_issuers


@reported
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

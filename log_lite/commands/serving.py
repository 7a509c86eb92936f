"""`log-lite serve`."""

from pathlib import Path
from typing import Annotated, Final

import typer

from log_lite.api_ct import MAX_GET_ENTRIES
from log_lite.commands.shared import Dir, exit_codes
from log_lite.server import AlreadyServing, CannotListen, read_anchors, serve

# Entries have 3 to 8 kB each: an answer stays below 100 MB.
_MOST: Final = 10_000


def serve_command(
    folder: Dir,
    ct_roots: Annotated[
        Path | None, typer.Option(help="PEM file of CA certificates the CT log accepts chains to.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="host:port to listen on instead of the URL's port on loopback.")
    ] = None,
    ct_max_get_entries: Annotated[
        int,
        typer.Option(min=1, max=_MOST, help="Entries in one answer of the CT log's get-entries at most."),
    ] = MAX_GET_ENTRIES,
    accept_dsse_v002: Annotated[
        bool, typer.Option(help="Take Rekor v2's dsseRequestV002, which older clients send.")
    ] = True,
) -> None:
    """Serve the log until it is stopped; prints one line when it is ready.

    Example: log-lite serve --dir log --ct-roots ca/trust/ca-chain.pem
    """
    with exit_codes(CannotListen, AlreadyServing):
        serve(
            folder,
            anchors=read_anchors(ct_roots),
            listen=listen,
            accept_dsse=accept_dsse_v002,
            max_get_entries=ct_max_get_entries,
        )

"""`ca-lite serve`."""

import logging
import os

from ca_lite.app import listen, serve
from ca_lite.commands.shared import Directory, PassphraseFile, errors, passphrase, reported
from ca_lite.keys import now
from ca_lite.self_check import self_check
from ca_lite.service import CaService
from ca_lite.settings import Layout
from command_line.log_format import LogFormat, formatter
from command_line.program import ToStandardError


@reported
def serve_command(directory: Directory, passphrase_file: PassphraseFile = None) -> None:
    """Serve certificates, tokens, timestamps and trust files. Prints one line when ready.

    Example: ca-lite serve --dir ca
    """
    # The server logs JSON lines for programs; the other commands log text for people.
    logging.basicConfig(level=logging.INFO, handlers=[ToStandardError(formatter(LogFormat.JSON))], force=True)
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    service = CaService(Layout(directory), passphrase(passphrase_file))
    try:
        for warning in self_check(service, now()):
            errors.print(f"ca-lite: warning: {warning}", style="yellow", markup=False)
        serve(service, listen(service.settings), f"ca-lite ready at {service.settings.url} (pid {os.getpid()})")
    finally:
        service.journal.close()

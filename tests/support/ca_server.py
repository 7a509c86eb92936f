"""A real `ca-lite serve` process in a directory of its own, on a free port; alone or with a real `log-lite`."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from ca_lite.commands.tokens import mint
from ca_lite.keys import now
from ca_lite.oidc_keys import email_claims
from ca_lite.settings import CLIENT_ID, Layout
from tests.support import log_server
from tests.support.log_server import LogServer, free_port
from tests.support.served_process import ServedProcess

CA_LITE: Sequence[str] = (sys.executable, "-c", "from ca_lite.cli import main; main()")
# With it a test can be any person.
DEVELOPMENT_LOGIN = "--development-login"
SIGN_LITE: Sequence[str] = (sys.executable, "-c", "from sign_lite.cli import main; main()")
SIGSTORE: Sequence[str] = (sys.executable, "-m", "sigstore")


class CaServer(ServedProcess):
    """One CA. `oidc` is the issuer of e-mail identities, `github` that of GitHub-shaped tokens."""

    name = "ca-lite"
    ready_processor_seconds = 60.0

    @override
    def serving(self) -> Sequence[str]:
        return [*CA_LITE, "serve", "--dir", str(self.folder)]

    @property
    def oidc(self) -> str:
        return f"{self.url}/oidc"

    @property
    def github(self) -> str:
        return f"{self.url}/oidc/github"

    @property
    def trust_config(self) -> Path:
        return self.folder / "trust" / "client_trust_config.json"

    def token(self, *arguments: str) -> str:
        """Identity token from `ca-lite token`."""
        return run(CA_LITE, "token", "--dir", str(self.folder), *arguments).strip()

    def email_token(self, email: str) -> str:
        """Identity token of a person; made in this process, which is quicker than the command."""
        return self.mint(email_claims(self.oidc, email))

    def mint(self, claims: dict[str, Any]) -> str:
        """Identity token with these claims, signed with the CA's own keys."""
        return mint(Layout(self.folder), claims, CLIENT_ID, now())


def run(command: Sequence[str], *arguments: str, expect: int = 0) -> str:
    """Run a command to its end; fails on another exit code. Returns stdout, or stderr when failure is expected."""
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"},
    )
    assert done.returncode == expect, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout if expect == 0 else done.stdout + done.stderr


def make_ca(folder: Path, log_trust: Path, *options: str, key: str = "p256") -> CaServer:
    """Make a CA directory on a free port, not served yet; `options` are further ones of `ca-lite init`."""
    server = CaServer(folder, f"http://localhost:{free_port()}")
    where = ("--dir", str(folder), "--url", server.url, "--log-trust", str(log_trust))
    run(CA_LITE, "init", *where, "--key", key, *options)
    return server


@contextlib.contextmanager
def ca_server(folder: Path, log_trust: Path, *options: str, key: str = "p256") -> Iterator[CaServer]:
    """Make and serve a CA for a log with this trust file; stopped by process id however the block ends."""
    server = make_ca(folder, log_trust, *options, key=key)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def ca_and_log(folder: Path, *options: str, key: str = "p256") -> Iterator[tuple[CaServer, LogServer]]:
    """A real CA and a real log that know each other, both served."""
    log = LogServer(folder / "log", f"http://localhost:{free_port()}")
    log_server.run("init", "--dir", str(log.folder), "--url", log.url)
    trust = folder / "log-trust.json"
    trust.write_text(log.command("export-trust"))
    ca = make_ca(folder / "ca", trust, *options, key=key)
    log.options = ("--ct-roots", str(ca.folder / "trust" / "ca-chain.pem"))
    try:
        log.start()
        ca.start()
        yield ca, log
    finally:
        ca.stop()
        log.stop()

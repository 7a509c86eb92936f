"""Databases for tests: SQLite files always, one PostgreSQL server when its programs are installed."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import PATIENCE


def postgres_programs() -> Path | None:
    """Folder of initdb and postgres; None when they are not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    for folder in [*installed, *([Path(on_path).resolve().parent] if on_path else [])]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def _as_user() -> list[str]:
    """PostgreSQL refuses to run as root: become the user without rights."""
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []


@contextmanager
def postgres() -> Iterator[str]:
    """A server of our own on a socket in a temporary folder; yields its URL."""
    programs = postgres_programs()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="sw-pg-"))
    server = None
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, 65534, 65534)
        user, data, tools = _as_user(), str(folder / "data"), str(programs)
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        initdb = [*user, f"{tools}/initdb", "-D", data, "-U", "signwatch", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(initdb, check=True, capture_output=True, timeout=60, cwd=folder, env=environment)
        settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        server = subprocess.Popen(
            [*user, f"{tools}/postgres", "-D", data, *settings],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
        )
        ready = [f"{tools}/pg_isready", "-h", str(folder), "-U", "signwatch", "-t", "1"]
        for _ in range(1_000):
            assert server.poll() is None, "the server stopped"
            if subprocess.run(ready, check=False, capture_output=True, timeout=PATIENCE).returncode == 0:
                break
            subprocess.run(["sleep", "0.1"], check=True, timeout=5)
        yield f"postgresql+psycopg://signwatch@/postgres?host={folder}"
    finally:
        if server is not None:
            # Fast shutdown: a smart one, SIGTERM, waits for connections that a failed test left.
            server.send_signal(signal.SIGINT)
            server.wait(PATIENCE)
        shutil.rmtree(folder, ignore_errors=True)

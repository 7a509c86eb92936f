"""Programs that `.ci/install-go-clients` builds: real clients and a real registry. What is missing is said plainly."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.log_server import free_port
from tests.support.waiting import PATIENCE, answers, wait_until

ROOT = Path(__file__).parents[2]


def built(name: str) -> str | None:
    """Path of a client: the one on the search path, else the newest that was built."""
    found = sorted((ROOT / ".go-clients").glob(f"*/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


COSIGN = built("cosign")
# The version before, which teams still run. Never the one on the search path, whose version is not known.
COSIGN_2 = next((str(each) for each in sorted((ROOT / ".go-clients").glob("cosign-v2*/cosign"))), None)
REGISTRY = built("registry")
REKOR_CLI = built("rekor-cli")
REKOR_MONITOR = built("rekor_monitor")
GITSIGN = built("gitsign")
needs_cosign = pytest.mark.skipif(COSIGN is None, reason="cosign is not built: run .ci/install-go-clients")
needs_cosign_2 = pytest.mark.skipif(COSIGN_2 is None, reason="cosign 2 is not built: run .ci/install-go-clients")
needs_rekor_cli = pytest.mark.skipif(REKOR_CLI is None, reason="rekor-cli is not built: run .ci/install-go-clients")
needs_rekor_monitor = pytest.mark.skipif(
    REKOR_MONITOR is None, reason="rekor_monitor is not built: run .ci/install-go-clients"
)
needs_gitsign = pytest.mark.skipif(GITSIGN is None, reason="gitsign is not built: run .ci/install-go-clients")
needs_registry = pytest.mark.skipif(REGISTRY is None, reason="registry is not built: run .ci/install-go-clients")


@contextlib.contextmanager
def registry_server() -> Iterator[str]:
    """A real registry on loopback, empty, in memory; yields `localhost:PORT`. Stopped by process id."""
    assert REGISTRY is not None
    port = free_port()
    process = subprocess.Popen([REGISTRY, "-port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until("the registry to answer", lambda: answers(f"http://localhost:{port}/v2/"), process)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def cosign(
    home: Path,
    *arguments: str,
    expect: int | None = 0,
    extra: Mapping[str, str] | None = None,
    program: str | None = COSIGN,
) -> str:
    """Run the unmodified cosign; returns what it said. `expect` of `None` wants any failure."""
    assert program is not None
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "COSIGN_PASSWORD": "", "NO_COLOR": "1"}
    done = subprocess.run(
        [program, *arguments],
        cwd=home,
        env={**environment, **(extra or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == expect if expect is not None else done.returncode != 0, said
    return said


def rekor_cli(url: str, home: Path, *arguments: str, expect: int | None = 0) -> str:
    """Run the unmodified rekor-cli in `home`; returns what it said. `expect` of `None` wants any failure."""
    assert REKOR_CLI is not None
    done = subprocess.run(
        [REKOR_CLI, "--rekor_server", url, *arguments],
        cwd=home,
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == expect if expect is not None else done.returncode != 0, said
    return done.stdout if expect == 0 else said


def rekor_monitor(home: Path, *arguments: str) -> str:
    """Run the unmodified rekor-monitor once, with `home` for its copy of the TUF repository; returns what it said.

    It ends with 0 also when a check failed: its words are the result.
    """
    assert REKOR_MONITOR is not None
    done = subprocess.run(
        [REKOR_MONITOR, "--once", *arguments],
        cwd=home,
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr

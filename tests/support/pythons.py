"""The Pythons that are supported, and where this machine has them."""

import os
import shutil
import subprocess
import sys
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_CLASSIFIER = "Programming Language :: Python :: 3."
RUNNING = f"3.{sys.version_info.minor}"
LOCKS = [ROOT / "requirements" / name for name in ("run.txt", "build.txt")]


def supported() -> list[str]:
    """Versions that the distribution claims to run on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return [f"3.{each.removeprefix(_CLASSIFIER)}" for each in project["classifiers"] if each.startswith(_CLASSIFIER)]


def python(version: str) -> str:
    """Path of an interpreter of this version that can make environments; skips where the machine has none."""
    if version == RUNNING:
        return str(getattr(sys, "_base_executable", sys.executable))
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    # A name on PATH may be a stub that starts nothing.
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, root.glob(f"{version}.*/bin/python")))]
    for candidate in filter(None, candidates):
        script = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
        told = subprocess.run([candidate, "-c", script], capture_output=True, text=True, timeout=120, check=False)
        if told.stdout.strip() == version:
            return candidate
    pytest.skip(f"Python {version} is missing: neither on PATH nor among pyenv's versions")


def fetched(version: str) -> Path | None:
    """Folder with the packages of today's lock for this version; `None` when they were not fetched."""
    folder = ROOT / ".pip-wheels" / version
    state = sha256(b"".join(lock.read_bytes() for lock in LOCKS)).hexdigest()
    mark = folder / "lock"
    return folder if mark.is_file() and mark.read_text().strip() == state else None

"""Installed into, and run in, a folder with spaces and letters beyond ASCII in its path, by each supported Python."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.pythons import LOCKS, ROOT, RUNNING, fetched, python, supported

FOLDER = "Mein Ordner (ü, 署名)"
_PATIENCE = 900


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=_PATIENCE, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def install_lock(interpreter: Path, version: str, folder: Path) -> None:
    """Install the dependencies: the lock as the README does, or those of the environment of this very test."""
    wheels = fetched(version)
    if wheels is not None:
        locks = [word for lock in LOCKS for word in ("-r", lock)]
        source = ("--quiet", "--no-index", "--find-links", wheels)
        run(interpreter, "-m", "pip", "install", *source, "--no-deps", "--require-hashes", *locks, cwd=folder)
    elif version == RUNNING:
        (site,) = (interpreter.parents[1] / "lib").glob("python*/site-packages")
        # A folder named in a .pth file is searched for packages; the .pth file in it, of the project, is not read.
        (site / "dependencies.pth").write_text(
            "\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}) + os.linesep, encoding="utf-8"
        )
    else:
        pytest.skip(f"the lock's packages for Python {version} are missing: .ci/fetch-wheels fetches them")


@pytest.mark.parametrize("version", supported())
def test_the_whole_loop_runs_from_an_installation_in_such_a_folder(version: str, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    environment = folder / "meine Umgebung"
    run(python(version), "-m", "venv", environment, cwd=folder)
    interpreter = environment / "bin" / "python"
    install_lock(interpreter, version, folder)
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    run(interpreter, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    assert run(interpreter, "-m", "pip", "check", cwd=folder).strip() == "No broken requirements found."
    at = run(interpreter, "-c", "import monitor, sys; print(sys.version, monitor.__file__)", cwd=folder)
    assert FOLDER in at, "control: it is this installation that runs"
    assert at.startswith(f"{version}."), "control: by this Python"
    assert run(environment / "bin" / "signwatch", "--version", cwd=folder).strip()
    told = run(environment / "bin" / "signwatch", "demo", "--dir", folder / "die Schleife, 100%20 #1?", cwd=folder)
    assert "Both caught: one unexpected signing, one lying log. No false alarm." in told
    assert (folder / "die Schleife, 100%20 #1?" / "signwatch.db").exists()


def test_the_supported_versions_are_those_that_the_distribution_may_be_installed_with() -> None:
    assert RUNNING in supported()
    assert f'requires-python = ">={supported()[0]}"' in (ROOT / "pyproject.toml").read_text("utf-8")
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert f"Python {', '.join(supported()[:-1])} or {supported()[-1]}" in readme

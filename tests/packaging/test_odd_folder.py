"""Installed into, and run in, a folder with spaces and letters beyond ASCII in its path."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

PROJECT = Path(__file__).parents[2]
FOLDER = "Mein Ordner (ü, 署名)"


def run(*command: str | Path, cwd: Path, seconds: int = 120) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_whole_loop_runs_from_an_installation_in_such_a_folder(tmp_path: Path) -> None:
    """A real installation of the wheel; only the dependencies come from this environment."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=PROJECT)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "meine Umgebung"
    run(sys.executable, "-m", "venv", environment, cwd=folder)
    python = environment / "bin" / "python"
    (site,) = (environment / "lib").glob("python*/site-packages")
    # A folder named in a .pth file is searched for packages; the .pth file there, which links the project, is not read.
    (site / "dependencies.pth").write_text(
        "\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}) + os.linesep, encoding="utf-8"
    )
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    at = run(python, "-c", "import monitor; print(monitor.__file__)", cwd=folder)
    assert FOLDER in at, "control: it is this installation that runs"
    assert run(environment / "bin" / "signwatch", "--version", cwd=folder).strip()
    told = run(environment / "bin" / "signwatch", "demo", "--dir", folder / "die Schleife", cwd=folder, seconds=400)
    assert "Both caught: one unexpected signing, one lying log. No false alarm." in told
    assert (folder / "die Schleife" / "signwatch.db").exists()

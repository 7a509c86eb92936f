"""The wheel: exactly our names at the top, and everything a program reads at run time inside."""

import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from monitor.commands.doctor import TOP_LEVEL

PROJECT = Path(__file__).parents[2]
NAMES = {
    "addresses",
    "alerts",
    "ca_lite",
    "command_line",
    "inbound",
    "log_lite",
    "monitor",
    "outbound",
    "rules",
    "settings",
    "sign_lite",
    "sigstore_entries",
    "tlog",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The wheel as the build backend makes it, without a network and without isolation."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return zipfile.Path(found)


def names_in(wheel: zipfile.Path) -> set[str]:
    return {name for name in wheel.root.namelist() if not name.endswith("/")}


def dist_info(wheel: zipfile.Path, name: str) -> str:
    (found,) = (each for each in names_in(wheel) if each.endswith(f".dist-info/{name}"))
    return wheel.root.read(found).decode()


def test_the_top_level_names_are_exactly_ours(wheel: zipfile.Path) -> None:
    top = {name.split("/")[0] for name in names_in(wheel)}
    assert {name for name in top if not name.endswith((".dist-info", ".data"))} == NAMES


def test_every_file_of_our_packages_is_inside_and_nothing_else(wheel: zipfile.Path) -> None:
    """Migrations, templates, schemas and type markers are files a program reads: none may be left behind."""
    on_disk = {
        path.relative_to(PROJECT).as_posix()
        for package in NAMES
        for path in (PROJECT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "tlog/merkle.py" in on_disk
    explained = {
        f"monitor/daemon/explanations/{folder}/{path.name}"
        for folder in ("alerts", "expectations")
        for path in (PROJECT / "docs" / folder).glob("*.md")
    }
    assert explained
    assert {
        name for name in names_in(wheel) if ".dist-info/" not in name and ".data/" not in name
    } == on_disk | explained


def test_no_test_benchmark_or_secret_is_inside(wheel: zipfile.Path) -> None:
    for name in names_in(wheel):
        assert not name.endswith((".pem", ".key", ".db", ".sqlite", ".pyc")), name
        assert not {"tests", "benchmarks", "docker", "docs"} & set(name.split("/")), name


def test_the_four_commands_are_installed(wheel: zipfile.Path) -> None:
    lines = set(dist_info(wheel, "entry_points.txt").split("\n"))
    assert lines >= {
        "[console_scripts]",
        "signwatch = monitor.cli:main",
        "ca-lite = ca_lite.cli:main",
        "log-lite = log_lite.cli:main",
        "sign-lite = sign_lite.cli:main",
        "sign-lite-git = sign_lite.cli:main_git",
    }


def test_the_metadata_names_licence_python_and_every_dependency(wheel: zipfile.Path) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    metadata = Parser().parsestr(dist_info(wheel, "METADATA"))
    assert (metadata["Name"], metadata["Version"]) == (project["name"], project["version"])
    assert metadata["Requires-Python"] == project["requires-python"]
    assert metadata["License-Expression"] == "Apache-2.0"
    stated = [each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert len(stated) == len(project["dependencies"])
    assert dist_info(wheel, "licenses/LICENSE")


def test_the_import_contract_covers_the_same_packages() -> None:
    tools = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]
    assert set(tools["hatch"]["build"]["targets"]["wheel"]["packages"]) == NAMES
    assert set(tools["importlinter"]["root_packages"]) == NAMES


def test_doctor_looks_for_another_owner_of_each_of_our_names() -> None:
    assert set(TOP_LEVEL) == NAMES


def test_the_manual_pages_are_installed_where_man_looks(wheel: zipfile.Path) -> None:
    pages = {name.partition(".data/data/")[2] for name in names_in(wheel) if ".data/data/" in name}
    assert pages == {f"share/man/man1/{name}.1" for name in ("ca-lite", "log-lite", "sign-lite", "signwatch")}

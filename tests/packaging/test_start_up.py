"""A command imports what it uses: names of packages are compared, not times.

`python -c "import …"` of one server or database library costs more than everything that `--version` does.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.docs.commands_page import PROGRAMS

# Runs a program as its script does; writes what was imported since to the file named first.
_RUNNER = """
import sys
before = set(sys.modules)
import importlib, json
into, module, *sys.argv = sys.argv[1:]
try:
    importlib.import_module(module).main()
finally:
    names = {name.partition(".")[0] for name in set(sys.modules) - before}
    with open(into, "w") as file:
        json.dump(sorted(names), file)
"""
_MODULES = {
    "signwatch": "monitor.cli",
    "ca-lite": "ca_lite.cli",
    "log-lite": "log_lite.cli",
    "sign-lite": "sign_lite.cli",
}
TYPER = {"typer", "shellingham", "annotated_doc", "rich"}
HELP = TYPER | {"markdown_it", "mdurl", "attr", "pygments"}
# typer reads the values of options with it.
PYDANTIC = {"pydantic", "pydantic_core", "annotated_types", "typing_inspection", "typing_extensions"}
# Parts of the standard library that serve, ask or store.
HEAVY = {"asyncio", "http", "sqlite3", "ssl", "multiprocessing", "smtplib", "socketserver", "xml"}


def imported(tmp_path: Path, name: str, *words: str, code: int = 0) -> set[str]:
    """Packages that a command imports: ours, those of others, and the heavy ones of the standard library."""
    into = tmp_path / "imported.json"
    command = [sys.executable, "-c", _RUNNER, str(into), _MODULES[name], name, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, (done.stdout, done.stderr)
    names = {each for each in json.loads(into.read_text()) if not each.startswith("_sysconfigdata")}
    return {each for each in names if each not in sys.stdlib_module_names or each in HEAVY}


@pytest.mark.parametrize("name", PROGRAMS)
def test_version_and_help_import_no_server_database_or_http_library(name: str, tmp_path: Path) -> None:
    own = {_MODULES[name].partition(".")[0], "command_line"} | ({"alerts"} if name == "signwatch" else set())
    assert imported(tmp_path, name, "--version") <= TYPER | own
    assert imported(tmp_path, name, "--help") <= HELP | own


@pytest.mark.parametrize("words", [("rules", "--help"), ("evidence", "--help"), ("stauts",)])
def test_nor_do_the_help_of_a_group_and_a_mistyped_command(words: Sequence[str], tmp_path: Path) -> None:
    code = 0 if "--help" in words else 2
    assert imported(tmp_path, "signwatch", *words, code=code) <= HELP | PYDANTIC | {"monitor", "command_line", "alerts"}


def test_a_heavy_import_would_be_noticed(tmp_path: Path) -> None:
    assert imported(tmp_path, "signwatch", "run", "--help") & {"fastapi", "sqlalchemy", "asyncio"}

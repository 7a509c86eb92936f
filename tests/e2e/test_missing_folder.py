"""A folder that holds nothing is wrong usage, whichever program is asked: exit code 2, and how to make one."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ca_lite.cli import app as ca_lite
from log_lite.cli import app as log_lite

COMMANDS = {
    "log-lite": [["serve"], ["export-trust"], ["verify"], ["rotate"], ["freeze"], ["fault", "fork"]],
    "ca-lite": [["serve"], ["trust"], ["rotate-oidc"], ["token", "--email", "a@example.org"], ["issued"]],
}


@pytest.mark.parametrize(("program", "words"), [(name, words) for name, many in COMMANDS.items() for words in many])
def test_a_missing_folder_is_wrong_usage(program: str, words: list[str], tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    done = CliRunner().invoke({"log-lite": log_lite, "ca-lite": ca_lite}[program], [*words, "--dir", str(nothing)])
    said = " ".join(done.stderr.split())
    assert done.exit_code == 2, said
    assert str(nothing) in said
    assert f"{program} init" in said
    assert not nothing.exists()

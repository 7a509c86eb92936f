"""A server is waited for as long as it makes progress, and no longer."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from typing_extensions import override

from tests.support.served_process import ServedProcess

_WORKS = "import time\nwhile time.process_time() < {}: pass\n"


@dataclass
class Program(ServedProcess):
    source: str = ""

    name = "program"
    ready_processor_seconds = 2.0
    idle_seconds = 2.0

    @override
    def serving(self) -> Sequence[str]:
        return [sys.executable, "-c", self.source]


def test_a_server_that_works_and_says_so_is_ready(tmp_path: Path) -> None:
    program = Program(tmp_path, "", source=_WORKS.format(0.5) + "print('program ready', flush=True); time.sleep(60)")
    program.start()
    assert program.kill() != 0


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import time; time.sleep(60)", "it did nothing for 2 s"),
        (_WORKS.format(60), "of processor time"),
        ("raise SystemExit('no such folder')", "it ended:\nno such folder"),
    ],
)
def test_one_that_hangs_turns_in_circles_or_ends_is_given_up(source: str, why: str, tmp_path: Path) -> None:
    program = Program(tmp_path, "", source=source)
    with pytest.raises(AssertionError, match="program did not get ready") as error:
        program.start()
    assert why in str(error.value)
    assert program.process is None, "no process is left behind"

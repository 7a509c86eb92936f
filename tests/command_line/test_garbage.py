"""The garbage collector is off while a program starts, and on again in every command and afterwards."""

import gc

import pytest
import typer

from command_line.program import LazyCommand, group, listing, run

FOUND: list[bool] = []


def look(*, fail: bool = False) -> None:
    """Record whether the collector runs."""
    FOUND.append(gc.isenabled())
    if fail:
        raise ValueError("a defect")


@pytest.mark.parametrize("words", [["look"], ["look", "--fail"], ["more", "look"]])
def test_a_command_has_the_garbage_collector(words: list[str]) -> None:
    FOUND.clear()
    where = f"{__name__}:look"
    app = typer.Typer(
        cls=listing(LazyCommand("look", where, "Look."), group("more", "More.", LazyCommand("look", where, "Look.")))
    )
    app.callback()(lambda: None)
    for _ in range(2):
        run(app, "program", words)
        assert gc.isenabled()
    assert FOUND == [True, True]
    assert gc.get_threshold() == (5_000, 20, 20)
    for ended in (["--help"], ["look", "--help"], ["lok"], ["look", "--nonsense"], []):
        run(app, "program", ended)
        assert gc.isenabled(), ended

"""`python -m benchmarks`: take every figure in a process of its own, print a table, write `bench.json`."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.corpus import ENTRIES, complete_corpus
from benchmarks.peers import NoPeer, measure_peers, named_peers
from benchmarks.tasks import TASKS, Task, task_of

_TIMEOUT: Final = 3600  # seconds for one task; ten million rows take some minutes to make

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def bench(
    *,
    only: Annotated[list[str] | None, typer.Option(help="Take this figure only; may be repeated.")] = None,
    output: Annotated[Path, typer.Option(help="Where the figures go, as one flat JSON object.")] = Path("bench.json"),
    corpus: Annotated[Path | None, typer.Option(help="Keep the entries in this folder, or take them from it.")] = None,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Only compare with the binaries that REKOR_MONITOR, CT_MONITOR and CERTSPOTTER name.",
        ),
    ] = False,
    check: Annotated[bool, typer.Option(help="Exit with 1 when a target is missed.")] = False,
    task: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure speed as ratios within one run, memory and noise.

    Examples: python -m benchmarks; python -m benchmarks --only examine_v2_over_naive --only rules_1m_build_s;
    REKOR_MONITOR=rekor_monitor python -m benchmarks --peers --corpus corpus
    """
    if task is not None and corpus is not None:
        typer.echo(json.dumps(task_of(task).run(corpus)))
        return
    if peers:
        _beside_peers(output, corpus)
        return
    tasks = _chosen(only)
    with tempfile.TemporaryDirectory(prefix="signwatch-bench-") as temporary:
        figures = _measure(tasks, corpus or Path(temporary))
    output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    Console().print(_table(tasks, figures))
    if not all(each.name in figures for task in tasks for each in task.figures):
        raise typer.Exit(3)
    if check and not all(each.met(figures[each.name]) for task in tasks for each in task.figures):
        raise typer.Exit(1)


def _beside_peers(output: Path, corpus: Path | None) -> None:
    try:
        # Before the entries are made, which takes minutes.
        named_peers(os.environ)
    except NoPeer as error:
        raise typer.BadParameter(str(error), param_hint="--peers") from error
    with tempfile.TemporaryDirectory(prefix="signwatch-bench-") as temporary, _shown() as say:
        folder = corpus or Path(temporary)
        _complete(folder, say)
        try:
            figures = {name: round(value, 2) for name, value in measure_peers(folder, say).items()}
        except RuntimeError as error:
            typer.echo(f"The monitors could not be compared: {error}", err=True)
            raise typer.Exit(3) from error
    output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    table = Table("figure", "value", title="Other monitors: their processor time and memory over Signwatch's")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.2f}")
    Console().print(table)


def _chosen(only: Sequence[str] | None) -> list[Task]:
    if not only:
        return list(TASKS)
    try:
        chosen = [task_of(name) for name in only]
    except KeyError as unknown:
        names = ", ".join(each.name for task in TASKS for each in task.figures)
        raise typer.BadParameter(f"no figure is called {unknown}; there are {names}") from None
    return [task for task in TASKS if task in chosen]


def _measure(tasks: Sequence[Task], corpus: Path) -> dict[str, float]:
    figures: dict[str, float] = {}
    with _shown() as say:
        _complete(corpus, say)
        for number, task in enumerate(tasks, start=1):
            names = ", ".join(each.name for each in task.figures)
            say(f"{number} of {len(tasks)}: {names}")
            figures.update(_run(task, corpus))
    return figures


@contextmanager
def _shown() -> Iterator[Callable[[str], object]]:
    """A line on the terminal that says what goes on."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        shown = progress.add_task("making entries", total=None)
        yield lambda text: progress.update(shown, description=text)


def _complete(corpus: Path, say: Callable[[str], object]) -> None:
    """Make the entries that are not there yet."""
    for done in complete_corpus(corpus):
        say(f"making entries: {done:,} of {ENTRIES:,}")


def _run(task: Task, corpus: Path) -> dict[str, float]:
    # A process of its own: no figure inherits another one's memory, caches or collector state.
    command = [sys.executable, "-m", "benchmarks", "--task", task.figures[0].name, "--corpus", str(corpus)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_TIMEOUT, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        typer.echo(f"{task.figures[0].name} could not be measured: {error}. The others are.", err=True)
        return {}
    figures: dict[str, float] = {name: round(value, 3) for name, value in json.loads(done.stdout).items()}
    return figures


def _table(tasks: Sequence[Task], figures: dict[str, float]) -> Table:
    table = Table(title="Signwatch benchmarks")
    table.add_column("figure", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("target", justify="right")
    table.add_column("")
    table.add_column("what it is")
    for task in tasks:
        for each in task.figures:
            value = figures.get(each.name)
            shown = ("", "NOT MEASURED") if value is None else (f"{value:,.2f}", "met" if each.met(value) else "MISSED")
            table.add_row(each.name, shown[0], each.target, shown[1], each.meaning)
    return table


if __name__ == "__main__":
    app()

"""`python -m benchmarks`: take every figure in a process of its own, print a table, write `bench.json`."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.corpus import ENTRIES, complete_corpus
from benchmarks.peers import ENTRIES_READ, Comparison, NoPeer, chosen_comparisons, measure_peers, named_peers
from benchmarks.tasks import TASKS, Task, task_of

_SAID: Final = 2_500  # entries between two lines about how many are made
_TIMEOUT: Final = 3600  # seconds for one task; ten million rows take some minutes to make

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def bench(
    *,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Take this figure only; may be repeated. With --peers: a log (v1, v2, ct), a program (rekor-monitor, "
            "ct-monitor, certspotter) or a comparison (v2_100)."
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the figures go, as one flat JSON object.")] = Path("bench.json"),
    corpus: Annotated[Path | None, typer.Option(help="Keep the entries in this folder, or take them from it.")] = None,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Only compare with the binaries that REKOR_MONITOR, CT_MONITOR and CERTSPOTTER name.",
        ),
    ] = False,
    longest: Annotated[
        float, typer.Option(min=1, help="Seconds that one program may take beside another monitor; it is ended then.")
    ] = 300,
    check: Annotated[bool, typer.Option(help="Exit with 1 when a target is missed.")] = False,
    task: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure speed as ratios within one run, memory and noise.

    Examples: python -m benchmarks; python -m benchmarks --only examine_v2_over_naive --only rules_1m_build_s;
    REKOR_MONITOR=rekor_monitor python -m benchmarks --peers --corpus corpus --only v2
    """
    if task is not None and corpus is not None:
        typer.echo(json.dumps(task_of(task).run(corpus)))
        return
    if peers:
        _beside_peers(only or [], output, corpus, longest)
        return
    tasks = _chosen(only)
    with tempfile.TemporaryDirectory(prefix="signwatch-bench-") as temporary:
        figures = _measure(tasks, corpus or Path(temporary))
    _write(output, figures)
    Console().print(_table(tasks, figures))
    if not all(each.name in figures for task in tasks for each in task.figures):
        raise typer.Exit(3)
    if check and not all(each.met(figures[each.name]) for task in tasks for each in task.figures):
        raise typer.Exit(1)


def _beside_peers(only: Sequence[str], output: Path, corpus: Path | None, longest: float) -> None:
    try:
        # Before the entries are made, which takes minutes.
        named = named_peers(os.environ)
        comparisons = chosen_comparisons(named, only)
    except NoPeer as error:
        raise typer.BadParameter(str(error), param_hint="--peers") from error
    figures: dict[str, float] = {}
    troubles: list[str] = []
    # SIGTERM ends it as Ctrl-C does: the figures are shown.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="signwatch-bench-") as temporary:
            folder = corpus or Path(temporary)
            _complete(folder, _say, ENTRIES if corpus else ENTRIES_READ)
            for found in measure_peers(folder, comparisons, named, longest, _say):
                if isinstance(found, RuntimeError):
                    troubles.append(str(found))
                    _say(troubles[-1])
                else:
                    figures |= {name: round(value, 2) for name, value in found.items()}
                    _write(output, figures)
    except KeyboardInterrupt:
        troubles.append("interrupted: the figures taken until then are kept")
    finally:
        signal.signal(signal.SIGTERM, before)
    _write(output, figures)
    Console().print(_peer_table(comparisons, figures))
    for trouble in troubles:
        typer.echo(f"Not compared: {trouble}", err=True)
    if troubles:
        raise typer.Exit(3)


def _peer_table(comparisons: Sequence[Comparison], figures: dict[str, float]) -> Table:
    """Processor seconds and MiB of each, the ratios, and what ours are made of."""
    columns = "run s", "MiB", "scan s", "MiB", "other s", "MiB", "times", "start s", "µs each"
    kinds = "s", "own_mib", "scan_s", "scan_mib", "peer_s", "peer_mib", "cpu", "start_s", "entry_us"
    table = Table(title="Other monitors' processor time over Signwatch's", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for each in comparisons:
        found = {kind: figures.get(f"peer_{each.name}_{kind}") for kind in (*kinds, "cpu_at_least")}
        shown = ["" if found[kind] is None else f"{found[kind]:,.{0 if 'mib' in kind else 2}f}" for kind in kinds]
        if found["cpu_at_least"] is not None:
            shown[kinds.index("cpu")] = f">{found['cpu_at_least']:,.1f}"
        if any(shown):
            table.add_row(each.name, *shown)
    return table


def _say(text: str) -> None:
    typer.echo(f"{datetime.now(UTC):%H:%M:%S} {text}", err=True)


def _write(output: Path, figures: dict[str, float]) -> None:
    output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


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


def _complete(corpus: Path, say: Callable[[str], object], count: int = ENTRIES) -> None:
    """Make the entries that are not there yet."""
    for done in complete_corpus(corpus, count):
        if done % _SAID == 0 or done == count:
            say(f"making entries: {done:,} of {count:,}")


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

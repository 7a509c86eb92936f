"""`signwatch peers`: put what the logs signed for us beside what they signed for somebody else."""

import time
from contextlib import ExitStack, closing
from typing import Annotated

import typer

from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, note, say_json, table
from monitor.config import load_config
from monitor.crosscheck.peer_documents import Comparison, comparison_document
from monitor.crosscheck.peer_exchange import ask_peer
from monitor.crosscheck.peers import Relation
from monitor.daemon.assembly import assemble, utc_now
from monitor.daemon.log_trees import own_sources
from monitor.following.timing import Timing
from monitor.http_fetcher import HttpFetcher
from monitor.program import VERSION
from monitor.telemetry.prometheus import PrometheusMeter

app = typer.Typer(name="peers", help="Compare what the logs signed with another installation.", no_args_is_help=True)
_NOTHING_SHOWN = frozenset({Relation.NOT_SIGNED, Relation.UNDECIDED})


@app.callback()
def _group() -> None:
    """Keep `compare` a command of its own even while it is the only one."""


@app.command()
def compare(
    url: Annotated[str, typer.Argument(help="Base URL of the other installation's web address.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Compare the newest signed heads with another Signwatch: a log that shows two histories cannot hide it from both.

    The other side is believed in nothing but the logs' signatures. A contradiction is kept as evidence and alerted,
    here and there. Exits 1 when a log contradicted itself, 3 when a head could not be compared.

    Examples:
      signwatch peers compare https://signwatch.example.org
      signwatch peers compare --json http://127.0.0.1:9464
    """
    timing = Timing(utc_now, time.sleep)
    monitor = assemble(load_config(config), PrometheusMeter(VERSION), timing)
    with ExitStack() as parts:
        parts.callback(monitor.close)
        sources = own_sources(monitor, timing, parts)()
        with closing(HttpFetcher(url)) as fetcher:
            comparisons = ask_peer(fetcher, sources, monitor.store, utc_now())
    followed = [source.identity.log for source in sources]
    missing = sorted(set(followed) - {each.log for each in comparisons})
    if as_json:
        say_json(comparison_document(url, comparisons) | {"not_compared": missing})
    else:
        table(("log", "verdict", "detail", "peer says"), [_row(each) for each in comparisons])
    if missing:
        note(f"not compared, because the other side does not show them: {', '.join(missing)}", "yellow")
    raise leave(_code(comparisons))


def _row(each: Comparison) -> tuple[str, str, str, str | None]:
    return each.log, each.theirs.relation.value, each.theirs.detail, each.ours or None


def _code(comparisons: list[Comparison]) -> Exit:
    relations = {each.theirs.relation for each in comparisons}
    if Relation.CONTRADICTION in relations:
        return Exit.MISBEHAVED
    return Exit.UNFINISHED if relations & _NOTHING_SHOWN or not relations else Exit.FINE

"""Options of commands that read a log on the workers of a Dask cluster, and the connection to the workers."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.commands.terminal import note
from monitor.daemon.log_sources import NamedTree
from monitor.model.errors import BadConfig
from rules.rule import Rule

if TYPE_CHECKING:
    from monitor.archive.rows import RowTrust
    from monitor.cluster.workers import ClusterOptions, ClusterWorkers, SharedRun


class CheckChoice(StrEnum):
    """Check of workers' results beyond their leaf hashes."""

    TWICE = "twice"
    SAMPLE = "sample"


DaskOption = Annotated[
    str | None,
    typer.Option(
        "--dask",
        metavar="[SCHEDULER]",
        help="Read on the workers of a Dask cluster: the scheduler's address; without one, processes of this machine.",
    ),
]
DaskCheckOption = Annotated[
    CheckChoice | None,
    typer.Option(
        "--dask-check",
        help="Compare each range as two workers read it (twice, for a SCHEDULER), or with a sample read here (sample).",
    ),
]
DaskCaOption = Annotated[
    Path | None, typer.Option("--dask-tls-ca", help="Authority (PEM) of the cluster's certificates; else Dask's own.")
]
DaskCertOption = Annotated[Path | None, typer.Option("--dask-tls-cert", help="Certificate (PEM) to show the cluster.")]
DaskKeyOption = Annotated[Path | None, typer.Option("--dask-tls-key", help="Private key (PEM) of that certificate.")]


def cluster_options(
    scheduler: str | None,
    check: CheckChoice | None,
    tls: tuple[Path | None, Path | None, Path | None],
    jobs: int,
) -> "ClusterOptions | None":
    """The given options; `None` without `--dask`. Raises `BadConfig` if Dask is not installed."""
    if scheduler is None:
        if check is not None or any(tls):
            raise typer.BadParameter("is about the workers of a Dask cluster: add --dask", param_hint="--dask-…")
        return None
    if find_spec("distributed") is None:
        raise BadConfig(
            "--dask: Dask is not installed. Install requirements/extras.txt (docs/operations.md, Install); "
            "docs/scale.md describes its use. No entry was read."
        )
    from monitor.cluster.workers import ClusterOptions, ResultCheck

    ca, cert, key = tls
    return ClusterOptions(scheduler, None if check is None else ResultCheck(check.value), ca, cert, key, jobs)


@contextmanager
def connected(options: "ClusterOptions | None") -> "Iterator[ClusterWorkers | None]":
    """The workers that the options are about; `None` without options. Raises `OwnFault`, `BadConfig`."""
    if options is None:
        yield None
        return
    from monitor.cluster.workers import opened_workers

    if options.scheduler.startswith("tcp://") and not options.scheduler.startswith(("tcp://127.", "tcp://localhost")):
        note(
            "the connection to the scheduler has no TLS: every host on the path can make its workers run any code",
            "yellow",
        )
    with opened_workers(options, lambda sentence: note(sentence, "yellow")) as workers:
        yield workers


@contextmanager
def reading(
    workers: "ClusterWorkers", tree: NamedTree, rules: tuple[Rule, ...] | None, trust: "RowTrust | None" = None
) -> "Iterator[SharedRun]":
    """Let workers read one tree, with the log's settings for requests and a shared allowance of requests.

    They find the entries that `rules` select; without rules they make rows, and judge chains by `trust`.
    """
    from monitor.cluster.workers import shared_run

    with shared_run(
        workers,
        tree.description,
        tree.fetcher,
        rate=tree.requests_per_second,
        ca_file=tree.log.ca_file,
        proxy=tree.log.proxy,
        rules=rules,
        trust=trust,
    ) as shared:
        yield shared

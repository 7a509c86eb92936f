"""Two workers of a Dask cluster over one, beside two processes over one: what spreading work over machines costs.

Workers hold entries and rules from the start, as those processes do. A task is a range as the product cuts it, and its
result comes back as the product gets it. Scheduler and client run on the same cores as the workers.
"""

import gc
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import dask
from distributed import Client, LocalCluster, as_completed

from benchmarks.corpus import read_corpus
from benchmarks.examining import RULES, measure_two_processes
from benchmarks.measure import relative_best, wait_for_quiet
from benchmarks.product import make_scanner
from benchmarks.watched import make_rules
from monitor.cluster.pipeline import PART
from monitor.cluster.workers import QUIET
from monitor.following.scan_batch import ScannedBatch, Scanner, scan_batch
from monitor.model.log_source import LogApi, LogEntry

_TIMES: Final = 4  # over the corpus: each worker examines a dozen ranges
_LOOPBACK: Final = "127.0.0.1:0"

_held: tuple[Scanner, list[LogEntry]] | None = None


def measure_dask(corpus: Path) -> dict[str, float]:
    """Figures `dask_two_over_one`, and that over `two_processes_over_one` of the same run."""
    processes = measure_two_processes(corpus)["two_processes_over_one"]
    with (
        dask.config.set(QUIET),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=_LOOPBACK,
            worker_dashboard_address=_LOOPBACK,
        ) as cluster,
        Client(cluster) as client,
    ):
        held = client.run(hold, str(corpus))
        workers, count = sorted(held), min(held.values())
        ranges = [(start, start + PART) for start in range(0, count - PART + 1, PART)] * _TIMES
        _spread(client, workers, ranges)
        ratio = relative_best(
            partial(_spread, client, workers, ranges),
            partial(_spread, client, workers[:1], ranges),
            rounds=5,
            begin=wait_for_quiet,
        )
    return {"dask_two_over_one": ratio, "dask_over_processes": ratio / processes}


def hold(corpus: str) -> int:
    """Keep entries and compiled rules in this worker; returns how many entries."""
    global _held  # noqa: PLW0603  what outlives a task has to be reachable from the module
    _held = make_scanner(make_rules(RULES)), [LogEntry(body) for body in read_corpus(Path(corpus), "v2")]
    gc.freeze()
    return len(_held[1])


def examine_held(start: int, stop: int) -> ScannedBatch:
    """Examine entries that this worker holds."""
    assert _held is not None
    scanner, entries = _held
    return scan_batch(entries[start:stop], start, "bench", LogApi.REKOR_V2, scanner)


def _spread(client: Client, workers: Sequence[str], ranges: Sequence[tuple[int, int]]) -> int:
    """Hand every range to the worker that is free next; returns how many entries that were."""
    waiting = iter(ranges)
    given: dict[Any, str] = {}

    def submit(worker: str) -> Any:
        span = next(waiting, None)
        if span is None:
            return None
        future = client.submit(examine_held, *span, workers=[worker], allow_other_workers=False, pure=False)
        given[future.key] = worker
        return future

    # One range waits behind the one that is being scanned, so that no worker waits for us.
    done, entries = as_completed([each for _ in range(2) for worker in workers if (each := submit(worker))]), 0
    for future in done:
        scanned = future.result()
        entries += scanned.end - scanned.start
        if (more := submit(given[future.key])) is not None:
            done.add(more)
    return entries

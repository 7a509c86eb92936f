"""The usable workers of a Dask cluster, and the allowance of requests that they share.

A worker is used once it runs the same code and libraries as this process. A worker that returned a wrong result is
reported, and is no longer used after the limits in `ClusterWorkers.blame`.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from secrets import token_hex
from typing import Final

import dask
from distributed import Client, LocalCluster, Queue
from distributed.security import Security
from msgspec import Struct

from monitor.archive.rows import RowTrust
from monitor.cluster.worker import WorkerJob, build_id, dismiss, enlist, requests_queue, rests_topic
from monitor.http_fetcher import HttpFetcher
from monitor.model.errors import BadConfig, OwnFault
from monitor.model.log_description import LogDescription
from rules.rule import Rule

LOCAL: Final = ""  # processes of this machine
QUIET: Final = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # This module assigns a few ranges a second. Dask's own monitoring takes more processor time than that.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "10s",
}
"""Dask's settings for processes of this machine."""
_NO_PORT: Final = "127.0.0.1:0"  # a free port of loopback: by default Dask serves HTTP on all addresses
CONNECT: Final = 20  # seconds
_ANSWER: Final = 60.0  # seconds for a worker to return its build id
_MOST_STRIKES: Final = 3
_WAITING: Final = 0.2  # seconds' worth of requests in the queue; removed when the log wants rest
_LEAST_WAITING: Final = 4
_HAND_OUTS: Final = 100  # a second; above this rate one hand-out allows several requests
_TICK: Final = 0.05
_END: Final = 10.0


class ResultCheck(StrEnum):
    """Check of rows and matches, which no hash in the log's tree covers."""

    TWICE = "twice"
    SAMPLE = "sample"


class ClusterOptions(Struct, frozen=True):
    """Scheduler, check of results (`None` for the scheduler's default), TLS, and number of processes here.

    `scheduler` is `LOCAL` or an address such as `tls://scheduler:8786`.
    """

    scheduler: str
    check: ResultCheck | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    jobs: int = 1

    @property
    def checked(self) -> ResultCheck:
        """The check to apply. By default processes of this machine are sampled, and other workers compared."""
        return self.check or (ResultCheck.SAMPLE if self.scheduler == LOCAL else ResultCheck.TWICE)


class ClusterWorkers:
    """The workers of one scheduler: `there` are the connected ones, `refused` maps an unused worker to the reason."""

    def __init__(self, client: Client, tell: Callable[[str], object]) -> None:
        """`tell` gets a sentence about each worker that is not used."""
        self.client, self._tell = client, tell
        self._build = build_id()
        self._known: dict[str, bool] = {}
        self._strikes: Counter[str] = Counter()
        self.refused: dict[str, str] = {}
        self.there: frozenset[str] = frozenset()

    def usable(self) -> dict[str, int]:
        """Threads of each worker that may be used now, by address. New workers are asked for their build id."""
        try:
            threads: dict[str, int] = dict(self.client.nthreads())
        except (OSError, TimeoutError) as error:
            raise OwnFault(f"the Dask scheduler does not answer any more: {error}. What was proven is kept.") from error
        self.there = frozenset(threads)
        for address in threads.keys() - self._known.keys():
            self._known[address] = self._runs_the_same(address)
        return {address: max(1, count) for address, count in threads.items() if self._known[address]}

    def blame(self, worker: str, why: str, *, certain: bool) -> None:
        """Count a wrong reply of a worker. The worker is no longer used after a `certain` one, or after the third."""
        self._strikes[worker] += 1
        if self._known.get(worker) and (certain or self._strikes[worker] >= _MOST_STRIKES):
            self.refuse(worker, why)

    def warn(self, sentence: str) -> None:
        """Report a finding about a worker through `tell`."""
        self._tell(sentence)

    def refuse(self, worker: str, why: str) -> None:
        """Stop using a worker, and report the reason."""
        self._known[worker] = False
        self.refused[worker] = why
        self._tell(f"worker {worker} is not used any more: {why}")

    def _runs_the_same(self, address: str) -> bool:
        answer = self._run_on(address, build_id)
        if isinstance(answer, str) and answer == self._build:
            return True
        if isinstance(answer, str):
            why = f"it runs {answer[:300]}, and this process {self._build}"
        else:
            why = f"it has no Signwatch of this version ({type(answer).__name__}: {str(answer)[:200]})"
        self.refuse(address, f"{why}. Install the same on both")
        return False

    def enlist(self, address: str, run: WorkerJob) -> bool:
        """Enlist a worker in a run. True if the worker takes part."""
        return self._run_on(address, enlist, run) == self._build

    def dismiss(self, run: WorkerJob) -> None:
        """End a run on all workers that are there."""
        # The scheduler tries half a minute to reach a worker that died.
        for address in self.there:
            if self._known.get(address):
                self._run_on(address, dismiss, run.id)

    def _run_on(self, address: str, function: Callable[..., object], *arguments: object) -> object:
        try:
            answers = self.client.run(function, *arguments, workers=[address], on_error="return")
        except Exception as error:  # noqa: BLE001  the worker left, or its answer cannot be read
            return error
        return answers.get(address) if isinstance(answers, dict) else None

    def too_few(self, usable: int, wanted: int) -> OwnFault:
        """Message for too few workers that may be used."""
        refused = "; ".join(f"{worker}: {why}" for worker, why in self.refused.items())
        twice = ", and results of two are compared (`--dask-check sample` compares with a sample read here instead)"
        return OwnFault(
            f"the Dask scheduler has {usable or 'no'} worker that can be used{twice if wanted > 1 else ''}. What was "
            "proven is kept: start workers with `dask worker` where the same Signwatch is installed, and run this "
            f"again.{' Not used: ' if refused else ''}{refused}"
        )


@contextmanager
def opened_workers(options: ClusterOptions, tell: Callable[[str], object]) -> Iterator[ClusterWorkers]:
    """Connect to the scheduler, or start processes here. Raises `OwnFault`, `BadConfig`."""
    logging.getLogger("distributed").setLevel(logging.ERROR)
    if options.scheduler == LOCAL:
        # Encrypted, with a key that only this process and its children know. Without it other users of the machine
        # could send code to run.
        with (
            dask.config.set(QUIET),
            LocalCluster(
                n_workers=options.jobs,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=_NO_PORT,
                worker_dashboard_address=_NO_PORT,
                security=True,
                silence_logs=logging.ERROR,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield ClusterWorkers(client, tell)
        return
    try:
        client = Client(options.scheduler, security=_security(options), timeout=CONNECT, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
        raise OwnFault(
            f"no Dask scheduler answers at {options.scheduler}: {str(error)[:300]}. Nothing was read. Start one with "
            "`dask scheduler`, or leave the address out to use the cores of this machine."
        ) from error
    with client:
        yield ClusterWorkers(client, tell)


def _security(options: ClusterOptions) -> Security | None:
    files = {"--dask-tls-ca": options.tls_ca, "--dask-tls-cert": options.tls_cert, "--dask-tls-key": options.tls_key}
    given = {name: path for name, path in files.items() if path is not None}
    if not given:
        return None  # Dask's own configuration
    if missing := files.keys() - given.keys():
        raise BadConfig(f"{', '.join(sorted(missing))}: missing. TLS with a Dask scheduler takes all three files.")
    for name, path in given.items():
        if not path.is_file():
            raise BadConfig(f"{name}: there is no file {path}")
    return Security(
        tls_ca_file=str(options.tls_ca),
        tls_client_cert=str(options.tls_cert),
        tls_client_key=str(options.tls_key),
        require_encryption=True,
    )


class SharedRun:
    """One tree read by all workers: the enlisted workers, and the allowance that they share."""

    def __init__(self, workers: ClusterWorkers, run: WorkerJob, fetcher: HttpFetcher, rate: float) -> None:
        self.workers, self.run = workers, run
        self._fetcher = fetcher
        self._together = max(1, round(rate / _HAND_OUTS))
        self._requests = Queue(requests_queue(run.id), client=workers.client)
        self._most = max(_LEAST_WAITING, round(rate * _WAITING / self._together))
        self._enlisted: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._hand_out, daemon=True)

    def usable(self) -> dict[str, int]:
        """Threads of each usable worker that is enlisted in the run."""
        threads = self.workers.usable()
        for address in threads.keys() - self._enlisted:
            if self.workers.enlist(address, self.run):
                self._enlisted.add(address)
        return {address: count for address, count in threads.items() if address in self._enlisted}

    def begin(self) -> None:
        """Start to hand out requests."""
        self.workers.client.subscribe_topic(rests_topic(self.run.id), self._hear_of_rest)
        self._thread.start()

    def end(self) -> None:
        """Stop handing out requests, and let workers close their connections."""
        self._ended.set()
        self._thread.join(_END)
        self.workers.client.unsubscribe_topic(rests_topic(self.run.id))
        self.workers.dismiss(self.run)
        self._requests.close()

    def _hand_out(self) -> None:
        """Put allowed requests into the workers' queue. The token bucket is that of this process's own fetcher."""
        allowed, taken_back = 0, False
        try:
            while not self._ended.is_set():
                if self._fetcher.resting and not taken_back:
                    self._requests.get(batch=True)
                taken_back = self._fetcher.resting
                # While the log rests, or the queue is full, no further request is allowed.
                if taken_back or self._requests.qsize() >= self._most:
                    self._ended.wait(_TICK)
                elif allowed == self._together:
                    self._requests.put(allowed)
                    allowed = 0
                elif self._fetcher.allow(self._ended.is_set):
                    allowed += 1
        except (OSError, RuntimeError, TimeoutError):
            return  # the scheduler is gone; the pipeline reports the error

    def _hear_of_rest(self, event: tuple[float, object]) -> None:
        """Handle a worker's event that the log wants rest: no other worker may make a request meanwhile."""
        seconds = event[1]
        if isinstance(seconds, int | float):
            self._fetcher.rest(seconds)


@contextmanager
def shared_run(
    workers: ClusterWorkers,
    log: LogDescription,
    fetcher: HttpFetcher,
    *,
    rate: float,
    ca_file: Path | None = None,
    proxy: str | None = None,
    rules: tuple[Rule, ...] | None = None,
    trust: RowTrust | None = None,
) -> Iterator[SharedRun]:
    """Let workers read one tree, which `log` pins to one protocol, origin and tree, as often as `fetcher` may ask."""
    try:
        ca_pem = None if ca_file is None else ca_file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadConfig(f"ca_file: {ca_file} cannot be read: {error.strerror}") from error
    shared = SharedRun(workers, WorkerJob(token_hex(8), log, ca_pem, proxy, rules, trust), fetcher, rate)
    shared.begin()
    try:
        yield shared
    finally:
        shared.end()

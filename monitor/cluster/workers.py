"""The workers of a Dask cluster that may be used, and the one allowance of requests that they share.

A worker is used once it runs the same code and libraries as this process. One that returned something wrong is named,
and is used less or no more: see `Workers.blame`.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from secrets import token_hex
from typing import Final

import dask
from distributed import Client, LocalCluster, Queue
from distributed.security import Security

from monitor.archive.rows import RowTrust
from monitor.cluster.worker import Run, build_id, dismiss, enlist, requests_queue, rests_topic
from monitor.http_fetcher import HttpFetcher
from monitor.logs.opening import LogDescription
from monitor.model.errors import BadConfig, OwnFault
from rules.rule import Rule

LOCAL: Final = ""  # processes of this machine
QUIET: Final = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # Ranges are given out here, a few a second. Watching itself takes Dask more of the cores than giving them out.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "10s",
}
"""Dask's settings for processes of this machine."""
_NO_PORT: Final = "127.0.0.1:0"  # any free one of loopback: Dask serves HTTP on all addresses otherwise
_CONNECT: Final = 20  # seconds
_ANSWER: Final = 60.0  # seconds for a worker to say what it runs
_MOST_STRIKES: Final = 3
_WAITING: Final = 0.2  # seconds' worth of requests that wait to be taken, and are taken back when the log wants rest
_LEAST_WAITING: Final = 4
_HAND_OUTS: Final = 100  # a second: beyond, several requests are handed out together
_TICK: Final = 0.05
_END: Final = 10.0


class Check(StrEnum):
    """Check of rows and matches, which no hash in the log's tree covers."""

    TWICE = "twice"
    SAMPLE = "sample"


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Scheduler, check of results (`None` for the scheduler's default), TLS, and number of processes here.

    `scheduler` is `LOCAL` or an address such as `tls://scheduler:8786`.
    """

    scheduler: str
    check: Check | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    jobs: int = 1

    @property
    def checked(self) -> Check:
        """Processes of this machine are believed like this one; others' results are compared."""
        return self.check or (Check.SAMPLE if self.scheduler == LOCAL else Check.TWICE)


class Workers:
    """The workers of one scheduler: those `there`, and those `refused` with the reason."""

    def __init__(self, client: Client, tell: Callable[[str], object]) -> None:
        """`tell` is told, in a sentence, of each worker that is not used."""
        self.client, self._tell = client, tell
        self._build = build_id()
        self._known: dict[str, bool] = {}
        self._strikes: Counter[str] = Counter()
        self.refused: dict[str, str] = {}
        self.there: frozenset[str] = frozenset()

    def usable(self) -> dict[str, int]:
        """Threads of each worker that may be used now, by address. New ones are asked what they run."""
        try:
            threads: dict[str, int] = dict(self.client.nthreads())
        except (OSError, TimeoutError) as error:
            raise OwnFault(f"the Dask scheduler does not answer any more: {error}. What was proven is kept.") from error
        self.there = frozenset(threads)
        for address in threads.keys() - self._known.keys():
            self._known[address] = self._runs_the_same(address)
        return {address: max(1, count) for address, count in threads.items() if self._known[address]}

    def blame(self, worker: str, why: str, *, certain: bool) -> None:
        """Count a wrong reply of a worker. The worker is used no more after a `certain` one, or after the third."""
        self._strikes[worker] += 1
        if self._known.get(worker) and (certain or self._strikes[worker] >= _MOST_STRIKES):
            self.refuse(worker, why)

    def warn(self, sentence: str) -> None:
        """Tell of something that was found out about a worker."""
        self._tell(sentence)

    def refuse(self, worker: str, why: str) -> None:
        """Use a worker no more."""
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

    def enlist(self, address: str, run: Run) -> bool:
        """Tell a worker of a run; whether it takes part."""
        return self._run_on(address, enlist, run) == self._build

    def dismiss(self, run: Run) -> None:
        """End a run on all workers."""
        for address in [address for address, good in self._known.items() if good]:
            self._run_on(address, dismiss, run.id)

    def _run_on(self, address: str, function: Callable[..., object], *arguments: object) -> object:
        try:
            answers = self.client.run(function, *arguments, workers=[address], on_error="return")
        except Exception as error:  # noqa: BLE001  it left meanwhile, or what it answered cannot be read
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
def opened_workers(options: ClusterOptions, tell: Callable[[str], object]) -> Iterator[Workers]:
    """Connect to the scheduler, or start processes here. Raises `OwnFault`, `BadConfig`."""
    logging.getLogger("distributed").setLevel(logging.ERROR)
    if options.scheduler == LOCAL:
        # Encrypted, with a key that only this process and its children know: other users of the machine could send
        # code to run otherwise.
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
            yield Workers(client, tell)
        return
    try:
        client = Client(options.scheduler, security=_security(options), timeout=_CONNECT, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
        raise OwnFault(
            f"no Dask scheduler answers at {options.scheduler}: {str(error)[:300]}. Nothing was read. Start one with "
            "`dask scheduler`, or leave the address out to use the cores of this machine."
        ) from error
    with client:
        yield Workers(client, tell)


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
    """One tree read by all workers: which of them were told of it, and the allowance they share."""

    def __init__(self, workers: Workers, run: Run, fetcher: HttpFetcher, rate: float) -> None:
        self.workers, self.run = workers, run
        self._fetcher = fetcher
        self._together = max(1, round(rate / _HAND_OUTS))
        self._requests = Queue(requests_queue(run.id), client=workers.client)
        self._most = max(_LEAST_WAITING, round(rate * _WAITING / self._together))
        self._enlisted: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._hand_out, daemon=True)

    def usable(self) -> dict[str, int]:
        """Threads of each worker that may be used and was told of the run."""
        threads = self.workers.usable()
        for address in threads.keys() - self._enlisted:
            if self.workers.enlist(address, self.run):
                self._enlisted.add(address)
        return {address: count for address, count in threads.items() if address in self._enlisted}

    def begin(self) -> None:
        """Hand out requests from now on."""
        self.workers.client.subscribe_topic(rests_topic(self.run.id), self._hear_of_rest)
        self._thread.start()

    def end(self) -> None:
        """Hand out no more, and let workers close what they opened."""
        self._ended.set()
        self._thread.join(_END)
        self.workers.client.unsubscribe_topic(rests_topic(self.run.id))
        self.workers.dismiss(self.run)
        self._requests.close()

    def _hand_out(self) -> None:
        """Put allowed requests where workers take them: the bucket is the one that this process asks by."""
        allowed, taken_back = 0, False
        try:
            while not self._ended.is_set():
                if self._fetcher.resting and not taken_back:
                    self._requests.get(batch=True)
                taken_back = self._fetcher.resting
                # While the log rests, or no worker asks, no more is allowed.
                if taken_back or self._requests.qsize() >= self._most:
                    self._ended.wait(_TICK)
                elif allowed == self._together:
                    self._requests.put(allowed)
                    allowed = 0
                elif self._fetcher.allow(self._ended.is_set):
                    allowed += 1
        except (OSError, RuntimeError, TimeoutError):
            return  # the scheduler is gone, and the pipeline says so

    def _hear_of_rest(self, event: tuple[float, object]) -> None:
        """The log told a worker to leave it alone: no other is allowed a request meanwhile."""
        seconds = event[1]
        if isinstance(seconds, int | float):
            self._fetcher.rest(seconds)


@contextmanager
def shared_run(
    workers: Workers,
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
    shared = SharedRun(workers, Run(token_hex(8), log, ca_pem, proxy, rules, trust), fetcher, rate)
    shared.begin()
    try:
        yield shared
    finally:
        shared.end()

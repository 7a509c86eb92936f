"""A worker of the cluster reads one range of a log, and returns its matches or rows with every leaf hash.

A worker's reply is untrusted: `monitor.cluster.pipeline` proves it. All workers of a run share one allowance of
requests to the log, which they take from a queue on the scheduler.
"""

import platform
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import pyarrow as pa
from distributed import Client, Queue, get_client, get_worker
from msgspec import Struct

import monitor
import rules
import sigstore_entries
import tlog
from monitor.archive.rows import DECODER, MADE_SCHEMA, RowTrust, rows_of
from monitor.following.follower import fetch, read_ahead
from monitor.following.scan_batch import BatchMatches, Fetched, RuleScanner, joined
from monitor.http_fetcher import HttpFetcher, Throttled
from monitor.logs.opening import open_sources
from monitor.model.errors import FetchFailed
from monitor.model.log_description import LogDescription
from monitor.model.log_source import LogSource, SignedHead, TimedEntry, hashes_of
from monitor.program import VERSION
from rules.matching.matcher import Matcher, compile_rules
from rules.rule import Rule

_PIECE: Final = 1024  # entries in memory at a time, beside those being fetched
_PIECE_BYTES: Final = 32 * 1024 * 1024
_AHEAD: Final = 2
_LONGEST_WAIT: Final = 900.0  # seconds to wait for one allowed request; a run that ended allows none
_UNSAID_REST: Final = 1.0
_MOST_RUNS: Final = 8  # runs whose connections and rules a worker keeps
# Two releases of one of these packages may read the same entry differently, and so make different rows.
_DECIDING: Final = ("pyarrow", "cryptography", "google-re2", "msgspec", "pysequoia")


class WorkerJob(Struct, frozen=True):
    """Instructions for a worker: the tree and how to ask it, and the rules; without rules it makes rows.

    `trust` is the trust root of the requesting process, by which chains in rows are judged.
    """

    id: str
    log: LogDescription
    ca_pem: str | None
    proxy: str | None
    rules: tuple[Rule, ...] | None
    trust: RowTrust | None = None


class Reply(Struct, frozen=True):
    """Entries `[start, stop)` as a worker read them. `hashes` are their leaf hashes, 32 bytes each.

    `rows` is an Arrow stream of `monitor.archive.rows.MADE_SCHEMA`, `scan` the matches of the rules. `timed` are the
    times that a Rekor v1 log claims. `requests` were asked of the log.
    """

    start: int
    stop: int
    hashes: bytes
    timed: tuple[TimedEntry, ...]
    rows: bytes | None
    scan: BatchMatches | None
    requests: int


class CouldNotAsk(Exception):
    """The worker could not read the range from the log."""


class NotEnlisted(Exception):
    """This process has no instructions for the run: it was started again since."""


@cache
def build_id() -> str:
    """Id of the code and libraries that read an entry; workers with the same id make the same rows and matches."""
    code = sha256()
    for package in (monitor, rules, sigstore_entries, tlog):
        root = Path(package.__file__ or "").parent
        for path in sorted(root.rglob("*.py")):
            code.update(f"{root.name}/{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    used = ", ".join(f"{name} {_version(name)}" for name in _DECIDING)
    python = ".".join(platform.python_version_tuple()[:2])
    return f"signwatch {VERSION} (code {code.hexdigest()[:12]}, decoder {DECODER}), Python {python}, {used}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def requests_queue(run: str) -> str:
    """Name of the queue from which workers take a permit for each request."""
    return f"signwatch-requests-{run}"


def rests_topic(run: str) -> str:
    """Topic of events that say for how many seconds the log wants no request."""
    return f"signwatch-rests-{run}"


class SharedAllowance:
    """Requests that this process may still make; further ones come from a queue on the scheduler."""

    def __init__(self, run: str, client: Client, tell: Callable[[str, float], object]) -> None:
        self._requests = Queue(requests_queue(run), client=client)
        self._tell_rest = partial(tell, rests_topic(run))
        self._lock = threading.Lock()
        self._left = 0
        self.taken = 0

    def take(self) -> None:
        """Wait until one request is allowed, and count it. Raises `FetchFailed` if the run allows none."""
        with self._lock:
            if self._left == 0:
                try:
                    self._left = int(self._requests.get(timeout=_LONGEST_WAIT))
                except TimeoutError as error:
                    raise FetchFailed(f"no request to the log was allowed for {_LONGEST_WAIT:.0f} seconds") from error
            self._left -= 1
            self.taken += 1

    def rest(self, seconds: float) -> None:
        """Tell the run that the log wants rest: no worker may make a request for `seconds`."""
        with self._lock:
            self._left = 0
        self._tell_rest(seconds)

    def pause(self, seconds: float) -> None:
        """Stop the requests of all workers for `seconds`, and wait that long."""
        self.rest(seconds)
        time.sleep(seconds)


class _Taking:
    """A process's part in one run."""

    def __init__(self, run: WorkerJob) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._source: LogSource | None = None
        self._fetcher: HttpFetcher | None = None
        self._matcher: Matcher | None = None
        self._allowance: SharedAllowance | None = None

    def read(self, start: int, stop: int, head: SignedHead) -> Reply:
        """Read a range. Raises `FetchFailed`."""
        source, allowance, matcher = self._opened()
        before = allowance.taken
        with ThreadPoolExecutor(_AHEAD, thread_name_prefix="fetch") as executor:
            batches = read_ahead(
                lambda part: fetch(source, head, part, _PIECE_BYTES),
                range(start, stop),
                batch_entries=_PIECE,
                ahead=_AHEAD,
                executor=executor,
            )
            try:
                return self._made(batches, (start, stop), matcher, lambda: allowance.taken - before)
            except Throttled as error:
                allowance.rest(error.retry_after or _UNSAID_REST)
                raise

    def _made(
        self, batches: Iterator[Fetched], span: tuple[int, int], matcher: Matcher | None, asked: Callable[[], int]
    ) -> Reply:
        log, api = self._run.log.name, self._run.log.apis[0]
        hashes: list[bytes] = []
        timed: list[TimedEntry] = []
        rows: list[pa.RecordBatch] = []
        scans: list[BatchMatches] = []
        for fetched in batches:
            timed += fetched.timed
            if matcher is None:
                rows.append(rows_of(fetched.entries, fetched.start, log, api, self._run.trust))
                hashes += rows[-1]["leaf_hash"].to_pylist()
            else:
                hashes += hashes_of(fetched.entries)
                scans.append(RuleScanner(matcher).scan(fetched.entries, fetched.start, log, api))
        return Reply(
            *span,
            b"".join(hashes),
            tuple(timed),
            to_stream(rows) if matcher is None else None,
            None if matcher is None else joined(scans),
            asked(),
        )

    def _opened(self) -> tuple[LogSource, SharedAllowance, Matcher | None]:
        with self._lock:
            if self._source is None or self._allowance is None:
                self._allowance = SharedAllowance(self._run.id, get_client(), get_worker().log_event)
                self._fetcher = _fetcher(self._run, self._allowance)
                (self._source,) = open_sources(self._run.log, self._fetcher)
            if self._matcher is None and self._run.rules is not None:
                self._matcher = compile_rules(self._run.rules)
            return self._source, self._allowance, self._matcher

    def close(self) -> None:
        """Close connections."""
        with self._lock:
            if self._fetcher is not None:
                self._fetcher.close()
            self._source = self._fetcher = None


_runs: OrderedDict[str, _Taking] = OrderedDict()
_runs_lock = threading.Lock()


def enlist(run: WorkerJob) -> str:
    """Take part in a run; returns `build_id()`. Closes the connections of the oldest runs beyond a fixed number."""
    with _runs_lock:
        _runs[run.id] = _Taking(run)
        while len(_runs) > _MOST_RUNS:
            _runs.popitem(last=False)[1].close()
    return build_id()


def dismiss(run: str) -> None:
    """Close the connections of a run that ended."""
    with _runs_lock:
        taking = _runs.pop(run, None)
    if taking is not None:
        taking.close()


def read_range(run: str, start: int, stop: int, head: SignedHead) -> Reply:
    """Read entries `[start, stop)`. Raises `CouldNotAsk`, `NotEnlisted`."""
    with _runs_lock:
        taking = _runs.get(run)
    if taking is None:
        raise NotEnlisted("this worker was started again and was not told of the run")
    try:
        return taking.read(start, stop, head)
    except FetchFailed as error:
        raise CouldNotAsk(str(error)[:2_000]) from None


def _fetcher(run: WorkerJob, allowance: SharedAllowance) -> HttpFetcher:
    if run.ca_pem is None:
        return HttpFetcher(run.log.url, bucket=allowance, pause=allowance.pause, proxy=run.proxy)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(run.ca_pem)
        file.flush()
        return HttpFetcher(run.log.url, bucket=allowance, pause=allowance.pause, ca_file=file.name, proxy=run.proxy)


def to_stream(rows: list[pa.RecordBatch]) -> bytes:
    """Rows as a compressed Arrow stream."""
    made = pa.BufferOutputStream()
    with pa.ipc.new_stream(made, MADE_SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        for each in rows:
            stream.write_batch(each)
    raw: bytes = made.getvalue().to_pybytes()
    return raw

"""A large backlog is scanned in other processes with the same result, and they end when the monitor does."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from monitor.config import LogConfig, Objectives
from monitor.daemon.assembly import uses_processes
from monitor.following.scan_batch import BatchMatches, Fetched, RuleScanner, Scanner, scan_batch
from monitor.following.workers import ScanPool, ScanWorkers
from monitor.judging.active_rules import HeldRules, RuleKeeper
from monitor.model.errors import FetchFailed, OwnFault
from monitor.model.log_source import LogApi, LogEntry
from tests.support.served_log import RULES, signing_body
from tests.support.waiting import PATIENCE, is_alive
from tlog.merkle import Frontier

SIZE = 16
BODIES = [signing_body(), signing_body("refs/heads/x"), b"{}", b'{"kind": "hashedrekord"}']


def batches(count: int) -> Iterator[Fetched]:
    for number in range(count):
        start = number * SIZE
        yield Fetched(start, tuple(LogEntry(BODIES[(start + i) % 4]) for i in range(SIZE)))


@pytest.fixture
def rules(tmp_path: Path) -> RuleKeeper:
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")
    return RuleKeeper(tmp_path / "rules.yaml", ["file"])


@pytest.fixture
def scan_workers() -> Iterator[ScanWorkers]:
    made = ScanWorkers(2)
    yield made
    made.close()


def inline(held: HeldRules, count: int) -> list[object]:
    scanner = RuleScanner(held.matcher)
    return [scan_batch(each.entries, each.start, "v2", LogApi.REKOR_V2, scanner) for each in batches(count)]


def test_processes_find_exactly_what_one_finds_in_the_same_order(rules: RuleKeeper, scan_workers: ScanWorkers) -> None:
    run = scan_workers.batch_scanner(rules.held, "v2", LogApi.REKOR_V2)
    frontier, found = Frontier(), []
    for _, scanned in run(batches(12)):
        frontier = scanned.extend(frontier)
        found.append(scanned)
    assert scan_workers.running
    assert found == inline(rules.held, 12)
    assert sum(len(each.scan.hits) for each in found) == 12 * SIZE // 2
    assert frontier.size == 12 * SIZE


def test_a_small_backlog_starts_no_process(rules: RuleKeeper, scan_workers: ScanWorkers) -> None:
    run = scan_workers.batch_scanner(rules.held, "v2", LogApi.REKOR_V2)
    assert [scanned for _, scanned in run(batches(2))] == inline(rules.held, 2)
    assert not scan_workers.running


def test_what_fetching_raises_comes_after_the_batches_before_it(rules: RuleKeeper, scan_workers: ScanWorkers) -> None:
    def failing() -> Iterator[Fetched]:
        yield from batches(5)
        raise FetchFailed("down")

    seen: list[int] = []
    with pytest.raises(FetchFailed, match="down"):
        seen.extend(
            fetched.start for fetched, _ in scan_workers.batch_scanner(rules.held, "v2", LogApi.REKOR_V2)(failing())
        )
    assert seen == [number * SIZE for number in range(5)]


def test_how_far_is_read_ahead_is_bounded(rules: RuleKeeper, scan_workers: ScanWorkers) -> None:
    taken = 0

    def counted() -> Iterator[Fetched]:
        nonlocal taken
        for each in batches(40):
            taken += 1
            yield each

    for done, _ in enumerate(scan_workers.batch_scanner(rules.held, "v2", LogApi.REKOR_V2)(counted()), 1):
        assert taken - done <= 5


@pytest.mark.parametrize(("bytes_of", "most"), [(1, 2), (3, 4)])
def test_large_batches_are_read_ahead_by_their_bytes(rules: RuleKeeper, bytes_of: int, most: int) -> None:
    """Batches of many megabytes each, twice as many as cores, would be more than a machine has."""
    begun, done, seen = 0, 0, 0
    one = next(batches(1)).size

    def counted() -> Iterator[Fetched]:
        nonlocal begun, seen
        for each in batches(12):
            begun += 1
            seen = max(seen, begun - done)
            yield each

    pool = ScanPool(rules.held.matcher, 2, spawn_with=rules.held.rules, ahead_bytes=bytes_of * one)
    try:
        for _ in pool.batch_scanner("v2", LogApi.REKOR_V2)(counted()):
            done += 1
    finally:
        pool.close()
    assert done == 12
    assert seen <= most


def test_new_rules_are_what_the_next_batches_are_examined_with(
    rules: RuleKeeper, scan_workers: ScanWorkers, tmp_path: Path
) -> None:
    before = rules.held
    old = scan_workers.batch_scanner(before, "v2", LogApi.REKOR_V2)(batches(8))
    first = [next(old)[1] for _ in range(4)]
    (tmp_path / "rules.yaml").write_text(RULES.replace("acme", "other"), encoding="utf-8")
    after = rules.reload()
    new = [scanned for _, scanned in scan_workers.batch_scanner(after, "v2", LogApi.REKOR_V2)(batches(8))]
    assert new == inline(after, 8)
    assert not any(each.scan.hits for each in new)
    assert [*first, *(scanned for _, scanned in old)] == inline(before, 8), "a pass under way keeps its rules"


def test_a_killed_process_is_our_trouble_and_the_next_pass_starts_anew(
    rules: RuleKeeper, scan_workers: ScanWorkers
) -> None:
    running = scan_workers.batch_scanner(rules.held, "v2", LogApi.REKOR_V2)(batches(200))
    for _ in range(4):
        next(running)
    assert scan_workers._running is not None
    assert scan_workers._running.pool._pool is not None
    for process in scan_workers._running.pool._pool._processes.values():
        process.kill()
    with pytest.raises(OwnFault, match="was killed"):
        for _ in running:
            pass
    assert not scan_workers.running
    again = scan_workers.batch_scanner(rules.held, "v2", LogApi.REKOR_V2)
    assert [scanned for _, scanned in again(batches(4))] == inline(rules.held, 4)


PROGRAM = """\
import sys, time
from pathlib import Path
from monitor.following.workers import ScanWorkers
from monitor.judging.active_rules import RuleKeeper
from monitor.model.log_source import LogApi
from tests.following.test_examining import batches

if __name__ == "__main__":
    scan_workers = ScanWorkers(2)
    run = scan_workers.batch_scanner(RuleKeeper(Path(sys.argv[1]), ["file"]).held, "v2", LogApi.REKOR_V2)(batches(100))
    for _ in range(8):
        next(run)
    print(*(each.pid for each in scan_workers._running.pool._pool._processes.values()), flush=True)
    time.sleep(60)
"""


def test_processes_end_with_a_parent_that_was_killed(rules: RuleKeeper, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    root = Path(__file__).parents[2]
    command = [sys.executable, str(program), str(tmp_path / "rules.yaml")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    ) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
        parent.wait(PATIENCE)
    assert workers
    deadline = time.monotonic() + PATIENCE
    while any(is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_alive(pid) for pid in workers)


@pytest.mark.parametrize(
    ("api", "rate", "wanted", "uses"),
    [
        (LogApi.REKOR_V2, None, None, False),
        (LogApi.REKOR_V2, 1_000, None, True),
        (LogApi.REKOR_V1, 1_000, None, False),
        (LogApi.CT_RFC6962, None, None, False),
        (LogApi.CT_RFC6962, 100, None, True),
        (None, 1_000, None, True),
        (LogApi.REKOR_V2, None, 3, True),
        (LogApi.REKOR_V2, 1_000, 1, False),
    ],
)
def test_processes_are_for_logs_that_bring_more_than_one_can_examine(
    api: LogApi | None, rate: int | None, wanted: int | None, *, uses: bool
) -> None:
    log = LogConfig("log", "https://log.example", api, requests_per_second=rate)
    assert uses_processes(Objectives(examine_processes=wanted), log) is uses


def test_one_thread_of_a_process_scans_at_a_time() -> None:
    met = threading.Barrier(2)

    class Meeting(Scanner):
        def scan(self, entries: Sequence[LogEntry], start: int, log: str, api: LogApi) -> BatchMatches:
            with suppress(threading.BrokenBarrierError):
                met.wait(0.5)
                pytest.fail("two threads were here at once")
            return BatchMatches()

    with ThreadPoolExecutor(2) as threads:
        entries = (LogEntry(b"{}"),)
        both = [threads.submit(scan_batch, entries, 0, "v2", LogApi.REKOR_V2, Meeting()) for _ in range(2)]
        assert [each.result(PATIENCE).end for each in both] == [1, 1]

"""A range of a log is read, proven and judged as following does it; killed anywhere, it ends the same."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from alerts.alert import Alert
from monitor.backscan.ledger import ScanLedger, Scope, Unfinished, open_ledger
from monitor.backscan.progress import PassingProgress, Progress, ScanState
from monitor.backscan.range import NotInLog, ScanEnvironment, begin_range, scan_range
from monitor.following.follower import BatchScanner, Timing
from monitor.following.scan_batch import Fetched, ScannedBatch, scan_batch
from monitor.following.workers import ScanPool
from monitor.model.errors import FetchFailed, LogMisbehaved, OwnFault
from monitor.model.log_source import LogApi, Position
from monitor.model.state import Batch
from rules.matching.matcher import compile_rules
from tests.support.harness import KINDS, NOW, EverythingIsNews, NumberScanner
from tests.support.memory_state import Died, Steps
from tests.support.misbehaving_log import MisbehavingLog, RekorV1Log, RekorV2Log

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.api)
WORLD = ScanEnvironment(Timing(lambda: NOW, lambda _: None), batch_entries=64)


class Sevenths(ScanPool):
    """Examines in this process, with the scanner that selects every seventh entry."""

    def __init__(self, batches: list[tuple[int, int]] | None = None) -> None:
        super().__init__(compile_rules(()), 1)
        self.batches = [] if batches is None else batches

    def batch_scanner(self, log: str, api: LogApi) -> BatchScanner:
        def run(batches: Iterator[Fetched]) -> Iterator[tuple[Fetched, ScannedBatch]]:
            for fetched in batches:
                self.batches.append((fetched.start, fetched.end))
                yield fetched, scan_batch(fetched.entries, fetched.start, log, api, NumberScanner())

        return run


class Mortal:
    """Progress that dies before or after a write, at the step it was told to."""

    def __init__(self, progress: Progress, steps: Steps) -> None:
        self._progress, self._steps = progress, steps

    def position(self, log: str) -> Position | None:
        return self._progress.position(log)

    def baseline(self, position: Position, how: str) -> None:
        self._progress.baseline(position, how)

    def advance(self, old: Position, new: Position, batch: Batch, alerts: Sequence[Alert]) -> None:
        self._steps.step()
        self._progress.advance(old, new, batch, alerts)
        self._steps.step()


def scope(log: str, first: int, last: int | None, rules: str = "r") -> Scope:
    return Scope(log, "key", first, last, rules)


def scan(
    log: MisbehavingLog,
    folder: Path,
    first: int,
    last: int | None,
    *,
    steps: Steps | None = None,
    resume: bool = True,
    pool: ScanPool | None = None,
) -> tuple[Position, list[int]]:
    """One life of a scanning process; returns where it ended and the entries it found."""
    source = log.source()
    name = source.identity.log

    def begin() -> tuple[Position, int]:
        return begin_range(source, None, first, last, state=ScanState(PassingProgress(), None), world=WORLD)

    with open_ledger(folder, scope(name, first, last), begin, lambda: NOW, lambda _: None, resume=resume) as ledger:
        state = ScanState(Mortal(ledger, steps or Steps()), None)
        reached = scan_range(source, state, EverythingIsNews(), pool or Sevenths(), last=ledger.last, world=WORLD)
        return reached, [finding.index for finding in ledger.findings()]


def sevenths(first: int, last: int) -> list[int]:
    return [index for index in range(first, last) if index % 7 == 0]


@kinds
@pytest.mark.parametrize(("first", "last"), [(0, 300), (1, 2), (17, 290), (256, 300), (100, None)])
def test_every_entry_of_a_range_is_offered_once_and_proven(
    kind: type[MisbehavingLog], first: int, last: int | None, tmp_path: Path
) -> None:
    log = kind()
    log.grow(300)
    pool = Sevenths()
    reached, found = scan(log, tmp_path, first, last, pool=pool)
    end = 300 if last is None else last
    assert found == sevenths(first, end)
    assert reached.frontier.size == end
    assert reached.frontier.root() == log.oracle().root(end)
    read = [index for start, stop in pool.batches for index in range(start, stop)]
    assert read == list(range(first, end))


@pytest.mark.parametrize("kind", [RekorV1Log, RekorV2Log], ids=lambda k: k.api)
def test_killed_around_any_commit_a_resumed_scan_ends_with_the_same_findings(
    kind: type[MisbehavingLog], tmp_path: Path
) -> None:
    log = kind()
    log.grow(200)
    undisturbed = Steps()
    expected, found = scan(log, tmp_path / "whole", 5, None, steps=undisturbed)
    assert undisturbed.taken >= 6
    for step in range(1, undisturbed.taken + 1):
        folder = tmp_path / str(step)
        with pytest.raises(Died):
            scan(log, folder, 5, None, steps=Steps(die_at=step))
        pool = Sevenths()
        reached, found_again = scan(log, folder, 5, None, pool=pool)
        assert (reached.frontier, found_again) == (expected.frontier, found), step
        if step > 2:
            assert pool.batches == [] or pool.batches[0][0] > 5, "what was proven is not read again"


def test_an_ended_scan_is_not_begun_anew_by_accident_nor_mixed_with_other_rules(tmp_path: Path) -> None:
    log = RekorV2Log()
    log.grow(100)
    with pytest.raises(Died):
        scan(log, tmp_path, 0, None, steps=Steps(die_at=1))
    with pytest.raises(Unfinished, match="--resume"):
        scan(log, tmp_path, 0, None, resume=False)
    with (
        pytest.raises(Unfinished, match="other rules"),
        open_ledger(tmp_path, scope("v2", 0, None, "s"), not_called, lambda: NOW, lambda _: None, resume=True),
    ):
        raise AssertionError
    # The control case: the same words go on, and a scan that ended well leaves nothing behind.
    assert scan(log, tmp_path, 0, None)[1] == sevenths(0, 100)
    assert list(tmp_path.iterdir()) == []


def test_a_scan_that_begins_anew_reads_nothing_of_a_killed_one(tmp_path: Path) -> None:
    """A killed scan leaves SQLite's write-ahead log beside its ledger, and a person removes the ledger alone."""
    log = RekorV2Log()
    log.grow(300)
    name = scope("v2", 0, 300)
    path = tmp_path / f"{name.id()}.db"
    wal = path.with_name(f"{path.name}-wal")
    kept = path.with_name("kept")

    def killed() -> None:
        with open_ledger(tmp_path, name, begin, lambda: NOW, lambda _: None, resume=False) as ledger:
            scan_range(log.source(), ScanState(ledger, None), EverythingIsNews(), Sevenths(), last=300, world=WORLD)
            shutil.copy(wal, kept)
            raise Died

    def begin() -> tuple[Position, int]:
        return begin_range(log.source(), None, 0, 300, state=ScanState(PassingProgress(), None), world=WORLD)

    with pytest.raises(Died):
        killed()
    assert kept.stat().st_size > 0
    path.unlink()
    kept.rename(wal)
    with open_ledger(tmp_path, name, begin, lambda: NOW, lambda _: None, resume=False) as ledger:
        assert list(ledger.findings()) == []


def not_called() -> tuple[Position, int]:
    raise AssertionError


@pytest.mark.parametrize("resumed", [False, True])
def test_a_scan_that_is_running_is_neither_resumed_nor_begun_beside_itself(tmp_path: Path, *, resumed: bool) -> None:
    log = RekorV2Log()
    log.grow(10)
    source = log.source()
    name = source.identity.log

    def begin() -> tuple[Position, int]:
        return begin_range(source, None, 0, None, state=ScanState(PassingProgress(), None), world=WORLD)

    def opened(begun: Callable[[], tuple[Position, int]], *, resume: bool) -> AbstractContextManager[ScanLedger]:
        return open_ledger(tmp_path, scope(name, 0, None), begun, lambda: NOW, lambda _: None, resume=resume)

    if resumed:
        with pytest.raises(Died), opened(begin, resume=False):
            raise Died
    with opened(begin, resume=resumed):
        for resume in (True, False):
            with pytest.raises(OwnFault, match="running already"), opened(not_called, resume=resume):
                raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_half_made_when_killed_is_no_ledger(tmp_path: Path) -> None:
    log = RekorV2Log()
    log.grow(20)
    name = scope(log.source().identity.log, 0, None).id()
    (tmp_path / f"{name}.new").write_bytes(b"SQLite format 3\0 and then the power went")
    assert scan(log, tmp_path, 0, None)[1] == sevenths(0, 20)


def test_a_ledger_that_was_cut_short_is_told_and_never_taken_for_a_new_scan(tmp_path: Path) -> None:
    log = RekorV2Log()
    log.grow(100)
    with pytest.raises(Died):
        scan(log, tmp_path, 0, None, steps=Steps(die_at=2))
    (ledger,) = tmp_path.glob("*.db")
    ledger.write_bytes(ledger.read_bytes()[:1000])
    for beside in tmp_path.glob("*-wal"):
        beside.unlink()
    with pytest.raises(OwnFault, match="damaged"):
        scan(log, tmp_path, 0, None)


@kinds
def test_a_range_beyond_the_log_is_refused(kind: type[MisbehavingLog], tmp_path: Path) -> None:
    log = kind()
    log.grow(10)
    for first, last in ((0, 11), (11, None), (5, 4)):
        with pytest.raises(NotInLog, match="has 10 entries"):
            scan(log, tmp_path, first, last)
    assert not list(tmp_path.glob("*.db"))
    assert scan(log, tmp_path, 0, 10)[1] == sevenths(0, 10)  # the control case


@kinds
def test_a_swapped_entry_ends_the_scan_before_it_and_leaves_evidence(
    kind: type[MisbehavingLog], tmp_path: Path
) -> None:
    log = kind()
    log.grow(300)
    log.swap_leaf(201, log.leaf(4711))
    with pytest.raises(LogMisbehaved) as caught:
        scan(log, tmp_path, 0, None)
    assert caught.value.kind == "log-entries-not-in-tree"
    assert [index for index, _ in caught.value.evidence.leaves] == [201]
    log.honest()
    reached, found = scan(log, tmp_path, 0, None)
    assert (reached.frontier.size, found) == (300, sevenths(0, 300))


@kinds
def test_a_hidden_entry_is_held_against_the_log_after_several_passes(
    kind: type[MisbehavingLog], tmp_path: Path
) -> None:
    log = kind()
    log.grow(300)
    log.hide_leaf(250)
    with pytest.raises(LogMisbehaved) as caught:
        scan(log, tmp_path, 0, None)
    assert caught.value.kind == "log-entry-missing"


@kinds
def test_a_log_that_forks_during_a_scan_is_caught(kind: type[MisbehavingLog], tmp_path: Path) -> None:
    log = kind()
    log.grow(300)
    with pytest.raises(Died):
        scan(log, tmp_path, 0, None, steps=Steps(die_at=2))
    log.rewrite_from(120)
    log.grow(30)
    with pytest.raises(LogMisbehaved) as caught:
        scan(log, tmp_path, 0, None)
    assert caught.value.kind == "log-forked"


@kinds
def test_an_outage_is_waited_out_and_one_that_lasts_leaves_the_scan_to_be_resumed(
    kind: type[MisbehavingLog], tmp_path: Path
) -> None:
    log = kind()
    log.grow(300)
    control = scan(log, tmp_path / "control", 0, 300)
    broken = kind()
    broken.grow(300)
    assert list(broken.leaves) == list(log.leaves)
    with pytest.raises(Died):
        scan(broken, tmp_path, 0, 300, steps=Steps(die_at=2))
    broken.fail(".", FetchFailed("down"), times=3)
    assert scan(broken, tmp_path, 0, 300)[1] == control[1]
    with pytest.raises(Died):
        scan(broken, tmp_path, 1, 300, steps=Steps(die_at=1))
    broken.fail(".", FetchFailed("down"))
    with pytest.raises(FetchFailed, match="down"):
        scan(broken, tmp_path, 1, 300)
    broken.honest()
    assert scan(broken, tmp_path, 1, 300)[1] == sevenths(1, 300)

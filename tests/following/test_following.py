"""Following an honest log: everything is read, proven and committed once, wherever it starts and however it is cut."""

import dataclasses
import itertools
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from typing_extensions import override

from monitor.following.follower import FollowLimits, Timing, Waiting, baseline, read_ahead
from monitor.following.scan_batch import Fetched
from monitor.http_fetcher import ServerFailed
from monitor.model.errors import FetchFailed, LogMisbehaved, OwnFault, StateConflict
from monitor.model.log_source import LogEntry, TrustedHead
from tests.support.harness import KINDS, NOW, Watch, watch
from tests.support.memory_state import Died, MemoryState, Steps
from tests.support.misbehaving_log import CtRfc6962Log, MisbehavingLog, RekorV1Log, RekorV2Log
from tlog.merkle import Frontier, RootHash

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.api)


@kinds
def test_every_entry_of_an_honest_log_is_read_and_proven(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 300)
    assert seen.found() == list(range(0, 300, 7))
    assert seen.state.kinds == {"test": 300}
    seen.check()


@kinds
def test_growth_is_followed_from_where_it_stopped(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 10)
    for count in (1, 5, 60, 200, 1):
        seen.log.grow(count)
        assert seen.follow().entries == count
        seen.check()
    assert seen.found() == list(range(0, 277, 7))


@kinds
def test_an_empty_log_is_followed_from_its_first_entry(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 0)
    assert seen.found() == []
    seen.log.grow(3)
    seen.follow()
    assert seen.found() == [0]
    seen.check()


@kinds
def test_a_quiet_log_changes_nothing(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 20)
    batches = len(seen.state.batches)
    assert seen.follow().entries == 0
    assert len(seen.state.batches) == batches
    assert len(seen.state.heads) == 1


@kinds
@pytest.mark.parametrize("start", [0, 1, 2, 63, 64, 65, 255, 256, 257, 299, 300])
def test_following_starts_anywhere_and_still_proves_everything_after(kind: type[MisbehavingLog], start: int) -> None:
    seen = watch(kind, 300, start)
    assert seen.position.frontier.size == 300
    assert seen.found() == [i for i in range(0, 300, 7) if i >= start]
    seen.log.grow(20)
    seen.follow()
    seen.check()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 600), st.data())
def test_a_frontier_of_any_size_is_the_oracles(kind: type[MisbehavingLog], size: int, data: st.DataObject) -> None:
    log = kind()
    log.grow(size)
    source = log.source()
    start = data.draw(st.integers(0, size))
    frontier = source.frontier(start, source.latest())
    assert frontier.size == start
    assert frontier.root() == log.oracle().root(start)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 400), st.integers(1, 400), st.booleans())
def test_findings_do_not_depend_on_the_size_of_batches(
    kind: type[MisbehavingLog], entries: int, batch: int, ahead: bool
) -> None:
    log = kind()
    log.grow(entries)
    seen = Watch(log, limits=FollowLimits(batch_entries=batch))
    with ThreadPoolExecutor(2) as executor:
        seen.follower._executor = executor if ahead else None
        seen.begin()
    assert seen.found() == list(range(0, entries, 7))
    assert [b.start for b in seen.state.batches][1:] == [b.end for b in seen.state.batches][:-1]
    seen.check()


@kinds
def test_a_batch_cut_short_by_its_bytes_loses_nothing(kind: type[MisbehavingLog]) -> None:
    log = kind()
    log.grow(120)
    seen = Watch(log, limits=FollowLimits(batch_entries=50, batch_bytes=600))
    with ThreadPoolExecutor(2) as executor:
        seen.follower._executor = executor
        seen.begin()
    assert seen.found() == list(range(0, 120, 7))
    seen.check()


def test_a_pass_may_end_early_and_the_next_goes_on() -> None:
    log = RekorV1Log()
    log.grow(100)
    seen = Watch(log, limits=FollowLimits(batch_entries=10, entries_per_pass=30)).begin()
    assert [seen.follow().backlog for _ in range(4)] == [40, 10, 0, 0]
    assert seen.found() == list(range(0, 100, 7))


def test_a_request_to_stop_ends_the_pass_after_a_commit() -> None:
    log = RekorV2Log()
    log.grow(300)
    seen = Watch(log)
    baseline(seen.source, seen.state, 0)
    seen.follower._stop = lambda: len(seen.state.batches) >= 2
    report = seen.follow()
    assert report.position.frontier.size == 128
    assert report.backlog == 172
    seen.check()


def test_an_unreadable_entry_is_kept_and_told_and_the_next_one_still_matches() -> None:
    seen = watch(RekorV2Log, 17)
    seen.log.append(*(b"garbage %d" % i for i in range(4)))
    seen.log.grow(3)
    seen.follow()
    assert sorted(index for _, index in seen.state.unreadable) == [17, 18, 19, 20]
    assert 21 in seen.found()
    told = [a for a in seen.state.outbox.values() if a.kind == "entry-unreadable"]
    assert [(a.index, dict(a.facts)["Entries"]) for a in told] == [(17, "4")]


def test_a_missing_position_is_never_a_first_run() -> None:
    seen = watch(RekorV2Log, 5)
    seen.state.positions.clear()
    with pytest.raises(OwnFault, match="signwatch init"):
        seen.follow()
    assert seen.state.positions == {}


def _flipped(raw: bytes) -> bytes:
    return bytes([raw[0] ^ 1]) + raw[1:]


@kinds
@pytest.mark.parametrize("part", ["frontier at the head", "frontier behind the head", "root", "note", "size"])
def test_damage_of_our_own_is_never_blamed_on_the_log(kind: type[MisbehavingLog], part: str) -> None:
    seen = watch(kind, 100)
    seen.log.grow(50)
    if part == "frontier behind the head":
        seen.log.fail("retrieve|entries|data", ServerFailed("HTTP 503", 503))
        with pytest.raises(FetchFailed):
            seen.follow()
        seen.log.honest()
    good = seen.position
    head, frontier = good.head.head, good.frontier
    damaged = {
        "frontier at the head": replace(
            good, frontier=Frontier(100, (_flipped(frontier.hashes[0]), *frontier.hashes[1:]))
        ),
        "frontier behind the head": replace(
            good, frontier=Frontier(100, (_flipped(frontier.hashes[0]), *frontier.hashes[1:]))
        ),
        "root": replace(good, head=TrustedHead(dataclasses.replace(head, root=RootHash(_flipped(head.root))))),
        "note": replace(good, head=TrustedHead(dataclasses.replace(head, raw=head.raw.replace(b"1", b"2")))),
        "size": replace(good, head=TrustedHead(dataclasses.replace(head, size=head.size + 1))),
    }[part]
    seen.state.positions[seen.name] = damaged
    with pytest.raises(OwnFault, match="the stored position is damaged"):
        seen.follow()
    assert seen.state.evidence == {}
    assert seen.position == damaged
    seen.state.positions[seen.name] = good
    seen.follow()
    seen.check()


def test_a_restored_older_backup_is_followed_forward_again() -> None:
    seen = watch(RekorV2Log, 100)
    backup = seen.position
    seen.log.grow(50)
    seen.follow()
    seen.state.positions[seen.name] = backup
    seen.log.grow(10)
    assert seen.follow().entries == 60
    assert seen.found() == list(range(0, 160, 7))
    seen.check()


def test_a_baseline_is_made_once_and_says_how() -> None:
    seen = watch(RekorV2Log, 5, 2)
    assert seen.state.baselines == {"v2": "index 2 of 5"}
    with pytest.raises(StateConflict):
        baseline(seen.source, seen.state, "head")


def test_a_baseline_at_the_head_reads_only_what_comes_after() -> None:
    log = RekorV2Log()
    log.grow(70)
    seen = Watch(log)
    baseline(seen.source, seen.state, "head")
    seen.follow()
    assert seen.found() == []
    log.grow(1)
    seen.follow()
    assert seen.found() == [70]


def test_a_baseline_past_the_end_is_refused() -> None:
    log = RekorV2Log()
    log.grow(70)
    with pytest.raises(OwnFault, match="cannot start at entry 71"):
        baseline(log.source(), MemoryState(), 71)


@kinds
def test_an_outage_is_not_the_logs_lie_and_nothing_is_lost(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.grow(100)
    seen.log.fail("entries|tile", ServerFailed("HTTP 503", 503))
    with pytest.raises(FetchFailed) as failure:
        seen.follow()
    assert failure.value.reason == "server-failed"
    assert seen.state.evidence == {}
    assert not [a for a in seen.state.outbox.values() if a.kind.startswith("log-")]
    seen.log.honest()
    seen.follow()
    assert seen.found() == list(range(0, 200, 7))
    seen.check()


def test_two_daemons_at_once_end_with_the_same_findings() -> None:
    log = RekorV2Log()
    log.grow(200)
    state = MemoryState()
    one = Watch(log, state).begin()
    two = Watch(log, state)
    log.grow(200)
    stale = one.position

    class StalePosition:
        """The other daemon reads the position just before this one moves it."""

        def __init__(self) -> None:
            self.answers = [stale]

        def __getattr__(self, name: str) -> object:
            return getattr(state, name)

        def position(self, name: str) -> object:
            return self.answers.pop() if self.answers else state.position(name)

    one.follow()
    two.follower._state = StalePosition()  # type: ignore[assignment]
    two.follow()
    assert two.found() == list(range(0, 400, 7))
    two.check()


@pytest.mark.parametrize("kind", [RekorV2Log, RekorV1Log, CtRfc6962Log], ids=lambda k: k.api)
def test_killed_at_any_step_it_ends_with_the_same_findings(kind: type[MisbehavingLog]) -> None:
    """Promise 3, with the loop running until a pass dies nowhere, so new steps are covered by themselves."""

    def story(steps: Steps) -> MemoryState:
        log = kind()
        log.grow(90)
        state = MemoryState(steps)
        seen = Watch(log, state, FollowLimits(batch_entries=32))
        for count in (0, 100, 1):
            log.grow(count)
            for _ in range(2):
                seen.restart()
                try:
                    if state.position(seen.name) is None:
                        baseline(seen.source, state, 0)
                    seen.follow()
                    break
                except Died:
                    continue
        seen.check()
        return state

    undisturbed = story(Steps())
    assert undisturbed.steps.taken > 10
    for step in range(1, undisturbed.steps.taken + 1):
        disturbed = story(Steps(die_at=step))
        assert disturbed.findings == undisturbed.findings, step
        assert disturbed.outbox == undisturbed.outbox, step
        assert disturbed.positions.keys() == undisturbed.positions.keys()


def test_killed_while_keeping_evidence_it_is_kept_once_and_told_once() -> None:
    def story(steps: Steps) -> MemoryState:
        log = RekorV2Log()
        log.grow(100)
        seen = Watch(log, MemoryState()).begin()
        seen.state.steps = steps
        log.rewrite_from(50)
        for _ in range(2):
            try:
                seen.follow()
            except Died:
                seen.restart()
                continue
            except LogMisbehaved:
                break
        return seen.state

    undisturbed = story(Steps())
    for step in range(1, undisturbed.steps.taken + 1):
        disturbed = story(Steps(die_at=step))
        assert disturbed.evidence.keys() == undisturbed.evidence.keys()
        assert disturbed.outbox == undisturbed.outbox


class AtOnce(Executor):
    """Runs each call when it is submitted."""

    def __init__(self) -> None:
        self.calls = 0

    @override
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls += 1
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@pytest.mark.parametrize(("worked", "begun"), [(1, [2, 3, 4, 5, 6]), (2, [1, 2, 3, 4, 5])])
def test_a_batch_is_read_beside_another_only_where_the_log_keeps_us_waiting(worked: int, begun: list[int]) -> None:
    clock, executor = itertools.count(), AtOnce()
    # A read takes three ticks; it works for one or two of them.
    timing = Timing(lambda: NOW, lambda _: None, passed=lambda: next(clock), worked=lambda: next(clock) * worked)
    waiting = Waiting(timing)
    read = waiting.of(lambda part: Fetched(part.start, tuple(LogEntry(b"") for _ in part)))
    batches = read_ahead(read, range(60), batch_entries=10, ahead=2, executor=executor, worth=waiting.prevails)
    assert [executor.calls for _, _ in zip(range(5), batches, strict=False)] == begun

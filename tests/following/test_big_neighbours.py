"""Large entries beside others: the log is read on past any size, and what was not read is counted and told."""

import json

import pytest

from monitor.http_fetcher import Refused, TimedOut, TooLarge
from monitor.logs.request_size import FewerAtOnce
from monitor.model.errors import FetchFailed, LogMisbehaved, NotShown
from monitor.model.log_source import LogApi
from tests.support.harness import Watch, watch
from tests.support.misbehaving_log import CtRfc6962Log, CtStaticLog, MisbehavingLog, RekorV1Log, b64

CAP = 200_000
IN_PARTS: list[type[MisbehavingLog]] = [RekorV1Log, CtRfc6962Log]
CAPPED: list[type[MisbehavingLog]] = [*IN_PARTS, CtStaticLog]


def large(log: MisbehavingLog, size: int) -> bytes:
    """A leaf of the log's kind of about this many bytes."""
    number = len(log.leaves)
    if log.api is LogApi.REKOR_V1:
        return b'{"kind":"test","number":%d,"more":"%s"}' % (number, b"x" * size)
    leaf = type(log).leaf(number)
    head, body = leaf[:44], b"y" * size
    # SPEC RFC 6962 3.4: the TBSCertificate has a length of three bytes in front, two bytes of extensions behind.
    return head + len(body).to_bytes(3, "big") + body + b"\x00\x00"


def told(seen: object) -> list[int | None]:
    return [each.index for each in seen.state.outbox.values() if each.kind == "entry-unreadable"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", IN_PARTS, ids=lambda kind: kind.api)
def test_answers_that_are_too_large_together_are_asked_for_in_parts(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 20)
    seen.log.answer_cap = CAP
    for _ in range(40):
        seen.log.append(large(seen.log, CAP // 4))
    seen.log.grow(20)
    assert seen.follow().backlog == 0
    assert seen.position.frontier.size == 80
    assert told(seen) == []
    seen.check()


@pytest.mark.parametrize("kind", CAPPED, ids=lambda kind: kind.api)
def test_an_entry_beyond_every_cap_is_taken_by_its_hash_counted_and_told(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 20)
    seen.log.answer_cap = CAP
    # A data tile is read up to the cap: those behind the large one in its tile cannot be told apart from it.
    seen.log.grow(5)
    seen.log.append(large(seen.log, CAP * 2))
    seen.log.grow(270 - len(seen.log.leaves))
    report = seen.follow()
    assert report.backlog == 0
    seen.check()
    unread = [each.unreadable for each in seen.state.unreadable.values()]
    assert {each.code for each in unread} == {"beyond-cap"}
    places = [each.where.index for each in unread]
    assert places == ([25] if kind in IN_PARTS else list(range(25, 256)))
    assert report.unreadable == len(places)
    assert told(seen)[0] == places[0]
    assert 266 in seen.found(), "what stands behind it is read"
    tree = seen.log.oracle()
    assert tree.range_root(25, 26).hex() in next(each.reason for each in unread if each.where.index == 25)


@pytest.mark.parametrize("kind", CAPPED, ids=lambda kind: kind.api)
def test_a_hash_that_is_not_the_one_in_the_tree_is_never_read_past(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 20)
    seen.log.answer_cap = CAP
    seen.log.append(large(seen.log, CAP * 2))
    seen.log.grow(5)
    if kind is CtStaticLog:
        seen.log.edit("tile/0/", lambda tile: tile[: 20 * 32] + bytes(32) + tile[21 * 32 :])
    else:
        seen.log.edit("firstSize=20&lastSize=21|first=20&second=21", _with_another_leaf)
    with pytest.raises((FetchFailed, LogMisbehaved)):
        seen.follow()
    assert seen.position.frontier.size == 20
    assert told(seen) == []


def _with_another_leaf(raw: bytes) -> bytes:
    """A consistency proof from 20 to 21 leaves, as well formed as the one served: its second hash is leaf 20's."""
    document = json.loads(raw)
    hashes = document["hashes" if "hashes" in document else "consistency"]
    hashes[1] = "00" * 32 if "hashes" in document else b64(bytes(32))
    return json.dumps(document).encode()


@pytest.mark.parametrize("kind", IN_PARTS, ids=lambda kind: kind.api)
def test_where_the_log_gives_no_hash_following_stops_and_says_why_and_whose_fault_it_is(
    kind: type[MisbehavingLog],
) -> None:
    seen = watch(kind, 20)
    seen.log.answer_cap = CAP
    seen.log.append(large(seen.log, CAP * 2))
    seen.log.grow(5)
    seen.log.fail("firstSize=20&lastSize=21|first=20&second=21", Refused("HTTP 400", 400))
    for _ in range(2):
        with pytest.raises(TooLarge, match=r"entry 20 is larger .* following stops before it\. The log is at fault"):
            seen.follow()
    assert seen.position.frontier.size == 20
    seen.log.failures = []
    assert seen.follow().backlog == 0


def test_fewer_are_asked_for_down_to_one_and_more_again_afterwards() -> None:
    asked: list[int] = []

    def answer(limit: int) -> object:
        def ask(count: int) -> int:
            asked.append(count)
            if count > limit:
                raise TooLarge("too much")
            return count

        return ask

    fewer = FewerAtOnce(1000)
    assert fewer.ask(1000, answer(20)) == 15  # type: ignore[arg-type]
    assert asked == [1000, 125, 15]
    assert [fewer.ask(1000, answer(1000)) for _ in range(7)] == [30, 60, 120, 240, 480, 960, 1000]  # type: ignore[arg-type]
    with pytest.raises(TooLarge):
        fewer.ask(1000, answer(0))  # type: ignore[arg-type]
    assert asked[-1] == 1


def test_an_answer_that_does_not_come_in_time_is_asked_for_in_parts_by_the_next_pass() -> None:
    asked: list[int] = []

    def slow(count: int) -> int:
        asked.append(count)
        if count > 100:
            raise TimedOut("late")
        return count

    fewer = FewerAtOnce(1000)
    for _ in range(2):
        try:
            fewer.ask(1000, slow)
        except TimedOut:
            continue
    with pytest.raises(TimedOut):
        FewerAtOnce(1000).ask(1000, slow)
    assert fewer.ask(1000, slow) <= 100
    assert asked[:3] == [1000, 125, 1000]


@pytest.mark.parametrize("kind", IN_PARTS, ids=lambda kind: kind.api)
def test_the_very_first_entry_beyond_every_cap_is_taken_by_its_hash(kind: type[MisbehavingLog]) -> None:
    log = kind()
    log.append(large(log, CAP * 2))
    log.grow(20)
    log.answer_cap = CAP
    seen = Watch(log).begin(0)
    assert seen.follow().backlog == 0
    assert [each.unreadable.where.index for each in seen.state.unreadable.values()] == [0]
    assert seen.position.frontier.root() == log.oracle().root(21)


@pytest.mark.parametrize("kind", IN_PARTS, ids=lambda kind: kind.api)
@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 64])
def test_following_begins_right_behind_an_entry_beyond_every_cap(kind: type[MisbehavingLog], size: int) -> None:
    log = kind()
    log.grow(size - 1)
    log.append(large(log, CAP * 2))
    log.grow(5)
    log.answer_cap = CAP
    source = log.source()
    frontier = source.frontier(size, source.latest())
    assert frontier.root() == log.oracle().root(size)


@pytest.mark.parametrize("kind", IN_PARTS, ids=lambda kind: kind.api)
def test_of_a_tree_with_nothing_behind_such_an_entry_it_is_said_why(kind: type[MisbehavingLog]) -> None:
    log = kind()
    log.append(large(log, CAP * 2))
    log.answer_cap = CAP
    with pytest.raises(TooLarge, match="The log is at fault"):
        log.source().entries(0, 1, log.source().latest())


@pytest.mark.parametrize("kind", CAPPED, ids=lambda kind: kind.api)
@pytest.mark.parametrize("entries", [3, 7, 8, 9, 16, 17, 40])
def test_a_log_whose_newest_entries_are_beyond_every_cap_is_begun_at_its_head(
    kind: type[MisbehavingLog], entries: int
) -> None:
    """A stranger who keeps logging such entries would otherwise keep a log from ever being taken up."""
    log = kind()
    log.grow(entries - 2)
    log.append(large(log, CAP * 2), large(log, CAP * 2 + 1))
    log.answer_cap = CAP
    if log.size <= 3 and kind in IN_PARTS:
        with pytest.raises(TooLarge):
            Watch(log).begin("head")
        return
    seen = Watch(log).begin("head")
    assert seen.position.frontier.size == entries
    log.grow(3)
    assert seen.follow().backlog == 0
    seen.check()
    assert all(index >= entries for index in seen.found())
    # What stands before the head is read when it is asked for, and then it is counted and told.
    again = Watch(log).begin(0)
    codes = {each.unreadable.where.index: each.unreadable.code for each in again.state.unreadable.values()}
    assert codes[entries - 1] == codes[entries - 2] == "beyond-cap"
    assert told(again)


@pytest.mark.parametrize("kind", IN_PARTS, ids=lambda kind: kind.api)
@pytest.mark.parametrize("size", [2, 7, 8, 9, 16, 17])
def test_a_range_begins_between_two_entries_beyond_every_cap(kind: type[MisbehavingLog], size: int) -> None:
    log = kind()
    log.grow(size - 1)
    log.append(large(log, CAP * 2), large(log, CAP * 2 + 1))
    log.grow(5)
    log.answer_cap = CAP
    source = log.source()
    assert source.frontier(size, source.latest()).root() == log.oracle().root(size)
    log.edit("firstSize|first=", _with_other_hashes)
    with pytest.raises((NotShown, TooLarge)):
        source.frontier(size, source.latest())


def _with_other_hashes(raw: bytes) -> bytes:
    """A consistency proof as well formed as the one served, whose last hash is another."""
    document = json.loads(raw)
    hashes = document["hashes" if "hashes" in document else "consistency"]
    hashes[-1] = "00" * 32 if "hashes" in document else b64(bytes(32))
    return json.dumps(document).encode()

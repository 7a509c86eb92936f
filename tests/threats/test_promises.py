"""A log's promises under the watch of the daemon's own parts: settled as following passes them, told when broken."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from alerts.alert import Owner
from monitor.commands.audit import pass_with_retries
from monitor.commands.outcomes import verdict
from monitor.commands.terminal import Exit
from monitor.daemon.pass_result import PassResult
from monitor.http_fetcher import Expect, ServerFailed
from monitor.judging.reevaluation import RecheckCounts
from monitor.model.inclusion_promise import InclusionPromise
from monitor.store.promises import PromiseTally
from monitor.store.reading import Reading
from tests.proof.test_promises import promise_of, with_entries
from tests.support.entries import milliseconds
from tests.support.misbehaving_log import CtRfc6962Log, MisbehavingLog, RekorV1Log, ct_leaf, merkle_tree_leaf
from tests.support.promises import promised, signed_sct, signed_set
from tests.threats.watched import Watched


def watched(kind: type[MisbehavingLog], folder: Path, entries: int = 30) -> Watched:
    made = Watched(with_entries(kind, entries), folder)
    assert made.run().owner is None
    return made


def made_now(seen: Watched, number: int, index: int) -> InclusionPromise:
    """A promise the log makes at this moment of the test."""
    at = int(seen.clock.now.timestamp())
    return promised(seen.log, signed_set(seen.log.log_key, seen.log.leaf(number), index, at))


def told(seen: Watched) -> list[str]:
    """Kinds of alerts about the log itself; its entries are no signings."""
    return [kind for kind in seen.alerts() if kind.startswith("log-")]


def judged(*outcomes: PassResult) -> Exit:
    return verdict(list(outcomes), RecheckCounts())


def test_19_following_settles_a_promise_as_it_passes_the_index(tmp_path: Path) -> None:
    seen = watched(RekorV1Log, tmp_path)
    seen.store.promises.remember([made_now(seen, 31, 31)], seen.clock.now)
    assert seen.run().owner is None
    assert seen.store.promises.tally(seen.clock.now).pending == 1
    seen.grow(5)
    seen.clock.pass_by(minutes=1)
    assert seen.run().owner is None
    assert seen.store.promises.tally(seen.clock.now) == PromiseTally(kept=1)
    assert told(seen) == []
    seen.check()


def test_19_a_promised_index_that_another_entry_got_pages_once_with_proof(tmp_path: Path) -> None:
    seen = watched(RekorV1Log, tmp_path)
    seen.store.promises.remember([made_now(seen, 4711, 31)], seen.clock.now)
    seen.grow(5)
    seen.clock.pass_by(minutes=1)
    outcome = seen.run()
    assert (outcome.owner, outcome.reason) == (Owner.LOG_MISBEHAVED, "log-promise-broken")
    assert judged(outcome) is Exit.MISBEHAVED
    (kept,) = seen.evidence()
    assert outcome.evidence == [kept.id]
    assert kept.document["strength"] == "transferable"
    assert outcome.last == seen.read == 35, "what was read is read: nothing waits for an explanation"
    seen.restart()
    assert seen.run().owner is None
    assert told(seen) == ["log-promise-broken"]
    assert seen.store.promises.tally(seen.clock.now) == PromiseTally(broken=1)
    seen.check()


def test_19_an_audit_that_ends_decides_and_a_daemon_waits_for_the_third_pass(tmp_path: Path) -> None:
    for name in ("audit", "daemon"):
        (tmp_path / name).mkdir()
        seen = watched(RekorV1Log, tmp_path / name)
        seen.store.promises.remember([promise_of(seen.log, 20, 20)], seen.clock.now)
        seen.log.hide_leaf(20)
        if name == "audit":
            assert judged(*pass_with_retries(seen.watch)) is Exit.MISBEHAVED
        else:
            owners = [seen.run().owner for _ in range(4)]
            assert owners == [Owner.COULD_NOT_ASK, Owner.COULD_NOT_ASK, Owner.LOG_MISBEHAVED, None]
        assert told(seen) == ["log-promise-broken"]
        (kept,) = seen.evidence()
        assert kept.document["strength"] == "record"
        seen.check()


def test_19_an_audit_is_not_done_while_an_entry_is_owed_and_the_log_was_only_asked_once(tmp_path: Path) -> None:
    seen = watched(RekorV1Log, tmp_path)
    seen.store.promises.remember([promise_of(seen.log, 20, 20)], seen.clock.now)
    seen.log.hide_leaf(20)
    assert judged(seen.run()) is Exit.UNFINISHED
    seen.log.honest()
    assert judged(*pass_with_retries(seen.watch)) is Exit.FINE
    assert seen.evidence() == []


def test_19_a_lagging_replica_does_not_page_and_a_log_that_goes_on_without_the_entry_does(tmp_path: Path) -> None:
    seen = watched(RekorV1Log, tmp_path)
    seen.store.promises.remember([made_now(seen, 50, 50)], seen.clock.now)
    seen.clock.pass_by(minutes=50)
    seen.grow(1)
    assert seen.run().owner is None, "not due: the log has an hour"
    # Nothing but old heads is shown for half a day. What is told is that nothing is new.
    for _ in range(6):
        seen.clock.pass_by(hours=2)
        seen.run()
    assert "log-promise-broken" not in told(seen)
    assert seen.evidence() == []
    for _ in range(3):
        seen.grow(1)
        seen.clock.pass_by(minutes=2)
        outcome = seen.run()
    assert outcome.reason == "log-promise-broken"
    seen.check()


def test_19_a_certificate_has_the_merge_delay_and_no_more(tmp_path: Path) -> None:
    seen = watched(CtRfc6962Log, tmp_path)
    assert isinstance(seen.log, CtRfc6962Log)
    leaf = merkle_tree_leaf(replace(ct_leaf(4711), timestamp=milliseconds(seen.clock.now)))
    promise = promised(seen.log, signed_sct(seen.log.log_key, leaf))
    due = promise.at + timedelta(hours=24)
    seen.store.promises.remember([promise], seen.clock.now)
    for hour in range(1, 25):
        seen.clock.now = promise.at + timedelta(hours=hour)
        seen.log.timestamp = milliseconds(seen.clock.now)
        assert seen.run().owner is None, hour
    asked = [path for path in seen.log.asked if "proof-by-hash" in path]
    assert 3 <= len(asked) <= 30, "it is looked for more and more rarely"
    seen.clock.now = due + timedelta(minutes=1)
    seen.log.timestamp = milliseconds(seen.clock.now)
    owners = [seen.run().owner for _ in range(3)]
    assert owners == [Owner.COULD_NOT_ASK, Owner.COULD_NOT_ASK, Owner.LOG_MISBEHAVED]
    assert told(seen) == ["log-promise-broken"]
    seen.check()


def test_19_an_entry_served_with_its_promise_and_kept_out_of_the_tree_becomes_proof(tmp_path: Path) -> None:
    """What was a record, an entry that is not the one signed, is a lie the log signed once it shows the other one."""
    seen = watched(RekorV1Log, tmp_path)
    seen.log.grow(10)
    seen.log.swap_leaf(35, seen.log.leaf(4711))
    assert seen.run().reason == "log-entries-not-in-tree"
    (record,) = seen.evidence()
    assert record.document["strength"] == "record"
    assert len(record.document["promises"]) == 1
    assert any(sentence.startswith("It promised an entry") for sentence in record.document["shows"])
    seen.log.honest()
    outcome = seen.run()
    assert (outcome.reason, seen.read) == ("log-promise-broken", 40)
    proof, _ = seen.evidence()
    assert proof.document["strength"] == "transferable"
    assert proof.document["promises"][0] == record.document["promises"][0]
    seen.check()


@pytest.mark.parametrize("shards", [(0, True), (12, True), (12, False)], ids=["one", "second", "closed"])
def test_19_the_index_is_that_of_the_log_and_not_of_the_tree(tmp_path: Path, shards: tuple[int, bool]) -> None:
    log = with_entries(RekorV1Log, 30)
    assert isinstance(log, RekorV1Log)
    log.offset, log.active = shards
    seen = Watched(log, tmp_path)
    seen.store.promises.remember([promise_of(log, n, n) for n in (0, 12, 29)], seen.clock.now)
    assert seen.run().owner is None
    assert seen.store.promises.tally(seen.clock.now).kept == 3
    assert seen.evidence() == []


def refuse_proofs(seen: Watched, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Switch that makes the log answer 503 to get-proof-by-hash alone."""
    honest, refusing = seen.log.get, [False]

    def get(path: str, *, max_bytes: int, expect: Expect) -> bytes:
        if refusing[0] and "get-proof-by-hash" in path:
            raise ServerFailed("get-proof-by-hash: HTTP 503", 503)
        return honest(path, max_bytes=max_bytes, expect=expect)

    monkeypatch.setattr(seen.log, "get", get)

    def switch(on: bool) -> None:
        refusing[0] = on

    return switch


def test_13_an_overdue_promise_that_cannot_be_asked_for_is_trouble_then_an_alert_and_giving_up_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched(CtRfc6962Log, tmp_path)
    refusing = refuse_proofs(seen, monkeypatch)
    leaf = merkle_tree_leaf(replace(ct_leaf(4711), timestamp=milliseconds(seen.clock.now)))
    promise = promised(seen.log, signed_sct(seen.log.log_key, leaf))
    seen.store.promises.remember([promise], seen.clock.now)
    refusing(True)
    seen.clock.pass_by(hours=12)
    seen.grow(1)
    assert seen.run().owner is None, "control: not due yet"
    seen.clock.pass_by(hours=12, minutes=30)
    for _ in range(2):
        seen.grow(1)
        outcome = seen.run()
        assert (outcome.owner, outcome.reason) == (Owner.COULD_NOT_ASK, "promise-unasked"), "asked again or not"
        assert "HTTP 503" in outcome.detail
        assert judged(outcome) is Exit.UNFINISHED
    assert told(seen) == []
    seen.clock.pass_by(hours=2)
    for _ in range(2):
        seen.grow(1)
        seen.run()
        seen.clock.pass_by(minutes=5)
    assert told(seen) == ["log-promise-unasked"], "once"
    [overdue] = seen.store.promises.unasked(seen.clock.now)
    assert overdue.promises == 1
    refusing(False)
    seen.log.append(leaf)
    seen.log.timestamp = milliseconds(seen.clock.now)
    assert seen.run().owner is None
    assert seen.store.promises.unasked(seen.clock.now) == []
    assert seen.store.promises.tally(seen.clock.now) == PromiseTally(kept=1)

    other = merkle_tree_leaf(replace(ct_leaf(4712), timestamp=milliseconds(seen.clock.now)))
    late = promised(seen.log, signed_sct(seen.log.log_key, other))
    seen.store.promises.remember([late], seen.clock.now)
    refusing(True)
    for _ in range(33):
        seen.clock.pass_by(days=1)
        seen.grow(1)
        seen.run()
    assert seen.store.promises.tally(seen.clock.now) == PromiseTally(kept=1, undecided=1)
    titles = [each.alert.title for each in Reading(seen.store.database).alerts(1000) if "promise" in each.alert.kind]
    assert [("given up" in title) for title in titles] == [True, False, False]
    seen.check()

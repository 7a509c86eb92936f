"""A log that moves keeps its name, its position and what it must prove: a new address is where a fork could begin."""

import copy
import json

import pytest

from alerts.alert import Owner
from monitor.daemon.assembly import Monitor
from monitor.daemon.daemon import Daemon
from monitor.daemon.pass_result import PassResult
from monitor.model.log_source import LogApi
from monitor.proof.evidence import check_evidence
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from monitor.trust.history import Change, TrustChangeKind, TrustHistory, changes
from monitor.trust.trust_root import TrustedLog, TrustRoot
from tests.support.alerts import NOW
from tests.support.misbehaving_log import RekorV2Log
from tests.support.served_log import ServedLog, signing_body
from tests.support.trust_world import World, passes, told


def elsewhere(world: World, served: ServedLog, log: RekorV2Log | None = None) -> ServedLog:
    """The same log, or what claims to be it, at another address with another host name."""
    moved = world.log("moved", log or served.log)
    return ServedLog(moved.log, moved.url.replace("127.0.0.1", "localhost"), moved.folder)


def move(world: World, daemon: Daemon, *logs: ServedLog) -> None:
    world.publish(logs)
    daemon.refresh_trust()


def begun(world: World) -> tuple[ServedLog, Monitor, Daemon]:
    served = world.log("one")
    world.publish([served])
    monitor, daemon = world.begin()
    return served, monitor, daemon


def sign(served: ServedLog, ref: str = "refs/tags/v1.2.3") -> None:
    served.log.append(signing_body(ref))


def only(outcomes: list[PassResult]) -> PassResult:
    [outcome] = outcomes
    return outcome


def position(monitor: Monitor) -> int:
    [name] = [log.name for log in monitor.logs]
    found = monitor.store.position(name)
    assert found is not None
    return found.frontier.size


def test_a_log_that_moves_is_one_event_and_is_followed_from_where_it_was_left(world: World) -> None:
    served, monitor, daemon = begun(world)
    name = monitor.logs[0].name
    sign(served)
    assert only(passes(monitor)).last == 4
    moved = elsewhere(world, served)
    asked = len(served.log.asked)
    move(world, daemon, moved)
    sign(moved, "refs/heads/stranger")
    outcome = only(passes(monitor))
    assert (outcome.log, outcome.owner, outcome.first, outcome.last) == (name, None, 4, 5)
    assert told(monitor) == ["trust-changed", "unexpected-signing"]
    [alert] = [each.alert for each in Reading(monitor.store.database).alerts(9) if each.alert.kind == "trust-changed"]
    assert alert.title == f"A log moved to {moved.url}"
    assert f"was at {served.url}" in alert.summary
    assert len(served.log.asked) > asked
    assert Reading(monitor.store.database).followed()[name].baseline_size == 0
    for _ in range(2):
        monitor, daemon = world.start()
        assert [(log.name, log.url) for log in monitor.logs] == [(name, moved.url)]
        sign(moved)
        assert only(passes(monitor)).owner is None
    assert position(monitor) == 7
    assert told(monitor) == ["trust-changed", "unexpected-signing"]
    assert fsck(monitor.store.database) == []


def test_only_the_new_address_is_asked(world: World) -> None:
    served, monitor, daemon = begun(world)
    moved = elsewhere(world, served, copy.deepcopy(served.log))
    move(world, daemon, moved)
    before = len(served.log.asked)
    moved.log.append(signing_body())
    assert only(passes(monitor)).last == 4
    assert len(served.log.asked) == before


def test_a_fork_that_begins_at_the_new_address_is_proven_and_moves_nothing(world: World) -> None:
    served, monitor, daemon = begun(world)
    forked = copy.deepcopy(served.log)
    forked.rewrite_from(1)
    forked.append(signing_body())
    moved = elsewhere(world, served, forked)
    move(world, daemon, moved)
    outcome = only(passes(monitor))
    assert (outcome.owner, outcome.reason) == (Owner.LOG_MISBEHAVED, "log-forked")
    assert position(monitor) == 3
    [evidence] = Reading(monitor.store.database).evidence(9)
    assert check_evidence(json.dumps(dict(evidence.document)).encode()).conclusion.transferable
    assert told(monitor) == ["log-forked", "trust-changed"]
    monitor, _ = world.start()
    assert only(passes(monitor)).reason == "log-forked", "a restart begins nothing anew"


def test_an_older_copy_at_the_new_address_is_no_fork_and_no_new_beginning(world: World) -> None:
    served, monitor, daemon = begun(world)
    older = copy.deepcopy(served.log)
    for _ in range(2):
        sign(served)
    assert only(passes(monitor)).last == 5
    moved = elsewhere(world, served, older)
    move(world, daemon, moved)
    assert (only(passes(monitor)).owner, position(monitor)) == (None, 5)
    moved.log.leaves[:] = [*served.log.leaves, signing_body()]
    assert (only(passes(monitor)).last, told(monitor)) == (6, ["trust-changed"])


def test_a_move_while_the_daemon_is_down_and_a_move_back_keep_name_and_position(world: World) -> None:
    served, monitor, _ = begun(world)
    name = monitor.logs[0].name
    world.running.close()
    moved = elsewhere(world, served)
    world.publish([moved])
    monitor, daemon = world.start()
    sign(moved)
    assert only(passes(monitor)).last == 4
    move(world, daemon, served)
    sign(served)
    assert only(passes(monitor)).last == 5
    assert [(log.name) for log in monitor.logs] == [name]
    assert told(monitor) == ["trust-changed"] * 2


def test_a_configured_address_is_not_left_behind_the_operators_back(world: World) -> None:
    served = world.log("one")
    world.publish([served])
    monitor, daemon = world.begin(f'logs: [{{name: mine, api: rekor-v2, url: "{served.url}"}}]')
    moved = elsewhere(world, served, copy.deepcopy(served.log))
    before = len(moved.log.asked)
    move(world, daemon, moved)
    sign(served)
    assert only(passes(monitor)).last == 4
    assert len(moved.log.asked) == before
    [alert] = [each.alert for each in Reading(monitor.store.database).alerts(9) if each.alert.kind == "trust-changed"]
    assert "still asks the old address" in alert.consequence
    assert "`logs`" in alert.next_step
    # As the alert and its page say: the new address under the old name.
    monitor, _ = world.start(f'logs: [{{name: mine, api: rekor-v2, url: "{moved.url}"}}]')
    moved.log.leaves[:] = [*served.log.leaves, signing_body()]
    outcome = only(passes(monitor))
    assert (outcome.owner, outcome.first, outcome.last) == (None, 4, 5), outcome.detail


def log(url: str, key: int = 1) -> TrustedLog:
    return TrustedLog(url, bytes([key]) * 44, bytes([key]) * 32, (LogApi.REKOR_V2,))


A, B, C = (log(f"https://{each}.example") for each in "abc")
OTHER = log("https://a.example", 2)


@pytest.mark.parametrize(
    ("old", "new", "kinds"),
    [
        ([A], [B], [TrustChangeKind.LOG_MOVED]),
        ([A, OTHER], [B, OTHER], [TrustChangeKind.LOG_MOVED]),
        ([A], [A, B], [TrustChangeKind.LOG_APPEARED]),
        ([A, B], [B], [TrustChangeKind.LOG_GONE]),
        ([A, B], [C], [TrustChangeKind.LOG_APPEARED, TrustChangeKind.LOG_GONE, TrustChangeKind.LOG_GONE]),
        ([A], [B, C], [TrustChangeKind.LOG_APPEARED, TrustChangeKind.LOG_APPEARED, TrustChangeKind.LOG_GONE]),
        ([A], [OTHER], [TrustChangeKind.KEY_CHANGED, TrustChangeKind.LOG_GONE]),
        ([], [B], [TrustChangeKind.LOG_APPEARED]),
    ],
    ids=lambda each: " ".join(getattr(one, "name", str(one)) for one in each),
)
def test_a_key_moved_when_it_stood_at_one_address_alone_and_stands_at_another_alone(
    old: list[TrustedLog], new: list[TrustedLog], kinds: list[TrustChangeKind]
) -> None:
    found: list[Change] = changes(root(*old), root(*new))
    assert sorted(each.kind for each in found) == sorted(kinds)


def root(*logs: TrustedLog) -> TrustRoot:
    return TrustRoot(" ".join(each.url + str(each.spki[0]) for each in logs), logs, ())


def test_history_keeps_one_log_through_every_move_and_every_address_it_had() -> None:
    history = TrustHistory()
    for logs in ((A, OTHER), (B, OTHER), (C, OTHER), (A, OTHER)):
        history = history.followed_by(root(*logs), NOW)
    first, second = history.logs()
    assert (first.log.url, first.first.url, second.log) == (A.url, A.url, OTHER)
    assert [each.url for each in first.former] == [A.url, B.url, C.url]
    urls = [each.url for each in history.followable().logs if each.log_id == A.log_id]
    assert sorted(urls) == [A.url, B.url, C.url]
    assert all(each.valid_until == NOW for each in history.followable().logs if each.url in {B.url, C.url})


def test_a_key_that_comes_to_an_address_where_it_had_a_state_of_its_own_is_that_log_again() -> None:
    """Both were followed apart: neither may take over the other's position."""
    history = TrustHistory()
    for logs in ((A, B), (A,), (B,)):
        history = history.followed_by(root(*logs), NOW)
    assert [(each.log.url, each.gone_at is None, each.former) for each in history.logs()] == [
        (A.url, False, ()),
        (B.url, True, ()),
    ]
    known = {each.key for each in history.logs()}
    assert [each.kind for each in changes(root(A), root(B), known)] == [
        TrustChangeKind.LOG_APPEARED,
        TrustChangeKind.LOG_GONE,
    ]

"""Every threat once over real HTTP: a served log that misbehaves on command, followed by the real parts to a disk.

The numbers are those of docs/threats.md. Each test opens with the honest log as its control and,
where the log becomes honest again, ends with following going on.
"""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace

from alerts.alert import Owner, Severity
from monitor.crosscheck.bundles import BundlePromise
from monitor.crosscheck.peers import PeerRelation, compare_offered
from monitor.crosscheck.promise_audit import PromiseRounds, Round
from monitor.following.follower import baseline
from monitor.http_fetcher import HttpFetcher
from monitor.logs.opening import open_sources
from monitor.model.errors import Lagging, NotShown
from monitor.model.inclusion_promise import InclusionPromise
from monitor.model.log_source import LogApi, LogSource, PromisingSource
from monitor.proof.evidence import check_evidence
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from outbound.transport import HttpLimits
from tests.evidence import independent_reader
from tests.log_lite.client import b64, hashedrekord
from tests.support.bundles import timestamps_in, views_in
from tests.support.harness import NOW
from tests.support.waiting import PATIENCE
from tests.threats.site import (
    ALL,
    CT,
    READ,
    STATIC,
    V1,
    V2,
    Clock,
    Followed,
    Site,
    add_entries,
    describe,
    follow_into,
    new_database,
    opened,
    served,
    trust_of,
    trusted_root_of,
    wait_for_size,
    wait_until,
    watch,
)
from tests.threats.site import PATIENCE as TIME
from tlog.tiles import TILE_WIDTH

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(tmp_path_factory.mktemp("threats")) as made:
        yield made


@pytest.fixture(scope="module")
def turning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Another server, whose shards are closed and frozen for good."""
    with served(tmp_path_factory.mktemp("turning"), [V1, V2]) as made:
        yield made


@pytest.fixture(autouse=True)
def _close(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in {"site", "turning"} & set(request.fixturenames):
        request.getfixturevalue(name).close_stores()


def each(site: Site, folder: Path, *apis: LogApi) -> list[Followed]:
    """The control, then every log once more from where it was baselined."""
    site.control(folder, *apis)
    return [site.followed(api, folder) for api in apis]


def goes_on(site: Site, *all_followed: Followed) -> None:
    """The log is honest again: what was held up is read."""
    site.be_honest()
    for followed in all_followed:
        followed.read_to_the_end()


def test_1_a_rollback_is_a_stale_replica_and_moves_nothing_back(site: Site, tmp_path: Path) -> None:
    logs = each(site, tmp_path, *ALL)
    for followed in logs:
        followed.read_to_the_end()
    site.server.fault("rewind", "--index", "150")
    for followed in logs:
        trusted = followed.position.head
        report = followed.run()
        assert (report.lagging, report.head.size) == (True, 150)
        assert followed.position.head == trusted, "the larger head stays trusted"
        followed.holds_nothing_against_the_log()
    goes_on(site, *logs)


def test_2_two_roots_for_one_size_are_a_fork_that_anybody_can_check(site: Site, tmp_path: Path) -> None:
    logs = each(site, tmp_path, *ALL)
    for followed in logs:
        followed.read_to_the_end()
    site.server.fault("fork")
    for followed in logs:
        conclusion = followed.misbehaves("log-forked", read=followed.position.head.head.size, transferable=True)
        assert any("One size, two roots" in sentence for sentence in conclusion.sentences)
    goes_on(site, *logs)


def test_3_history_rewritten_under_a_growing_log_is_a_fork_that_anybody_can_check(site: Site, tmp_path: Path) -> None:
    logs = each(site, tmp_path, *ALL)
    for log in ("v1", "v2", "ct"):
        site.grow(log, 5)
    site.server.fault("fork", "--index", "250")
    for followed in logs:
        before = followed.position.head
        followed.misbehaves("log-forked", transferable=True)
        assert followed.position.head == before, "the other history is not trusted"
    goes_on(site, *logs)


def test_4_an_entry_that_stays_hidden_is_held_against_the_log_in_the_third_pass(site: Site, tmp_path: Path) -> None:
    logs = each(site, tmp_path, *ALL)
    site.server.fault("hide", "--index", "250")
    for followed in logs:
        # The first pass reads up to the hole; where entries come in files of 256, the hole takes the file.
        reached = READ if followed.source.identity.api in {V2, STATIC} else 250
        for _ in range(2):
            followed.cannot_be_asked("not-shown", read=reached)
        followed.misbehaves("log-entry-missing", read=reached, transferable=False)
    goes_on(site, *logs)


def test_5_an_entry_other_than_the_signed_one_is_never_read_past(site: Site, tmp_path: Path) -> None:
    logs = each(site, tmp_path, *ALL)
    site.server.fault("swap", "--index", "250")
    for followed in logs:
        followed.misbehaves("log-entries-not-in-tree", read=250, transferable=False)
        (kept,) = followed.evidence()
        assert [leaf["index"] for leaf in kept.document["leaves"]] == [250]
    goes_on(site, *logs)


def test_6_a_head_by_another_key_of_the_same_trust_root_is_refused(site: Site, tmp_path: Path) -> None:
    logs = each(site, tmp_path, *ALL)
    site.server.fault("wrong-key")
    for followed in logs:
        followed.misbehaves("log-head-refused", transferable=False)
    goes_on(site, *logs)


@pytest.mark.parametrize(("fault", "apis"), [("bad-signature", ALL), ("wrong-origin", (V1, V2, STATIC))])
def test_7_a_head_not_signed_as_this_logs_own_is_refused(
    site: Site, tmp_path: Path, fault: str, apis: tuple[LogApi, ...]
) -> None:
    logs = each(site, tmp_path, *apis)
    site.server.fault(fault)
    for followed in logs:
        followed.misbehaves("log-head-refused", transferable=False)
    goes_on(site, *logs)


@pytest.mark.parametrize("api", [V1, V2])
def test_8_a_head_replayed_for_a_day_is_told_as_stale_and_not_as_a_lie(site: Site, tmp_path: Path, api: LogApi) -> None:
    site.control(tmp_path, api)
    clock, source = Clock(), site.sources[api]
    followed = site.followed(api, tmp_path, clock)
    watched = watch(api.value, followed.store, lambda: [source], trusted_root_of(site.server), clock)
    assert [outcome.owner for outcome in watched.run_pass()] == [None]
    frozen_at = followed.position.frontier.size
    site.server.fault("freeze")
    add_entries(site.server, api.value.removeprefix("rekor-"), 3)
    clock.pass_by(minutes=59)
    assert [outcome.owner for outcome in watched.run_pass()] == [None]
    followed.holds_nothing_against_the_log()
    clock.pass_by(hours=23, minutes=1)
    for _ in range(2):
        assert [outcome.owner for outcome in watched.run_pass()] == [Owner.COULD_NOT_ASK]
    (alert,) = followed.alerts()
    assert (alert.kind, alert.severity, alert.log) == ("log-stale", Severity.PAGE, source.identity.log)
    assert followed.evidence() == [], "an old head is no lie"
    assert followed.position.frontier.size == frozen_at
    site.server.fault("none")
    assert [outcome.owner for outcome in watched.run_pass()] == [None]
    assert followed.position.frontier.size == frozen_at + 3


def test_9_tiles_and_bundles_of_any_other_length_are_no_answer(site: Site, tmp_path: Path) -> None:
    site.control(tmp_path, V2, STATIC)
    clock = Clock()
    logs = [site.followed(api, tmp_path, clock) for api in (V2, STATIC)]
    site.server.fault("truncated-tile")
    for followed in logs:
        followed.cannot_be_asked("malformed")
    site.server.fault("padded-bundle")
    for followed in logs:
        for _ in range(4):
            followed.cannot_be_asked("malformed")
    clock.pass_by(minutes=6)
    for followed in logs:
        # Entries that stay unreadable are entries kept from us.
        followed.misbehaves("log-entry-missing", transferable=False)
    goes_on(site, *logs)


def test_9_answers_without_an_end_are_cut_off(site: Site, tmp_path: Path) -> None:
    logs = each(site, tmp_path, *ALL)
    site.server.fault("oversized")
    for followed in logs:
        followed.cannot_be_asked("too-large")
    goes_on(site, *logs)
    for followed in logs:
        followed.holds_nothing_against_the_log()


def test_10_a_partial_tile_that_the_full_one_does_not_continue_is_a_fork(site: Site, tmp_path: Path) -> None:
    site.control(tmp_path, V2, STATIC)
    sources = [site.sources[api] for api in (V2, STATIC)]
    site.server.fault("partial-not-prefix")
    logs = [site.followed(api, tmp_path) for api in (V2, STATIC)]
    for number, source in enumerate(sources):
        path = tmp_path / f"partial-{number}.db"
        store = new_database(path)
        baseline(source, store, source.latest().size - 5)
        store.close()
        logs[number] = follow_into(path, source, Clock())
        assert logs[number].run().backlog == 0
        logs[number].holds_nothing_against_the_log()
    for log, followed in zip(("v2", "ct"), logs, strict=True):
        read = followed.position.frontier.size
        site.grow(log, TILE_WIDTH - read % TILE_WIDTH + 1)
        followed.misbehaves("log-forked", read=read, transferable=True)
        followed.store.close()


def test_11_a_proof_of_the_wrong_length_proves_nothing(site: Site, tmp_path: Path) -> None:
    logs = each(site, tmp_path, V1, CT)
    for log in ("v1", "ct"):
        site.grow(log, 5)
    site.server.fault("malformed-proof")
    for followed in logs:
        before = followed.position.head
        followed.misbehaves("log-inconsistent", transferable=False)
        assert followed.position.head == before
    goes_on(site, *logs)


def test_12_a_rotated_shard_is_finished_before_and_beside_the_new_one(turning: Site, tmp_path: Path) -> None:
    turning.control(tmp_path, V1)
    followed = turning.followed(V1, tmp_path)
    old = followed.source.identity
    turning.grow("v1", 25)
    turning.server.command("rotate", "--log", "v1")
    add_entries(turning.server, "v1", 30)
    fetcher = HttpFetcher(turning.server.url)
    with closing(fetcher):

        def trees() -> list[LogSource]:
            return open_sources(describe(turning.server, V1), fetcher)

        wait_until(followed.source, lambda head: head.final)
        wait_for_size(trees()[-1], 30)
        watched = watch(V1.value, followed.store, trees, trusted_root_of(turning.server), Clock())
        outcomes = {outcome.log: outcome for outcome in watched.run_pass()}
    (new,) = set(outcomes) - {old.log}
    assert [outcome.owner for outcome in outcomes.values()] == [None, None]
    assert (outcomes[old.log].first, outcomes[old.log].last) == (READ, followed.position.head.head.size)
    assert followed.position.head.head.final
    started = followed.store.position(new)
    assert started is not None
    assert started.frontier.size == started.head.head.size >= 30
    assert Reading(followed.store.database).followed()[new].baseline_size == 0
    (alert,) = followed.alerts()
    assert (alert.kind, alert.severity, alert.log) == ("log-appeared", Severity.INFO, new)
    assert followed.evidence() == []


def test_12_a_shard_that_vanished_is_held_against_the_log_in_the_third_pass(turning: Site, tmp_path: Path) -> None:
    turning.control(tmp_path, V1)
    turning.server.command("rotate", "--log", "v1")
    wait_until(turning.sources[V1], lambda head: head.final)
    followed = turning.followed(V1, tmp_path)
    followed.read_to_the_end()
    old, read = followed.source.identity.log, followed.position.frontier.size
    turning.server.fault("shard-vanished")
    for _ in range(2):
        followed.cannot_be_asked("not-shown", read=read)
    followed.misbehaves("log-shard-vanished", read=read, transferable=False)
    # Another process, which never saw the list it was on, knows that it was followed.
    fetcher = HttpFetcher(turning.server.url)
    with closing(fetcher):
        known = replace(describe(turning.server, V1), known_trees=followed.store.trees_of(V1.value))
        gone, *others = open_sources(known, fetcher)
        assert (gone.identity.log, old in [each.identity.log for each in others]) == (old, False)
        with pytest.raises(NotShown, match="neither active nor"):
            gone.latest()
    goes_on(turning, followed)


def test_12_a_log_that_was_taken_down_is_told_as_one_that_cannot_be_asked(site: Site, tmp_path: Path) -> None:
    site.control(tmp_path, V2)
    clock, source = Clock(), site.sources[V2]
    followed = site.followed(V2, tmp_path, clock)
    watched = watch(V2.value, followed.store, lambda: [source], trusted_root_of(site.server), clock)
    site.server.fault("gone")
    for _ in range(2):
        assert [outcome.owner for outcome in watched.run_pass()] == [Owner.COULD_NOT_ASK]
        clock.pass_by(hours=2)
    watched.run_pass()
    assert [alert.kind for alert in followed.alerts()] == ["log-unreachable"]
    assert followed.evidence() == []
    goes_on(site, followed)


def test_13_a_closed_shard_with_another_root_is_a_fork_that_anybody_can_check(turning: Site, tmp_path: Path) -> None:
    turning.control(tmp_path, V1)
    turning.server.command("rotate", "--log", "v1")
    wait_until(turning.sources[V1], lambda head: head.final)
    followed = turning.followed(V1, tmp_path)
    followed.read_to_the_end()
    assert followed.position.head.head.final
    turning.server.fault("inactive-shard-changed")
    followed.misbehaves("log-forked", read=followed.position.frontier.size, transferable=True)
    goes_on(turning, followed)


def test_14_a_frozen_log_that_grows_contradicts_its_own_last_word(turning: Site, tmp_path: Path) -> None:
    turning.control(tmp_path, V2)
    turning.server.command("freeze", "--log", "v2")
    wait_until(turning.sources[V2], lambda head: head.final)
    followed = turning.followed(V2, tmp_path)
    followed.read_to_the_end()
    assert followed.position.head.head.final
    turning.server.fault("unfreeze")
    followed.misbehaves("log-unfrozen", read=followed.position.frontier.size, transferable=True)
    goes_on(turning, followed)


def test_15_a_second_signature_is_accepted_where_the_format_allows_one(site: Site, tmp_path: Path) -> None:
    v1, *others = each(site, tmp_path, *ALL)
    site.server.fault("extra-signature")
    for followed in others:
        followed.read_to_the_end()
        followed.holds_nothing_against_the_log()
    v1.cannot_be_asked("malformed")
    goes_on(site, v1)
    v1.holds_nothing_against_the_log()


def test_16_a_log_whose_clock_is_ahead_is_told_of_and_followed_all_the_same(site: Site, tmp_path: Path) -> None:
    site.control(tmp_path, V1, CT, STATIC)
    # The server tells the real time, so here following does too.
    logs = [site.followed(api, tmp_path, Clock(datetime.now(UTC))) for api in (V1, CT, STATIC)]
    site.server.fault("future-time")
    for followed in logs:
        followed.read_to_the_end()
        assert followed.evidence() == []
    # Rekor v1's heads carry no time; what its entries claim is not in the tree, and tells of its clock all the same.
    assert [[(alert.kind, alert.severity) for alert in followed.alerts()] for followed in logs] == [
        [("log-clock", Severity.WARN)]
    ] * 3
    goes_on(site, *logs)


TRICKS = {
    "gone": (ALL, "refused"),
    "redirect": (ALL, "wrong-content"),
    "gzip": ((V1, V2, CT), "wrong-content"),
    "html": (ALL, "wrong-content"),
    "error-500": (ALL, "server-failed"),
    "rate-limit": (ALL, "throttled"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_17_a_server_that_is_ill_or_not_the_log_is_no_lying_log(site: Site, tmp_path: Path, trick: str) -> None:
    apis, reason = TRICKS[trick]
    logs = each(site, tmp_path, *apis)
    site.server.fault(trick)
    for followed in logs:
        for _ in range(4):
            followed.cannot_be_asked(reason)
    goes_on(site, *logs)
    for followed in logs:
        followed.holds_nothing_against_the_log()


def test_17_an_answer_that_trickles_in_is_given_up_in_time(site: Site, tmp_path: Path) -> None:
    site.control(tmp_path, V2)
    with opened(site.server, [V2], HttpLimits()) as sources:
        path = site.followed(V2, tmp_path).store.database.path
        assert path is not None
        followed = follow_into(path, sources[V2], Clock())
        site.server.fault("slow", "--log", "v2")
        # The answer is late in the middle of it. Where its request begins later, a minute has to pass.
        late = threading.Timer(1.0, TIME.pass_by, (3600.0,))
        late.start()
        followed.cannot_be_asked("timeout")
        late.join()
        goes_on(site, followed)
    followed.holds_nothing_against_the_log()


def test_17_replicas_of_different_age_behind_one_name_are_followed(site: Site, tmp_path: Path) -> None:
    logs = each(site, tmp_path, V1, V2)
    for log in ("v1", "v2"):
        site.grow(log, 3)
    site.server.fault("stale-replica")
    for followed in logs:
        for _ in range(3):
            with suppress(Lagging):
                followed.run()
        followed.holds_nothing_against_the_log()
    goes_on(site, *logs)


def test_18_an_entry_served_twice_is_not_taken_for_the_next_one(site: Site, tmp_path: Path) -> None:
    logs = each(site, tmp_path, *ALL)
    site.server.fault("duplicate-index", "--index", "250")
    for followed in logs:
        followed.misbehaves("log-entries-not-in-tree", read=251, transferable=False)
    goes_on(site, *logs)


def test_18_entries_in_another_order_than_asked_are_put_in_order(site: Site, tmp_path: Path) -> None:
    (followed,) = each(site, tmp_path, V1)
    site.server.fault("out-of-order")
    followed.read_to_the_end()
    followed.holds_nothing_against_the_log()


def test_19_a_promise_that_was_not_kept_is_shown_by_the_signers_own_bundle(site: Site, tmp_path: Path) -> None:
    (followed,) = each(site, tmp_path, V1)
    kept = promised_by(site)
    site.server.fault("set-not-included", "--log", "v1")
    broken = promised_by(site)
    site.be_honest()
    site.grow("v1", 5)
    followed.read_to_the_end()
    assert compare_offered(kept, followed.source, followed.store, NOW).relation is PeerRelation.OLDER
    followed.holds_nothing_against_the_log()
    verdict = compare_offered(broken, followed.source, followed.store, NOW)
    assert verdict.relation is PeerRelation.CONTRADICTION
    (evidence,) = followed.evidence()
    assert check_evidence(json.dumps(evidence.document).encode()).conclusion.transferable
    assert [alert.kind for alert in followed.alerts()] == ["log-forked"]
    followed.read_to_the_end()


def test_19_a_signed_entry_timestamp_that_was_not_kept_is_proof_once_another_entry_has_its_place(
    site: Site, tmp_path: Path
) -> None:
    """Neither bundle holds anything but the timestamp: what clients of Rekor v1 believed for years."""
    (followed,) = each(site, tmp_path, V1)
    kept = timestamp_of(site)
    site.server.fault("set-not-included", "--log", "v1")
    broken = timestamp_of(site)
    followed.read_to_the_end()
    followed.store.promises.remember([kept, broken], NOW)
    assert (held(followed).kept, followed.evidence()) == (1, []), "the tree does not reach the other one yet"
    site.be_honest()
    site.grow("v1", 1)
    followed.read_to_the_end()
    done = held(followed, minutes=1)
    assert [evidence.kind for evidence in done.broken] == ["log-promise-broken"]
    (evidence,) = followed.evidence()
    raw = json.dumps(evidence.document).encode()
    assert check_evidence(raw).conclusion.transferable
    assert "promised to two entries" in (independent_reader.read(raw) or "")
    (alert,) = followed.alerts()
    assert (alert.kind, alert.severity, alert.owner) == ("log-promise-broken", Severity.PAGE, Owner.LOG_MISBEHAVED)
    assert [name for name in followed.written if name in {"evidence", "alert"}][-2:] == ["evidence", "alert"]
    assert fsck(followed.store.database) == []
    followed.read_to_the_end()


def test_19_a_promised_entry_that_is_not_served_is_held_against_the_log_in_the_third_round(
    site: Site, tmp_path: Path
) -> None:
    (followed,) = each(site, tmp_path, V1)
    promise = timestamp_of(site)
    followed.read_to_the_end()
    followed.store.promises.remember([promise], NOW)
    site.server.fault("hide", "--log", "v1", "--index", str(promise.index))
    assert [len(held(followed).unshown) for _ in range(2)] == [1, 1]
    followed.holds_nothing_against_the_log()
    assert len(held(followed).broken) == 1
    (evidence,) = followed.evidence()
    assert not check_evidence(json.dumps(evidence.document).encode()).conclusion.transferable
    goes_on(site, followed)


def test_19_a_replica_that_lags_breaks_no_promise(site: Site, tmp_path: Path) -> None:
    (followed,) = each(site, tmp_path, V1)
    promise = timestamp_of(site)
    followed.read_to_the_end()
    followed.store.promises.remember([promise], NOW)
    site.server.fault("rewind", "--log", "v1", "--index", "150")
    for minutes in range(0, 8, 2):
        done = held(followed, minutes)
        assert (done.broken, done.unshown) == ([], [])
        assert "the answering server has a tree of 150" in done.unasked
        followed.run()
    followed.holds_nothing_against_the_log()
    goes_on(site, followed)
    assert held(followed, minutes=10).kept == 1


def test_every_threat_of_the_page_has_its_test_here() -> None:
    page = (Path(__file__).parents[2] / "docs" / "threats.md").read_text(encoding="utf-8")
    told = [int(number) for number in re.findall(r"^\| *([0-9]+) *\|", page, re.MULTILINE)]
    tested = {int(match[1]) for name in globals() if (match := re.match(r"test_([0-9]+)_", name))}
    assert told == sorted(tested) == list(range(1, 20))


def held(followed: Followed, minutes: int = 0) -> Round:
    """A round over the promises that wait, some minutes from now."""
    assert isinstance(followed.source, PromisingSource)
    rounds = PromiseRounds(followed.store.promises, followed.source, followed.store.keep_evidence)
    return rounds.run(followed.position.head.head, None, NOW + timedelta(minutes=minutes))


def promised_by(site: Site) -> bytes:
    """Sign something; returns the checkpoint that the signer's bundle holds, read as this monitor reads bundles."""
    (view,) = views_in(signed_by(site), trust_of(site.server))
    return view.head.raw


def timestamp_of(site: Site) -> InclusionPromise:
    """Sign something; returns the log's promise to have it, read as this monitor reads bundles."""
    (told,) = timestamps_in(signed_by(site), trust_of(site.server))
    assert isinstance(told, BundlePromise)
    return told.promise


def signed_by(site: Site) -> bytes:
    """Sign something; returns what the signer's bundle holds of the log."""
    answer = httpx.post(
        f"{site.server.url}/api/v1/log/entries", json=hashedrekord(b"%d" % next(NUMBERS)), timeout=PATIENCE
    )
    assert answer.status_code == 201, answer.text
    (entry,) = answer.json().values()
    proof = entry["verification"]["inclusionProof"]
    bundle = {
        "logIndex": str(entry["logIndex"]),
        "logId": {"keyId": b64(bytes.fromhex(entry["logID"]))},
        "integratedTime": str(entry["integratedTime"]),
        "inclusionPromise": {"signedEntryTimestamp": entry["verification"]["signedEntryTimestamp"]},
        "canonicalizedBody": entry["body"],
        "inclusionProof": {
            "logIndex": str(proof["logIndex"]),
            "hashes": [b64(bytes.fromhex(node)) for node in proof["hashes"]],
            "checkpoint": {"envelope": proof["checkpoint"]},
        },
    }
    return json.dumps(bundle).encode()

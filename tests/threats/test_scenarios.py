"""Situations in which monitors of this kind have failed before, played with the daemon's own parts.

Each says what must come of it. Those that need a served log are at the end.
"""

import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from alerts.alert import Owner
from monitor.cli import run_command
from monitor.commands.outcomes import verdict
from monitor.commands.terminal import Exit
from monitor.following.follower import FollowLimits
from monitor.http_fetcher import HttpFetcher
from monitor.judging.reevaluation import RecheckCounts
from monitor.logs.opening import open_sources
from monitor.model.log_source import LogSource
from monitor.store.database import DamagedDatabase, NoDatabase, open_database
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from tests.support.entries import NOT_BEFORE, hashedrekord_v1, make_ca, make_github_certificate
from tests.support.harness import KINDS
from tests.support.misbehaving_log import CtRfc6962Log, MisbehavingLog, RekorV1Log, RekorV2Log, b64
from tests.support.served_log import ServedLog, served_log
from tests.threats.site import (
    V1,
    Clock,
    add_entries,
    describe,
    served,
    trusted_root_of,
    wait_for_size,
    wait_until,
    watch,
)
from tests.threats.tall_tree import tall
from tests.threats.test_witnesses import NAMES, cosignature
from tests.threats.watched import CA, STRANGER, Watched, signing, trusted_root


@pytest.fixture
def log() -> RekorV2Log:
    """A Rekor v2 log of 17 releases as expected."""
    return RekorV2Log([signing(number=number) for number in range(17)])


@pytest.fixture
def watched(log: RekorV2Log, tmp_path: Path) -> Iterator[Watched]:
    made = Watched(log, tmp_path)
    yield made
    made.check()
    made.store.close()


# -- what stands in the log


def test_an_unreadable_entry_is_kept_and_told_and_the_next_one_still_alerts(watched: Watched, log: RekorV2Log) -> None:
    assert watched.run().owner is None
    assert (watched.read, watched.alerts()) == (17, [])
    log.append(b"\x00 nobody can read this", signing(STRANGER, number=18))
    outcome = watched.run()
    assert (outcome.owner, outcome.unreadable, outcome.findings) == (None, 1, {"unexpected": 1})
    assert watched.read == 19
    assert watched.found()[-1] == (18, "unexpected")
    assert sorted(watched.alerts()) == ["entry-unreadable", "unexpected-signing"]
    assert Reading(watched.store.database).unreadable() == {("v2", "malformed-json"): 1}


def test_a_new_ca_root_is_in_force_as_soon_as_the_trust_root_is_read_again(watched: Watched, log: RekorV2Log) -> None:
    other = make_ca("rotated at noon")
    log.append(signing(STRANGER, number=17))
    watched.run()
    assert watched.found()[-1] == (17, "unexpected")

    # Noon: certificates of the new root are logged before the file says so. They are counted, never dropped.
    log.append(signing(STRANGER, other, number=18))
    watched.run()
    assert watched.found()[-1] == (18, "unverified")

    watched.root.write_bytes(trusted_root(CA, other))
    assert watched.trust.refresh()
    log.append(signing(STRANGER, other, number=19), signing(STRANGER, CA, number=20), signing(ca=other, number=21))
    watched.run()
    assert watched.found()[-3:] == [(19, "unexpected"), (20, "unexpected"), (21, "expected")]


def test_a_damaged_trust_root_leaves_the_one_before_in_force(watched: Watched, log: RekorV2Log) -> None:
    watched.run()
    watched.root.write_bytes(b"{")
    with pytest.raises(Exception, match="trusted root"):
        watched.trust.refresh()
    log.append(signing(STRANGER, number=17))
    watched.run()
    assert watched.found()[-1] == (17, "unexpected")


def test_a_clock_of_ours_that_is_behind_is_no_misbehaviour_of_the_log(tmp_path: Path) -> None:
    made = CtRfc6962Log()
    made.grow(3)
    watched = Watched(made, tmp_path)
    watched.run()
    assert "log-clock" not in watched.alerts(), "control"
    watched.grow(1)
    watched.clock.pass_by(hours=-2)
    outcome = watched.run()
    assert verdict([replace(outcome, unreadable=0)], RecheckCounts()) is Exit.UNFINISHED
    [alert] = [each.alert for each in Reading(watched.store.database).alerts(100) if each.alert.kind == "log-clock"]
    assert alert.owner is Owner.COULD_NOT_ASK
    watched.store.close()


@pytest.mark.parametrize(
    ("hours", "owner", "told"),
    [
        (0, None, []),
        (24, Owner.COULD_NOT_ASK, ["log-clock"]),  # only our clock contradicts it
        (-24, Owner.LOG_MISBEHAVED, ["log-clock"]),  # the entry's own certificate contradicts it
    ],
)
def test_a_log_clock_that_is_a_day_off_is_the_news_and_not_the_signing(
    hours: int, owner: Owner | None, told: list[str], tmp_path: Path
) -> None:
    """Rekor v1 claims when it took an entry in; that time is not in the tree."""
    log = RekorV1Log([hashedrekord_v1(make_github_certificate(CA, ref="refs/tags/v1.2.3"))])
    watched = Watched(log, tmp_path, Clock(NOT_BEFORE + timedelta(minutes=5)))
    claimed = int((NOT_BEFORE + timedelta(minutes=1, hours=hours)).timestamp())
    log.edit("entries/retrieve", lambda raw: re.sub(rb'"integratedTime": \d+', b'"integratedTime": %d' % claimed, raw))
    assert watched.run().owner is owner
    assert watched.found() == [(0, "expected")]
    assert watched.alerts() == told
    watched.store.close()


# -- how the log shows itself


def test_cosignatures_and_unknown_algorithms_may_stand_before_the_logs_own_signature(
    watched: Watched, log: RekorV2Log
) -> None:
    watched.run()
    log.append(signing(STRANGER, number=17))
    unknown = f"— future.example.org {b64(bytes([1, 2, 3, 4, 0xEE]) + bytes(2000))}\n"
    log.extra_signatures = [cosignature(NAMES[0], log.note_text(log.host, log.size)), unknown]
    assert watched.run().owner is None
    assert watched.found()[-1] == (17, "unexpected")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.api)
def test_a_head_frozen_for_a_day_is_told_while_every_answer_is_ok(kind: type[MisbehavingLog], tmp_path: Path) -> None:
    made = kind()
    made.grow(50)
    watched = Watched(made, tmp_path)
    for hours in range(24):
        outcome = watched.run()
        assert outcome.owner is (Owner.COULD_NOT_ASK if hours > 1 else None)
        watched.clock.pass_by(hours=1)
    assert [alert for alert in watched.alerts() if alert != "entry-unreadable"] == ["log-stale"]
    assert watched.evidence() == []
    watched.grow(1)
    assert watched.run().owner is None
    assert watched.read == 51
    watched.store.close()


@pytest.mark.parametrize("cap", [1000, 32, 7])
def test_no_entry_is_lost_between_passes_however_few_the_server_sends_at_once(cap: int, tmp_path: Path) -> None:
    entries = 25_000 if cap >= 32 else 5_000
    made = CtRfc6962Log(cap=cap)
    made.grow(11)
    watched = Watched(made, tmp_path, limits=FollowLimits(batch_entries=4096))
    watched.run()
    watched.grow(entries)
    outcome = watched.run()
    assert (outcome.owner, outcome.first, outcome.last) == (None, 11, entries + 11)
    position = watched.store.position(watched.watch.name)
    assert position is not None
    assert position.frontier.root() == made.oracle().root(entries + 11)
    # These leaves are only bytes: that each was looked at shows in their being counted as unreadable.
    assert sum(Reading(watched.store.database).unreadable().values()) == entries + 11
    watched.check()
    watched.store.close()


def test_an_entry_other_than_the_committed_one_is_tampering_and_moves_nothing(
    watched: Watched, log: RekorV2Log
) -> None:
    log.append(signing(STRANGER, number=17))
    log.swap_leaf(17, signing(number=17))
    outcome = watched.run()
    assert (outcome.owner, outcome.reason) == (Owner.LOG_MISBEHAVED, "log-entries-not-in-tree")
    assert verdict([outcome], RecheckCounts()) is Exit.MISBEHAVED
    assert (watched.read, len(watched.findings())) == (17, 17)
    assert [each.kind for each in watched.evidence()] == ["log-entries-not-in-tree"]
    log.honest()
    assert watched.run().owner is None
    assert watched.found()[-1] == (17, "unexpected"), "the stranger's signing is found after all"


# -- what becomes of our own state


CUTS: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda _: b"",
    "cut in the header": lambda raw: raw[:50],
    "cut in the middle": lambda raw: raw[: len(raw) // 2],
    "cut by one page": lambda raw: raw[:-4096],
    "overwritten": lambda raw: b"\0" * len(raw),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_damaged_state_is_refused_and_never_taken_for_a_first_run(watched: Watched, tmp_path: Path, cut: str) -> None:
    watched.run()
    watched.store.close()
    open_database(str(watched.path), check=True).close()
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(CUTS[cut](watched.path.read_bytes()))
    before = damaged.read_bytes()
    with pytest.raises(DamagedDatabase, match="restore"):
        open_database(str(damaged), check=True)
    assert damaged.read_bytes() == before, "the damaged file is left for the operator who mends it"
    watched.begin()


def test_a_missing_state_is_refused_and_never_taken_for_a_first_run(watched: Watched) -> None:
    watched.run()
    watched.store.close()
    kept = watched.path.rename(watched.path.with_suffix(".elsewhere"))
    with pytest.raises(NoDatabase, match="signwatch init"):
        open_database(str(watched.path), check=True)
    assert not watched.path.exists()
    kept.rename(watched.path)
    watched.begin()


def test_an_older_backup_is_verified_forward_to_the_same_findings(watched: Watched, log: RekorV2Log) -> None:
    watched.run()
    watched.store.close()
    backup = watched.path.with_suffix(".backup")
    shutil.copy(watched.path, backup)
    watched.begin()
    log.append(*(signing(STRANGER if number % 5 == 0 else "refs/tags/v9", number=number) for number in range(17, 60)))
    watched.run()
    undisturbed = watched.found(), sorted(Reading(watched.store.database).alerts(1000), key=lambda each: each.alert.id)
    watched.store.close()

    shutil.copy(backup, watched.path)
    watched.begin()
    assert watched.read == 17
    watched.clock.pass_by(minutes=30)
    outcome = watched.run()
    assert (outcome.owner, outcome.first, outcome.last) == (None, 17, 60)
    assert watched.found() == undisturbed[0]
    again = sorted(Reading(watched.store.database).alerts(1000), key=lambda each: each.alert.id)
    # The same ids: a receiver of these alerts can tell.
    assert [each.alert.id for each in again] == [each.alert.id for each in undisturbed[1]]


def test_an_older_backup_does_not_forgive_a_fork_since(watched: Watched, log: RekorV2Log) -> None:
    watched.run()
    watched.restart()
    log.rewrite_from(10)
    log.append(signing(number=99))
    outcome = watched.run()
    assert (outcome.owner, outcome.reason) == (Owner.LOG_MISBEHAVED, "log-forked")
    assert watched.read == 17


# -- a backlog over many restarts


def backlog(folder: Path, entries: int, window: int) -> int:
    """Fall behind by `entries`, then catch up in windows, some ended in the middle; returns how many restarts."""
    made = tall(entries)
    watched = Watched(made, folder, limits=FollowLimits(batch_entries=2048, entries_per_pass=window))
    reached = [watched.read]
    while reached[-1] < entries:
        # Every third process is told to end in the middle of its window.
        watched.stopping = itertools.chain([False] * 4, itertools.repeat(len(reached) % 3 == 0)).__next__
        assert watched.run().owner is None
        watched.restart()
        reached.append(watched.read)
        assert reached[-1] > reached[-2], f"a restart at {reached[-2]} made no progress"
        assert len(reached) < 10 * entries // window
    assert len({after - before for before, after in itertools.pairwise(reached)}) > 1, "some windows were cut short"
    position = watched.store.position(watched.watch.name)
    assert position is not None
    assert position.frontier.root() == made.oracle().root(entries)
    watched.check()
    watched.store.close()
    return len(reached) - 1


def test_a_backlog_is_worked_off_monotonically_over_restarts(tmp_path: Path) -> None:
    backlog(tmp_path, 20_000, 5_000)


@pytest.mark.soak
def test_a_backlog_of_a_million_is_worked_off_monotonically_over_restarts(
    tmp_path: Path, covered: Callable[[str], None]
) -> None:
    restarts = backlog(tmp_path, 1_000_000, 100_000)
    covered(f"1000000 entries in windows cut short by {restarts} restarts, never back and never without progress")


# -- with the real commands over HTTP


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[ServedLog]:
    with served_log(tmp_path) as made:
        assert run_command(["init", "--config", str(made.config)]) == 0
        assert run_command(["audit", "--config", str(made.config)]) == 0
        yield made


def test_one_size_with_two_roots_ends_the_audit_with_code_1_and_leaves_a_file_that_verifies_alone(
    followed: ServedLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, file = str(followed.config), str(tmp_path / "fork.json")
    followed.log.rewrite_from(2)
    assert run_command(["audit", "--config", config]) == 1
    capsys.readouterr()
    assert run_command(["evidence", "list", "--config", config]) == 0
    identity, log, kind, *_ = capsys.readouterr().out.split("\t")
    assert (log, kind) == ("rekor-v2", "log-forked")
    assert run_command(["evidence", "export", identity, "--output", file, "--config", config]) == 0
    (tmp_path / "signwatch.db").unlink()
    capsys.readouterr()
    assert run_command(["evidence", "verify", file, "--config", config]) == 0
    assert "One size, two roots" in capsys.readouterr().out
    Path(file).write_text(Path(file).read_text().replace("rekor-v2", "rekor-v9"))
    assert run_command(["evidence", "verify", file]) == 1


@pytest.mark.parametrize("late", [1_000, pytest.param(5_000, marks=pytest.mark.soak)])
def test_a_shard_rotated_while_we_were_down_is_read_to_its_end_late_entries_and_all(tmp_path: Path, late: int) -> None:
    with served(tmp_path, [V1]) as site:
        followed = site.followed(V1, tmp_path)
        followed.read_to_the_end()
        old, read = followed.source.identity.log, followed.position.frontier.size
        # No pass looks.
        add_entries(site.server, "v1", late)
        site.server.command("rotate", "--log", "v1")
        add_entries(site.server, "v1", 40)
        wait_until(followed.source, lambda head: head.final)
        # The served log signs by the real clock: by another one its heads would be years old.
        clock = Clock(datetime.now(UTC))
        fetcher = HttpFetcher(site.server.url)

        def trees() -> list[LogSource]:
            return list(open_sources(describe(site.server, V1), fetcher))

        wait_for_size(trees()[-1], 40)
        watched = watch(V1.value, followed.store, trees, trusted_root_of(site.server), clock)
        outcomes = {outcome.log: outcome for outcome in watched.run_pass()}
        assert [outcome.owner for outcome in outcomes.values()] == [None, None]
        new = next(name for name in outcomes if name != old)
        assert (outcomes[old].first, outcomes[old].last) == (read, read + late)
        assert followed.store.position(new) is not None
        assert Reading(followed.store.database).followed()[new].position.frontier.size >= 40
        assert fsck(followed.store.database) == []
        fetcher.close()
        site.close_stores()

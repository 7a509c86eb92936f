"""A pass that queues an alert about the log is never told as one without trouble."""

import base64
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from alerts.alert import Owner
from monitor.commands.audit import meaning
from monitor.commands.outcomes import one_line, verdict
from monitor.commands.terminal import Exit
from monitor.daemon.pass_result import PassResult
from monitor.judging.reevaluation import RecheckCounts
from monitor.model.log_source import TimedEntry
from monitor.proof.evidence import NotEvidence, conclude, from_document
from monitor.raising.entry_alerts import clock_alerts_of_entries, disordered
from monitor.store.reading import Reading
from tests.support.entries import (
    CA_NOT_AFTER,
    NOT_BEFORE,
    PLACEHOLDER_SIGNATURE,
    hashedrekord_v1,
    hashedrekord_v2,
    make_github_certificate,
    milliseconds,
)
from tests.support.misbehaving_log import CtRfc6962Log, RekorV1Log, RekorV2Log
from tests.threats.watched import CA, Watched, signing


def judged(seen: Watched, outcome: PassResult) -> Exit:
    return verdict([outcome], RecheckCounts(), Reading(seen.store.database).open_evidence(10))


@pytest.fixture
def ct(tmp_path: Path) -> Iterator[Watched]:
    log = CtRfc6962Log()
    log.grow(3)
    made = Watched(log, tmp_path)
    yield made
    made.store.close()


def test_a_log_clock_that_is_ahead_leaves_an_audit_unfinished_and_is_no_lie(ct: Watched) -> None:
    """It may be our own clock that is wrong: nothing the log signed contradicts anything else it signed."""
    assert ct.run().unreadable == 3, "its entries are no certificates"
    assert judged(ct, ct.run()) is Exit.FINE, "control"
    ct.log.timestamp = milliseconds(ct.clock.now + timedelta(days=1))
    for _ in range(2):
        outcome = ct.run()
        assert (outcome.owner, outcome.reason) == (Owner.COULD_NOT_ASK, "log-clock")
        code = judged(ct, outcome)
        assert code is Exit.UNFINISHED
        assert "no trouble" not in one_line(outcome)
        assert "honest" not in meaning(code, [outcome])
    assert sorted(ct.alerts()) == ["entry-unreadable", "log-clock"], "told once a day, and said by every audit"


def releases(*minutes: int) -> RekorV1Log:
    """A Rekor v1 log of releases, each with a certificate of its moment, taken in so many minutes after it."""
    log = RekorV1Log([hashedrekord_v1(make_github_certificate(CA), f"{number:064x}") for number in range(len(minutes))])
    log.integrated = {
        index: int((NOT_BEFORE + timedelta(minutes=after)).timestamp()) for index, after in enumerate(minutes)
    }
    return log


@pytest.mark.parametrize(
    ("minutes", "findings", "owner"),
    [
        ((1, 2, 3), {"expected": 3}, None),
        # Half an hour ahead for a while: the key was not used after its certificate expired.
        ((1, 31, 32, 2, 3), {"expected": 5}, Owner.LOG_MISBEHAVED),
        # Behind for one entry.
        ((1, 2, -30, 3), {"expected": 4}, Owner.LOG_MISBEHAVED),
        # All later ones agree: nothing contradicts the claim, and the certificate had expired.
        ((1, 31, 32, 33), {"expected": 1, "unexpected": 3}, None),
    ],
)
def test_times_of_neighbours_that_contradict_each_other_are_the_logs_news_and_no_signing_is_unexpected_by_them(
    tmp_path: Path, minutes: tuple[int, ...], findings: dict[str, int], owner: Owner | None
) -> None:
    seen = Watched(releases(*minutes), tmp_path)
    outcome = seen.run()
    assert (outcome.findings, outcome.owner) == (findings, owner)
    assert ("log-clock" in seen.alerts()) is (owner is not None)
    seen.store.close()


@pytest.mark.parametrize(("seconds", "owner"), [(5, None), (599, None), (601, Owner.LOG_MISBEHAVED)])
def test_an_authority_whose_clock_runs_seconds_ahead_of_the_logs_is_no_news(
    tmp_path: Path, seconds: int, owner: Owner | None
) -> None:
    log = RekorV1Log([hashedrekord_v1(make_github_certificate(CA))])
    log.integrated = {0: int((NOT_BEFORE - timedelta(seconds=seconds)).timestamp())}
    seen = Watched(log, tmp_path)
    outcome = seen.run()
    assert (outcome.findings, outcome.owner) == ({"expected": 1}, owner)
    assert seen.alerts() == ([] if owner is None else ["log-clock"])
    seen.store.close()


def test_what_is_out_of_order_is_told_with_the_neighbour_that_contradicts_it() -> None:
    times = [NOT_BEFORE + timedelta(minutes=after) for after in (0, 40, 5, 6)]
    timed = [TimedEntry(index, at) for index, at in enumerate(times, 100)]
    found = disordered(timed)
    assert {index: each.other for index, each in found.items()} == {101: 102, 102: 101, 103: 101}
    (alert,) = clock_alerts_of_entries("rekor", timed, times[1])
    assert (alert.owner, alert.kind) == (Owner.LOG_MISBEHAVED, "log-clock")
    assert "Entry 101" in alert.summary
    assert "entry 102, behind it" in alert.summary
    near = [TimedEntry(0, times[0]), TimedEntry(1, times[0] - timedelta(minutes=10))]
    assert disordered(near) == {}, "clocks may differ by so much"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_jumped_between_two_batches_is_told_as_one_that_jumped_within(
    tmp_path: Path, restarted: bool
) -> None:
    """What is left of a batch is the time of its last entry: kept with the position, so that a restart knows it."""
    log = releases()

    def take_in(minutes: int) -> None:
        """One entry more, of a certificate that is valid all the time."""
        number = len(log.leaves)
        certificate = make_github_certificate(CA, not_after=CA_NOT_AFTER)
        log.append(hashedrekord_v1(certificate, f"{number:064x}"))
        log.integrated[number] = int((NOT_BEFORE + timedelta(minutes=minutes)).timestamp())

    take_in(1)
    take_in(31)
    seen = Watched(log, tmp_path)
    assert seen.run().owner is None, "control: nothing contradicts it yet"
    if restarted:
        seen.restart()
    for minutes in (2, 3):
        take_in(minutes)
        outcome = seen.run()
        assert outcome.findings == {"expected": 1}
        assert outcome.owner is (Owner.LOG_MISBEHAVED if minutes == 2 else None), "the jump is told where it is met"
    assert "log-clock" in seen.alerts()
    position = seen.store.position(seen.log.source().identity.log)
    assert position is not None
    assert position.last_timed == TimedEntry(3, NOT_BEFORE + timedelta(minutes=3))
    seen.store.close()


def test_a_log_that_took_a_wrong_signature_fails_the_audit_until_its_evidence_is_closed(tmp_path: Path) -> None:
    log = RekorV2Log([signing()])
    seen = Watched(log, tmp_path)
    assert judged(seen, seen.run()) is Exit.FINE, "control"
    log.append(hashedrekord_v2(make_github_certificate(CA), "ab" * 32, signature=PLACEHOLDER_SIGNATURE))
    outcome = seen.run()
    assert (outcome.owner, outcome.reason) == (Owner.LOG_MISBEHAVED, "entry-signature-wrong")
    assert judged(seen, outcome) is Exit.MISBEHAVED
    (kept,) = seen.evidence()
    assert (kept.kind, kept.id) == ("entry-signature-wrong", outcome.evidence[0])
    again = seen.run()
    assert (again.owner, judged(seen, again)) == (None, Exit.MISBEHAVED), "the evidence stays"
    assert seen.alerts() == ["entry-signature-wrong"]
    seen.store.close_evidence(kept.id, "told the operator")
    assert judged(seen, seen.run()) is Exit.FINE

    # The file says it again, and a file with another entry shows nothing.
    told = conclude(from_document(kept.document))
    assert not told.transferable
    assert any("signature in entry 1 was not made by the key" in each for each in told.sentences)
    forged = {**kept.document, "leaves": [{"index": 1, "leaf": _b64(signing())}]}
    with pytest.raises(NotEvidence, match="signature"):
        conclude(from_document(forged))
    seen.store.close()


def test_a_lagging_replica_of_a_quiet_log_is_no_log_that_went_back(tmp_path: Path) -> None:
    log = RekorV2Log([signing(number=number) for number in range(5)])
    seen = Watched(log, tmp_path)
    assert seen.run().owner is None
    seen.clock.pass_by(hours=5)
    log.rewind_to(3)
    first = seen.run()
    assert (first.owner, first.reason) == (Owner.COULD_NOT_ASK, "lagging")
    assert seen.alerts() == []
    seen.clock.pass_by(minutes=59)
    seen.restart()
    assert seen.run().owner is Owner.COULD_NOT_ASK
    seen.clock.pass_by(minutes=2)
    gone_back = seen.run()
    assert (gone_back.owner, gone_back.reason) == (Owner.LOG_MISBEHAVED, "log-rewound")
    log.rewind_to(5)
    assert seen.run().reason == "log-stale", "the whole tree is shown: it is silent, and no longer went back"
    log.rewind_to(3)
    assert seen.run().reason == "lagging", "the time starts again"
    seen.store.close()


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()

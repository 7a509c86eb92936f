"""What every outbox must keep, in memory or a database. Subclass `OutboxContract` and give it a `harness` fixture."""

from datetime import timedelta
from typing import Protocol

import pytest
from msgspec.structs import replace

from alerts.alert import Alert, Severity
from alerts.outbox import Outbox, Traffic
from tests.support.alerts import NOW, an_alert

LEASE = timedelta(minutes=5)
LATER = NOW + timedelta(minutes=1)
MUCH_LATER = NOW + timedelta(hours=1)


class OutboxHarness(Protocol):
    """An empty outbox, and what its owner does to it: put alerts in, and look at the result."""

    @property
    def outbox(self) -> Outbox: ...

    def enqueue(self, alert: Alert, channel: str) -> None:
        """Put one alert in at `tests.support.alerts.NOW`."""

    def given_up(self) -> list[tuple[str, str]]:
        """(alert id, error) of every delivery given up."""


class OutboxContract:
    """The promises of `alerts.outbox.Outbox`, one test each."""

    def test_an_enqueued_alert_is_claimed_once_while_leased(self, harness: OutboxHarness) -> None:
        harness.enqueue(an_alert(1), "mail")
        claimed = harness.outbox.claim("mail", NOW, LEASE, 10)
        assert [(item.alert, item.channel, item.attempts, item.digest) for item in claimed] == [
            (an_alert(1), "mail", 0, None)
        ]
        assert claimed[0].enqueued_at == NOW
        assert harness.outbox.claim("mail", NOW, LEASE, 10) == []
        assert harness.outbox.claim("mail", NOW + LEASE / 2, LEASE, 10) == []

    def test_a_lease_that_ran_out_is_due_again(self, harness: OutboxHarness) -> None:
        harness.enqueue(an_alert(1), "mail")
        harness.outbox.claim("mail", NOW, LEASE, 10)
        assert len(harness.outbox.claim("mail", NOW + LEASE, LEASE, 10)) == 1

    def test_enqueueing_the_same_alert_again_adds_nothing(self, harness: OutboxHarness) -> None:
        harness.enqueue(an_alert(1), "mail")
        harness.enqueue(an_alert(1), "mail")
        assert len(harness.outbox.claim("mail", NOW, LEASE, 10)) == 1

    def test_channels_do_not_see_each_others_deliveries(self, harness: OutboxHarness) -> None:
        harness.enqueue(an_alert(1), "mail")
        harness.enqueue(an_alert(1), "hook")
        assert [item.channel for item in harness.outbox.claim("mail", NOW, LEASE, 10)] == ["mail"]
        assert [item.channel for item in harness.outbox.claim("hook", NOW, LEASE, 10)] == ["hook"]

    def test_delivered_is_final_and_idempotent(self, harness: OutboxHarness) -> None:
        harness.enqueue(an_alert(1), "mail")
        claimed = harness.outbox.claim("mail", NOW, LEASE, 10)
        harness.outbox.delivered(claimed, NOW)
        harness.outbox.delivered(claimed, LATER)
        harness.outbox.failed(claimed, attempts=1, retry_at=NOW, error="too late")
        assert harness.outbox.claim("mail", MUCH_LATER, LEASE, 10) == []
        assert harness.outbox.backlog() == {}
        assert harness.outbox.traffic("mail", urgent=True, since=NOW).messages == 1

    def test_delivered_counts_even_after_the_lease_was_lost(self, harness: OutboxHarness) -> None:
        harness.enqueue(an_alert(1), "mail")
        slow = harness.outbox.claim("mail", NOW, LEASE, 10)
        harness.outbox.claim("mail", MUCH_LATER, LEASE, 10)
        harness.outbox.delivered(slow, MUCH_LATER)
        assert harness.outbox.backlog() == {}

    def test_a_failure_waits_for_its_retry_time_and_keeps_its_attempts(self, harness: OutboxHarness) -> None:
        harness.enqueue(an_alert(1), "mail")
        claimed = harness.outbox.claim("mail", NOW, LEASE, 10)
        harness.outbox.failed(claimed, attempts=3, retry_at=LATER, error="refused")
        assert harness.outbox.claim("mail", LATER - timedelta(seconds=1), LEASE, 10) == []
        assert [item.attempts for item in harness.outbox.claim("mail", LATER, LEASE, 10)] == [3]

    def test_the_loser_of_a_lease_changes_nothing(self, harness: OutboxHarness) -> None:
        harness.enqueue(an_alert(1), "mail")
        slow = harness.outbox.claim("mail", NOW, LEASE, 10)
        quick = harness.outbox.claim("mail", MUCH_LATER, LEASE, 10)
        harness.outbox.failed(slow, attempts=9, retry_at=NOW, error="slow")
        harness.outbox.postpone(slow, NOW)
        harness.outbox.give_up(slow, NOW, "slow")
        assert harness.outbox.claim("mail", MUCH_LATER, LEASE, 10) == []
        harness.outbox.failed(quick, attempts=1, retry_at=MUCH_LATER, error="quick")
        assert [item.attempts for item in harness.outbox.claim("mail", MUCH_LATER, LEASE, 10)] == [1]

    def test_postponing_is_no_attempt(self, harness: OutboxHarness) -> None:
        harness.enqueue(an_alert(1), "mail")
        harness.outbox.postpone(harness.outbox.claim("mail", NOW, LEASE, 10), LATER)
        assert harness.outbox.claim("mail", NOW, LEASE, 10) == []
        assert [item.attempts for item in harness.outbox.claim("mail", LATER, LEASE, 10)] == [0]

    def test_what_was_given_up_stays_visible_with_its_reason(self, harness: OutboxHarness) -> None:
        harness.enqueue(an_alert(1), "mail")
        harness.outbox.give_up(harness.outbox.claim("mail", NOW, LEASE, 10), NOW, "no such mailbox")
        assert harness.outbox.claim("mail", MUCH_LATER, LEASE, 10) == []
        assert harness.given_up() == [(an_alert(1).id, "no such mailbox")]
        assert harness.outbox.backlog() == {}

    def test_claims_come_untried_first_then_pages_then_oldest(self, harness: OutboxHarness) -> None:
        harness.enqueue(an_alert(1), "mail")
        tried = harness.outbox.claim("mail", NOW, LEASE, 10)
        harness.outbox.failed(tried, attempts=1, retry_at=NOW, error="refused")
        for number, severity in ((2, Severity.INFO), (3, Severity.PAGE), (4, Severity.WARN), (5, Severity.PAGE)):
            harness.enqueue(an_alert(number, severity=severity), "mail")
        claimed = harness.outbox.claim("mail", NOW, LEASE, 10)
        assert [item.alert.index for item in claimed] == [3, 5, 2, 4, 1]

    def test_a_claim_is_no_longer_than_its_limit(self, harness: OutboxHarness) -> None:
        for number in range(5):
            harness.enqueue(an_alert(number), "mail")
        sizes = [len(harness.outbox.claim("mail", NOW, LEASE, 2)) for _ in range(4)]
        assert sizes == [2, 2, 1, 0]

    def test_a_digests_members_are_claimed_together_and_alone(self, harness: OutboxHarness) -> None:
        for number in range(5):
            harness.enqueue(an_alert(number), "mail")
        claimed = harness.outbox.claim("mail", NOW, LEASE, 10)
        harness.outbox.bundle(claimed[:3], "digest-1")
        assert harness.outbox.claim("mail", NOW, LEASE, 10) == [], "bundling keeps the lease"
        for number in (7, 8):
            harness.enqueue(an_alert(number), "mail")
        first = harness.outbox.claim("mail", NOW + LEASE, LEASE, 2)
        assert sorted(item.alert.index or 0 for item in first) == [0, 1, 2], "whole, for any limit"
        assert {item.digest for item in first} == {"digest-1"}
        rest = harness.outbox.claim("mail", NOW + LEASE, LEASE, 10)
        assert [item.alert.index for item in rest] == [3, 4, 7, 8]
        assert {item.digest for item in rest} == {None}

    def test_a_failed_digest_is_claimed_as_the_same_digest(self, harness: OutboxHarness) -> None:
        for number in range(3):
            harness.enqueue(an_alert(number), "mail")
        claimed = harness.outbox.claim("mail", NOW, LEASE, 10)
        harness.outbox.bundle(claimed, "digest-1")
        bundled = [replace(item, digest="digest-1") for item in claimed]
        harness.outbox.failed(bundled, attempts=1, retry_at=LATER, error="refused")
        again = harness.outbox.claim("mail", LATER, LEASE, 1)
        assert [(item.alert.index, item.digest, item.attempts) for item in again] == [
            (number, "digest-1", 1) for number in range(3)
        ]

    def test_traffic_counts_a_digest_once_and_pages_apart(self, harness: OutboxHarness) -> None:
        for number in range(4):
            harness.enqueue(an_alert(number), "mail")
        harness.enqueue(an_alert(9, severity=Severity.INFO), "mail")
        claimed = harness.outbox.claim("mail", NOW, LEASE, 10)
        harness.outbox.bundle(claimed[:3], "digest-1")
        harness.outbox.delivered(claimed[3:], NOW)
        assert harness.outbox.traffic("mail", urgent=True, since=NOW) == Traffic(1, None)
        harness.outbox.delivered([replace(item, digest="digest-1") for item in claimed[:3]], LATER)
        assert harness.outbox.traffic("mail", urgent=True, since=NOW) == Traffic(2, LATER)
        assert harness.outbox.traffic("mail", urgent=False, since=NOW) == Traffic(1, None)
        assert harness.outbox.traffic("mail", urgent=True, since=MUCH_LATER) == Traffic(0, None)
        assert harness.outbox.traffic("hook", urgent=True, since=NOW) == Traffic(0, None)

    def test_the_backlog_is_counted_by_channel(self, harness: OutboxHarness) -> None:
        assert harness.outbox.backlog() == {}
        for number in range(3):
            harness.enqueue(an_alert(number), "mail")
        harness.enqueue(an_alert(1), "hook")
        harness.outbox.delivered(harness.outbox.claim("mail", NOW, LEASE, 1), NOW)
        counted = {channel: waiting.pending for channel, waiting in harness.outbox.backlog().items()}
        assert counted == {"mail": 2, "hook": 1}
        assert harness.outbox.backlog()["mail"].oldest == NOW

    @pytest.mark.parametrize("text", ["\x00nul", "\ud800 lone surrogate", "\u202ebidi", "x" * 100_000])
    def test_hostile_text_survives_or_is_replaced_but_never_blocks(self, harness: OutboxHarness, text: str) -> None:
        """A database may not be able to keep every character; the delivery must still come out."""
        harness.enqueue(an_alert(1, title=text), "mail")
        assert len(harness.outbox.claim("mail", NOW, LEASE, 1)) == 1

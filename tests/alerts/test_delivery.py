"""Every alert reaches every channel at least once, and no channel makes another wait or shout."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.alert import Alert, Severity
from alerts.channels.channel import DeliveryFailed
from alerts.delivery import ChannelReport, DeliveryPolicy, backoff, deliver_channel, deliver_due, idempotency_key
from alerts.outbox import Delivery
from tests.support.alerts import NOW, an_alert
from tests.support.memory_outbox import MemoryOutbox, Outcome

POLICY = DeliveryPolicy()


def middle() -> float:
    return 0.5


@dataclass
class Recorder:
    """A channel that writes down what it is given, after asking `fault` what should go wrong."""

    name: str = "mail"
    digests: bool = True
    fault: Callable[[Alert], Exception | None] = lambda alert: None
    received: list[tuple[str, str]] = field(default_factory=list)
    attempts: int = 0

    def send(self, alert: Alert, key: str, now: datetime) -> None:
        self.attempts += 1
        if (error := self.fault(alert)) is not None:
            raise error
        self.received.append((alert.id, key))


@dataclass
class DeliveredButTimedOut(Recorder):
    """The message arrives; we never hear so, the first `times`."""

    times: int = 1

    def send(self, alert: Alert, key: str, now: datetime) -> None:
        super().send(alert, key, now)
        if self.attempts <= self.times:
            raise DeliveryFailed("no answer in time")


def refused(alert: Alert) -> Exception:
    return DeliveryFailed("connection refused")


def outbox_of(count: int, *channels: str, severity: Severity = Severity.PAGE, first: int = 1) -> MemoryOutbox:
    outbox = MemoryOutbox()
    fill(outbox, range(first, first + count), *channels, severity=severity)
    return outbox


def fill(outbox: MemoryOutbox, numbers: range, *channels: str, severity: Severity, at: datetime = NOW) -> None:
    for number in numbers:
        for channel in channels or ("mail",):
            outbox.enqueue(an_alert(number, severity=severity), channel, at)


def a_pass(outbox: MemoryOutbox, channel: Recorder, now: datetime, policy: DeliveryPolicy = POLICY) -> ChannelReport:
    return deliver_channel(outbox, channel, now, random=middle, policy=policy)


def run_until_quiet(
    outbox: MemoryOutbox,
    channel: Recorder,
    now: datetime,
    passes: int = 200,
    every: timedelta = timedelta(seconds=30),
) -> datetime:
    """Passes until nothing is pending."""
    for _ in range(passes):
        a_pass(outbox, channel, now)
        if channel.name not in outbox.backlog():
            return now
        now += every
    raise AssertionError(f"still pending after {passes} passes: {outbox.backlog()}")


def test_an_alert_is_delivered_once_with_its_key() -> None:
    outbox, channel = outbox_of(1), Recorder()
    report = a_pass(outbox, channel, NOW)
    assert channel.received == [("rekor-v2/1/acme-release", "rekor-v2/1/acme-release:mail")]
    assert (report.delivered, report.messages, report.failed) == (1, 1, 0)
    assert a_pass(outbox, channel, NOW + timedelta(days=1)).delivered == 0
    assert len(channel.received) == 1


def test_a_message_that_arrived_but_timed_out_comes_again_with_the_same_key() -> None:
    outbox, channel = outbox_of(1), DeliveredButTimedOut()
    a_pass(outbox, channel, NOW)
    run_until_quiet(outbox, channel, NOW)
    assert channel.received == [(an_alert(1).id, idempotency_key(an_alert(1).id, "mail"))] * 2


def test_a_digest_that_arrived_but_timed_out_comes_again_as_the_same_digest_whatever_joined_the_queue() -> None:
    outbox, channel = outbox_of(50), DeliveredButTimedOut()
    a_pass(outbox, channel, NOW)
    fill(outbox, range(100, 150), "mail", severity=Severity.PAGE)
    run_until_quiet(outbox, channel, NOW)
    assert len(channel.received) == 3
    assert len(set(channel.received)) == 2
    assert channel.received.count(channel.received[0]) == 2


def test_a_crash_between_sending_and_recording_repeats_with_the_same_key() -> None:
    class Crashing(MemoryOutbox):
        def delivered(self, deliveries: object, now: datetime) -> None:
            raise KeyboardInterrupt

    outbox, channel = Crashing(), Recorder()
    fill(outbox, range(1, 2), "mail", severity=Severity.PAGE)
    with pytest.raises(KeyboardInterrupt):
        a_pass(outbox, channel, NOW)
    survivor = MemoryOutbox()
    survivor.rows = outbox.rows
    assert a_pass(survivor, channel, NOW).delivered == 0, "leased to the dead"
    assert a_pass(survivor, channel, NOW + POLICY.lease).delivered == 1
    assert channel.received == [(an_alert(1).id, idempotency_key(an_alert(1).id, "mail"))] * 2


def test_a_dead_channel_does_not_touch_the_others() -> None:
    outbox = outbox_of(3, "dead", "defective", "mail")
    dead, mail = Recorder("dead", fault=refused), Recorder("mail")
    defective = Recorder("defective", fault=lambda alert: ZeroDivisionError("a bug"))
    report = deliver_due(outbox, [dead, defective, mail], NOW, random=middle)
    assert len(mail.received) == 3
    assert report.channels["mail"].delivered == 3
    assert report.channels["dead"].delivered == 0
    assert report.channels["dead"].last_error == "connection refused"
    assert report.channels["defective"].last_error == "ZeroDivisionError: a bug"
    assert {name: waiting.pending for name, waiting in outbox.backlog().items()} == {"dead": 3, "defective": 3}


def test_a_channel_that_is_no_longer_configured_is_reported() -> None:
    report = deliver_due(outbox_of(2, "gone", "mail"), [Recorder("mail")], NOW, random=middle)
    assert {name: waiting.pending for name, waiting in report.unconfigured.items()} == {"gone": 2}


def test_no_channels_is_no_error() -> None:
    assert deliver_due(MemoryOutbox(), [], NOW, random=middle).channels == {}


def test_a_dead_channel_is_asked_less_and_less_and_gets_everything_when_it_is_back() -> None:
    outbox, channel = outbox_of(15), Recorder(fault=refused)
    now, back = NOW, NOW + timedelta(days=1)
    while now < back:
        a_pass(outbox, channel, now)
        now += timedelta(seconds=30)
    assert channel.received == []
    assert 20 < channel.attempts < 120, "a day of passes each half minute is 2880"
    channel.fault = lambda alert: None
    now = run_until_quiet(outbox, channel, now)
    assert now - back <= POLICY.longest_retry
    assert sorted(key for _, key in channel.received) == sorted(
        idempotency_key(an_alert(number).id, "mail") for number in range(1, 16)
    )


def test_one_message_that_always_fails_does_not_hold_up_the_others() -> None:
    outbox = outbox_of(10)
    channel = Recorder(fault=lambda alert: DeliveryFailed("500") if alert.index == 1 else None)
    a_pass(outbox, channel, NOW)
    assert len(channel.received) == 9
    fill(outbox, range(50, 55), "mail", severity=Severity.INFO)
    a_pass(outbox, channel, NOW + timedelta(hours=2))
    assert len(channel.received) == 14


def test_a_wait_the_receiver_asks_for_is_kept_for_the_whole_channel() -> None:
    outbox = outbox_of(5)
    channel = Recorder(fault=lambda alert: DeliveryFailed("429", retry_after=timedelta(minutes=90)))
    a_pass(outbox, channel, NOW)
    assert channel.attempts == 1, "asked to wait means the other messages too"
    channel.fault = lambda alert: None
    a_pass(outbox, channel, NOW + timedelta(minutes=89))
    assert channel.received == []
    a_pass(outbox, channel, NOW + timedelta(minutes=90))
    assert len(channel.received) == 5


def test_nobody_can_make_us_wait_for_ever() -> None:
    outbox = outbox_of(1)
    channel = Recorder(fault=lambda alert: DeliveryFailed("429", retry_after=timedelta(days=9000)))
    a_pass(outbox, channel, NOW)
    channel.fault = lambda alert: None
    assert a_pass(outbox, channel, NOW + POLICY.longest_asked_wait).delivered == 1


def test_a_message_refused_for_good_is_given_up_at_once_and_stays_visible() -> None:
    outbox = outbox_of(3)
    channel = Recorder(fault=lambda alert: DeliveryFailed("400", permanent=True) if alert.index == 2 else None)
    report = a_pass(outbox, channel, NOW)
    assert (report.delivered, report.given_up) == (2, 1)
    row = outbox.rows[f"{an_alert(2).id}:mail"]
    assert (row.outcome, row.error) == (Outcome.GIVEN_UP, "400")


def test_a_message_is_given_up_only_after_its_age_and_one_more_attempt() -> None:
    outbox, channel = outbox_of(1), Recorder(fault=refused)
    a_pass(outbox, channel, NOW)
    assert outbox.backlog()["mail"].pending == 1
    report = a_pass(outbox, channel, NOW + POLICY.give_up_after)
    assert (channel.attempts, report.given_up) == (2, 1)
    assert outbox.rows[f"{an_alert(1).id}:mail"].outcome is Outcome.GIVEN_UP


def test_an_alert_older_than_the_age_is_still_tried() -> None:
    outbox, channel = outbox_of(1), Recorder()
    assert a_pass(outbox, channel, NOW + 10 * POLICY.give_up_after).delivered == 1


def test_a_dead_channel_with_old_messages_is_not_asked_for_each_of_them() -> None:
    outbox, channel = outbox_of(18), Recorder(fault=refused)
    a_pass(outbox, channel, NOW + 2 * POLICY.give_up_after)
    assert channel.attempts == 2


def test_an_error_text_is_inert_and_short() -> None:
    outbox = outbox_of(1)
    a_pass(outbox, Recorder(fault=lambda alert: DeliveryFailed("\x1b[31m" + "x" * 10_000)), NOW)
    error = outbox.rows[f"{an_alert(1).id}:mail"].error
    assert "\x1b" not in error
    assert len(error) < 600


def test_fifty_thousand_unverified_matches_are_a_handful_of_digests_and_the_one_page_goes_alone() -> None:
    outbox, channel = outbox_of(50_000, severity=Severity.INFO), Recorder()
    outbox.enqueue(an_alert(777_777, severity=Severity.PAGE), "mail", NOW)
    a_pass(outbox, channel, NOW)
    assert channel.received[0] == (an_alert(777_777).id, f"{an_alert(777_777).id}:mail")
    run_until_quiet(outbox, channel, NOW, passes=10, every=POLICY.interval)
    assert len(channel.received) <= 7
    assert all(row.outcome is Outcome.DELIVERED for row in outbox.rows.values())
    assert sum(row.delivery.digest is not None for row in outbox.rows.values()) >= 49_990


def test_a_trickle_faster_than_the_interval_collapses_too() -> None:
    outbox, channel = MemoryOutbox(), Recorder()
    now = NOW
    for number in range(600):
        fill(outbox, range(number, number + 1), "mail", severity=Severity.INFO, at=now)
        a_pass(outbox, channel, now)
        now += timedelta(seconds=10)
    run_until_quiet(outbox, channel, now)
    intervals = 600 * 10 / POLICY.interval.total_seconds()
    assert len(channel.received) <= (POLICY.singles + 2) * (intervals + 1)
    assert all(row.outcome is Outcome.DELIVERED for row in outbox.rows.values())


def test_a_few_alerts_come_one_by_one() -> None:
    outbox, channel = outbox_of(POLICY.singles, severity=Severity.WARN), Recorder()
    a_pass(outbox, channel, NOW)
    assert len(channel.received) == POLICY.singles


def test_many_pages_collapse_at_once_and_stay_a_page() -> None:
    outbox, seen = outbox_of(500), list[Alert]()
    channel = Recorder(fault=seen.append)
    a_pass(outbox, channel, NOW)
    assert [alert.severity for alert in seen] == [Severity.PAGE]
    assert seen[0].title == "500 alerts in one digest"
    assert ("page, unexpected-signing", "500") in seen[0].facts
    assert ("rule acme-release", "500") in seen[0].facts
    assert "… and 480 more" in seen[0].reasons
    assert seen[0].id in seen[0].next_step


def test_a_file_gets_every_alert_one_by_one() -> None:
    outbox, channel = outbox_of(200, severity=Severity.INFO), Recorder(digests=False)
    a_pass(outbox, channel, NOW)
    assert len(channel.received) == 200


@given(attempts=st.integers(0, 10_000), number=st.floats(0, 1, exclude_max=True))
@settings(max_examples=100, deadline=None)
def test_backoff_stays_between_half_a_minute_and_an_hour(attempts: int, number: float) -> None:
    wait = backoff(attempts, POLICY, lambda: number)
    assert timedelta(seconds=30) <= wait <= timedelta(hours=1)


def test_backoff_doubles() -> None:
    waits = [backoff(attempts, POLICY, lambda: 0.0).total_seconds() for attempts in range(1, 9)]
    assert waits == [30, 60, 120, 240, 480, 960, 1800, 1800]


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 60),
    faults=st.lists(st.sampled_from(["ok", "ok", "down", "lost", "429"]), max_size=40),
    digests=st.booleans(),
)
def test_none_is_lost_whatever_fails_when(count: int, faults: list[str], digests: bool) -> None:
    """Faults in pairs: it failed; it failed but had arrived. Afterwards each alert stands in some accepted message."""
    outbox, plan = outbox_of(count), list(faults)
    arrived: set[str] = set()

    @dataclass
    class Faulty(Recorder):
        def send(self, alert: Alert, key: str, now: datetime) -> None:
            fault = plan.pop(0) if plan else "ok"
            if fault == "down":
                raise DeliveryFailed("down")
            if fault == "429":
                raise DeliveryFailed("429", retry_after=timedelta(minutes=5))
            arrived.add(key)
            if fault == "lost":
                raise DeliveryFailed("no answer")

    run_until_quiet(outbox, Faulty(digests=digests), NOW, passes=3_000)
    for row in outbox.rows.values():
        message = row.delivery.digest or row.delivery.alert.id
        assert row.outcome is Outcome.DELIVERED
        assert idempotency_key(message, "mail") in arrived


def test_a_delivery_knows_whether_it_pages() -> None:
    assert Delivery("1", an_alert(), "mail", NOW).urgent
    assert not Delivery("1", an_alert(severity=Severity.WARN), "mail", NOW).urgent

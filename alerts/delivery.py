"""The delivery loop: at least once, each channel independently, slower when a receiver fails."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from alerts.alert import Alert
from alerts.channels.channel import Channel, DeliveryFailed, FollowingChannel
from alerts.digest import digest_alert, digest_id
from alerts.inert import inert_line
from alerts.outbox import Backlog, Delivery, Outbox

_LOG: Final = logging.getLogger(__name__)
_MAX_ERROR: Final = 500
# One failure may be caused by the message; a second one in a row counts as a failure of the channel.
_STRIKES: Final = 2


class DeliveryPolicy(Struct, frozen=True):
    """Retry delays and limits of delivery.

    A channel for people gets at most `singles` messages within `interval`; others wait and become one digest per
    interval. Pages have limits of their own: `urgent_singles`, and a digest each `urgent_interval`. A delay that the
    receiver asks for counts up to `longest_asked_wait`.
    """

    first_retry: timedelta = timedelta(seconds=30)
    longest_retry: timedelta = timedelta(hours=1)
    longest_asked_wait: timedelta = timedelta(hours=6)
    give_up_after: timedelta = timedelta(days=7)
    lease: timedelta = timedelta(minutes=15)
    interval: timedelta = timedelta(minutes=15)
    singles: int = 10
    urgent_interval: timedelta = timedelta(minutes=1)
    urgent_singles: int = 20
    claim: int = 10_000
    claims_per_pass: int = 20


class ChannelReport(Struct):
    """Result of one pass over one channel, in deliveries; `messages` counts a digest once."""

    delivered: int = 0
    messages: int = 0
    failed: int = 0
    given_up: int = 0
    last_error: str | None = None


class DeliveryReport(Struct, frozen=True):
    """Result of one pass. `unconfigured` are channels with waiting deliveries that the configuration does not name."""

    channels: Mapping[str, ChannelReport] = field(default_factory=dict)
    unconfigured: Mapping[str, Backlog] = field(default_factory=dict)


def idempotency_key(alert_id: str, channel: str) -> str:
    """The key by which a receiver may drop repeats: the same for every delivery of this alert to this channel."""
    return f"{alert_id}:{channel}"


def backoff(attempts: int, policy: DeliveryPolicy, random: Callable[[], float]) -> timedelta:
    """Wait after the `attempts`-th failure: twice as long each time, its upper half random, within the policy's bounds.

    `random` gives numbers in `[0, 1)`.
    """
    full: timedelta = min(policy.first_retry * (2 ** min(max(attempts, 1), 30)), policy.longest_retry)
    return full / 2 + full / 2 * random()


def deliver_due(
    outbox: Outbox,
    channels: Sequence[Channel],
    now: datetime,
    *,
    random: Callable[[], float],
    policy: DeliveryPolicy | None = None,
) -> DeliveryReport:
    """One pass over every channel, each in its own thread, so that a dead channel does not delay the others.

    The call waits for the slowest channel; a daemon runs `deliver_channel` once per channel instead.
    """
    settled = policy or DeliveryPolicy()
    with ThreadPoolExecutor(max_workers=max(1, len(channels)), thread_name_prefix="deliver") as threads:
        running = {
            channel.name: threads.submit(deliver_channel, outbox, channel, now, random=random, policy=settled)
            for channel in channels
        }
    reports = {name: future.result() for name, future in running.items()}
    unconfigured = {name: waiting for name, waiting in outbox.backlog().items() if name not in reports}
    return DeliveryReport(reports, unconfigured)


def deliver_channel(
    outbox: Outbox, channel: Channel, now: datetime, *, random: Callable[[], float], policy: DeliveryPolicy
) -> ChannelReport:
    """One pass over one channel's due deliveries."""
    return _Pass(outbox, channel, now, random, policy).run()


class _Pass:
    """One channel's pass: claim, send, record; stop early once the channel counts as dead."""

    def __init__(
        self, outbox: Outbox, channel: Channel, now: datetime, random: Callable[[], float], policy: DeliveryPolicy
    ) -> None:
        self._outbox, self._channel, self._now = outbox, channel, now
        self._random, self._policy = random, policy
        self._report = ChannelReport()
        self._failures: list[DeliveryFailed] = []
        self._retry_at = now

    def run(self) -> ChannelReport:
        for _ in range(self._policy.claims_per_pass):
            claimed = self._outbox.claim(self._channel.name, self._now, self._policy.lease, self._policy.claim)
            if not claimed:
                break
            self._retry_at = self._now
            waiting = max(delivery.attempts for delivery in claimed)
            messages = self._messages(claimed)
            for number, message in enumerate(messages, start=1):
                self._send(message, waiting)
                if self._dead:
                    self._postpone([item for later in messages[number:] for item in later], self._retry_at)
                    return self._report
        return self._report

    @property
    def _dead(self) -> bool:
        asked_to_wait = bool(self._failures) and self._failures[-1].retry_after is not None
        return len(self._failures) >= _STRIKES or asked_to_wait

    def _messages(self, claimed: Sequence[Delivery]) -> Sequence[Sequence[Delivery]]:
        """Cut a claim into messages, pages first; an alert that must wait for a digest is postponed."""
        if claimed[0].digest not in {None, claimed[0].alert.id}:
            return [claimed]
        # An alert that was sent alone before, and a change of an alert, never join a digest.
        changes = [[delivery] for delivery in claimed if delivery.change is not None or delivery.digest is not None]
        claimed = [delivery for delivery in claimed if delivery.change is None and delivery.digest is None]
        if not self._channel.digests:
            return [*changes, *([delivery] for delivery in claimed)]
        urgent = [delivery for delivery in claimed if delivery.urgent]
        rest = [delivery for delivery in claimed if not delivery.urgent]
        return [
            *changes,
            *self._singles_or_digest(urgent, self._policy.urgent_singles, self._policy.urgent_interval, urgent=True),
            *self._singles_or_digest(rest, self._policy.singles, self._policy.interval, urgent=False),
        ]

    def _singles_or_digest(
        self, bucket: list[Delivery], allowed: int, interval: timedelta, *, urgent: bool
    ) -> Sequence[Sequence[Delivery]]:
        if not bucket:
            return []
        traffic = self._outbox.traffic(self._channel.name, urgent=urgent, since=self._now - interval)
        if traffic.messages + len(bucket) <= allowed:
            return [[self._alone(delivery)] for delivery in bucket]
        if traffic.last_digest is not None and self._now < traffic.last_digest + interval:
            self._postpone(bucket, traffic.last_digest + interval)
            return []
        if len(bucket) == 1:
            # Alerts that come one by one wait for the next full interval to become a digest.
            self._postpone(bucket, _next_full(interval, self._now))
            return []
        digest = digest_id(bucket)
        # A crash after this line repeats exactly this digest: its members stay together, so its key stays the same.
        self._outbox.bundle(bucket, digest)
        return [[_with_digest(delivery, digest) for delivery in bucket]]

    def _alone(self, delivery: Delivery) -> Delivery:
        # A crash after the message was sent, or a wrongly reported failure, sends it again: as a single message
        # under the same key, even if many others are waiting by then.
        self._outbox.bundle([delivery], delivery.alert.id)
        return replace(delivery, digest=delivery.alert.id)

    def _send(self, message: Sequence[Delivery], waiting: int) -> None:
        alert = _alert_of(message)
        key, change = idempotency_key(alert.id, self._channel.name), message[0].change
        try:
            if change is None:
                self._channel.send(alert, key, self._now)
            elif isinstance(self._channel, FollowingChannel):
                self._channel.tell(alert, change, key, self._now)
        except DeliveryFailed as failed:
            self._record_failure(message, failed, waiting)
        except Exception as error:  # noqa: BLE001 - see below
            # A defect in one channel must not end the daemon or starve the other channels.
            _LOG.exception("channel_defect channel=%s alert=%s", self._channel.name, inert_line(alert.id, 200))
            self._record_failure(message, DeliveryFailed(f"{type(error).__name__}: {error}"), waiting)
        else:
            self._failures.clear()
            self._outbox.delivered(message, self._now)
            self._report.delivered += len(message)
            self._report.messages += 1

    def _record_failure(self, message: Sequence[Delivery], failed: DeliveryFailed, waiting: int) -> None:
        error = inert_line(str(failed), _MAX_ERROR)
        self._report.last_error = error
        if not failed.permanent:
            self._failures.append(failed)
        age = self._now - min(delivery.enqueued_at for delivery in message)
        if failed.permanent or age >= self._policy.give_up_after:
            self._outbox.give_up(message, self._now, error)
            self._report.given_up += len(message)
            self._retry_at = max(self._retry_at, self._now + self._policy.first_retry)
            _LOG.error("delivery_given_up channel=%s deliveries=%d error=%s", self._channel.name, len(message), error)
            return
        # The channel's failures count, not only this message's, so that a dead channel gets fewer and fewer tries.
        attempts = waiting + 1
        # A hostile receiver may ask for an endless delay.
        asked = min(failed.retry_after or timedelta(0), self._policy.longest_asked_wait)
        wait = max(backoff(attempts, self._policy, self._random), asked)
        self._retry_at = max(self._retry_at, self._now + wait)
        self._outbox.failed(message, attempts=attempts, retry_at=self._retry_at, error=error)
        self._report.failed += len(message)
        _LOG.warning("delivery_failed channel=%s attempts=%d error=%s", self._channel.name, attempts, error)

    def _postpone(self, deliveries: Sequence[Delivery], until: datetime) -> None:
        if deliveries:
            self._outbox.postpone(deliveries, until)


def _next_full(interval: timedelta, now: datetime) -> datetime:
    return now + interval - (now - datetime.fromtimestamp(0, UTC)) % interval


def _alert_of(message: Sequence[Delivery]) -> Alert:
    first = message[0]
    if first.digest in {None, first.alert.id}:
        return first.alert
    return digest_alert(str(first.digest), [item.alert for item in message])


def _with_digest(delivery: Delivery, digest: str) -> Delivery:
    return replace(delivery, digest=digest)

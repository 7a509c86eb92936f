"""Delivery to subscribers: one alert becomes a notice for each subscription, and one queue serves every destination.

Each message has a key that is the same at every attempt. A crash before a result is written repeats the message with
that key. A failing destination delays only its own messages, and is suspended after a week or three bounces.
"""

import hashlib
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, Final

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from msgspec import Struct, field

from alerts.channels.channel import DeliveryFailed
from alerts.channels.guarded_http import GuardedPoster
from alerts.delivery import DeliveryPolicy, backoff
from alerts.inert import inert_line
from monitor.site.destinations import ATOM, MAIL, WEBHOOK, post_alert, post_digest
from monitor.site.mailing import (
    SHOWN,
    Bounced,
    alert_values,
    compose_alert,
    compose_digest,
    compose_letter,
    hand_over,
    smtp_server,
)
from monitor.site.parts import Site
from monitor.site.weekly import forget_old, put_weekly
from monitor.store.destinations import READY
from monitor.store.notices import LETTER, Notice, Result
from outbound.transport import resolve_strange

_LOG: Final = logging.getLogger(__name__)
CLAIM: Final = 1_000
_LEASE: Final = timedelta(minutes=10)
_ROUNDS: Final = 20
_MAX_ERROR: Final = 300
_WORD_PAUSE: Final = timedelta(seconds=1)
_ADDRESS_WINDOW: Final = timedelta(minutes=1)
_ADDRESS_PAUSE: Final = timedelta(seconds=10)


class DeliveryCounts(Struct):
    """Result of one pass."""

    delivered: int = 0
    failed: int = 0
    given_up: int = 0
    suspended: int = 0
    errors: Counter[str] = field(default_factory=Counter)


class _Message(Struct, frozen=True):
    """Notices that go into one message to one destination (`None` for a letter to an address)."""

    notices: tuple[Notice, ...]
    destination: Any
    key: str

    @property
    def host(self) -> str:
        return str(self.destination.host) if self.destination is not None else "mail"


class Courier:
    """Delivers messages that are due. `run_pass` is called by one thread at a time; its threads are bounded."""

    def __init__(
        self, site: Site, policy: DeliveryPolicy | None = None, draw: Callable[[], float] = random.random
    ) -> None:
        self.site = self._site = site
        self._policy, self._draw = policy or DeliveryPolicy(), draw
        self._server = smtp_server(site.config.mail)
        self._poster = GuardedPoster(allow_private=site.config.allow_private, resolver=resolve_strange)
        self._per_host = RateLimitItemPerSecond(site.config.limits.messages_per_host_per_second)
        self._hosts = MovingWindowRateLimiter(MemoryStorage())
        self._threads = ThreadPoolExecutor(site.config.limits.senders, thread_name_prefix="notice")

    def close(self) -> None:
        """End the threads after the messages under way."""
        self._threads.shutdown(cancel_futures=True)

    def tidy(self) -> dict[str, int]:
        """Queue weekly mails and delete expired rows; returns the number of rows by table."""
        put_weekly(self._site)
        forget_old(self._site)
        return self._site.subscribers.stats()

    def run_pass(self) -> DeliveryCounts:
        """Deliver messages that are due now, up to a bound of some thousands."""
        sent = DeliveryCounts()
        for _ in range(_ROUNDS):
            now = self._site.clock()
            claimed = self._site.notices.claim(now, _LEASE, CLAIM)
            if not claimed:
                break
            self._deliver(claimed, now, sent)
            if len(claimed) < CLAIM:
                break
        return sent

    def _deliver(self, claimed: Sequence[Notice], now: datetime, sent: DeliveryCounts) -> None:
        ids = sorted({each.destination for each in claimed if each.destination})
        rows = self._site.notices.destinations(ids)
        subscriptions = self._site.notices.subscriptions(sorted({e.subscription for e in claimed if e.subscription}))
        results, messages, full = self._messages(claimed, rows, now)
        if full:
            self._site.notices.postpone(full, now + _ADDRESS_PAUSE)
        later = [message for message in messages if not self._hosts.hit(self._per_host, message.host)]
        if later:
            self._site.notices.postpone([each for message in later for each in message.notices], now + _WORD_PAUSE)
        waiting = {id(message) for message in later}
        ready = [message for message in messages if id(message) not in waiting]
        outcomes = list(self._threads.map(lambda message: self._send(message, subscriptions, now), ready))
        well: list[tuple[_Message, DeliveryFailed | None]] = []
        bad: list[tuple[_Message, DeliveryFailed | None]] = []
        bounced = sum(isinstance(failure, Bounced) for failure in outcomes)
        if bounced:
            self._site.subscribers.count("bounced", bounced)
        for message, failure in zip(ready, outcomes, strict=True):
            results += self._results(message, failure, now)
            if message.destination is not None:
                (well if failure is None else bad).append((message, failure))
        self._site.notices.finish(results, self._site.clock())
        if well:
            self._site.notices.destination_well([message.destination.id for message, _ in well])
        for message, failure in bad:
            self._note_failure(message, failure, now, sent)
        for each in results:
            sent.delivered += not each.error
            sent.given_up += bool(each.error) and each.final
            sent.failed += bool(each.error) and not each.final
            if each.error:
                sent.errors[each.error[:80]] += 1

    def _messages(
        self, claimed: Sequence[Notice], rows: dict[str, Any], now: datetime
    ) -> tuple[list[Result], list[_Message], list[Notice]]:
        """Group claimed notices into messages; also returns the notices whose address reached its limit per minute.

        A notice whose destination is gone, stopped or suspended ends.
        """
        over: list[Result] = []
        messages: list[_Message] = []
        by_destination: defaultdict[str, list[Notice]] = defaultdict(list)
        for each in claimed:
            row = rows.get(each.destination)
            if each.kind == LETTER:
                messages.append(_Message((each,), row, each.key))
            elif row is None or row.state != READY or row.suspended_at is not None:
                over.append(Result(each, error="the destination is gone, stopped or suspended", final=True))
            elif row.kind == ATOM:
                # Readers fetch a feed; no message is sent.
                over.append(Result(each))
            else:
                by_destination[each.destination].append(each)
        told = self._site.notices.sent_since(sorted(by_destination), now - self._policy.interval)
        # Counted from the database: a restart and another process of the site share the count.
        lately = self._site.notices.sent_since(sorted(by_destination), now - _ADDRESS_WINDOW)
        allowed = self._site.config.limits.messages_per_address_per_minute
        full: list[Notice] = []
        for destination, notices in by_destination.items():
            row = rows[destination]
            if row.kind == WEBHOOK:
                messages += [_Message((each,), row, each.key) for each in notices]
            elif (room := allowed - lately.get(destination, 0)) <= 0:
                full += notices
            else:
                of_one = self._of_one(row, notices, told.get(destination, 0), room)
                messages += of_one[:room]
                full += [each for message in of_one[room:] for each in message.notices]
        return over, messages, full

    def _of_one(self, row: Any, notices: list[Notice], told: int, room: int) -> list[_Message]:
        """Messages to a mailbox or Slack that got `told` messages in the interval, and may get `room` more now."""
        bundled: defaultdict[str, list[Notice]] = defaultdict(list)
        singles: list[Notice] = []
        for each in notices:
            (bundled[each.digest] if each.digest is not None else singles).append(each)
        messages = [_Message(tuple(members), row, f"{digest}:{row.id}") for digest, members in bundled.items()]
        is_many = told + len(singles) > self._policy.singles or len(messages) + len(singles) > room
        # People get one message for many alerts. Webhooks get each alert by itself, under the limit of their host.
        if is_many and len(singles) > 1:
            keys = "\n".join(sorted(each.key for each in singles))
            digest = "digest-" + hashlib.sha256(keys.encode()).hexdigest()[:32]
            # A crash after this line sends the same digest again, with the same members and the same key.
            self._site.notices.bundle(singles, digest)
            return [*messages, _Message(tuple(singles), row, f"{digest}:{row.id}")]
        return [*messages, *(_Message((each,), row, each.key) for each in singles)]

    def _send(self, message: _Message, subscriptions: dict[str, Any], now: datetime) -> DeliveryFailed | None:
        try:
            self._hand_over(message, subscriptions, now)
        except DeliveryFailed as failed:
            return failed
        except Exception as error:  # noqa: BLE001  a defect of one message must not hold up the others
            _LOG.exception("notice_defect kind=%s", message.notices[0].kind)
            return DeliveryFailed(f"{type(error).__name__}: {error}")
        return None

    def _hand_over(self, message: _Message, subscriptions: dict[str, Any], now: datetime) -> None:
        first, row, site = message.notices[0], message.destination, self._site
        sender = site.config.mail.sender
        if first.kind == LETTER:
            letter = compose_letter(site, first.document, message.key, now)
            hand_over(self._server, letter, sender, str(first.document["to"]))
            return
        alerts = [
            (each.alert, subscriptions[each.subscription])
            for each in message.notices
            if each.alert is not None and each.subscription in subscriptions
        ]
        if not alerts:
            return  # the subscription ended meanwhile
        if row.kind == MAIL:
            if len(alerts) > 1:
                mail = compose_digest(site, alerts, row, message.key, now)
            else:
                mail = compose_alert(site, alerts[0], row.target, message.key, now)
            hand_over(self._server, mail, sender, row.target)
        elif len(alerts) > 1:
            items = [alert_values(site, alert, subscription) for alert, subscription in alerts[:SHOWN]]
            post_digest(self._poster, row, items, len(alerts), now)
        else:
            alert, subscription = alerts[0]
            post_alert(self._poster, row, alert, alert_values(site, alert, subscription), first.key, now)

    def _results(self, message: _Message, failure: DeliveryFailed | None, now: datetime) -> list[Result]:
        if failure is None:
            return [Result(each) for each in message.notices]
        error = inert_line(str(failure), _MAX_ERROR)
        attempts = max(each.attempts for each in message.notices) + 1
        asked = min(failure.retry_after or timedelta(0), self._policy.longest_asked_wait)
        retry_at = now + max(backoff(attempts, self._policy, self._draw), asked)
        oldest = min(each.enqueued_at for each in message.notices)
        final = failure.permanent or now - oldest >= self._policy.give_up_after
        if isinstance(failure, Bounced) and message.destination is None:
            final = True
        return [Result(each, error, final=final, retry_at=retry_at) for each in message.notices]

    def _note_failure(
        self, message: _Message, failure: DeliveryFailed | None, now: datetime, sent: DeliveryCounts
    ) -> None:
        limits = self._site.config.limits
        suspended = self._site.notices.destination_failed(
            message.destination.id,
            inert_line(str(failure), _MAX_ERROR),
            now,
            bounced=isinstance(failure, Bounced),
            bounces_allowed=limits.bounces,
            patience=limits.patience,
        )
        sent.suspended += suspended

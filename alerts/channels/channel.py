"""The protocol between delivery and channels, and the error of a channel that could not deliver."""

from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from alerts.alert import Alert, AlertChange


class DeliveryFailed(Exception):
    """The message may not have arrived. This is unknown, so delivery sends it again with the same key.

    `permanent` means that sending the same message again cannot succeed. `retry_after` is the wait the receiver asked
    for. The message is for the operator and holds no secret.
    """

    def __init__(self, message: str, *, permanent: bool = False, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after


class Channel(Protocol):
    """One configured receiver. `send` takes bounded time and may be called from any one thread at a time."""

    @property
    def name(self) -> str:
        """As configured; part of the idempotency key."""

    @property
    def digests(self) -> bool:
        """True if many alerts should arrive as one digest: true for people, false for files."""

    def send(self, alert: Alert, key: str, now: datetime) -> None:
        """Send one alert. Returns once the receiver has accepted it; raises `DeliveryFailed` otherwise.

        `key` is the same at every attempt, so the receiver can drop repeats.
        """


@runtime_checkable
class FollowingChannel(Channel, Protocol):
    """A channel with a receiver that keeps alerts open and gets their changes."""

    def tell(self, alert: Alert, change: AlertChange, key: str, now: datetime) -> None:
        """Send a change; `key` is the key of the alert itself. Raises `DeliveryFailed`."""

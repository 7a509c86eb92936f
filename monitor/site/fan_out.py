"""Expands one alert into a notice for each subscription: the outbox's channel to subscribers."""

import logging
from datetime import datetime
from typing import Final

from typing_extensions import override

from alerts.alert import Alert
from alerts.channels.channel import Channel, DeliveryFailed
from monitor.store.database import Database
from rules.asking import SUBSCRIBERS
from rules.matching.matcher import number_of

_LOG: Final = logging.getLogger(__name__)
_CHUNK: Final = 1_000


class FanOut(Channel):
    """The outbox's channel to subscribers: its row commits with the finding, and expands into one notice each.

    After an interruption, a second expansion adds the missing notices.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    @override
    def name(self) -> str:
        return SUBSCRIBERS

    @property
    @override
    def digests(self) -> bool:
        return False

    @override
    def send(self, alert: Alert, key: str, now: datetime) -> None:
        number = number_of(alert.rule)
        if number is None:
            raise DeliveryFailed(f"{alert.rule} is no subscription", permanent=True)
        # Every monitor has this channel, and most have no subscriptions.
        from monitor.store.notices import Notices  # noqa: PLC0415

        added = Notices(self._database).expand(alert.id, number, now, _CHUNK)
        _LOG.info("fanned_out ask=%d notices=%d", number, added)

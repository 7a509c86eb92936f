"""Watches the trust root while the daemon runs: each change is recorded and reported once, across restarts.

The first recorded root makes no alert.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final

from alerts.alert import Alert
from monitor.config import Config, LogConfig, TrustConfig
from monitor.raising.trust_alerts import (
    change_alert,
    disagreement_alert,
    log_ended_alert,
    log_final_alert,
    stale_root_alert,
)
from monitor.store.history import KeptRoot
from monitor.store.store import Store
from monitor.trust.history import RecordedRoot, TrustHistory, changes
from monitor.trust.provider import TrustKeeper
from monitor.trust.signing_configs import disagreements, read_signing_config
from monitor.trust.trust_root import read_trust_root

_TRIES: Final = 3


class TrustWatch:
    """Records the roots of a keeper, and makes alerts about their changes."""

    def __init__(self, config: Config, keeper: TrustKeeper, store: Store) -> None:
        self._keeper, self._store = keeper, store
        self._follows_all = config.logs is None
        self._stale_after = config.trust.stale_after

    def record(self, now: datetime) -> None:
        """Record the root in force, with the alerts about its changes, unless it is the newest recorded one.

        Raises `FetchFailed`, `OwnFault`. After a crash before the commit the next start records it; no alert is sent
        twice.
        """
        kept = self._keeper.kept()
        for _ in range(_TRIES):
            roots = self._store.trust_roots()
            if roots and roots[-1].fingerprint == kept.root.fingerprint:
                break
            number = len(roots)
            before = read_trust_root(roots[-1].document) if roots else kept.root
            known = {each.key for each in history_of(self._store).logs()}
            found = changes(before, kept.root, known)
            alerts = [change_alert(each, number, now, followed=self._follows_all) for each in found]
            more_trusted = not set(kept.root.authorities) <= set(before.authorities)
            root = KeptRoot(number, kept.root.fingerprint, kept.raw, now)
            self._store.record_trust_root(root, alerts, more_trusted=more_trusted)
        self._keeper.remember(history_of(self._store))

    def age_alerts(self, now: datetime, error: str = "") -> list[Alert]:
        """Alert about a stale root, if it is stale; `error` is the reason of the last failed refresh."""
        kept = self._keeper.kept()
        stale = stale_root_alert(kept.refreshed_at, kept.expires, self._stale_after, error, now)
        return [] if stale is None else [stale]

    def tell(self, logs: Mapping[tuple[str, bytes], LogConfig], now: datetime) -> None:
        """Enqueue alerts about logs that ended and contradictory sources.

        `logs` are the followed logs by URL and key id. Raises `OwnFault`.
        """
        kept, history = self._keeper.kept(), self._keeper.history()
        alerts = [*self._ended(history, logs, now)]
        services = [service for raw in kept.signing_configs for service in read_signing_config(raw)]
        for url, reason in disagreements(services, kept.root, now):
            alerts.append(disagreement_alert(url, reason, kept.root.fingerprint, now))
        if alerts:
            self._store.enqueue(alerts)

    def _ended(
        self, history: TrustHistory, logs: Mapping[tuple[str, bytes], LogConfig], now: datetime
    ) -> Iterator[Alert]:
        began = history.roots[0].at
        for known in history.logs():
            until = known.log.valid_until
            if until is None or not began < until <= now:
                continue
            yield log_ended_alert(known.log, until, now)
            followed = logs.get(known.key)
            if followed is not None:
                yield from self._final(followed.name, until, now)

    def _final(self, name: str, until: datetime, now: datetime) -> Iterator[Alert]:
        for log, condition in self._store.health.all().items():
            if log != name and not log.startswith(f"{name}/"):
                continue
            position = self._store.position(log)
            # Only a pass that began after the end can have read all earlier entries.
            asked = condition.last_success_at is not None and condition.last_success_at > until
            if asked and position is not None and position.frontier.size == position.head.head.size:
                yield log_final_alert(log, position.frontier.size, until, now)


def trust_of(config: TrustConfig, clock: Callable[[], datetime], store: Store | None) -> TrustKeeper:
    """Keeper with every recorded root, on which the names of logs and the list of former logs depend.

    Without a store it has the present root alone. Raises `FetchFailed`, `OwnFault`.
    """
    keeper = TrustKeeper(config, clock)
    if store is not None:
        keeper.remember(history_of(store))
    return keeper


def history_of(store: Store) -> TrustHistory:
    """Every recorded root. Raises `OwnFault` when one cannot be read."""
    return TrustHistory(
        tuple(RecordedRoot(read_trust_root(each.document), each.seen_at) for each in store.trust_roots())
    )

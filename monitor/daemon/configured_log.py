"""A configured log, ready to be asked: its key, a fetcher within its allowance of requests, and its trees."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from monitor.config import LogConfig
from monitor.daemon.followed_logs import where_it_is
from monitor.model.errors import BadConfig, OwnFault
from monitor.model.log_description import LogDescription
from monitor.model.log_source import LogApi, LogSource
from monitor.store.store import Store
from monitor.trust.provider import TrustKeeper
from monitor.trust.trust_root import TrustRoot

if TYPE_CHECKING:
    from monitor.http_fetcher import HttpFetcher, ReportRequest

# Rekor v1 allows 500 requests a minute and address; tile logs are static files.
_REQUESTS_PER_SECOND: Final = {LogApi.REKOR_V1: 8}
_OTHERWISE: Final = 50
_BURST: Final = 20


def describe(log: LogConfig, root: TrustRoot) -> LogDescription:
    """Pin the log's key from the trust root. Raises `OwnFault` when the root does not hold exactly one."""
    trusted = root.log_at(log.url, log.api, log.log_id)
    return LogDescription(
        name=log.name,
        url=log.url,
        spki=trusted.spki,
        apis=(log.api,) if log.api is not None else trusted.apis,
        log_id=trusted.log_id,
        origin=log.origin,
        tree_id=log.tree_id,
        offset=log.offset,
        witnesses=() if log.witnesses is None else log.witnesses.witnesses,
        trust_root=root.fingerprint,
        valid_until=trusted.valid_until,
    )


def http_fetcher(
    log: LogConfig, pause: Callable[[float], object], report: "ReportRequest | None" = None
) -> "HttpFetcher":
    """The fetcher of a log, limited to the log's rate; the caller closes it."""
    from monitor.http_fetcher import HttpFetcher, TokenBucket  # noqa: PLC0415  the doctor asks no log

    rate = requests_per_second(log)
    bucket = TokenBucket(rate, max(rate, _BURST), clock=time.monotonic, sleep=pause)
    ca_file = str(log.ca_file) if log.ca_file is not None else None
    try:
        return HttpFetcher(log.url, bucket=bucket, pause=pause, ca_file=ca_file, proxy=log.proxy, report=report)
    except OwnFault as error:
        raise BadConfig(f"{'trust' if log.of_root else f'logs: {log.name}'}: {error}") from error


def requests_per_second(log: LogConfig) -> int:
    """Highest rate of requests to a log."""
    return log.requests_per_second or (_REQUESTS_PER_SECOND.get(log.api, _OTHERWISE) if log.api else _OTHERWISE)


def open_log(log: LogConfig, trust: TrustKeeper, store: Store | None, fetcher: "HttpFetcher") -> Sequence[LogSource]:
    """Every tree of the log, at the log's present address. Raises `FetchFailed`, `OwnFault`."""
    from monitor.logs.opening import open_sources  # noqa: PLC0415  with the HTTP client

    # Determined each time, because the log may have moved.
    here = where_it_is(log, trust)
    fetcher.move_to(here.url)
    return open_sources(as_followed(here, trust, store), fetcher)


def as_followed(log: LogConfig, trust: TrustKeeper, store: Store | None) -> LogDescription:
    """Describe the log with the key of its state, even if the newest root no longer names the log.

    Raises `FetchFailed`, `OwnFault`.
    """
    history = trust.history()
    described = describe(pinned(log, trust, store) if store is not None else log, history.followable())
    found = (known for known in history.logs() if known.key == (described.url, described.log_id))
    # A log that moved still signs under its earlier origin.
    former = tuple(each.url for known in found for each in known.former)
    return replace(described, former=former, known_trees=store.trees_of(log.name) if store is not None else ())


def pinned(log: LogConfig, trust: TrustKeeper, store: Store) -> LogConfig:
    """The log with its first key id, once it has a state under its name.

    If a later trust root names another key for the same address, that is another log.
    """
    if log.log_id is not None or not store.is_followed(log.name):
        return log
    return replace(log, log_id=trust.history().first_key(log.url, log.api))

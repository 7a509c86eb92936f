"""The followed logs and their present addresses: as configured, or as the trust root names them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal, Protocol

from msgspec.structs import replace

from monitor.config import Config, LogConfig
from monitor.model.log_source import CT_APIS
from monitor.store.facts import StoredKnownFacts
from monitor.trust.history import TrustHistory
from monitor.trust.provider import TrustKeeper
from monitor.trust.trust_root import TrustRoot


class KnowsRoots(Protocol):
    """Holds every trust root, as `monitor.trust.provider.TrustKeeper` does."""

    def history(self) -> TrustHistory:
        """All of them, oldest first."""


def configured_logs(config: Config, trust: KnowsRoots) -> Sequence[LogConfig]:
    """Logs as configured, or every log of any trust root, the first known first. Raises `OwnFault`, `FetchFailed`.

    A log that appeared later is followed from its first entry.
    """
    if config.logs is not None:
        return config.logs
    names: dict[str, int] = {}
    logs = []
    for known in trust.history().logs():
        log = known.log
        name = known.first.name.replace("/", "-").replace(":", "-")
        names[name] = names.get(name, 0) + 1
        # Two keys of one log are two trees with the same address: the key id distinguishes them. Names follow the
        # order of appearance, because state belongs to names.
        unique = name if names[name] == 1 else f"{name}-{log.log_id.hex()[:8]}"
        api = log.apis[0] if len(log.apis) == 1 else None
        start: int | Literal["head"] = "head" if known.since is None else 0
        reached = config.trust
        logs.append(
            LogConfig(
                unique,
                log.url,
                api,
                start,
                log.log_id,
                ca_file=reached.ca_file,
                proxy=reached.proxy,
                of_root=True,
            )
        )
    return logs


def not_followed(config: Config, root: TrustRoot) -> tuple[str, ...]:
    """Logs of the trust root that cannot be followed, with reasons; empty if the configuration lists `logs`."""
    return tuple(f"{each}; it is not followed: correct the trust root" for each in root.skipped if config.logs is None)


def where_it_is(log: LogConfig, trust: TrustKeeper) -> LogConfig:
    """The log with its URL in the newest root, if it comes from the trust root; a configured log keeps its URL."""
    if not log.of_root:
        return log
    for known in trust.history().logs():
        urls = {known.log.url, *(each.url for each in known.former)}
        if known.log.log_id == log.log_id and log.url in urls:
            return replace(log, url=known.log.url)
    return log


def followed_keys(logs: Sequence[LogConfig], trust: TrustKeeper) -> dict[tuple[str, bytes], LogConfig]:
    """Followed logs by URL and key id, as far as the trust root holds their keys."""
    found = {}
    root = trust.history().followable()
    for log in (where_it_is(each, trust) for each in logs):
        for known in root.logs:
            if known.url == log.url and log.log_id in {None, known.log_id}:
                found[known.url, known.log_id] = log
    return found


def hold_of(config: Config, logs: Sequence[LogConfig]) -> timedelta:
    """Time for which the alert for a certificate waits for its entry; zero if no followed log shows entries."""
    return config.objectives.certificate_hold if any(log.api not in CT_APIS for log in logs) else timedelta(0)


def tell_facts(facts: StoredKnownFacts, logs: Sequence[LogConfig]) -> None:
    """Let absences count as facts only if all logs in question are followed without gaps."""
    # A log with an undetected protocol may be of either kind.
    facts.certificate_logs = frozenset(log.name for log in logs if log.api is None or log.api in CT_APIS)
    facts.signature_logs = frozenset(log.name for log in logs if log.api not in CT_APIS)

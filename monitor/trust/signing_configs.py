"""Signing configurations: the logs that clients use, compared with the trust root."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

import msgspec

from monitor.model.errors import OwnFault
from monitor.model.log_source import LogApi
from monitor.trust.trust_root import TimeRange, TrustedLog, TrustRoot, read_message
from tlog.note import MalformedNote, tile_log_key

MAX_SIZE: Final = 1024 * 1024
_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.signingconfig.v0.2"
_APIS: Final = {1: LogApi.REKOR_V1, 2: LogApi.REKOR_V2}


class LogService(msgspec.Struct, frozen=True):
    """One log that clients may use."""

    url: str
    majorApiVersion: int = 0  # noqa: N815  protobuf-specs' names
    validFor: TimeRange | None = None  # noqa: N815

    def is_used(self, now: datetime) -> bool:
        """True if clients may write to this log now or later."""
        return self.validFor is None or self.validFor.end is None or now < self.validFor.end


class _SigningConfig(msgspec.Struct):
    mediaType: str = ""  # noqa: N815
    rekorTlogUrls: list[LogService] = []  # noqa: N815


def read_signing_config(raw: bytes) -> Sequence[LogService]:
    """Logs that a signing_config.json (v0.2) names. Raises `OwnFault` for another document."""
    if len(raw) > MAX_SIZE:
        raise OwnFault(f"a signing configuration of {len(raw)} bytes is longer than {MAX_SIZE}")
    try:
        config = read_message(raw, _SigningConfig)
    except ValueError as error:
        raise OwnFault(f"not a signing configuration: {error}") from error
    if not config.mediaType.startswith(_MEDIA_TYPE):
        raise OwnFault(f"not a signing configuration of version 0.2: its media type is {config.mediaType!r:.120}")
    return config.rekorTlogUrls


def disagreements(services: Sequence[LogService], root: TrustRoot, now: datetime) -> Iterator[tuple[str, str]]:
    """Logs that clients use and that cannot be watched: URL and reason, each once."""
    told: set[tuple[str, str]] = set()
    for service in services:
        reason = _reason(service, root) if service.is_used(now) else None
        if reason is not None and (service.url, reason) not in told:
            told.add((service.url, reason))
            yield service.url, reason


def _reason(service: LogService, root: TrustRoot) -> str | None:
    same = [log for log in root.logs if _is_of(service, log)]
    if not same:
        return "the trust root has no key for it"
    wanted = _APIS.get(service.majorApiVersion)
    if wanted is None:
        return f"its API version {service.majorApiVersion} is not known here"
    if not any(wanted in log.apis for log in same):
        return f"the trust root's key for it is not one of {wanted}"
    return None


def _is_of(service: LogService, log: TrustedLog) -> bool:
    """True if both have the same address, or the key id hashes the service's name.

    Addresses for reading and writing may differ.
    """
    if log.url == service.url.rstrip("/"):
        return True
    parts = urlsplit(service.url)
    for origin in {parts.hostname or "", parts.netloc, (parts.hostname or "") + parts.path.rstrip("/")} - {""}:
        try:
            key = tile_log_key(origin, log.spki)
        except (MalformedNote, ValueError):
            continue
        # Only a key id that hashes the name identifies it: an ECDSA id is the same under every name.
        if key.log_id == log.log_id and log.apis == (LogApi.REKOR_V2,):
            return True
    return False

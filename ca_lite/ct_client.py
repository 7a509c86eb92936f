"""Adds precertificates to the CT log (RFC 6962 4.2). The caller must verify the signature of each SCT."""

from collections.abc import Sequence
from typing import Any, Final

import pybase64
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct

from ca_lite.log_trust import CtLog
from outbound.json_client import JsonClient, Outage
from outbound.transport import believed
from tlog.ct import MalformedCt, Sct, decode_base64

_LIMIT: Final = 64 * 1024
_LOG_ID_SIZE: Final = 32
_EXTENSIONS_LIMIT: Final = 1024
_MAX_TIMESTAMP: Final = 1 << 63


class CtClient(Struct, frozen=True):
    """One CT log. `http` is kept open between requests."""

    log: CtLog
    seconds: float
    http: JsonClient

    @classmethod
    def connect(cls, log: CtLog, seconds: float) -> "CtClient":
        """JsonClient with its own connection pool; nothing is sent yet."""
        return cls(log, seconds, JsonClient(believed(None)))

    def add_pre_chain(self, chain: Sequence[x509.Certificate]) -> Sct:
        """Enter a precertificate with its issuers; the SCT's signature is not checked. Raises `Outage`."""
        url = f"{self.log.url}/ct/v1/add-pre-chain"
        body = {"chain": [pybase64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in chain]}
        status, answer = self.http.request_json(url, body=body, limit=_LIMIT, seconds=self.seconds)
        if status != 200 or not isinstance(answer, dict):  # noqa: PLR2004
            raise Outage(f"{url}: answered {status}: {_excerpt(answer)}")
        try:
            return _sct(answer)
        except MalformedCt as error:
            raise Outage(f"{url}: its answer is not an SCT: {error}") from error

    def reachable(self) -> str | None:
        """`None` if the log answers, otherwise the defect."""
        try:
            status, answer = self.http.request_json(f"{self.log.url}/ct/v1/get-sth", limit=_LIMIT, seconds=self.seconds)
        except Outage as error:
            return str(error)
        return None if status == 200 and isinstance(answer, dict) else f"{self.log.url}: get-sth answered {status}"  # noqa: PLR2004


def _sct(answer: dict[str, Any]) -> Sct:
    if answer.get("sct_version") != 0:
        raise MalformedCt("sct_version is not 0")
    timestamp = answer.get("timestamp")
    if isinstance(timestamp, bool) or not isinstance(timestamp, int) or not 0 <= timestamp < _MAX_TIMESTAMP:
        raise MalformedCt("timestamp is not a number of milliseconds")
    fields = [_bytes(answer, name) for name in ("id", "extensions", "signature")]
    log_id, extensions, signature = fields
    if len(log_id) != _LOG_ID_SIZE or len(extensions) > _EXTENSIONS_LIMIT:
        raise MalformedCt("id or extensions have an impossible length")
    return Sct(log_id, timestamp, extensions, signature)


def _bytes(answer: dict[str, Any], name: str) -> bytes:
    value = answer.get(name) or ""
    if not isinstance(value, str):
        raise MalformedCt(f"{name} is not text")
    return decode_base64(value, name)


def _excerpt(answer: Any) -> str:
    return repr(answer)[:200]

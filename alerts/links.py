"""Addresses of this installation for alerts, and the signature by which a mail's reader may acknowledge."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from alerts.alert import Alert

LINK_HOLDS: Final = timedelta(days=30)
_SIGNATURE_BYTES: Final = 18
PROVEN_KIND: Final = "unexpected-signing"


class Links(Struct, frozen=True):
    """Links to pages of this installation under `base`, the public URL without a slash at its end; none if it is empty.

    `key` signs links that acknowledge an alert without a login; none are made without it.
    """

    base: str = ""
    key: bytes = b""

    def page(self, alert: Alert) -> str:
        """The alert's own page, or "" without one. Digests and tests have no page."""
        return f"{self.base}/alerts/{_segment(alert)}" if self.base and _has_page(alert) else ""

    def proof(self, alert: Alert) -> str:
        """The file that proves the alert's signing to be in the log, or "" without one."""
        has_one = alert.kind == PROVEN_KIND and alert.index is not None
        return f"{self.base}/proofs/{_segment(alert)}" if self.base and has_one else ""

    def evidence(self, alert: Alert) -> str:
        """The page of the alert's evidence against a log, or "" without one."""
        if not self.base or alert.evidence is None:
            return ""
        return f"{self.base}/evidence/{quote(alert.evidence.encode('utf-8', 'replace'), safe='')}"

    def explanation(self, alert: Alert) -> str:
        """The documentation's page on alerts of this kind, as this installation serves it."""
        return f"{self.base}/explain/alerts/{quote(alert.kind, safe='')}" if self.base and _has_page(alert) else ""

    def acknowledge(self, alert: Alert) -> str:
        """A signed link to the form that acknowledges this alert, or "" without a key."""
        page = self.page(alert)
        if not page or not self.key:
            return ""
        until = int((alert.created_at + LINK_HOLDS).timestamp())
        return f"{page}?until={until}&signature={sign(self.key, alert.id, until)}"


NO_LINKS: Final = Links()


def sign(key: bytes, alert_id: str, until: int) -> str:
    """URL-safe HMAC-SHA256, cut to 144 bits, over the permission, the alert and the end of the link (Unix time)."""
    message = f"signwatch acknowledge\0{until}\0{alert_id}".encode("utf-8", "surrogatepass")
    return base64.urlsafe_b64encode(hmac.new(key, message, hashlib.sha256).digest()[:_SIGNATURE_BYTES]).decode("ascii")


def is_signed(key: bytes, alert_id: str, until: int, signature: str, now: datetime) -> bool:
    """True if the link was made with this key and is still valid."""
    wanted = sign(key, alert_id, until).encode("ascii")
    given = signature.encode("utf-8", "surrogatepass")
    return hmac.compare_digest(wanted, given) and now.astimezone(UTC).timestamp() < until


def _segment(alert: Alert) -> str:
    return quote(alert.id.encode("utf-8", "replace"), safe="")


def _has_page(alert: Alert) -> bool:
    return alert.kind not in {"digest", "test"}

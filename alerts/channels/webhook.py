"""Alerts as signed JSON posts, in the form of the Standard Webhooks specification (v1 symmetric signatures)."""

import base64
import binascii
import hashlib
import hmac
import json
from datetime import datetime
from typing import Any, Final

from msgspec import Struct, field

from alerts.alert import Alert, rfc3339
from alerts.channels.channel import DeliveryFailed
from alerts.channels.guarded_http import GuardedPoster
from alerts.channels.settings import SecretFile, SecretUnreadable
from alerts.inert import header_token
from alerts.rendering import Renderer

_PREFIX: Final = "whsec_"
# Standard Webhooks: "between 24 bytes (192 bits) and 64 bytes (512 bits)".
_SECRET_BYTES: Final = range(24, 65)


class WebhookChannel(Struct, frozen=True):
    """Posts each alert to `url`; with a `secret`, signed so that the receiver can verify sender and time."""

    name: str
    url: str
    poster: GuardedPoster
    secret: SecretFile | None = None
    renderer: Renderer = field(default_factory=Renderer)
    digests: bool = True

    def send(self, alert: Alert, key: str, now: datetime) -> None:
        """Post one alert; a 2xx answer is a delivery."""
        body = encode(alert, key, self.renderer)
        # SPEC standard-webhooks: the id is unique to the message and the same when it is sent again.
        identifier, timestamp = header_token(key), int(now.timestamp())
        headers = {"webhook-id": identifier, "webhook-timestamp": str(timestamp)}
        if self.secret is not None:
            try:
                secret = decode_secret(self.secret.read())
            except (SecretUnreadable, ValueError) as error:
                raise DeliveryFailed(str(error)) from error
            headers["webhook-signature"] = sign(secret, identifier, timestamp, body)
        self.poster.post(self.url, body, headers, now)


def encode(alert: Alert, key: str, renderer: Renderer) -> bytes:
    """The body: `type`, `timestamp` and `data` (docs/schemas/signwatch-alert-1.json), ASCII JSON."""
    document: dict[str, Any] = {
        "type": f"signwatch.{alert.kind}",
        "timestamp": rfc3339(alert.created_at),
        "data": renderer.document(alert, key),
    }
    return json.dumps(document, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def decode_secret(text: str) -> bytes:
    """The key in a `whsec_…` secret. Raises `ValueError`."""
    try:
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not text.startswith(_PREFIX) or len(secret) not in _SECRET_BYTES:
        raise ValueError(
            'a webhook secret is "whsec_" and 24 to 64 bytes in base64; make one with: '
            'echo "whsec_$(openssl rand -base64 32)"'
        )
    return secret


def sign(secret: bytes, identifier: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header: HMAC-SHA256 over `id.timestamp.body`."""
    signed = f"{identifier}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode("ascii")

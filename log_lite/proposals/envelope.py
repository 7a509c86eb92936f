"""DSSE envelopes: pre-authentication encoding and matching every signature to a key that verifies it."""

import json
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from log_lite.proposals.proposal import NotJson, Rejected, binary, items, parse_object, text
from log_lite.proposals.verifier import Verifier

IN_TOTO: str = "application/vnd.in-toto+json"


class Envelope(Struct, frozen=True):
    """A DSSE envelope; `signatures` are the raw bytes."""

    payload: bytes
    payload_type: str
    signatures: tuple[bytes, ...]

    def pae(self) -> bytes:
        """SPEC dsse protocol: PAE = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)


def parse_envelope(raw: bytes) -> Envelope:
    """Read an envelope's JSON. Raises `Rejected`."""
    try:
        return read_envelope(parse_object(raw))
    except NotJson as error:
        raise Rejected(f"envelope is not JSON: {error}") from error


def read_envelope(envelope: dict[str, Any]) -> Envelope:
    """Read an envelope from its JSON object. Raises `Rejected`."""
    signatures = []
    for signature in items(envelope, "signatures"):
        if not isinstance(signature, dict):
            raise Rejected("signatures in body must be objects")
        signatures.append(binary(signature, "sig"))
    payload = binary(envelope, "payload") if envelope.get("payload") != "" else b""
    return Envelope(payload, text(envelope, "payloadType"), tuple(signatures))


def match_signatures(envelope: Envelope, verifiers: Sequence[Verifier]) -> list[tuple[bytes, Verifier]]:
    """Return each signature with the key that verifies it.

    Raises `Rejected` unless each signature has a key and each key a signature.
    """
    message = envelope.pae()
    matched: dict[bytes, Verifier] = {}
    for verifier in verifiers:
        good = [s for s in envelope.signatures if _verifies(verifier, s, message)]
        if not good:
            raise Rejected(
                "could not verify envelope: accepted signatures do not match threshold, Found: 0, Expected 1"
            )
        matched.update(dict.fromkeys(good, verifier))
    if set(matched) != set(envelope.signatures):
        raise Rejected("all signatures must have a key that verifies it")
    return list(matched.items())


def _verifies(verifier: Verifier, signature: bytes, message: bytes) -> bool:
    try:
        verifier.verify(signature, message)
    except Rejected:
        return False
    return True


def statement_digests(envelope: Envelope) -> tuple[str, ...]:
    """Digests of an in-toto statement's subjects as `algorithm:hex`; empty for any other payload."""
    if envelope.payload_type != IN_TOTO:
        return ()
    try:
        subjects = json.loads(envelope.payload)["subject"]
        found = tuple(f"{algorithm}:{value}" for s in subjects for algorithm, value in s["digest"].items())[:1000]
        "".join(found).encode()  # half of a surrogate pair, which the store refuses, is a ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # The digests only feed the search index, which is best effort.
        return ()
    return found

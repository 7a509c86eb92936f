"""Checks that a log entry belongs to one given signature: the same bytes, by the same key.

An entry of another signature is no proof that this one was logged.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from sigstore_entries.body import MalformedText, blocks
from sigstore_entries.bundle_file import NoBundle, decoded
from sigstore_entries.der import read_spki_of, split_certificate
from sigstore_entries.entry import decode_rekor
from sigstore_entries.keys import pkcs1_spki
from sigstore_entries.signing import EntryRef, Signing


class NotBound(ValueError):
    """The entry is of another signature, key or file; the message names the difference."""


def bound_entry(body: bytes, signature: bytes, signed: Mapping[str, str]) -> Signing:
    """The decoded entry, after a check of its signature and content. Raises `NotBound`.

    `signed` are hex SHA-256 digests by their content (`artifact`, `payload`). The caller compares the signer.
    """
    told = decode_rekor(body, EntryRef("bundle", 0))
    if not isinstance(told, Signing):
        raise NotBound(f"the log entry cannot be read: {told.reason}")
    found = [(each.of, each.value) for each in told.digests if each.of in signed]
    if not found or any(value != signed[of] for of, value in found):
        raise NotBound("the log entry is of another file")
    if signature not in [each for each, _ in _signatures(json.loads(body))]:
        raise NotBound("the log entry is of another signature")
    return told


def entry_key(body: bytes) -> bytes:
    """The SPKI (DER) of the first key in an entry. Raises `NotBound`."""
    try:
        material = _signatures(json.loads(body))[0][1]
        block = blocks(material, "the key")[0] if material.startswith(b"-----BEGIN") else None
        if block is not None and block.label == "RSA PUBLIC KEY":
            return pkcs1_spki(block.content)
        raw = block.content if block is not None else material
        is_certificate = block.label == "CERTIFICATE" if block is not None else False
        return read_spki_of(split_certificate(raw).encoded) if is_certificate else raw
    except (NoBundle, MalformedText, IndexError, KeyError, TypeError, ValueError) as error:
        raise NotBound(f"the key of the log entry cannot be read: {error!s:.120}") from error


def _signatures(body: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    """Signatures of an entry, each with its key or certificate: PEM, or DER in Rekor v2."""
    spec, which = body["spec"], (body["kind"], body["apiVersion"])
    if which == ("hashedrekord", "0.0.1"):
        found = [(spec["signature"]["content"], spec["signature"]["publicKey"]["content"])]
    elif which == ("hashedrekord", "0.0.2"):
        found = [(each["signature"]["content"], _v2(each["signature"])) for each in spec.values()]
    elif which == ("dsse", "0.0.1"):
        found = [(each["signature"], each["verifier"]) for each in spec["signatures"]]
    elif which == ("dsse", "0.0.2"):
        found = [(sig["content"], _v2(sig)) for each in spec.values() for sig in each["signatures"]]
    elif which == ("intoto", "0.0.2"):
        # The signature in it is base64 of base64 (Rekor, intoto 0.0.2).
        found = [
            (decoded(each["sig"], "a signature in the log entry").decode(), each["publicKey"])
            for each in spec["content"]["envelope"]["signatures"]
        ]
    else:
        raise NotBound(f"entries of kind {which[0]!r:.40} {which[1]!r:.20} are not verified here")
    return [
        (decoded(signature, "a signature in the log entry"), decoded(key, "a key in the log entry"))
        for signature, key in found
    ]


def _v2(signature: Mapping[str, Any]) -> str:
    """The key of a Rekor v2 entry as SPKI; taken from the certificate if the entry holds one."""
    verifier = signature["verifier"]
    if "x509Certificate" in verifier:
        raw = decoded(verifier["x509Certificate"]["rawBytes"], "a certificate in the log entry")
        return base64.b64encode(read_spki_of(split_certificate(raw).encoded)).decode()
    return str(verifier["publicKey"]["rawBytes"])

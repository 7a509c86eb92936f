"""An entry of Rekor v2 in the form of Rekor v1, for clients that know no other.

SPEC rekor hashedrekord_v0_0_1_schema.json: hexadecimal digest, signature, certificate or key in PEM.
"""

import base64
import json
import textwrap
from typing import Final

from sigstore_entries.body import BodyObject, MalformedBody, read_json
from sigstore_entries.entry import HASHEDREKORD_V2_NAMES, decode_rekor
from sigstore_entries.signing import EntryRef, Signing

_ALGORITHMS: Final = frozenset({"sha256", "sha384", "sha512"})
_VERIFIERS: Final = {"x509Certificate": "CERTIFICATE", "publicKey": "PUBLIC KEY"}
_LINE: Final = 64  # RFC 7468, section 2


def rekor_v1_form(body: bytes) -> bytes | None:
    """Body of the hashedrekord 0.0.1 with the content of this hashedrekord 0.0.2.

    `None` for all other entries. A dsse 0.0.2 holds the payload's digest, signatures and verifiers. Of the kinds that
    clients of Rekor v1 read, dsse 0.0.1 also requires `envelopeHash`, and intoto 0.0.2 `payloadType`: both would have
    to be made up. A hashedrekord would claim that the payload was signed, where its PAE was (SPEC DSSE protocol.md).
    """
    told = decode_rekor(body, EntryRef("log", 0))
    if not isinstance(told, Signing) or (told.kind, told.version) != ("hashedrekord", "0.0.2"):
        return None
    digest = told.digests[0]
    if digest.algorithm not in _ALGORITHMS:
        return None
    try:
        spec = BodyObject(read_json(body, "the body"), "body").object("spec")
        signature = spec.object(next(name for name in HASHEDREKORD_V2_NAMES if name in spec), "signature")
        signed = {"content": _b64(signature.bytes("content")), "publicKey": {"content": _b64(_pem(signature))}}
    except MalformedBody:
        return None
    data = {"hash": {"algorithm": digest.algorithm, "value": digest.value}}
    form = {"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {"data": data, "signature": signed}}
    return json.dumps(form, sort_keys=True, separators=(",", ":")).encode()


def _pem(signature: BodyObject) -> bytes:
    verifier = signature.object("verifier")
    name = next(name for name in _VERIFIERS if name in verifier)
    lines = textwrap.wrap(_b64(verifier.object(name).bytes("rawBytes")), _LINE)
    return "\n".join([f"-----BEGIN {_VERIFIERS[name]}-----", *lines, f"-----END {_VERIFIERS[name]}-----", ""]).encode()


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()

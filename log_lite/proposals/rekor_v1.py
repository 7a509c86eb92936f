"""Rekor v1 submissions: from `{"apiVersion","kind","spec"}` to a canonical body, or the reason for its rejection."""

import json
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

from log_lite.proposals.envelope import Envelope, match_signatures, parse_envelope, statement_digests
from log_lite.proposals.proposal import (
    Proposal,
    Rejected,
    binary,
    canonical_body,
    decode_base64,
    encode_base64,
    items,
    member,
    text,
)
from log_lite.proposals.rekord import propose_rekord
from log_lite.proposals.verifier import HASHES, Verifier, parse_pem

_MAX_ATTESTATION: Final = 100 * 1024
# Kinds that Rekor knows. This log takes submissions of some of them only.
KINDS: Final = frozenset(
    {"hashedrekord", "dsse", "intoto", "rekord", "cose", "jar", "rpm", "alpine", "helm", "tuf", "rfc3161"}
)
_HEX: Final = re.compile(r"[0-9a-f]+")


class UnknownKind(Exception):
    """`kind` is none of Rekor's kinds."""


def propose(entry: Mapping[str, Any]) -> Proposal:
    """Verify a proposed entry and return its canonical form. Raises `Rejected`, `UnknownKind`."""
    kind, version = entry.get("kind"), entry.get("apiVersion")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UnknownKind(f'invalid kind value: "{_shown(kind)}"')
    spec = entry.get("spec")
    if not isinstance(spec, Mapping):
        raise Rejected("spec in body is required")
    builder = _BUILDERS.get((kind, version)) if isinstance(version, str) else None
    if builder is None:
        raise Rejected(
            f"unsupported: entry kind '{kind}' does not support inserting entries of version '{_shown(version)}'"
        )
    return builder(spec)


def _shown(value: object) -> str:
    """A client's value for an error message: a string unchanged, an empty text for a missing value, otherwise JSON."""
    if value is None:
        return ""
    return (value if isinstance(value, str) else json.dumps(value))[:60]


def _hashedrekord(spec: Mapping[str, Any]) -> Proposal:
    name, value = text(spec, "data.hash.algorithm"), text(spec, "data.hash.value").lower()
    algorithm = HASHES.get(name)
    if algorithm is None or not _HEX.fullmatch(value) or len(value) != 2 * algorithm.digest_size:
        raise Rejected("validation failure: invalid value for hash")
    sent = binary(spec, "signature.publicKey.content")
    verifier = parse_pem(sent)
    signature = binary(spec, "signature.content")
    verifier.verify_digest(signature, bytes.fromhex(value), algorithm)
    body = canonical_body(
        "hashedrekord",
        "0.0.1",
        {
            "data": {"hash": {"algorithm": name, "value": value}},
            "signature": {
                "content": encode_base64(signature),
                "publicKey": {"content": encode_base64(verifier.pem())},
            },
        },
    )
    return Proposal(body, (sha256(sent).hexdigest(), *verifier.subjects(), f"{name}:{value}"))


def _dsse(spec: Mapping[str, Any]) -> Proposal:
    if spec.get("proposedContent") is None:
        return _canonical_dsse(spec)
    raw = text(spec, "proposedContent.envelope").encode()
    verifiers = [_pem_item(v) for v in items(spec, "proposedContent.verifiers")]
    envelope = parse_envelope(raw)
    matched = {encode_base64(signature): verifier for signature, verifier in match_signatures(envelope, verifiers)}
    payload, whole = sha256(envelope.payload).hexdigest(), sha256(raw).hexdigest()
    body = canonical_body(
        "dsse",
        "0.0.1",
        {
            "envelopeHash": {"algorithm": "sha256", "value": whole},
            "payloadHash": {"algorithm": "sha256", "value": payload},
            "signatures": [{"signature": s, "verifier": encode_base64(matched[s].pem())} for s in sorted(matched)],
        },
    )
    keys = (*_key_names(verifiers), f"sha256:{payload}", f"sha256:{whole}", *statement_digests(envelope))
    return Proposal(body, keys)


def _intoto_1(spec: Mapping[str, Any]) -> Proposal:
    raw = text(spec, "content.envelope").encode()
    verifier = parse_pem(binary(spec, "publicKey"))
    envelope = parse_envelope(raw)
    match_signatures(envelope, [verifier])
    payload, whole = sha256(envelope.payload).hexdigest(), sha256(raw).hexdigest()
    content = {
        "hash": {"algorithm": "sha256", "value": whole},
        "payloadHash": {"algorithm": "sha256", "value": payload},
    }
    body = canonical_body("intoto", "0.0.1", {"content": content, "publicKey": encode_base64(verifier.pem())})
    keys = (*_key_names([verifier]), f"sha256:{payload}", f"sha256:{whole}", *statement_digests(envelope))
    return Proposal(body, keys, _attestation(envelope))


def _intoto_2(spec: Mapping[str, Any]) -> Proposal:
    offered = member(spec, "content.envelope")
    signed, verifiers, stored = [], [], []
    for item in items(spec, "content.envelope.signatures"):
        if not isinstance(item, Mapping):
            raise Rejected("content.envelope.signatures in body must be objects")
        # The API's base64 wraps the envelope's own base64: the signed bytes are encoded twice.
        sig_text = binary(item, "sig")
        signed.append(decode_base64(sig_text.decode("latin-1"), "sig"))
        verifiers.append(parse_pem(binary(item, "publicKey")))
        kept = {"publicKey": text(item, "publicKey"), "sig": encode_base64(sig_text)}
        if isinstance(item.get("keyid"), str) and item["keyid"]:
            kept["keyid"] = item["keyid"]
        stored.append(kept)
    payload = decode_base64(binary(offered, "payload").decode("latin-1"), "payload")
    envelope = Envelope(payload, text(offered, "payloadType"), tuple(signed))
    match_signatures(envelope, verifiers)
    digest = text(spec, "content.hash.value").lower()
    if text(spec, "content.hash.algorithm") != "sha256" or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise Rejected("error validating envelope digest")
    payload_hash = sha256(payload).hexdigest()
    content = {
        "envelope": {"payloadType": envelope.payload_type, "signatures": stored},
        "hash": {"algorithm": "sha256", "value": digest},
        "payloadHash": {"algorithm": "sha256", "value": payload_hash},
    }
    body = canonical_body("intoto", "0.0.2", {"content": content})
    keys = (*_key_names(verifiers), f"sha256:{payload_hash}", *statement_digests(envelope))
    return Proposal(body, keys, _attestation(envelope))


def _canonical_dsse(spec: Mapping[str, Any]) -> Proposal:
    # `rekor-cli verify` and cosign look an entry up by its canonical form, which cannot be inserted.
    raise NotInsertable(canonical_body("dsse", "0.0.1", {k: member(spec, k) for k in _DSSE_CANONICAL}))


class NotInsertable(Rejected):
    """A canonical entry, which a client can look up by its `body` and cannot insert."""

    def __init__(self, body: bytes) -> None:
        super().__init__("entry not insertable into log")
        self.body = body


def _pem_item(value: object) -> Verifier:
    if not isinstance(value, str):
        raise Rejected("verifiers in body must be strings")
    return parse_pem(decode_base64(value, "verifiers"))


def _key_names(verifiers: list[Verifier]) -> list[str]:
    names = [f"sha256:{sha256(v.pem()).hexdigest()}" for v in verifiers]
    return names + [subject for v in verifiers for subject in v.subjects()]


def _attestation(envelope: Envelope) -> bytes:
    return envelope.payload if len(envelope.payload) <= _MAX_ATTESTATION else b""


_DSSE_CANONICAL: Final = ("envelopeHash", "payloadHash", "signatures")
_BUILDERS: Final[dict[tuple[str, str], Callable[[Mapping[str, Any]], Proposal]]] = {
    ("hashedrekord", "0.0.1"): _hashedrekord,
    ("dsse", "0.0.1"): _dsse,
    ("intoto", "0.0.1"): _intoto_1,
    ("intoto", "0.0.2"): _intoto_2,
    ("rekord", "0.0.1"): propose_rekord,
}

"""Reads the bodies of both signingCert end points into a token and a proof of possession (Fulcio's fulcio.proto)."""

import json
from collections.abc import Collection
from functools import cache
from typing import Any

from msgspec import Struct

from ca_lite.errors import CSR_UNPARSABLE, KEY_UNPARSABLE, SIGNATURE_INVALID, bad_request
from ca_lite.proof import (
    decode_bytes_field,
    key_from_csr,
    parse_public_key,
    verify_possession,
)
from sigstore_entries.client_keys import ClientKey


class CsrProof(Struct, frozen=True):
    """The caller sent a certificate signing request: its own signature is the proof."""

    csr: Any

    def __call__(self, challenges: Collection[str], permitted: Collection[str]) -> ClientKey:
        """Proven key. Raises `CaRefused`."""
        del challenges
        raw = decode_bytes_field(self.csr, bad_request(CSR_UNPARSABLE, "CSR_UNPARSABLE", "not base64"))
        return key_from_csr(raw, permitted)


class SignedChallenge(Struct, frozen=True):
    """The caller sent a key and a signature over its e-mail or subject. `bare` content is bytes (v1), else text."""

    content: Any
    proof: Any
    bare: bool

    def __call__(self, challenges: Collection[str], permitted: Collection[str]) -> ClientKey:
        """Proven key. Raises `CaRefused`."""
        unparsable = bad_request(KEY_UNPARSABLE, "KEY_UNPARSABLE", "a PEM or DER public key, or a CSR, is required")
        if not isinstance(self.content, str) or not self.content:
            raise unparsable
        raw = decode_bytes_field(self.content, unparsable) if self.bare else _text_key(self.content)
        key = parse_public_key(raw)
        missing = bad_request(SIGNATURE_INVALID, "PROOF_OF_POSSESSION_INVALID", "the proof of possession is not base64")
        proof = decode_bytes_field(self.proof, missing)
        verify_possession(key, proof, challenges, permitted)
        return key


def read_v2(raw: bytes, header_token: str) -> tuple[str, CsrProof | SignedChallenge]:
    """Token and proof of a v2 request; a token in the body takes precedence over the header's. Raises `CaRefused`."""
    body = _object(raw)
    token = _field(_field(body, "credentials"), "oidcIdentityToken")
    token = token if isinstance(token, str) and token else header_token
    if csr := _field(body, "certificateSigningRequest"):
        return token, CsrProof(csr)
    request = _field(body, "publicKeyRequest")
    content = _field(_field(request, "publicKey"), "content")
    return token, SignedChallenge(content, _field(request, "proofOfPossession"), bare=False)


def read_v1(raw: bytes) -> CsrProof | SignedChallenge:
    """Proof of a v1 request (gitsign). Raises `CaRefused`."""
    body = _object(raw)
    if csr := _field(body, "certificateSigningRequest"):
        return CsrProof(csr)
    content = _field(_field(body, "publicKey"), "content")
    return SignedChallenge(content, _field(body, "signedEmailAddress"), bare=True)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the request body is not JSON: {error}", "BODY_MALFORMED") from error
    if not isinstance(body, dict):
        raise bad_request("the request body is not a JSON object", "BODY_MALFORMED")
    return body


def _field(value: Any, name: str) -> Any:
    """A message's field by its camelCase or snake_case name, None when absent (protojson takes both)."""
    if not isinstance(value, dict):
        return None
    found = value.get(name)
    return value.get(_snake(name)) if found is None else found


@cache
def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _text_key(content: str) -> bytes:
    # Fulcio: "PEM, else the raw DER as a string"; a JSON string carries DER bytes as code points below 256.
    return content.encode() if "-----BEGIN" in content else content.encode("latin-1", "replace")

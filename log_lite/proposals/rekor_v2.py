"""Rekor v2 submissions: hashedRekordRequestV002 and dsseRequestV002, in protobuf's JSON mapping."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from msgspec import Struct

from log_lite.proposals.envelope import match_signatures, read_envelope
from log_lite.proposals.proposal import Proposal, Rejected, binary, canonical_body, encode_base64, items, member, text
from log_lite.proposals.verifier import Verifier, parse_der_certificate, parse_der_key

# SPEC rekor-tiles: "reject entries larger than 65,535 bytes": an entry bundle's length field is a uint16.
MAX_BODY: Final = 0xFFFF


class _Algorithm(Struct, frozen=True):
    hash_name: str
    hash: HashAlgorithm
    curve: str = ""
    rsa_bits: int = 0
    is_ed25519: bool = False


# SPEC rekor-tiles algorithmregistry: RSA PKCS#1 v1.5, ECDSA, Ed25519ph; plain Ed25519 is not accepted.
_ALGORITHMS: Final = {
    "PKIX_ECDSA_P256_SHA_256": _Algorithm("SHA2_256", SHA256(), curve="secp256r1"),
    "PKIX_ECDSA_P384_SHA_384": _Algorithm("SHA2_384", SHA384(), curve="secp384r1"),
    "PKIX_ECDSA_P521_SHA_512": _Algorithm("SHA2_512", SHA512(), curve="secp521r1"),
    "PKIX_ED25519_PH": _Algorithm("SHA2_512", SHA512(), is_ed25519=True),
    "PKIX_RSA_PKCS1V15_2048_SHA256": _Algorithm("SHA2_256", SHA256(), rsa_bits=2048),
    "PKIX_RSA_PKCS1V15_3072_SHA256": _Algorithm("SHA2_256", SHA256(), rsa_bits=3072),
    "PKIX_RSA_PKCS1V15_4096_SHA256": _Algorithm("SHA2_256", SHA256(), rsa_bits=4096),
}
_CAMEL: Final = {
    "hashed_rekord_request_v002": "hashedRekordRequestV002",
    "dsse_request_v002": "dsseRequestV002",
    "x509_certificate": "x509Certificate",
    "public_key": "publicKey",
    "raw_bytes": "rawBytes",
    "key_details": "keyDetails",
    "payload_type": "payloadType",
}


class UnknownField(Exception):
    """The request holds a field that the message type does not have."""


def propose(request: Mapping[str, Any], *, accept_dsse: bool = True) -> Proposal:
    """Verify a CreateEntryRequest and return its canonical entry. Raises `Rejected`, `UnknownField`."""
    named = _fields(request, "CreateEntryRequest", "hashedRekordRequestV002", "dsseRequestV002")
    if len(named) != 1 or not (accept_dsse or "hashedRekordRequestV002" in named):
        raise Rejected("invalid type, must be hashedrekord")
    ((name, value),) = named.items()
    proposal = (_hashedrekord if name == "hashedRekordRequestV002" else _dsse)(value)
    if len(proposal.body) > MAX_BODY:
        raise Rejected(f"invalid entry: {len(proposal.body)} bytes are more than {MAX_BODY}")
    return proposal


def _hashedrekord(value: object) -> Proposal:
    request = _fields(value, "HashedRekordRequestV002", "digest", "signature")
    signature = _fields(member(request, "signature"), "Signature", "content", "verifier")
    verifier, described = _verifier(member(signature, "verifier"))
    algorithm = _ALGORITHMS[described["keyDetails"]]
    digest, content = binary(request, "digest"), binary(signature, "content")
    verifier.verify_digest(content, digest, algorithm.hash)
    spec = {
        "data": {"algorithm": algorithm.hash_name, "digest": encode_base64(digest)},
        "signature": {"content": encode_base64(content), "verifier": described},
    }
    body = canonical_body("hashedrekord", "0.0.2", {"hashedRekordV002": spec})
    return Proposal(body, (f"{algorithm.hash.name}:{digest.hex()}", *verifier.subjects()))


def _dsse(value: object) -> Proposal:
    request = _fields(value, "DSSERequestV002", "envelope", "verifiers")
    offered = _fields(member(request, "envelope"), "Envelope", "payload", "payloadType", "signatures")
    pairs = [_verifier(v) for v in items(request, "verifiers")]
    envelope = read_envelope(offered)
    matched = match_signatures(envelope, [verifier for verifier, _ in pairs])
    signatures = [
        {"content": encode_base64(raw), "verifier": _described(pairs, v)} for raw, v in sorted(matched, key=_raw)
    ]
    payload = sha256(envelope.payload)
    spec = {
        "payloadHash": {"algorithm": "SHA2_256", "digest": encode_base64(payload.digest())},
        "signatures": signatures,
    }
    body = canonical_body("dsse", "0.0.2", {"dsseV002": spec})
    subjects = [subject for verifier, _ in pairs for subject in verifier.subjects()]
    return Proposal(body, (f"sha256:{payload.hexdigest()}", *subjects))


def _raw(pair: tuple[bytes, Verifier]) -> bytes:
    return pair[0]


def _described(pairs: Sequence[tuple[Verifier, dict[str, Any]]], wanted: Verifier) -> dict[str, Any]:
    return next(described for verifier, described in pairs if verifier is wanted)


def _verifier(value: object) -> tuple[Verifier, dict[str, Any]]:
    fields = _fields(value, "Verifier", "publicKey", "x509Certificate", "keyDetails")
    details = text(fields, "keyDetails")
    forms = [name for name in ("publicKey", "x509Certificate") if fields.get(name) is not None]
    if len(forms) != 1:
        raise Rejected("missing signature verifier: either a public key or a certificate")
    raw = binary(_fields(fields[forms[0]], forms[0], "rawBytes"), "rawBytes")
    verifier = parse_der_key(raw) if forms[0] == "publicKey" else parse_der_certificate(raw)
    algorithm = _ALGORITHMS.get(details)
    if algorithm is None:
        raise Rejected(f"unsupported key algorithm {details:.60}")
    _check_key(verifier, algorithm, details)
    return verifier, {forms[0]: {"rawBytes": encode_base64(raw)}, "keyDetails": details}


def _check_key(verifier: Verifier, algorithm: _Algorithm, details: str) -> None:
    key = verifier.key
    if isinstance(key, ec.EllipticCurvePublicKey):
        fits = key.curve.name == algorithm.curve
    else:
        fits = key.key_size == algorithm.rsa_bits if isinstance(key, rsa.RSAPublicKey) else algorithm.is_ed25519
    if not fits:
        raise Rejected(f"the key is not of the type its keyDetails {details} say")


def _fields(value: object, message: str, *known: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise Rejected(f"{message} must be an object")
    # SPEC protobuf JSON: parsers accept both lowerCamelCase and the original names; unknown fields are an error.
    named = {_CAMEL.get(str(name), str(name)): part for name, part in value.items()}
    if len(named) != len(value):
        raise UnknownField(f"duplicate field in {message}")
    for name in named:
        if name not in known:
            raise UnknownField(f'unknown field "{name:.60}"')
    return {name: part for name, part in named.items() if part is not None}

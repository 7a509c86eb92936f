"""Kinds whose verifier is a certificate or key in PEM or DER: hashedrekord, dsse, intoto and cose."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from sigstore_entries.body import Decoded, Fields, MalformedBody, hex_digest, shown
from sigstore_entries.certificate import MalformedVerifier, signer_from_certificate
from sigstore_entries.keys import all_signers, signer_from_key, signer_from_pem
from sigstore_entries.signing import Digest, Signer

# The name in the log's first releases and the one since: its proto renamed the field before version 2.0.
_HASHEDREKORD_V2: Final = ("hashedRekordV002", "hashedRekordV0_0_2")
_DSSE_V2: Final = ("dsseV002", "dsseV0_0_2")
# sigstore_common.proto HashAlgorithm, as protojson spells it; sizes in bytes.
_V2_ALGORITHMS: Final = {
    "SHA2_256": ("sha256", 32),
    "SHA2_384": ("sha384", 48),
    "SHA2_512": ("sha512", 64),
    "SHA3_256": ("sha3-256", 32),
    "SHA3_384": ("sha3-384", 48),
}


def hashedrekord_v1(spec: Fields) -> Decoded:
    """Decode hashedrekord 0.0.1: one digest, one PEM verifier."""
    text = spec.object("signature", "publicKey").bytes("content")
    signer = signer_from_pem(text, "signature.publicKey.content")
    return Decoded((signer,), (hex_digest(spec.object("data", "hash")),))


def hashedrekord_v2(spec: Fields) -> Decoded:
    """Decode hashedrekord 0.0.2 (Rekor v2). Newer clients log a DSSE envelope this way, over SHA-256 of its PAE."""
    inner = _only_one(spec, _HASHEDREKORD_V2)
    signer = _signer_v2(inner.object("signature"), "verifier")
    return Decoded((signer,), (_digest_v2(inner.object("data"), "artifact"),))


def dsse_v1(spec: Fields) -> Decoded:
    """Decode dsse 0.0.1: payload and envelope digests, any number of PEM verifiers."""
    readers = [partial(_signer_of, each, "verifier") for each in spec.list("signatures")]
    digests = (hex_digest(spec.object("payloadHash"), "payload"), hex_digest(spec.object("envelopeHash"), "envelope"))
    return Decoded(all_signers(readers), digests)


def dsse_v2(spec: Fields) -> Decoded:
    """Decode dsse 0.0.2 (Rekor v2 up to 2.2)."""
    inner = _only_one(spec, _DSSE_V2)
    readers = [partial(_signer_v2, each, "verifier") for each in inner.list("signatures")]
    return Decoded(all_signers(readers), (_digest_v2(inner.object("payloadHash"), "payload"),))


def intoto_v1(spec: Fields) -> Decoded:
    """Decode intoto 0.0.1: one PEM key; entries of the first year have no payload digest."""
    return Decoded((_signer_of(spec, "publicKey"),), _envelope_digests(spec.object("content")))


def intoto_v2(spec: Fields) -> Decoded:
    """Decode intoto 0.0.2: the envelope's signatures, each with its PEM key."""
    content = spec.object("content")
    readers = [partial(_signer_of, each, "publicKey") for each in content.object("envelope").list("signatures")]
    return Decoded(all_signers(readers), _envelope_digests(content))


def cose_v1(spec: Fields) -> Decoded:
    """Decode cose 0.0.1: digests of payload and envelope, one PEM key."""
    data = spec.object("data")
    digests = [
        hex_digest(data.object(name), of)
        for name, of in (("payloadHash", "payload"), ("envelopeHash", "envelope"))
        if name in data
    ]
    return Decoded((_signer_of(spec, "publicKey"),), tuple(digests))


def _signer_of(fields: Fields, name: str) -> Signer:
    return signer_from_pem(fields.bytes(name), name)


def _envelope_digests(content: Fields) -> tuple[Digest, ...]:
    digests = [hex_digest(content.object("hash"), "envelope")]
    if "payloadHash" in content:
        digests.insert(0, hex_digest(content.object("payloadHash"), "payload"))
    return tuple(digests)


def _only_one(spec: Fields, names: Sequence[str]) -> Fields:
    """The object under the one of these names that is there. Two would be two entries for two readers."""
    present = [name for name in names if name in spec]
    if len(present) > 1:
        raise MalformedBody(f"the body holds both {' and '.join(present)}")
    return spec.object(present[0] if present else names[0])


def _signer_v2(fields: Fields, name: str) -> Signer:
    verifier = fields.object(name)
    forms: dict[str, Callable[[bytes], Signer]] = {
        "x509Certificate": signer_from_certificate,
        "publicKey": signer_from_key,
    }
    present = [name for name in forms if name in verifier]
    if len(present) != 1:
        # The proto has a oneof here: two of them would be two different signers for two readers.
        raise MalformedVerifier("a verifier holds not exactly one of x509Certificate and publicKey", "malformed-body")
    return forms[present[0]](verifier.object(present[0]).bytes("rawBytes"))


def _digest_v2(data: Fields, of: str) -> Digest:
    name, value = data.text("algorithm"), data.bytes("digest")
    algorithm, size = _V2_ALGORITHMS.get(name, (None, 0))
    if algorithm is None or len(value) != size:
        raise MalformedBody(f"a digest of {len(value)} bytes by algorithm {shown(name)}")
    return Digest(algorithm, value.hex(), of)

"""The signature of an entry is verified where the entry shows all of it, and nothing is said where it does not."""

import base64
import json
from hashlib import sha512
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sigstore_entries.ed25519ph import verify_ed25519ph
from sigstore_entries.entry import decode_rekor
from sigstore_entries.signatures import check_signers
from sigstore_entries.signing import EntryRef, SignatureCheck, Signing
from tests.support import entries as made

# RFC 8032 7.3, "-----TEST abc"
SECRET: Final = bytes.fromhex("833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42")
OF_ABC: Final = bytes.fromhex(
    "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae41"
    "31f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406"
)
ABC: Final = sha512(b"abc").hexdigest()
CA = made.make_ca()
MINE = made.make_certificate(CA, san="dev@acme.example")
OTHER = made.make_certificate(CA, san="dev@acme.example", key=made.make_key("other"))
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P384 = ec.generate_private_key(ec.SECP384R1())
ED = Ed25519PrivateKey.from_private_bytes(SECRET)


def spki(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


def pem(key: Any) -> bytes:
    return made.pem(spki(key), "PUBLIC KEY")


def check(body: bytes) -> SignatureCheck:
    signing = decode_rekor(body, EntryRef("rekor", 1))
    assert isinstance(signing, Signing)
    return check_signers(body, signing).signers[0].signature


DIGEST = bytes.fromhex(made.ARTIFACT)
PKCS1 = RSA.sign(DIGEST, padding.PKCS1v15(), Prehashed(SHA256()))
LONG = "ab" * 48
OF_LONG = P384.sign(bytes.fromhex(LONG), ec.ECDSA(Prehashed(SHA384())))
MY_SIGNATURE = made.signature_of(MINE, made.ARTIFACT)


@pytest.mark.parametrize(
    "body",
    [
        made.hashedrekord_v1(MINE),
        made.hashedrekord_v2(MINE),
        made.hashedrekord_v2(made.spki_of(made.make_key(3))),
        made.hashedrekord_v1(pem(RSA), signature=PKCS1),
        made.hashedrekord_v2(spki(RSA), signature=PKCS1),
        made.hashedrekord_v2(spki(P384), LONG, algorithm="SHA2_384", signature=OF_LONG),
        made.hashedrekord_v1(pem(ED), ABC, algorithm="sha512", signature=OF_ABC),
        made.hashedrekord_v2(spki(ED), ABC, algorithm="SHA2_512", signature=OF_ABC),
        made.rekord("x509", made.pem(MINE)).replace(
            made.b64(made.PLACEHOLDER_SIGNATURE).encode(), made.b64(MY_SIGNATURE).encode()
        ),
    ],
)
def test_a_signature_over_the_digest_verifies(body: bytes) -> None:
    assert check(body) is SignatureCheck.VERIFIED


@pytest.mark.parametrize(
    "body",
    [
        made.hashedrekord_v1(MINE, signature=made.PLACEHOLDER_SIGNATURE),
        made.hashedrekord_v2(MINE, signature=made.signature_of(OTHER, made.ARTIFACT)),
        made.hashedrekord_v2(MINE, "00" * 32, signature=MY_SIGNATURE),
        made.hashedrekord_v1(pem(RSA), "00" * 32, signature=PKCS1),
        made.hashedrekord_v2(spki(ED), "00" * 64, algorithm="SHA2_512", signature=OF_ABC),
        made.hashedrekord_v2(spki(ED), ABC, algorithm="SHA2_512", signature=ED.sign(b"abc")),
        made.rekord("x509", made.pem(MINE)),
    ],
)
def test_a_signature_by_another_key_or_over_another_digest_is_wrong(body: bytes) -> None:
    assert check(body) is SignatureCheck.WRONG


@pytest.mark.parametrize(
    "body", [made.dsse_v1(MINE), made.dsse_v2(MINE), made.intoto_v1(MINE), made.intoto_v2(MINE), made.cose(MINE)]
)
def test_nothing_is_said_of_a_signature_over_what_the_entry_does_not_hold(body: bytes) -> None:
    assert check(body) is SignatureCheck.NOT_CHECKED


def test_ed25519ph_refuses_every_signature_with_one_bit_changed_and_a_scalar_that_is_not_reduced() -> None:
    key, digest = ED.public_key().public_bytes_raw(), bytes.fromhex(ABC)
    assert verify_ed25519ph(key, OF_ABC, digest), "control"
    for bit in range(0, 512, 7):
        bent = bytearray(OF_ABC)
        bent[bit // 8] ^= 1 << bit % 8
        assert not verify_ed25519ph(key, bytes(bent), digest)
    order = 2**252 + 27742317777372353535851937790883648493
    larger = (int.from_bytes(OF_ABC[32:], "little") + order).to_bytes(32, "little")
    assert not verify_ed25519ph(key, OF_ABC[:32] + larger, digest)
    assert not verify_ed25519ph(b"\xff" * 32, OF_ABC, digest)
    assert not verify_ed25519ph(key[:31], OF_ABC, digest)


def test_a_body_that_cannot_be_read_again_is_not_held_against_the_log() -> None:
    signing = decode_rekor(made.hashedrekord_v1(MINE), EntryRef("rekor", 1))
    assert isinstance(signing, Signing)
    document = json.loads(made.hashedrekord_v1(MINE))
    document["spec"]["signature"]["publicKey"]["content"] = base64.b64encode(b"-----BEGIN").decode()
    for body in (b"", b"{}", json.dumps(document).encode()):
        assert check_signers(body, signing).signers[0].signature is SignatureCheck.NOT_CHECKED

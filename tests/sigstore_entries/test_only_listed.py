"""Of an entry that lists several keys or certificates, only the ones that made its signature are its signers.

Anyone can put another person's key or certificate into a ring, a TUF root or a time stamp, and sign with an own key.
"""

import dataclasses
from hashlib import sha256
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec.structs import replace

from ca_lite.timestamp import TimestampAuthority
from ca_lite.timestamp_request import TimestampRequest, message_imprint
from rules.judge import judge_selected
from rules.rule import Outcome
from rules.selection import select
from sigstore_entries import der
from sigstore_entries.entry import decode_rekor
from sigstore_entries.openpgp import read_pgp
from sigstore_entries.signatures import check_signers
from sigstore_entries.signing import ChainTrust, EntryRef, Signing
from sigstore_entries.tuf_metadata import canonical_json
from tests.rules.signings import SEEN_AT, rule
from tests.sigstore_entries.test_openpgp import BINARY, FINGERPRINTS, packet
from tests.support import entries as make
from tests.support.memory_facts import MemoryFacts

SIGNER, LISTED, UNKNOWN = "signer", "only-listed", "signer-unknown"


def judged(body: bytes, fingerprint: str) -> str:
    """What a rule that names this key makes of the entry: its signer (and the past), only listed, or not known."""
    signing = decode_rekor(body, EntryRef("rekor", 1))
    assert isinstance(signing, Signing)
    made = rule(f"{{fingerprint: {fingerprint}}}")
    chained = tuple(
        dataclasses.replace(each, trust=ChainTrust.UNTRUSTED if each.certificate else ChainTrust.NO_CERTIFICATE)
        for each in signing.signers
    )
    selected = select(made.select, check_signers(body, replace(signing, signers=chained)))
    verdict = judge_selected(made, selected, MemoryFacts().facts, SEEN_AT)
    reasons = {reason.id for reason in verdict.reasons}
    if LISTED in reasons:
        assert (verdict.outcome, selected.vouched) == (Outcome.UNVERIFIED, ())
        return LISTED
    assert verdict.outcome is Outcome.UNEXPECTED, "its owner is told"
    if UNKNOWN in reasons:
        assert selected.vouched == ()
        return UNKNOWN
    assert len(selected.vouched) == 1, "control"
    return SIGNER


# -- OpenPGP

STRANGER = packet(6, b"\x04" + b"\x07" * 40)
STRANGERS_KEY = read_pgp(STRANGER).fingerprints[0]
MINE, SUBKEY, ENCRYPTION = FINGERPRINTS
AS_SUBKEY = STRANGER + packet(14, next(body for tag, body in [(6, BINARY[2:53])] if tag == 6))


def signed_by(*issuers: str, kind: int = 16) -> bytes:
    """Detached version 4 signatures that name these keys; nothing verifies them here, as the log has done so."""
    return b"".join(
        packet(2, b"\x04\x00\x16\x08" + len(part).to_bytes(2, "big") + part + b"\x00\x00" + b"\x12\x34\x00\x01\x01")
        for part in (
            bytes((len(content) + 1, kind)) + content
            for content in (
                bytes.fromhex(each[-16:]) if kind == 16 else b"\x04" + bytes.fromhex(each) for each in issuers
            )
        )
    )


def pgp(ring: bytes, signature: bytes) -> bytes:
    made = make.rekord("pgp", ring)
    return made.replace(make.b64(make.PLACEHOLDER_SIGNATURE).encode(), make.b64(signature).encode())


@pytest.mark.parametrize("kind", [16, 33])
def test_the_key_that_an_openpgp_signature_names_is_the_signer_with_its_primary_key(kind: int) -> None:
    for issuer in (MINE, SUBKEY):
        assert judged(pgp(BINARY, signed_by(issuer, kind=kind)), MINE) == SIGNER
    assert judged(pgp(BINARY, signed_by(SUBKEY, kind=kind)), SUBKEY) == SIGNER
    assert judged(pgp(BINARY, signed_by(MINE, kind=kind)), ENCRYPTION) == LISTED


@pytest.mark.parametrize("ring", [BINARY + STRANGER, STRANGER + BINARY])
def test_a_key_beside_the_one_that_signed_is_only_listed(ring: bytes) -> None:
    body = pgp(ring, signed_by(STRANGERS_KEY))
    assert judged(body, STRANGERS_KEY) == SIGNER
    assert [judged(body, key) for key in FINGERPRINTS] == [LISTED] * 3


def test_a_key_that_a_stranger_puts_under_an_own_primary_key_is_only_listed() -> None:
    assert MINE in read_pgp(AS_SUBKEY).fingerprints
    assert judged(pgp(AS_SUBKEY, signed_by(STRANGERS_KEY)), MINE) == LISTED
    assert judged(make.rpm(AS_SUBKEY), MINE) == UNKNOWN


def test_signatures_that_name_two_keys_hide_neither() -> None:
    body = pgp(BINARY + STRANGER, signed_by(MINE, STRANGERS_KEY))
    assert [judged(body, key) for key in (MINE, STRANGERS_KEY)] == [UNKNOWN] * 2
    assert judged(body, SUBKEY) == LISTED


@pytest.mark.parametrize("signature", [b"", b"\xff", make.PLACEHOLDER_SIGNATURE, signed_by("00" * 20), b"-----BEGIN"])
def test_a_ring_of_several_keys_whose_signature_names_none_of_them_is_told_to_each_owner(signature: bytes) -> None:
    assert judged(pgp(BINARY, signature), MINE) == SIGNER, "control: the log verified it under the only key"
    body = pgp(BINARY + STRANGER, signature)
    assert [judged(body, key) for key in (MINE, STRANGERS_KEY)] == [UNKNOWN] * 2


def test_an_rpm_shows_no_signature_so_a_ring_of_several_keys_does_not_tell() -> None:
    assert judged(make.rpm(BINARY), MINE) == SIGNER
    assert judged(make.rpm(BINARY + STRANGER), MINE) == UNKNOWN


# -- TUF


def tuf(*signers: Any, metadata: Any = None) -> bytes:
    """Metadata over a root that lists two keys, signed by some of them."""
    signed = metadata or {"_type": "timestamp", "version": 7, "note": 'a "quoted" \\ tab\t and ü'}
    root = {"signed": {"keys": {name: tuf_key(key) for name, key in (("a", OWN), ("b", OTHER))}}}
    signatures = [{"keyid": name, "sig": key.sign(canonical_json(signed)).hex()} for name, key in signers]
    return make.tuf(root, {"signed": signed, "signatures": signatures})


def tuf_key(key: Ed25519PrivateKey) -> dict[str, Any]:
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": raw.hex()}}


def key_of(key: Ed25519PrivateKey) -> str:
    return sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


OWN, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in (1, 2))


def test_only_the_tuf_keys_that_signed_the_metadata_are_its_signers() -> None:
    both = tuf(("a", OWN), ("b", OTHER))
    assert [judged(both, key_of(key)) for key in (OWN, OTHER)] == [SIGNER] * 2
    assert [judged(tuf(("b", OTHER)), key_of(key)) for key in (OWN, OTHER)] == [LISTED, SIGNER]
    assert judged(tuf(("a", OTHER)), key_of(OWN)) == LISTED, "a signature under my name by another key"


def test_metadata_whose_signed_bytes_cannot_be_made_again_is_told_to_each_owner() -> None:
    assert judged(tuf(("b", OTHER), metadata={"a": 1}), key_of(OWN)) == LISTED, "control"
    body = make.tuf({"signed": {"keys": {"a": tuf_key(OWN)}}}, {"signed": {"a": 0.5}, "signatures": [{}]})
    assert judged(body, key_of(OWN)) == UNKNOWN


@pytest.mark.parametrize("depth", [300, 600, 900])
def test_metadata_that_is_nested_deeply_ends_no_judgement(depth: int) -> None:
    signed: Any = []
    for _ in range(depth):
        signed = [signed]
    metadata = {"signed": {"a": signed}, "signatures": [{"keyid": "a", "sig": "00"}]}
    body = make.tuf({"signed": {"keys": {"a": tuf_key(OWN)}}}, metadata)
    signing = decode_rekor(body, EntryRef("rekor", 1))
    assert isinstance(signing, Signing)
    (signer,) = check_signers(body, signing).signers
    assert signer.only_listed or signer.maybe_signed


def test_a_flood_of_signatures_under_one_key_is_not_tried_out_and_told_to_its_owner() -> None:
    assert judged(tuf(*[("a", OTHER)] * 16), key_of(OWN)) == LISTED
    assert judged(tuf(*[("a", OTHER)] * 17), key_of(OWN)) == UNKNOWN


def test_canonical_json_is_that_of_tuf() -> None:
    value = {"b": [True, None, -3], "a": 'q"\\\n'}
    assert canonical_json(value) == b'{"a":"q\\"\\\\\n","b":[true,null,-3]}'


# -- time stamps


def stamped(*, listed: bytes = b"") -> tuple[bytes, str, str]:
    """A time stamp by an authority of one's own, with another certificate beside it; both fingerprints."""
    ca = make.make_ca()
    key = make.make_key("tsa")
    raw = make.make_certificate(ca, san="https://tsa.example", key=key, code_signing=False)
    certificate = x509.load_der_x509_certificate(raw)
    authority = TimestampAuthority(key, (certificate,), lambda: 7)
    imprint = message_imprint("2.16.840.1.101.3.4.2.1", bytes.fromhex(make.ARTIFACT))
    response = authority.stamp(TimestampRequest(imprint, None, None, want_certificate=True), make.NOT_BEFORE)
    return with_certificate(response, listed), sha256(raw).hexdigest(), sha256(listed).hexdigest()


def with_certificate(response: bytes, certificate: bytes) -> bytes:
    """The same response with one more certificate in its set, which nothing signs."""
    status, token = der.children(der.only(response, der.SEQUENCE, "response"))
    kind, wrapped = der.children(token)
    parts = [
        der.encode(0xA0, part.content + certificate) if part.tag == 0xA0 else part.encoded
        for part in der.children(der.only(wrapped.content, der.SEQUENCE, "signed"))
    ]
    signed = der.encode(0xA0, der.encode(der.SEQUENCE, b"".join(parts)))
    return der.encode(der.SEQUENCE, status.encoded + der.encode(der.SEQUENCE, kind.encoded + signed))


VICTIMS = make.make_certificate(make.make_ca(), san="dev@acme.example")


def test_only_the_certificate_that_signed_a_time_stamp_is_its_signer() -> None:
    response, mine, listed = stamped(listed=VICTIMS)
    body = make.rfc3161(response)
    assert [judged(body, key) for key in (mine, listed)] == [SIGNER, LISTED]


def test_a_time_stamp_with_a_made_up_signature_says_nothing_of_its_certificate() -> None:
    """Rekor verifies no time stamp: this is no broken promise of the log."""
    response, mine, _ = stamped()
    assert judged(make.rfc3161(response), mine) == SIGNER, "control"
    bent = response[:-1] + bytes([response[-1] ^ 1])
    assert judged(make.rfc3161(bent), mine) == LISTED
    made_up = make.rfc3161(make.timestamp_response(bytes.fromhex(make.ARTIFACT), VICTIMS))
    assert judged(made_up, sha256(VICTIMS).hexdigest()) == LISTED

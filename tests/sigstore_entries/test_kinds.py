"""Every Rekor kind and version is decoded into who signed what."""

import base64
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, ssh_key_fingerprint
from rfc3161_client import decode_timestamp_response

from sigstore_entries.entry import KINDS, decode_rekor
from sigstore_entries.signing import Digest, EntryRef, KnownTime, Name, NameForm, SignerForm, Signing, Unreadable
from tests.support import entries as make

WHERE = EntryRef("rekor.example", 42)
AT = datetime(2026, 1, 1, 0, 5, tzinfo=UTC)
CA = make.make_ca()
CERTIFICATE = make.make_certificate(CA, san="dev@example.com")
SPKI = make.spki_of(make.make_key("plain"))
RAW_ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(b"\x07" * 32).public_key()
ED25519_SPKI = RAW_ED25519.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
ED25519_RAW = RAW_ED25519.public_bytes(Encoding.Raw, PublicFormat.Raw)
ARTIFACT = Digest("sha256", make.ARTIFACT)
PAYLOAD, ENVELOPE = Digest("sha256", make.ARTIFACT, "payload"), Digest("sha256", "00" * 32, "envelope")


def decoded(body: bytes, at: datetime | None = None) -> Signing:
    result = decode_rekor(body, WHERE, at)
    assert isinstance(result, Signing), result
    return result


CERTIFICATE_BODIES = {
    "hashedrekord 0.0.1": (make.hashedrekord_v1(CERTIFICATE), (ARTIFACT,)),
    "hashedrekord 0.0.2": (make.hashedrekord_v2(CERTIFICATE), (ARTIFACT,)),
    "dsse 0.0.1": (make.dsse_v1(CERTIFICATE), (PAYLOAD, ENVELOPE)),
    "dsse 0.0.2": (make.dsse_v2(CERTIFICATE), (PAYLOAD,)),
    "intoto 0.0.1": (make.intoto_v1(CERTIFICATE), (PAYLOAD, ENVELOPE)),
    "intoto 0.0.2": (make.intoto_v2(CERTIFICATE), (PAYLOAD, ENVELOPE)),
    "cose 0.0.1": (make.cose(CERTIFICATE), (PAYLOAD, ENVELOPE)),
    "rekord 0.0.1": (make.rekord("x509", make.pem(CERTIFICATE)), (ARTIFACT,)),
    "jar 0.0.1": (make.jar(CERTIFICATE), (ARTIFACT,)),
}


@pytest.mark.parametrize("kind", CERTIFICATE_BODIES)
def test_a_kind_with_a_certificate_tells_identity_digests_and_times(kind: str) -> None:
    body, digests = CERTIFICATE_BODIES[kind]
    signing = decoded(body, AT)
    (signer,) = signing.signers
    assert f"{signing.kind} {signing.version}" == kind
    assert signing.where == WHERE
    assert [(name.form, name.value) for name in signer.names] == [(NameForm.EMAIL, "dev@example.com")]
    assert signer.form is SignerForm.CERTIFICATE
    assert signer.issuer == make.GOOGLE_ISSUER
    assert signer.certificate == CERTIFICATE
    assert signer.fingerprints[0] == sha256(CERTIFICATE).hexdigest()
    assert (signer.not_before, signer.not_after) == (make.NOT_BEFORE, make.NOT_BEFORE + make.LIFETIME)
    assert signer.defects == ()
    assert signing.digests == digests
    assert signing.times == (KnownTime("integrated-time", AT), KnownTime("certificate-not-before", make.NOT_BEFORE))


KEY_BODIES = {
    "hashedrekord 0.0.1": make.hashedrekord_v1(make.pem_of(SPKI)),
    "hashedrekord 0.0.2": make.hashedrekord_v2(SPKI),
    "dsse 0.0.1": make.dsse_v1(SPKI),
    "dsse 0.0.2": make.dsse_v2(SPKI),
    "intoto 0.0.1": make.intoto_v1(SPKI),
    "intoto 0.0.2": make.intoto_v2(SPKI, keyid="SHA256:abc"),
    "cose 0.0.1": make.cose(SPKI),
    "rekord 0.0.1": make.rekord("x509", make.pem_of(SPKI)),
    "alpine 0.0.1": make.alpine(SPKI),
}


@pytest.mark.parametrize("kind", KEY_BODIES)
def test_a_kind_with_a_plain_key_tells_its_fingerprint_and_nothing_else(kind: str) -> None:
    signing = decoded(KEY_BODIES[kind])
    (signer,) = signing.signers
    assert f"{signing.kind} {signing.version}" == kind
    assert signer.form is SignerForm.KEY
    assert signer.fingerprints == (sha256(SPKI).hexdigest(),)
    assert (signer.names, signer.issuer, signing.times) == ((), None, ())


def test_every_supported_kind_has_a_test_here() -> None:
    tested = set(CERTIFICATE_BODIES) | set(KEY_BODIES) | {"rpm 0.0.1", "helm 0.0.1", "tuf 0.0.1", "rfc3161 0.0.1"}
    assert {f"{kind} {version}" for kind, version in KINDS} == tested


def test_an_envelope_of_several_signatures_tells_every_signer() -> None:
    other = make.make_certificate(CA, san="https://example.com/workflow", issuer="https://issuer.example")
    for body in (
        make.dsse_v1(CERTIFICATE, other),
        make.dsse_v2(CERTIFICATE, other),
        make.intoto_v2(CERTIFICATE, other),
    ):
        names = [signer.names[0].value for signer in decoded(body).signers]
        assert names == ["dev@example.com", "https://example.com/workflow"]


def test_one_unreadable_verifier_does_not_hide_the_others() -> None:
    body = make.dsse_v1(make.pem(b"junk"), CERTIFICATE, make.pem(b"trash"))
    signing = decoded(body)
    whole, broken = signing.signers
    assert whole.names[0].value == "dev@example.com"
    assert whole.defects == ()
    assert [defect.partition(": ")[0] for defect in broken.defects] == ["unread"]
    assert signing.unread.startswith("2 of 3 signers cannot be read, the first because ")


def test_a_verifier_that_is_not_base64_does_not_hide_the_others() -> None:
    body = make.dsse_v1(CERTIFICATE, CERTIFICATE).replace(b'"verifier":"L', b'"verifier":"!', 1)
    assert [signer.names[:1] for signer in decoded(body).signers] == [(Name(NameForm.EMAIL, "dev@example.com"),), ()]


JUNK = [make.spki_of(make.make_key(f"junk {number}")) for number in range(65)]
FLOODED = {
    "dsse 0.0.1": make.dsse_v1(*JUNK, CERTIFICATE),
    "dsse 0.0.2": make.dsse_v2(*JUNK, CERTIFICATE),
    "intoto 0.0.2": make.intoto_v2(*JUNK, CERTIFICATE),
    "rfc3161 0.0.1": make.rfc3161(
        make.timestamp_response(
            bytes.fromhex(make.ARTIFACT), *(make.make_certificate(CA, serial=at) for at in range(1, 400)), CERTIFICATE
        )
    ),
}


@pytest.mark.parametrize("kind", FLOODED)
def test_no_number_of_other_signatures_hides_a_signer(kind: str) -> None:
    signing = decoded(FLOODED[kind])
    assert "dev@example.com" in {name.value for signer in signing.signers for name in signer.names}
    assert signing.unread == ""


def test_no_number_of_keys_hides_a_key_of_a_tuf_root() -> None:
    keys = {str(at): {"keytype": "ed25519", "keyval": {"public": f"{at:064x}"}} for at in range(200)}
    keys["last"] = {"keytype": "ecdsa", "keyval": {"public": make.pem_of(SPKI).decode()}}
    signing = decoded(make.tuf({"signed": {"keys": keys}}, {}))
    assert sha256(SPKI).hexdigest() in {each for signer in signing.signers for each in signer.fingerprints}


@pytest.mark.parametrize(
    ("body", "new", "old"),
    [
        (make.hashedrekord_v2(CERTIFICATE), "hashedRekordV002", "hashedRekordV0_0_2"),
        (make.dsse_v2(CERTIFICATE), "dsseV002", "dsseV0_0_2"),
    ],
    ids=["hashedrekord", "dsse"],
)
def test_the_first_names_of_version_2_are_read(body: bytes, new: str, old: str) -> None:
    assert new.encode() in body
    assert decoded(body.replace(new.encode(), old.encode())) == decoded(body)


def test_an_old_intoto_entry_without_payload_digest_is_read() -> None:
    assert decoded(make.intoto_v1(CERTIFICATE, payload=None)).digests == (ENVELOPE,)


def test_a_pem_chain_gives_the_leaf_as_signer_and_keeps_the_rest() -> None:
    text = make.pem(CERTIFICATE) + b"".join(make.pem(each) for each in CA.chain)
    (signer,) = decoded(make.hashedrekord_v1(text)).signers
    assert signer.certificate == CERTIFICATE
    assert signer.chain == CA.chain


def test_a_pkcs1_key_has_the_fingerprint_of_its_spki() -> None:
    key = rsa.RSAPublicNumbers(65537, (1 << 2047) + 1).public_key()
    pkcs1 = make.pem(key.public_bytes(Encoding.DER, PublicFormat.PKCS1), "RSA PUBLIC KEY")
    (signer,) = decoded(make.alpine(pkcs1)).signers
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert signer.fingerprints == (sha256(spki).hexdigest(),)


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_longer_digests_are_read(algorithm: str) -> None:
    value = "ab" * (48 if algorithm == "sha384" else 64)
    assert decoded(make.hashedrekord_v1(CERTIFICATE, value, algorithm=algorithm)).digests == (Digest(algorithm, value),)
    v2 = decoded(make.hashedrekord_v2(CERTIFICATE, value, algorithm=algorithm.replace("sha", "SHA2_")))
    assert v2.digests == (Digest(algorithm, value),)


def test_an_ssh_key_has_the_fingerprint_that_ssh_keygen_shows() -> None:
    line = RAW_ED25519.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (signer,) = decoded(make.rekord("ssh", line + b" someone@example.com\n")).signers
    expected = base64.b64encode(ssh_key_fingerprint(RAW_ED25519, SHA256())).rstrip(b"=").decode()
    assert signer.form is SignerForm.SSH
    assert signer.fingerprints == (f"SHA256:{expected}",)
    assert signer.names == ()


@pytest.mark.parametrize(
    "block",
    [
        base64.b64encode(b"Ed" + b"\x01" * 8 + ED25519_RAW),
        b"untrusted comment: minisign public key\n" + base64.b64encode(b"Ed" + b"\x01" * 8 + ED25519_RAW) + b"\n",
        ED25519_RAW,
    ],
    ids=["base64", "file", "raw"],
)
def test_a_minisign_key_has_the_fingerprint_of_its_spki(block: bytes) -> None:
    (signer,) = decoded(make.rekord("minisign", block)).signers
    assert signer.form is SignerForm.MINISIGN
    assert signer.fingerprints == (sha256(ED25519_SPKI).hexdigest(),)


def test_tuf_signers_are_the_keys_of_the_root() -> None:
    keys = {
        "a": {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": ED25519_RAW.hex()}},
        "b": {"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": make.pem_of(SPKI).decode()}},
    }
    root, metadata = {"signed": {"keys": keys}}, {"signed": {"_type": "timestamp"}, "signatures": []}
    for as_text in (True, False):
        signing = decoded(make.tuf(root, metadata, as_text=as_text))
        assert [signer.fingerprints for signer in signing.signers] == [
            (sha256(ED25519_SPKI).hexdigest(),),
            (sha256(SPKI).hexdigest(),),
        ]


@pytest.mark.parametrize("kind", ["ecdsa", "ecdsa-sha2-nistp256"])
def test_an_ecdsa_key_of_an_older_tuf_root_is_hex_of_its_point(kind: str) -> None:
    point = make.make_key("plain").public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    root = {"signed": {"keys": {"a": {"keytype": kind, "scheme": "x", "keyval": {"public": point.hex()}}}}}
    (signer,) = decoded(make.tuf(root, {})).signers
    assert signer.fingerprints == (sha256(SPKI).hexdigest(),)


def test_a_time_stamp_response_tells_imprint_time_and_authority() -> None:
    authority = make.make_certificate(CA, san="https://tsa.example", code_signing=False)
    signing = decoded(make.rfc3161(make.timestamp_response(bytes.fromhex(make.ARTIFACT), authority)))
    assert signing.digests == (ARTIFACT,)
    assert signing.times[0] == KnownTime("timestamp-response", make.NOT_BEFORE)
    assert [signer.names[0].value for signer in signing.signers] == ["https://tsa.example"]


def test_a_time_stamp_response_is_read_whatever_the_order_of_its_sets() -> None:
    """DER sorts the values of a SET OF; what makes responses does not always, and OpenSSL and Rekor read them."""
    chain = sorted([make.make_certificate(CA, serial=at) for at in range(1, 4)], reverse=True)
    response = make.timestamp_response(bytes.fromhex(make.ARTIFACT), *chain, fraction=".25")
    with pytest.raises(ValueError, match=r"parsing|Invalid"):
        decode_timestamp_response(response)
    signing = decoded(make.rfc3161(response))
    assert {signer.certificate for signer in signing.signers} == set(chain)
    assert signing.times[0].at == make.NOT_BEFORE + timedelta(milliseconds=250)


@pytest.mark.parametrize(
    ("kind", "version"), [("hashedrekord", "0.0.3"), ("dsse", "1.0.0"), ("identity", "0.0.1"), ("<b>\u202e", "\x00")]
)
def test_an_unknown_kind_is_unreadable_and_named(kind: str, version: str) -> None:
    result = decode_rekor(make.canonical(kind, version, {}), WHERE)
    assert isinstance(result, Unreadable)
    assert result.code == "unsupported-kind"
    assert ascii(kind) in result.reason
    assert result.reason.isascii()
    assert result.reason.isprintable()


def test_the_same_certificate_reads_the_same_by_the_library() -> None:
    certificate = make.make_github_certificate(CA)
    (signer,) = decoded(make.hashedrekord_v1(certificate)).signers
    theirs = x509.load_der_x509_certificate(certificate)
    assert signer.not_before == theirs.not_valid_before_utc
    assert set(signer.extensions) == {each.oid.dotted_string for each in theirs.extensions}
    assert signer.claims == make.github_claims() | {"issuer": make.GITHUB_ISSUER, "issuer_v1": make.GITHUB_ISSUER}

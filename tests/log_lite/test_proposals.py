"""Signature formats of rekord entries, each made here from its specification and then broken."""

import base64
import hashlib
import json
import shutil
import subprocess
from hashlib import blake2b, sha256, sha512
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from log_lite.proposals.proposal import Rejected, canonical_body
from log_lite.proposals.rekor_v1 import UnknownKind, propose
from log_lite.proposals.rekor_v2 import UnknownField
from log_lite.proposals.rekor_v2 import propose as propose_v2
from sign_lite.private_key import sign_ed25519ph
from tests.log_lite.client import KEY, b64, hashedrekord, hashedrekord_v2, pem_of
from tests.support.security_key import sign_with_security_key

DATA = b"the signed artifact"
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def rekord(form: str, signature: bytes, key: bytes, data: bytes = DATA) -> dict[str, Any]:
    signed = {"format": form, "content": b64(signature), "publicKey": {"content": b64(key)}}
    return {"apiVersion": "0.0.1", "kind": "rekord", "spec": {"data": {"content": b64(data)}, "signature": signed}}


def string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def ssh_line(key: ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def sshsig(namespace: bytes = b"file", data: bytes = DATA) -> bytes:
    message = b"SSHSIG" + string(namespace) + string(b"") + string(b"sha512") + string(sha512(data).digest())
    blob = (
        b"SSHSIG" + (1).to_bytes(4, "big") + string(base64.b64decode(ssh_line(ED25519).split()[1])) + string(namespace)
    )
    blob += string(b"") + string(b"sha512") + string(string(b"ssh-ed25519") + string(ED25519.sign(message)))
    return b"-----BEGIN SSH SIGNATURE-----\n" + base64.b64encode(blob) + b"\n-----END SSH SIGNATURE-----\n"


def minisign_key() -> bytes:
    raw = ED25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return b"untrusted comment: key\n" + base64.b64encode(b"Ed" + b"12345678" + raw) + b"\n"


def minisig(algorithm: bytes = b"ED", data: bytes = DATA, key_id: bytes = b"12345678") -> bytes:
    signature = ED25519.sign(data if algorithm == b"Ed" else blake2b(data).digest())
    final = ED25519.sign(signature + b"comment")
    lines = [b"untrusted comment: s", base64.b64encode(algorithm + key_id + signature), b"trusted comment: comment"]
    return b"\n".join([*lines, base64.b64encode(final), b""])


def x509_signature() -> bytes:
    return KEY.sign(DATA, ec.ECDSA(SHA256()))


GOOD = {
    "x509": rekord("x509", x509_signature(), pem_of(KEY)),
    "ssh": rekord("ssh", sshsig(), ssh_line(ED25519) + b" somebody@example.com"),
    "minisign": rekord("minisign", minisig(), minisign_key()),
    "minisign legacy": rekord("minisign", minisig(b"Ed"), minisign_key()),
    "minisign bare key": rekord("minisign", minisig(), base64.b64decode(minisign_key().splitlines()[1])[10:]),
    "signify": rekord("minisign", b"\n".join(minisig(b"Ed").splitlines()[:2]), minisign_key()),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_good_signature_becomes_a_canonical_rekord(case: str) -> None:
    proposal = propose(GOOD[case])
    spec = json.loads(proposal.body)["spec"]
    assert spec["data"] == {"hash": {"algorithm": "sha256", "value": sha256(DATA).hexdigest()}}
    assert "content" not in spec["data"], "the artifact itself is not logged"


def test_the_comment_of_an_ssh_key_is_dropped() -> None:
    key = json.loads(propose(GOOD["ssh"]).body)["spec"]["signature"]["publicKey"]["content"]
    assert base64.b64decode(key) == ssh_line(ED25519) + b"\n"


BAD = {
    "x509 over other data": rekord("x509", x509_signature(), pem_of(KEY), b"other"),
    "ssh over other data": rekord("ssh", sshsig(), ssh_line(ED25519), b"other"),
    "ssh for another purpose": rekord("ssh", sshsig(b"git"), ssh_line(ED25519)),
    "ssh without armor": rekord("ssh", b"SSHSIG", ssh_line(ED25519)),
    "ssh key that is none": rekord("ssh", sshsig(), b"ssh-ed25519 AAAA"),
    "ssh key without type": rekord("ssh", sshsig(), b"AAAA"),
    "minisign over other data": rekord("minisign", minisig(), minisign_key(), b"other"),
    "minisign by another key id": rekord("minisign", minisig(key_id=b"87654321"), minisign_key()),
    "minisign with another comment": rekord("minisign", minisig().replace(b": comment", b": Comment"), minisign_key()),
    "minisign cut short": rekord("minisign", minisig()[:40], minisign_key()),
    "minisign key that is none": rekord("minisign", minisig(), b"RWQ"),
    "pgp garbage": rekord("pgp", b"signature", b"key"),
    "unknown format": rekord("smime", b"signature", b"key"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_signature_is_rejected(case: str) -> None:
    with pytest.raises(Rejected):
        propose(BAD[case])


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is missing: .ci/install-debian-packages")
@pytest.mark.parametrize("options", [["-t", "ed25519"], ["-t", "ecdsa", "-b", "256"], ["-t", "rsa", "-b", "2048"]])
def test_what_ssh_keygen_signs_is_accepted(tmp_path: Path, options: list[str]) -> None:
    key, file = tmp_path / "key", tmp_path / "file"
    file.write_bytes(DATA)
    for arguments in (
        ["-q", *options, "-N", "", "-f", str(key)],
        ["-q", "-Y", "sign", "-n", "file", "-f", str(key), str(file)],
    ):
        subprocess.run(["ssh-keygen", *arguments], check=True, capture_output=True, timeout=60)
    signature, public = (tmp_path / "file.sig").read_bytes(), (tmp_path / "key.pub").read_bytes()
    propose(rekord("ssh", signature, public))
    with pytest.raises(Rejected):
        propose(rekord("ssh", signature, public, b"other"))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_signature_of_a_security_key_is_checked_with_its_flags(kind: str) -> None:
    signature, public = sign_with_security_key(DATA, kind)
    propose(rekord("ssh", signature, public))
    with pytest.raises(Rejected):
        propose(rekord("ssh", signature, public, b"other"))
    with pytest.raises(Rejected, match="another key"):
        propose(rekord("ssh", signature, sign_with_security_key(DATA, kind)[1]))
    untouched, public = sign_with_security_key(DATA, kind, signed_flags=b"\x00")
    with pytest.raises(Rejected, match="invalid SSH signature"):
        propose(rekord("ssh", untouched, public))


def test_openpgp_signatures_are_checked_where_the_extra_is_installed() -> None:
    pysequoia = pytest.importorskip("pysequoia")
    cert = pysequoia.Tsk.generate("signer <signer@example.com>") if hasattr(pysequoia.Tsk, "generate") else None
    if cert is None:
        cert = pysequoia.Cert.generate("signer <signer@example.com>")
    secret = cert if hasattr(cert, "signer") else cert.secrets
    signature = pysequoia.sign(secret.signer(), DATA, mode=pysequoia.SignatureMode.DETACHED)
    with pytest.raises(Rejected, match="private key"):
        propose(rekord("pgp", bytes(signature), str(cert).encode()))
    public = str(pysequoia.Cert.from_bytes(str(cert).encode())).encode()
    proposal = propose(rekord("pgp", bytes(signature), public))
    assert any("signer@example.com" in key for key in proposal.search_keys)
    with pytest.raises(Rejected):
        propose(rekord("pgp", bytes(signature), public, b"other"))


@pytest.mark.parametrize("bits", [2048, 3072])
def test_rsa_keys_fit_their_key_details_only(bits: int) -> None:
    key = rsa.generate_private_key(65537, bits)
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    request = hashedrekord_v2(DATA)
    signature = request["hashedRekordRequestV002"]["signature"]
    signature["content"] = b64(key.sign(DATA, padding.PKCS1v15(), SHA256()))
    signature["verifier"] = {"publicKey": {"rawBytes": b64(spki)}, "keyDetails": f"PKIX_RSA_PKCS1V15_{bits}_SHA256"}
    propose_v2(request)
    signature["verifier"]["keyDetails"] = "PKIX_RSA_PKCS1V15_4096_SHA256"
    with pytest.raises(Rejected):
        propose_v2(request)


def test_ed25519_signs_a_hashedrekord_as_ed25519ph_over_sha512_only() -> None:
    digest = sha512(DATA).digest()
    prehashed = sign_ed25519ph(ED25519, digest)
    spki = ED25519.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = ED25519.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def v1(signature: bytes, name: str = "sha512") -> None:
        hashed = {"algorithm": name, "value": hashlib.new(name, DATA).hexdigest()}
        signed = {"content": b64(signature), "publicKey": {"content": b64(pem)}}
        spec = {"data": {"hash": hashed}, "signature": signed}
        propose({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": spec})

    def v2(signature: bytes, details: str = "PKIX_ED25519_PH", value: bytes = digest) -> None:
        verifier = {"publicKey": {"rawBytes": b64(spki)}, "keyDetails": details}
        signed = {"content": b64(signature), "verifier": verifier}
        propose_v2({"hashedRekordRequestV002": {"digest": b64(value), "signature": signed}})

    v1(prehashed)
    v2(prehashed)
    for wrong in (ED25519.sign(DATA), ED25519.sign(digest), bytes(64), prehashed[:-1], prehashed + b"x"):
        for offer in (v1, v2):
            with pytest.raises(Rejected, match="invalid signature"):
                offer(wrong)
    with pytest.raises(Rejected, match="Ed25519ph"):
        v1(prehashed, "sha256")
    for details in ("PKIX_ED25519", "PKIX_ECDSA_P256_SHA_256", "PKIX_RSA_PKCS1V15_2048_SHA256"):
        with pytest.raises(Rejected):
            v2(prehashed, details)
    with pytest.raises(Rejected, match="64 bytes"):
        v2(prehashed, value=digest[:32])


def test_bodies_too_long_for_a_bundle_are_rejected() -> None:
    request = hashedrekord_v2(DATA)
    assert len(propose_v2(request).body) < 0xFFFF
    request["hashedRekordRequestV002"]["signature"]["content"] = b64(bytes(60_000))
    with pytest.raises(Rejected):
        propose_v2(request)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([b64(b"x"), "sha256", "x509"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("entry", [{}, {"kind": None}, {"kind": "rekord", "spec": {}}, {"kind": 1, "apiVersion": None}])
def test_what_is_missing_is_told_without_a_word_of_python(entry: dict[str, Any]) -> None:
    with pytest.raises((Rejected, UnknownKind)) as refused:
        propose(entry)
    assert "None" not in str(refused.value)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_anything_in_any_place_of_a_submission_is_answered_not_crashed(data: st.DataObject) -> None:
    """Replacing any member by anything gives a proposal or one of the declared errors."""
    good = {"v1": hashedrekord(DATA), "v2": hashedrekord_v2(DATA), **GOOD}
    case = data.draw(st.sampled_from(sorted(good)))
    request = json.loads(json.dumps(good[case]))
    target = request
    for _ in range(data.draw(st.integers(0, 5))):
        inner = [value for value in target.values() if isinstance(value, dict)]
        if not inner:
            break
        target = data.draw(st.sampled_from(inner))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JSON_VALUES)
    said = ""
    try:
        (propose_v2 if case == "v2" else propose)(request)
    except (Rejected, UnknownKind, UnknownField) as error:
        said = str(error)
    assert "None" not in said, "a client is told in its own words, not in Python's"


POISON = "1.3.6.1.4.1.11129.2.4.3"


def test_an_unencrypted_key_is_never_in_a_log_body() -> None:
    secret = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    proposal = hashedrekord(DATA)
    proposal["spec"]["signature"]["publicKey"]["content"] = b64(secret)
    with pytest.raises(Rejected):
        propose(proposal)


@pytest.mark.parametrize("value", ['{"a":' * 600 + '"x"' + "}" * 600, "[" * 600 + "1" + "]" * 600])
def test_a_body_nested_deeper_than_we_can_write_is_rejected(value: str) -> None:
    entry = json.loads(
        f'{{"kind":"dsse","apiVersion":"0.0.1","spec":{{"envelopeHash":{value},"payloadHash":1,"signatures":1}}}}'
    )
    with pytest.raises(Rejected, match="no canonical JSON form"):
        propose(entry)


_TEXTS = st.recursive(
    st.text(st.characters(exclude_categories=[])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.dictionaries(st.sampled_from("abBA~\x7f"), inner)
    ),
    max_leaves=20,
)


@given(_TEXTS | st.integers(-(2**53), 2**53) | st.booleans() | st.none() | st.floats(allow_nan=False))
def test_a_body_is_canonical_however_it_is_written(value: Any) -> None:
    """SPEC RFC 8785; a lone surrogate has no canonical form."""
    entry: Any = {"apiVersion": "0.0.1", "kind": "any", "spec": {"value": value}}
    try:
        wanted = rfc8785.dumps(entry)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        with pytest.raises(Rejected):
            canonical_body("any", "0.0.1", {"value": value})
    else:
        assert canonical_body("any", "0.0.1", {"value": value}) == wanted

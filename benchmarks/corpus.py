"""Fifty thousand made-up log entries: distinct Fulcio-profile certificates in Rekor v1 and v2 bodies.

Nine of ten are GitHub Actions certificates with every claim such a certificate carries (about 1.8 KB), one of ten is
an e-mail certificate. Each leaf has a key of its own, as keyless signing makes one for each signature; all leaves share
one issuer. Every certificate and every entry is really signed. The same number always gives the same names and key, so
a rule can be made for an entry.
"""

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sigstore_entries.certificate import BY_NAME, SCT_LIST_OID

ENTRIES: Final = 50_000
_FORM: Final = sha256(Path(__file__).read_bytes()).hexdigest()  # entries that another release made are made again
GITHUB_ISSUER: Final = "https://token.actions.githubusercontent.com"
GOOGLE_ISSUER: Final = "https://accounts.google.com"
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_LIFETIME: Final = timedelta(minutes=10)
_PART: Final = 500
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def fixed_key(name: str) -> ec.EllipticCurvePrivateKey:
    """P-256 key that is always the same for a name."""
    secret = int.from_bytes(sha256(f"signwatch benchmark {name}".encode()).digest(), "big")
    return ec.derive_private_key(secret % (_ORDER - 1) + 1, ec.SECP256R1())


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a certificate names: the SAN, the issuer, and every claim besides the issuer."""

    san: str
    issuer: str
    claims: dict[str, str]


def repository_of(index: int) -> str:
    """`owner/name` of the workflow that entry `index` was signed by."""
    return f"{_word(index % 4001)}-labs/{_word(index * 7)}-{index:x}"


def email_of(index: int) -> str:
    """Address that entry `index` was signed by, when it is one of the tenth."""
    return f"{_word(index)}.{_word(index * 3)}{index:x}@{_word(index % 997)}.example"


def _word(number: int) -> str:
    """A pronounceable word that every run makes the same of a number."""
    letters = sha256(b"word %d" % number).digest()
    return "".join("bcdfghjklmnprstvwz"[letters[i] % 18] + "aeiou"[letters[i + 1] % 5] for i in (0, 2, 4))


def is_email(index: int) -> bool:
    """True if entry `index` is an e-mail certificate."""
    return index % 10 == 9


def identity_of(index: int) -> Identity:
    """Whom entry `index` names."""
    if is_email(index):
        return Identity(email_of(index), GOOGLE_ISSUER, {})
    return workflow_identity(repository_of(index), run=10_000_000 + index, sha=sha256(b"%d" % index).hexdigest()[:40])


def workflow_identity(
    repository: str,
    *,
    run: int,
    sha: str,
    workflow: str = "release.yml",
    ref: str = "refs/tags/v1.0.0",
    trigger: str = "push",
    runner: str = "github-hosted",
    visibility: str = "public",
    identifier: str = "",
    owner_identifier: str = "",
    issuer: str = GITHUB_ISSUER,
) -> Identity:
    """Claims of a GitHub Actions certificate, as Fulcio maps them from the job's token."""
    owner = repository.partition("/")[0]
    base = f"https://github.com/{repository}"
    config = f"{base}/.github/workflows/{workflow}@{ref}"
    number = int.from_bytes(sha256(repository.encode()).digest()[:4], "big")
    claims = {
        "github_workflow_trigger": trigger,
        "github_workflow_sha": sha,
        "github_workflow_name": "Release",
        "github_workflow_repository": repository,
        "github_workflow_ref": ref,
        "build_signer_uri": config,
        "build_signer_digest": sha,
        "runner_environment": runner,
        "source_repository_uri": base,
        "source_repository_digest": sha,
        "source_repository_ref": ref,
        "source_repository_identifier": identifier or str(number),
        "source_repository_owner_uri": f"https://github.com/{owner}",
        "source_repository_owner_identifier": owner_identifier or str(number >> 3),
        "build_config_uri": config,
        "build_config_digest": sha,
        "build_trigger": trigger,
        "run_invocation_uri": f"{base}/actions/runs/{run}/attempts/1",
        "source_repository_visibility": visibility,
        "token_subject": f"repo:{repository}:ref:{ref}",
    }
    return Identity(config, issuer, claims)


class Authority:
    """A certificate authority in Fulcio's profile: a self-signed root and the intermediate that signs leaves."""

    def __init__(self, name: str) -> None:
        self.root_key, self.key = fixed_key(f"{name} root"), fixed_key(f"{name} intermediate")
        root_name, own_name = _common_name(f"{name} root"), _common_name(f"{name} intermediate")
        self.root = _authority(root_name, root_name, self.root_key, self.root_key, path_length=1)
        self.certificate = _authority(own_name, root_name, self.key, self.root_key, path_length=0)
        self._leaf_key = leaf_key().public_key()
        # Not signed: about as long as the list with one SCT that a certificate carries.
        scts = b"\x04\x7b\x00\x79\x00\x77\x00" + sha256(b"ct log").digest() + bytes(8) + b"\x00\x00\x04\x03\x00\x48"
        self._constant: tuple[tuple[x509.ExtensionType, bool], ...] = (
            (_usage(signs_certificates=False), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False),
        )
        self._scts = x509.UnrecognizedExtension(x509.ObjectIdentifier(SCT_LIST_OID), scts + b"s" * 72)

    def issue(
        self,
        identity: Identity,
        *,
        at: datetime = _START,
        serial: int = 1,
        key: ec.EllipticCurvePublicKey | None = None,
    ) -> bytes:
        """DER certificate for an identity, valid for ten minutes; for `leaf_key` unless told another."""
        key = key or self._leaf_key
        name: x509.GeneralName = x509.UniformResourceIdentifier(identity.san)
        if "://" not in identity.san:
            name = x509.RFC822Name(identity.san)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(at)
            .not_valid_after(at + _LIFETIME)
        )
        for extension, critical in self._constant:
            builder = builder.add_extension(extension, critical=critical)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=True)
        told = {"issuer_v1": identity.issuer, "issuer": identity.issuer, **identity.claims}
        for claim in sorted((BY_NAME[each] for each in told), key=lambda each: each.number):
            value = claim.encode(told[claim.name])
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier(claim.oid), value), critical=False
            )
        builder = builder.add_extension(self._scts, critical=False)
        return builder.sign(self.key, SHA256()).public_bytes(Encoding.DER)

    @property
    def issuer_key_hash(self) -> bytes:
        """SHA-256 of the issuing key (SPKI DER), as a CT leaf of a precertificate names it."""
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return sha256(spki).digest()

    @property
    def chain(self) -> tuple[bytes, ...]:
        """DER certificates, the leaf's issuer first, the root last."""
        return self.certificate.public_bytes(Encoding.DER), self.root.public_bytes(Encoding.DER)


def signature_over(digest: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """DER of the ECDSA signature over a SHA-256 in hexadecimal; the same for each run."""
    return key.sign(bytes.fromhex(digest), ec.ECDSA(Prehashed(SHA256()), deterministic_signing=True))


def body_v1(certificate: bytes, digest: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Body of hashedrekord 0.0.1, signed with the certificate's key: PEM inside base64 inside JSON."""
    signature = signature_over(digest, key)
    material = x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)
    data = {"hash": {"algorithm": "sha256", "value": digest}}
    spec = {"data": data, "signature": {"content": _b64(signature), "publicKey": {"content": _b64(material)}}}
    return _canonical({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": spec})


def body_v2(certificate: bytes, digest: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Body of hashedrekord 0.0.2, signed with the certificate's key: DER inside base64 inside JSON."""
    signature = signature_over(digest, key)
    verifier = {"keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": {"rawBytes": _b64(certificate)}}
    data = {"algorithm": "SHA2_256", "digest": _b64(bytes.fromhex(digest))}
    spec = {"hashedRekordV002": {"data": data, "signature": {"content": _b64(signature), "verifier": verifier}}}
    return _canonical({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": spec})


def digest_of(index: int) -> str:
    """SHA-256 that entry `index` says was signed, in hexadecimal."""
    return sha256(b"artifact %d" % index).hexdigest()


def make_corpus(folder: Path, count: int = ENTRIES) -> Iterator[int]:
    """Write `v1` and `v2` into `folder`, on every core; yields how many entries are done.

    Each file is what an entry bundle is: a big-endian uint16 length and a body, again and again.
    """
    parts = [range(start, min(start + _PART, count)) for start in range(0, count, _PART)]
    with (
        (folder / "v1").open("wb") as v1,
        (folder / "v2").open("wb") as v2,
        ProcessPoolExecutor(os.cpu_count()) as pool,
    ):
        for part, (first, second) in zip(parts, pool.map(_make_part, parts), strict=True):
            v1.write(first)
            v2.write(second)
            yield part.stop


def complete_corpus(folder: Path, count: int = ENTRIES) -> Iterator[int]:
    """Make the entries, unless the folder keeps them from this release; yields how many are done."""
    mark = folder / "complete"
    if mark.exists() and mark.read_text(encoding="ascii") == _FORM:
        return
    folder.mkdir(parents=True, exist_ok=True)
    yield from make_corpus(folder, count)
    mark.write_text(_FORM, encoding="ascii")


def read_corpus(folder: Path, version: str, count: int | None = None) -> list[bytes]:
    """Bodies of `v1` or `v2`, the first `count` or all of them."""
    raw = (folder / version).read_bytes()
    bodies: list[bytes] = []
    position = 0
    while position < len(raw) and (count is None or len(bodies) < count):
        start = position + 2
        position = start + int.from_bytes(raw[position:start], "big")
        bodies.append(raw[start:position])
    return bodies


@cache
def leaf_key() -> ec.EllipticCurvePrivateKey:
    """Key of every certificate that is issued for no key of its own."""
    return fixed_key("leaf")


@cache
def authority() -> Authority:
    """The authority that issued every certificate of the corpus."""
    return Authority("benchmark")


def _make_part(part: range) -> tuple[bytes, bytes]:
    first, second = [], []
    for index in part:
        key, at = fixed_key(f"leaf {index}"), _START + timedelta(seconds=index)
        certificate = authority().issue(identity_of(index), at=at, serial=index + 1, key=key.public_key())
        digest = digest_of(index)
        first.append(framed(body_v1(certificate, digest, key)))
        second.append(framed(body_v2(certificate, digest, key)))
    return b"".join(first), b"".join(second)


def framed(body: bytes) -> bytes:
    """One entry of a bundle (C2SP tlog-tiles)."""
    return len(body).to_bytes(2, "big") + body


def _canonical(document: dict[str, object]) -> bytes:
    # RFC 8785 for what these bodies hold: ASCII text, no numbers.
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _b64(raw: bytes) -> str:
    return b64encode(raw).decode()


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    path_length: int,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(path_length + 1)
        .not_valid_before(_START - timedelta(days=365))
        .not_valid_after(_START + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if path_length == 0:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    return builder.sign(issuer_key, SHA256())

"""Builds log entries for tests and benchmarks: Fulcio-profile certificates, CT leaves and Rekor bodies of every kind.

Keys come from a seed and signatures are deterministic, so the same arguments give the same bytes. Certificates follow
specs of Fulcio's certificate profile: empty subject, one critical SAN, ten minutes, code signing, SCT list last.
Signatures *inside bodies* are placeholders unless one is passed in: a monitor reads who signed, it does not verify
the artifact's signature. Bodies of the rare kinds are hand-built from Rekor's schemas, not recorded from a log.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sigstore_entries.certificate import BY_NAME, SCT_LIST_OID, USERNAME_OTHER_NAME_OID, encode_utf8_string
from tlog.ct import CtLeaf, EntryType, leaf_timestamped_entry, sct_message

NOT_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
LIFETIME = timedelta(minutes=10)
CA_NOT_BEFORE = datetime(2025, 1, 1, tzinfo=UTC)
CA_NOT_AFTER = datetime(2035, 1, 1, tzinfo=UTC)
GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
GOOGLE_ISSUER = "https://accounts.google.com"
ARTIFACT = sha256(b"artifact").hexdigest()
PLACEHOLDER_SIGNATURE = bytes.fromhex("3006020101020101")
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@lru_cache(maxsize=256)
def make_key(seed: int | str) -> ec.EllipticCurvePrivateKey:
    """P-256 key that is always the same for a seed."""
    number = int.from_bytes(sha256(f"signwatch test key {seed}".encode()).digest(), "big")
    key = ec.derive_private_key(number % (_P256_ORDER - 1) + 1, ec.SECP256R1())
    _KEYS[key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)] = key
    return key


_KEYS: dict[bytes, ec.EllipticCurvePrivateKey] = {}
_PREHASHED: dict[str, type[SHA256 | SHA384 | SHA512]] = {
    "sha256": SHA256,
    "sha2_256": SHA256,
    "sha384": SHA384,
    "sha2_384": SHA384,
    "sha512": SHA512,
}


@lru_cache(maxsize=4096)
def signature_of(material: bytes, digest: str, algorithm: str = "sha256") -> bytes:
    """Signature over a digest by the key of a certificate or an SPKI made here; a placeholder for any other key."""
    try:
        if material.startswith(b"-----BEGIN PUBLIC"):
            public = load_pem_public_key(material)
        elif material.startswith(b"-----"):
            public = x509.load_pem_x509_certificates(material)[0].public_key()
        elif pem_of(material).startswith(b"-----BEGIN CERTIFICATE"):
            public = x509.load_der_x509_certificate(material).public_key()
        else:
            public = load_der_public_key(material)
        spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        scheme = ec.ECDSA(Prehashed(_PREHASHED[algorithm.lower()]()), deterministic_signing=True)
        return _KEYS[spki].sign(bytes.fromhex(digest), scheme)
    except (ValueError, KeyError, UnsupportedAlgorithm, TypeError):
        return PLACEHOLDER_SIGNATURE


@lru_cache(maxsize=256)
def spki_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """DER SubjectPublicKeyInfo of a key."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA as Fulcio runs one: a self-signed root and the intermediate that signs leaves."""

    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    root: x509.Certificate

    @property
    def chain(self) -> tuple[bytes, ...]:
        """DER certificates, the leaf's issuer first, the root last."""
        return self.certificate.public_bytes(Encoding.DER), self.root.public_bytes(Encoding.DER)

    @property
    def issuer_key_hash(self) -> bytes:
        """SHA-256 of the leaf issuer's SPKI, as a CT precertificate leaf holds it."""
        return sha256(spki_of(self.key)).digest()


@lru_cache(maxsize=64)
def make_ca(
    seed: int | str = 0,
    *,
    name: str = "test.example",
    not_before: datetime = CA_NOT_BEFORE,
    not_after: datetime = CA_NOT_AFTER,
    intermediate_is_ca: bool = True,
    intermediate_usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
) -> Authority:
    """Make root and intermediate; the last two arguments make an intermediate that must not be trusted."""
    root_key, key = make_key(f"{seed} root"), make_key(f"{seed} intermediate")
    root_name, own_name = _authority_name(name, "root"), _authority_name(name, "intermediate")
    root = _authority_builder(
        subject=root_name,
        issuer=root_name,
        key=root_key,
        issuer_key=root_key,
        not_before=not_before,
        not_after=not_after,
        ca=True,
        path_length=None,
    )
    middle = _authority_builder(
        subject=own_name,
        issuer=root_name,
        key=key,
        issuer_key=root_key,
        not_before=not_before,
        not_after=not_after,
        ca=intermediate_is_ca,
        path_length=0 if intermediate_is_ca else None,
    ).add_extension(x509.ExtendedKeyUsage([intermediate_usage]), critical=False)
    return Authority(
        name,
        key,
        middle.sign(root_key, SHA256(), ecdsa_deterministic=True),
        root.sign(root_key, SHA256(), ecdsa_deterministic=True),
    )


def _authority_name(organisation: str, common_name: str) -> x509.Name:
    attributes = [(NameOID.ORGANIZATION_NAME, organisation), (NameOID.COMMON_NAME, common_name)]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def _authority_builder(
    *,
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    not_before: datetime,
    not_after: datetime,
    ca: bool,
    path_length: int | None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(_serial(str(subject)))
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.BasicConstraints(ca, path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


@lru_cache(maxsize=2)
def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _serial(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:19], "big") | 1


@dataclass(frozen=True, slots=True)
class CtSigner:
    """A CT log's key, to put signed certificate timestamps into certificates."""

    key: ec.EllipticCurvePrivateKey

    @property
    def spki(self) -> bytes:
        """DER public key."""
        return spki_of(self.key)

    @property
    def log_id(self) -> bytes:
        """RFC 6962 3.2: SHA-256 of the log's public key."""
        return sha256(self.spki).digest()

    def sct_list(self, ca: Authority, tbs: bytes, at: datetime) -> bytes:
        """Value of the SCT list extension for a TBSCertificate that has none."""
        leaf = CtLeaf(milliseconds(at), EntryType.PRECERT, ca.issuer_key_hash, tbs, b"")
        signature = self.key.sign(sct_message(leaf), ec.ECDSA(SHA256(), deterministic_signing=True))
        sct = b"\x00" + self.log_id + leaf.timestamp.to_bytes(8, "big") + b"\x00\x00\x04\x03"
        sct += len(signature).to_bytes(2, "big") + signature
        entry = len(sct).to_bytes(2, "big") + sct
        return der(0x04, len(entry).to_bytes(2, "big") + entry)


def make_ct_log(seed: int | str = 0) -> CtSigner:
    """Make the key of a CT log."""
    return CtSigner(make_key(f"{seed} ct"))


def milliseconds(at: datetime) -> int:
    """Milliseconds since the epoch, as CT counts."""
    return round(at.timestamp() * 1000)


def make_certificate(
    ca: Authority,
    *,
    san: str | x509.GeneralName | Sequence[x509.GeneralName] = "dev@example.com",
    issuer: str | None = GOOGLE_ISSUER,
    claims: Mapping[str, str] | None = None,
    not_before: datetime = NOT_BEFORE,
    not_after: datetime | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
    serial: int | None = None,
    ct_log: CtSigner | None = None,
    sct_at: datetime | None = None,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    code_signing: bool = True,
) -> bytes:
    """DER certificate in Fulcio's profile.

    `san` as text becomes a URI when it holds `://`, a username when it holds `!`, else an e-mail address. `claims`
    are readable names of `sigstore_entries.certificate`; `issuer` fills both issuer extensions unless claims say
    otherwise. With `ct_log` the certificate carries one signed certificate timestamp.
    """
    builder = _leaf_builder(
        ca=ca,
        san=san,
        issuer=issuer,
        claims=claims,
        not_before=not_before,
        not_after=not_after,
        key=key,
        serial=serial,
        extra=extra,
        code_signing=code_signing,
    )
    certificate = builder.sign(ca.key, SHA256(), ecdsa_deterministic=True)
    if ct_log is not None:
        value = ct_log.sct_list(ca, certificate.tbs_certificate_bytes, sct_at or not_before)
        scts = x509.UnrecognizedExtension(x509.ObjectIdentifier(SCT_LIST_OID), value)
        certificate = builder.add_extension(scts, critical=False).sign(ca.key, SHA256(), ecdsa_deterministic=True)
    return certificate.public_bytes(Encoding.DER)


def make_precertificate(
    ca: Authority,
    *,
    san: str | x509.GeneralName | Sequence[x509.GeneralName] = "dev@example.com",
    issuer: str | None = GOOGLE_ISSUER,
    claims: Mapping[str, str] | None = None,
    not_before: datetime = NOT_BEFORE,
    key: ec.EllipticCurvePrivateKey | None = None,
    serial: int | None = None,
) -> tuple[bytes, bytes]:
    """DER precertificate (with poison), and the TBSCertificate without it that a CT leaf holds."""
    builder = _leaf_builder(
        ca=ca,
        san=san,
        issuer=issuer,
        claims=claims,
        not_before=not_before,
        not_after=None,
        key=key,
        serial=serial,
        extra=(),
        code_signing=True,
    )
    tbs = builder.sign(ca.key, SHA256(), ecdsa_deterministic=True).tbs_certificate_bytes
    poisoned = builder.add_extension(x509.PrecertPoison(), critical=True)
    return poisoned.sign(ca.key, SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER), tbs


def _leaf_builder(
    *,
    ca: Authority,
    san: str | x509.GeneralName | Sequence[x509.GeneralName],
    issuer: str | None,
    claims: Mapping[str, str] | None,
    not_before: datetime,
    not_after: datetime | None,
    key: ec.EllipticCurvePrivateKey | None,
    serial: int | None,
    extra: Sequence[tuple[x509.ExtensionType, bool]],
    code_signing: bool,
) -> x509.CertificateBuilder:
    key = key or make_key("leaf")
    names = [general_name(san)] if isinstance(san, str | x509.GeneralName) else list(san)
    told = {} if issuer is None else {"issuer_v1": issuer, "issuer": issuer}
    told.update(claims or {})
    builder = (
        x509.CertificateBuilder()
        .subject_name(_EMPTY_NAME)
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(serial or _serial(f"{san}{sorted(told.items())}{not_before}"))
        .not_valid_before(not_before)
        .not_valid_after(not_after or not_before + LIFETIME)
        .add_extension(_key_usage(authority=False), critical=True)
    )
    if code_signing:
        builder = builder.add_extension(_CODE_SIGNING, critical=False)
    builder = builder.add_extension(_subject_key_identifier(key), critical=False)
    builder = builder.add_extension(_authority_key_identifier(ca), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    for name, value in sorted(told.items(), key=lambda item: BY_NAME[item[0]].number):
        builder = builder.add_extension(fulcio_extension(name, value), critical=False)
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical=critical)
    return builder


_EMPTY_NAME = x509.Name([])
_CODE_SIGNING = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])


@lru_cache(maxsize=64)
def _subject_key_identifier(key: ec.EllipticCurvePrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


@lru_cache(maxsize=64)
def _authority_key_identifier(ca: Authority) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())


def general_name(text: str | x509.GeneralName) -> x509.GeneralName:
    """Name form that Fulcio would use for this text."""
    if not isinstance(text, str):
        return text
    if "://" in text:
        return x509.UniformResourceIdentifier(text)
    if "!" in text:
        return x509.OtherName(x509.ObjectIdentifier(USERNAME_OTHER_NAME_OID), encode_utf8_string(text))
    return x509.RFC822Name(text)


def fulcio_extension(name: str, value: str) -> x509.UnrecognizedExtension:
    """Extension for one readable claim name."""
    extension = BY_NAME[name]
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(extension.oid), extension.encode(value))


def github_claims(
    repository: str = "acme/widget",
    *,
    workflow: str = "release.yml",
    ref: str = "refs/tags/v1.2.3",
    trigger: str = "push",
    sha: str = "9c2b1f0d6d8b8e0c5a6c1d2e3f405162738495a6",
    run: int = 17,
) -> dict[str, str]:
    """Claims of a GitHub Actions certificate, as Fulcio maps them."""
    base, owner = f"https://github.com/{repository}", repository.partition("/")[0]
    config = f"{base}/.github/workflows/{workflow}@{ref}"
    return {
        "github_workflow_trigger": trigger,
        "github_workflow_sha": sha,
        "github_workflow_name": "Release",
        "github_workflow_repository": repository,
        "github_workflow_ref": ref,
        "build_signer_uri": config,
        "build_signer_digest": sha,
        "runner_environment": "github-hosted",
        "source_repository_uri": base,
        "source_repository_digest": sha,
        "source_repository_ref": ref,
        "source_repository_identifier": "420001",
        "source_repository_owner_uri": f"https://github.com/{owner}",
        "source_repository_owner_identifier": "4200",
        "build_config_uri": config,
        "build_config_digest": sha,
        "build_trigger": trigger,
        "run_invocation_uri": f"{base}/actions/runs/{run}/attempts/1",
        "source_repository_visibility": "public",
        "token_subject": f"repo:{repository}:ref:{ref}",
    }


def make_github_certificate(
    ca: Authority, repository: str = "acme/widget", *, not_after: datetime | None = None, **claims: Any
) -> bytes:
    """Certificate of a GitHub Actions workflow; other keyword arguments as for `github_claims`."""
    told = github_claims(repository, **claims)
    return make_certificate(ca, san=told["build_config_uri"], issuer=GITHUB_ISSUER, claims=told, not_after=not_after)


# --- CT leaves -------------------------------------------------------------------------------------------------------


def precert_leaf(ca: Authority, tbs: bytes, *, at: datetime = NOT_BEFORE, extensions: bytes = b"") -> bytes:
    """MerkleTreeLeaf of a precertificate (RFC 6962 3.4)."""
    leaf = CtLeaf(milliseconds(at), EntryType.PRECERT, ca.issuer_key_hash, tbs, extensions)
    return b"\x00\x00" + leaf_timestamped_entry(leaf)


def x509_leaf(certificate: bytes, *, at: datetime = NOT_BEFORE) -> bytes:
    """MerkleTreeLeaf of a final certificate."""
    return b"\x00\x00" + leaf_timestamped_entry(CtLeaf(milliseconds(at), EntryType.X509, b"", certificate, b""))


def precert_extra(precertificate: bytes, chain: Sequence[bytes]) -> bytes:
    """`extra_data` of a precertificate entry: PrecertChainEntry (RFC 6962 4.6)."""
    return _vector24(precertificate) + certificate_extra(chain)


def certificate_extra(chain: Sequence[bytes]) -> bytes:
    """`extra_data` of a certificate entry: the chain without the leaf."""
    return _vector24(b"".join(_vector24(each) for each in chain))


def _vector24(content: bytes) -> bytes:
    return len(content).to_bytes(3, "big") + content


# --- Rekor bodies ----------------------------------------------------------------------------------------------------


def canonical(kind: str, version: str, spec: Mapping[str, Any]) -> bytes:
    """Body in RFC 8785 form; enough for the ASCII text and small numbers that bodies hold."""
    body = {"apiVersion": version, "kind": kind, "spec": spec}
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def b64(content: bytes) -> str:
    """Standard base64 text."""
    return base64.b64encode(content).decode()


def pem(content: bytes, label: str = "CERTIFICATE") -> bytes:
    """PEM block as Go writes it: 64 columns, one newline at the end."""
    text = b64(content)
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n".encode()


def pem_of(material: bytes) -> bytes:
    """PEM of a certificate, of an SPKI, or the bytes themselves when they are PEM already."""
    if material.startswith(b"-----"):
        return material
    try:
        x509.load_der_x509_certificate(material)
    except ValueError:
        return pem(material, "PUBLIC KEY")
    return pem(material)


def hashedrekord_v1(
    certificate: bytes, digest: str = ARTIFACT, *, algorithm: str = "sha256", signature: bytes | None = None
) -> bytes:
    """Body of hashedrekord 0.0.1. `certificate`: DER certificate; or PEM of certificates, or of a public key."""
    material = certificate if certificate.startswith(b"-----") else pem(certificate)
    spec = {
        "data": {"hash": {"algorithm": algorithm, "value": digest}},
        "signature": {
            "content": b64(signature or signature_of(material, digest, algorithm)),
            "publicKey": {"content": b64(material)},
        },
    }
    return canonical("hashedrekord", "0.0.1", spec)


def verifier_v2(material: bytes) -> dict[str, Any]:
    """Verifier message of Rekor v2 for a DER certificate or an SPKI."""
    is_certificate = pem_of(material).startswith(b"-----BEGIN CERTIFICATE")
    kind = "x509Certificate" if is_certificate else "publicKey"
    return {"keyDetails": "PKIX_ECDSA_P256_SHA_256", kind: {"rawBytes": b64(material)}}


def hashedrekord_v2(
    certificate: bytes, digest: str = ARTIFACT, *, algorithm: str = "SHA2_256", signature: bytes | None = None
) -> bytes:
    """Body of hashedrekord 0.0.2 (Rekor v2). `certificate`: DER certificate, or an SPKI."""
    spec = {
        "data": {"algorithm": algorithm, "digest": b64(bytes.fromhex(digest))},
        "signature": {
            "content": b64(signature or signature_of(certificate, digest, algorithm)),
            "verifier": verifier_v2(certificate),
        },
    }
    return canonical("hashedrekord", "0.0.2", {"hashedRekordV002": spec})


def hashedrekord_v2_raw(material: bytes, digest: str = ARTIFACT) -> bytes:
    """Body of hashedrekord 0.0.2 that calls any bytes at all a certificate."""
    verifier = {"keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": {"rawBytes": b64(material)}}
    spec = {
        "data": {"algorithm": "SHA2_256", "digest": b64(bytes.fromhex(digest))},
        "signature": {"content": b64(PLACEHOLDER_SIGNATURE), "verifier": verifier},
    }
    return canonical("hashedrekord", "0.0.2", {"hashedRekordV002": spec})


def dsse_v1(*certificates: bytes, payload: str = ARTIFACT, envelope: str = "00" * 32) -> bytes:
    """Body of dsse 0.0.1 with one signature per certificate (DER or PEM) or SPKI."""
    spec = {
        "envelopeHash": {"algorithm": "sha256", "value": envelope},
        "payloadHash": {"algorithm": "sha256", "value": payload},
        "signatures": [
            {"signature": b64(PLACEHOLDER_SIGNATURE), "verifier": b64(pem_of(each))} for each in certificates
        ],
    }
    return canonical("dsse", "0.0.1", spec)


def dsse_v2(*certificates: bytes, payload: str = ARTIFACT) -> bytes:
    """Body of dsse 0.0.2 (Rekor v2) with one signature per DER certificate or SPKI."""
    spec = {
        "payloadHash": {"algorithm": "SHA2_256", "digest": b64(bytes.fromhex(payload))},
        "signatures": [{"content": b64(PLACEHOLDER_SIGNATURE), "verifier": verifier_v2(each)} for each in certificates],
    }
    return canonical("dsse", "0.0.2", {"dsseV002": spec})


def intoto_v1(certificate: bytes, payload: str | None = ARTIFACT, envelope: str = "00" * 32) -> bytes:
    """Body of intoto 0.0.1; old ones have no payload hash."""
    content: dict[str, Any] = {"hash": {"algorithm": "sha256", "value": envelope}}
    if payload is not None:
        content["payloadHash"] = {"algorithm": "sha256", "value": payload}
    return canonical("intoto", "0.0.1", {"content": content, "publicKey": b64(pem_of(certificate))})


def intoto_v2(
    *certificates: bytes, payload: str = ARTIFACT, envelope: str = "00" * 32, keyid: str | None = None
) -> bytes:
    """Body of intoto 0.0.2: the envelope without its payload; signatures are base64 twice."""
    signatures = []
    for each in certificates:
        signature = {"publicKey": b64(pem_of(each)), "sig": b64(b64(PLACEHOLDER_SIGNATURE).encode())}
        signatures.append(signature | ({} if keyid is None else {"keyid": keyid}))
    content = {
        "envelope": {"payloadType": "application/vnd.in-toto+json", "signatures": signatures},
        "hash": {"algorithm": "sha256", "value": envelope},
        "payloadHash": {"algorithm": "sha256", "value": payload},
    }
    return canonical("intoto", "0.0.2", {"content": content})


def rekord(form: str, material: bytes, digest: str = ARTIFACT) -> bytes:
    """Body of rekord 0.0.1. `form`: x509, pgp, ssh or minisign; `material`: the key in that form's own text."""
    signature = {"content": b64(PLACEHOLDER_SIGNATURE), "format": form, "publicKey": {"content": b64(material)}}
    data = {"hash": {"algorithm": "sha256", "value": digest}}
    return canonical("rekord", "0.0.1", {"data": data, "signature": signature})


def cose(certificate: bytes, payload: str = ARTIFACT, envelope: str = "00" * 32) -> bytes:
    """Body of cose 0.0.1."""
    data = {
        "envelopeHash": {"algorithm": "sha256", "value": envelope},
        "payloadHash": {"algorithm": "sha256", "value": payload},
    }
    return canonical("cose", "0.0.1", {"data": data, "publicKey": b64(pem_of(certificate))})


def jar(certificate: bytes, digest: str = ARTIFACT) -> bytes:
    """Body of jar 0.0.1."""
    signature = {"content": b64(PLACEHOLDER_SIGNATURE), "publicKey": {"content": b64(pem_of(certificate))}}
    return canonical(
        "jar", "0.0.1", {"archive": {"hash": {"algorithm": "sha256", "value": digest}}, "signature": signature}
    )


def rpm(armored: bytes, digest: str = ARTIFACT) -> bytes:
    """Body of rpm 0.0.1."""
    package = {
        "hash": {"algorithm": "sha256", "value": digest},
        "headers": {"Architecture": "x86_64", "Epoch": "0", "Name": "widget", "Release": "1", "Version": "1.0"},
    }
    return canonical("rpm", "0.0.1", {"package": package, "publicKey": {"content": b64(armored)}})


def alpine(key: bytes, digest: str = ARTIFACT) -> bytes:
    """Body of alpine 0.0.1."""
    package = {"hash": {"algorithm": "sha256", "value": digest}, "pkginfo": {"pkgname": "widget"}}
    return canonical("alpine", "0.0.1", {"package": package, "publicKey": {"content": b64(pem_of(key))}})


def helm(armored: bytes, digest: str = ARTIFACT) -> bytes:
    """Body of helm 0.0.1."""
    chart = {
        "hash": {"algorithm": "sha256", "value": digest},
        "provenance": {"signature": {"content": b64(PLACEHOLDER_SIGNATURE)}},
    }
    return canonical("helm", "0.0.1", {"chart": chart, "publicKey": {"content": b64(armored)}})


def tuf(root: Mapping[str, Any], metadata: Mapping[str, Any], *, as_text: bool = True) -> bytes:
    """Body of tuf 0.0.1; `as_text` as the log writes it: the documents as base64 of their JSON."""

    def document(value: Mapping[str, Any]) -> Any:
        return b64(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()) if as_text else value

    spec = {"metadata": {"content": document(metadata)}, "root": {"content": document(root)}, "spec_version": "1.0"}
    return canonical("tuf", "0.0.1", spec)


def rfc3161(response: bytes) -> bytes:
    """Body of rfc3161 0.0.1 for a DER TimeStampResp."""
    return canonical("rfc3161", "0.0.1", {"tsr": {"content": b64(response)}})


def many_bodies(
    count: int,
    *,
    body: Callable[[bytes], bytes] = hashedrekord_v1,
    ca: Authority | None = None,
    email_every: int = 10,
) -> list[bytes]:
    """Distinct bodies for benchmarks: GitHub workflows, each `email_every`th an e-mail certificate."""
    ca = ca or make_ca()
    bodies = []
    for index in range(count):
        if email_every and index % email_every == 0:
            bodies.append(body(make_certificate(ca, san=f"dev{index}@example.com")))
        else:
            bodies.append(body(make_github_certificate(ca, f"org{index % 977}/repo{index}", run=index)))
    return bodies


# --- Odd DER, which no library would write ---------------------------------------------------------------------------


def der(tag: int, content: bytes) -> bytes:
    """One DER value with a one-byte tag."""
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def der_oid(dotted: str) -> bytes:
    """DER object identifier."""
    first, second, *rest = (int(each) for each in dotted.split("."))
    content = b""
    for arc in (first * 40 + second, *rest):
        digits = [arc & 0x7F]
        while arc := arc >> 7:
            digits.append(0x80 | (arc & 0x7F))
        content += bytes(reversed(digits))
    return der(0x06, content)


@dataclass(frozen=True, slots=True)
class OddCertificate:
    """A certificate put together byte by byte, so that any part can be wrong. The signature is a placeholder."""

    extensions: tuple[tuple[str, bool, bytes], ...] = ()
    version: bytes = der(0xA0, b"\x02\x01\x02")
    serial: bytes = b"\x02\x01\x01"
    algorithm: bytes = der(0x30, der_oid("1.2.840.10045.4.3.2"))
    issuer: bytes = der(0x30, b"")
    validity: bytes = der(0x30, der(0x17, b"260101000000Z") + der(0x17, b"260101001000Z"))
    subject: bytes = der(0x30, b"")
    spki: bytes = b""
    after_extensions: bytes = b""

    def tbs(self) -> bytes:
        """DER TBSCertificate."""
        extensions = b"".join(
            der(0x30, der_oid(oid) + (b"\x01\x01\xff" if critical else b"") + der(0x04, value))
            for oid, critical, value in self.extensions
        )
        parts = (self.version, self.serial, self.algorithm, self.issuer, self.validity, self.subject)
        spki = self.spki or spki_of(make_key("leaf"))
        wrapped = der(0xA3, der(0x30, extensions)) if self.extensions else b""
        return der(0x30, b"".join(parts) + spki + wrapped + self.after_extensions)

    def certificate(self) -> bytes:
        """DER certificate."""
        return der(0x30, self.tbs() + self.algorithm + der(0x03, b"\x00" + PLACEHOLDER_SIGNATURE))

    def signed_by(self, ca: Authority) -> bytes:
        """DER certificate that this authority signed, under its name."""
        tbs = replace(self, issuer=ca.certificate.subject.public_bytes()).tbs()
        signature = ca.key.sign(tbs, ec.ECDSA(SHA256(), deterministic_signing=True))
        return der(0x30, tbs + self.algorithm + der(0x03, b"\x00" + signature))

    def with_extension(self, oid: str, value: bytes, *, critical: bool = False) -> "OddCertificate":
        """Return the same certificate with one more extension."""
        return replace(self, extensions=(*self.extensions, (oid, critical, value)))


SAN_OID = "2.5.29.17"


def san_value(*names: tuple[int, bytes]) -> bytes:
    """Value of a SAN extension from (tag, content) pairs: 0x81 e-mail, 0x82 DNS, 0x86 URI, 0xA0 otherName."""
    return der(0x30, b"".join(der(tag, content) for tag, content in names))


def timestamp_response(imprint: bytes, *certificates: bytes, at: datetime = NOT_BEFORE, fraction: str = "") -> bytes:
    """TimeStampResp (RFC 3161) for a SHA-256 imprint, its sets as given; its CMS signature is a placeholder."""
    sha256_algorithm = der(0x30, der_oid("2.16.840.1.101.3.4.2.1"))
    info = der(
        0x30,
        b"\x02\x01\x01"
        + der_oid("1.3.6.1.4.1.57264.2")
        + der(0x30, sha256_algorithm + der(0x04, imprint))
        + b"\x02\x01\x07"
        + der(0x18, f"{at:%Y%m%d%H%M%S}{fraction}Z".encode()),
    )
    content = der(0x30, der_oid("1.2.840.113549.1.9.16.1.4") + der(0xA0, der(0x04, info)))
    signer = der(
        0x30,
        b"\x02\x01\x01"
        + der(0x30, der(0x30, b"") + b"\x02\x01\x01")
        + sha256_algorithm
        + der(0x30, der_oid("1.2.840.10045.4.3.2"))
        + der(0x04, PLACEHOLDER_SIGNATURE),
    )
    signed = der(
        0x30,
        b"\x02\x01\x03" + der(0x31, sha256_algorithm) + content + der(0xA0, b"".join(certificates)) + der(0x31, signer),
    )
    token = der(0x30, der_oid("1.2.840.113549.1.7.2") + der(0xA0, signed))
    return der(0x30, der(0x30, b"\x02\x01\x00") + token)

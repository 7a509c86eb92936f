"""Signatures of commits and tags in gitsign's format: detached CMS (RFC 5652), with or without the log entry.

The log has either the commit's id, signed once more with the same key (gitsign's online mode), or the signed attributes
of the CMS signature, whose entry then stands in the commit (offline mode). Reading verifies only the structure;
`verified` checks the signature. The caller decides whether to trust the certificate.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final

import rfc8785
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct

from sigstore_entries import der
from sigstore_entries.body import MalformedText, blocks
from sigstore_entries.bundle_file import BUNDLE_0_1, HeldBundle
from sigstore_entries.protobuf import MalformedWire, read_entry
from sigstore_entries.x509_errors import X509_ERRORS

MAX_OBJECT: Final = 16 * 1024 * 1024
ARMOUR: Final = "SIGNED MESSAGE"
SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
DATA: Final = "1.2.840.113549.1.7.1"
CONTENT_TYPE: Final = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST: Final = "1.2.840.113549.1.9.4"
SHA_256: Final = "2.16.840.1.101.3.4.2.1"
LOG_ENTRY: Final = "1.3.6.1.4.1.57264.3.1"
_HEADERS: Final = (b"gpgsig", b"gpgsig-sha256")
_BEGIN: Final = b"-----BEGIN "
_IMPLICIT_0: Final = 0xA0
_IMPLICIT_1: Final = 0xA1
_MAX_CERTIFICATES: Final = 10


class NoGitSignature(ValueError):
    """The object has no signature of this format, or one that does not verify; the message says why."""


class GitSignature(Struct, frozen=True):
    """One CMS signature over `payload`, the object without its signature. Certificates in DER, the signer's first.

    `signed_attributes` is the DER that the signature is over. `entry` is the log entry that the signature carries, with
    the body rebuilt; `None` where it carries none.
    """

    payload: bytes
    certificates: tuple[bytes, ...]
    signed_attributes: bytes
    signature: bytes
    entry: Mapping[str, Any] | None

    def as_bundle(self) -> HeldBundle:
        """A bundle of the same signature; the signed message is the DER of the signed attributes."""
        certificates = [{"rawBytes": _b64(each)} for each in self.certificates]
        digest = {"algorithm": "SHA2_256", "digest": _b64(hashlib.sha256(self.signed_attributes).digest())}
        document = {
            "mediaType": BUNDLE_0_1,
            "verificationMaterial": {
                "x509CertificateChain": {"certificates": certificates},
                "tlogEntries": [] if self.entry is None else [self.entry],
            },
            "messageSignature": {"messageDigest": digest, "signature": _b64(self.signature)},
        }
        return HeldBundle("git signature", "", document)


def split_object(raw: bytes) -> tuple[bytes, bytes]:
    """The signed bytes of a commit or tag, and its armoured signature. Raises `NoGitSignature` where it has none.

    SPEC git, signature-format: a commit has it in the header `gpgsig`, a tag at the end of its message.
    """
    header, blank, message = raw.partition(b"\n\n")
    kept: list[bytes] = []
    signature: list[bytes] = []
    inside = False
    for line in header.split(b"\n"):
        name, _, rest = line.partition(b" ")
        if inside and line.startswith(b" "):
            signature.append(line[1:])
        elif name in _HEADERS:
            if signature:
                raise NoGitSignature("it has two signatures")
            inside = True
            signature = [rest]
        else:
            inside = False
            kept.append(line)
    if signature:
        return b"\n".join(kept) + blank + message, b"\n".join(signature) + b"\n"
    at = raw.rfind(b"\n" + _BEGIN)
    if at < 0 or not raw.startswith(b"object "):
        raise NoGitSignature("it is not signed")
    return raw[: at + 1], raw[at + 1 :]


def read_git_signature(raw: bytes) -> GitSignature:
    """The signature of a commit or tag object. Raises only `NoGitSignature`, for any bytes."""
    if len(raw) > MAX_OBJECT:
        raise NoGitSignature(f"it is larger than {MAX_OBJECT // 2**20} MiB")
    payload, armoured = split_object(raw)
    return read_cms(payload, armoured)


def read_cms(payload: bytes, armoured: bytes) -> GitSignature:
    """A detached signature over `payload`, as `git` passes both to its signing program. Raises `NoGitSignature`."""
    if not armoured.startswith(f"-----BEGIN {ARMOUR}".encode()):
        kind = armoured[:60].split(b"-----")[1:2]
        shown = kind[0].decode("ascii", "replace") if kind else "something else"
        raise NoGitSignature(f"its signature is {shown!r:.60}, not one of gitsign's")
    try:
        (block,) = blocks(armoured, "the signature")
        return _read_cms(payload, block.content)
    except (der.MalformedDer, MalformedText, MalformedWire, ValueError) as error:
        if isinstance(error, NoGitSignature):
            raise
        raise NoGitSignature(f"its signature cannot be read: {error!s:.200}") from error


def _read_cms(payload: bytes, raw: bytes) -> GitSignature:
    kind, wrapped = _fixed(der.only(raw, der.SEQUENCE, "the signature"), 2)
    _expect_oid(kind, SIGNED_DATA)
    (signed_data,) = _fixed(wrapped.expect(_IMPLICIT_0, "the signed data"), 1)
    parts = list(der.children(signed_data.expect(der.SEQUENCE, "the signed data")))
    if len(parts) < 4:  # noqa: PLR2004  RFC 5652 5.1: version, algorithms, content, signers; certificates are optional
        raise NoGitSignature("its signature lacks a part")
    content, infos = parts[2], parts[-1].expect(der.SET, "the signers")
    if len(list(der.children(content))) != 1:
        raise NoGitSignature("its signature holds a content of its own: a detached one is wanted")
    certificates = [each.encoded for part in parts[3:-1] if part.tag == _IMPLICIT_0 for each in der.children(part)]
    if not 0 < len(certificates) <= _MAX_CERTIFICATES:
        raise NoGitSignature(f"its signature has {len(certificates)} certificates")
    (info,) = _fixed(infos, 1)
    return _read_signer(payload, certificates, info)


def _read_signer(payload: bytes, certificates: list[bytes], info: der.Value) -> GitSignature:
    fields = list(der.children(info.expect(der.SEQUENCE, "the signer")))
    attributes = next((each for each in fields if each.tag == _IMPLICIT_0), None)
    values = [each.content for each in fields if each.tag == der.OCTET_STRING]
    if attributes is None or len(values) != 1:
        raise NoGitSignature("its signature has no signed attributes")
    # RFC 5652 5.4: the signature is over the attributes as a SET OF, under any tag on the wire.
    signed = der.encode(der.SET, attributes.content)
    told = _attributes(attributes)
    if told.get(CONTENT_TYPE, der.read(b"\x05\x00")).tag != der.OBJECT_IDENTIFIER:
        raise NoGitSignature("its signature does not name the signed content")
    _expect_oid(told[CONTENT_TYPE], DATA)
    digest = told.get(MESSAGE_DIGEST)
    if digest is None or digest.expect(der.OCTET_STRING, "the digest").content != hashlib.sha256(payload).digest():
        raise NoGitSignature("its signature is of another object: the digest in it differs")
    leaf = _leaf(certificates, fields[1])
    unsigned = next((each for each in fields if each.tag == _IMPLICIT_1), None)
    logged = _attributes(unsigned).get(LOG_ENTRY) if unsigned is not None else None
    entry = None
    if logged is not None:
        entry = read_entry(logged.expect(der.OCTET_STRING, "the log entry").content)
        entry["canonicalizedBody"] = _b64(entry_body(leaf, values[0], signed))
        entry["kindVersion"] = {"kind": "hashedrekord", "version": "0.0.1"}
    others = [each for each in certificates if each != leaf]
    return GitSignature(payload, (leaf, *others), signed, values[0], entry)


def _leaf(certificates: list[bytes], sid: der.Value) -> bytes:
    """The signer's certificate: the one whose issuer and serial the signer names (RFC 5652 5.3)."""
    for each in certificates:
        loaded = _loaded(each)
        issuer = loaded.issuer.public_bytes()
        serial = loaded.serial_number
        octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
        if sid.tag == der.SEQUENCE and sid.content == issuer + der.encode(der.INTEGER, octets):
            return each
    raise NoGitSignature("the signer's certificate is not in its signature")


def _loaded(certificate: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(certificate)
    except X509_ERRORS as error:
        raise NoGitSignature(f"its certificate cannot be read: {error!s:.120}") from error


def verified(signature: GitSignature) -> x509.Certificate:
    """Check that the certificate's key made the signature; returns the certificate. Raises `NoGitSignature`."""
    certificate = _loaded(signature.certificates[0])
    try:
        key = certificate.public_key()
    except X509_ERRORS as error:
        raise NoGitSignature(f"the key of its certificate cannot be read: {error!s:.120}") from error
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature.signature, signature.signed_attributes, ec.ECDSA(SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature.signature, signature.signed_attributes, padding.PKCS1v15(), SHA256())
        else:
            raise NoGitSignature(f"its key is a {type(key).__name__}, which gitsign does not use")
    except InvalidSignature as error:
        raise NoGitSignature("the key of its certificate did not make its signature") from error
    return certificate


def entry_body(leaf: bytes, signature: bytes, message: bytes) -> bytes:
    """The canonical body of the hashedrekord entry (Rekor v1) of a signature over a message."""
    pem = x509.load_der_x509_certificate(leaf).public_bytes(Encoding.PEM)
    body: dict[str, Any] = {
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(message).hexdigest()}},
            "signature": {"content": _b64(signature), "publicKey": {"content": _b64(pem)}},
        },
    }
    return rfc8785.dumps(body)


def _attributes(value: der.Value) -> dict[str, der.Value]:
    """Attributes by type, each with its one value. Raises `NoGitSignature` for none, several, or a type twice."""
    found: dict[str, der.Value] = {}
    for each in der.children(value):
        kind, values = _fixed(each.expect(der.SEQUENCE, "an attribute"), 2)
        name = der.oid_text(kind.expect(der.OBJECT_IDENTIFIER, "an attribute's type").content)
        if name in found:
            raise NoGitSignature("an attribute of its signature comes twice")
        (found[name],) = _fixed(values.expect(der.SET, "an attribute's values"), 1)
    return found


def _fixed(value: der.Value, count: int) -> list[der.Value]:
    found = list(der.children(value))
    if len(found) != count:
        raise NoGitSignature("its signature has more or fewer parts than it must")
    return found


def _expect_oid(value: der.Value, dotted: str) -> None:
    if der.oid_text(value.expect(der.OBJECT_IDENTIFIER, "a type").content) != dotted:
        raise NoGitSignature("its signature is of another kind")


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()

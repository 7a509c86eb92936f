"""A certificate (or a precertificate's TBSCertificate) becomes a `Signer`; the table of Fulcio's extensions.

Two readers look at a certificate. Our own strict walk finds the raw parts, because it also reads certificates that a
library refuses; then `cryptography` gives a second opinion. Each objection of either, and every difference between
them, is a defect: the names are still offered to the rules, and each expectation that depends on a defective part fails
closed.

Fulcio's extensions are 1.3.6.1.4.1.57264.1.N; the CA writes them by the same table. Source: Fulcio's
`docs/oid-info.md`. Extensions .1 to .6 hold the bare text, .8 and later a DER UTF8String; .7 is not an extension but
the type of the `otherName` in a username certificate's subject alternative name.
"""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType
from typing import Final

from msgspec import Struct, field

from sigstore_entries import der
from sigstore_entries.der import Tbs, read_tbs, split_certificate
from sigstore_entries.escapes import escaped
from sigstore_entries.signing import Name, NameForm, Signer, SignerForm

FULCIO_ARC: Final = "1.3.6.1.4.1.57264.1"
USERNAME_OTHER_NAME_OID: Final = f"{FULCIO_ARC}.7"  # otherName type-id, value a UTF8String `user!domain`
SCT_LIST_OID: Final = "1.3.6.1.4.1.11129.2.4.2"  # RFC 6962 3.3: OCTET STRING holding the SCT list
POISON_OID: Final = "1.3.6.1.4.1.11129.2.4.3"  # RFC 6962 3.1: critical, NULL, marks a precertificate

_UTF8_STRING: Final = 0x0C
_SHORT_FORM_LIMIT: Final = 0x80
_LAST_RAW: Final = 6  # .1 to .6 predate the DER form


class FulcioExtension(Struct, frozen=True):
    """One claim a Fulcio certificate can carry: `name` is the readable claim name, `title` the name people see."""

    number: int
    name: str
    title: str

    @property
    def oid(self) -> str:
        """Dotted object identifier."""
        return f"{FULCIO_ARC}.{self.number}"

    @property
    def raw(self) -> bool:
        """True if the extension holds the bare text instead of a DER UTF8String."""
        return self.number <= _LAST_RAW

    def encode(self, value: str) -> bytes:
        """Extension value for a claim. Raises `ValueError` for an empty one: Fulcio leaves the extension out."""
        if not value:
            raise ValueError(f"{self.name} is empty: leave the extension out")
        return value.encode() if self.raw else encode_utf8_string(value)

    def decode(self, value: bytes) -> str:
        """Read an extension value. Raises `ValueError` when it is not exactly the encoding this number demands."""
        try:
            return value.decode() if self.number <= _LAST_RAW else decode_utf8_string(value)
        except ValueError as error:
            raise ValueError(f"extension {self.oid} ({self.name}): {error}") from error


EXTENSIONS: Final[tuple[FulcioExtension, ...]] = (
    FulcioExtension(1, "issuer_v1", "Issuer"),
    FulcioExtension(2, "github_workflow_trigger", "GitHub Workflow Trigger"),
    FulcioExtension(3, "github_workflow_sha", "GitHub Workflow SHA"),
    FulcioExtension(4, "github_workflow_name", "GitHub Workflow Name"),
    FulcioExtension(5, "github_workflow_repository", "GitHub Workflow Repository"),
    FulcioExtension(6, "github_workflow_ref", "GitHub Workflow Ref"),
    FulcioExtension(8, "issuer", "Issuer (V2)"),
    FulcioExtension(9, "build_signer_uri", "Build Signer URI"),
    FulcioExtension(10, "build_signer_digest", "Build Signer Digest"),
    FulcioExtension(11, "runner_environment", "Runner Environment"),
    FulcioExtension(12, "source_repository_uri", "Source Repository URI"),
    FulcioExtension(13, "source_repository_digest", "Source Repository Digest"),
    FulcioExtension(14, "source_repository_ref", "Source Repository Ref"),
    FulcioExtension(15, "source_repository_identifier", "Source Repository Identifier"),
    FulcioExtension(16, "source_repository_owner_uri", "Source Repository Owner URI"),
    FulcioExtension(17, "source_repository_owner_identifier", "Source Repository Owner Identifier"),
    FulcioExtension(18, "build_config_uri", "Build Config URI"),
    FulcioExtension(19, "build_config_digest", "Build Config Digest"),
    FulcioExtension(20, "build_trigger", "Build Trigger"),
    FulcioExtension(21, "run_invocation_uri", "Run Invocation URI"),
    FulcioExtension(22, "source_repository_visibility", "Source Repository Visibility At Signing"),
    FulcioExtension(23, "deployment_environment", "Deployment Environment"),
    FulcioExtension(24, "token_subject", "Token Subject"),
)

BY_OID: Final[Mapping[str, FulcioExtension]] = MappingProxyType({each.oid: each for each in EXTENSIONS})
BY_NAME: Final[Mapping[str, FulcioExtension]] = MappingProxyType({each.name: each for each in EXTENSIONS})


def encode_utf8_string(value: str) -> bytes:
    """DER UTF8String (X.690 8.23)."""
    content = value.encode()
    if len(content) < _SHORT_FORM_LIMIT:
        return bytes((_UTF8_STRING, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((_UTF8_STRING, _SHORT_FORM_LIMIT | len(length))) + length + content


def decode_utf8_string(raw: bytes) -> str:
    """Read exactly one DER UTF8String. Raises `ValueError` for another tag, another length form or bytes left over."""
    if len(raw) < 2 or raw[0] != _UTF8_STRING:  # noqa: PLR2004  tag and length
        raise ValueError("not a DER UTF8String")
    start = 2
    length = raw[1]
    if length < _SHORT_FORM_LIMIT and len(raw) == start + length:
        return raw[start:].decode()  # X.690 8.1.3.4: the short form, which DER has for nearly every claim
    if length >= _SHORT_FORM_LIMIT:
        start += length & 0x7F
        length = int.from_bytes(raw[2:start], "big")
    content = raw[start:]
    if len(content) != length:
        raise ValueError(f"UTF8String says {length} bytes and holds {len(content)}")
    text = content.decode()
    # X.690 10.1: DER has one length form for a value, so writing it again must give the same bytes.
    if encode_utf8_string(text) != raw:
        raise ValueError("UTF8String length is not in DER form")
    return text


SAN_OID: Final = "2.5.29.17"
MAX_CERTIFICATE: Final = 1024 * 1024
# The library makes an object of every name, without a bound; Fulcio's certificates have about two kilobytes.
MAX_SECOND_OPINION: Final = 32 * 1024
MAX_NAMES: Final = 64 * 1024  # bytes of a SAN extension
MAX_TEXT: Final = 8192
MAX_DEFECTS: Final = 32

_IA5_NAMES: Final = {0x81: NameForm.EMAIL, 0x82: NameForm.DNS, 0x86: NameForm.URI}  # RFC 5280 4.2.1.6 GeneralName
_OTHER_NAME: Final = 0xA0
_IP_ADDRESS: Final = 0x87
_SMALLEST: Final = 2  # bytes of the shortest DER value, which bounds the number of names in a SAN
_EXPLICIT_0: Final = 0xA0


_ISSUER, _ISSUER_V1 = BY_NAME["issuer"], BY_NAME["issuer_v1"]
_CLAIMS: Final = dict(BY_OID)  # read thirty times for each certificate: a plain dict is faster


class _Findings(Struct):
    """Names, claims and defects that reading a certificate collects."""

    names: list[Name] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)

    def defect(self, text: str) -> None:
        if len(self.defects) < MAX_DEFECTS:
            self.defects.append(text)


class MalformedVerifier(ValueError):
    """The entry's certificate or key cannot be read at all. `code` is for metrics."""

    def __init__(self, reason: str, code: str) -> None:
        super().__init__(reason)
        self.code = code


def signer_from_certificate(raw: bytes, chain: tuple[bytes, ...] = ()) -> Signer:
    """Read a DER certificate. Raises `MalformedVerifier`."""
    try:
        return read_certificate(raw, chain)
    except der.MalformedDer as error:
        raise MalformedVerifier(f"the certificate cannot be read: {error}", "malformed-certificate") from error


def read_certificate(raw: bytes, chain: tuple[bytes, ...] = ()) -> Signer:
    """Read a DER certificate. Raises `der.MalformedDer` when not even its outline can be read."""
    if len(raw) > MAX_CERTIFICATE:
        raise der.MalformedDer(f"a certificate of {len(raw)} bytes")
    tbs = read_tbs(split_certificate(raw).encoded)
    fingerprints = (sha256(raw).hexdigest(), sha256(tbs.spki).hexdigest())
    return _signer(tbs, raw, SignerForm.CERTIFICATE, fingerprints, certificate=raw, chain=chain)


def read_precertificate(
    tbs: bytes, certificate: bytes | None, chain: tuple[bytes, ...], defects: tuple[str, ...] = ()
) -> Signer:
    """Read the TBSCertificate of a CT precertificate entry. Raises `der.MalformedDer`.

    `certificate` is the signed precertificate where the log served one that matches the TBS.
    """
    if len(tbs) > MAX_CERTIFICATE:
        raise der.MalformedDer(f"a TBSCertificate of {len(tbs)} bytes")
    parts = read_tbs(tbs)
    # A library reads certificates only, so the second opinion is about this TBS under an empty signature.
    wrapped = der.encode(der.SEQUENCE, tbs + parts.algorithm + der.encode(der.BIT_STRING, b"\x00\x00"))
    fingerprints = (sha256(parts.spki).hexdigest(),)
    return _signer(
        parts, wrapped, SignerForm.PRECERTIFICATE, fingerprints, certificate=certificate, chain=chain, defects=defects
    )


def _signer(
    tbs: Tbs,
    readable: bytes,
    form: SignerForm,
    fingerprints: tuple[str, ...],
    *,
    certificate: bytes | None,
    chain: tuple[bytes, ...],
    defects: tuple[str, ...] = (),
) -> Signer:
    findings = _Findings(defects=list(defects))
    extensions: dict[str, bytes] = {}
    for extension in tbs.extensions:
        if extension.oid in extensions:
            findings.defect(f"extension:{extension.oid}: appears twice")
            _defect_of(extension.oid, "appears twice", findings)
        else:
            extensions[extension.oid] = extension.value
        if extension.oid == SAN_OID:
            _read_san(extension.value, findings)
    claims = _claims(extensions, findings)
    issuer = _issuer(extensions, claims, findings)
    not_before, not_after = _validity(tbs.validity, findings)
    if int.from_bytes(tbs.serial, "big", signed=True) <= 0:
        # RFC 5280 4.1.2.2: "The serial number MUST be a positive integer". The library warns and will refuse later.
        findings.defect("certificate: the serial number is not positive")
    elif len(readable) > MAX_SECOND_OPINION:
        findings.defect(f"certificate: longer than {MAX_SECOND_OPINION} bytes")
    else:
        _second_opinion(readable, findings)
    return Signer(
        form,
        names=tuple(findings.names),
        issuer=issuer,
        claims=MappingProxyType(claims),
        extensions=MappingProxyType(extensions),
        fingerprints=fingerprints,
        certificate=certificate,
        chain=chain,
        not_before=not_before,
        not_after=not_after,
        defects=tuple(findings.defects),
        # The parts of a signed precertificate differ from those of the TBSCertificate in its leaf.
        tbs=tbs if readable is certificate else None,
    )


def _defect_of(oid: str, sentence: str, findings: _Findings) -> None:
    if oid == SAN_OID:
        findings.defect(f"names: the subject alternative name {sentence}")
    elif oid in BY_OID:
        findings.defect(f"claim:{BY_OID[oid].name}: {sentence}")


def _claims(extensions: dict[str, bytes], findings: _Findings) -> dict[str, str]:
    claims = {}
    for oid, value in extensions.items():
        known = _CLAIMS.get(oid)
        if known is None:
            continue
        try:
            if len(value) > MAX_TEXT:
                raise ValueError(f"{len(value)} bytes long")  # noqa: TRY301  one place turns it into a defect
            text = known.decode(value)
            # A certificate has twenty of them, and nearly all are printable.
            claims[known.name] = (
                text if text.isprintable() else plain_text(text, f"claim:{known.name}", findings.defects)
            )
        except ValueError as error:
            findings.defect(f"claim:{known.name}: {error}")
    return claims


def _issuer(extensions: dict[str, bytes], claims: dict[str, str], findings: _Findings) -> str | None:
    # Fulcio's oid-info: .8 replaces .1; a certificate that holds an unreadable .8 has no issuer to rely on.
    new, old = claims.get("issuer"), claims.get("issuer_v1")
    if _ISSUER.oid in extensions:
        if new is None:
            findings.defect("issuer: cannot be read")
        elif old is not None and old != new:
            findings.defect("issuer: the certificate names two different issuers")
        return new
    if _ISSUER_V1.oid in extensions and old is None:
        findings.defect("issuer: cannot be read")
    return old


def _validity(value: der.Value, findings: _Findings) -> tuple[datetime | None, datetime | None]:
    try:
        not_before, not_after = map(der.time, der.children(value))
    except ValueError as error:  # MalformedDer, or not exactly two
        findings.defect(f"validity: {error}")
        return None, None
    return not_before, not_after


def read_names(san: bytes) -> tuple[tuple[Name, ...], tuple[str, ...]]:
    """Names in the value of a SAN extension, and its defects, as in a signer with this one extension."""
    findings = _Findings()
    _read_san(san, findings)
    return tuple(findings.names), tuple(findings.defects)


def _read_san(raw: bytes, findings: _Findings) -> None:
    try:
        listed = der.only(raw, der.SEQUENCE, "the subject alternative name")
        for value in der.children(listed, limit=len(raw) // _SMALLEST):
            if value.end > MAX_NAMES:
                # In front, so that the cap on defects never cuts it off.
                findings.defects.insert(0, f"unread: {len(raw) - value.start} bytes of names, beyond {MAX_NAMES}")
                return
            _read_name(value, findings)
    except der.MalformedDer as error:
        findings.defect(f"names: {error}")


def _read_name(value: der.Value, findings: _Findings) -> None:
    form = _IA5_NAMES.get(value.tag)
    try:
        if form is not None:
            content = value.content
            text = _short(content).decode("utf-8")
            if not content.isascii():
                # RFC 5280 4.2.1.6: these are IA5String. The text is still offered, so that a look-alike is seen.
                findings.defect(f"names: {form.value} is not ASCII")
            findings.names.append(Name(form, plain_text(text, "names", findings.defects)))
        elif value.tag == _IP_ADDRESS:
            findings.names.append(Name(NameForm.IP, _ip_text(value.content)))
        elif value.tag == _OTHER_NAME:
            findings.names.append(Name(NameForm.OTHER, _username(value, findings)))
        else:
            findings.defect(f"names: a name of form {value.tag:#04x} is not read")
    except ValueError as error:
        findings.defect(f"names: {error}")


def _ip_text(content: bytes) -> str:
    """RFC 5280 4.2.1.6: four or sixteen octets. Raises `ValueError`."""
    if len(content) not in {4, 16}:
        raise ValueError(f"an IP address of {len(content)} bytes")
    address = ip_address(content)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(address) if mapped is None else f"::ffff:{mapped}"  # RFC 5952 5; releases of Python disagree


def _username(value: der.Value, findings: _Findings) -> str:
    kind, wrapped, *rest = der.children(value)
    oid = der.oid_text(kind.expect(der.OBJECT_IDENTIFIER, "an otherName's type").content)
    if rest or wrapped.tag != _EXPLICIT_0 or oid != USERNAME_OTHER_NAME_OID:
        raise ValueError(f"an otherName of type {oid} is not read")
    return plain_text(decode_utf8_string(_short(wrapped.content)), "names", findings.defects)


def _short(content: bytes) -> bytes:
    if len(content) > MAX_TEXT:
        raise ValueError(f"a name of {len(content)} bytes")
    return content


def plain_text(text: str, part: str, defects: list[str]) -> str:
    """Return `text`, with control characters spelled as escapes and noted as a defect.

    Databases refuse a NUL, and other programs cut text at it: an entry must not stop the monitor or imitate another.
    """
    # Printable for any release of Python means that the text holds no such character.
    if text.isprintable() or (plain := escaped(text)) == text:
        return text
    if len(defects) < MAX_DEFECTS:
        defects.append(f"{part}: holds a control or unprintable character")
    return plain


def _second_opinion(readable: bytes, findings: _Findings) -> None:
    # A twentieth of the start of a command that reads no certificate.
    from cryptography import x509  # noqa: PLC0415

    from sigstore_entries.x509_errors import X509_ERRORS  # noqa: PLC0415

    try:
        extensions = x509.load_der_x509_certificate(readable).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        theirs: list[str] = []
    except x509.DuplicateExtension:
        return  # our own reader has already reported it, with the name of the extension
    except X509_ERRORS as error:
        findings.defect(f"certificate: refused by the X.509 library ({str(error)[:100]!a})")
        return
    else:
        theirs = [_library_name(each.value) for each in names]
    ours = [each.value for each in findings.names]
    if theirs != ours:
        findings.defect("names: two X.509 readers disagree")


def _library_name(value: object) -> str:
    if isinstance(value, bytes):  # of an otherName
        try:
            return decode_utf8_string(value)
        except ValueError:
            return ""
    return _ip_text(value.packed) if isinstance(value, IPv4Address | IPv6Address) else str(value)

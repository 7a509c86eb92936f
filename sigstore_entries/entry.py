"""A log's entry becomes a `Signing`: decoded in full, outlined on the fast path, or read in part where it is broken.

Rules select very few entries, so the first check must be fast *and* must not miss one. An outline is made only for a
body that is, byte for byte, the canonical form of one of a few kinds with holes in it. A hole may hold only
characters that JSON reads as themselves: no quotation mark and no escape. The body may hold no other text. So a JSON
reader would find exactly these fields, and no repeated key, escape or second signer. Every other body gets `None`,
which means *decode it fully*, never *skip it*.

Names in a certificate are ASCII or UTF-8 inside its DER, and `decode_rekor` reads no other encoding; so a name it
would report is a substring of the haystack, except where a control character was escaped.
"""

import re
from binascii import Error, a2b_base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from types import MappingProxyType
from typing import Final

import msgspec
from pybase64 import b64decode

from sigstore_entries import der, packages
from sigstore_entries.body import MAX_BODY, BodyObject, DecodedBody, MalformedBody, failed, hex_digest, read_json, shown
from sigstore_entries.certificate import (
    MAX_CERTIFICATE,
    MalformedVerifier,
    read_certificate,
    read_precertificate,
    signer_from_certificate,
)
from sigstore_entries.der import SEQUENCE, MalformedDer, only, read_spki_of, split_certificate, tbs_without_scts
from sigstore_entries.keys import all_signers, signer_from_key, signer_from_pem
from sigstore_entries.signing import Digest, EntryRef, KnownTime, Signer, SignerForm, Signing, Unreadable
from sigstore_entries.timestamp import rfc3161_v1
from sigstore_entries.tuf_metadata import tuf_v1
from tlog.ct import CtLeaf, EntryType, MalformedCt, Reader, parse_leaf
from tlog.merkle import HASH_SIZE

_CERTIFICATE_BEGIN: Final = b"-----BEGIN CERTIFICATE-----\n"
_CERTIFICATE_END: Final = b"\n-----END CERTIFICATE-----"
_KEY_BEGIN: Final = b"-----BEGIN PUBLIC KEY-----\n"
_KEY_END: Final = b"\n-----END PUBLIC KEY-----"
_CERTIFICATE: Final = SignerForm.CERTIFICATE
_KEY: Final = SignerForm.KEY
_CT_PRECERT_HEAD: Final = 44  # version, type, timestamp (8), entry type (2), issuer key hash (32)
_CT_X509_HEAD: Final = 12
_LONG_SEQUENCE: Final = b"\x30\x82"  # tag, and the mark of a length in two bytes
_LONG_HEAD: Final = 4  # bytes of tag and length


class Outline(msgspec.Struct, frozen=True, gc=False):
    """Raw searchable material of one entry with one signer.

    `kind` is the entry's kind as `decode` names it. `haystack` is the DER of the signer's certificate, TBSCertificate
    or SPKI, `form` says which. `raw_digests` are as the body spells them, in hex or base64.
    """

    kind: str
    form: SignerForm
    haystack: bytes
    raw_digests: tuple[bytes, ...]

    @property
    def digests(self) -> tuple[str, ...]:
        """Lower-case hex of any algorithm. Computed on each access, because few rules are about digests."""
        return tuple(
            (each if len(each) == _HEX_DIGEST else a2b_base64(each).hex().encode()).decode("ascii")
            for each in self.raw_digests
        )


_HEX_DIGEST: Final = 2 * HASH_SIZE
# The characters of each hole, and whether its text is captured. No class holds the quotation mark after its hole, so
# no body can be matched in two ways, and this takes linear time for any body.
_HOLES: Final = {
    "<plain>": r"[A-Za-z0-9+/=_\-.:@]*",
    "<hex>": r"([0-9a-f]{64})",
    "<base64>": r"([A-Za-z0-9+/]{43}=)",
    "<signature>": r"([A-Za-z0-9+/=]*)",
    "<material>": r'([^"]*)',
    # For the last hole, found from the body's end: decoding then checks that the text is pure base64.
    "<rest>": r"(.*)",
}


_Match = Callable[[bytes], re.Match[bytes] | None]


def _template(text: str) -> _Match:
    """Matcher of a canonical body with holes of the kinds in `_HOLES`. The captured material is not decoded yet."""
    for mark, meaning in (
        ("$CERTIFICATE", '{"keyDetails":"<plain>","x509Certificate":{"rawBytes":"<rest>"}}'),
        ("$KEY", '{"keyDetails":"<plain>","publicKey":{"rawBytes":"<rest>"}}'),
        ("$HASH", '{"algorithm":"sha256","value":"<hex>"}'),
        ("$DIGEST", '{"algorithm":"SHA2_256","digest":"<base64>"}'),
    ):
        text = text.replace(mark, meaning)
    pieces = re.split("(" + "|".join(_HOLES) + ")", text)
    pattern = "".join(_HOLES.get(piece) or re.escape(piece) for piece in pieces)
    return re.compile(pattern.encode(), re.DOTALL).fullmatch


_HASHEDREKORD_V1_SPEC = (
    '{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":$HASH},'
    '"signature":{"content":"$SIGNATURE","publicKey":{"content":"<rest>"}}}}'
)
_HASHEDREKORD_V1: Final = _template(_HASHEDREKORD_V1_SPEC.replace("$SIGNATURE", "<plain>"))
_DSSE_V1: Final = _template(
    '{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":$HASH,"payloadHash":$HASH,'
    '"signatures":[{"signature":"<plain>","verifier":"<rest>"}]}}'
)
_INTOTO_V2_SPEC = (
    '{"apiVersion":"0.0.2","kind":"intoto","spec":{"content":{"envelope":{"payloadType":"<plain>",'
    '"signatures":[{$KEYID"publicKey":"<material>","sig":"<plain>"}]},"hash":$HASH,"payloadHash":$HASH}}}'
)
_INTOTO_V2: Final = _template(_INTOTO_V2_SPEC.replace("$KEYID", ""))
_INTOTO_V2_KEYID: Final = _template(_INTOTO_V2_SPEC.replace("$KEYID", '"keyid":"<plain>",'))
_HASHEDREKORD_V2_SPEC = (
    '{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":$DIGEST,'
    '"signature":{"content":"$SIGNATURE","verifier":$VERIFIER}}}}'
)
_HASHEDREKORD_V2: Final = _template(
    _HASHEDREKORD_V2_SPEC.replace("$SIGNATURE", "<plain>").replace("$VERIFIER", "$CERTIFICATE")
)
_HASHEDREKORD_V2_KEY: Final = _template(
    _HASHEDREKORD_V2_SPEC.replace("$SIGNATURE", "<plain>").replace("$VERIFIER", "$KEY")
)
_DSSE_V2_SPEC = (
    '{"apiVersion":"0.0.2","kind":"dsse","spec":{"dsseV002":{"payloadHash":$DIGEST,'
    '"signatures":[{"content":"<plain>","verifier":$VERIFIER}]}}}'
)
_DSSE_V2: Final = _template(_DSSE_V2_SPEC.replace("$VERIFIER", "$CERTIFICATE"))
_DSSE_V2_KEY: Final = _template(_DSSE_V2_SPEC.replace("$VERIFIER", "$KEY"))


def outline_rekor(body: bytes) -> Outline | None:
    """Outline of a canonical body, or None: decode it fully. Never raises for any bytes."""
    shapes = _SHAPES.get(body[:_KIND_END])
    if shapes is None or len(body) > MAX_BODY:
        return None
    for match, kind, read in shapes:
        found = match(body)
        if found is not None:
            try:
                return read(kind, found.groups())
            except ValueError:  # a hole that is not base64
                return None
    return None


def outline_ct(leaf: bytes) -> Outline | None:
    """Outline of a CT MerkleTreeLeaf, or None: decode it fully. Never raises for any bytes."""
    kind = leaf[:2] + leaf[10:12]  # version and leaf type; entry type (RFC 6962 3.4)
    if kind == b"\x00\x00\x00\x01":
        head, form = _CT_PRECERT_HEAD, SignerForm.PRECERTIFICATE
    elif kind == b"\x00\x00\x00\x00":
        head, form = _CT_X509_HEAD, SignerForm.CERTIFICATE
    else:
        return None
    end = head + 3 + int.from_bytes(leaf[head : head + 3], "big")
    if len(leaf) != end + 2 + int.from_bytes(leaf[end : end + 2], "big"):
        return None
    found = leaf[head + 3 : end]
    return Outline(form.value, form, found, ()) if _is_sequence(found) else None


def outline_signature(body: bytes, version: str) -> tuple[bytes, Outline] | None:
    """Signature in a canonical hashedrekord of this version made with a certificate, and its outline.

    None: read the body as JSON. Never raises for any bytes.
    """
    match = _SIGNED.get(version)
    found = None if match is None or len(body) > MAX_BODY else match[0](body)
    if match is None or found is None:
        return None
    digest, signature, material = found.groups()
    try:
        outline = match[1]("hashedrekord", (digest, material))
        return None if outline is None else (b64decode(signature, None, True), outline)
    except ValueError:
        return None


def outline_fingerprints(outline: Outline) -> tuple[str, ...] | None:
    """Fingerprints that `decode` would give this signer, or None: decode it fully.

    Separate from the outline, because only rules about fingerprints need it, and it takes longer than the outline
    itself.
    """
    raw = outline.haystack
    own = sha256(raw).hexdigest()
    if outline.form is SignerForm.KEY:
        return (own,)
    try:
        if outline.form is SignerForm.PRECERTIFICATE:
            return (sha256(read_spki_of(raw)).hexdigest(),)
        return own, sha256(read_spki_of(split_certificate(raw).encoded)).hexdigest()
    except MalformedDer:
        return None


def _certificate_der(kind: str, holes: Sequence[bytes]) -> Outline | None:
    digest, material = holes
    # pybase64's `validate`, by position here and below: a keyword costs nearly as much as decoding a certificate.
    found = b64decode(material, None, True)
    # A single SEQUENCE of 256 to 65,535 bytes: nearly every certificate. Without function calls, for speed.
    if found[:2] == _LONG_SEQUENCE and len(found) - _LONG_HEAD == found[2] << 8 | found[3]:
        return Outline(kind, _CERTIFICATE, found, (digest,))
    return Outline(kind, _CERTIFICATE, found, (digest,)) if _is_sequence(found) else None


def _key_der(kind: str, holes: Sequence[bytes]) -> Outline | None:
    digest, material = holes
    found = b64decode(material, None, True)
    return Outline(kind, _KEY, found, (digest,)) if _is_sequence(found) else None


def _dsse_pem(kind: str, holes: Sequence[bytes]) -> Outline | None:
    envelope, payload, material = holes
    return _pem(kind, (payload, envelope, material))


def _intoto_pem(kind: str, holes: Sequence[bytes]) -> Outline | None:
    material, envelope, payload = holes
    return _pem(kind, (payload, envelope, material))


def _pem(kind: str, holes: Sequence[bytes]) -> Outline | None:
    *digests, material = holes
    text = b64decode(material, None, True)
    end = len(text) - text.endswith(b"\n")  # in-toto entries lack the last newline
    if text.startswith(_CERTIFICATE_BEGIN) and text.endswith(_CERTIFICATE_END, 0, end):
        form, inner = _CERTIFICATE, text[len(_CERTIFICATE_BEGIN) : end - len(_CERTIFICATE_END)]
    elif text.startswith(_KEY_BEGIN) and text.endswith(_KEY_END, 0, end):
        form, inner = _KEY, text[len(_KEY_BEGIN) : end - len(_KEY_END)]
    else:
        return None
    # A second block would leave its dashes in here, and dashes are not base64.
    found = b64decode(inner.replace(b"\n", b""), None, True)
    if found[:2] == _LONG_SEQUENCE and len(found) - _LONG_HEAD == found[2] << 8 | found[3]:
        return Outline(kind, form, found, tuple(digests))
    return Outline(kind, form, found, tuple(digests)) if _is_sequence(found) else None


def _is_sequence(raw: bytes) -> bool:
    """True if these bytes are exactly one DER SEQUENCE."""
    try:
        only(raw, SEQUENCE, "a key or certificate")
    except MalformedDer:
        return False
    return True


# Canonical JSON sorts its keys, so version and kind always stand first: enough of them to tell the kinds apart.
_KIND_END: Final = 35
_SHAPES: Final[dict[bytes, tuple[tuple[_Match, str, Callable[[str, Sequence[bytes]], Outline | None]], ...]]] = {
    b'{"apiVersion":"0.0.1","kind":"hashe': ((_HASHEDREKORD_V1, "hashedrekord", _pem),),
    b'{"apiVersion":"0.0.2","kind":"hashe': (
        (_HASHEDREKORD_V2, "hashedrekord", _certificate_der),
        (_HASHEDREKORD_V2_KEY, "hashedrekord", _key_der),
    ),
    b'{"apiVersion":"0.0.1","kind":"dsse"': ((_DSSE_V1, "dsse", _dsse_pem),),
    b'{"apiVersion":"0.0.2","kind":"dsse"': ((_DSSE_V2, "dsse", _certificate_der), (_DSSE_V2_KEY, "dsse", _key_der)),
    b'{"apiVersion":"0.0.2","kind":"intot': (
        (_INTOTO_V2, "intoto", _intoto_pem),
        (_INTOTO_V2_KEYID, "intoto", _intoto_pem),
    ),
}


_SIGNED: Final[Mapping[str, tuple[_Match, Callable[[str, Sequence[bytes]], Outline | None]]]] = {
    "0.0.1": (_template(_HASHEDREKORD_V1_SPEC.replace("$SIGNATURE", "<signature>")), _pem),
    "0.0.2": (
        _template(_HASHEDREKORD_V2_SPEC.replace("$SIGNATURE", "<signature>").replace("$VERIFIER", "$CERTIFICATE")),
        _certificate_der,
    ),
}


# The field's name in the log's first releases, and its present name: the proto renamed it before version 2.0.
HASHEDREKORD_V2_NAMES: Final = ("hashedRekordV002", "hashedRekordV0_0_2")
_DSSE_V2_NAMES: Final = ("dsseV002", "dsseV0_0_2")
# sigstore_common.proto HashAlgorithm, as protojson spells it; sizes in bytes.
_V2_ALGORITHMS: Final = {
    "SHA2_256": ("sha256", 32),
    "SHA2_384": ("sha384", 48),
    "SHA2_512": ("sha512", 64),
    "SHA3_256": ("sha3-256", 32),
    "SHA3_384": ("sha3-384", 48),
}


def hashedrekord_v1(spec: BodyObject) -> DecodedBody:
    """Decode hashedrekord 0.0.1: one digest, one PEM verifier."""
    text = spec.object("signature", "publicKey").bytes("content")
    signer = signer_from_pem(text, "signature.publicKey.content")
    return DecodedBody((signer,), (hex_digest(spec.object("data", "hash")),))


def hashedrekord_v2(spec: BodyObject) -> DecodedBody:
    """Decode hashedrekord 0.0.2 (Rekor v2). Newer clients log a DSSE envelope this way, over SHA-256 of its PAE."""
    inner = _only_one(spec, HASHEDREKORD_V2_NAMES)
    signer = _signer_v2(inner.object("signature"), "verifier")
    return DecodedBody((signer,), (_digest_v2(inner.object("data"), "artifact"),))


def dsse_v1(spec: BodyObject) -> DecodedBody:
    """Decode dsse 0.0.1: payload and envelope digests, any number of PEM verifiers."""
    readers = [partial(_signer_of, each, "verifier") for each in spec.list("signatures")]
    digests = (hex_digest(spec.object("payloadHash"), "payload"), hex_digest(spec.object("envelopeHash"), "envelope"))
    return DecodedBody(all_signers(readers), digests)


def dsse_v2(spec: BodyObject) -> DecodedBody:
    """Decode dsse 0.0.2 (Rekor v2 up to 2.2)."""
    inner = _only_one(spec, _DSSE_V2_NAMES)
    readers = [partial(_signer_v2, each, "verifier") for each in inner.list("signatures")]
    return DecodedBody(all_signers(readers), (_digest_v2(inner.object("payloadHash"), "payload"),))


def intoto_v1(spec: BodyObject) -> DecodedBody:
    """Decode intoto 0.0.1: one PEM key; entries of the first year have no payload digest."""
    return DecodedBody((_signer_of(spec, "publicKey"),), _envelope_digests(spec.object("content")))


def intoto_v2(spec: BodyObject) -> DecodedBody:
    """Decode intoto 0.0.2: the envelope's signatures, each with its PEM key."""
    content = spec.object("content")
    readers = [partial(_signer_of, each, "publicKey") for each in content.object("envelope").list("signatures")]
    return DecodedBody(all_signers(readers), _envelope_digests(content))


def cose_v1(spec: BodyObject) -> DecodedBody:
    """Decode cose 0.0.1: digests of payload and envelope, one PEM key."""
    data = spec.object("data")
    digests = [
        hex_digest(data.object(name), of)
        for name, of in (("payloadHash", "payload"), ("envelopeHash", "envelope"))
        if name in data
    ]
    return DecodedBody((_signer_of(spec, "publicKey"),), tuple(digests))


def _signer_of(fields: BodyObject, name: str) -> Signer:
    return signer_from_pem(fields.bytes(name), name)


def _envelope_digests(content: BodyObject) -> tuple[Digest, ...]:
    digests = [hex_digest(content.object("hash"), "envelope")]
    if "payloadHash" in content:
        digests.insert(0, hex_digest(content.object("payloadHash"), "payload"))
    return tuple(digests)


def _only_one(spec: BodyObject, names: Sequence[str]) -> BodyObject:
    """The object under the one of these names that is present. With two, readers could see two entries."""
    present = [name for name in names if name in spec]
    if len(present) > 1:
        raise MalformedBody(f"the body holds both {' and '.join(present)}")
    return spec.object(present[0] if present else names[0])


def _signer_v2(fields: BodyObject, name: str) -> Signer:
    verifier = fields.object(name)
    forms: dict[str, Callable[[bytes], Signer]] = {
        "x509Certificate": signer_from_certificate,
        "publicKey": signer_from_key,
    }
    present = [name for name in forms if name in verifier]
    if len(present) != 1:
        # The proto has a oneof here: with two of the fields, two readers could see two different signers.
        raise MalformedVerifier("a verifier holds not exactly one of x509Certificate and publicKey", "malformed-body")
    return forms[present[0]](verifier.object(present[0]).bytes("rawBytes"))


def _digest_v2(data: BodyObject, of: str) -> Digest:
    name, value = data.text("algorithm"), data.bytes("digest")
    algorithm, size = _V2_ALGORITHMS.get(name, (None, 0))
    if algorithm is None or len(value) != size:
        raise MalformedBody(f"a digest of {len(value)} bytes by algorithm {shown(name)}")
    return Digest(algorithm, value.hex(), of)


# Of logs of both API versions: (kind, apiVersion). hashedrekord and dsse 0.0.2 are Rekor v2's.
KINDS: Final[Mapping[tuple[str, str], Callable[[BodyObject], DecodedBody]]] = MappingProxyType(
    {
        ("hashedrekord", "0.0.1"): hashedrekord_v1,
        ("hashedrekord", "0.0.2"): hashedrekord_v2,
        ("dsse", "0.0.1"): dsse_v1,
        ("dsse", "0.0.2"): dsse_v2,
        ("intoto", "0.0.1"): intoto_v1,
        ("intoto", "0.0.2"): intoto_v2,
        ("cose", "0.0.1"): cose_v1,
        ("rekord", "0.0.1"): packages.rekord_v1,
        ("jar", "0.0.1"): packages.jar_v1,
        ("rpm", "0.0.1"): packages.rpm_v1,
        ("alpine", "0.0.1"): packages.alpine_v1,
        ("helm", "0.0.1"): packages.helm_v1,
        ("tuf", "0.0.1"): tuf_v1,
        ("rfc3161", "0.0.1"): rfc3161_v1,
    }
)


def decode_rekor(body: bytes, where: EntryRef, integrated_time: datetime | None = None) -> Signing | Unreadable:
    """Decode a canonical body as the log serves it. Never raises for any bytes; `Unreadable.code` gives the reason.

    `integrated_time` is Rekor v1's, which stands outside the body; version 2 has none. Codes: `too-large`,
    `malformed-json`, `repeated-key`, `malformed-body`, `unsupported-kind`, `malformed-certificate`, `malformed-key`,
    `decoder-failed`. For a partly read entry `signing.left_out` gives `unreadable-signer`.
    """
    try:
        return _decode(body, where, integrated_time)
    except (MalformedBody, MalformedVerifier) as error:
        return Unreadable(where, error.code, str(error))
    except BaseException as error:  # noqa: BLE001  `failed` raises again what is not the entry's doing
        return failed(where, error)


def _decode(body: bytes, where: EntryRef, integrated_time: datetime | None) -> Signing | Unreadable:
    top = BodyObject(read_json(body, "the body"), "body")
    kind, version = top.text("kind"), top.text("apiVersion")
    decode = KINDS.get((kind, version))
    if decode is None:
        return Unreadable(where, "unsupported-kind", f"no decoder for kind {shown(kind)} version {shown(version)}")
    decoded = decode(top.object("spec"))
    times = decoded.times + tuple(
        KnownTime("certificate-not-before", signer.not_before) for signer in decoded.signers if signer.not_before
    )
    if integrated_time is not None:
        times = (KnownTime("integrated-time", integrated_time), *times)
    return Signing(where, kind, version, decoded.signers, decoded.digests, times)


VERSION = "v1"
MAX_CHAIN = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decode_ct(leaf: bytes, where: EntryRef, extra: bytes = b"") -> Signing | Unreadable:
    """Decode a leaf as it is hashed into the tree. Never raises for any bytes; `Unreadable.code` gives the reason.

    `extra` is RFC 6962 4.6 `extra_data`. The tree does not cover it, so it is used only where it agrees with the
    leaf; missing or malformed `extra` affects only the signer's `certificate`, `chain` and defects.
    Kinds are `certificate` and `precertificate`. Codes: `malformed-leaf`, `malformed-certificate`, `decoder-failed`.
    """
    try:
        parsed = parse_leaf(leaf)
        if parsed.entry_type is EntryType.PRECERT:
            signer = _precertificate(parsed, extra)
        else:
            signer = _certificate(parsed, extra)
    except MalformedCt as error:
        return Unreadable(where, "malformed-leaf", str(error))
    except der.MalformedDer as error:
        return Unreadable(where, "malformed-certificate", f"the certificate cannot be read: {error}")
    except BaseException as error:  # noqa: BLE001  `failed` raises again what is not the entry's doing
        return failed(where, error)
    return Signing(where, signer.form.value, VERSION, (signer,), (), _times(parsed, signer))


def _certificate(leaf: CtLeaf, extra: bytes) -> Signer:
    chain, _ = _read_extra(extra, EntryType.X509)
    return read_certificate(leaf.certificate, chain)


def _precertificate(leaf: CtLeaf, extra: bytes) -> Signer:
    chain, signed = _read_extra(extra, EntryType.PRECERT)
    defects: tuple[str, ...] = ()
    if signed is not None and not _same(signed, leaf.certificate):
        signed, chain = None, ()
        defects = ("chain: the log served a precertificate that is not the one in the tree",)
    return replace(read_precertificate(leaf.certificate, signed, chain, defects), issuer_key_hash=leaf.issuer_key_hash)


def _same(precertificate: bytes, tbs: bytes) -> bool:
    try:
        return tbs_without_scts(precertificate) == tbs
    except der.MalformedDer:
        return False


def _read_extra(extra: bytes, kind: EntryType) -> tuple[tuple[bytes, ...], bytes | None]:
    if not extra or len(extra) > MAX_CHAIN * MAX_CERTIFICATE:
        return (), None
    try:
        reader = Reader(extra)
        signed = reader.vector(3) if kind is EntryType.PRECERT else None
        listed = Reader(reader.vector(3))
        reader.finish()
        chain: list[bytes] = []
        while listed.left() and len(chain) < MAX_CHAIN:
            chain.append(listed.vector(3))
    except MalformedCt:
        return (), None
    return tuple(chain), signed


def _times(leaf: CtLeaf, signer: Signer) -> tuple[KnownTime, ...]:
    times = []
    with suppress(OverflowError):  # `datetime` cannot hold a timestamp after the year 9999
        times.append(KnownTime("ct-timestamp", _EPOCH + timedelta(milliseconds=leaf.timestamp)))
    if signer.not_before is not None:
        times.append(KnownTime("certificate-not-before", signer.not_before))
    return tuple(times)


MAX_NAMES: Final = 5
_MAX_NAME: Final = 120
# Every repeat is bounded, so the search takes linear time for any bytes.
_KIND: Final = re.compile(rb'"kind"\s{0,8}:\s{0,8}"([A-Za-z0-9_.-]{1,40})"')
_NAME: Final = re.compile(rb"https?://[\x21-\x7e]{4,400}|[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,200}\.[A-Za-z]{2,24}")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")
_NESTED: Final = 2  # a body holds base64 of PEM, which holds base64 of a certificate
_ENDS: Final = re.compile(rb"[\"'<>\\]")


def readable_part(leaf: bytes) -> str:
    """Return one inert line about an entry's bytes; names in their order, without duplicates, at most `MAX_NAMES`."""
    kind = _KIND.search(leaf)
    names = list(dict.fromkeys(_names(leaf, _NESTED)))
    shown = ", ".join(names[:MAX_NAMES]) or "no name"
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    told = f"kind {kind[1].decode('ascii')}" if kind else "no kind"
    return f"{told}; {shown}{more}; {len(leaf)} bytes, SHA-256 {sha256(leaf).hexdigest()}"


def _names(raw: bytes, nested: int) -> Iterator[str]:
    for match in _NAME.finditer(raw):
        yield _ENDS.split(match[0])[0][:_MAX_NAME].decode("ascii")
    if nested:
        for match in _BASE64.finditer(raw.replace(b"\\n", b"").replace(b"\n", b"")):
            whole = match[0].rstrip(b"=")
            try:
                yield from _names(a2b_base64(whole + b"=" * (-len(whole) % 4)), nested - 1)
            except Error:
                continue

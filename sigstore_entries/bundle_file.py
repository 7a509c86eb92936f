"""Bundles in every form that users have, converted to the form of Sigstore's own specification.

Standard bundles of each version, several of them (JSON Lines, arrays), answers of Rekor v1, PyPI's provenance
(PEP 740), the attestation APIs of npm and GitHub, the output of `gh`, and cosign's own formats with a signed entry
timestamp. Nothing is verified here.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct

from sigstore_entries.body import MalformedText, blocks
from sigstore_entries.protobuf import canonical, no_number, unique

MAX_ITEMS: Final = 10_000
_MAX_DEPTH: Final = 8
# The JSON reader counts the lines before each error; this bounds the characters it counts for damaged documents.
_MOST_COUNTED: Final = 10_000_000_000
_MAX_CHAIN: Final = 10
_IN_TOTO: Final = "application/vnd.in-toto+json"
BUNDLE_0_1: Final = "application/vnd.dev.sigstore.bundle+json;version=0.1"
BUNDLE_0_3: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_BOMS: Final = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_NEWLINE: Final = "\n"
_START: Final = re.compile(r"[^ \t\r\n]")
_NEXT_LINE: Final = re.compile(r"\n[ \t]*[\[{]")
_KNOWN: Final = (
    "a Sigstore bundle, an answer of Rekor, PyPI provenance, npm's or GitHub's attestations, or a cosign bundle, "
    "alone, in an array or one a line"
)


class NoBundle(ValueError):
    """A document, or a part of one, has an unknown form, or lacks a required part of its form."""


class HeldBundle(Struct, frozen=True):
    """One bundle of a file. `document` is in the spelling of a Sigstore bundle, without parts the form lacks.

    `form` names the form for people, `place` its place in the file (empty when it is the whole file).
    """

    form: str
    place: str
    document: Mapping[str, Any]

    @property
    def material(self) -> Mapping[str, Any]:
        """The bundle's `verificationMaterial`."""
        found = self.document.get("verificationMaterial")
        return found if isinstance(found, dict) else {}

    @property
    def entries(self) -> Sequence[Mapping[str, Any]]:
        """The log entries, each a TransparencyLogEntry, or empty where it is not an object. Raises `NoBundle`."""
        found = self.material.get("tlogEntries", [])
        if not isinstance(found, list):
            raise NoBundle("its log entries are not a list")
        return [each if isinstance(each, dict) else {} for each in found]

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """Certificates in DER, the leaf first; none for a bundle with a bare key. Raises `NoBundle`.

        SPEC protobuf-specs sigstore_bundle.proto: one certificate, or a chain with the leaf first.
        """
        try:
            single = self.material.get("certificate")
            found = [single] if single else (self.material.get("x509CertificateChain") or {}).get("certificates", [])
            chain = (decoded(each.get("rawBytes"), "a certificate") for each in found[:_MAX_CHAIN])
            return tuple(each for each in chain if each)
        except (AttributeError, TypeError) as error:
            raise NoBundle("its certificate is of another kind than a bundle's") from error

    @property
    def timestamps(self) -> tuple[bytes, ...]:
        """RFC 3161 timestamp responses in DER. Raises `NoBundle`."""
        try:
            found = (self.material.get("timestampVerificationData") or {}).get("rfc3161Timestamps", [])
            return tuple(decoded(each.get("signedTimestamp"), "a timestamp") for each in found)
        except (AttributeError, TypeError) as error:
            raise NoBundle("its timestamps are of another kind than a bundle's") from error

    @property
    def signature(self) -> bytes:
        """The signature over the artifact, or over the envelope. Raises `NoBundle` when there is none."""
        try:
            if message := self.document.get("messageSignature"):
                return decoded(message.get("signature"), "its signature")
            if signatures := (self.document.get("dsseEnvelope") or {}).get("signatures"):
                return decoded(signatures[0].get("sig"), "its signature")
        except (AttributeError, KeyError, TypeError) as error:
            raise NoBundle("its signature is of another kind than a bundle's") from error
        raise NoBundle("it has no signature")


class NotHeld(Struct, frozen=True):
    """A part of a file that is no bundle, and why."""

    place: str
    why: str


def read_bundle_file(raw: bytes) -> list[HeldBundle | NotHeld]:
    """Every bundle of a file, in order, at least one element. Never raises for any bytes.

    The caller bounds the size. More than `MAX_ITEMS` documents are refused as a whole.
    """
    try:
        documents = _documents(raw)
    except ValueError as error:
        return [NotHeld("", str(error))]
    found: list[HeldBundle | NotHeld] = []
    for number, document in enumerate(documents, 1):
        place = f"document {number}" if len(documents) > 1 else ""
        if isinstance(document, NotHeld):
            found.append(document)
            continue
        for each in _bundles(document, place, 0):
            found.append(each)
            if len(found) > MAX_ITEMS:
                return [NotHeld("", f"more than {MAX_ITEMS} bundles in one file: split it")]
    return found


def integrated_time(entry: Mapping[str, Any]) -> datetime | None:
    """The log's claimed time of accepting the entry. SPEC protobuf JSON: 64-bit integers are text; 0 means no time."""
    try:
        seconds = int(entry.get("integratedTime") or 0)
        return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def decoded(value: Any, what: str) -> bytes:
    """Bytes of strict base64. Raises `NoBundle`."""
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise NoBundle(f"{what} is missing, or not base64") from error


def _documents(raw: bytes) -> list[Any]:
    """Split JSON documents that follow each other, one a line or not. Raises `ValueError` where there is none."""
    encoding = next((name for bom, name in _BOMS if raw.startswith(bom)), "utf-8")
    try:
        text = raw.decode(encoding).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise NoBundle("not a JSON document: it is not text") from error
    if not text.strip():
        raise NoBundle("an empty file")
    decoder = json.JSONDecoder(object_pairs_hook=unique, parse_constant=no_number)
    found: list[Any] = []
    damaged = 0
    start = _START.search(text)
    at: int | None = start.start() if start is not None else None
    while at is not None:
        if len(found) > MAX_ITEMS:
            raise NoBundle(f"more than {MAX_ITEMS} documents in one file: split it")
        if damaged * len(text) > _MOST_COUNTED:
            raise NoBundle(f"{damaged} damaged documents, and more to come: mend the file, or split it")
        try:
            document, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            damaged += 1
            if not (found and isinstance(found[-1], NotHeld)):
                reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                found.append(NotHeld(f"line {text.count(_NEWLINE, 0, at) + 1}", f"not a JSON document: {reason:.200}"))
            # Damage is reported once; reading continues at the next line that begins a document.
            at = match.end() - 1 if (match := _NEXT_LINE.search(text, at)) else None
            continue
        found.append(document)
        at = match.start() if (match := _START.search(text, end)) else None
    return found


def _bundles(value: Any, place: str, depth: int) -> Iterator[HeldBundle | NotHeld]:
    if depth > _MAX_DEPTH:
        yield NotHeld(place, "nested too deeply")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _bundles(each, f"{place}[{number}]", depth + 1)
        if not value:
            yield NotHeld(place, "an empty list: it holds no bundle")
    elif not isinstance(value, dict):
        yield NotHeld(place, f"JSON, but not {_KNOWN}")
    elif (inner := _inside(value, place)) is not None:
        for where, each in inner:
            yield from _bundles(each, where, depth + 1)
    else:
        try:
            form, document = _one(value)
            held = HeldBundle(form, place, document)
            _ = held.entries
            yield held
        except NoBundle as error:
            yield NotHeld(place, str(error))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            yield NotHeld(place, f"a field is missing or of another kind ({type(error).__name__}: {error!s:.80})")


def _inside(value: Mapping[str, Any], place: str) -> list[tuple[str, Any]] | None:
    """Bundles inside the wrapper of an API or a tool; `None` for a document that is no wrapper."""
    if isinstance(value.get("attestation_bundles"), list):
        # SPEC PEP 740: a provenance object has the attestations of each publisher.
        return [
            (f"{place}.attestation_bundles[{number}]", each) for number, each in enumerate(value["attestation_bundles"])
        ]
    if isinstance(value.get("attestations"), list):
        # npm: {"attestations": [{"predicateType", "bundle"}]}; GitHub: {"attestations": [{"bundle", "repository_id"}]}.
        return [(f"{place}.attestations[{number}]", each) for number, each in enumerate(value["attestations"])]
    for name in ("bundle", "attestation"):
        # GitHub's API; `gh attestation verify --format json` puts it into an "attestation" beside its own verdict.
        if isinstance(value.get(name), dict) and not _is_bundle(value):
            return [(f"{place}.{name}", value[name])]
    optional = value.get("optional")
    if isinstance(optional, dict) and isinstance(optional.get("Bundle"), dict):
        return [(f"{place}.optional.Bundle", optional["Bundle"])]  # `cosign verify`
    return None


def _one(value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    for recognised, read in _FORMS:
        if recognised(value):
            return read(value)
    raise NoBundle(_unknown(value))


def _unknown(value: Mapping[str, Any]) -> str:
    if not value:
        return "an empty JSON object: it holds no bundle"
    if value.get("bundle_url") and "bundle" in value:
        return "only the bundle's address is in the answer (`bundle_url`): fetch it, or use `gh attestation download`"
    if "payloadType" in value and "signatures" in value:
        return "a bare DSSE envelope: without certificate, log entry or timestamp there is nothing to check"
    if "LogIndex" in value and "Body" in value:
        return "rekor-cli's own print-out, which lacks the entry's bytes: take the server's answer or the bundle"
    if "message" in value and ("documentation_url" in value or "code" in value):
        return "an error that a server answered with, not a bundle"
    return f"JSON, but not {_KNOWN}"


def _is_bundle(value: Mapping[str, Any]) -> bool:
    return "verificationMaterial" in value or "verification_material" in value


def _is_attestation(value: Mapping[str, Any]) -> bool:
    envelope = value.get("envelope")
    return "verification_material" in value and isinstance(envelope, dict) and "statement" in envelope


def _read_attestation(value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """SPEC PEP 740: certificate in base64, log entries as in a bundle, and an in-toto statement with one signature."""
    material, envelope = value["verification_material"], value["envelope"]
    document = {
        "mediaType": BUNDLE_0_3,
        "verificationMaterial": {
            "certificate": {"rawBytes": material["certificate"]},
            "tlogEntries": material.get("transparency_entries") or [],
        },
        "dsseEnvelope": {
            "payload": envelope["statement"],
            "payloadType": _IN_TOTO,
            "signatures": [{"sig": envelope["signature"]}],
        },
    }
    return "PyPI attestation (PEP 740)", canonical(document)


def _read_standard(value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    document = canonical(value)
    material = document.get("verificationMaterial")
    if not isinstance(material, dict):
        raise NoBundle("a bundle without verification material")
    return "Sigstore bundle", document


def _is_entry(value: Mapping[str, Any]) -> bool:
    return any(name in value for name in ("canonicalizedBody", "canonicalized_body", "tlogEntries", "tlogEntry"))


def _read_entry(value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    entry = canonical(value)
    return "log entry", _bundle_of(entry.get("tlogEntries", [entry.get("tlogEntry", entry)]))


def _is_cosign(value: Mapping[str, Any]) -> bool:
    return "rekorBundle" in value or ("Base64Signature" in value and "Bundle" in value)


def _read_cosign(value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """`cosign sign-blob --bundle` before version 3, and `cosign download signature`."""
    if "rekorBundle" in value:
        logged, signature = value["rekorBundle"], value.get("base64Signature") or ""
        certificate = value.get("cert") or ""
        is_pem = certificate.startswith("-----BEGIN")
        chain = _pem_certificates(certificate.encode() if is_pem else decoded(certificate, "its certificate"))
    else:
        logged, signature = value["Bundle"], value["Base64Signature"]
        certificates = [value.get("Cert"), *(value.get("Chain") or [])]
        chain = [decoded(each["Raw"], "a certificate") for each in certificates if each]
    entries = [_promised(logged)] if logged else []
    document: dict[str, Any] = {"mediaType": BUNDLE_0_1, **_bundle_of(entries)}
    material = document["verificationMaterial"]
    if chain:
        material["x509CertificateChain"] = {"certificates": [{"rawBytes": _b64(each)} for each in chain]}
    stamp = value.get("RFC3161Timestamp")
    if stamp:
        stamped = {"signedTimestamp": stamp["SignedRFC3161Timestamp"]}
        material["timestampVerificationData"] = {"rfc3161Timestamps": [stamped]}
    document.update(_content(decoded(signature, "its signature"), entries))
    return "cosign bundle", document


def _content(signature: bytes, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The signed content: of an attestation cosign keeps the envelope where the signature of a file would be."""
    if signature.lstrip()[:1] == b"{":
        return {"dsseEnvelope": canonical(json.loads(signature))}
    message: dict[str, Any] = {"signature": _b64(signature)}
    spec = json.loads(decoded(entries[0]["canonicalizedBody"], "the entry"))["spec"] if entries else {}
    hashed = (spec.get("data") or {}).get("hash") or {}
    if hashed.get("algorithm") == "sha256":
        message["messageDigest"] = {"algorithm": "SHA2_256", "digest": _b64(bytes.fromhex(hashed["value"]))}
    return {"messageSignature": message}


def _is_promise(value: Mapping[str, Any]) -> bool:
    return "SignedEntryTimestamp" in value and "Payload" in value


def _read_promise(value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return "cosign's signed entry timestamp", _bundle_of([_promised(value)])


def _promised(value: Mapping[str, Any]) -> dict[str, Any]:
    """SPEC cosign's RekorBundle: the signed entry timestamp and the four fields it is over."""
    payload = value["Payload"]
    return _v1_entry(payload, {"signedEntryTimestamp": value["SignedEntryTimestamp"]})


def _is_logged(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("body"), str) and "logIndex" in value


def _is_answer(value: Mapping[str, Any]) -> bool:
    return _is_logged(value) or (bool(value) and all(_is_logged(each) for each in value.values()))


def _read_answer(value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """SPEC rekor openapi.yaml LogEntry: a mapping of entry UUIDs, or what stands under one."""
    found = [value] if _is_logged(value) else list(value.values())
    return "answer of Rekor", _bundle_of([_v1_entry(each, each.get("verification") or {}) for each in found])


def _v1_entry(told: Mapping[str, Any], verification: Mapping[str, Any]) -> dict[str, Any]:
    """A TransparencyLogEntry from Rekor v1's fields, where hashes are hexadecimal and numbers are not text."""
    body = decoded(told["body"], "the entry's body")
    entry: dict[str, Any] = {
        "logIndex": str(told["logIndex"]),
        "logId": {"keyId": _b64(bytes.fromhex(told.get("logID") or ""))},
        "kindVersion": _kind_version(body),
        "integratedTime": str(told.get("integratedTime") or 0),
        "canonicalizedBody": _b64(body),
    }
    if promise := verification.get("signedEntryTimestamp"):
        entry["inclusionPromise"] = {"signedEntryTimestamp": promise}
    if proof := verification.get("inclusionProof"):
        entry["inclusionProof"] = {
            "logIndex": str(proof["logIndex"]),
            "treeSize": str(proof["treeSize"]),
            "rootHash": _b64(bytes.fromhex(proof["rootHash"])),
            "hashes": [_b64(bytes.fromhex(each)) for each in proof.get("hashes") or []],
            "checkpoint": {"envelope": proof.get("checkpoint") or ""},
        }
    return entry


def _is_body(value: Mapping[str, Any]) -> bool:
    return {"kind", "apiVersion", "spec"} <= set(value)


def _read_body(value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    # The file may be pretty-printed. Its content can be read, but not its place in the log.
    body = json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
    return "entry body", _bundle_of([{"kindVersion": _kind_version(body), "canonicalizedBody": _b64(body)}])


_FORMS: Final[
    tuple[tuple[Callable[[Mapping[str, Any]], bool], Callable[[Mapping[str, Any]], tuple[str, Mapping[str, Any]]]], ...]
] = (
    (_is_attestation, _read_attestation),
    (_is_bundle, _read_standard),
    (_is_entry, _read_entry),
    (_is_cosign, _read_cosign),
    (_is_promise, _read_promise),
    (_is_body, _read_body),
    (_is_answer, _read_answer),
)


def _bundle_of(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"verificationMaterial": {"tlogEntries": entries}}


def _kind_version(body: bytes) -> dict[str, str]:
    """Kind and version that a body names; without them, its decoder reports the defect."""
    try:
        told = json.loads(body)
        return {"kind": str(told["kind"]), "version": str(told["apiVersion"])}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {"kind": "", "version": ""}


def _pem_certificates(pem: bytes) -> list[bytes]:
    """Certificates of a PEM text; none where it holds a bare public key, as of `cosign sign-blob --key`."""
    if not pem:
        return []
    try:
        return [block.content for block in blocks(pem, "its certificate") if block.label == "CERTIFICATE"]
    except MalformedText as error:
        raise NoBundle(str(error)) from error


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()

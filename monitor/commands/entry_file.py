"""Signings from the files people have: certificates, entry bodies, what a Rekor server answered, Sigstore bundles."""

import json
from base64 import b64decode
from binascii import Error
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import typer

from sigstore_entries.certificate import read_certificate
from sigstore_entries.der import MalformedDer
from sigstore_entries.pem import MalformedText, blocks
from sigstore_entries.rekor import decode_rekor
from sigstore_entries.signing import EntryRef, Signing, Unreadable

MAX_FILE: Final = 16 * 1024 * 1024
MAX_ENTRIES: Final = 100


def signings_in(file: Path) -> list[Signing]:
    """Every signing a file tells of, numbered from 0. Raises `typer.BadParameter`; nothing in the file is verified."""
    raw = read_capped(file)
    if raw.lstrip().startswith(b"-----BEGIN"):
        return [_certificate(raw, file)]
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _bad(file, f"neither a certificate in PEM nor JSON: {error}") from error
    found = []
    for number, (body, integrated) in enumerate(_bodies(document, file)):
        decoded = decode_rekor(body, EntryRef("file", number), integrated)
        if isinstance(decoded, Unreadable):
            raise _bad(file, f"not a Rekor entry: {decoded.reason}")
        found.append(decoded)
    if not found:
        raise _bad(file, "a bundle without an entry of a transparency log: there is nothing that a rule could select")
    return found


def read_capped(file: Path) -> bytes:
    """A file's bytes. Raises `typer.BadParameter` when it cannot be read or is larger than `MAX_FILE`."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_FILE + 1)
    except OSError as error:
        raise _bad(file, f"cannot be read: {error.strerror}") from error
    if len(raw) > MAX_FILE:
        raise _bad(file, f"larger than {MAX_FILE // 2**20} MiB")
    return raw


def _certificate(raw: bytes, file: Path) -> Signing:
    try:
        first, *chain = (block.content for block in blocks(raw, str(file)) if block.label == "CERTIFICATE")
        return Signing(EntryRef("file", 0), "certificate", "", (read_certificate(first, tuple(chain)),))
    except (MalformedText, MalformedDer, ValueError) as error:
        raise _bad(file, f"not a certificate in PEM: {error}") from error


def _bodies(document: Any, file: Path) -> Iterator[tuple[bytes, datetime | None]]:
    """Entry bodies with the times the log claims: of a bundle, of a Rekor server's answer, or the document itself."""
    if not isinstance(document, dict):
        raise _bad(file, "JSON, but neither a Rekor entry nor a bundle")
    material = document.get("verificationMaterial")
    if isinstance(material, dict):
        entries, field = material.get("tlogEntries"), "canonicalizedBody"
        entries = entries if isinstance(entries, list) else []
    elif "canonicalizedBody" in document:
        entries, field = [document], "canonicalizedBody"
    elif document and all(isinstance(each, dict) and "body" in each for each in document.values()):
        # SPEC rekor openapi.yaml LogEntry: a mapping of entry UUIDs.
        entries, field = list(document.values()), "body"
    else:
        # Somebody may have pretty-printed it: rules look at what it says, not at how it is hashed.
        yield json.dumps(document, separators=(",", ":"), sort_keys=True).encode(), None
        return
    if len(entries) > MAX_ENTRIES:
        raise _bad(file, f"{len(entries)} entries; at most {MAX_ENTRIES} are looked at")
    for entry in entries:
        if not isinstance(entry, dict):
            raise _bad(file, "an entry in it is not an object")
        yield _decoded(entry, field, file), _integrated(entry)


def _decoded(entry: Mapping[str, Any], field: str, file: Path) -> bytes:
    try:
        return b64decode(entry[field], validate=True)
    except (KeyError, TypeError, ValueError, Error) as error:
        raise _bad(file, f"an entry in it has no {field} in base64") from error


def _integrated(entry: Mapping[str, Any]) -> datetime | None:
    """SPEC protobuf JSON: 64-bit integers are text; 0 means that the log claims no time."""
    try:
        seconds = int(entry.get("integratedTime") or 0)
        return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _bad(file: Path, why: str) -> typer.BadParameter:
    return typer.BadParameter(f"{file}: {why}", param_hint="FILE")

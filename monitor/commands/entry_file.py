"""Files that commands read: bundles in every form, log entries, certificates; by name, folder, pattern, or `-`."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import typer

from alerts.alert import counted
from alerts.inert import inert_line
from command_line import named_files
from command_line.named_files import STANDARD_INPUT
from monitor.commands.terminal import note
from sigstore_entries.body import MalformedText, blocks
from sigstore_entries.bundle_file import HeldBundle, NoBundle, NotHeld, decoded, integrated_time, read_bundle_file
from sigstore_entries.certificate import read_certificate
from sigstore_entries.der import MalformedDer
from sigstore_entries.entry import decode_rekor
from sigstore_entries.signing import EntryRef, SignerForm, Signing, Unreadable

MAX_FILE: Final = 32 * 1024 * 1024
MAX_ENTRIES: Final = 1_000
_SHOWN: Final = 400


def files_named(names: Iterable[Path]) -> Iterator[Path]:
    """Files that arguments stand for (`command_line.named_files`). Raises `typer.BadParameter`."""
    return named_files.files_named(
        names, lambda folder, count: note(f"{folder}: not looked at: {counted(count, 'other file')}", "yellow")
    )


def signings_in(file: Path) -> list[Signing]:
    """Every signing in a file, numbered from 0, without verification. Raises `typer.BadParameter`.

    A bundle without a log entry stands for its certificate.
    """
    raw = read_capped(file)
    if raw.lstrip().startswith(b"-----BEGIN"):
        return [_certificate(raw, file)]
    found: list[Signing] = []
    for held in read_bundle_file(raw):
        if isinstance(held, NotHeld):
            raise _bad(file, f"{held.place}: {held.why}" if held.place else held.why)
        try:
            found += _signings(held, len(found))
        except (NoBundle, MalformedDer, ValueError) as error:
            raise _bad(file, f"{held.place}: {error}" if held.place else str(error)) from error
        if len(found) > MAX_ENTRIES:
            raise _bad(file, f"more than {MAX_ENTRIES} entries: split it")
    return found


def _signings(held: HeldBundle, first: int) -> Iterator[Signing]:
    """Entries of one bundle. Raises `NoBundle`, `ValueError`."""
    for number, entry in enumerate(held.entries, first):
        body = decoded(entry.get("canonicalizedBody"), "the body of a log entry")
        signing = decode_rekor(body, EntryRef("file", number), integrated_time(entry))
        if isinstance(signing, Unreadable):
            raise NoBundle(f"not a Rekor entry: {signing.reason}")
        yield signing
    if not held.entries:
        if not held.certificates:
            raise NoBundle("a bundle with neither a log entry nor a certificate: a rule can select nothing of it")
        leaf, *chain = held.certificates
        yield Signing(
            EntryRef("file", first), SignerForm.CERTIFICATE.value, "", (read_certificate(leaf, tuple(chain)),)
        )


def read_capped(file: Path) -> bytes:
    """Bytes of a file, or of standard input for `-`.

    Raises `typer.BadParameter` when it cannot be read or is larger than `MAX_FILE`.
    """
    try:
        if file == STANDARD_INPUT:
            raw = _capped(sys.stdin.buffer)
        else:
            with file.open("rb") as opened:
                raw = _capped(opened)
    except OSError as error:
        raise _bad(file, f"cannot be read: {error.strerror}") from error
    if len(raw) > MAX_FILE:
        raise _bad(file, f"larger than {MAX_FILE // 2**20} MiB")
    return raw


def _capped(opened: BinaryIO) -> bytes:
    return opened.read(MAX_FILE + 1)


def _certificate(raw: bytes, file: Path) -> Signing:
    try:
        first, *chain = (block.content for block in blocks(raw, str(file)) if block.label == "CERTIFICATE")
        return Signing(EntryRef("file", 0), SignerForm.CERTIFICATE.value, "", (read_certificate(first, tuple(chain)),))
    except (MalformedText, MalformedDer, ValueError) as error:
        raise _bad(file, f"not a certificate in PEM: {error}") from error


def _bad(file: Path, why: str) -> typer.BadParameter:
    return typer.BadParameter(f"{file}: {inert_line(why, _SHOWN)}", param_hint="FILE")

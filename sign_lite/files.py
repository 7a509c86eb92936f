"""Reading files to sign and writing bundles."""

import hashlib
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import typer
from msgspec import Struct, field
from sigstore.hashes import Hashed
from sigstore_models.common.v1 import HashAlgorithm

from command_line.named_files import STANDARD_INPUT, files_named
from sign_lite.errors import Misuse
from sigstore_entries.client_keys import HASHES

BUNDLE_SUFFIX: Final = ".sigstore.json"
ATTESTATION_SUFFIX: Final = ".attestation.sigstore.json"
SMALL_LIMIT: Final = 16 * 1024 * 1024  # bundles, trust files, predicates
_DIGEST: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")
_CHUNK: Final = 1024 * 1024


class Artifact(Struct, frozen=True):
    """Digests of one file: `others` are digests by further hashes, by the name of the hash."""

    sha256: bytes
    others: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def hashed(self) -> Hashed:
        """The SHA-256 in the type of the `sigstore` package."""
        return Hashed(algorithm=HashAlgorithm.SHA2_256, digest=self.sha256)

    def digest(self, name: str) -> bytes | None:
        """Digest by the hash of this name; `None` if it was not computed."""
        return self.sha256 if name == "sha256" else self.others.get(name)


def hash_file(path: Path, *, more: bool) -> Artifact:
    """SHA-256 of a file of any size, read once in pieces; SHA-384 and SHA-512 too with `more`. Raises `Misuse`."""
    digests = {name: hashlib.new(name) for name in (HASHES if more else ("sha256",))}
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                for each in digests.values():
                    each.update(chunk)
    except OSError as error:
        raise Misuse(f"{path}: cannot be read: {error.strerror}") from error
    found = {name: each.digest() for name, each in digests.items()}
    return Artifact(found.pop("sha256"), found)


def hash_named(name: Path) -> Artifact:
    """Digests of a file, or the digest in `sha256:HEX` if no file has that name. Raises `Misuse`."""
    if not is_digest(name):
        return hash_file(name, more=True)
    return Artifact(bytes.fromhex(str(name).partition(":")[2]))


def is_digest(name: Path) -> bool:
    """True if `hash_named` reads the argument as a digest."""
    return _DIGEST.fullmatch(str(name)) is not None and not name.exists()


def read_small(path: Path, what: str) -> bytes:
    """Content of a file that must be small. Raises `Misuse`."""
    try:
        with path.open("rb") as file:
            content = file.read(SMALL_LIMIT + 1)
    except OSError as error:
        raise Misuse(f"{path}: the {what} cannot be read: {error.strerror}") from error
    if len(content) > SMALL_LIMIT:
        raise Misuse(f"{path}: larger than {SMALL_LIMIT} bytes, so not a {what}")
    return content


def bundles_named(name: Path) -> Iterator[tuple[Path, bytes]]:
    """Path and content of each file that `--bundle` names: a file, a folder, a pattern, or `-` for standard input.

    Raises `Misuse`, `typer.BadParameter`.
    """
    for file in files_named([name], _tell_passed_over):
        if file != STANDARD_INPUT:
            yield file, read_small(file, "bundle")
            continue
        content = sys.stdin.buffer.read(SMALL_LIMIT + 1)
        if len(content) > SMALL_LIMIT:
            raise Misuse(f"standard input: larger than {SMALL_LIMIT} bytes, so not a bundle")
        yield file, content


def _tell_passed_over(folder: Path, count: int) -> None:
    typer.echo(f"{folder}: not looked at, for they are not named like a bundle: {count}", err=True)


def default_bundle(file: Path, suffix: str = BUNDLE_SUFFIX) -> Path:
    """Default path of a file's bundle: beside the file."""
    return file.with_name(file.name + suffix)


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Raise `Misuse` before signing if the bundle cannot be written: a log entry cannot be removed."""
    if path.exists() and not overwrite:
        raise Misuse(f"{path}: exists already; give --overwrite or another --bundle")
    if not os.access(path.parent, os.W_OK):
        raise Misuse(f"{path.parent}: cannot be written to")


def write_bundle(path: Path, content: str) -> None:
    """Write a bundle atomically. Raises `Misuse`."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise Misuse(f"{path}: cannot be written: {error.strerror}") from error

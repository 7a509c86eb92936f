"""PEM blocks as Rekor writes them (RFC 7468 strict textual encoding) and strict base64."""

import re
from typing import Final, NamedTuple

import pybase64

MAX_BLOCKS: Final = 10  # Rekor takes at most ten certificates (its pkg/pki/x509)
_BEGIN: Final = b"-----BEGIN "
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----\r?\n([A-Za-z0-9+/=\r\n]*)-----END ([A-Z0-9 ]{1,40})-----\s*")


class MalformedText(ValueError):
    """Text that should be base64 or PEM is not."""


class Block(NamedTuple):
    """One PEM block: its label and the bytes in it."""

    label: str
    content: bytes


def from_base64(text: str | bytes, what: str) -> bytes:
    """Decode standard padded base64, nothing else in between. Raises `MalformedText`."""
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error, and str that is not ASCII
        raise MalformedText(f"{what} is not base64") from error


def blocks(text: bytes, what: str) -> list[Block]:
    """All PEM blocks of `text`, one to ten of them, with nothing but white space between. Raises `MalformedText`."""
    if text.count(_BEGIN) > MAX_BLOCKS:
        raise MalformedText(f"{what} has more than {MAX_BLOCKS} PEM blocks")
    found = []
    at = len(text) - len(text.lstrip())
    while at < len(text):
        match = _BLOCK.match(text, at)
        if match is None or match[1] != match[3]:
            raise MalformedText(f"{what} is not PEM")
        content = from_base64(match[2].translate(None, b"\r\n"), f"the PEM block in {what}")
        found.append(Block(match[1].decode("ascii"), content))
        at = match.end()
    if not found:
        raise MalformedText(f"{what} holds no PEM block")
    return found

"""What an entry that cannot be decoded still shows: its declared kind, and texts in it that look like identities.

For people who have to decide whether it concerns them. It decides nothing: rules never see it.
"""

import re
from binascii import Error, a2b_base64
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

MAX_NAMES: Final = 5
_MAX_NAME: Final = 120
# Every repeat is bounded, so the search takes linear time for any bytes.
_KIND: Final = re.compile(rb'"kind"\s{0,8}:\s{0,8}"([A-Za-z0-9_.-]{1,40})"')
_NAME: Final = re.compile(rb"https?://[\x21-\x7e]{4,400}|[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,200}\.[A-Za-z]{2,24}")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")
_NESTED: Final = 2  # a body holds base64 of PEM, which holds base64 of a certificate
_ENDS: Final = re.compile(rb"[\"'<>\\]")


def readable_part(leaf: bytes) -> str:
    """Return one inert line about an entry's bytes; names come in the order they stand, each once, cut to a few."""
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

"""What each kind's decoder returns, and the parts all kinds share."""

from typing import Final, NamedTuple

from sigstore_entries.body import Fields, MalformedBody, shown
from sigstore_entries.signing import Digest, EntryRef, KnownTime, Signer, Unreadable

_HEX_SIZES: Final = {"sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}


class Decoded(NamedTuple):
    """Signers, digests and times that the body itself tells."""

    signers: tuple[Signer, ...]
    digests: tuple[Digest, ...] = ()
    times: tuple[KnownTime, ...] = ()


def hex_digest(fields: Fields, of: str = "artifact") -> Digest:
    """Read `{"algorithm": …, "value": <hex>}`. Raises `MalformedBody`."""
    algorithm, value = fields.text("algorithm").lower(), fields.text("value").lower()
    if len(value) != _HEX_SIZES.get(algorithm) or set(value) - set("0123456789abcdef"):
        raise MalformedBody(f"not a {shown(algorithm)} digest: {shown(value)}")
    return Digest(algorithm, value, of)


def failed(where: EntryRef, error: BaseException) -> Unreadable:
    """Turn an unforeseen exception into a value: no entry may stop a monitor from reading the next one.

    Raises `error` again when it is none of the entry's doing: interrupts, exit, memory.
    """
    # A panic in a Rust library arrives as a BaseException of this name; it is the entry's doing like any other.
    if isinstance(error, MemoryError) or not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
        raise error
    return Unreadable(where, "decoder-failed", f"{type(error).__name__}: {ascii(str(error))[:200]}")

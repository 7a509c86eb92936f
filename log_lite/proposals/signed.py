"""Shared by the four signature formats of a rekord."""

from msgspec import Struct


class VerifiedSignature(Struct, frozen=True):
    """A verified signature and its key, both in the form that the log stores, and the names in the key."""

    signature: bytes
    public_key: bytes
    subjects: tuple[str, ...] = ()

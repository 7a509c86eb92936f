"""Shared by the four signature formats of a rekord."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VerifiedSignature:
    """A verified signature and its key, both in the form that the log stores, and the names in the key."""

    signature: bytes
    public_key: bytes
    subjects: tuple[str, ...] = ()

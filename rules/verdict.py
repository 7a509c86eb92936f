"""The judgement on one signing under one rule."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Expected, unexpected, or unverified: the certificate does not chain to a trusted authority.

    Anyone can log a self-made certificate with any name in it, so `unverified` is counted and digested, not paged.
    """

    EXPECTED = "expected"
    UNEXPECTED = "unexpected"
    UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a signing was not as expected. `id` names the page `docs/expectations/<id>.md`."""

    id: str
    sentence: str
    expected: str = ""
    found: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says of a signing, with every reason, not only the first."""

    outcome: Outcome
    reasons: tuple[Reason, ...] = ()

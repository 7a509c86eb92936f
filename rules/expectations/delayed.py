"""Expectations that the certificate log and the signature logs agree, some time after an entry was seen."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from rules.rule import Case, Check

_FOUND: Final = {True: "seen", False: "not seen", None: "(those logs were not followed)"}


def due_at(within: timedelta, case: Case) -> datetime:
    """When something that follows a signing within some time must have happened."""
    return (case.signed_at or case.now) + within


def check_seen(label: str, within: timedelta, seen: bool | None, sentence: str) -> Iterator[Check]:
    """Whether the other log showed it; not knowing counts as no."""
    yield Check(label, f"within {within}", _FOUND[seen], seen is True, sentence)

"""The search form of the public pages, its answer, and the source of answers: no archive is imported here."""

from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from monitor.archive.answer import ArchiveRow, SearchAnswer  # imports pyarrow


class SearchForm(Struct, frozen=True):
    """A search form as a person filled it. `every` includes signers without a certificate of a trusted authority."""

    name: str = ""
    issuer: str = ""
    since: str = ""
    until: str = ""
    every: bool = False

    @property
    def is_narrowed(self) -> bool:
        """True if the form asks for more than the signings in one name."""
        return "*" in self.name or bool(self.issuer or self.since or self.until or self.every)

    def values(self) -> dict[str, str]:
        """The filled fields, as the parameters of a link."""
        found = {"name": self.name, "issuer": self.issuer, "since": self.since, "until": self.until}
        return {field: text for field, text in found.items() if text} | ({"every": "1"} if self.every else {})


class MalformedSearchForm(ValueError):
    """Fields of the form that cannot be read, each with a sentence. `repair` is the likely name, or empty."""

    def __init__(self, wrong: dict[str, str], repair: str = "") -> None:
        super().__init__("; ".join(wrong.values()))
        self.wrong, self.repair = wrong, repair


class SearchHit(Struct, frozen=True):
    """One entry of an answer: who signed, how far the certificate is trusted, and a name under which it is found.

    `chain` is `trusted`, `key`, `untrusted` or `unverified`.
    """

    row: "ArchiveRow"
    chain: str
    who: str
    details: tuple[str, ...]
    subject: str


class SearchResult(Struct, frozen=True):
    """An answer. `unvouched` entries match apart from their signer, who has no certificate of a trusted authority.

    `is_lower_bound` is true if a part of the archive was not searched, so that there may be more entries.

    The entries were signed from `since` on and before `until`, where these are given.

    `read` has for each log its id, a sentence, and whether entries of it were not searched; `lacks` are sentences about
    parts that were not searched.
    """

    title: str
    answer: "SearchAnswer"
    unvouched: int
    is_lower_bound: bool
    hits: tuple[SearchHit, ...]
    read: tuple[tuple[str, str, bool], ...]
    lacks: tuple[str, ...]
    since: datetime | None = None
    until: datetime | None = None


class FormSearch(Protocol):
    """Answers search forms."""

    def __call__(self, asked: SearchForm, limit: int) -> SearchResult:
        """The newest `limit` entries that match, and their number.

        Raises `MalformedSearchForm`, `RequestRefused`, `OwnFault`.
        """

"""Facts that a judgement may ask about, and lists of allowed digests. The monitor answers from its database.

A list is what `sha256sum` writes, or one digest a line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from addresses.url import shown_url
from rules.acknowledged import SignerPattern
from rules.selection import normal_digest
from sigstore_entries.signing import EntryRef


class SourceForm(StrEnum):
    """Source of a list of allowed digests."""

    FILE = "file"
    URL = "url"
    URL_FILE = "url_file"
    REGISTRY = "registry"


@dataclass(frozen=True, slots=True)
class DigestSource:
    """A list of digests kept outside the rule file. `target` is a path, a URL or a repository of images.

    A `url_file` is the path of a file with the URL in it: one that holds a secret. A `registry` is a repository such as
    `ghcr.io/acme/widget`: on the list is what the logs show of a signature of each tagged image.
    """

    form: SourceForm
    target: str

    def __str__(self) -> str:
        if self.form is SourceForm.URL:
            return f"{self.form}: {shown_url(self.target)}"
        return f"{self.form}: {self.target}"


@dataclass(frozen=True, slots=True)
class Authorisation:
    """Permission to sign one digest `count` times until `expires`. `digest` is `sha256:…`.

    One signature of a thing may be logged under any of several digests (`sigstore_entries.release`): `together` holds
    them all, `digest` among them, and their signings are counted as one. `what` names the thing for people.
    """

    digest: str
    count: int
    expires: datetime
    note: str = ""
    what: str = ""
    together: tuple[str, ...] = ()

    @property
    def digests(self) -> tuple[str, ...]:
        """Every digest it is leave for."""
        return self.together or (self.digest,)


class Past(Protocol):
    """Facts from earlier entries. Answers never include the entry being judged, and never wait on a network.

    Only signers that the rule selected and with a trusted certificate or a named key
    (`rules.selection.Selected.vouched`) count as the past.
    """

    def times_signed(self, rule: str, digest: str, besides: EntryRef) -> int:
        """Number of other entries under this rule that carried this digest, in any log."""

    def issuers_of(self, rule: str, identity: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        """Every issuer this very identity was seen under by this rule; empty when never seen, `None` when not kept.

        Sightings that were unexpected are left out until an operator acknowledges their alert, and so are those of the
        certificates in `besides` (`Signer.issued`), in whichever log they were seen.
        """

    def repository_identifiers_of(self, rule: str, repository: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        """Every source repository identifier seen with this repository URI; otherwise as `issuers_of`."""

    def signings(self, rule: str, after: datetime, up_to: datetime, besides: EntryRef) -> int:
        """Number of signings under this rule in `(after, up_to]`, by the time judged, entries of CT left out."""

    def absent_at(self, where: EntryRef) -> datetime | None:
        """When the log was last read to its end without holding this entry; `None` when not known."""


class Leave(Protocol):
    """Facts about signings that people authorised."""

    def authorisations(self, rule: str, digest: str) -> Sequence[Authorisation]:
        """Every authorisation recorded for this rule and digest, expired and used up ones included."""

    def patterns(self, rule: str) -> Sequence[SignerPattern]:
        """Patterns acknowledged for this rule that were not revoked, oldest first."""


class Known(Protocol):
    """Facts from elsewhere than the log being read. Never waits on a network."""

    def digests_from(self, source: DigestSource) -> frozenset[str] | None:
        """The source's digests, each `sha256:…`, as last fetched within its age limit; `None` when there are none."""

    def in_certificate_log(self, certificate: bytes | None) -> bool | None:
        """Whether a CT log showed this trusted certificate (`Signer.issued`) as a signer that some rule selected.

        `None` when the CT logs were not followed over the time in question, so that absence says nothing, and for an
        unknown certificate.
        """

    def in_signature_log(self, certificate: bytes | None) -> bool | None:
        """Whether a Rekor log showed an entry signed with this very certificate; otherwise as above."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts for a judgement. An unknown fact is `None`, and an expectation that depends on it fails closed."""

    past: Past
    leave: Leave
    known: Known


MAX_DIGESTS: Final = 1_000_000
MAX_SIZE: Final = 128 * 1024 * 1024


def parse_digest_list(text: str) -> frozenset[str]:
    """Digests as `sha256:…`. Empty lines and lines starting with `#` are skipped; a text behind a digest is a name.

    Raises `ValueError` naming the line: a list that is half read allows half of its digests.
    """
    if len(text) > MAX_SIZE:
        raise ValueError(f"the list of digests is larger than {MAX_SIZE // 2**20} MiB")
    found: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        try:
            # sha256sum puts a backslash before the digest of a file whose name it had to escape.
            found.add(normal_digest(words[0].removeprefix("\\")))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if len(found) > MAX_DIGESTS:
            raise ValueError(f"more than {MAX_DIGESTS} digests")
    return frozenset(found)

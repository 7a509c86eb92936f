"""Facts that a judgement may ask for, and lists of allowed digests. The monitor answers from its database.

A list has the format of `sha256sum`, or one digest a line.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from msgspec import Struct

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


class DigestSource(Struct, frozen=True):
    """A list of digests outside the rule file. `target` is a path, a URL or a repository of images.

    A `url_file` is the path of a file with the URL in it, for a URL that holds a secret. A `registry` is a
    repository such as `ghcr.io/acme/widget`: its list holds the digests under which logs show a signature of each
    tagged image.
    """

    form: SourceForm
    target: str

    def __str__(self) -> str:
        if self.form is SourceForm.URL:
            return f"{self.form}: {shown_url(self.target)}"
        return f"{self.form}: {self.target}"


class Authorisation(Struct, frozen=True):
    """Permission to sign one digest `count` times until `expires`. `digest` is `sha256:…`.

    One signature of an artifact may be logged under any of several digests (`sigstore_entries.release`): `together`
    holds all of them, including `digest`, and their signings are counted together. `what` names the artifact for
    people.
    """

    digest: str
    count: int
    expires: datetime
    note: str = ""
    what: str = ""
    together: tuple[str, ...] = ()

    @property
    def digests(self) -> tuple[str, ...]:
        """Every digest that it allows."""
        return self.together or (self.digest,)


class PastFacts(Protocol):
    """Facts from earlier entries. Answers exclude the entry being judged, and need no network.

    Only signers that the rule selected and with a trusted certificate or a named key
    (`rules.selection.Selected.vouched`) count as the past.
    """

    def times_signed(self, rule: str, digest: str, besides: EntryRef) -> int:
        """Number of other entries under this rule that carried this digest, in any log."""

    def issuers_of(self, rule: str, identity: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        """Every issuer of this identity in findings of the rule; empty without a finding, `None` when unknown.

        Unexpected findings are left out until an operator acknowledges their alert. Findings of the certificates in
        `besides` (`Signer.issued`) are left out too, in all logs.
        """

    def repository_identifiers_of(self, rule: str, repository: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        """Every source repository identifier seen with this repository URI; otherwise as `issuers_of`."""

    def signings(self, rule: str, after: datetime, up_to: datetime, besides: EntryRef) -> int:
        """Number of signings under this rule in `(after, up_to]`, by time of signing, without CT logs."""

    def absent_at(self, where: EntryRef) -> datetime | None:
        """When the log was last read to its end without holding this entry; `None` when not known."""


class AuthorisationFacts(Protocol):
    """Facts about signings that people authorised."""

    def authorisations(self, rule: str, digest: str) -> Sequence[Authorisation]:
        """Every recorded authorisation for this rule and digest, including expired and used up ones."""

    def patterns(self, rule: str) -> Sequence[SignerPattern]:
        """Patterns acknowledged for this rule that were not revoked, oldest first."""


class KnownFacts(Protocol):
    """Facts from other sources than the log being read, without a request to a network."""

    def digests_from(self, source: DigestSource) -> frozenset[str] | None:
        """The source's digests, each `sha256:…`, as last fetched within its age limit; `None` when there are none."""

    def in_certificate_log(self, certificate: bytes | None) -> bool | None:
        """True if a CT log showed this trusted certificate (`Signer.issued`) as a signer that some rule selected.

        `None` when the CT logs were not followed over the time in question, and for an unknown certificate.
        """

    def in_signature_log(self, certificate: bytes | None) -> bool | None:
        """True if a Rekor log showed an entry signed with this very certificate; otherwise as above."""


class Facts(Struct, frozen=True):
    """All facts for a judgement. An unknown fact is `None`, and an expectation that needs it is unmet."""

    past: PastFacts
    authorised: AuthorisationFacts
    known: KnownFacts


MAX_DIGESTS: Final = 1_000_000
MAX_SIZE: Final = 128 * 1024 * 1024


def parse_digest_list(text: str) -> frozenset[str]:
    """Digests as `sha256:…`. Empty lines and lines starting with `#` are skipped; a text after a digest is a name.

    Raises `ValueError` naming the line: a partly read list would be a wrong list.
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

"""OIDC issuers that this CA trusts, and the search for the issuer that a token names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

_WILDCARD: Final = "[-_a-zA-Z0-9]+"


class IssuerType(StrEnum):
    """Rule that makes a certificate's subject of an issuer's token."""

    EMAIL = "email"
    URI = "uri"
    SPIFFE = "spiffe"
    USERNAME = "username"
    KUBERNETES = "kubernetes"
    CI_PROVIDER = "ci-provider"


@dataclass(frozen=True, slots=True)
class CiMetadata:
    """Templates of one CI service: readable Fulcio claim name to template, and the subject's template."""

    defaults: Mapping[str, str]
    extensions: Mapping[str, str]
    subject: str


@dataclass(frozen=True, slots=True)
class Issuer:
    """One configured issuer. `url` is exact, or a pattern with `*` when `wildcard`."""

    url: str
    client_id: str
    type: IssuerType
    wildcard: bool = False
    ci: CiMetadata | None = None
    issuer_claim: str = ""
    subject_domain: str = ""
    spiffe_trust_domain: str = ""
    challenge_claim: str = ""
    skip_email_verification: bool = False
    ca_cert: str = ""
    description: str = ""
    contact: str = ""
    environment: str = ""

    @property
    def challenge(self) -> str:
        """Claim that a caller signs to prove possession of its key, as the configuration end point names it."""
        return self.challenge_claim or ("email" if self.type is IssuerType.EMAIL else "sub")

    def matches(self, url: str) -> bool:
        """True if this issuer covers a token's `iss`."""
        if not self.wildcard:
            return url == self.url
        # Anchored on both ends: an unanchored pattern would let a token name any host to fetch keys from (SSRF).
        return re.fullmatch(re.escape(self.url).replace(r"\*", _WILDCARD), url, re.ASCII) is not None

    def as_json(self) -> dict[str, Any]:
        """One element of `/api/v2/configuration`; empty fields are included, as in Fulcio's answer."""
        return {
            "wildcardIssuerUrl" if self.wildcard else "issuerUrl": self.url,
            "audience": self.client_id,
            "challengeClaim": self.challenge,
            "spiffeTrustDomain": self.spiffe_trust_domain,
            "issuerType": self.type.value,
            "subjectDomain": self.subject_domain,
            "skipEmailVerification": self.skip_email_verification,
        }


@dataclass(frozen=True, slots=True)
class Issuers:
    """The issuers of a configuration, and warnings for its author."""

    exact: Mapping[str, Issuer] = field(default_factory=lambda: MappingProxyType({}))
    wildcards: tuple[Issuer, ...] = ()
    warnings: tuple[str, ...] = ()

    def find(self, url: str) -> Issuer | None:
        """Issuer for a token's `iss`: the exact issuer if there is one, else the first pattern that matches."""
        if issuer := self.exact.get(url):
            return issuer
        return next((each for each in self.wildcards if each.matches(url)), None)

    def all(self) -> tuple[Issuer, ...]:
        """Exact issuers, then patterns."""
        return (*self.exact.values(), *self.wildcards)

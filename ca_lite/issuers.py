"""OIDC issuers that this CA trusts, and the search for the issuer that a token names."""

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final

import yaml
from msgspec import Struct, field

from ca_lite.templates import TemplateError, check_template
from settings.document import Misplaced, Node, YamlMapping, YamlScalar
from settings.models import FLAG, Shape, choice, written
from sigstore_entries.certificate import BY_NAME

_WILDCARD: Final = "[-_a-zA-Z0-9]+"
_VISIBILITY: Final = "source_repository_visibility"
_TEXT: Final[Shape] = {"type": "string"}
_TEXTS: Final[Shape] = {"type": "object", "additionalProperties": _TEXT}
_RESOLVER: Final = yaml.resolver.Resolver()
_PLAIN: Final = (True, False)
_STRING: Final = "tag:yaml.org,2002:str"
# The words of YAML 1.1 for a boolean, which Fulcio's reader takes too.
_FLAGS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class IssuerType(StrEnum):
    """Rule that makes a certificate's subject of an issuer's token."""

    EMAIL = "email"
    URI = "uri"
    SPIFFE = "spiffe"
    USERNAME = "username"
    KUBERNETES = "kubernetes"
    CI_PROVIDER = "ci-provider"


def _written(node: Node) -> str:
    """A scalar of any type as it is written; "" for a null."""
    if not isinstance(node, YamlScalar):
        raise Misplaced("must be text", node)
    return "" if node.is_null else node.text


def _text(node: Node) -> str:
    text = _written(node)
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, _PLAIN)  # type: ignore[no-untyped-call]
    if text and isinstance(node, YamlScalar) and node.plain and tag != _STRING:
        raise Misplaced("must be text; YAML reads this as another type: quote it", node)
    return text


def _flag(node: Node) -> bool:
    text = _written(node)
    if text and (not isinstance(node, YamlScalar) or not node.plain or text.lower() not in _FLAGS):
        raise Misplaced(f"{text[:40]!r} is not true or false", node)
    return _FLAGS.get(text.lower(), False)


def _texts(node: Node) -> Mapping[str, str]:
    if isinstance(node, YamlMapping):
        return MappingProxyType({key.text: _written(value) for key, value in node.entries})
    if _written(node):
        raise Misplaced("must be a mapping", node)
    return MappingProxyType({})


def _template(node: Node) -> str:
    text = _written(node)
    try:
        check_template(text)
    except TemplateError as error:
        raise Misplaced(str(error), node) from error
    return text


def _extensions(node: Node) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for key, value in node.entries if isinstance(node, YamlMapping) else ():
        claim = key.text.replace("-", "_").replace(f"{_VISIBILITY}_at_signing", _VISIBILITY)
        if claim not in BY_NAME:
            raise Misplaced(f"extension template {key.text!r:.80} is not a Fulcio extension", key)
        if (template := _template(value)).strip():
            found[claim] = template
    return MappingProxyType(found) if isinstance(node, YamlMapping) else _texts(node)


class CiMetadata(Struct, frozen=True):
    """Templates of one CI service: readable Fulcio claim name to template, and the subject's template."""

    defaults: Annotated[Mapping[str, str], written(_texts, _TEXTS, "default-template-values")] = field(
        default_factory=dict
    )
    extensions: Annotated[Mapping[str, str], written(_extensions, _TEXTS, "extension-templates")] = field(
        default_factory=dict
    )
    subject: Annotated[str, written(_template, _TEXT, "subject-alternative-name-template")] = ""


class Issuer(Struct, frozen=True):
    """One configured issuer. `url` is exact, or a pattern with `*` when `wildcard`."""

    type: Annotated[IssuerType, written(lambda node: IssuerType(_text(node)), choice(tuple(IssuerType)))]
    url: Annotated[str, written(_text, _TEXT, "issuer-url")] = ""
    client_id: Annotated[str, written(_text, _TEXT, "client-id")] = ""
    ci_provider: Annotated[str, written(_text, _TEXT, "ci-provider")] = ""
    issuer_claim: Annotated[str, written(_text, _TEXT, "issuer-claim")] = ""
    subject_domain: Annotated[str, written(_text, _TEXT, "subject-domain")] = ""
    spiffe_trust_domain: Annotated[str, written(_text, _TEXT, "spiffe-trust-domain")] = ""
    challenge_claim: Annotated[str, written(_text, _TEXT, "challenge-claim")] = ""
    skip_email_verification: Annotated[bool, written(_flag, FLAG, "skip-email-verification")] = False
    ca_cert: Annotated[str, written(_text, _TEXT, "ca-cert")] = ""
    description: Annotated[str, written(_text, _TEXT)] = ""
    contact: Annotated[str, written(_text, _TEXT)] = ""
    environment: Annotated[str, written(_text, _TEXT)] = ""
    wildcard: bool = False
    ci: CiMetadata | None = None

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


class Issuers(Struct, frozen=True):
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

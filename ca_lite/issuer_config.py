"""Reads Fulcio's issuer configuration (YAML or JSON), with its start-up errors and our warnings."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlsplit

from cryptography import x509
from msgspec import Struct
from msgspec.structs import replace

from addresses.url import is_loopback_host
from ca_lite.errors import ConfigError
from ca_lite.issuers import CiMetadata, Issuer, Issuers, IssuerType
from ca_lite.presets import PRESETS
from settings import document
from settings.document import DocumentError, Misplaced, Node, YamlScalar, read_yaml
from settings.models import Section, read_model
from settings.reading import Fields

_JSON_NAMES: Final = {
    "OIDCIssuers": "oidc-issuers",
    "MetaIssuers": "meta-issuers",
    "CIIssuerMetadata": "ci-issuer-metadata",
    "IssuerURL": "issuer-url",
    "ClientID": "client-id",
    "Type": "type",
    "CIProvider": "ci-provider",
    "IssuerClaim": "issuer-claim",
    "SubjectDomain": "subject-domain",
    "SPIFFETrustDomain": "spiffe-trust-domain",
    "ChallengeClaim": "challenge-claim",
    "SkipEmailVerification": "skip-email-verification",
    "CACert": "ca-cert",
    "Description": "description",
    "Contact": "contact",
    "Environment": "environment",
}
_TOP: Final = ("define", "oidc-issuers", "meta-issuers", "ci-issuer-metadata")
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_MIN_LABELS: Final = 2
# SPEC fulcio pkg/identity: principals of fixed CI services, "Deprecated: Use ciprovider".
_REPLACED: Final = frozenset({"buildkite-job", "codefresh-workflow", "github-workflow", "gitlab-pipeline"})
_FOREIGN: Final = frozenset({"chainguard-identity"})
_NOTHING: Final = YamlScalar("", plain=True, line=1, column=1)
T = TypeVar("T", bound=Struct)


def load_issuers(text: str, source: str) -> Issuers:
    """Parse and check a configuration; `source` names it in messages. Raises `ConfigError`."""
    try:
        # JSON is YAML. A file of comments alone is Fulcio's "nil config", as an empty mapping is.
        node = _renamed(read_yaml(text, source, merges=True)) if _has_content(text) else _NOTHING
        return _issuers(node)
    except DocumentError as error:
        raise ConfigError(str(error)) from error
    except Misplaced as error:
        raise ConfigError(f"{source}:{error.problem.line}:{error.problem.column}: {error}") from error


def _has_content(text: str) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines())


def _issuers(node: Node) -> Issuers:
    if not _entries(node):
        raise Misplaced("nil config: list at least one issuer under oidc-issuers", node)
    top = Fields(node, _TOP, "the configuration")
    metadata = {
        name.text: _read(CiMetadata, name, each) for name, each in _entries(top.get("ci-issuer-metadata") or _NOTHING)
    }
    read: list[Issuer] = []
    skipped: list[str] = []
    for name, wildcard in (("oidc-issuers", False), ("meta-issuers", True)):
        for key, each in _entries(top.get(name) or _NOTHING):
            if (why := _skipped(key, each)) is not None:
                skipped.append(why)
            else:
                read.append(_issuer(key, each, metadata, wildcard=wildcard))
    exact = MappingProxyType({each.url: each for each in read if not each.wildcard})
    wildcards = tuple(each for each in read if each.wildcard)
    warnings = [*skipped, *(text for each in (*exact.values(), *wildcards) for text in _warnings(each))]
    return Issuers(exact, wildcards, tuple(warnings))


def _entries(node: Node) -> tuple[tuple[YamlScalar, Node], ...]:
    if isinstance(node, YamlScalar) and node.is_null:
        return ()
    if not isinstance(node, document.YamlMapping):
        raise Misplaced("must be a mapping", node)
    return node.entries


def _read(model: type[T], key: YamlScalar, node: Node) -> T:
    """Read the mapping under a key of the author's choice."""
    entries = document.YamlMapping(_entries(node), node.line, node.column)
    return read_model(model, Section(f"{key.text:.200}"), entries, Path())


def _skipped(key: YamlScalar, node: Node) -> str | None:
    """Reason to skip an issuer that Fulcio accepts at its start; `None` if the issuer is used.

    SPEC fulcio pkg/config/config.go: an unknown type stops Fulcio only if the issuer has no challenge claim.
    """
    texts = {name.text: value.text for name, value in _entries(node) if isinstance(value, YamlScalar)}
    kind = texts.get("type", "")
    if kind in _REPLACED:
        now = f"type: ci-provider with ci-provider: {kind}"
        hint = "" if kind in PRESETS else " and its templates under ci-issuer-metadata"
        return (
            f"{key.text}: skipped: the type {kind!r} is deprecated in Fulcio; write {now}{hint}. Its tokens are refused"
        )
    if kind in _FOREIGN or (kind not in set(IssuerType) and texts.get("challenge-claim")):
        return f"{key.text}: skipped: this CA has no issuers of type {kind!r:.60}. Its tokens are refused"
    if kind not in set(IssuerType):
        hint = f"{key.text}: type {kind!r:.60} is not one of {', '.join(IssuerType)}"
        raise Misplaced(f"issuer missing challenge claim ({hint})", key)
    return None


def _issuer(key: YamlScalar, node: Node, metadata: Mapping[str, CiMetadata], *, wildcard: bool) -> Issuer:
    read = _read(Issuer, key, node)
    try:
        ci = _ci_for(read.ci_provider, metadata) if read.type is IssuerType.CI_PROVIDER else None
        issuer = replace(read, url=read.url or key.text, wildcard=wildcard, ci=ci)
        _check(issuer)
    except ConfigError as error:
        raise Misplaced(f"{key.text}: {error}", key) from error
    return issuer


def _check(issuer: Issuer) -> None:
    """Check Fulcio's start-up rules; the error texts are Fulcio's."""
    if not issuer.client_id:
        raise ConfigError("client-id is missing; without it any token of the issuer would do")
    if issuer.issuer_claim and issuer.type is not IssuerType.EMAIL:
        raise ConfigError("only email issuers can use issuer claim mapping")
    if issuer.type is IssuerType.SPIFFE:
        _check_spiffe(issuer)
    if issuer.type is IssuerType.URI:
        _check_uri(issuer)
    if issuer.type is IssuerType.USERNAME:
        _check_username(issuer)
    if issuer.ca_cert:
        try:
            x509.load_pem_x509_certificates(issuer.ca_cert.encode())
        except ValueError as error:
            raise ConfigError("ca-cert is not a PEM certificate") from error


def _check_spiffe(issuer: Issuer) -> None:
    if issuer.wildcard:
        raise ConfigError("SPIFFE meta issuers not supported")
    if not issuer.spiffe_trust_domain:
        raise ConfigError("spiffe issuer must have SPIFFETrustDomain set")
    if not _TRUST_DOMAIN.fullmatch(issuer.spiffe_trust_domain):
        raise ConfigError("spiffe trust domain is invalid")


def _check_uri(issuer: Issuer) -> None:
    if not issuer.subject_domain:
        raise ConfigError("uri issuer must have SubjectDomain set")
    subject, own = _split(issuer.subject_domain), _split(issuer.url)
    if not subject.scheme:
        raise ConfigError("SubjectDomain for uri must contain scheme")
    if not own.scheme:
        raise ConfigError("issuer for uri must contain scheme")
    if subject.scheme != own.scheme:
        raise ConfigError(f"subject ({subject.scheme}) and issuer ({own.scheme}) URI schemes do not match")
    _check_domain(subject.hostname or "", own.hostname or "")


def _check_username(issuer: Issuer) -> None:
    if not issuer.subject_domain:
        raise ConfigError("username issuer must have SubjectDomain set")
    if "://" in issuer.subject_domain:
        raise ConfigError("SubjectDomain for username should not contain scheme")
    own = _split(issuer.url)
    if not own.scheme:
        raise ConfigError("issuer for username must contain scheme")
    _check_domain(issuer.subject_domain, own.hostname or "")


def _check_domain(subject: str, issuer: str) -> None:
    """Check that issuer and subject domain have the same second-level domain."""
    if subject == issuer:
        return
    labels = {host: host.split(".") for host in (subject, issuer)}
    for host, parts in labels.items():
        if len(parts) < _MIN_LABELS:
            raise ConfigError(f"URI hostname too short: {host}")
    if labels[subject][-2:] != labels[issuer][-2:]:
        raise ConfigError(f"hostname top-level and second-level domains do not match: {subject}, {issuer}")


def _ci_for(name: str, metadata: Mapping[str, CiMetadata]) -> CiMetadata:
    if name in metadata:
        return metadata[name]
    if name in PRESETS:
        return _read(CiMetadata, YamlScalar(name, plain=True, line=0, column=0), read_yaml(json.dumps(PRESETS[name])))
    raise ConfigError(f"metadata not found for ci provider {name!r:.80}; presets are {', '.join(PRESETS)}")


def _warnings(issuer: Issuer) -> list[str]:
    found = []
    if issuer.type is IssuerType.USERNAME:
        found.append(f"{issuer.url}: username certificates: sigstore-python and sigstore-js cannot match their name")
    if issuer.type is IssuerType.EMAIL and issuer.skip_email_verification:
        found.append(
            f"{issuer.url}: skip-email-verification lets any person claim any address that the issuer does not check"
        )
    host = _split(issuer.url).hostname
    if _split(issuer.url).scheme == "http" and not is_loopback_host(host):
        found.append(f"{issuer.url}: tokens are verified with keys fetched over plain http")
    if issuer.ci is not None and not issuer.ci.subject.strip():
        found.append(f"{issuer.url}: subject-alternative-name-template is empty, so every token is refused")
    return found


def _renamed(node: Node) -> Node:
    """Read the Go field names of JSON configurations as the YAML keys."""
    if not isinstance(node, document.YamlMapping):
        return node
    entries: dict[str, tuple[YamlScalar, Node]] = {}
    for key, value in node.entries:
        name = _JSON_NAMES.get(key.text, key.text)
        if name in entries:
            raise Misplaced(f"key {name!r:.200} was already given on line {entries[name][0].line}", key)
        entries[name] = replace(key, text=name), _renamed(value)
    return replace(node, entries=tuple(entries.values()))


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is not a URL: {error}") from error
    return parts

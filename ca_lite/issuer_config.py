"""Reads Fulcio's issuer configuration (YAML or JSON), with its start-up errors and our warnings."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import yaml
from cryptography import x509

from addresses.url import is_loopback_host
from ca_lite.errors import ConfigError
from ca_lite.issuers import CiMetadata, Issuer, Issuers, IssuerType
from ca_lite.presets import PRESETS
from ca_lite.templates import TemplateError, check_template
from sigstore_entries.certificate import BY_NAME

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
_TOP: Final = {"define", "oidc-issuers", "meta-issuers", "ci-issuer-metadata"}
_ISSUER_KEYS: Final = set(_JSON_NAMES.values()) - _TOP
_CI_KEYS: Final = {"default-template-values", "extension-templates", "subject-alternative-name-template"}
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_VISIBILITY: Final = "source_repository_visibility"
_MIN_LABELS: Final = 2
# SPEC fulcio pkg/identity: principals of fixed CI services, "Deprecated: Use ciprovider".
_REPLACED: Final = frozenset({"buildkite-job", "codefresh-workflow", "github-workflow", "gitlab-pipeline"})
_FOREIGN: Final = frozenset({"chainguard-identity"})


def load_issuers(text: str, source: str) -> Issuers:
    """Parse and check a configuration; `source` names it in messages. Raises `ConfigError`."""
    try:
        raw = yaml.safe_load(text)  # JSON is YAML
        return _issuers(_renamed(raw))
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{source}: not YAML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _issuers(raw: Any) -> Issuers:
    top = _mapping(raw, "the configuration")
    if not top:
        raise ConfigError("nil config: list at least one issuer under oidc-issuers")
    _known(top, _TOP, "the configuration")
    metadata = {
        name: _ci_metadata(name, each)
        for name, each in _mapping(top.get("ci-issuer-metadata") or {}, "ci-issuer-metadata").items()
    }
    read: list[Issuer] = []
    skipped: list[str] = []
    for name, wildcard in (("oidc-issuers", False), ("meta-issuers", True)):
        for key, each in _mapping(top.get(name) or {}, name).items():
            if (why := _skipped(key, _mapping(each, key))) is not None:
                skipped.append(why)
            else:
                read.append(_issuer(key, each, metadata, wildcard=wildcard))
    exact = MappingProxyType({each.url: each for each in read if not each.wildcard})
    wildcards = tuple(each for each in read if each.wildcard)
    warnings = [*skipped, *(text for each in (*exact.values(), *wildcards) for text in _warnings(each))]
    return Issuers(exact, wildcards, tuple(warnings))


def _skipped(key: str, values: Mapping[str, Any]) -> str | None:
    """Reason to skip an issuer that Fulcio accepts at its start; `None` if the issuer is used.

    SPEC fulcio pkg/config/config.go: an unknown type stops Fulcio only if the issuer has no challenge claim.
    """
    kind = _text(values, "type", key)
    if kind in _REPLACED:
        now = f"type: ci-provider with ci-provider: {kind}"
        hint = "" if kind in PRESETS else " and its templates under ci-issuer-metadata"
        return f"{key}: skipped: the type {kind!r} is deprecated in Fulcio; write {now}{hint}. Its tokens are refused"
    if kind in _FOREIGN or (kind not in set(IssuerType) and _text(values, "challenge-claim", key)):
        return f"{key}: skipped: this CA has no issuers of type {kind!r:.60}. Its tokens are refused"
    return None


def _issuer(key: str, raw: Any, metadata: Mapping[str, CiMetadata], *, wildcard: bool) -> Issuer:
    values = _mapping(raw, key)
    _known(values, _ISSUER_KEYS, key)
    kind = _text(values, "type", key)
    try:
        issuer_type = IssuerType(kind)
    except ValueError as error:
        hint = f"{key}: type {kind!r} is not one of {', '.join(IssuerType)}"
        raise ConfigError(f"issuer missing challenge claim ({hint})") from error
    issuer = Issuer(
        url=_text(values, "issuer-url", key) or key,
        client_id=_text(values, "client-id", key),
        type=issuer_type,
        wildcard=wildcard,
        ci=_ci_for(values, key, metadata) if issuer_type is IssuerType.CI_PROVIDER else None,
        issuer_claim=_text(values, "issuer-claim", key),
        subject_domain=_text(values, "subject-domain", key),
        spiffe_trust_domain=_text(values, "spiffe-trust-domain", key),
        challenge_claim=_text(values, "challenge-claim", key),
        skip_email_verification=values.get("skip-email-verification", False) is True,
        ca_cert=_text(values, "ca-cert", key),
        description=_text(values, "description", key),
        contact=_text(values, "contact", key),
        environment=_text(values, "environment", key),
    )
    _check(issuer)
    return issuer


def _check(issuer: Issuer) -> None:
    """Check Fulcio's start-up rules; the error texts are Fulcio's."""
    if not issuer.client_id:
        raise ConfigError(f"{issuer.url}: client-id is missing; without it any token of the issuer would do")
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
            raise ConfigError(f"{issuer.url}: ca-cert is not a PEM certificate") from error


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


def _ci_for(values: Mapping[str, Any], key: str, metadata: Mapping[str, CiMetadata]) -> CiMetadata:
    name = _text(values, "ci-provider", key)
    if name in metadata:
        return metadata[name]
    if name in PRESETS:
        return _ci_metadata(name, PRESETS[name])
    raise ConfigError(f"{key}: metadata not found for ci provider {name!r}; presets are {', '.join(PRESETS)}")


def _ci_metadata(name: str, raw: Any) -> CiMetadata:
    values = _mapping(raw, name)
    _known(values, _CI_KEYS, name)
    templates = _mapping(values.get("extension-templates") or {}, f"{name}.extension-templates")
    extensions = {}
    for key, template in templates.items():
        claim = key.replace("-", "_").replace(f"{_VISIBILITY}_at_signing", _VISIBILITY)
        if claim not in BY_NAME:
            raise ConfigError(f"{name}: extension template {key!r} is not a Fulcio extension")
        if str(template).strip():
            extensions[claim] = str(template)
    subject = _text(values, "subject-alternative-name-template", name)
    defaults = _mapping(values.get("default-template-values") or {}, f"{name}.default-template-values")
    for template in (*extensions.values(), subject):
        try:
            check_template(template)
        except TemplateError as error:
            raise ConfigError(f"{name}: {error}") from error
    return CiMetadata(
        MappingProxyType({key: str(value) for key, value in defaults.items()}), MappingProxyType(extensions), subject
    )


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


def _renamed(raw: Any) -> Any:
    """Read the Go field names of JSON configurations as the YAML keys."""
    if not isinstance(raw, dict):
        return raw
    return {_JSON_NAMES.get(key, key): _renamed(value) for key, value in raw.items()}


def _mapping(raw: Any, where: str) -> dict[str, Any]:
    if raw is None:
        return {}
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise ConfigError(f"{where} must be a mapping")
    return raw


def _known(values: Mapping[str, Any], allowed: set[str], where: str) -> None:
    if unknown := sorted(set(values) - allowed):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(allowed))}")


def _text(values: Mapping[str, Any], key: str, where: str) -> str:
    value = values.get(key) or ""
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {key} must be text")
    return value


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is not a URL: {error}") from error
    return parts

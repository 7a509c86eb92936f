"""Derives the name and the claims of a certificate from a verified token (Fulcio's `pkg/identity`)."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, urlsplit

from msgspec import Struct

from ca_lite.errors import bad_request, token_refused
from ca_lite.issuers import Issuer, IssuerType
from ca_lite.templates import TemplateError, render
from sigstore_entries.signing import NameForm

_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_EMAIL: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@[A-Za-z0-9](?:[A-Za-z0-9.-]{{0,252}}[A-Za-z0-9])?", re.ASCII)
_EMAIL_LIMIT: Final = 254
_SPIFFE_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._-]+)*")
_URI_SAFE: Final = "!#$%&'()*+,/:;=?@[]~"
_NAME_LIMIT: Final = 2048


class Principal(Struct, frozen=True):
    """Contents of a certificate: its subject alternative name, and claims by readable Fulcio name."""

    form: NameForm
    name: str
    claims: Mapping[str, str]


def challenges_of(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Texts of which a caller signs one to prove that it holds its key: the token's e-mail, if any, and subject."""
    found = (claims.get("email"), claims.get("sub"))
    return tuple(dict.fromkeys(each for each in found if isinstance(each, str) and each))


def principal_for(issuer: Issuer, claims: Mapping[str, Any]) -> Principal:
    """Name and claims for a verified token's claims. Raises `CaRefused`.

    A template that names a missing claim is refused with the template's own text, everything else with Fulcio's one
    sentence for tokens.
    """
    principal = _principal_for(issuer, claims)
    try:
        "".join((principal.name, *principal.claims.values())).encode()
    except UnicodeEncodeError as error:
        # JSON can hold half of a surrogate pair; neither the journal nor a certificate can.
        raise bad_request("the identity cannot be written into a certificate", "IDENTITY_UNENCODABLE") from error
    return principal


def _principal_for(issuer: Issuer, claims: Mapping[str, Any]) -> Principal:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or len(subject) > _NAME_LIMIT:
        raise token_refused("SUBJECT_MISSING", "the token has no usable sub claim")
    own = {"issuer_v1": str(claims["iss"]), "issuer": str(claims["iss"]), "token_subject": subject}
    if issuer.type is IssuerType.CI_PROVIDER:
        return _ci_principal(issuer, claims, own)
    if issuer.type is IssuerType.EMAIL:
        name = _email(issuer, claims)
        if issuer.issuer_claim:
            own["issuer_v1"] = own["issuer"] = _issuer_claim(issuer.issuer_claim, claims)
        return Principal(NameForm.EMAIL, name, MappingProxyType(own))
    if issuer.type is IssuerType.USERNAME:
        return Principal(NameForm.OTHER, _username(issuer, subject), MappingProxyType(own))
    if issuer.type is IssuerType.KUBERNETES:
        return Principal(NameForm.URI, _kubernetes(claims), MappingProxyType(own))
    name = _spiffe(issuer, subject) if issuer.type is IssuerType.SPIFFE else _uri(issuer, subject)
    return Principal(NameForm.URI, name, MappingProxyType(own))


def is_email(text: str) -> bool:
    """True if the text is an e-mail address that fits an rfc822Name (ASCII)."""
    return len(text) <= _EMAIL_LIMIT and _EMAIL.fullmatch(text) is not None


def _email(issuer: Issuer, claims: Mapping[str, Any]) -> str:
    email = claims.get("email")
    if not isinstance(email, str) or not email:
        raise token_refused("EMAIL_MISSING", "the token has no email claim")
    if not is_email(email):
        raise token_refused("EMAIL_INVALID", "the email claim is not an ASCII e-mail address")
    # Some issuers send the text "true"; an absent claim means not verified.
    verified = claims.get("email_verified") in (True, "true", "True")
    if not verified and not issuer.skip_email_verification:
        raise token_refused("EMAIL_NOT_VERIFIED", "the issuer does not say that it verified the address")
    return email


def _issuer_claim(path: str, claims: Mapping[str, Any]) -> str:
    value: Any = claims
    for step in path.removeprefix("$.").split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    if not isinstance(value, str) or not value:
        raise token_refused("ISSUER_CLAIM_MISSING", f"the token has no text at {path}")
    return value


def _username(issuer: Issuer, subject: str) -> str:
    if "!" in subject:
        raise token_refused("USERNAME_INVALID", "a username must not contain '!'")
    if is_email(subject):
        raise token_refused("USERNAME_INVALID", "a username must not be an e-mail address")
    return f"{subject}!{issuer.subject_domain}"


def _uri(issuer: Issuer, subject: str) -> str:
    if is_email(subject):
        raise token_refused("URI_INVALID", "the subject is an e-mail address, not a URI")
    domain = urlsplit(issuer.subject_domain)
    try:
        parts = urlsplit(subject)
        same = (parts.scheme, parts.hostname) == (domain.scheme, domain.hostname)
    except ValueError:
        same = False
    if not same:
        raise token_refused("URI_MISMATCH", f"the subject must be a URI under {issuer.subject_domain}")
    if not _plain_uri(subject):
        raise token_refused("URI_INVALID", "the subject is not a URI of printable ASCII characters")
    return subject


def _spiffe(issuer: Issuer, subject: str) -> str:
    prefix = f"spiffe://{issuer.spiffe_trust_domain}"
    path = subject.removeprefix(prefix)
    segments = path.split("/")
    if not subject.startswith(prefix) or not _SPIFFE_PATH.fullmatch(path) or "." in segments or ".." in segments:
        raise token_refused("SPIFFE_MISMATCH", f"the subject must be a SPIFFE ID of {issuer.spiffe_trust_domain}")
    return subject


def _kubernetes(claims: Mapping[str, Any]) -> str:
    block = claims.get("kubernetes.io")
    account = block.get("serviceaccount") if isinstance(block, Mapping) else None
    namespace = block.get("namespace") if isinstance(block, Mapping) else None
    name = account.get("name") if isinstance(account, Mapping) else None
    if not isinstance(namespace, str) or not isinstance(name, str) or not namespace or not name:
        raise token_refused("CLAIM_MISSING", "the token has no kubernetes.io namespace and service account")
    return f"https://kubernetes.io/namespaces/{quote(namespace, safe='')}/serviceaccounts/{quote(name, safe='')}"


def _ci_principal(issuer: Issuer, claims: Mapping[str, Any], own: dict[str, str]) -> Principal:
    ci = issuer.ci
    url = str(claims["iss"])
    if ci is None or not ci.subject.strip():
        raise bad_request(f"SubjectAlternativeNameTemplate should not be empty. Issuer: {url}", "TEMPLATE_EMPTY")
    values = {**ci.defaults, **_texts(claims)}
    try:
        name = quote(render(ci.subject, values, url), safe=_URI_SAFE)
        rendered = {key: render(template, values, url) for key, template in ci.extensions.items()}
    except TemplateError as error:
        raise bad_request(str(error), "CLAIM_MISSING") from error
    if not _plain_uri(name):
        raise bad_request("subject alternative name is not an absolute URI", "SUBJECT_INVALID")
    # Issuer and subject always come from the token, never from a template. An empty value makes no extension.
    kept = {key: value for key, value in {**rendered, **own}.items() if value}
    return Principal(NameForm.URI, name, MappingProxyType(kept))


def _texts(claims: Mapping[str, Any]) -> dict[str, str]:
    """Claims in the form that templates use: text unchanged, numbers as integers, booleans as true or false."""
    texts = {}
    for key, value in claims.items():
        if isinstance(value, bool):
            texts[key] = "true" if value else "false"
        elif isinstance(value, str):
            texts[key] = value
        elif isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            texts[key] = str(int(value))
    return texts


def _plain_uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme) and len(text) <= _NAME_LIMIT and all("!" <= character <= "~" for character in text)

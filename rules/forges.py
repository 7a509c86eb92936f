"""Hosts of source repositories: where names ignore case, and which host a certificate means."""

import re
from dataclasses import replace
from enum import StrEnum
from typing import Final

from rules.pattern import Pattern, PatternForm, fold
from sigstore_entries.signing import Signer

GITHUB: Final = "https://github.com"
GITLAB: Final = "https://gitlab.com"
GHE_CLOUD: Final = ".ghe.com"  # GitHub Enterprise Cloud with data residency
GITHUB_ISSUER: Final = "https://token.actions.githubusercontent.com"

# GitHub, GitLab and GitHub Enterprise Cloud find a name in any case, and certificates carry the one it was given.
_ANY_CASE = re.compile(r"https://(github\.com|gitlab\.com|[a-z0-9-]+\.ghe\.com)/", re.ASCII | re.IGNORECASE)
# An owner or a repository, by itself or with everything in it: no path or ref, whose case does matter.
_NAMES_ONLY = re.compile(r"https://[^/*]+/[^/*]+(/[^/*]+)?(/\*+)?")
NAME_FIELDS: Final = frozenset(
    {"identity", "source_repository_uri", "source_repository_owner_uri", "build_signer_uri", "build_config_uri"}
)


class Forge(StrEnum):
    """Which software a host of repositories runs."""

    GITHUB = "github"
    GITLAB = "gitlab"
    UNKNOWN = "unknown"


def forge_of(uri: str) -> Forge:
    """What the name of a URI's host tells of its software."""
    host = uri.removeprefix("https://").partition("/")[0].partition(":")[0].lower()
    words = set(re.split(r"[.-]", host))
    if words & {"github", "ghe", "ghes"}:
        return Forge.GITHUB
    return Forge.GITLAB if "gitlab" in words else Forge.UNKNOWN


def build_issuers(host: str) -> tuple[str, ...]:
    """Who vouches for builds on a host; for GitHub Enterprise Server and GitLab where the name does not tell which."""
    url = f"https://{host}"
    if url == GITHUB:
        return (GITHUB_ISSUER,)
    if host.endswith(GHE_CLOUD):
        return (f"https://token.actions.{host}",)
    servers = {Forge.GITHUB: f"{url}/_services/token", Forge.GITLAB: url}
    forge = forge_of(f"{url}/")
    return (servers[forge],) if forge in servers else tuple(servers.values())


def names_ignore_case(uri: str) -> bool:
    """Whether the host of this URI is one where names of owners and repositories ignore case."""
    return _ANY_CASE.match(uri) is not None


def as_selected(field: str, pattern: Pattern, *, negated: bool) -> Pattern:
    """The pattern as `select` compares it: names on known hosts in any case.

    Paths and refs are then compared in any case too. That selects more, never less, so it is left out of negations.
    """
    if field == "github_workflow_repository":
        return replace(pattern, ignore_case=True)
    if field not in NAME_FIELDS or pattern.form is PatternForm.REGEX or not names_ignore_case(pattern.text):
        return pattern
    if negated and not _NAMES_ONLY.fullmatch(pattern.text):
        return pattern
    return replace(pattern, ignore_case=True)


def spelled_like(pattern: Pattern, uri: str) -> Pattern:
    """The pattern with the repository spelled as in a claim's URI when it is the same one; the rest keeps its case."""
    if pattern.form is PatternForm.REGEX or not names_ignore_case(uri):
        return pattern
    scheme, _, rest = uri.partition("//")
    project, slashes, _ = rest.partition("//")  # GitLab puts two slashes between the project and the path
    head = f"{scheme}//{project}//" if slashes else "/".join(uri.split("/", 5)[:5]) + "/"
    if not fold(pattern.text).startswith(fold(head)):
        return pattern
    return replace(pattern, text=head + pattern.text[len(head) :])


def source_repository(signer: Signer) -> str | None:
    """URI of the source repository on the host that the issuer speaks for; `None` when the certificate has none.

    Fulcio until September 2026 writes `https://gitlab.com` into this claim for a self-managed GitLab as well, whose
    issuer is the URL of its host.
    """
    uri, issuer = signer.claims.get("source_repository_uri"), signer.issuer
    if uri is None or issuer is None or issuer == GITLAB or not uri.startswith(GITLAB + "/"):
        return uri
    built_there = signer.claims.get("build_config_uri", "").startswith(issuer + "/")
    return issuer + uri[len(GITLAB) :] if built_there else uri


def repository_key(signer: Signer) -> str | None:
    """Name under which the past of a repository is kept: the same before and after a Fulcio that names its host.

    In lower case where the host ignores case, or else a repository made again as `Acme/widget` would be a first one.
    """
    uri = source_repository(signer)
    return fold(uri) if uri is not None and names_ignore_case(uri) else uri


def github_repository(signer: Signer) -> str | None:
    """URI of the repository in GitHub's older claim, `owner/name`, on the host that the certificate names."""
    name = signer.claims.get("github_workflow_repository")
    if name is None or "://" in name:
        return name
    uris = [signer.claims.get("source_repository_uri", ""), *(each.value for each in signer.names)]
    origins = ["/".join(uri.split("/", 3)[:3]) for uri in uris if uri.startswith("https://")]
    if not origins and signer.issuer == GITHUB_ISSUER:
        origins = [GITHUB]
    return f"{origins[0]}/{name}" if origins else name

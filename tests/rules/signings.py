"""Signings for tests: a GitHub release of acme/widget as Fulcio certifies it, and ways to bend it."""

import dataclasses
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from msgspec.structs import replace

from rules.pattern import exact
from rules.rule import Rule
from rules.rule_file import load_rules
from rules.selection import FieldMatch, Selected, select
from settings.document import read_yaml
from sigstore_entries.certificate import BY_NAME
from sigstore_entries.signing import ChainTrust, Digest, EntryRef, Name, NameForm, Signer, SignerForm, Signing

GITHUB: Final = "https://token.actions.githubusercontent.com"
REPOSITORY: Final = "https://github.com/acme/widget"
WORKFLOW: Final = f"{REPOSITORY}/.github/workflows/release.yml"
TAG: Final = "refs/tags/v1.2.3"
DIGEST: Final = "ab" * 32
SIGNED_AT: Final = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)  # a Friday
SEEN_AT: Final = datetime(2026, 11, 20, 12, 1, tzinfo=UTC)
WHERE: Final = EntryRef("rekor", 1042)
ISSUED: Final = b"d" * 32

CLAIMS: Final = {
    "issuer": GITHUB,
    "issuer_v1": GITHUB,
    "github_workflow_trigger": "push",
    "github_workflow_sha": "1" * 40,
    "github_workflow_name": "Release",
    "github_workflow_repository": "acme/widget",
    "github_workflow_ref": TAG,
    "build_signer_uri": f"{WORKFLOW}@{TAG}",
    "build_signer_digest": "1" * 40,
    "runner_environment": "github-hosted",
    "source_repository_uri": REPOSITORY,
    "source_repository_digest": "1" * 40,
    "source_repository_ref": TAG,
    "source_repository_identifier": "123456789",
    "source_repository_owner_uri": "https://github.com/acme",
    "source_repository_owner_identifier": "4711",
    "build_config_uri": f"{WORKFLOW}@{TAG}",
    "build_config_digest": "1" * 40,
    "build_trigger": "push",
    "run_invocation_uri": f"{REPOSITORY}/actions/runs/1/attempts/1",
    "source_repository_visibility": "public",
}


def signer(claims: dict[str, str | None] | None = None, **changes: Any) -> Signer:
    """The release workflow's certificate; a claim given as `None` is left out."""
    merged = {**CLAIMS, **(claims or {})}
    present = {name: value for name, value in merged.items() if value is not None}
    extensions = {BY_NAME[name].oid: BY_NAME[name].encode(value) for name, value in present.items()}
    made = Signer(
        form=SignerForm.CERTIFICATE,
        names=(Name(NameForm.URI, f"{WORKFLOW}@{TAG}"),),
        issuer=present.get("issuer"),
        claims=MappingProxyType(present),
        extensions=MappingProxyType(extensions),
        fingerprints=("c" * 64, "d" * 64),
        not_before=SIGNED_AT,
        trust=ChainTrust.TRUSTED,
        issued=ISSUED,
    )
    return dataclasses.replace(made, **changes)


def signing(claims: dict[str, str | None] | None = None, **changes: Any) -> Signing:
    """One entry of that release. `changes` named like a field of `Signer` change the signer, others the entry."""
    entry_fields = {"where", "kind", "version", "signers", "digests", "times"}
    of_entry = {name: value for name, value in changes.items() if name in entry_fields}
    of_signer = {name: value for name, value in changes.items() if name not in entry_fields}
    made = Signing(WHERE, "hashedrekord", "0.0.1", (signer(claims, **of_signer),), (Digest("sha256", DIGEST),))
    return replace(made, **of_entry)


def email_signer(
    address: str = "alice@acme.example", issuer: str = "https://accounts.google.com", **changes: Any
) -> Signer:
    """A person's certificate."""
    made = Signer(
        form=SignerForm.CERTIFICATE,
        names=(Name(NameForm.EMAIL, address),),
        issuer=issuer,
        claims=MappingProxyType({"issuer": issuer, "issuer_v1": issuer}),
        fingerprints=("e" * 64, "f" * 64),
        not_before=SIGNED_AT,
        trust=ChainTrust.TRUSTED,
        issued=b"e" * 32,
    )
    return dataclasses.replace(made, **changes)


def everyone(signing: Signing) -> Selected:
    """Every signer, selected by something that is no name and no fingerprint."""
    return select(FieldMatch("kind", (exact(signing.kind),)), signing)


def rule(select: str, expect: str = "", **keys: str) -> Rule:
    """A rule from flow-style YAML, as in `rule("{identity: a@b.example}", "{ref: refs/heads/main}")`."""
    lines = ["version: 1", "rules:", "  - id: under-test", f"    select: {select}"]
    if expect:
        lines.append(f"    expect: {expect}")
    lines += [f"    {key}: {value}" for key, value in keys.items()]
    text = "\n".join(lines)
    read_yaml(text)
    return load_rules(text).rules[0]

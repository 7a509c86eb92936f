"""An acknowledged pattern answers equal signings and is never broader than the one that was seen."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from rules.acknowledged import _ANSWERED, ID, NoPattern, pattern_from, pattern_of
from sigstore_entries.signing import ChainTrust, Name, NameForm, Signer, SignerForm
from tests.docs.blocks import ROOT

TAG = "refs/tags/v1.2.3"
REPOSITORY = "https://github.com/acme/widget"
WORKFLOW = f"{REPOSITORY}/.github/workflows/release.yml"
REF = "ref"


def build(ref: str = TAG, run: str = "1", **claims: str) -> Signer:
    """A GitHub workflow's certificate."""
    of_build = {
        "issuer": "https://token.actions.githubusercontent.com",
        "github_workflow_ref": ref,
        "github_workflow_sha": run * 40,
        "build_signer_uri": f"{WORKFLOW}@{ref}",
        "build_signer_digest": run * 40,
        "source_repository_uri": REPOSITORY,
        "source_repository_ref": ref,
        "source_repository_digest": run * 40,
        "source_repository_identifier": "17",
        "build_config_uri": f"{WORKFLOW}@{ref}",
        "build_trigger": "push",
        "run_invocation_uri": f"{REPOSITORY}/actions/runs/{run}",
        "token_subject": f"repo:acme/widget:ref:{ref}",
    }
    return Signer(
        SignerForm.CERTIFICATE,
        (Name(NameForm.URI, f"{WORKFLOW}@{ref}"),),
        "https://token.actions.githubusercontent.com",
        MappingProxyType(of_build | claims),
        fingerprints=(run * 64,),
        trust=ChainTrust.TRUSTED,
    )


def test_another_build_of_the_same_ref_is_covered_and_another_ref_is_not() -> None:
    pattern = pattern_of(build(), {"ref"})
    assert pattern.covers(build(run="2"), [REF])
    assert not pattern.covers(build("refs/tags/v1.2.4"), [REF])
    assert pattern_from(pattern.document(), 0) == pattern


def test_a_glob_covers_its_refs_alone() -> None:
    pattern = pattern_of(build(), {"ref"}, "refs/tags/v1.*")
    assert pattern.covers(build("refs/tags/v1.9.0", run="3"), [REF])
    for other in ("refs/tags/v2.0.0", "refs/heads/v1.9", "refs/tags/x/refs/tags/v1.9"):
        assert not pattern.covers(build(other), [REF]), other


@pytest.mark.parametrize(
    "glob", ["*", "refs/*", "refs/heads/*", "refs/tags/v2*", "refs/tag*", "refs/tags/" + "*v" * 40]
)
def test_a_glob_that_is_broader_than_the_kind_of_ref_seen_or_lacks_it_is_refused(glob: str) -> None:
    with pytest.raises(NoPattern):
        pattern_of(build(), {"ref"}, glob)


@pytest.mark.parametrize(
    "other",
    [
        build(source_repository_identifier="18"),
        build(build_trigger="workflow_dispatch"),
        build(build_signer_uri=f"{REPOSITORY}/.github/workflows/other.yml@{TAG}"),
        build(deployment_environment="staging"),
        build(build_signer_uri=f"{WORKFLOW}@refs/heads/main"),
        replace(build(), issuer="https://evil.example"),
        replace(build(), names=(Name(NameForm.EMAIL, f"{WORKFLOW}@{TAG}"),)),
        replace(build(), names=(*build().names, Name(NameForm.EMAIL, "a@acme.example"))),
        replace(build(), defects=("claim:build_trigger: two values",)),
        Signer(SignerForm.KEY, build().names, fingerprints=build().fingerprints),
    ],
)
def test_a_signer_that_differs_in_anything_that_lasts_is_not_covered(other: Signer) -> None:
    for glob in (None, "refs/tags/*"):
        assert not pattern_of(build(), {"ref"}, glob).covers(other, [REF])


def test_a_ref_of_anothers_workflow_does_not_move_with_ours() -> None:
    """A reusable workflow that happened to be called at a tag of the same name."""
    shared = "https://github.com/slsa/generator/.github/workflows/go.yml@"
    pattern = pattern_of(build(build_signer_uri=shared + TAG), {"ref"}, "refs/tags/*")
    assert pattern.covers(build("refs/tags/v9", build_signer_uri=shared + TAG), [REF])
    assert not pattern.covers(build("refs/tags/v9", build_signer_uri=shared + "refs/tags/v9"), [REF])


def test_more_held_against_it_than_against_the_first_is_news() -> None:
    pattern = pattern_of(build(), {"ref", "trigger"})
    assert pattern.covers(build(), [REF])
    assert not pattern.covers(build(), [REF, "rate"])


@pytest.mark.parametrize("reason", ["rate", "time-windows", "unreadable-part", "logged-after-expiry", "signer-unknown"])
def test_what_is_no_matter_of_who_signs_makes_no_pattern(reason: str) -> None:
    with pytest.raises(NoPattern, match=reason):
        pattern_of(build(), {"ref", reason})


def test_a_key_is_known_by_its_fingerprint() -> None:
    key = Signer(SignerForm.KEY, fingerprints=("ab" * 32,), trust=ChainTrust.NO_CERTIFICATE)
    pattern = pattern_of(key, {"authorised"})
    assert pattern.covers(key, ["authorised"])
    assert not pattern.covers(replace(key, fingerprints=("cd" * 32,)), ["authorised"])


def test_of_a_person_it_says_that_everything_is_expected() -> None:
    alice = Signer(SignerForm.CERTIFICATE, (Name(NameForm.EMAIL, "alice@acme.example"),), "https://idp.example")
    told = " ".join(pattern_of(alice, {"authorised"}).sentences())
    assert "alice@acme.example" in told
    assert "For any artifact" in told


def test_every_reason_it_answers_is_one_there_is() -> None:
    pages = {page.stem for page in (ROOT / "docs" / "expectations").glob("*.md")}
    assert pages >= _ANSWERED
    assert ID in pages

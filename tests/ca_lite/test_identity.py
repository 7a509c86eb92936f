"""Each issuer type turns a token into exactly one name, or says why not."""

from typing import Any

import pytest
import yaml

from ca_lite.errors import CaRefused
from ca_lite.identity import challenges_of, is_email, principal_for
from ca_lite.issuer_config import load_issuers
from ca_lite.issuers import Issuer
from sigstore_entries.signing import NameForm

URL = "https://issuer.example.com"


def issuer(kind: str, url: str = URL, **more: str | bool) -> Issuer:
    entry = {"issuer-url": url, "client-id": "sigstore", "type": kind}
    entry.update({key.replace("_", "-"): value for key, value in more.items()})  # type: ignore[misc]
    return load_issuers(yaml.safe_dump({"oidc-issuers": {url: entry}}), "test").exact[url]


def claims(**more: Any) -> dict[str, Any]:
    return {"iss": URL, "sub": "subject", **more}


GITLAB = claims(
    ci_config_ref_uri="gitlab.com/acme/widget//.gitlab-ci.yml@refs/heads/main",
    ci_config_sha="c" * 40,
    runner_environment="gitlab-hosted",
    project_path="acme/widget",
    sha="d" * 40,
    ref="main",
    ref_type="branch",
    project_id=7,
    namespace_path="acme",
    namespace_id="8",
    pipeline_source="push",
    job_id=99.0,
    project_visibility="private",
)
BUILDKITE = claims(
    organization_slug="acme",
    pipeline_slug="widget",
    build_number=12,
    job_id="j1",
    runner_environment="self-hosted",
    build_commit="e" * 40,
    build_source="webhook",
)


@pytest.mark.parametrize(
    ("configured", "token", "form", "name"),
    [
        (issuer("email"), claims(email="a@b.c", email_verified=True), NameForm.EMAIL, "a@b.c"),
        (issuer("email"), claims(email="a@b.c", email_verified="true"), NameForm.EMAIL, "a@b.c"),
        (issuer("email", skip_email_verification=True), claims(email="a@b.c"), NameForm.EMAIL, "a@b.c"),
        (
            issuer("uri", subject_domain="https://example.com"),
            claims(sub="https://example.com/robot"),
            NameForm.URI,
            "https://example.com/robot",
        ),
        (issuer("username", subject_domain="example.com"), claims(sub="bob"), NameForm.OTHER, "bob!example.com"),
        (
            issuer("spiffe", spiffe_trust_domain="example.org"),
            claims(sub="spiffe://example.org/ns/a"),
            NameForm.URI,
            "spiffe://example.org/ns/a",
        ),
        (
            issuer("kubernetes"),
            claims(**{"kubernetes.io": {"namespace": "n", "serviceaccount": {"name": "s"}}}),
            NameForm.URI,
            "https://kubernetes.io/namespaces/n/serviceaccounts/s",
        ),
        (
            issuer("ci-provider", ci_provider="gitlab-pipeline"),
            GITLAB,
            NameForm.URI,
            "https://gitlab.com/acme/widget//.gitlab-ci.yml@refs/heads/main",
        ),
        (
            issuer("ci-provider", ci_provider="buildkite-job"),
            BUILDKITE,
            NameForm.URI,
            "https://buildkite.com/acme/widget",
        ),
    ],
    ids=["email", "email-text", "email-skip", "uri", "username", "spiffe", "kubernetes", "gitlab", "buildkite"],
)
def test_a_token_becomes_the_name_its_type_says(
    configured: Issuer, token: dict[str, Any], form: NameForm, name: str
) -> None:
    principal = principal_for(configured, token)
    assert (principal.form, principal.name) == (form, name)
    assert principal.claims["issuer"] == principal.claims["issuer_v1"] == URL
    assert principal.claims["token_subject"] == token["sub"]


def test_gitlab_refs_and_numbers_are_spelled_out() -> None:
    found = principal_for(issuer("ci-provider", ci_provider="gitlab-pipeline"), GITLAB).claims
    assert found["source_repository_ref"] == "refs/heads/main"
    assert found["source_repository_identifier"] == "7"
    assert found["run_invocation_uri"] == "https://gitlab.com/acme/widget/-/jobs/99"
    assert "deployment_environment" not in found
    tagged = principal_for(issuer("ci-provider", ci_provider="gitlab-pipeline"), {**GITLAB, "ref_type": "tag"}).claims
    assert tagged["source_repository_ref"] == "refs/tags/main"


def test_a_dex_style_issuer_claim_replaces_the_issuer() -> None:
    configured = issuer("email", issuer_claim="$.federated_claims.connector_id")
    token = claims(email="a@b.c", email_verified=True, federated_claims={"connector_id": "https://accounts.example"})
    assert principal_for(configured, token).claims["issuer"] == "https://accounts.example"
    with pytest.raises(CaRefused) as refused:
        principal_for(configured, claims(email="a@b.c", email_verified=True))
    assert refused.value.reason == "ISSUER_CLAIM_MISSING"


@pytest.mark.parametrize(
    ("configured", "token", "reason"),
    [
        (issuer("email"), claims(sub="\ud800", email="a@b.c", email_verified=True), "IDENTITY_UNENCODABLE"),
        (issuer("username", subject_domain="example.com"), claims(sub="b!ob"), "USERNAME_INVALID"),
        (issuer("username", subject_domain="example.com"), claims(sub="b@example.com"), "USERNAME_INVALID"),
        (issuer("uri", subject_domain="https://example.com"), claims(sub="http://example.com/x"), "URI_MISMATCH"),
        (issuer("uri", subject_domain="https://example.com"), claims(sub="https://example.com.evil/"), "URI_MISMATCH"),
        (issuer("uri", subject_domain="https://example.com"), claims(sub="https://example.com/\tx"), "URI_INVALID"),
        (issuer("uri", subject_domain="https://example.com"), claims(sub="https://[x"), "URI_MISMATCH"),
        (issuer("spiffe", spiffe_trust_domain="example.org"), claims(sub="spiffe://other.org/x"), "SPIFFE_MISMATCH"),
        (
            issuer("spiffe", spiffe_trust_domain="example.org"),
            claims(sub="spiffe://example.org.evil"),
            "SPIFFE_MISMATCH",
        ),
        (
            issuer("spiffe", spiffe_trust_domain="example.org"),
            claims(sub="spiffe://example.org/a/../b"),
            "SPIFFE_MISMATCH",
        ),
        (issuer("spiffe", spiffe_trust_domain="example.org"), claims(sub="spiffe://example.org/"), "SPIFFE_MISMATCH"),
        (
            issuer("spiffe", spiffe_trust_domain="example.org"),
            claims(sub="spiffe://example.org/a//b"),
            "SPIFFE_MISMATCH",
        ),
        (issuer("kubernetes"), claims(**{"kubernetes.io": "no"}), "CLAIM_MISSING"),
        (issuer("kubernetes"), claims(), "CLAIM_MISSING"),
        (issuer("ci-provider", ci_provider="buildkite-job"), claims(), "CLAIM_MISSING"),
        (issuer("ci-provider", ci_provider="buildkite-job"), {**BUILDKITE, "build_number": [1]}, "CLAIM_MISSING"),
        (issuer("email"), claims(sub=""), "SUBJECT_MISSING"),
        (issuer("email"), claims(sub="x" * 3000), "SUBJECT_MISSING"),
    ],
)
def test_what_does_not_fit_is_refused(configured: Issuer, token: dict[str, Any], reason: str) -> None:
    with pytest.raises(CaRefused) as refused:
        principal_for(configured, token)
    assert refused.value.reason == reason


def test_a_ci_name_with_spaces_is_percent_encoded() -> None:
    token = {**BUILDKITE, "pipeline_slug": "my pipe"}
    assert principal_for(issuer("ci-provider", ci_provider="buildkite-job"), token).name.endswith("/my%20pipe")


def test_either_email_or_subject_may_be_signed() -> None:
    assert challenges_of({"email": "a@b.c", "sub": "s"}) == ("a@b.c", "s")
    assert challenges_of({"email": "s", "sub": "s"}) == ("s",)
    assert challenges_of({"email": 1, "sub": ""}) == ()


@pytest.mark.parametrize("text", ["a@b", "a.b+c@d.example", "x" * 50 + "@d.example"])
def test_plain_addresses_are_addresses(text: str) -> None:
    assert is_email(text)


@pytest.mark.parametrize(
    "text", ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b\n", ".a@b", "a..b@c", "a@-b", "a" * 251 + "@b.c"]
)
def test_anything_else_is_not(text: str) -> None:
    assert not is_email(text)

"""Verdict tables. Each table opens with the control case: a signing that meets the expectation."""

import pytest

from rules.judge import judge
from rules.learning import learn
from rules.matching.matcher import compile_rules
from rules.rule import Case, Outcome, Reason, unmet
from rules.selection import matching_signers, names_of
from rules.subject import read_subject
from sigstore_entries.signing import ChainTrust, Name, NameForm, Signer, SignerForm, Signing
from tests.rules.signings import DIGEST, REPOSITORY, SEEN_AT, WHERE, WORKFLOW, email_signer, rule, signer, signing
from tests.support.memory_facts import MemoryFacts

ANY_RELEASE = '{identity: {glob: "https://github.com/acme/widget/*"}}'
CONTROL = None
Claims = dict[str, str | None]

CLAIM_TABLE: list[tuple[str, str, Claims, str | None]] = [
    ("workflow", ".github/workflows/release.yml", {}, CONTROL),
    ("workflow", WORKFLOW, {}, CONTROL),
    ("workflow", '{glob: ".github/workflows/rel*.yml"}', {}, CONTROL),
    ("workflow", ".github/workflows/release.yml", {"build_config_uri": f"{WORKFLOW}@refs/heads/a@b"}, CONTROL),
    ("workflow", ".github/workflows/release.yml", {"build_config_uri": f"{REPOSITORY}/x.yml@refs/tags/v1"}, "workflow"),
    (
        "workflow",
        ".github/workflows/release.yml",
        {"build_config_uri": f"{WORKFLOW}@refs.yml@refs/tags/v1"},
        "workflow",
    ),
    ("workflow", ".github/workflows/release.yml", {"build_config_uri": None}, "workflow"),
    ("workflow", ".github/workflows/release.yml", {"source_repository_uri": None}, "workflow"),
    ("workflow", ".github/workflows/release.yml", {"source_repository_uri": "https://github.com/ev/il"}, "workflow"),
    ("builder", WORKFLOW, {}, CONTROL),
    ("builder", f"{WORKFLOW}@refs/tags/v1.2.3", {}, CONTROL),
    ("builder", WORKFLOW, {"build_signer_uri": "https://github.com/ev/il/.github/workflows/release.yml@x"}, "builder"),
    ("builder", WORKFLOW, {"build_signer_uri": None}, "builder"),
    ("ref", '{glob: "refs/tags/v*"}', {}, CONTROL),
    ("ref", '{regex: "refs/tags/v[0-9.]+"}', {}, CONTROL),
    ("ref", "[refs/heads/main, refs/tags/v1.2.3]", {}, CONTROL),
    ("ref", '{glob: "refs/tags/v*"}', {"source_repository_ref": "refs/heads/main"}, "ref"),
    ("ref", '{glob: "refs/tags/v*"}', {"source_repository_ref": None}, CONTROL),  # older certificates carry only .6
    ("ref", '{glob: "refs/tags/v*"}', {"source_repository_ref": None, "github_workflow_ref": None}, "ref"),
    ("ref", '{glob: "refs/tags/v*"}', {"github_workflow_ref": "refs/heads/main"}, "ref"),  # the two disagree
    ("ref", '{regex: "tags"}', {}, "ref"),  # anchored: a part does not match
    ("trigger", "[push, release]", {}, CONTROL),
    ("trigger", "[push, release]", {"build_trigger": "workflow_dispatch"}, "trigger"),
    ("trigger", "[push]", {"build_trigger": None, "github_workflow_trigger": None}, "trigger"),
    ("runner", "github-hosted", {}, CONTROL),
    ("runner", "github-hosted", {"runner_environment": "self-hosted"}, "runner"),
    ("runner", "github-hosted", {"runner_environment": None}, "runner"),
    ("repository", REPOSITORY, {}, CONTROL),
    ("repository", "acme/widget", {}, CONTROL),
    ("repository", "acme/widget", {"source_repository_uri": "https://gitlab.com/acme/widget"}, "repository"),
    ("repository", "acme/widget", {"source_repository_uri": "https://github.com/acme/widget2"}, "repository"),
    ("repository", REPOSITORY, {"source_repository_uri": None, "github_workflow_repository": None}, "repository"),
    ("repository", "https://github.com/ACME/Widget", {}, CONTROL),
    ("repository", "ACME/Widget", {}, CONTROL),
    ("repository", "{regex: 'https://github\\.com/ACME/[a-z]+'}", {}, CONTROL),
    ("workflow", "https://github.com/ACME/Widget/.github/workflows/release.yml", {}, CONTROL),
    ("workflow", "https://github.com/ACME/Widget/.github/workflows/Release.yml", {}, "workflow"),
    ("builder", "https://github.com/ACME/Widget/.github/workflows/release.yml", {}, CONTROL),
    ("builder", "https://github.com/ACME/Widget/.github/workflows/Release.yml", {}, "builder"),
    ("repository_identifier", "123456789", {}, CONTROL),
    ("repository_identifier", '"123456789"', {"source_repository_identifier": "1"}, "repository-identifier"),
    ("repository_identifier", "123456789", {"source_repository_identifier": None}, "repository-identifier"),
    ("owner_identifier", "4711", {}, CONTROL),
    ("owner_identifier", "4711", {"source_repository_owner_identifier": "47110"}, "owner-identifier"),
    ("owner_identifier", "4711", {"source_repository_owner_identifier": None}, "owner-identifier"),
    ("visibility", "public", {}, CONTROL),
    ("visibility", "public", {"source_repository_visibility": "private"}, "visibility"),
    ("visibility", "public", {"source_repository_visibility": None}, "visibility"),
    ("environment", "release", {"deployment_environment": "release"}, CONTROL),
    ("environment", "release", {"deployment_environment": "staging"}, "environment"),
    ("environment", "release", {}, "environment"),
    ("issuer", "https://token.actions.githubusercontent.com", {}, CONTROL),
    ("issuer", "https://token.actions.githubusercontent.com", {"issuer": "https://evil.example"}, "issuer"),
    ("issuer", "https://token.actions.githubusercontent.com", {"issuer": None}, "issuer"),
]


@pytest.mark.parametrize(("key", "value", "claims", "reason"), CLAIM_TABLE)
def test_a_claim_expectation_is_met_or_names_itself(key: str, value: str, claims: Claims, reason: str | None) -> None:
    verdict = judge(rule(ANY_RELEASE, f"{{{key}: {value}}}"), signing(claims), MemoryFacts().facts, SEEN_AT)
    if reason is CONTROL:
        assert (verdict.outcome, verdict.reasons) == (Outcome.EXPECTED, ())
    else:
        assert verdict.outcome is Outcome.UNEXPECTED
        assert reason in {each.id for each in verdict.reasons}


@pytest.mark.parametrize(("key", "value", "claims", "reason"), CLAIM_TABLE)
def test_a_claim_has_the_reasons_that_its_explanation_shows(
    key: str, value: str, claims: Claims, reason: str | None
) -> None:
    under, shown = rule(ANY_RELEASE, f"{{{key}: {value}}}"), signing(claims)
    (expectation,) = under.expect
    case = Case(under, shown, shown.signers[0], MemoryFacts().facts, SEEN_AT)
    refused = [each for each in expectation.checks(case) if not each.ok]
    assert list(unmet(expectation, case)) == [
        Reason(expectation.id, each.sentence, each.expected, each.found) for each in refused
    ]
    assert bool(refused) is (reason is not CONTROL)


def test_every_reason_is_told_and_not_only_the_first() -> None:
    under = rule(ANY_RELEASE, '{ref: {glob: "refs/tags/v*"}, trigger: push, runner: github-hosted}')
    bent = signing({"source_repository_ref": "refs/heads/x", "build_trigger": "schedule", "runner_environment": "mine"})
    verdict = judge(under, bent, MemoryFacts().facts, SEEN_AT)
    assert {each.id for each in verdict.reasons} == {"ref", "trigger", "runner"}
    found = {each.id: each.found for each in verdict.reasons}
    assert found == {"ref": "refs/heads/x", "trigger": "schedule", "runner": "mine"}


def test_a_rule_without_expectations_makes_every_match_news() -> None:
    verdict = judge(rule(ANY_RELEASE), signing(), MemoryFacts().facts, SEEN_AT)
    assert verdict.outcome is Outcome.UNEXPECTED
    assert [each.id for each in verdict.reasons] == ["no-expectations"]


EXPECT_TAG = '{ref: {glob: "refs/tags/v*"}}'


@pytest.mark.parametrize(
    ("trust", "outcome", "reasons"),
    [
        (ChainTrust.TRUSTED, Outcome.EXPECTED, []),
        (ChainTrust.UNTRUSTED, Outcome.UNVERIFIED, ["untrusted-chain"]),
        (ChainTrust.NOT_CHECKED, Outcome.UNEXPECTED, ["chain-not-checked"]),
        (ChainTrust.NO_CERTIFICATE, Outcome.UNVERIFIED, ["name-alone"]),
    ],
)
def test_the_chain_decides_after_the_match(trust: ChainTrust, outcome: Outcome, reasons: list[str]) -> None:
    verdict = judge(rule(ANY_RELEASE, EXPECT_TAG), signing(trust=trust), MemoryFacts().facts, SEEN_AT)
    assert (verdict.outcome, [each.id for each in verdict.reasons]) == (outcome, reasons)


def test_an_untrusted_chain_still_lists_what_else_was_wrong() -> None:
    bent = signing({"source_repository_ref": "refs/heads/x"}, trust=ChainTrust.UNTRUSTED)
    verdict = judge(rule(ANY_RELEASE, EXPECT_TAG), bent, MemoryFacts().facts, SEEN_AT)
    assert verdict.outcome is Outcome.UNVERIFIED
    assert {"untrusted-chain", "ref"} <= {each.id for each in verdict.reasons}


def test_a_part_nobody_could_read_makes_a_signing_unexpected() -> None:
    verdict = judge(
        rule(ANY_RELEASE, EXPECT_TAG),
        signing(defects=("claim:build_trigger: appears twice",)),
        MemoryFacts().facts,
        SEEN_AT,
    )
    assert verdict.outcome is Outcome.UNEXPECTED
    assert [(each.id, each.found) for each in verdict.reasons] == [
        ("unreadable-part", "claim:build_trigger: appears twice")
    ]


def test_the_worst_signer_of_an_entry_decides() -> None:
    under = rule(ANY_RELEASE, EXPECT_TAG)
    good, bad = signer(), signer({"source_repository_ref": "refs/heads/x"})
    self_made = signer(trust=ChainTrust.UNTRUSTED)

    def outcome(*signers: Signer) -> Outcome:
        return judge(under, signing(signers=signers), MemoryFacts().facts, SEEN_AT).outcome

    assert outcome(good) is Outcome.EXPECTED
    assert outcome(good, bad) is outcome(bad, good) is Outcome.UNEXPECTED
    assert outcome(good, self_made) is Outcome.UNVERIFIED
    assert outcome(self_made, bad) is Outcome.UNEXPECTED
    assert outcome(good, email_signer()) is Outcome.EXPECTED  # the other signer is not selected


def test_a_plain_key_is_judged_without_a_chain() -> None:
    key = Signer(
        SignerForm.PGP, (Name(NameForm.PGP_USER_ID, "Acme <release@acme.example>"),), fingerprints=("A1" * 20,)
    )
    entry = Signing(WHERE, "rekord", "0.0.1", (key,))
    selected = rule(f"{{fingerprint: {'a1' * 20}}}")
    assert judge(selected, entry, MemoryFacts().facts, SEEN_AT).outcome is Outcome.UNEXPECTED
    assert DIGEST not in str(entry)


GHE: Claims = {
    "issuer": "https://token.actions.acme.ghe.com",
    "source_repository_uri": "https://acme.ghe.com/acme/widget",
    "build_config_uri": "https://acme.ghe.com/acme/widget/.github/workflows/release.yml@refs/tags/v1.2.3",
}
GITLAB: Claims = {
    "issuer": "https://gitlab.acme.example",
    "source_repository_uri": "https://gitlab.com/group/proj",
    "build_config_uri": "https://gitlab.acme.example/group/proj//.gitlab-ci.yml@refs/tags/v1.2.3",
    "github_workflow_repository": None,
}


@pytest.mark.parametrize(
    ("claims", "expect", "reasons"),
    [
        (GHE, "{repository: https://acme.ghe.com/Acme/widget}", []),
        (GHE, "{repository: https://github.com/acme/widget}", ["repository"]),
        (GHE, "{repository: acme/widget}", ["repository"]),
        (GHE | {"source_repository_uri": None}, "{repository: https://acme.ghe.com/acme/widget}", []),
        (GHE | {"source_repository_uri": None}, "{repository: https://github.com/acme/widget}", ["repository"]),
        (GHE, "{workflow: .github/workflows/release.yml}", []),
        (GITLAB, "{workflow: .gitlab-ci.yml}", []),
        (GITLAB, "{workflow: other.yml}", ["workflow"]),
        (GITLAB, "{repository: https://gitlab.acme.example/group/proj}", []),
        (GITLAB, "{repository: https://gitlab.com/group/proj}", ["repository"]),
        (
            GITLAB | {"source_repository_uri": "https://gitlab.com/ev/il"},
            "{workflow: .gitlab-ci.yml}",
            ["repository", "workflow"],
        ),
        (GITLAB | {"source_repository_uri": "https://gitlab.com/ev/il"}, "{trigger: push}", ["repository"]),
        (GITLAB | {"issuer": "https://evil.example"}, "{trigger: push}", ["repository"]),
        (GITLAB | {"issuer": "https://gitlab.com"}, "{trigger: push}", ["repository"]),
    ],
)
def test_a_repository_is_on_the_host_that_the_certificate_means(
    claims: Claims, expect: str, reasons: list[str]
) -> None:
    name = Name(NameForm.URI, str(claims["build_config_uri"]))
    verdict = judge(
        rule("{identity: {glob: '*'}}", expect), signing(claims, names=(name,)), MemoryFacts().facts, SEEN_AT
    )
    assert list(dict.fromkeys(reason.id for reason in verdict.reasons)) == list(dict.fromkeys(reasons))


@pytest.mark.parametrize(
    ("select", "selected"),
    [
        ("{identity: {glob: 'https://github.com/ACME/Widget/*'}}", True),
        ("{identity: {glob: 'https://github.com/ACME/Widget/*', ignore_case: false}}", False),
        ("{source_repository_uri: https://github.com/ACME/Widget}", True),
        ("{source_repository_owner_uri: https://github.com/ACME}", True),
        ("{github_workflow_repository: ACME/Widget}", True),
        ("{identity: {regex: 'https://github\\.com/ACME/.*'}}", False),
        ("{identity: {regex: 'https://github\\.com/ACME/.*', ignore_case: true}}", True),
        ("{all: [{kind: hashedrekord}, {not: {identity: {glob: 'https://github.com/ACME/Widget/*'}}}]}", False),
        ("{all: [{kind: hashedrekord}, {not: {identity: {glob: 'https://github.com/acme/widget/*@REFS/*'}}}]}", True),
        ("{identity: {glob: 'https://git.example/ACME/*'}}", False),
    ],
)
def test_names_on_known_hosts_are_selected_in_any_case(select: str, selected: bool) -> None:
    entry = signing({"source_repository_owner_uri": "https://github.com/acme"})
    assert bool(matching_signers(rule(select).select, entry)) is selected
    assert bool(len(compile_rules([rule(select)]).confirm_all(entry))) is selected


def pgp(*user_ids: str, fingerprint: str = "A1" * 20) -> Signer:
    names = tuple(Name(NameForm.PGP_USER_ID, user_id) for user_id in user_ids)
    return Signer(SignerForm.PGP, names, fingerprints=(fingerprint,), trust=ChainTrust.NO_CERTIFICATE)


PINNED = f"fingerprint: {'a1' * 20}"


@pytest.mark.parametrize(
    ("select", "signer", "outcome"),
    [
        ("{identity: alice@acme.example}", pgp("alice@acme.example"), Outcome.UNVERIFIED),
        (f"{{{PINNED}}}", pgp("alice@acme.example"), Outcome.UNEXPECTED),
        (f"{{{PINNED}, identity: alice@acme.example}}", pgp("alice@acme.example"), Outcome.UNEXPECTED),
        (f"{{any: [{{{PINNED}}}, {{identity: alice@acme.example}}]}}", pgp("alice@acme.example"), Outcome.UNEXPECTED),
        (
            f"{{any: [{{{PINNED}}}, {{identity: alice@acme.example}}]}}",
            pgp("alice@acme.example", fingerprint="B2" * 20),
            Outcome.UNVERIFIED,
        ),
        (
            f"{{identity: alice@acme.example, not: {{{PINNED}}}}}",
            pgp("alice@acme.example", fingerprint="B2" * 20),
            Outcome.UNVERIFIED,
        ),
        (f"{{digest: 'sha256:{DIGEST}'}}", pgp("alice@acme.example"), Outcome.UNEXPECTED),
        (f"{{{PINNED}}}", email_signer(fingerprints=("a1" * 20,), trust=ChainTrust.UNTRUSTED), Outcome.UNEXPECTED),
        ("{identity: alice@acme.example}", email_signer(trust=ChainTrust.UNTRUSTED), Outcome.UNVERIFIED),
    ],
)
def test_a_key_selected_by_its_name_alone_is_unverified_and_by_its_fingerprint_is_not(
    select: str, signer: Signer, outcome: Outcome
) -> None:
    entry = signing(signers=(signer,))
    assert judge(rule(select), entry, MemoryFacts().facts, SEEN_AT).outcome is outcome


def test_nothing_that_a_self_made_certificate_says_of_a_named_key_is_believed() -> None:
    forged = email_signer(fingerprints=("a1" * 20,), trust=ChainTrust.UNTRUSTED)
    verdict = judge(
        rule(f"{{{PINNED}}}", "{issuer: https://accounts.google.com}"),
        signing(signers=(forged,)),
        MemoryFacts().facts,
        SEEN_AT,
    )
    assert (verdict.outcome, [reason.id for reason in verdict.reasons]) == (Outcome.UNEXPECTED, ["issuer"])
    allowed = rule(f"{{{PINNED}}}", f"{{digests: 'sha256:{DIGEST}'}}")
    assert judge(allowed, signing(signers=(forged,)), MemoryFacts().facts, SEEN_AT).outcome is Outcome.EXPECTED


def test_a_self_managed_gitlab_is_learned_and_filed_under_its_own_host() -> None:
    workflow = str(GITLAB["build_config_uri"])
    release = signing(GITLAB, names=(Name(NameForm.URI, workflow),))
    subject = read_subject("https://gitlab.acme.example/group/proj")
    assert subject.key in set(names_of(release))
    learned = {part.key: part.expect for part in learn(subject, [release] * 3)}
    assert learned["repository"] == "https://gitlab.acme.example/group/proj"
    assert learned["workflow"] == ".gitlab-ci.yml"
    under = rule("{identity: {glob: '*'}}", f"{{repository: {learned['repository']}, workflow: {learned['workflow']}}}")
    assert judge(under, release, MemoryFacts().facts, SEEN_AT).outcome is Outcome.EXPECTED


@pytest.mark.parametrize(
    ("name", "issuers"),
    [
        ("https://github.com/acme/widget", ["https://token.actions.githubusercontent.com"]),
        ("https://gitlab.com/acme/widget", ["https://gitlab.com"]),
        ("https://gitlab.acme.example/acme/widget", ["https://gitlab.acme.example"]),
        ("https://acme.ghe.com/acme/widget", ["https://token.actions.acme.ghe.com"]),
        ("https://github.acme.example/acme/widget", ["https://github.acme.example/_services/token"]),
        ("https://code.acme.example/a/b", ["https://code.acme.example/_services/token", "https://code.acme.example"]),
    ],
)
def test_a_repository_on_any_host_is_guessed_at_before_anything_was_signed(name: str, issuers: list[str]) -> None:
    subject = read_subject(name)
    learned = {part.key: part.expect for part in learn(subject, [])}
    assert learned["issuer"] == (issuers if len(issuers) > 1 else issuers[0])
    assert learned["repository"] == name

"""Hints, explanations, starter rules and imported configurations."""

import itertools
from contextlib import suppress
from datetime import timedelta

import pytest

from rules.facts import Authorisation, parse_digest_list
from rules.judge import explain, judge
from rules.learning import learn
from rules.lint import Hint, HintId, lint
from rules.matching.matcher import compile_rules
from rules.pattern import Pattern, PatternForm
from rules.rekor_monitor import import_rekor_monitor, split_alternatives
from rules.rule import Outcome, Rule, RuleSet
from rules.rule_file import load_rules
from rules.selection import digest_text, walk
from rules.starter import learned
from rules.starter import starter as starter_of
from rules.subject import read_subject
from settings.document import DocumentError
from sigstore_entries.signing import Name, NameForm, Signer, SignerForm, Signing
from tests.rules.signings import (
    GITHUB,
    REPOSITORY,
    SEEN_AT,
    TAG,
    WHERE,
    WORKFLOW,
    email_signer,
    rule,
    signer,
    signing,
)
from tests.support.memory_facts import MemoryFacts

EXPECT = "{issuer: https://token.actions.githubusercontent.com}"
RELEASES = '{identity: {glob: "https://github.com/acme/widget/*"}}'


def hints(select: str, expect: str = EXPECT) -> list[str]:
    return [hint.id for hint in lint(RuleSet((rule(select, expect),)))]


@pytest.mark.parametrize(
    ("select", "expect", "expected"),
    [
        (RELEASES, EXPECT, []),
        ("{identity: alice@acme.example}", EXPECT, []),
        ('{identity: {regex: "https://github\\\\.com/acme/widget/.*"}}', EXPECT, ["case-sensitive"]),
        ('{identity: {regex: "https://github\\\\.com/acme/widget/.*", ignore_case: true}}', EXPECT, []),
        ('{identity: {regex: "(?i)https://github\\\\.com/acme/widget/.*"}}', EXPECT, []),
        ("{source_repository_uri: https://gitlab.acme.example/group/proj}", EXPECT, ["two-hosts"]),
        ("{source_repository_uri: https://git.acme.example/group/proj}", EXPECT, ["two-hosts"]),
        ("{source_repository_owner_uri: https://gitlab.acme.example/group}", EXPECT, ["two-hosts"]),
        ("{source_repository_uri: https://github.acme.example/acme/widget}", EXPECT, []),
        ("{source_repository_uri: https://acme.ghe.com/acme/widget}", EXPECT, []),
        ("{source_repository_uri: https://gitlab.com/group/proj}", EXPECT, []),
        (RELEASES, "", ["no-expectations"]),
        ("{kind: dsse, all: [{kind: rekord}]}", EXPECT, ["never-matches", "too-broad"]),
        ("{token_subject: a-long-one, all: [{token_subject: {glob: 'another*'}}]}", EXPECT, ["never-matches"]),
        ("{identity: alice@acme.example, not: {identity: alice@acme.example}}", EXPECT, ["never-matches"]),
        (f"{{issuer: {GITHUB}}}", EXPECT, ["too-broad"]),
        ("{runner_environment: self-hosted}", EXPECT, ["too-broad"]),
        ("{identity: {regex: '[a-z]+'}}", EXPECT, ["unindexed"]),
        ("{not: {identity: alice@acme.example}}", EXPECT, ["too-broad", "unindexed"]),
        ('{identity: "https://github.com/acme/widget/*"}', EXPECT, ["looks-like-a-pattern"]),
        ("{identity: {regex: '(alice|bob)@acme.example'}}", EXPECT, ["unescaped-dot"]),
        ("{identity: {glob: 'https://github.com/acme*'}}", EXPECT, ["open-ended"]),
        ("{identity: {regex: 'https://github\\.com/acme.*', ignore_case: true}}", EXPECT, ["open-ended"]),
        ("{identity: a@acme.example, issuer: https://token.actions.githubusercontent.co}", EXPECT, ["unknown-issuer"]),
        ("{identity: {regex: 'acme.example'}}", EXPECT, ["whole-value"]),
        ("{identity: {regex: '^alice@acme\\.example$'}}", EXPECT, ["whole-value"]),
        ("{identity: {regex: '.*@acme\\.example'}}", EXPECT, []),
        ("{identity: {glob: '*'}}", EXPECT, ["too-broad", "unindexed"]),
        ("{identity: {glob: '*github*'}}", EXPECT, ["too-broad"]),
        ("{source_repository_uri: {glob: 'https://github.com/*'}}", EXPECT, ["too-broad"]),
        ("{any: [{identity: alice@acme.example}, {identity: {regex: '.*@gmail\\.com'}}]}", EXPECT, ["too-broad"]),
        ("{identity: {glob: '*'}, issuer: https://issuer.acme.example}", EXPECT, []),
        ("{identity: alice@acme.example, kind: precertificate}", "{log_entry_within: 1h}", ["never-followed"]),
        ("{identity: alice@acme.example}", "{log_entry_within: 1h}", []),
        (RELEASES, "{ref: v1}", ["ref-without-refs"]),
        (RELEASES, "{ref: refs/tags/v1}", []),
    ],
)  # fmt: skip
def test_a_hint_is_given_where_it_is_due_and_nowhere_else(select: str, expect: str, expected: list[str]) -> None:
    assert hints(select, expect) == expected


def test_rules_are_compared_with_each_other() -> None:
    text = "version: 1\nrules:\n" + "".join(
        f"  - {{id: {name}, select: {select}, expect: {expect}}}\n"
        for name, select, expect in (
            ("one", "{identity: alice@acme.example}", EXPECT),
            ("same", "{identity: alice@acme.example}", EXPECT),
            ("other", "{identity: alice@acme.example}", "{same_issuer: true}"),
            ("broad", "{identity: {glob: '*@kite.example'}}", EXPECT),
            ("inside", "{identity: bob@kite.example}", EXPECT),
            ("outside", "{identity: bob@skies.example}", EXPECT),
        )
    )
    found = [(hint.id, hint.rule, hint.line) for hint in lint(load_rules(text))]
    assert found == [
        (HintId.DUPLICATE, "same", 4),
        (HintId.CONFLICT, "other", 5),
        (HintId.SHADOWED, "inside", 7),
    ]


def test_a_hint_carries_its_place() -> None:
    (hint,) = lint(RuleSet((rule(RELEASES),)))
    assert (hint.line, hint.column) == (3, 5)
    assert isinstance(hint, Hint)


def test_an_explanation_shows_every_value_met_or_not() -> None:
    under = rule(RELEASES, '{ref: {glob: "refs/tags/v*"}, trigger: [push]}')
    told = explain(under, signing({"build_trigger": "schedule"}), MemoryFacts().facts, SEEN_AT)
    rows = {(row.part, row.label): (row.expected, row.found, row.ok) for row in told.rows}
    assert told.selected
    assert told.verdict == judge(under, signing({"build_trigger": "schedule"}), MemoryFacts().facts, SEEN_AT)
    assert rows["select", "identity"] == (
        "glob:https://github.com/acme/widget/* (any case)",
        f"{WORKFLOW}@{TAG}",
        True,
    )
    assert rows["expect", "ref: source_repository_ref"] == ("glob:refs/tags/v*", TAG, True)
    assert rows["expect", "trigger: build_trigger"] == ("push", "schedule", False)


def test_an_explanation_tells_why_a_rule_does_not_select() -> None:
    under = rule("{identity: alice@acme.example, not: {issuer: https://accounts.google.com}}")
    told = explain(under, signing(signers=(email_signer(),)), MemoryFacts().facts, SEEN_AT)
    assert (told.selected, told.verdict) == (False, None)
    assert [(row.label, row.ok) for row in told.rows] == [
        ("identity", True),
        ("issuer", False),
        ("all of these", False),
    ]


def starter(subject: str) -> Rule:
    return load_rules(starter_of(subject).text).rules[0]


@pytest.mark.parametrize(
    "url",
    [
        REPOSITORY,
        f"{REPOSITORY}/",
        f"{REPOSITORY}.git",
        "git@github.com:acme/widget.git",
        "ssh://git@github.com/acme/widget",
        "github.com/acme/widget",
        "https://www.github.com/acme/widget",
        "https://github.com:443/acme/widget",
        f"{REPOSITORY}/tree/main/docs",
        f"{REPOSITORY}?tab=readme-ov-file#widget",
    ],
)
def test_a_repository_url_becomes_a_rule_that_knows_its_releases(url: str) -> None:
    made = starter(url)
    matcher = compile_rules([made])
    assert not matcher.unindexed
    assert list(matcher.confirm_all(signing())) == [made]
    assert judge(made, signing(), MemoryFacts().facts, SEEN_AT).outcome is Outcome.EXPECTED
    on_main = signing({"source_repository_ref": "refs/heads/main", "github_workflow_ref": "refs/heads/main"})
    assert judge(made, on_main, MemoryFacts().facts, SEEN_AT).outcome is Outcome.UNEXPECTED
    borrowed = signing({"source_repository_uri": "https://github.com/ev/il", "github_workflow_repository": "ev/il"})
    assert judge(made, borrowed, MemoryFacts().facts, SEEN_AT).outcome is Outcome.UNEXPECTED
    built_elsewhere = signer(
        names=(Name(NameForm.URI, "https://github.com/slsa/gen/.github/workflows/g.yml@refs/tags/v1"),)
    )
    assert len(matcher.confirm_all(signing(signers=(built_elsewhere,)))) == 1
    assert {hint.id for hint in lint(RuleSet((made,)))} == set()


@pytest.mark.parametrize("url", ["https://github.com/acme/../widget", "https://github.com/./acme", f"{REPOSITORY}/.."])
def test_an_address_that_no_certificate_names_becomes_no_rule(url: str) -> None:
    with pytest.raises(ValueError, match=r"\.\. in its path"):
        starter(url)


HOSTS = {
    "https://acme.ghe.com": ["https://token.actions.acme.ghe.com"],
    "https://github.acme.example": ["https://github.acme.example/_services/token"],
    "https://gitlab.acme.example:8443": ["https://gitlab.acme.example:8443"],
    "https://git.acme.example": ["https://git.acme.example/_services/token", "https://git.acme.example"],
}


def claims_on(host: str, issuer: str, *, stated: str = "") -> dict[str, str | None]:
    """Claims of a release on a host; `stated` is the host in the claim about the source repository, when another."""
    return {
        "issuer": issuer,
        "source_repository_uri": f"{stated or host}/Acme/Widget",
        "build_signer_uri": f"{host}/Acme/Widget/.github/workflows/release.yml@refs/tags/v1.2.3",
        "build_config_uri": f"{host}/Acme/Widget/.github/workflows/release.yml@refs/tags/v1.2.3",
        "github_workflow_repository": None if stated else "Acme/Widget",
    }


def release_on(host: str, issuer: str, *, stated: str = "") -> Signing:
    claims = claims_on(host, issuer, stated=stated)
    return signing(claims, names=(Name(NameForm.URI, str(claims["build_signer_uri"])),))


@pytest.mark.parametrize("host", HOSTS)
def test_a_starter_rule_knows_hosts_other_than_the_public_ones(host: str) -> None:
    made = starter(f"{host}/acme/widget")
    assert {hint.id for hint in lint(RuleSet((made,)))} == set()
    for issuer in HOSTS[host]:
        release = release_on(host, issuer)
        assert list(compile_rules([made]).confirm_all(release)) == [made]
        assert judge(made, release, MemoryFacts(repository_identifiers={}).facts, SEEN_AT).reasons == ()
    strangers = release_on(host, "https://token.actions.githubusercontent.com")
    assert judge(made, strangers, MemoryFacts().facts, SEEN_AT).outcome is Outcome.UNEXPECTED
    elsewhere = release_on("https://github.com", "https://token.actions.githubusercontent.com")
    assert list(compile_rules([made]).confirm_all(elsewhere)) == []


@pytest.mark.parametrize("host", ["https://gitlab.acme.example:8443", "https://git.acme.example"])
def test_a_starter_rule_for_a_self_managed_gitlab_knows_what_fulcio_writes_of_it(host: str) -> None:
    made = starter(f"{host}/acme/widget")
    release = release_on(host, host, stated="https://gitlab.com")
    assert judge(made, release, MemoryFacts().facts, SEEN_AT).reasons == ()
    called = signing(
        claims_on(host, host, stated="https://gitlab.com"),
        names=(Name(NameForm.URI, f"{host}/ci/x//y.yml@refs/heads/m"),),
    )
    assert list(compile_rules([made]).confirm_all(called)) == [made]
    namesake = release_on("https://gitlab.com", "https://gitlab.com")
    assert list(compile_rules([made]).confirm_all(namesake)) == []


def test_a_starter_rule_selects_whatever_the_case_of_the_name() -> None:
    made = starter("https://github.com/aCME/widGET")
    assert list(compile_rules([made]).confirm_all(signing())) == [made]
    assert judge(made, signing(), MemoryFacts().facts, SEEN_AT).outcome is Outcome.EXPECTED


def test_every_signing_of_a_person_or_a_key_is_told_unless_it_was_announced() -> None:
    person, key = starter("dev@acme.example"), starter("AB" * 32)
    by_person = signing(signers=(email_signer("dev@acme.example"),))
    by_key = signing(signers=(Signer(SignerForm.KEY, fingerprints=("ab" * 32,)),))
    for made, signed in ((person, by_person), (key, by_key)):
        assert list(compile_rules([made]).confirm_all(signed)) == [made]
        known = MemoryFacts()
        verdict = judge(made, signed, known.facts, SEEN_AT)
        assert verdict.outcome is Outcome.UNEXPECTED, "an account was taken over, and its issuer is the usual one"
        assert "authorised" in {reason.id for reason in verdict.reasons}
        digest = digest_text(signed.digests[0])
        given = Authorisation(digest, 1, SEEN_AT + timedelta(days=1), "1.4", digest, (digest,))
        announced = MemoryFacts(recorded=[(made.id, given)])
        assert "authorised" not in {each.id for each in judge(made, signed, announced.facts, SEEN_AT).reasons}


def test_an_organisation_becomes_a_rule_for_all_its_repositories() -> None:
    made = starter("https://github.com/acme")
    assert list(compile_rules([made]).confirm_all(signing())) == [made]
    assert judge(made, signing(), MemoryFacts().facts, SEEN_AT).outcome is Outcome.EXPECTED
    on_main = signing({"source_repository_ref": "refs/heads/main", "github_workflow_ref": "refs/heads/main"})
    assert judge(made, on_main, MemoryFacts().facts, SEEN_AT).outcome is Outcome.UNEXPECTED
    borrowed = signing({"source_repository_uri": "https://github.com/ev/il", "github_workflow_repository": "ev/il"})
    assert judge(made, borrowed, MemoryFacts().facts, SEEN_AT).outcome is Outcome.UNEXPECTED


@pytest.mark.parametrize(
    "subject",
    [
        REPOSITORY,
        "https://github.com/acme",
        "https://acme.ghe.com/acme/widget",
        "https://gitlab.acme.example/group/proj",
        "dev@acme.example",
        "ab" * 32,
    ],
)
def test_a_starter_rule_says_what_it_will_and_will_not_tell(subject: str) -> None:
    made = starter_of(subject)
    assert made.told.startswith("Told: every signing ")
    assert made.told.count(" Not told: ") == 1
    assert "# Told: every signing " in made.text
    assert "# Not told: " in made.text


def test_a_rule_is_learned_from_the_past_and_says_from_how_many_signings() -> None:
    past = [signing()] * 5
    subject = read_subject(REPOSITORY)
    made = learned(subject, learn(subject, past), len(past))
    [rule_made] = load_rules(made.text).rules
    assert "every signing" in made.told
    assert "there are 5." in made.told
    assert judge(rule_made, signing(), MemoryFacts().facts, SEEN_AT).outcome is Outcome.EXPECTED
    other = signing({"build_config_uri": f"{REPOSITORY}/.github/workflows/evil.yml@refs/tags/v1.4.0"})
    assert judge(rule_made, other, MemoryFacts().facts, SEEN_AT).outcome is Outcome.UNEXPECTED


def test_an_email_becomes_a_rule_that_ignores_case() -> None:
    made = starter("Alice@Acme.Example")
    assert len(compile_rules([made]).confirm_all(signing(signers=(email_signer("alice@acme.example"),)))) == 1


@pytest.mark.parametrize(
    "subject", ["", "acme/widget", "https://github.com/", "ab" * 31, "a@b", 'a"b@c.example', "https://evil.example/x y"]
)
def test_what_is_neither_repository_nor_email_is_refused(subject: str) -> None:
    with pytest.raises(ValueError, match="neither the URL"):
        starter_of(subject)


REKOR_MONITOR = r"""
startIndex: 1000
monitoredValues:
  certIdentities:
    - certSubject: user@domain\.com
    - certSubject: other@domain\.com
      issuers:
        - https://accounts\.google\.com
        - https://github\.com/login
    - certSubject: plain-words
    - certSubject: lookahead(?=x)
  subjects:
    - ^subject@domain\.com$
  fingerprints:
    - A0B1C2D3E4F5
    - 25:CF:CE:A8:F8:8F:9E:06:25:CF:CE:A8:F8:8F:9E:06:25:CF:CE:A8
  fulcioExtensions:
    build-config-uri:
      - https://example.com/owner/repository/build-config.yml
    source-repository-visibility-at-signing: [private]
    no-such-extension: [x]
  customExtensions:
    - objectIdentifier: 1.3.6.1.4.1.57264.1.9
      extensionValues: https://builder.example/x.yml@v1
  oidMatchers:
    oidExtensions:
      - objectIdentifier: [1, 2, 3, 4]
        extensionValues: [one, two]
githubIssue: {assigneeUsername: x}
"""


def person(address: str, issuer: str = "https://accounts.google.com") -> Signing:
    return signing(signers=(email_signer(address, issuer),))


def test_a_rekor_monitor_configuration_keeps_its_meaning() -> None:
    matcher = compile_rules(load_rules(import_rekor_monitor(REKOR_MONITOR).text).rules)

    def matched(entry: Signing) -> list[str]:
        return [each.id for each in matcher.confirm_all(entry)]

    assert matched(person("user@domain.com")) == ["identity-1"]
    assert matched(person("other.user@domain.community")) == ["identity-1"]  # found anywhere, as there
    assert matched(person("user@domainXcom")) == []
    assert matched(person("other@domain.com")) == ["identity-2"]
    assert matched(person("other@domain.com", "https://github.com/login/oauth")) == ["identity-2"]
    assert matched(person("other@domain.com", "https://evil.example")) == []
    assert matched(person("so-plain-words-it-is")) == ["identity-3"]
    assert matched(person("subject@domain.com")) == ["subject-1"]
    assert matched(person("a-subject@domain.com")) == []
    key = Signer(SignerForm.PGP, (), fingerprints=("25cfcea8f88f9e06" * 2 + "25cfcea8",))
    assert matched(Signing(WHERE, "rekord", "0.0.1", (key,))) == ["fingerprint-1"]
    config = "https://example.com/owner/repository/build-config.yml"
    assert matched(signing({"build_config_uri": config})) == ["extension-1"]
    assert matched(signing({"source_repository_visibility": "private"})) == ["extension-2"]
    assert matched(signing({"build_signer_uri": "https://builder.example/x.yml@v1"})) == ["extension-3"]
    assert matched(signing(extensions={"1.2.3.4": b"two"})) == ["extension-4"]
    assert matched(signing(extensions={"1.2.3.4": b"\x0c\x03two"})) == ["extension-4"]


def test_what_cannot_be_imported_is_said_with_its_line() -> None:
    imported = import_rekor_monitor(REKOR_MONITOR)
    remarks = [line for line in imported.text.splitlines() if line.startswith("# Line")]
    for line, word in (
        (2, "startIndex"),
        (11, "lookahead"),
        (15, "A0B1C2D3E4F5"),
        (21, "no-such-extension"),
        (29, "githubIssue"),
    ):
        assert any(remark.startswith(f"# Line {line}:") and word in remark for remark in remarks), (line, word, remarks)
    assert len(remarks) == 5
    assert [problem.line for problem in imported.lost] == [11, 21], "what it watches and the rules do not"


def identities(text: str) -> list[str]:
    """Regular expressions and issuers of the rules that a configuration becomes, all of it carried over."""
    imported = import_rekor_monitor(text)
    assert imported.lost == ()
    return [
        str(pattern) for rule in load_rules(imported.text).rules for m in walk(rule.select) for pattern in m.patterns
    ]


ONE = ["regex:.*(?:^ci@acme\\.example$).*", "regex:.*(?:^https://login\\.acme\\.example$).*"]
OLD_FORM = r"""certIdentities:
  - certSubject: ^ci@acme\.example$
    issuers: [^https://login\.acme\.example$]
"""
WORKFLOW_FILE = r"""name: monitor
on:
  schedule: [{cron: '0 * * * *'}]
jobs:
  build: {runs-on: ubuntu-latest, steps: []}
  monitor:
    uses: sigstore/rekor-monitor/.github/workflows/reusable_monitoring.yml@main
    with:
      file_issue: true
      KEY: |
        PREFIXcertIdentities:
          INDENT- certSubject: ^ci@acme\.example$
          INDENT  issuers: [^https://login\.acme\.example$]
"""


@pytest.mark.parametrize(
    "text",
    [
        OLD_FORM,
        "monitoredValues:\n  " + OLD_FORM.replace("\n", "\n  "),
        WORKFLOW_FILE.replace("KEY", "config").replace("PREFIX", "").replace("INDENT", ""),
        WORKFLOW_FILE.replace("KEY", "identities").replace("PREFIX", "").replace("INDENT", ""),
        WORKFLOW_FILE.replace("KEY", "config")
        .replace("PREFIX", "monitoredValues:\n          ")
        .replace("INDENT", "  "),
    ],
    ids=["older form", "file", "workflow", "older workflow", "newer workflow"],
)
def test_every_form_of_a_rekor_monitor_configuration_is_read(text: str) -> None:
    assert identities(text) == ONE


def test_a_mistake_in_a_workflow_is_told_with_its_line_in_the_workflow() -> None:
    workflow = WORKFLOW_FILE.replace("KEY", "config").replace("PREFIX", "").replace("INDENT", "")
    imported = import_rekor_monitor(workflow.replace("issuers: [^", "issuerz: [^"))
    assert [problem.line for problem in imported.lost] == [13]
    for broken, line in (
        (workflow.replace("- certSubject", "- certSubjectz"), 12),
        (workflow.replace("certIdentities:", "certIdentities: ["), 12),
    ):
        with pytest.raises(DocumentError) as refused:
            import_rekor_monitor(broken, "monitor.yml")
        assert line <= refused.value.problems[0].line <= 14, refused.value.problems


def test_empty_lists_and_values_watch_nothing_and_lose_nothing() -> None:
    text = r"""
monitoredValues:
  certIdentities:
    - certSubject: ^ci@acme\.example$
      issuers:
  subjects: []
  fingerprints:
  oidMatchers:
    fulcioExtensions:
    oidExtensions: []
    customExtensions: [{objectIdentifier: 1.2.3, extensionValues: []}]
  fulcioExtensions: {github-workflow-sha: [], build-trigger: }
outputIdentitiesFormat: json
caRootsFile: roots.pem
caIntermediatesFile: inter.pem
ctShards: [https://ct.acme.example/2022]
"""
    assert identities(text) == ONE[:1]
    assert "it is not known" not in import_rekor_monitor(text).text


def test_a_long_list_of_repositories_is_carried_over_whole() -> None:
    names = [f"service-{number:03}-controller" for number in range(300)]
    subject = rf"^https://github\.com/acme/({'|'.join(names)})/\.github/workflows/release\.yml@.*$"
    text = f"monitoredValues:\n  certIdentities:\n    - certSubject: '{subject}'\n"
    imported = import_rekor_monitor(text)
    assert imported.lost == ()
    matcher = compile_rules(load_rules(imported.text).rules, max_unindexed=0)
    for name in (*names, "service-300-controller", "service-00"):
        workflow = f"https://github.com/acme/{name}/.github/workflows/release.yml@refs/tags/v1"
        entry = signing(names=(Name(NameForm.URI, workflow),))
        assert len(matcher.confirm_all(entry)) == (name in names), name


@pytest.mark.parametrize("subject", ["x" * 3000, "[a-z]" * 300, r"(?:a|b)(?i)" + "|c" * 900, "(" + "a|b" * 900 + ")+"])
def test_a_pattern_that_cannot_be_carried_over_is_lost_with_its_line(subject: str) -> None:
    text = f"monitoredValues:\n  certIdentities:\n    - certSubject: ok@acme.example\n    - certSubject: '{subject}'\n"
    imported = import_rekor_monitor(text)
    assert [problem.line for problem in imported.lost] == [4]
    assert len(load_rules(imported.text).rules) == 1


SPLITTABLE = (
    "a|bc|d", "^(ab|c)d$", "x(a|b)y(c|d|e)z", "(?i)(ab|c)|d", "(?:a|b)*c|d", r"\((a|\|)\)", "[|)(](a|b)", "[]|](a|b)",
    "[[:alpha:]|](a|b)", "(a(b|c)|d)e", "(?P<n>a|b)c", "(a|b){2}(c|d)", "(|a)b", "a||b", "(a|b)?(c|dd)", r"(\d|x)\|y",
)  # fmt: skip


@pytest.mark.parametrize("text", SPLITTABLE)
def test_the_pieces_of_a_regular_expression_match_together_what_it_matches(text: str) -> None:
    values = ["".join(each) for size in range(5) for each in itertools.product("abcde|)", repeat=size)]
    values += ["xayc", "xaycz", "xbydz", "xayez", "xay", "1|y", "x|y", "AB", "(a)", "(|)", "abd"]
    whole = Pattern(PatternForm.REGEX, text)
    matched = {value for value in values if whole.matches(value)}
    assert matched
    cut = 0
    for limit in range(1, len(text)):
        with suppress(ValueError):
            pieces = [Pattern(PatternForm.REGEX, each) for each in split_alternatives(text, limit)]
            assert max(len(each.text) for each in pieces) <= limit
            assert {value for value in values if any(each.matches(value) for each in pieces)} == matched, limit
            cut += 1
    assert cut


@pytest.mark.parametrize("text", ["", "[]", "monitoredValues: {}", "monitoredValues: {fingerprints: [xx]}", "a: b"])
def test_a_configuration_that_watches_nothing_is_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        import_rekor_monitor(text)


def test_digest_lists_are_read_as_sha256sum_writes_them() -> None:
    text = f"# released\n{'AB' * 32}  widget.tar.gz\n\nsha512:{'0' * 128}\n\\{'cd' * 32} *odd\\nname\n"
    assert parse_digest_list(text) == {f"sha256:{'ab' * 32}", f"sha512:{'0' * 128}", f"sha256:{'cd' * 32}"}
    with pytest.raises(ValueError, match="line 2: a sha256 digest"):
        parse_digest_list(f"{'ab' * 32}\n{'ab' * 31}\n")

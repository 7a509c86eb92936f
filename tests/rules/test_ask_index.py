"""One index over file rules and subscriptions: it finds what asking each rule would find, through every change."""

import json
from collections.abc import Collection, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rules.asking import Ask, ask_of, read_ask, rule_of, yaml_of
from rules.learning import learn, verdict_of, widen
from rules.matching import matcher
from rules.matching.matcher import AskIndex, LayeredMatcher, Matcher, number_of
from rules.rule import Outcome, Rule
from rules.selection import matching_signers, names_of
from rules.subject import Subject, SubjectKind, read_subject
from settings.document import DocumentError
from sigstore_entries.signing import ChainTrust, Name, NameForm, Signing
from tests.rules import signings

ORGANISATIONS = ("acme", "Acme", "umbrella", "initech")
SELECTS = [
    *({"identity": {"glob": f"https://github.com/{name}/widget/*", "ignore_case": "true"}} for name in ORGANISATIONS),
    *(read_subject(f"https://github.com/{name}/widget").select() for name in ("acme", "umbrella")),
    {"identity": {"glob": "*acme/widget/.github/workflows/release.yml*"}},
    {"identity": {"regex": "https://github\\.com/acme/widget/.*v1\\.2\\.3"}},
    {"identity": "alice@acme.example"},
    {"identity": {"exact": "ALICE@acme.example", "ignore_case": "true"}},
    {"digest": f"sha256:{signings.DIGEST}"},
    {"fingerprint": "c" * 64},
    {"source_repository_uri": signings.REPOSITORY},
]


class Shelf:
    """Subscribed rules by number, as the database would give them."""

    def __init__(self) -> None:
        self.asks: dict[int, Ask] = {}

    def load(self, numbers: Collection[int]) -> Mapping[int, Rule]:
        return {number: rule_of(number, self.asks[number].document) for number in numbers if number in self.asks}


SIGNINGS = [
    signings.signing(),
    signings.signing(
        names=(Name(NameForm.URI, "https://github.com/ACME/widget/.github/workflows/x.yml@refs/heads/m"),)
    ),
    signings.signing(signers=(signings.email_signer(),)),
    signings.signing(signers=(signings.email_signer("Alice@acme.example"), signings.signer())),
    signings.signing(
        {"source_repository_uri": None}, names=(Name(NameForm.URI, "https://github.com/umbrella/widget/x"),)
    ),
]


@given(st.lists(st.tuples(st.sampled_from(range(len(SELECTS))), st.booleans()), max_size=40), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_the_index_finds_what_asking_every_subscription_finds(changes: list[tuple[int, bool]], recent: int) -> None:
    shelf, index, numbers = Shelf(), AskIndex(), dict[int, int]()
    layered = LayeredMatcher(
        Matcher((signings.rule("{identity: {glob: 'https://github.com/acme/*'}}"),)), index, shelf.load
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matcher, "MAX_RECENT", recent)
        for which, adds in changes:
            ask = ask_of(SELECTS[which], {})
            if adds and which not in numbers:
                number = numbers[which] = len(shelf.asks) + 1
                shelf.asks[number] = ask
                index.add(number, ask.keys)
            elif not adds and which in numbers:
                index.remove(numbers[which], ask.keys)
                index.remove(numbers[which], ask.keys)
                del numbers[which]
            index.ready()
            index.settle()
        assert index.size == len(numbers)
        for signing in SIGNINGS:
            wanted = {
                number
                for which, number in numbers.items()
                if matching_signers(rule_of(0, ask_of(SELECTS[which], {}).document).select, signing)
            }
            found = layered.confirm_all(signing)
            assert {number_of(rule.id) for rule in found.rules} - {None} == wanted


def test_rules_of_the_file_and_subscriptions_are_told_apart_by_their_ids() -> None:
    shelf, index = Shelf(), AskIndex()
    shelf.asks[7] = ask_of(SELECTS[0], {})
    index.add(7, shelf.asks[7].keys)
    index.ready()
    layered = LayeredMatcher(
        Matcher((signings.rule("{identity: {glob: 'https://github.com/acme/*'}}"),)), index, shelf.load
    )
    assert [rule.id for rule in layered.confirm_all(signings.signing()).rules] == ["under-test", "ask:7"]
    assert layered.rule("ask:7") is not None
    assert layered.rule("ask:8") is None
    assert [rule.id for rule in layered.asks_alone().confirm_all(signings.signing()).rules] == ["ask:7"]


def test_an_entry_with_thousands_of_signers_hides_no_subscription() -> None:
    shelf, index = Shelf(), AskIndex()
    shelf.asks[1] = ask_of({"identity": "alice@acme.example"}, {})
    index.add(1, shelf.asks[1].keys)
    index.ready()
    layered = LayeredMatcher(Matcher(()), index, shelf.load)
    crowd = tuple(signings.email_signer(f"x{number}@flood.example") for number in range(3000))
    found = layered.confirm_all(signings.signing(signers=(*crowd, signings.email_signer())))
    assert [rule.id for rule in found.rules] == ["ask:1"]
    assert [name.value for signer in found.signing.signers for name in signer.names] == ["alice@acme.example"]


def test_equal_requests_have_one_digest_however_they_are_written() -> None:
    one = read_ask("select: {identity: a@acme.example, issuer: x}\nexpect: {ref: refs/heads/main}")
    two = read_ask('{"expect": {"ref": "refs/heads/main"}, "select": {"issuer": "x", "identity": "a@acme.example"}}')
    assert one == two
    assert read_ask(yaml_of(one.document)) == one
    assert read_ask("select: {identity: b@acme.example}").digest != one.digest


@pytest.mark.parametrize("text", ["refs/heads/\U0001f680", "\\\U0001f680", "\\ud83d\\ude80", "a\u2028b\x85c", '"\\'])
def test_a_name_with_any_characters_can_be_asked_for(text: str) -> None:
    """JSON writes characters beyond U+FFFF as two escapes, which YAML refuses."""
    ask = ask_of({"identity": text}, {"ref": [text]})
    assert json.loads(ask.document) == {"select": {"identity": text}, "expect": {"ref": [text]}}


def test_a_stored_request_that_cannot_be_read_is_an_error_with_its_number() -> None:
    with pytest.raises(DocumentError, match="stored request 3"):
        rule_of(3, '{"select": 1}')


def test_one_theft_among_many_releases_is_not_learned() -> None:
    releases = [_on(f"refs/tags/v1.{number}.0") for number in range(20)]
    subject = read_subject(signings.REPOSITORY)
    parts = {part.key: part for part in learn(subject, [*releases, _on("refs/heads/stolen")])}
    assert parts["ref"].expect == {"glob": "refs/tags/v*"}
    rule = rule_of(0, ask_of(subject.select(), {key: part.expect for key, part in parts.items()}).document)
    assert verdict_of(rule, releases[0], signings.SEEN_AT).outcome is Outcome.EXPECTED
    assert verdict_of(rule, _on("refs/heads/stolen"), signings.SEEN_AT).outcome is Outcome.UNEXPECTED


def test_what_nobody_vouches_for_teaches_nothing() -> None:
    forged = [signings.signing({"build_trigger": "evil"}, trust=ChainTrust.UNTRUSTED) for _ in range(50)]
    parts = {part.key: part.expect for part in learn(read_subject(signings.REPOSITORY), [*forged, signings.signing()])}
    assert parts["trigger"] == "push"


def test_widening_adds_exactly_what_differed() -> None:
    expect = {"ref": {"glob": "refs/tags/v*"}, "trigger": "push"}
    rule = rule_of(0, ask_of(read_subject(signings.REPOSITORY).select(), expect).document)
    widened = widen(expect, _on("refs/heads/main"), rule, signings.SEEN_AT)
    assert widened == {"ref": [{"glob": "refs/tags/v*"}, "refs/heads/main"], "trigger": "push"}


def test_names_are_what_people_paste() -> None:
    digest = "ab" * 32
    for text, subject in (
        (
            "https://gitlab.com/group/sub/project/-/tree/main",
            Subject(SubjectKind.REPOSITORY, "https://gitlab.com/group/sub/project"),
        ),
        ("ssh://git@github.com/acme/widget.git", Subject(SubjectKind.REPOSITORY, "https://github.com/acme/widget")),
        ("github.com/acme", Subject(SubjectKind.OWNER, "https://github.com/acme")),
        (" You@Acme.Example ", Subject(SubjectKind.EMAIL, "You@acme.example")),
        (digest.upper(), Subject(SubjectKind.DIGEST, f"sha256:{digest}")),
        (":".join(["AB"] * 20), Subject(SubjectKind.FINGERPRINT, "ab" * 20)),
        (":".join(["AB"] * 32), Subject(SubjectKind.FINGERPRINT, ":".join(["ab"] * 32))),
        (f"SHA256:{'Ab' * 21}c", Subject(SubjectKind.FINGERPRINT, f"SHA256:{'Ab' * 21}c")),
    ):
        assert read_subject(text) == subject
        assert read_subject(subject.text) == subject, "links and stored subscriptions are read again"


def test_a_key_is_found_by_its_fingerprint_with_colons() -> None:
    subject = read_subject(":".join(["AB"] * 32))
    signer = signings.signer(fingerprints=("AB" * 32,))
    made = replace(signings.signing(), signers=(signer,))
    assert subject.key in set(names_of(made))
    assert rule_of(0, ask_of(subject.select(), {}).document).select.holds(made, signer)


def _on(ref: str) -> Signing:
    claims: dict[str, str | None] = {
        "source_repository_ref": ref,
        "github_workflow_ref": ref,
        "build_config_uri": f"{signings.WORKFLOW}@{ref}",
    }
    names = (Name(NameForm.URI, f"{signings.WORKFLOW}@{ref}"),)
    return signings.signing(claims, names=names)


def test_keys_survive_being_stored() -> None:
    for select in SELECTS:
        ask = ask_of(select, {})
        keys, fields = json.loads(ask.keys)
        assert fields
        assert all(form in "whl" for form, _, _ in keys)

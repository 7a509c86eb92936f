"""Verdicts that depend on the past, on time and on lists. Each table opens with the control case."""

from datetime import UTC, datetime, timedelta

import pytest

from addresses.image_name import parse_image_name
from monitor.model.state import Finding
from monitor.store.findings import seen_in
from rules.facts import Authorisation, DigestSource, SourceForm
from rules.judge import judge, recheck_at
from rules.pattern import repository_key
from rules.rule import Outcome, Verdict
from rules.selection import select
from sigstore_entries.release import released_image
from sigstore_entries.signing import Digest, EntryRef, KnownTime, SignerForm, Signing
from tests.rules.signings import (
    DIGEST,
    GITHUB,
    ISSUED,
    REPOSITORY,
    SEEN_AT,
    SIGNED_AT,
    TAG,
    WHERE,
    WORKFLOW,
    email_signer,
    rule,
    signing,
)
from tests.support.memory_facts import MemoryFacts, PastSigning

RELEASE = f'{{identity: {{glob: "{WORKFLOW}@*"}}}}'
THIS = f"sha256:{DIGEST}"
OTHER = f"sha256:{'00' * 32}"


def verdict_of(expect: str, entry: Signing, facts: MemoryFacts | None = None, now: datetime = SEEN_AT) -> Verdict:
    return judge(rule(RELEASE, expect), entry, (facts or MemoryFacts()).facts, now)


def ids(verdict: Verdict) -> list[str]:
    return [reason.id for reason in verdict.reasons]


def certificate() -> Signing:
    return signing(form=SignerForm.PRECERTIFICATE, kind="precertificate", digests=())


@pytest.mark.parametrize(
    ("allowed", "digests", "reasons"),
    [
        (THIS, (DIGEST,), []),
        (f"[{OTHER}, {DIGEST.upper()}]", (DIGEST,), []),
        (THIS, ("00" * 32, DIGEST), []),
        (OTHER, (DIGEST,), ["digests"]),
        (THIS, (), ["digests"]),
    ],
)
def test_a_digest_must_be_on_the_list(allowed: str, digests: tuple[str, ...], reasons: list[str]) -> None:
    entry = signing(digests=tuple(Digest("sha256", value) for value in digests))
    assert ids(verdict_of(f"{{digests: {allowed if allowed.startswith('[') else [allowed]}}}", entry)) == reasons


IMAGE = parse_image_name(f"ghcr.io/acme/widget@{THIS}")
SHOWN = released_image(IMAGE).digests


@pytest.mark.parametrize(
    ("listed", "shown", "reasons"),
    [
        *((f"ghcr.io/acme/widget@{THIS}", each, []) for each in SHOWN),
        (f"ghcr.io/acme/widget@{OTHER}", SHOWN[0], ["images"]),
        (f"[ghcr.io/acme/widget@{OTHER}, ghcr.io/acme/widget@{THIS}]", SHOWN[1], []),
        (f"ghcr.io/acme/widget@{THIS}", THIS, ["images"]),
        (f"ghcr.io/acme/other@{THIS}", SHOWN[-1], ["images"]),
    ],
)
def test_a_signature_of_a_listed_image_is_known_by_the_digest_of_the_statement_about_it(
    listed: str, shown: str, reasons: list[str]
) -> None:
    entry = signing(digests=(Digest(*shown.split(":")),))
    assert ids(verdict_of(f"{{images: {listed if listed[0] == '[' else [listed]}}}", entry)) == reasons


def test_the_digests_of_one_signature_of_an_image_share_one_leave() -> None:
    recorded = Authorisation(SHOWN[0], 1, LATER, what="image", together=SHOWN)
    entry = signing(digests=(Digest("sha256", SHOWN[1].removeprefix("sha256:")),))
    fresh = MemoryFacts(recorded=[("under-test", recorded)])
    assert ids(verdict_of("{authorised: []}", entry, fresh)) == []
    used = MemoryFacts(past=[past(1, SHOWN[0])], recorded=[("under-test", recorded)])
    assert ids(verdict_of("{authorised: []}", entry, used)) == ["authorised"]


SOURCE = DigestSource(SourceForm.FILE, "released.txt")


@pytest.mark.parametrize(
    ("sources", "reasons"),
    [({SOURCE: frozenset({THIS})}, []), ({SOURCE: frozenset({OTHER})}, ["digests-from"]), ({}, ["digests-from"])],
)
def test_a_list_kept_elsewhere_fails_closed(sources: dict[DigestSource, frozenset[str]], reasons: list[str]) -> None:
    assert ids(verdict_of("{digests_from: {file: released.txt}}", signing(), MemoryFacts(sources=sources))) == reasons


def test_a_certificate_names_no_digest_and_is_only_let_through_when_its_entry_is_awaited() -> None:
    assert ids(verdict_of(f"{{digests: '{THIS}'}}", certificate())) == ["digests"]
    awaited = f"{{digests: '{THIS}', log_entry_within: 1h}}"
    assert verdict_of(awaited, certificate()).outcome is Outcome.EXPECTED
    late = verdict_of(awaited, certificate(), MemoryFacts(signature_log=set()), SIGNED_AT + timedelta(hours=1))
    assert ids(late) == ["certificate-without-entry"]


def past(number: int, digest: str = THIS, rule_id: str = "under-test") -> PastSigning:
    return PastSigning(rule_id, EntryRef("rekor", number), SIGNED_AT - timedelta(minutes=number), frozenset({digest}))


LATER = SIGNED_AT + timedelta(days=1)


@pytest.mark.parametrize(
    ("recorded", "before", "reasons"),
    [
        (Authorisation(THIS, 1, LATER), [], []),
        (Authorisation(THIS, 1, LATER), [PastSigning("under-test", WHERE, SIGNED_AT, frozenset({THIS}))], []),
        (Authorisation(THIS, 2, LATER), [past(1)], []),
        (Authorisation(THIS, 1, LATER), [past(1)], ["authorised"]),
        (Authorisation(THIS, 1, LATER), [past(1, rule_id="other")], []),
        (Authorisation(THIS, 1, SIGNED_AT), [], []),
        (Authorisation(THIS, 1, SIGNED_AT - timedelta(seconds=1)), [], ["authorised"]),
        (Authorisation(OTHER, 1, LATER), [], ["authorised"]),
    ],
)
def test_an_authorisation_counts_and_expires(
    recorded: Authorisation, before: list[PastSigning], reasons: list[str]
) -> None:
    facts = MemoryFacts(past=before, recorded=[("under-test", recorded)])
    assert ids(verdict_of("{authorised: []}", signing(), facts)) == reasons
    item = f"{{digest: '{recorded.digest}', count: {recorded.count}, expires: '{recorded.expires.isoformat()}'}}"
    assert ids(verdict_of(f"{{authorised: [{item}]}}", signing(), MemoryFacts(past=before))) == reasons


@pytest.mark.parametrize(
    ("window", "when", "reasons"),
    [
        ('{days: [fri], from: "08:00", to: "18:00"}', SIGNED_AT, []),
        ('{from: "12:00", to: "12:01"}', SIGNED_AT, []),
        ('{from: "12:01"}', SIGNED_AT, ["time-windows"]),
        ('{from: "08:00", to: "12:00"}', SIGNED_AT, ["time-windows"]),
        ("{days: [mon, tue]}", SIGNED_AT, ["time-windows"]),
        ('{from: "13:00", to: "14:00", utc_offset: "+01:00"}', SIGNED_AT, []),
        ('{days: thu, from: "22:00", to: "02:00"}', datetime(2026, 11, 20, 1, 0, tzinfo=UTC), []),
        ('{days: fri, from: "22:00", to: "02:00"}', datetime(2026, 11, 20, 1, 0, tzinfo=UTC), ["time-windows"]),
        ("[{days: mon}, {days: fri}]", SIGNED_AT, []),
        ('{not_after: "2026-11-20T11:59:59Z"}', SIGNED_AT, ["time-windows"]),
        ('{not_before: "2026-11-20T12:00:00Z"}', SIGNED_AT, []),
        ("{days: fri}", None, ["time-windows"]),
    ],
)
def test_signing_happens_in_a_time_window(window: str, when: datetime | None, reasons: list[str]) -> None:
    assert ids(verdict_of(f"{{time_windows: {window}}}", signing(not_before=when))) == reasons


def test_a_key_is_judged_by_the_time_the_log_gives() -> None:
    entry = signing(not_before=None, times=(KnownTime("integrated-time", SIGNED_AT),))
    assert ids(verdict_of("{time_windows: {days: fri}}", entry)) == []


@pytest.mark.parametrize(("before", "reasons"), [(1, []), (2, ["rate"]), (3, ["rate"])])
def test_more_signings_than_the_rate_are_news(before: int, reasons: list[str]) -> None:
    facts = MemoryFacts(past=[past(number) for number in range(1, before + 1)])
    assert ids(verdict_of("{rate: {at_most: 2, per: 1h}}", signing(), facts)) == reasons


def test_what_lies_longer_back_than_the_rate_looks_does_not_count() -> None:
    facts = MemoryFacts(past=[past(60), past(61), past(62)])
    assert ids(verdict_of("{rate: {at_most: 1, per: 1h}}", signing(), facts)) == []


IDENTITY = f"{WORKFLOW}@{TAG}"
EARLIER = b"7" * 32


@pytest.mark.parametrize(
    ("known", "reasons"),
    [
        ({IDENTITY: {"https://token.actions.githubusercontent.com": EARLIER}}, []),
        ({}, []),
        ({IDENTITY: {"https://evil.example": ISSUED}}, []),
        ({IDENTITY: {"https://evil.example": EARLIER}}, ["new-issuer"]),
        (None, ["new-issuer"]),
    ],
)
def test_an_identity_keeps_its_issuer(known: dict[str, dict[str, bytes]] | None, reasons: list[str]) -> None:
    assert ids(verdict_of("{same_issuer: true}", signing(), MemoryFacts(issuers=known))) == reasons


@pytest.mark.parametrize(
    ("known", "reasons"),
    [
        ({REPOSITORY: {"123456789": EARLIER}}, []),
        ({}, []),
        ({REPOSITORY: {"1": EARLIER}}, ["repository-identifier-changed"]),
        (None, ["repository-identifier-changed"]),
    ],
)
def test_a_repository_keeps_its_identifier(known: dict[str, dict[str, bytes]] | None, reasons: list[str]) -> None:
    facts = MemoryFacts(repository_identifiers=known)
    assert ids(verdict_of("{same_repository_identifier: true}", signing(), facts)) == reasons


HOUR_LATER = SIGNED_AT + timedelta(hours=1)


@pytest.mark.parametrize(
    ("now", "seen", "reasons"),
    [
        (HOUR_LATER, {ISSUED}, []),
        (HOUR_LATER - timedelta(seconds=1), set(), []),
        (HOUR_LATER, set(), ["late"]),
        (HOUR_LATER, {b"0" * 32}, ["late"]),
        (HOUR_LATER, None, ["late"]),
    ],
)
def test_a_certificate_and_its_log_entry_must_both_appear(
    now: datetime, seen: set[bytes] | None, reasons: list[str]
) -> None:
    for expect, entry, facts, reason in (
        ("{log_entry_within: 1h}", certificate(), MemoryFacts(signature_log=seen), "certificate-without-entry"),
        ("{certificate_log_within: 1h}", signing(), MemoryFacts(certificate_log=seen), "entry-without-certificate"),
    ):
        assert ids(verdict_of(expect, entry, facts, now)) == [reason for _ in reasons]


def test_a_delayed_expectation_says_when_to_judge_again() -> None:
    both = rule(RELEASE, "{log_entry_within: 1h, certificate_log_within: 15m}")
    facts = MemoryFacts().facts
    issued, signed = select(both.select, certificate()), select(both.select, signing())
    assert recheck_at(both, issued, facts, SEEN_AT) == HOUR_LATER
    assert recheck_at(both, signed, facts, SEEN_AT) == SIGNED_AT + timedelta(minutes=15)
    assert recheck_at(both, signed, facts, HOUR_LATER) == SIGNED_AT + timedelta(minutes=15), "met late"
    assert judge(both, signing(), facts, HOUR_LATER, again=False).outcome is Outcome.EXPECTED
    assert judge(both, signing(), facts, HOUR_LATER).outcome is Outcome.UNEXPECTED
    plain = rule(RELEASE, f"{{ref: {TAG}}}")
    assert recheck_at(plain, select(plain.select, signing()), facts, SEEN_AT) is None


CALLED_BY_EVIL: dict[str, str | None] = {
    "source_repository_uri": "https://github.com/ev/il",
    "build_config_uri": f"https://github.com/ev/il/.github/workflows/release.yml@{TAG}",
}


@pytest.mark.parametrize(
    ("select", "expect", "claims", "reasons"),
    [
        (RELEASE, '{ref: {glob: "refs/tags/v*"}}', {}, []),
        (RELEASE, '{ref: {glob: "refs/tags/v*"}}', CALLED_BY_EVIL, ["repository"]),
        (RELEASE, "{workflow: .github/workflows/release.yml}", CALLED_BY_EVIL, ["repository"]),
        (RELEASE, '{ref: {glob: "refs/tags/v*"}, repository: [acme/widget, ev/il]}', CALLED_BY_EVIL, []),
        ('{source_repository_uri: "https://github.com/ev/il"}', "{trigger: push}", CALLED_BY_EVIL, []),
        (RELEASE, "{issuer: {glob: '*'}}", CALLED_BY_EVIL, []),
    ],
)
def test_a_workflow_that_others_may_call_does_not_lend_its_name(
    select: str, expect: str, claims: dict[str, str | None], reasons: list[str]
) -> None:
    assert ids(judge(rule(select, expect), signing(claims), MemoryFacts().facts, SEEN_AT)) == reasons


def test_a_person_can_be_judged_by_what_they_release() -> None:
    under = rule("{identity: alice@acme.example}", f"{{digests: '{THIS}', same_issuer: true}}")
    entry = signing(signers=(email_signer(),))
    assert judge(under, entry, MemoryFacts().facts, SEEN_AT).outcome is Outcome.EXPECTED
    stranger = signing(signers=(email_signer(),), digests=(Digest("sha256", "11" * 32),))
    assert ids(judge(under, stranger, MemoryFacts().facts, SEEN_AT)) == ["digests"]


END = SIGNED_AT + timedelta(minutes=10)


@pytest.mark.parametrize(
    ("read_at", "times", "reasons"),
    [
        (END, (), []),
        (None, (), []),
        (END + timedelta(seconds=1), (), ["logged-after-expiry"]),
        (END + timedelta(days=3), (), []),
        (END + timedelta(days=1), (KnownTime("integrated-time", SIGNED_AT),), []),
    ],
)
def test_an_entry_that_a_whole_log_lacked_after_its_certificate_expired_is_unexpected(
    read_at: datetime | None, times: tuple[KnownTime, ...], reasons: list[str]
) -> None:
    entry = signing(not_after=END, times=times)
    now = END + timedelta(days=2)
    assert ids(verdict_of(f"{{ref: {TAG}}}", entry, MemoryFacts(read_at=read_at), now)) == reasons
    issued = signing(form=SignerForm.PRECERTIFICATE, kind="precertificate", digests=(), not_after=END)
    assert ids(verdict_of(f"{{ref: {TAG}}}", issued, MemoryFacts(read_at=read_at), now)) == []


def claimed(repository: str, issuer: str, config: str) -> Signing:
    return signing(
        {"source_repository_uri": repository, "issuer": issuer, "build_config_uri": config, "build_signer_uri": config}
    )


OWN_HOST = "https://gitlab.acme.example"


@pytest.mark.parametrize(
    ("known", "repository", "issuer", "config"),
    [
        # Fulcio until September 2026 wrote gitlab.com for any host: its upgrade is no first sighting.
        (f"{OWN_HOST}/acme/widget", "https://gitlab.com/acme/widget", OWN_HOST, f"{OWN_HOST}/acme/widget//ci.yml@main"),
        (f"{OWN_HOST}/acme/widget", f"{OWN_HOST}/acme/widget", OWN_HOST, f"{OWN_HOST}/acme/widget//ci.yml@main"),
        # A repository that was deleted and made again in another case, by a stranger perhaps.
        ("https://github.com/acme/widget", "https://github.com/Acme/Widget", GITHUB, WORKFLOW),
    ],
)
def test_a_repository_has_one_past_however_its_certificates_spell_it(
    known: str, repository: str, issuer: str, config: str
) -> None:
    made = claimed(repository, issuer, config)
    (signer,) = made.signers
    assert repository_key(signer) == known
    under = rule("{source_repository_identifier: '123456789'}", "{same_repository_identifier: true}")
    for identifier, reasons in (("123456789", []), ("7", ["repository-identifier-changed"])):
        facts = MemoryFacts(repository_identifiers={known: {identifier: EARLIER}})
        assert [each.id for each in judge(under, made, facts.facts, SEEN_AT).reasons] == reasons


def test_the_database_files_a_repository_under_that_one_name() -> None:
    upgraded = claimed(f"{OWN_HOST}/acme/widget", OWN_HOST, f"{OWN_HOST}/acme/widget//ci.yml@main")
    legacy = claimed("https://gitlab.com/acme/widget", OWN_HOST, f"{OWN_HOST}/acme/widget//ci.yml@main")
    under = rule("{source_repository_identifier: '123456789'}")
    found = [
        Finding("under-test", select(under.select, each), Verdict(Outcome.EXPECTED), b"") for each in (upgraded, legacy)
    ]
    subjects = [[seen.subject for seen in seen_in(each) if seen.fact == "repository"] for each in found]
    assert subjects == [[f"{OWN_HOST}/acme/widget"]] * 2

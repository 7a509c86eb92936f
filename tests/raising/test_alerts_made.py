"""Alerts made here: every kind has a page, ids are stable, floods become one alert a day, and who signed is told."""

import base64
import dataclasses
import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec.structs import replace

from addresses.image_name import parse_image_name
from alerts.alert import Alert, Owner, Severity
from alerts.page import page_of
from monitor.model.errors import Evidence
from monitor.model.state import Finding, UnreadableEntry
from monitor.raising import log_alerts as alerting
from monitor.raising.entry_alerts import alerts_of_unreadable
from monitor.raising.log_alerts import (
    ALERT_KINDS,
    alert_of_evidence,
    could_not_ask_alert,
    new_shard_alert,
    own_fault_alert,
    stale_head_alert,
)
from monitor.raising.signing_alerts import alerts_of_findings, short_name
from monitor.store.authorisations import Authorisations
from monitor.store.database import Database
from monitor.store.store import Store
from rules.facts import Authorisation, DigestSource, SourceForm
from rules.rule import Outcome, Reason, RuleSeverity, Verdict
from rules.rule_file import load_rules
from rules.selection import select as selected_by
from sigstore_entries.entry import readable_part
from sigstore_entries.release import released_image
from sigstore_entries.signing import Digest, EntryRef, Name, NameForm, Signer, SignerForm, Signing, Unreadable
from tests.rules.signings import everyone

NOW = datetime(2031, 3, 1, 12, 0, tzinfo=UTC)
DOCS = Path(__file__).parents[2] / "docs" / "alerts"
RULES = {
    rule.id: rule
    for rule in load_rules(
        "version: 1\nrules:\n  - {id: acme, title: Acme, select: {identity: a@acme.example}, severity: warn}\n"
    ).rules
}
SIGNER = Signer(
    SignerForm.CERTIFICATE, (Name(NameForm.EMAIL, "a@acme.example"),), "https://issuer.example", {"ref": "r"}
)
REASON = Reason("ref", "The signing was made from another ref.", "refs/tags/v*", "refs/heads/evil")


def finding(index: int, outcome: Outcome, kind: str = "hashedrekord", signer: Signer = SIGNER) -> Finding:
    signing = Signing(EntryRef("v2", index), kind, "0.0.2", (signer,), (Digest("sha256", "00" * 32),))
    return Finding("acme", everyone(signing), Verdict(outcome, (REASON,)), b"leaf")


def test_every_kind_of_alert_has_a_page_and_every_page_a_kind() -> None:
    pages = {page.stem: page.read_text() for page in DOCS.glob("*.md")}
    assert set(pages) == set(ALERT_KINDS)
    for kind, text in pages.items():
        assert text.startswith(f"# {kind}\n")
        assert "\n## What it means\n" in text
        assert "\n## What to do\n" in text


def test_every_kind_raised_in_the_code_is_a_known_one() -> None:
    raised = {
        kind
        for path in Path(alerting.__file__).parents[1].rglob("*.py")
        for kind in re.findall(r'(?:kind=|kind, detail = |\.evidence\(\s*)"([a-z-]+)"', path.read_text())
    }
    assert {"log-forked", "log-entry-missing", "unexpected-signing"} <= raised
    assert raised - {"test"} <= set(ALERT_KINDS), "a test alert explains itself; each other kind has a page"


@pytest.mark.parametrize("kind", [kind for kind in ALERT_KINDS if kind in alerting._MEANING])
def test_a_log_that_misbehaves_pages_with_consequence_and_next_step(kind: str) -> None:
    evidence = Evidence("v2", "rekor-v2", kind, "it lied", b"spki", "name", (b"head",), (5,), leaves=((5, b"x"),))
    alert = alert_of_evidence(evidence, NOW)
    assert (alert.owner, alert.severity, alert.kind) == (Owner.LOG_MISBEHAVED, Severity.PAGE, kind)
    assert "v2" in alert.title
    assert alert.summary == "it lied"
    assert alert.consequence
    assert alert.next_step
    assert alert.index == 5
    assert alert.id == alert_of_evidence(evidence, NOW + timedelta(days=2)).id


def test_an_unexpected_signing_says_who_where_why_and_what_to_do() -> None:
    (alert,) = alerts_of_findings([finding(7, Outcome.UNEXPECTED)], RULES, NOW)
    assert (alert.kind, alert.owner, alert.severity) == ("unexpected-signing", Owner.SIGNING, Severity.WARN)
    assert (alert.log, alert.index, alert.rule) == ("v2", 7, "acme")
    assert alert.title == "a@acme.example signed an artifact on branch evil instead of tag v*"
    assert alert.summary.startswith("a@acme.example signed an artifact. The rule “Acme”")
    assert alert.identity == "a@acme.example"
    assert alert.reasons == ("The signing was made from another ref. Expected: refs/tags/v*. Found: refs/heads/evil.",)
    assert alert.facts == (("Identity", "a@acme.example"), ("Login from", "https://issuer.example"))
    assert ("Digest of the signed bytes", "sha256:" + "00" * 32) in dict(groups_of(alert))["Entry"]
    assert "signwatch search --entry v2:7 --prove" in dict(dict(groups_of(alert))["Proof"])["To show others"]


def groups_of(alert: Alert) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    return [(group.name, group.facts) for group in alert.groups]


WORKFLOW = "https://github.com/acme/widget/.github/workflows/nightly.yml@refs/heads/evil"
CLAIMS = {
    "source_repository_uri": "https://github.com/acme/widget",
    "github_workflow_repository": "acme/widget",
    "source_repository_ref": "refs/heads/evil",
    "github_workflow_ref": "refs/heads/evil",
    "source_repository_owner_uri": "https://github.com/acme",
    "build_config_uri": WORKFLOW,
    "build_signer_uri": WORKFLOW,
    "build_trigger": "push",
    "github_workflow_name": "nightly",
    "run_invocation_uri": "https://github.com/acme/widget/actions/runs/7/attempts/1",
}


def test_facts_of_a_workflow_are_grouped_and_each_is_said_once_with_raw_claims_last() -> None:
    signer = dataclasses.replace(
        SIGNER, names=(Name(NameForm.URI, WORKFLOW),), claims=CLAIMS, fingerprints=("ab" * 32,)
    )
    (alert,) = alerts_of_findings([finding(7, Outcome.UNEXPECTED, signer=signer)], RULES, NOW)
    groups = groups_of(alert)
    assert [name for name, _ in groups] == ["Source", "Build", "Certificate", "Entry", "Claims", "Proof"]
    assert dict(dict(groups)["Source"]) == {
        "Repository": "https://github.com/acme/widget",
        "Branch or tag": "refs/heads/evil",
    }
    assert dict(dict(groups)["Build"]) == {"Started by": "push", "Run": CLAIMS["run_invocation_uri"]}
    assert dict(groups)["Claims"] == (("github_workflow_name", "nightly"),)
    values = [value for _, value in alert.every_fact()]
    assert len(values) == len(set(values)), "each fact is said once"
    assert page_of(alert, "key").claims[-1].facts == (("github_workflow_name", "nightly"),)


LONG = f"ghe.acme.example/{'o' * 31}…{'o' * 21}/w (r.yml on tag v1)"


@pytest.mark.parametrize(
    ("name", "short"),
    [
        (WORKFLOW, "github.com/acme/widget (nightly.yml on branch evil)"),
        ("https://ghe.acme.example/a/b/.github/workflows/r.yml@refs/tags/v1", "ghe.acme.example/a/b (r.yml on tag v1)"),
        ("https://gitlab.com/a/b//.gitlab-ci.yml@refs/heads/main", "gitlab.com/a/b (.gitlab-ci.yml on branch main)"),
        ("https://github.com@evil.example/a/b@refs/heads/main", "https://github.com@evil.example/a/b@refs/heads/main"),
        ("a@acme.example", "a@acme.example"),
        ("https://github.com", "https://github.com"),
        ("x" * 200 + "yz", "x" * 60 + "…" + "x" * 27 + "yz"),
        (f"https://ghe.acme.example/{'o' * 200}/w/.github/workflows/r.yml@refs/tags/v1", LONG),
    ],
)
def test_a_short_name_keeps_its_host(name: str, short: str) -> None:
    assert short_name(name) == short


@pytest.mark.parametrize(
    ("reason", "title"),
    [
        (Reason("issuer", "", "https://a.example", "https://b.example"), "with a login from https://b.example instead"),
        (
            Reason("ref", "", "refs/tags/v1 or glob:refs/heads/r*", "refs/heads/x"),
            "on branch x instead of tag v1 or branch r*",
        ),
        (Reason("ref", "", "refs/tags/v1", "(not in the certificate)"), "without a ref in its certificate"),
        (Reason("authorised", "", "a", "b"), "without being announced"),
        (Reason("something-new", "It is new."), "signed an artifact"),
        (Reason("ref", "", "{found}", "{expected.x}"), "on {expected.x} instead of {found}"),
    ],
)
def test_the_title_says_how_a_signing_differs(reason: Reason, title: str) -> None:
    made = replace(finding(7, Outcome.UNEXPECTED), verdict=Verdict(Outcome.UNEXPECTED, (reason,)))
    assert title in alerts_of_findings([made], RULES, NOW)[0].title


def test_the_title_names_the_ref_where_another_workflow_is_the_difference() -> None:
    signer = dataclasses.replace(SIGNER, names=(Name(NameForm.URI, WORKFLOW),), claims=CLAIMS)
    other = Reason("workflow", "", "release.yml", WORKFLOW)
    made = replace(finding(7, Outcome.UNEXPECTED, signer=signer), verdict=Verdict(Outcome.UNEXPECTED, (other,)))
    (alert,) = alerts_of_findings([made], RULES, NOW)
    assert alert.title == (
        "github.com/acme/widget (on branch evil) signed an artifact by the workflow nightly.yml instead of release.yml"
    )


IMAGE = f"ghcr.io/acme/widget@sha256:{'ab' * 32}"
STRICT = """\
version: 1
rules:
  - {id: listed, select: {identity: a@acme.example}, expect: {images: %s}}
  - {id: announced, select: {identity: a@acme.example}, expect: {authorised: []}}
  - {id: registry, select: {identity: a@acme.example}, expect: {digests_from: {registry: ghcr.io/acme/widget}}}
  - {id: other, select: {identity: a@acme.example}, expect: {authorised: []}}
"""


@pytest.mark.parametrize("logged", released_image(parse_image_name(IMAGE)).digests)
@pytest.mark.parametrize(
    ("rule", "named", "fact"),
    [
        ("listed", "an image (ghcr.io/acme/widget@sha256:abababababab…)", f"image {IMAGE}"),
        ("announced", "an image (ghcr.io/acme/widget@sha256:abababababab…)", f"image {IMAGE}"),
        ("registry", "an image (of ghcr.io/acme/widget)", "image of ghcr.io/acme/widget"),
    ],
)
def test_a_signature_of_a_known_image_is_told_as_that_whichever_digest_the_log_shows(
    database: Database, rule: str, named: str, fact: str, logged: str
) -> None:
    rules = {each.id: each for each in load_rules(STRICT % IMAGE).rules}
    image = released_image(parse_image_name(IMAGE))
    listed = {DigestSource(SourceForm.REGISTRY, "ghcr.io/acme/widget"): frozenset(image.digests)}.get
    store = Store(database, clock=lambda: NOW, route=lambda _: (), digests=listed)
    leave = Authorisation(image.digests[0], 1, NOW - timedelta(days=1), "", image.what, image.digests)
    Authorisations(database).add("announced", leave, NOW - timedelta(days=2))
    made = finding(7, Outcome.UNEXPECTED, "dsse")
    signing = replace(made.selected.signing, digests=(Digest(*logged.split(":")),))
    made = replace(made, rule=rule, selected=everyone(signing))
    (alert,) = alerts_of_findings([made], rules, NOW, lambda: store.facts.stored)
    assert alert.title == f"a@acme.example signed {named} on branch evil instead of tag v*"
    assert ("Signed", f"{fact}; its own digest is not in the log") in dict(groups_of(alert))["Entry"]
    (alert,) = alerts_of_findings([replace(made, rule="other")], rules, NOW, lambda: store.facts.stored)
    assert alert.title.startswith("a@acme.example signed an attestation on"), "another rule's announcement says nothing"
    assert "Signed" not in dict(dict(groups_of(alert))["Entry"])


RING = Signer(
    SignerForm.PGP,
    (Name(NameForm.PGP_USER_ID, "Mallory"), Name(NameForm.PGP_USER_ID, "Alice <alice@acme.example>")),
    fingerprints=("11" * 20, "22" * 20, "33" * 20),
)
CROWD = Signer(SignerForm.CERTIFICATE, (Name(NameForm.EMAIL, "crowd@other.example"),), fingerprints=("44" * 32,))


@pytest.mark.parametrize(
    ("select", "who", "fact"),
    [
        ("{fingerprint: %s}" % ("33" * 20), f"The key {'33' * 20} signed", ("Key", "33" * 20)),
        ("{identity: {glob: '*alice@acme*'}}", "Alice <alice@acme.example> signed", ("Identity", RING.names[1].value)),
        ("{all: [{identity: Mallory}, {not: {fingerprint: %s}}]}" % ("55" * 20), "Mallory", ("Identity", "Mallory")),
        (
            "{all: [{issuer: {glob: '*'}}, {identity: a@acme.example}]}",
            "a@acme.example",
            ("Identity", "a@acme.example"),
        ),
        ("{issuer: https://issuer.example}", "a@acme.example", ("Identity", "a@acme.example")),
    ],
)
def test_an_alert_names_the_key_or_name_that_the_rule_selects(select: str, who: str, fact: tuple[str, str]) -> None:
    rules = load_rules(f"version: 1\nrules:\n  - {{id: acme, select: {select}}}\n").rules
    made = finding(7, Outcome.UNEXPECTED)
    signing = replace(made.selected.signing, signers=(*[CROWD] * 50, RING, SIGNER))
    made = replace(made, selected=selected_by(rules[0].select, signing))
    for outcome in (Outcome.UNEXPECTED, Outcome.UNVERIFIED):
        shown = replace(made, verdict=Verdict(outcome, made.verdict.reasons))
        (alert,) = alerts_of_findings([shown], {"acme": rules[0]}, NOW)
        assert next(each for each in alert.every_fact() if each[0] == fact[0]) == fact
        if outcome is Outcome.UNEXPECTED:
            assert alert.summary.startswith(who)


def test_a_certificate_is_told_as_a_certificate() -> None:
    (alert,) = alerts_of_findings([finding(7, Outcome.UNEXPECTED, "precertificate")], RULES, NOW)
    assert alert.title.startswith("a@acme.example was issued a signing certificate")
    assert "was issued a signing certificate" in alert.summary


def test_the_severity_is_the_rules() -> None:
    for given, expected in zip(RuleSeverity, Severity, strict=True):
        rules = {"acme": replace(RULES["acme"], severity=given)}
        assert alerts_of_findings([finding(1, Outcome.UNEXPECTED)], rules, NOW)[0].severity is expected


def test_an_expected_signing_is_no_alert() -> None:
    assert alerts_of_findings([finding(7, Outcome.EXPECTED)], RULES, NOW) == []


def test_a_flood_of_self_made_certificates_is_one_alert_a_day_and_hides_no_real_one() -> None:
    flood = [finding(i, Outcome.UNVERIFIED) for i in range(500)]
    alerts = alerts_of_findings([*flood[:250], finding(1000, Outcome.UNEXPECTED), *flood[250:]], RULES, NOW)
    assert [(a.kind, a.severity) for a in alerts] == [
        ("unexpected-signing", Severity.WARN),
        ("unverified-signing", Severity.INFO),
    ]
    again = alerts_of_findings([finding(501, Outcome.UNVERIFIED)], RULES, NOW + timedelta(hours=3))
    tomorrow = alerts_of_findings([finding(502, Outcome.UNVERIFIED)], RULES, NOW + timedelta(days=1))
    assert again[0].id == alerts[1].id
    assert tomorrow[0].id != alerts[1].id


def test_what_an_attacker_wrote_is_cut_to_what_a_person_reads() -> None:
    names = tuple(Name(NameForm.URI, f"https://{i}/" + "x" * 100_000) for i in range(3000))
    (alert,) = alerts_of_findings(
        [finding(7, Outcome.UNEXPECTED, signer=dataclasses.replace(SIGNER, names=names))], RULES, NOW
    )
    assert len(str(alert.to_json())) < 50_000
    assert alert.facts[-1][0] == "More"


def unreadable(index: int, code: str, leaf: bytes = b"leaf") -> UnreadableEntry:
    return UnreadableEntry(Unreadable(EntryRef("v2", index), code, "why"), leaf)


def test_every_batch_that_meets_unreadable_entries_is_news_with_a_count_by_reason() -> None:
    batch = [unreadable(9, "b"), unreadable(3, "a"), unreadable(4, "a")]
    alerts = alerts_of_unreadable("v2", batch, NOW)
    assert [(a.index, dict(a.facts)["Entries"]) for a in alerts] == [(3, "2"), (9, "1")]
    assert {a.owner for a in alerts} == {Owner.OURSELVES}
    assert all("It is not known whether a rule selects these entries." in a.consequence for a in alerts)
    (in_part,) = alerts_of_unreadable("v2", [unreadable(5, "unreadable-signer")], NOW)
    assert "the readable part" in in_part.consequence
    assert [a.id for a in alerts_of_unreadable("v2", batch, NOW + timedelta(days=2))] == [a.id for a in alerts]
    (later,) = alerts_of_unreadable("v2", [unreadable(50, "a")], NOW + timedelta(minutes=1))
    assert later.id not in {a.id for a in alerts}


def test_the_alert_for_an_unreadable_entry_names_its_readable_part() -> None:
    names = b"release@acme.example\x00https://github.com/acme/widget"
    pem = base64.b64encode(
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(b"\x30\x82" * 20 + names) + b"-----END"
    )
    leaf = b'{"apiVersion":"9.0.0","kind":"newkind","spec":{"signer":"%s"}}' % pem
    (alert,) = alerts_of_unreadable("v2", [unreadable(7, "unsupported-kind", leaf)], NOW)
    told = dict(alert.facts)["Readable in it"]
    assert told.startswith("kind newkind; release@acme.example, https://github.com/acme/widget; ")
    assert f"{len(leaf)} bytes, SHA-256 {sha256(leaf).hexdigest()}" in told


@pytest.mark.parametrize(
    "leaf",
    [b"", b"a" * 1_000_000, b"a@" * 500_000, b"https://" * 100_000, b"\xff" * 65_536, b'"kind":' * 100_000],
    ids=["empty", "letters", "ats", "urls", "binary", "kinds"],
)
def test_the_readable_part_of_any_bytes_is_one_short_inert_line(leaf: bytes) -> None:
    told = readable_part(leaf)
    assert len(told) < 1000
    assert told.isascii()
    assert told.isprintable()


def test_the_three_kinds_of_trouble_are_never_mixed() -> None:
    since = NOW - timedelta(minutes=90)
    assert could_not_ask_alert("v2", "timeout", "no answer", since, NOW).owner is Owner.COULD_NOT_ASK
    assert stale_head_alert("v2", None, since, NOW).owner is Owner.COULD_NOT_ASK
    assert own_fault_alert("database", "disk full", since, NOW).owner is Owner.OURSELVES
    assert new_shard_alert("v2", "log2031-2.example.org", "the trust root", NOW).severity is Severity.INFO
    assert "90 minutes" in could_not_ask_alert("v2", "timeout", "no answer", since, NOW).title
    assert "3 hours" in stale_head_alert("v2", None, NOW - timedelta(hours=3), NOW).title

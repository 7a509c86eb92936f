"""What an entry holds is told: each claim by its name, each time with its source, who issued it, and raw bytes."""

from datetime import datetime, timedelta
from typing import Final

import pytest
from msgspec.structs import replace

from monitor.following.scan_batch import RuleScanner, scan_batch
from monitor.model.log_source import LogApi, LogEntry
from rules.matching.matcher import compile_rules
from rules.rule_file import load_rules
from sigstore_entries.certificate import EXTENSIONS, FulcioExtension
from sigstore_entries.entry import decode_ct, decode_rekor
from sigstore_entries.signing import ChainTrust, EntryRef, KnownTime, NameForm, Signing, Unreadable
from sigstore_entries.trust import CertificateAuthorities, CertificateAuthority
from tests.support import entries as make

WHERE: Final = EntryRef("log.example", 7)
CA: Final = make.make_ca()
SECOND: Final = timedelta(seconds=1)
BEFORE: Final = KnownTime("certificate-not-before", make.NOT_BEFORE)


def told(result: Signing | Unreadable) -> Signing:
    assert isinstance(result, Signing), result
    return result


def bodies(certificate: bytes) -> list[bytes]:
    """An entry of each kind that carries a certificate."""
    return [
        make.hashedrekord_v1(certificate),
        make.hashedrekord_v2(certificate),
        make.dsse_v1(certificate),
        make.dsse_v2(certificate),
        make.intoto_v1(certificate),
        make.intoto_v2(certificate),
        make.cose(certificate),
        make.rekord("x509", make.pem(certificate)),
        make.jar(certificate),
    ]


def test_the_claims_are_those_of_fulcios_table() -> None:
    """SPEC fulcio docs/oid-info.md: .1 to .24; .7 is the type of a name, not a claim."""
    assert [each.number for each in EXTENSIONS] == [*range(1, 7), *range(8, 25)]
    assert len({each.name for each in EXTENSIONS}) == len(EXTENSIONS)


@pytest.mark.parametrize("claim", EXTENSIONS, ids=lambda claim: claim.name)
def test_each_claim_is_told_by_its_name_wherever_the_certificate_stands(claim: FulcioExtension) -> None:
    value = "värde of " + claim.name
    issuer = {"issuer": value} if claim.name == "issuer" else {}
    claims = {claim.name: value}
    certificate = make.make_certificate(CA, san="dev@example.com", issuer=None, claims=claims)
    _, tbs = make.make_precertificate(CA, san="dev@example.com", issuer=None, claims=claims)
    signings = [told(decode_rekor(body, WHERE)) for body in bodies(certificate)]
    signings += [
        told(decode_ct(make.x509_leaf(certificate), WHERE)),
        told(decode_ct(make.precert_leaf(CA, tbs), WHERE)),
    ]
    for signing in signings:
        [signer] = signing.signers
        assert dict(signer.claims) == claims, signing.kind
        # The issuer is told by its newer extension, or else by its older one.
        assert signer.issuer == (value if issuer or claim.name == "issuer_v1" else None)
        assert (signing.where, signer.defects) == (WHERE, ())


@pytest.mark.parametrize(
    ("san", "form", "value"),
    [
        ("dev@example.com", NameForm.EMAIL, "dev@example.com"),
        ("https://example.com/workflow", NameForm.URI, "https://example.com/workflow"),
        ("dev!example.com", NameForm.OTHER, "dev!example.com"),
    ],
)
def test_each_form_of_name_is_told_wherever_the_certificate_stands(san: str, form: NameForm, value: str) -> None:
    certificate = make.make_certificate(CA, san=san)
    _, tbs = make.make_precertificate(CA, san=san)
    signings = [told(decode_rekor(body, WHERE)) for body in bodies(certificate)]
    signings += [
        told(decode_ct(make.x509_leaf(certificate), WHERE)),
        told(decode_ct(make.precert_leaf(CA, tbs), WHERE)),
    ]
    for signing in signings:
        assert [(name.form, name.value) for name in signing.signers[0].names] == [(form, value)]


def test_times_are_told_with_who_says_so_and_no_others_are() -> None:
    certificate = make.make_certificate(CA)
    integrated = make.NOT_BEFORE + 3 * SECOND
    v1 = told(decode_rekor(make.hashedrekord_v1(certificate), WHERE, integrated))
    assert v1.times == (KnownTime("integrated-time", integrated), BEFORE)
    assert told(decode_rekor(make.hashedrekord_v2(certificate), WHERE)).times == (BEFORE,)
    key = make.spki_of(make.make_key("plain"))
    assert told(decode_rekor(make.hashedrekord_v2(key), WHERE)).times == (), "a plain key in a v2 log has no time"
    stamped = make.timestamp_response(bytes.fromhex(make.ARTIFACT), at=make.NOT_BEFORE + 5 * SECOND)
    response = told(decode_rekor(make.rfc3161(stamped), WHERE))
    assert response.times == (KnownTime("timestamp-response", make.NOT_BEFORE + 5 * SECOND),)
    leaf = make.x509_leaf(certificate, at=make.NOT_BEFORE + SECOND)
    assert told(decode_ct(leaf, WHERE)).times == (KnownTime("ct-timestamp", make.NOT_BEFORE + SECOND), BEFORE)


@pytest.mark.parametrize(("at", "name"), [(0, "first"), (200, "second"), (400, None)])
def test_a_certificate_is_the_authoritys_that_was_in_force_when_it_was_issued(at: int, name: str | None) -> None:
    """An authority that was rotated: the same chain under two names, each for its own time."""
    day = timedelta(days=1)
    first = CertificateAuthority("first", CA.chain, valid_until=make.NOT_BEFORE + 100 * day)
    second = replace(
        first, name="second", valid_from=make.NOT_BEFORE + 101 * day, valid_until=make.NOT_BEFORE + 300 * day
    )
    issued = make.NOT_BEFORE + at * day
    certificate = make.make_certificate(CA, not_before=issued)
    for body in bodies(certificate):
        [signer] = told(decode_rekor(body, WHERE)).signers
        judged = CertificateAuthorities([first, second]).judge_chain(signer, issued + SECOND)
        assert judged.trusted_by == name
        assert judged.trust is (ChainTrust.TRUSTED if name else ChainTrust.UNTRUSTED)


@pytest.mark.parametrize(
    ("api", "leaf", "code"),
    [
        (LogApi.REKOR_V1, b"{", "malformed-json"),
        (LogApi.REKOR_V2, b'{"kind":"a","kind":"b","apiVersion":"1","spec":{}}', "repeated-key"),
        (LogApi.REKOR_V2, make.canonical("novel", "0.0.9", {}), "unsupported-kind"),
        (LogApi.REKOR_V1, b"[" * 100_000, "malformed-json"),
        (LogApi.CT_RFC6962, b"\x00\x00" + bytes(40), "malformed-leaf"),
        (LogApi.CT_STATIC, make.x509_leaf(make.make_certificate(CA)[:-10]), "malformed-certificate"),
    ],
)
def test_what_cannot_be_read_is_kept_whole_with_why(api: LogApi, leaf: bytes, code: str) -> None:
    """No rule is asked first: it is not known that an unreadable entry is not about it."""
    rules = "version: 1\nrules:\n  - {id: any, select: {identity: dev@example.com}}\n"
    scanner = RuleScanner(compile_rules(load_rules(rules).rules))
    found = scan_batch([LogEntry(b"{}"), LogEntry(leaf)], 6, "log.example", api, scanner).scan.unreadable
    kept = {each.unreadable.where: each for each in found}
    assert kept[WHERE].leaf == leaf
    assert kept[WHERE].unreadable.code == code
    assert kept[WHERE].unreadable.reason.isprintable()


def test_a_time_without_zone_is_never_told() -> None:
    signings = [told(decode_rekor(body, WHERE, make.NOT_BEFORE)) for body in bodies(make.make_certificate(CA))]
    times: list[datetime] = [time.at for signing in signings for time in signing.times]
    assert times
    assert all(time.utcoffset() == timedelta(0) for time in times)

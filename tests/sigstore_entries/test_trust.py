"""A certificate is trusted when an authority of the trust root issued it, and only then."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec.structs import replace

from sigstore_entries.certificate import read_certificate
from sigstore_entries.der import certificate_parts, tbs_without_scts
from sigstore_entries.entry import decode_ct
from sigstore_entries.keys import read_spki
from sigstore_entries.signing import ChainTrust, EntryRef, Signer, Signing
from sigstore_entries.trust import BadAuthority, CertificateAuthorities, CertificateAuthority, CtLogKey, NotTrusted
from tests.support import entries as make
from tlog.ct import leaf_timestamped_entry, verify_digitally_signed

CA, OTHER = make.make_ca(), make.make_ca("other", name="test.example")
AUTHORITY = CertificateAuthority("https://ca.example", CA.chain)
TRUSTED = CertificateAuthorities([AUTHORITY])
IN_TIME = make.NOT_BEFORE + timedelta(minutes=5)
CT_LOG = make.make_ct_log()
CT_KEY = CtLogKey(CT_LOG.log_id, CT_LOG.spki)


def test_a_certificate_of_the_authority_is_trusted() -> None:
    signer = TRUSTED.judge_chain(read_certificate(make.make_certificate(CA)), IN_TIME)
    assert (signer.trust, signer.trusted_by, signer.defects) == (ChainTrust.TRUSTED, "https://ca.example", ())


def test_a_precertificate_served_in_full_is_trusted() -> None:
    precertificate, tbs = make.make_precertificate(CA)
    signer = TRUSTED.judge_chain(ct_signer(tbs, make.precert_extra(precertificate, CA.chain)), IN_TIME)
    assert (signer.trust, signer.defects) == (ChainTrust.TRUSTED, ())


def ct_signer(tbs: bytes, extra: bytes = b"", ca: make.Authority = CA) -> Signer:
    signing = decode_ct(make.precert_leaf(ca, tbs), EntryRef("ct", 0), extra)
    assert isinstance(signing, Signing)
    return signing.signers[0]


def test_leaving_out_extra_data_cannot_make_a_precertificate_a_strangers() -> None:
    _, tbs = make.make_precertificate(CA)
    assert TRUSTED.judge_chain(ct_signer(tbs)).trust is ChainTrust.TRUSTED


def test_spoiling_extra_data_is_a_defect_and_cannot_make_it_a_strangers() -> None:
    precertificate, tbs = make.make_precertificate(CA)
    spoiled = precertificate[:-1] + bytes((precertificate[-1] ^ 1,))
    signer = TRUSTED.judge_chain(ct_signer(tbs, make.precert_extra(spoiled, CA.chain)))
    assert signer.trust is ChainTrust.TRUSTED
    assert [defect.partition(":")[0] for defect in signer.defects] == ["chain"]


def test_a_precertificate_of_another_authority_is_untrusted() -> None:
    precertificate, tbs = make.make_precertificate(OTHER)
    for extra in (b"", make.precert_extra(precertificate, OTHER.chain)):
        assert TRUSTED.judge_chain(ct_signer(tbs, extra, OTHER)).trust is ChainTrust.UNTRUSTED


def test_a_key_has_no_certificate_to_judge() -> None:
    assert TRUSTED.judge_chain(read_spki(make.spki_of(make.make_key(1)))).trust is ChainTrust.NO_CERTIFICATE


BEFORE_CA = make.CA_NOT_BEFORE - timedelta(days=1)
UNTRUSTED = {
    "same names, other keys": make.make_certificate(OTHER),
    "before the authority existed": make.make_certificate(CA, not_before=BEFORE_CA),
    "after the authority ended": make.make_certificate(CA, not_before=make.CA_NOT_AFTER + timedelta(days=1)),
    "not for code signing": make.make_certificate(CA, code_signing=False),
    "a CA itself": make.make_certificate(CA, extra=[(x509.BasicConstraints(ca=True, path_length=None), True)]),
    "an unknown critical extension": make.make_certificate(
        CA, extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b""), True)]
    ),
    "a placeholder for a signature": make.OddCertificate(
        issuer=CA.certificate.subject.public_bytes(),
        extensions=(("2.5.29.37", False, bytes.fromhex("300a06082b06010505070303")),),
    ).certificate(),
}


@pytest.mark.parametrize("case", UNTRUSTED)
def test_anything_else_is_untrusted(case: str) -> None:
    assert TRUSTED.verify_chain(make.make_certificate(CA)) == AUTHORITY
    signer = TRUSTED.judge_chain(read_certificate(UNTRUSTED[case]))
    assert (signer.trust, signer.trusted_by) == (ChainTrust.UNTRUSTED, None)
    with pytest.raises(NotTrusted):
        TRUSTED.verify_chain(UNTRUSTED[case])


CODE_SIGNING = bytes.fromhex("300a06082b06010505070303")
ISSUED = make.OddCertificate().with_extension("2.5.29.37", CODE_SIGNING)
ODD_BUT_ISSUED = {
    "40 kB long": ISSUED.with_extension("1.2.3", b"a" * 40_000),
    "a repeated extension": ISSUED.with_extension("1.2.3", b"a").with_extension("1.2.3", b"b"),
    "a repeated usage": ISSUED.with_extension("2.5.29.37", CODE_SIGNING),
    "a repeated claim": ISSUED.with_extension("1.3.6.1.4.1.57264.1.1", b"https://a").with_extension(
        "1.3.6.1.4.1.57264.1.1", b"https://b"
    ),
    "an extension that the library refuses": ISSUED.with_extension("2.5.29.19", b"junk"),
    "a serial number that is not positive": dataclasses.replace(ISSUED, serial=b"\x02\x01\xff"),
    "a time that no clock shows": dataclasses.replace(
        ISSUED, validity=make.der(0x30, make.der(0x17, b"260230000000Z") * 2)
    ),
}


@pytest.mark.parametrize("case", ODD_BUT_ISSUED)
def test_an_odd_certificate_of_the_authority_is_trusted_with_a_defect(case: str) -> None:
    raw = ODD_BUT_ISSUED[case].signed_by(CA)
    signer = TRUSTED.judge_chain(read_certificate(raw), IN_TIME)
    assert (signer.trust, signer.trusted_by) == (ChainTrust.TRUSTED, "https://ca.example")
    assert signer.defects
    for forged in (ODD_BUT_ISSUED[case].signed_by(OTHER), raw[:-9] + bytes((raw[-9] ^ 1,)) + raw[-8:]):
        assert TRUSTED.judge_chain(read_certificate(forged)).trust is ChainTrust.UNTRUSTED


def test_the_control_case_of_odd_certificates_is_trusted_without_a_defect() -> None:
    signer = TRUSTED.judge_chain(read_certificate(ISSUED.signed_by(CA)), IN_TIME)
    assert (signer.trust, signer.defects) == (ChainTrust.TRUSTED, ())


def test_every_flipped_byte_of_a_certificate_makes_it_untrusted() -> None:
    certificate = make.make_certificate(CA)
    for at in range(0, len(certificate), 7):
        spoiled = certificate[:at] + bytes((certificate[at] ^ 0x01,)) + certificate[at + 1 :]
        with pytest.raises(NotTrusted):
            TRUSTED.verify_chain(spoiled)


def test_an_authority_outside_its_period_is_not_asked() -> None:
    year = timedelta(days=365)
    ended = replace(AUTHORITY, valid_until=make.NOT_BEFORE - year)
    for outside in (ended, replace(AUTHORITY, valid_from=make.NOT_BEFORE + year)):
        authorities = CertificateAuthorities([outside])
        assert authorities.judge_chain(read_certificate(make.make_certificate(CA))).trust is ChainTrust.UNTRUSTED
    rotated = CertificateAuthorities([CertificateAuthority("old", OTHER.chain), AUTHORITY])
    assert rotated.verify_chain(make.make_certificate(CA)) == AUTHORITY


@pytest.mark.parametrize("minutes", [-1, 11])
def test_a_use_outside_the_validity_is_a_defect_and_not_a_strangers(minutes: int) -> None:
    late = make.NOT_BEFORE + timedelta(minutes=minutes)
    signer = TRUSTED.judge_chain(read_certificate(make.make_certificate(CA)), late)
    assert signer.trust is ChainTrust.TRUSTED
    assert [defect.partition(":")[0] for defect in signer.defects] == ["validity"]


def test_an_intermediate_that_the_entry_brings_along_leads_to_a_trusted_root() -> None:
    authorities = CertificateAuthorities([CertificateAuthority("root only", CA.chain[1:])])
    leaf = make.make_certificate(CA)
    assert authorities.verify_chain(leaf, CA.chain).name == "root only"
    for chain in ((), OTHER.chain, (leaf,), (b"junk",) * 50):
        with pytest.raises(NotTrusted):
            authorities.verify_chain(leaf, chain)


def lookalike(of: x509.Certificate, number: int) -> bytes:
    """A certificate with the same name and key and every other field, signed by a key that anyone can make."""
    builder = x509.CertificateBuilder(
        of.issuer, of.subject, of.public_key(), number, of.not_valid_before_utc, of.not_valid_after_utc
    )
    for extension in of.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(make.make_key("anybody"), SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("number", [1, 4, 8])
def test_certificates_offered_before_the_real_intermediate_do_not_hide_it(number: int) -> None:
    authorities = CertificateAuthorities([CertificateAuthority("root only", CA.chain[1:])])
    lookalikes = tuple(lookalike(CA.certificate, serial) for serial in range(1, number + 1))
    leaf = make.make_certificate(CA, ct_log=CT_LOG)
    with pytest.raises(NotTrusted):
        authorities.verify_chain(leaf, lookalikes)
    for others in (lookalikes, (b"junk",) * number, OTHER.chain[:1] * number):
        signer = read_certificate(leaf, (*others, *CA.chain))
        assert authorities.judge_chain(signer).trust is ChainTrust.TRUSTED
        assert len(authorities.embedded_scts(signer, [CT_KEY]) or ()) == 1


@pytest.mark.parametrize(
    "weak",
    [
        make.make_ca("weak", intermediate_is_ca=False),
        make.make_ca("weak", intermediate_usage=ExtendedKeyUsageOID.SERVER_AUTH),
        make.make_ca("weak", not_after=datetime(2025, 6, 1, tzinfo=UTC)),
    ],
    ids=["not a CA", "for web servers", "expired"],
)
def test_an_intermediate_that_may_not_issue_leads_nowhere(weak: make.Authority) -> None:
    authorities = CertificateAuthorities([CertificateAuthority("root only", weak.chain[1:])])
    with pytest.raises(NotTrusted):
        authorities.verify_chain(make.make_certificate(weak), weak.chain)


def test_what_was_found_about_one_intermediate_is_not_held_of_its_namesakes() -> None:
    """Verdicts on issuers are remembered; one of the same name and even the same key is another certificate."""
    authorities = CertificateAuthorities([CertificateAuthority("root only", CA.chain[1:])])
    leaf = make.make_certificate(CA)
    namesakes = [
        OTHER,
        make.make_ca(intermediate_is_ca=False),
        make.make_ca(intermediate_usage=ExtendedKeyUsageOID.SERVER_AUTH),
        make.make_ca(not_after=datetime(2025, 6, 1, tzinfo=UTC)),
    ]
    for _ in range(2):
        assert authorities.verify_chain(leaf, CA.chain).name == "root only"
        for namesake in namesakes:
            assert namesake.certificate.subject == CA.certificate.subject
            with pytest.raises(NotTrusted):
                authorities.verify_chain(leaf, namesake.chain)


@pytest.mark.parametrize(
    "chain",
    [
        (),
        (b"junk",),
        (CA.chain[1], CA.chain[0]),
        (CA.chain[0], OTHER.chain[1]),
        make.make_ca("weak", intermediate_is_ca=False).chain,
        (make.make_certificate(CA),),
    ],
    ids=["empty", "junk", "wrong order", "of two authorities", "intermediate is no CA", "a leaf"],
)
def test_a_trust_root_with_a_broken_authority_is_refused(chain: tuple[bytes, ...]) -> None:
    with pytest.raises(BadAuthority):
        CertificateAuthorities([AUTHORITY, CertificateAuthority("broken", chain)])


def certificate_with_sct(at: datetime = make.NOT_BEFORE) -> Signer:
    return read_certificate(make.make_certificate(CA, ct_log=CT_LOG, sct_at=at))


def test_an_embedded_timestamp_of_a_known_log_verifies() -> None:
    assert TRUSTED.embedded_scts(certificate_with_sct(), [CT_KEY])


def test_an_embedded_timestamp_is_a_promise_of_the_leaf_that_the_log_will_have() -> None:
    scts = TRUSTED.embedded_scts(certificate_with_sct(), [CT_KEY])
    assert scts is not None
    (found,) = scts
    assert found.spki == CT_KEY.spki
    assert found.leaf.issuer_key_hash == CA.issuer_key_hash
    assert found.leaf.certificate == tbs_without_scts(certificate_with_sct().certificate or b"")
    verify_digitally_signed(found.spki, b"\0\0" + leaf_timestamped_entry(found.leaf), found.sct.signature)


def test_a_certificate_without_timestamp_has_none_to_check() -> None:
    assert TRUSTED.embedded_scts(read_certificate(make.make_certificate(CA)), [CT_KEY]) is None
    assert TRUSTED.embedded_scts(read_spki(make.spki_of(make.make_key(1))), [CT_KEY]) is None


def test_a_timestamp_that_does_not_verify_is_told() -> None:
    signer = certificate_with_sct()
    unknown, wrong = make.make_ct_log("unknown"), make.make_ct_log("wrong")
    later = make.NOT_BEFORE + timedelta(days=1)
    other_authority = CertificateAuthorities([CertificateAuthority("other", OTHER.chain)])
    oid = "1.3.6.1.4.1.11129.2.4.2"
    assert TRUSTED.embedded_scts(signer, []) == []
    assert TRUSTED.embedded_scts(signer, [CtLogKey(unknown.log_id, unknown.spki)]) == []
    assert TRUSTED.embedded_scts(signer, [CtLogKey(CT_LOG.log_id, wrong.spki)]) == []
    assert TRUSTED.embedded_scts(signer, [replace(CT_KEY, valid_from=later)]) == []
    assert other_authority.embedded_scts(signer, [CT_KEY]) == []
    assert TRUSTED.embedded_scts(dataclasses.replace(signer, extensions={oid: b"junk"}), [CT_KEY]) == []
    assert signer.certificate is not None
    spoiled = signer.certificate.replace(b"dev@example.com", b"eve@example.com")
    assert TRUSTED.embedded_scts(read_certificate(spoiled), [CT_KEY]) == []


def ecdsa(digest: str) -> bytes:
    """AlgorithmIdentifier of ECDSA with a hash (RFC 5758 3.2)."""
    arc = {"sha256": "02", "sha384": "03"}[digest]
    return make.der(0x30, make.der(0x06, bytes.fromhex(f"2a8648ce3d0403{arc}")))


def reassembled(certificate: bytes, algorithm: bytes | None = None, unused_bits: int = 0) -> bytes:
    tbs, was, signature = certificate_parts(certificate)
    bits = bytes((unused_bits,)) + signature.content[1:]
    return make.der(0x30, tbs.encoded + (algorithm or was.encoded) + make.der(0x03, bits))


def test_a_signature_is_worth_nothing_beside_another_algorithm_name_or_form() -> None:
    certificate = make.make_certificate(CA)
    assert TRUSTED.verify_chain(reassembled(certificate)) == AUTHORITY
    stranger = make.make_ca("a stranger of the same name")
    assert stranger.certificate.subject == CA.certificate.subject
    for forged in (
        reassembled(certificate, ecdsa("sha384")),
        make.make_certificate(stranger),
    ):
        with pytest.raises(NotTrusted):
            TRUSTED.verify_chain(forged)
        assert TRUSTED.trust_of(read_certificate(forged)) is ChainTrust.UNTRUSTED
    # What the authority signed stays signed in an odd wrapping.
    assert TRUSTED.verify_chain(reassembled(certificate, unused_bits=1)) == AUTHORITY


def test_the_short_way_to_a_verdict_is_the_long_one() -> None:
    signers = [read_certificate(raw) for raw in (*UNTRUSTED.values(), make.make_certificate(CA))]
    signers += [read_certificate(odd.signed_by(CA)) for odd in ODD_BUT_ISSUED.values()]
    signers += [read_spki(make.spki_of(make.make_key(1))), ct_signer(make.make_precertificate(CA)[1])]
    assert [TRUSTED.trust_of(each) for each in signers] == [TRUSTED.judge_chain(each).trust for each in signers]


def test_a_chain_is_judged_alike_whether_the_leaf_was_read_before() -> None:
    for raw in (
        *UNTRUSTED.values(),
        make.make_certificate(CA),
        *(odd.signed_by(CA) for odd in ODD_BUT_ISSUED.values()),
    ):
        signer = read_certificate(raw)
        assert signer.tbs is not None
        assert TRUSTED.judge_chain(signer) == TRUSTED.judge_chain(dataclasses.replace(signer, tbs=None))
    precertificate, tbs = make.make_precertificate(CA)
    served = ct_signer(tbs, make.precert_extra(precertificate, CA.chain))
    assert (served.certificate, served.tbs) == (precertificate, None), "its parts are not those of the leaf"

"""A CT leaf is decoded like the certificate it stands for, and both can be told to be the same one."""

import pytest

from sigstore_entries import der
from sigstore_entries.der import certificate_key, tbs_key, tbs_without_scts
from sigstore_entries.entry import decode_ct, decode_rekor
from sigstore_entries.signing import EntryRef, KnownTime, SignerForm, Signing, Unreadable
from tests.support import entries as make

WHERE = EntryRef("ctfe.example", 3)
CA = make.make_ca()
CLAIMS = make.github_claims()
SAN = CLAIMS["build_config_uri"]
CT_LOG = make.make_ct_log()
PRECERTIFICATE, TBS = make.make_precertificate(CA, san=SAN, issuer=make.GITHUB_ISSUER, claims=CLAIMS, serial=77)
CERTIFICATE = make.make_certificate(CA, san=SAN, issuer=make.GITHUB_ISSUER, claims=CLAIMS, serial=77, ct_log=CT_LOG)
LEAF = make.precert_leaf(CA, TBS)


def decoded(leaf: bytes, extra: bytes = b"") -> Signing:
    result = decode_ct(leaf, WHERE, extra)
    assert isinstance(result, Signing), result
    return result


def test_a_precertificate_leaf_tells_what_its_certificate_tells() -> None:
    signing = decoded(LEAF)
    final = decode_rekor(make.hashedrekord_v1(CERTIFICATE), WHERE)
    assert isinstance(final, Signing)
    (mine,), (theirs,) = signing.signers, final.signers
    assert (mine.names, mine.issuer, mine.claims) == (theirs.names, theirs.issuer, theirs.claims)
    assert (mine.not_before, mine.not_after) == (theirs.not_before, theirs.not_after)
    assert mine.fingerprints[0] == theirs.fingerprints[1]
    assert (mine.form, mine.defects, mine.certificate) == (SignerForm.PRECERTIFICATE, (), None)
    assert mine.issuer_key_hash == CA.issuer_key_hash
    assert signing.kind == "precertificate"
    assert signing.times == (
        KnownTime("ct-timestamp", make.NOT_BEFORE),
        KnownTime("certificate-not-before", make.NOT_BEFORE),
    )


def test_extra_data_that_agrees_with_the_leaf_gives_the_signed_precertificate() -> None:
    (signer,) = decoded(LEAF, make.precert_extra(PRECERTIFICATE, CA.chain)).signers
    assert signer.certificate == PRECERTIFICATE
    assert signer.chain == CA.chain
    assert signer.defects == ()


def test_extra_data_of_another_certificate_is_not_believed() -> None:
    other, _ = make.make_precertificate(CA, san="victim@example.com")
    (signer,) = decoded(LEAF, make.precert_extra(other, CA.chain)).signers
    assert signer.certificate is None
    assert signer.names[0].value == SAN
    assert [defect.partition(":")[0] for defect in signer.defects] == ["chain"]


@pytest.mark.parametrize("extra", [b"\x00", b"\xff" * 50, make.certificate_extra(CA.chain), b"\x00\x00\x00" * 2])
def test_extra_data_that_is_nonsense_changes_no_identity(extra: bytes) -> None:
    assert decoded(LEAF, extra).signers[0].names == decoded(LEAF).signers[0].names


def test_a_final_certificate_leaf_is_read_with_its_chain() -> None:
    signing = decoded(make.x509_leaf(CERTIFICATE), make.certificate_extra(CA.chain))
    assert signing.kind == "certificate"
    assert signing.signers[0].certificate == CERTIFICATE
    assert signing.signers[0].chain == CA.chain


def test_a_timestamp_beyond_all_clocks_tells_no_time() -> None:
    leaf = LEAF[:2] + b"\xff" * 8 + LEAF[10:]
    assert [time.source for time in decoded(leaf).times] == ["certificate-not-before"]


MALFORMED = {
    "empty": (b"", "malformed-leaf"),
    "version 2": (b"\x01" + LEAF[1:], "malformed-leaf"),
    "cut short": (LEAF[:-1], "malformed-leaf"),
    "bytes left over": (LEAF + b"\x00", "malformed-leaf"),
    "unknown entry type": (LEAF[:10] + b"\x80\x00" + LEAF[12:], "malformed-leaf"),
    "not a certificate": (make.precert_leaf(CA, b"junk"), "malformed-certificate"),
    "a certificate instead of its TBS": (make.precert_leaf(CA, CERTIFICATE), "malformed-certificate"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_leaf_is_unreadable(case: str) -> None:
    assert decoded(LEAF).signers
    leaf, code = MALFORMED[case]
    result = decode_ct(leaf, WHERE)
    assert isinstance(result, Unreadable)
    assert (result.code, result.where) == (code, WHERE)


def test_certificate_precertificate_and_leaf_have_one_key() -> None:
    assert tbs_without_scts(CERTIFICATE) == tbs_without_scts(PRECERTIFICATE) == TBS
    assert certificate_key(CERTIFICATE) == certificate_key(PRECERTIFICATE) == tbs_key(TBS)


@pytest.mark.parametrize(
    "change", [{"serial": 78}, {"san": "https://other.example"}, {"issuer": "https://other.example"}]
)
def test_any_other_certificate_has_another_key(change: dict[str, object]) -> None:
    arguments = {"san": SAN, "issuer": make.GITHUB_ISSUER, "serial": 77} | change
    other = make.make_certificate(CA, **arguments)  # type: ignore[arg-type]
    assert certificate_key(other) != certificate_key(CERTIFICATE)


def test_a_certificate_without_ct_extensions_keeps_its_bytes() -> None:
    plain = make.OddCertificate().with_extension("1.2.3", b"x")
    assert tbs_without_scts(plain.certificate()) == plain.tbs()


def test_a_certificate_of_ct_extensions_only_loses_the_extensions_field() -> None:
    odd = make.OddCertificate().with_extension("1.3.6.1.4.1.11129.2.4.3", b"\x05\x00", critical=True)
    assert tbs_without_scts(odd.certificate()) == make.OddCertificate().tbs()


def test_surgery_on_what_is_not_a_certificate_is_refused() -> None:
    with pytest.raises(der.MalformedDer):
        tbs_without_scts(b"junk")

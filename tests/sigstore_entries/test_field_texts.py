"""A first look at a certificate's bytes shows all that decoding says, or admits that only decoding can tell."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from sigstore_entries import der
from sigstore_entries.certificate import BY_NAME, read_certificate
from sigstore_entries.field_texts import LARGEST, WINDOW, FieldTexts, extension_texts
from sigstore_entries.signing import Signer
from tests.support import entries as make
from tests.support.hostile_certificates import CLAIMS, PLAIN_OIDS, hostile_certificate, long_text

FIELDS = ("identity", *CLAIMS, *PLAIN_OIDS)
CA = make.make_ca()
MINE = make.make_github_certificate(CA)
NAME = read_certificate(MINE).names[0].value


def said(signer: Signer, field: str) -> set[str]:
    """What decoding says in a field, worked out here once more."""
    if field == "identity":
        return {name.value for name in signer.names}
    if field == "issuer":
        texts = (signer.issuer, signer.claims.get("issuer"), signer.claims.get("issuer_v1"))
        return {text for text in texts if text is not None}
    if field in BY_NAME:
        return {signer.claims[field]} if field in signer.claims else set()
    return set(extension_texts(signer.extensions.get(field)))


def look(fields: Sequence[str], certificates: Sequence[bytes]) -> list[set[str] | None]:
    """Texts by certificate; `None` for those that only decoding can tell of."""
    shown = FieldTexts(fields).find(certificates)
    assert len(shown.texts) == len(shown.owners)
    texts: list[set[str] | None] = [set() for _ in certificates]
    for text, owner in zip(shown.texts, shown.owners, strict=True):
        own = texts[owner]
        assert own is not None
        own.add(text)
    for number in shown.unsure:
        texts[number] = None
    return texts


def check_batch(certificates: Sequence[bytes], fields: Sequence[str]) -> Counter[str]:
    """Check every certificate of a batch; how many were sure, unsure and not certificates at all."""
    told: Counter[str] = Counter()
    for certificate, texts in zip(certificates, look(fields, certificates), strict=True):
        try:
            signer = read_certificate(certificate)
        except der.MalformedDer:
            told["malformed"] += 1
            continue
        told["unsure" if texts is None else "sure"] += 1
        if texts is not None:
            for field in fields:
                assert said(signer, field) <= texts, (field, certificate.hex())
    return told


@pytest.mark.parametrize("seed", range(12))
def test_nothing_that_decoding_says_of_a_hostile_certificate_is_missed(seed: int) -> None:
    chance = random.Random(seed)
    told: Counter[str] = Counter()
    for _ in range(60):
        certificates = [hostile_certificate(chance) for _ in range(chance.choice((1, 2, 5, 40)))]
        told += check_batch(certificates, chance.choice((FIELDS, ("identity",), ("identity", "issuer"), PLAIN_OIDS)))
    assert told["sure"] > 200
    assert told["unsure"] > 50
    assert told["malformed"] > 10


@pytest.mark.parametrize("seed", range(4))
def test_a_name_of_any_length_is_shown_whole_and_seldom_needs_decoding(seed: int) -> None:
    chance = random.Random(seed)
    names = [long_text(chance) for _ in range(200)]
    odd = make.OddCertificate()
    certificates = [
        odd.with_extension(make.SAN_OID, make.san_value((0x86, name.encode())), critical=True).certificate()
        for name in names
    ]
    for name, texts in zip(names, look(["identity"], certificates), strict=True):
        assert texts == ({name} if len(name) < 8192 else None)


def test_a_common_certificate_is_read_in_every_field_without_decoding() -> None:
    signer = read_certificate(MINE)
    for field in ("identity", "issuer", *BY_NAME, BY_NAME["source_repository_uri"].oid):
        (texts,) = look([field], [MINE])
        assert texts is not None
        assert said(signer, field) <= texts
    assert look(["identity"], [MINE]) == [{NAME}]
    assert look(["digest", "fingerprint"], [MINE]) == [set()]


def test_a_decoy_of_the_name_in_front_of_it_or_behind_it_is_never_taken_for_it() -> None:
    looks_like = make.der_oid(make.SAN_OID) + b"\x01\x01\xff" + make.der(0x04, make.san_value((0x86, b"https://good/")))
    real = (make.SAN_OID, make.san_value((0x86, b"https://victim/")))
    fake = ("1.2.3.4", looks_like)
    for extensions in ((fake, real), (real, fake)):
        odd = make.OddCertificate()
        for oid, value in extensions:
            odd = odd.with_extension(oid, value)
        assert look(["identity"], [odd.certificate()]) == [None]
    # With no real name it suggests one that decoding then does not confirm.
    alone = make.OddCertificate().with_extension(*fake).certificate()
    assert look(["identity"], [alone]) == [{"https://good/"}]
    assert read_certificate(alone).names == ()


def test_an_identifier_that_only_joining_two_certificates_makes_is_in_neither() -> None:
    encoded = make.der_oid(make.SAN_OID)
    for cut in range(1, len(encoded)):
        certificates = [MINE, b"0" + encoded[:cut], encoded[cut:] + b"\x01\x01\xff\x04\x05\x30\x03\x86\x01a", MINE]
        assert look(["identity"], certificates) == [{NAME}, set(), set(), {NAME}]
        # As many occurrences as certificates, but not one in each.
        assert look(["identity"], [*certificates[1:3], MINE + MINE]) == [set(), set(), None]


def test_large_certificates_and_large_batches() -> None:
    stuffed = make.OddCertificate().with_extension("1.2.3", make.der_oid(make.SAN_OID) * 100_000).certificate()
    assert len(stuffed) > WINDOW > LARGEST
    many = [MINE] * 400 + [stuffed] + [MINE] * 400
    assert look(["identity"], many) == [{NAME}] * 400 + [None] + [{NAME}] * 400
    assert look(["identity"], []) == []
    assert look(["identity"], [b"", b""]) == [set(), set()]
    assert look(["identity", "issuer"], [MINE] * 3 + [b""]) == [{NAME, make.GITHUB_ISSUER}] * 3 + [set()]


@pytest.mark.parametrize(
    "dotted", ["2.5.29.17", "1.3.6.1.4.1.57264.1.8", "0.9.2342", "2.999.1", "1.39", "2.0", "2.128"]
)
def test_identifiers_are_written_as_they_are_read(dotted: str) -> None:
    content = der.oid_content(dotted)
    assert content is not None
    assert der.oid_text(content) == dotted
    assert make.der_oid(dotted) == der.encode(der.OBJECT_IDENTIFIER, content)


@pytest.mark.parametrize("dotted", ["1.40", "0.40.1", "3.1", "1", "1." + "9" * 600, "1.3" + ".999999999999999999" * 10])
def test_an_identifier_that_der_cannot_hold_is_in_no_certificate(dotted: str) -> None:
    assert der.oid_content(dotted) is None
    assert look([dotted], [MINE]) == [set()]

"""A certificate tells its names, issuer and claims; anything odd in it becomes a defect and never a different name."""

from ipaddress import ip_address

import pytest
from cryptography import x509

from sigstore_entries import der
from sigstore_entries.certificate import (
    BY_NAME,
    EXTENSIONS,
    MAX_NAMES,
    USERNAME_OTHER_NAME_OID,
    encode_utf8_string,
    read_certificate,
)
from sigstore_entries.der import MAX_EXTENSIONS
from sigstore_entries.signing import NameForm, Signer
from tests.support import entries as make

CA = make.make_ca()
EMAIL = make.san_value((0x81, b"dev@example.com"))
ODD = make.OddCertificate(issuer=make.der(0x30, b""))


def parts(signer: Signer) -> set[str]:
    """Parts of the certificate that have a defect."""
    return {defect.partition(": ")[0] for defect in signer.defects}


@pytest.mark.parametrize(
    ("san", "form"),
    [
        ("dev@example.com", NameForm.EMAIL),
        ("https://github.com/acme/widget/.github/workflows/release.yml@refs/heads/main", NameForm.URI),
        ("spiffe://example.com/builder", NameForm.URI),
        ("builder!example.com", NameForm.OTHER),
        ("büilder!example.com", NameForm.OTHER),
    ],
)
def test_every_name_form_of_fulcio_is_read(san: str, form: NameForm) -> None:
    signer = read_certificate(make.make_certificate(CA, san=san))
    assert [(name.form, name.value) for name in signer.names] == [(form, san)]
    assert signer.defects == ()


def test_several_names_are_all_read_in_order() -> None:
    names = [x509.DNSName("example.com"), x509.RFC822Name("a@example.com"), x509.UniformResourceIdentifier("x://y")]
    signer = read_certificate(make.make_certificate(CA, san=names))
    assert [name.value for name in signer.names] == ["example.com", "a@example.com", "x://y"]


def test_every_claim_is_read_under_its_readable_name() -> None:
    told = {extension.name: f"value of {extension.title}" for extension in EXTENSIONS}
    told["issuer_v1"] = told["issuer"]
    signer = read_certificate(make.make_certificate(CA, claims=told))
    assert signer.claims == told
    assert signer.issuer == told["issuer"]
    assert signer.extensions["1.3.6.1.4.1.57264.1.8"] == encode_utf8_string(told["issuer"])


def test_the_old_issuer_extension_is_used_when_the_new_one_is_missing() -> None:
    signer = read_certificate(make.make_certificate(CA, issuer=None, claims={"issuer_v1": "https://old.example"}))
    assert (signer.issuer, signer.defects) == ("https://old.example", ())


def test_a_certificate_without_issuer_or_name_has_none_and_no_defect() -> None:
    signer = read_certificate(make.make_certificate(CA, issuer=None, san=()))
    assert (signer.issuer, signer.names, signer.defects) == (None, (), ())


def odd(oid: str, value: bytes) -> bytes:
    """Certificate with an e-mail name and one odd extension."""
    return ODD.with_extension(make.SAN_OID, EMAIL).with_extension(oid, value).certificate()


def san(*names: tuple[int, bytes]) -> bytes:
    return ODD.with_extension(make.SAN_OID, make.san_value(*names)).certificate()


def bmp(text: str) -> bytes:
    return make.der(0x1E, text.encode("utf-16-be"))


def other_name(oid: str, value: bytes) -> tuple[int, bytes]:
    return 0xA0, make.der_oid(oid) + make.der(0xA0, value)


NEW_ISSUER, OLD_ISSUER = BY_NAME["issuer"].oid, BY_NAME["issuer_v1"].oid
LEFT_OVER = ODD.with_extension(make.SAN_OID, EMAIL + b"\x05\x00")
LONG_CLAIM = odd(BY_NAME["build_trigger"].oid, encode_utf8_string("a" * 9000))
ODDITIES = {
    "control case": (odd("1.2.3.4", b"anything"), set(), ["dev@example.com"]),
    "two SANs": (
        odd(make.SAN_OID, make.san_value((0x81, b"b@example.com"))),
        {"names", f"extension:{make.SAN_OID}"},
        ["dev@example.com", "b@example.com"],
    ),
    "extension twice": (
        ODD.with_extension("1.2.3", b"a").with_extension("1.2.3", b"b").certificate(),
        {"extension:1.2.3"},
        [],
    ),
    "issuer twice": (
        ODD.with_extension(OLD_ISSUER, b"https://a").with_extension(OLD_ISSUER, b"https://b").certificate(),
        {"extension:" + OLD_ISSUER, "claim:issuer_v1"},
        [],
    ),
    "e-mail not ASCII": (san((0x81, "dev@exämple.com".encode())), {"names"}, ["dev@exämple.com"]),
    "e-mail not UTF-8": (san((0x81, b"dev@\xff\xfe")), {"names"}, []),
    "NUL in a name": (
        san((0x81, b"dev@example.com\x00.evil.example")),
        {"names"},
        ["dev@example.com\\x00.evil.example"],
    ),
    "newline in a name": (san((0x86, b"https://a\nhttps://b")), {"names"}, ["https://a\\nhttps://b"]),
    "constructed e-mail": (san((0xA1, make.der(0x16, b"dev@example.com"))), {"names"}, []),
    "IP address of three bytes": (san((0x87, b"\x7f\x00\x00")), {"names"}, []),
    "directory name": (san((0xA4, make.der(0x30, b""))), {"names"}, []),
    "BMPString username": (san(other_name(USERNAME_OTHER_NAME_OID, bmp("dev!example.com"))), {"names"}, []),
    "other kind of otherName": (san(other_name("1.3.6.1.4.1.311.20.2.3", encode_utf8_string("dev"))), {"names"}, []),
    "empty otherName": (san((0xA0, b"")), {"names"}, []),
    "trailing bytes after the SAN": (
        ODD.with_extension(make.SAN_OID, EMAIL + b"\x05\x00").certificate(),
        {"names"},
        [],
    ),
    "SAN is not a sequence": (ODD.with_extension(make.SAN_OID, b"\x0c\x01a").certificate(), {"names"}, []),
    "a very long name": (san((0x86, b"https://" + b"a" * 9000)), {"names"}, []),
    "issuer not UTF-8": (odd(OLD_ISSUER, b"\xff"), {"claim:issuer_v1", "issuer"}, ["dev@example.com"]),
    "issuer as BMPString": (odd(NEW_ISSUER, bmp("https://a")), {"claim:issuer", "issuer"}, ["dev@example.com"]),
    "issuer with bytes left over": (
        odd(NEW_ISSUER, encode_utf8_string("https://a") + b"x"),
        {"claim:issuer", "issuer"},
        ["dev@example.com"],
    ),
    "a very long claim": (LONG_CLAIM, {"claim:build_trigger"}, ["dev@example.com"]),
    "validity is not times": (
        make.OddCertificate(validity=make.der(0x30, make.der(0x17, b"26010100Z") + make.der(0x17, b"x"))).certificate(),
        {"validity"},
        [],
    ),
    "February 30": (
        make.OddCertificate(validity=make.der(0x30, make.der(0x17, b"260230000000Z") * 2)).certificate(),
        {"validity"},
        [],
    ),
}


@pytest.mark.parametrize("case", ODDITIES)
def test_an_odd_part_is_a_defect_of_that_part(case: str) -> None:
    certificate, expected, names = ODDITIES[case]
    signer = read_certificate(certificate)
    assert parts(signer) - {"certificate"} == expected
    assert [name.value for name in signer.names] == names
    assert all(defect.isprintable() for defect in signer.defects)


def test_two_different_issuers_are_a_defect() -> None:
    claims = {"issuer_v1": "https://a.example", "issuer": "https://b.example"}
    signer = read_certificate(make.make_certificate(CA, claims=claims))
    assert signer.issuer == "https://b.example"
    assert parts(signer) == {"issuer"}


def test_an_unreadable_new_issuer_does_not_fall_back_to_the_old_one() -> None:
    certificate = ODD.with_extension(OLD_ISSUER, b"https://trusted.example").with_extension(NEW_ISSUER, b"junk")
    assert read_certificate(certificate.certificate()).issuer is None


def test_a_name_inside_another_extension_is_not_a_name() -> None:
    """The bytes of a whole SAN extension inside a claim, which its requester chose, are text of that claim."""
    planted = make.der(0x30, make.der_oid(make.SAN_OID) + make.der(0x04, EMAIL)).decode("latin-1")
    signer = read_certificate(
        make.make_certificate(CA, san="https://real.example", claims={"github_workflow_name": planted})
    )
    assert [name.value for name in signer.names] == ["https://real.example"]


def test_a_certificate_that_the_library_refuses_is_still_read() -> None:
    """`cryptography` refuses all extensions when one is malformed; the names are told, with a defect."""
    refused = ODD.with_extension("2.5.29.19", b"junk").with_extension(make.SAN_OID, EMAIL).certificate()
    with pytest.raises(ValueError, match="parsing"):
        _ = x509.load_der_x509_certificate(refused).extensions
    signer = read_certificate(refused)
    assert [name.value for name in signer.names] == ["dev@example.com"]
    assert parts(signer) == {"certificate"}


MALFORMED = {
    "empty": b"",
    "one byte": b"\x30",
    "cut short": make.make_certificate(CA)[:-1],
    "bytes left over": make.make_certificate(CA) + b"\x00",
    "indefinite length": b"\x30\x80" + make.make_certificate(CA)[4:] + b"\x00\x00",
    "length not in shortest form": b"\x30\x83\x00\x01\x00" + b"\x00" * 256,
    "length of four gigabytes": b"\x30\x84\xff\xff\xff\xff",
    "tag number above 30": b"\x3f\x81\x00",
    "not a sequence": make.der(0x31, make.make_certificate(CA)[4:]),
    "version 2": make.OddCertificate(version=make.der(0xA0, b"\x02\x01\x01")).certificate(),
    "key of 5,000 bytes": make.OddCertificate(spki=make.der(0x30, b"\x00" * 5000)).certificate(),
    "extensions before the key": make.OddCertificate(spki=make.der(0xA3, b"")).certificate(),
    "something after the extensions": make.OddCertificate(after_extensions=b"\x05\x00").certificate(),
    "too many extensions": make.OddCertificate(
        extensions=(("1.2.3", False, b""),) * (MAX_EXTENSIONS + 1)
    ).certificate(),
}


def test_the_control_case_of_malformed_certificates_is_read() -> None:
    assert read_certificate(make.OddCertificate().certificate()).certificate


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_not_a_certificate_is_refused(case: str) -> None:
    with pytest.raises(der.MalformedDer):
        read_certificate(MALFORMED[case])


@pytest.mark.parametrize("serial", [b"\x02\x01\x00", b"\x02\x01\xff", b"\x02\x00"], ids=["zero", "negative", "empty"])
def test_a_serial_number_that_is_not_positive_is_a_defect(serial: bytes) -> None:
    signer = read_certificate(make.OddCertificate(serial=serial).with_extension(make.SAN_OID, EMAIL).certificate())
    assert [name.value for name in signer.names] == ["dev@example.com"]
    assert parts(signer) == {"certificate"}


@pytest.mark.parametrize("form", ["192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7"])
def test_an_ip_address_is_a_name(form: str) -> None:
    signer = read_certificate(make.make_certificate(CA, san=[x509.IPAddress(ip_address(form))]))
    assert [(name.form, name.value) for name in signer.names] == [(NameForm.IP, form)]
    assert signer.defects == ()


def test_names_are_bounded_by_their_bytes_and_not_by_their_number() -> None:
    names = [b"bystander%d@example.com" % number for number in range(1_000)] + [b"dev@example.com"]
    signer = read_certificate(san(*((0x81, name) for name in names)))
    assert signer.names[-1].value == "dev@example.com"
    assert len(signer.names) == len(names)
    assert parts(signer) <= {"certificate"}


def test_a_certificate_of_very_many_names_is_a_defect_before_a_library_makes_objects_of_them() -> None:
    signer = read_certificate(san(*[(0x82, b"")] * 200_000))
    assert MAX_NAMES // 2 - 10 < len(signer.names) <= MAX_NAMES // 2
    assert parts(signer) == {"unread", "certificate"}


def test_deep_nesting_costs_nothing() -> None:
    nested = b""
    for _ in range(20_000):
        nested = make.der(0x30, nested[:30_000])
    with pytest.raises(der.MalformedDer):
        read_certificate(nested)


@pytest.mark.parametrize(
    "dotted", ["1.2.3", "2.5.29.17", "1.3.6.1.4.1.57264.1.8", "2.999.1", "0.0", "2.16.840.1.101.3.4.2.1"]
)
def test_object_identifiers_read_as_the_library_reads_them(dotted: str) -> None:
    assert der.oid_text(make.der_oid(dotted)[2:]) == dotted == x509.ObjectIdentifier(dotted).dotted_string


@pytest.mark.parametrize("content", [b"", b"\x80\x01", b"\x2a\x80\x01", b"\x2a\x86", b"\x2a" * 65])
def test_object_identifiers_that_are_not_der_are_refused(content: bytes) -> None:
    with pytest.raises(der.MalformedDer):
        der.oid_text(content)

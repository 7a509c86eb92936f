"""The Fulcio extension table says what Fulcio's oid-info page says, and reads back exactly what it writes."""

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from sigstore_entries.certificate import (
    BY_NAME,
    BY_OID,
    EXTENSIONS,
    FulcioExtension,
    decode_utf8_string,
    encode_utf8_string,
)


def test_the_table_holds_every_number_but_seven() -> None:
    assert [each.number for each in EXTENSIONS] == [*range(1, 7), *range(8, 25)]
    assert len(BY_NAME) == len(BY_OID) == len(EXTENSIONS)
    assert all(x509.ObjectIdentifier(oid).dotted_string == oid for oid in BY_OID)


@pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda each: each.name)
def test_every_extension_reads_back_what_it_wrote(extension: FulcioExtension) -> None:
    value = "https://github.com/acme/wïdget" * 10
    assert extension.decode(extension.encode(value)) == value
    assert (extension.encode("push") == b"push") is (extension.number <= 6)


def test_an_empty_claim_is_left_out_not_written() -> None:
    with pytest.raises(ValueError, match="leave the extension out"):
        BY_NAME["issuer"].encode("")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not a DER UTF8String"),
        (b"\x0c", "not a DER UTF8String"),
        (b"push", "not a DER UTF8String"),
        (b"\x13\x04push", "not a DER UTF8String"),
        (b"\x0c\x04pushed", "says 4 bytes and holds 6"),
        (b"\x0c\x06push", "says 6 bytes and holds 4"),
        (b"\x0c\x81\x04push", "not in DER form"),
        (b"\x0c\x80push\x00\x00", "says 0 bytes"),
        (b"\x0c\x02\xc3\x28", "can't decode"),
        (b"\x0c\xff" + b"a" * 200, "says"),
    ],
)
def test_anything_but_one_der_string_is_refused(raw: bytes, why: str) -> None:
    assert decode_utf8_string(b"\x0c\x04push") == "push"
    with pytest.raises(ValueError, match=why):
        decode_utf8_string(raw)


def test_a_raw_extension_must_be_utf8() -> None:
    with pytest.raises(ValueError, match=r"57264\.1\.1 \(issuer_v1\)"):
        BY_NAME["issuer_v1"].decode(b"\xff\xfe")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400))
def test_writing_then_reading_is_identity(text: str) -> None:
    assert decode_utf8_string(encode_utf8_string(text)) == text


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300).map(lambda tail: b"\x0c" + tail))
def test_reading_then_writing_is_identity_or_refused(raw: bytes) -> None:
    try:
        text = decode_utf8_string(raw)
    except ValueError:
        return
    assert encode_utf8_string(text) == raw

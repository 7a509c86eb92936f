"""A hashedrekord of Rekor v2 in the form of Rekor v1 says the same to the decoder; no other entry has such a form."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigstore_entries.entry import decode_rekor
from sigstore_entries.rekor_v1_form import rekor_v1_form
from sigstore_entries.signing import EntryRef, Signing
from tests.support.entries import (
    canonical,
    dsse_v2,
    hashedrekord_v1,
    hashedrekord_v2,
    make_certificate,
    make_key,
    spki_of,
)
from tests.support.served_log import CA

CERTIFICATE = make_certificate(CA)


def decoded(body: bytes) -> Signing:
    told = decode_rekor(body, EntryRef("log", 0))
    assert isinstance(told, Signing)
    return told


@pytest.mark.parametrize("material", [CERTIFICATE, spki_of(make_key(1))], ids=["certificate", "key"])
@pytest.mark.parametrize(("algorithm", "size"), [("SHA2_256", 32), ("SHA2_384", 48), ("SHA2_512", 64)])
def test_the_form_of_version_1_says_what_the_entry_says(material: bytes, algorithm: str, size: int) -> None:
    body = hashedrekord_v2(material, "ab" * size, algorithm=algorithm)
    form = rekor_v1_form(body)
    assert form is not None
    told, was = decoded(form), decoded(body)
    assert (told.kind, told.version) == ("hashedrekord", "0.0.1")
    assert [(each.algorithm, each.value) for each in told.digests] == [
        (each.algorithm, each.value) for each in was.digests
    ]
    assert [each.fingerprints for each in told.signers] == [each.fingerprints for each in was.signers]
    assert [each.names for each in told.signers] == [each.names for each in was.signers]
    signature = json.loads(body)["spec"]["hashedRekordV002"]["signature"]["content"]
    assert json.loads(form)["spec"]["signature"]["content"] == signature


@pytest.mark.parametrize(
    "body",
    [
        dsse_v2(CERTIFICATE),
        hashedrekord_v1(CERTIFICATE),
        canonical("hashedrekord", "0.0.3", {}),
        hashedrekord_v2(CERTIFICATE).replace(b'"content"', b'"contents"'),
        b"",
    ],
)
def test_other_entries_have_none(body: bytes) -> None:
    assert rekor_v1_form(body) is None


@given(st.data())
def test_no_bytes_raise(data: st.DataObject) -> None:
    body = bytearray(hashedrekord_v2(CERTIFICATE))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    form = rekor_v1_form(bytes(body))
    assert form is None or decoded(form).digests == decoded(bytes(body)).digests

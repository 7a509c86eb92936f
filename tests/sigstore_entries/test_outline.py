"""The fast path never sees less than the full one: what it cannot be sure of it leaves to the full one."""

import base64
import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigstore_entries.entry import (
    decode_ct,
    decode_rekor,
    outline_ct,
    outline_fingerprints,
    outline_rekor,
    outline_signature,
)
from sigstore_entries.signing import EntryRef, SignerForm, Signing, Unreadable
from tests.support import entries as make

WHERE = EntryRef("rekor.example", 0)
CA = make.make_ca()
CERTIFICATE = make.make_github_certificate(CA)
SPKI = make.spki_of(make.make_key("plain"))
OUTLINED = {
    "hashedrekord v1": make.hashedrekord_v1(CERTIFICATE),
    "hashedrekord v1 key": make.hashedrekord_v1(make.pem_of(SPKI)),
    "hashedrekord v2": make.hashedrekord_v2(CERTIFICATE),
    "hashedrekord v2 key": make.hashedrekord_v2(SPKI),
    "dsse v1": make.dsse_v1(CERTIFICATE),
    "dsse v1 key": make.dsse_v1(SPKI),
    "dsse v2": make.dsse_v2(CERTIFICATE),
    "dsse v2 key": make.dsse_v2(SPKI),
    "intoto v2": make.intoto_v2(CERTIFICATE),
    "intoto v2 without last newline": make.intoto_v2(make.pem(CERTIFICATE).rstrip()),
    "intoto v2 key": make.intoto_v2(SPKI, keyid="SHA256:jl3bwswu80PjjokCgh0o2w5c2U4LhQAE57gj9cz1kzA"),
}


def check_agreement(body: bytes) -> bool:
    """Check that an outline, if there is one, is what the full path would say. True when there was one."""
    outline, full = outline_rekor(body), decode_rekor(body, WHERE)
    if outline is None:
        return False
    if isinstance(full, Unreadable):
        # The fast path does not look inside DER; everything around it must have been in order.
        assert full.code in {"malformed-certificate", "malformed-key"}
        return True
    (signer,) = full.signers
    assert signer.form is outline.form
    assert sha256(outline.haystack).hexdigest() == signer.fingerprints[0]
    assert set(outline.digests) == {digest.value for digest in full.digests}
    assert outline_fingerprints(outline) == signer.fingerprints
    # Text with a defect may hold an escape for what the bytes hold.
    assert signer.defects or all(claim.encode() in outline.haystack for claim in signer.claims.values())
    return True


@pytest.mark.parametrize("kind", OUTLINED)
def test_the_outline_of_a_common_kind_is_what_decoding_says(kind: str) -> None:
    assert check_agreement(OUTLINED[kind])


@pytest.mark.parametrize("kind", OUTLINED)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_spoiled_body_never_has_an_outline_that_decoding_contradicts(kind: str, data: st.DataObject) -> None:
    body = OUTLINED[kind]
    at = data.draw(st.integers(0, len(body)))
    cut = data.draw(st.integers(0, 40))
    patch = data.draw(
        st.one_of(
            st.binary(max_size=3),
            st.sampled_from(
                [b'"', b"\\", b"\\u0022", b'","', b'"x":"y",', b"\x00", b"\xff", b"\n", b" ", b"}", b"=", b"A"]
            ),
            st.builds(lambda start, size: body[start : start + size], st.integers(0, len(body)), st.integers(0, 120)),
        )
    )
    check_agreement(body[:at] + patch + body[at + cut :])


def repeated_keys(body: bytes) -> list[bytes]:
    """Return copies of the body with one key of one object written twice, first or last."""
    spoiled = []
    text = body.decode()
    for key in ("apiVersion", "kind", "spec", "content", "signature", "publicKey", "verifier", "data", "payloadHash"):
        at = text.find(f'"{key}":')
        while at >= 0:
            spoiled.append((text[:at] + f'"{key}":"x",' + text[at:]).encode())
            at = text.find(f'"{key}":', at + 1)
    return spoiled


@pytest.mark.parametrize(("kind", "version"), [("hashedrekord v1", "0.0.1"), ("hashedrekord v2", "0.0.2")])
def test_a_signature_read_with_the_outline_is_the_one_in_the_json(kind: str, version: str) -> None:
    body = OUTLINED[kind]
    found = outline_signature(body, version)
    assert found is not None
    assert (found[1].haystack, outline_signature(body, "0.0.3")) == (CERTIFICATE, None)
    assert outline_signature(body, {"0.0.1": "0.0.2", "0.0.2": "0.0.1"}[version]) is None
    bent = [body[:at] + other + body[at + 1 :] for at in range(len(body)) for other in (b"A", b'"', b"\\")]
    read = [(signed, each) for each in bent if (signed := outline_signature(each, version)) is not None]
    assert all(base64.b64encode(signed[0]) == _signature(json.loads(each)) for signed, each in read)
    assert len(read) > len(base64.b64encode(found[0])) // 2, "control: most of those whose signature alone is bent"


def _signature(document: Any) -> bytes:
    spec = document["spec"]
    content: str = spec.get("hashedRekordV002", spec)["signature"]["content"]
    return content.encode()


@pytest.mark.parametrize("kind", OUTLINED)
def test_a_repeated_key_is_unreadable_and_has_no_outline(kind: str) -> None:
    bodies = repeated_keys(OUTLINED[kind])
    assert len(bodies) >= 3
    for body in bodies:
        result = decode_rekor(body, WHERE)
        assert isinstance(result, Unreadable)
        assert result.code == "repeated-key"
        assert outline_rekor(body) is None


@pytest.mark.parametrize("kind", OUTLINED)
def test_other_spellings_of_a_body_go_the_full_path_and_say_the_same(kind: str) -> None:
    body = OUTLINED[kind]
    value = json.loads(body)
    control = decode_rekor(body, WHERE)
    assert isinstance(control, Signing)
    spellings = [
        json.dumps(value).encode(),
        json.dumps(dict(reversed(value.items())), separators=(",", ":")).encode(),
        body.replace(b'"kind"', b'"\\u006bind"'),
        b" " + body,
        body + b"\n",
    ]
    for spelling in spellings:
        assert outline_rekor(spelling) is None
        assert decode_rekor(spelling, WHERE) == control


ODD_BODIES = {
    "two signers": make.dsse_v1(CERTIFICATE, CERTIFICATE),
    "a chain": make.hashedrekord_v1(make.pem(CERTIFICATE) + make.pem(CA.chain[0])),
    "text before the PEM": make.hashedrekord_v1(b"-----BEGIN CERTIFICATE-----\n\n" + make.pem(CERTIFICATE)),
    "an unknown kind": make.canonical("hashedrekord", "0.0.3", {}),
    "a rare kind": make.cose(CERTIFICATE),
    "sha512": make.hashedrekord_v1(CERTIFICATE, "ab" * 64, algorithm="sha512"),
    "one field more": make.canonical(
        "hashedrekord", "0.0.1", json.loads(make.hashedrekord_v1(CERTIFICATE))["spec"] | {"extra": 1}
    ),
    "too large to decode": make.hashedrekord_v2_raw(make.der(0x30, b"\x00" * 4_000_000)),
    "empty": b"",
    "not JSON": b"\x00" * 100,
}


@pytest.mark.parametrize("case", ODD_BODIES)
def test_what_the_outline_cannot_be_sure_of_is_left_to_the_full_path(case: str) -> None:
    assert outline_rekor(OUTLINED["dsse v1"]) is not None
    assert outline_rekor(ODD_BODIES[case]) is None


@settings(max_examples=60, deadline=None)
@given(name=st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=60))
def test_a_name_without_defect_is_a_substring_of_the_haystack(name: str) -> None:
    certificate = make.OddCertificate().with_extension(make.SAN_OID, make.san_value((0x86, name.encode())))
    body = make.hashedrekord_v2(certificate.certificate())
    outline, full = outline_rekor(body), decode_rekor(body, WHERE)
    assert outline is not None
    assert isinstance(full, Signing)
    assert full.signers[0].names[0].value.encode() in outline.haystack or not name.isprintable()


PRECERTIFICATE, TBS = make.make_precertificate(CA, san="dev@example.com")
LEAVES = {
    "precertificate": (make.precert_leaf(CA, TBS), TBS, SignerForm.PRECERTIFICATE),
    "precertificate with extensions": (make.precert_leaf(CA, TBS, extensions=b"abc"), TBS, SignerForm.PRECERTIFICATE),
    "certificate": (make.x509_leaf(CERTIFICATE), CERTIFICATE, SignerForm.CERTIFICATE),
}


@pytest.mark.parametrize("kind", LEAVES)
def test_the_outline_of_a_ct_leaf_is_what_decoding_says(kind: str) -> None:
    leaf, haystack, form = LEAVES[kind]
    outline, full = outline_ct(leaf), decode_ct(leaf, WHERE)
    assert outline is not None
    assert isinstance(full, Signing)
    assert (outline.haystack, outline.form) == (haystack, form)
    assert outline_fingerprints(outline) == full.signers[0].fingerprints


@pytest.mark.parametrize("kind", LEAVES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_spoiled_leaf_never_has_an_outline_that_decoding_contradicts(kind: str, data: st.DataObject) -> None:
    leaf = LEAVES[kind][0]
    at = data.draw(st.one_of(st.integers(0, 60), st.integers(0, len(leaf))))
    spoiled = leaf[:at] + data.draw(st.binary(max_size=4)) + leaf[at + data.draw(st.integers(0, 4)) :]
    outline, full = outline_ct(spoiled), decode_ct(spoiled, WHERE)
    if outline is None:
        return
    if isinstance(full, Unreadable):
        assert full.code == "malformed-certificate"
    else:
        assert outline_fingerprints(outline) == full.signers[0].fingerprints

"""Each form of a bundle that people hold is read as the same bundle, and anything else says what it is."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigstore_entries.bundle_file import MAX_ITEMS, HeldBundle, NoBundle, NotHeld, read_bundle_file
from tests.support.bundle_forms import with_promise, with_proof
from tests.support.bundles import entry as proven
from tests.support.entries import hashedrekord_v1, make_ca, make_certificate
from tests.support.misbehaving_log import RekorV1Log

CERTIFICATE = make_certificate(make_ca(), san="dev@acme.example")


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def signed() -> dict[str, Any]:
    log = RekorV1Log()
    log.grow(50)
    made = proven(log, 7) | {
        "logIndex": "1007",
        "integratedTime": "1700000000",
        "inclusionPromise": {"signedEntryTimestamp": b64(b"a promise")},
        "canonicalizedBody": b64(hashedrekord_v1(CERTIFICATE)),
    }
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"certificate": {"rawBytes": b64(CERTIFICATE)}, "tlogEntries": [made]},
        "messageSignature": {
            "messageDigest": {"algorithm": "SHA2_256", "digest": b64(bytes(32))},
            "signature": b64(b"a signature"),
        },
    }


BUNDLE = signed()
ENTRY = BUNDLE["verificationMaterial"]["tlogEntries"][0]
PROOFS, PROMISES = with_proof(BUNDLE), with_promise(BUNDLE)


def only(raw: bytes) -> HeldBundle:
    (held,) = read_bundle_file(raw)
    assert isinstance(held, HeldBundle), held
    return held


def refused(raw: bytes) -> NotHeld:
    (held,) = read_bundle_file(raw)
    assert isinstance(held, NotHeld), held
    return held


def comparable(entry: Any) -> Any:
    """An entry without what a form does not keep: the root in a proof, which the checkpoint has too."""
    kept = {name: value for name, value in entry.items() if name != "kindVersion"}
    return {**kept, "logIndex": str(kept["logIndex"]), "integratedTime": str(kept["integratedTime"])}


@pytest.mark.parametrize("form", PROOFS)
def test_every_form_with_an_inclusion_proof_is_read_as_the_same_bundle(form: str) -> None:
    held = only(PROOFS[form])
    assert [comparable(each) for each in held.entries] == [comparable(ENTRY)]
    bare = form in {"log entry", "Rekor's answer", "Rekor's answer to a search"}
    assert held.certificates == (() if bare else (CERTIFICATE,))
    if not bare and not form.startswith("PyPI"):
        assert held.signature == b"a signature"


@pytest.mark.parametrize("form", PROMISES)
def test_every_form_with_a_signed_entry_timestamp_is_read_as_the_same_promise(form: str) -> None:
    held = only(PROMISES[form])
    (entry,) = held.entries
    for name in ("logIndex", "logId", "integratedTime", "canonicalizedBody", "inclusionPromise"):
        assert str(entry[name]) == str(ENTRY[name]), name
    assert "inclusionProof" not in entry
    bare = form in {"cosign verify", "annotation of an image"}
    assert held.certificates == (() if bare else (CERTIFICATE,))
    if not bare:
        assert held.signature == b"a signature"


def test_a_pypi_attestation_is_a_dsse_bundle() -> None:
    document = only(PROOFS["PyPI attestation"]).document
    assert document["dsseEnvelope"] == {
        "payload": b64(b"{}"),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": b64(b"signature")}],
    }


def test_several_bundles_in_one_file_each_have_their_place() -> None:
    line = json.dumps(BUNDLE).encode()
    lines = read_bundle_file(line + b"\n" + line + b"\n\n" + line + b"\n")
    assert [each.place for each in lines] == ["document 1", "document 2", "document 3"]
    nested = read_bundle_file(json.dumps({"attestations": [{"bundle": BUNDLE}, {"bundle": BUNDLE}]}).encode())
    assert [each.place for each in nested] == [".attestations[0].bundle", ".attestations[1].bundle"]
    pretty = json.dumps(BUNDLE, indent=2).encode()
    assert all(isinstance(each, HeldBundle) for each in read_bundle_file(pretty + b"\n" + pretty))


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_damaged_line_is_told_and_hides_no_other(damaged: int) -> None:
    lines = [json.dumps(BUNDLE).encode()] * 3
    lines[damaged] = lines[damaged][:-40]
    found = read_bundle_file(b"\n".join(lines))
    assert [type(each) for each in found] == [NotHeld if at == damaged else HeldBundle for at in range(3)]
    assert "not a JSON document" in found[damaged].why  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "an empty file"),
        (b" \n", "an empty file"),
        (b"{}", "an empty JSON object"),
        (b"[]", "an empty list"),
        (b"7", "JSON, but not a Sigstore bundle"),
        (b'{"a": 1}', "JSON, but not a Sigstore bundle"),
        (b"\x1f\x8b\x08", "it is not text"),
        (b"<html>", "not a JSON document"),
        (b'{"verificationMaterial": 7}', "without verification material"),
        (b'{"verificationMaterial": {"tlogEntries": 7}}', "not a list"),
        (b'{"mediaType": "a", "mediaType": "b"}', "stands twice"),
        (b'{"a": NaN}', "no number"),
        (b'{"attestations": [{"bundle": null, "bundle_url": "https://a.example"}]}', "`bundle_url`"),
        (b'{"payload": "", "payloadType": "x", "signatures": []}', "a bare DSSE envelope"),
        (b'{"Body": {"HashedRekordObj": {}}, "LogIndex": 7, "UUID": "00"}', "rekor-cli's own print-out"),
        (
            b'{"message": "Not Found", "documentation_url": "https://a.example", "status": "404"}',
            "an error that a server",
        ),
        (b'{"code": 404, "message": "no"}', "an error that a server"),
        (b'{"SignedEntryTimestamp": "AA==", "Payload": {"body": "%", "logIndex": 1}}', "not base64"),
        (b'{"base64Signature": "AA==", "cert": "AAAA", "rekorBundle": null}', "is not PEM"),
        (b"[" * 100_000, "not a JSON document"),
        (b"[" * 20 + b"]" * 20, "nested too deeply"),
    ],
)
def test_anything_else_says_what_it_is(raw: bytes, told: str) -> None:
    assert told in refused(raw).why


def test_a_bundle_without_a_log_entry_is_a_bundle() -> None:
    """GitHub's attestations of private repositories have a timestamp in place of a log entry."""
    material = {
        "certificate": {"rawBytes": b64(CERTIFICATE)},
        "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": b64(b"stamp")}]},
    }
    held = only(json.dumps({**BUNDLE, "verificationMaterial": material}).encode())
    assert (list(held.entries), held.timestamps) == ([], (b"stamp",))


def test_a_flood_of_documents_is_refused_whole() -> None:
    assert "split it" in refused(b"[]\n" * (MAX_ITEMS + 2)).why
    # Each of them costs a walk over what stands before it.
    assert "split it" in refused(b"{\n" * 4_000_000).why
    assert "split it" in refused(b"[" + b"{}," * (MAX_ITEMS + 2) + b"{}]").why


@given(
    st.binary(max_size=200)
    | st.sampled_from(list(PROOFS.values())).flatmap(
        lambda raw: st.integers(0, len(raw) - 1).map(lambda at: raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    )
)
def test_no_bytes_make_it_raise(raw: bytes) -> None:
    for each in read_bundle_file(raw):
        if isinstance(each, HeldBundle):
            for part in ("entries", "certificates", "timestamps", "signature"):
                try:
                    getattr(each, part)
                except NoBundle:
                    continue

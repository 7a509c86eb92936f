"""Real public-log entries decode, lead to their signed checkpoints, and chain to the public certificate authority.

Extra tests: they need a folder of recorded public-log material beside the repository and say so when it is missing.
"""

import base64
import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sigstore_entries.entry import decode_rekor, outline_fingerprints, outline_rekor
from sigstore_entries.signing import ChainTrust, EntryRef, Signing
from sigstore_entries.trust import CertificateAuthorities, CertificateAuthority, CtLogKey
from tests.archive import independent_map
from tests.archive.test_keys_from_bytes import archived_keys, rows
from tlog.merkle import leaf_hash, verify_inclusion
from tlog.note import NoteKey, open_note, parse_checkpoint, rekor_v1_key, tile_log_key

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"
ENTRIES = CORPUS / "real-entries.jsonl"
TRUSTED_ROOT = CORPUS / "public-trusted_root.json"
PUBLIC = "rekor.sigstore.dev"

pytestmark = pytest.mark.skipif(
    not (ENTRIES.is_file() and TRUSTED_ROOT.is_file()),
    reason="the folder with recorded public-log entries (shared/corpus beside the repository) is not here",
)


@cache
def entries() -> list[dict[str, Any]]:
    """Every recorded entry."""
    return [json.loads(line)["tlogEntry"] for line in ENTRIES.read_text().splitlines()] if ENTRIES.is_file() else []


@cache
def trusted_root() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(TRUSTED_ROOT.read_text())
    return value


def instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


@cache
def public_logs() -> dict[str, NoteKey]:
    """Keys of the public logs by their log id in base64."""
    keys = {}
    for log in trusted_root()["tlogs"]:
        name, spki = log["baseUrl"].removeprefix("https://"), base64.b64decode(log["publicKey"]["rawBytes"])
        make = rekor_v1_key if name == PUBLIC else tile_log_key
        keys[log["logId"]["keyId"]] = make(name, spki)
    return keys


@cache
def public_authorities() -> tuple[CertificateAuthorities, list[CtLogKey]]:
    authorities = [
        CertificateAuthority(
            authority["uri"],
            tuple(base64.b64decode(each["rawBytes"]) for each in authority["certChain"]["certificates"]),
            instant(authority["validFor"].get("start")),
            instant(authority["validFor"].get("end")),
        )
        for authority in trusted_root()["certificateAuthorities"]
    ]
    ct_keys = [
        CtLogKey(
            base64.b64decode(log["logId"]["keyId"]),
            base64.b64decode(log["publicKey"]["rawBytes"]),
            instant(log["publicKey"]["validFor"].get("start")),
            instant(log["publicKey"]["validFor"].get("end")),
        )
        for log in trusted_root()["ctlogs"]
    ]
    return CertificateAuthorities(authorities), ct_keys


def decoded(entry: dict[str, Any]) -> Signing:
    seconds = int(entry.get("integratedTime", 0))
    at = datetime.fromtimestamp(seconds, UTC) if seconds else None
    result = decode_rekor(base64.b64decode(entry["canonicalizedBody"]), EntryRef(PUBLIC, int(entry["logIndex"])), at)
    assert isinstance(result, Signing), result
    return result


@pytest.mark.parametrize("number", range(len(entries())))
def test_a_real_entry_is_decoded_without_defect(number: int) -> None:
    entry = entries()[number]
    signing = decoded(entry)
    assert {"kind": signing.kind, "version": signing.version} == entry["kindVersion"]
    assert signing.digests
    for signer in signing.signers:
        assert signer.defects == ()
        assert signer.fingerprints
        assert (signer.certificate is None) == (not signer.names)
        assert (signer.certificate is None) == (signer.issuer is None)


@pytest.mark.parametrize("number", range(len(entries())))
def test_a_real_entry_takes_the_fast_path(number: int) -> None:
    entry = entries()[number]
    body = base64.b64decode(entry["canonicalizedBody"])
    outline = outline_rekor(body)
    if b'"payload":' in body:
        # Envelopes of early in-toto entries kept their payload: rare, so the full path has them.
        assert outline is None
        return
    assert outline is not None
    assert outline_fingerprints(outline) == decoded(entry).signers[0].fingerprints


@pytest.mark.parametrize("number", range(len(entries())))
def test_search_keys_of_a_real_entry_are_those_of_a_second_implementation(number: int) -> None:
    body = base64.b64decode(entries()[number]["canonicalizedBody"])
    (keys,) = archived_keys(rows([body]))
    assert keys
    assert independent_map.keys_of(body) == keys


@pytest.mark.parametrize("number", range(len(entries())))
def test_a_real_entry_leads_to_the_root_of_its_checkpoint(number: int) -> None:
    entry = entries()[number]
    proof = entry.get("inclusionProof")
    if proof is None:
        # Bundles of early 2023 hold a promise instead of a proof: nothing to recompute.
        assert entry["inclusionPromise"]
        return
    leaf = leaf_hash(base64.b64decode(entry["canonicalizedBody"]))
    hashes = [base64.b64decode(each) for each in proof["hashes"]]
    index, size, root = int(proof["logIndex"]), int(proof["treeSize"]), base64.b64decode(proof["rootHash"])
    verify_inclusion(index, size, leaf, hashes, root)
    key = public_logs().get(entry["logId"]["keyId"])
    if key is not None:
        checkpoint = parse_checkpoint(open_note(proof["checkpoint"]["envelope"].encode(), key))
        assert (checkpoint.size, checkpoint.root) == (size, root)


def test_enough_entries_are_of_the_public_log_to_mean_something() -> None:
    signed = [entry for entry in entries() if entry["logId"]["keyId"] in public_logs() and entry.get("inclusionProof")]
    assert len(signed) >= 5


@pytest.mark.parametrize("number", range(len(entries())))
def test_a_certificate_of_the_public_log_chains_to_the_public_authority(number: int) -> None:
    entry = entries()[number]
    signing = decoded(entry)
    at = next((time.at for time in signing.times if time.source == "integrated-time"), None)
    authorities, ct_keys = public_authorities()
    for signer in signing.signers:
        judged = authorities.judge_chain(signer, at)
        if signer.certificate is None:
            assert judged.trust is ChainTrust.NO_CERTIFICATE
        elif entry["logId"]["keyId"] in public_logs():
            assert judged.trust is ChainTrust.TRUSTED
            assert judged.trusted_by == "https://fulcio.sigstore.dev"
            assert judged.defects == ()
            assert authorities.embedded_scts(judged, ct_keys)
        else:
            # Staging and local instances have authorities of their own.
            assert judged.trust is ChainTrust.UNTRUSTED
            assert authorities.embedded_scts(judged, ct_keys) == []

"""Provenance in the form of `npm publish`: an intoto 0.0.2 entry of Rekor v1, and subjects that name SHA-512 alone."""

import base64
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sigstore_entries.bundle_file import BUNDLE_0_1, BUNDLE_0_3
from sigstore_entries.release import IN_TOTO, STATEMENT, pre_authentication
from tests.support.ca_server import SIGN_LITE, CaServer, ca_and_log, run
from tests.support.log_server import LogServer
from tests.support.waiting import PATIENCE

PERSON = "release@acme.example"
BUNDLE_0_2 = "application/vnd.dev.sigstore.bundle+json;version=0.2"
TARBALL = b"a package" * 100


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@dataclass
class Published:
    """A package, and its provenance as a bundle (version 0.3)."""

    ca: CaServer
    folder: Path
    bundle: dict[str, Any]

    def verify(self, bundle: dict[str, Any], expect: int = 0, *, named: str = "", identity: str = PERSON) -> str:
        path = self.folder / "provenance.json"
        path.write_text(json.dumps(bundle))
        words = ("--identity", identity, "--issuer", self.ca.oidc, "--trust-config", str(self.ca.trust_config))
        file = named or str(self.folder / "package.tgz")
        return run(SIGN_LITE, "verify", file, "--bundle", str(path), *words, expect=expect)


def certified(ca: CaServer, key: ec.EllipticCurvePrivateKey) -> bytes:
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    proof = b64(key.sign(PERSON.encode(), ec.ECDSA(SHA256())))
    body = {
        "credentials": {"oidcIdentityToken": ca.email_token(PERSON)},
        "publicKeyRequest": {"publicKey": {"algorithm": "ECDSA", "content": pem}, "proofOfPossession": proof},
    }
    answer = httpx.post(f"{ca.url}/api/v2/signingCert", json=body, timeout=PATIENCE, trust_env=False).json()
    return str(answer["signedCertificateEmbeddedSct"]["chain"]["certificates"][0]).encode()


def logged(log: LogServer, payload: bytes, signature: bytes, certificate: bytes) -> dict[str, Any]:
    """The bundle's entry of an envelope. SPEC Rekor intoto v0.0.2: payload and signature are base64 of base64."""
    envelope = {
        "payloadType": IN_TOTO,
        "payload": b64(b64(payload).encode()),
        "signatures": [{"sig": b64(b64(signature).encode()), "publicKey": b64(certificate)}],
    }
    hashed = {"algorithm": "sha256", "value": sha256(b"the envelope").hexdigest()}
    payload_hash = {"algorithm": "sha256", "value": sha256(payload).hexdigest()}
    spec = {"content": {"envelope": envelope, "hash": hashed, "payloadHash": payload_hash}}
    entry = {"apiVersion": "0.0.2", "kind": "intoto", "spec": spec}
    answer = httpx.post(f"{log.url}/api/v1/log/entries", json=entry, timeout=PATIENCE, trust_env=False)
    assert answer.status_code == 201, answer.text
    (told,) = answer.json().values()
    proof = told["verification"]["inclusionProof"]
    return {
        "logIndex": str(told["logIndex"]),
        "logId": {"keyId": b64(bytes.fromhex(told["logID"]))},
        "kindVersion": {"kind": "intoto", "version": "0.0.2"},
        "integratedTime": str(told["integratedTime"]),
        "inclusionPromise": {"signedEntryTimestamp": told["verification"]["signedEntryTimestamp"]},
        "inclusionProof": {
            "logIndex": str(proof["logIndex"]),
            "rootHash": b64(bytes.fromhex(proof["rootHash"])),
            "treeSize": str(proof["treeSize"]),
            "hashes": [b64(bytes.fromhex(each)) for each in proof["hashes"]],
            "checkpoint": {"envelope": proof["checkpoint"]},
        },
        "canonicalizedBody": told["body"],
    }


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.tgz").write_bytes(TARBALL)
    with ca_and_log(folder) as (ca, log):
        subject = {"name": "pkg:npm/widget@1.0.0", "digest": {"sha512": sha512(TARBALL).hexdigest()}}
        kind = "https://slsa.dev/provenance/v1"
        document = {"_type": STATEMENT, "subject": [subject], "predicateType": kind, "predicate": {}}
        payload, key = json.dumps(document).encode(), ec.generate_private_key(ec.SECP256R1())
        signature = key.sign(pre_authentication(IN_TOTO, payload), ec.ECDSA(SHA256()))
        certificate = certified(ca, key)
        der = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
        bundle = {
            "mediaType": BUNDLE_0_3,
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(der)},
                "tlogEntries": [logged(log, payload, signature, certificate)],
            },
            "dsseEnvelope": {
                "payload": b64(payload),
                "payloadType": IN_TOTO,
                "signatures": [{"sig": b64(signature)}],
            },
        }
        yield Published(ca, folder, bundle)


def of_version(bundle: dict[str, Any], version: str) -> dict[str, Any]:
    """The bundle in an older version, whose certificate stands in a chain."""
    made = copy.deepcopy(bundle)
    material = made["verificationMaterial"]
    material["x509CertificateChain"] = {"certificates": [material.pop("certificate")]}
    return {**made, "mediaType": version}


def test_provenance_of_npm_verifies_in_every_version_of_the_bundle(published: Published) -> None:
    assert "intoto/0.0.2" in published.verify(published.bundle)
    for version in (BUNDLE_0_1, BUNDLE_0_2):
        assert "intoto/0.0.2" in published.verify(of_version(published.bundle, version))


def test_it_is_read_from_the_answer_of_npms_attestations_api(published: Published) -> None:
    of_registry = {
        "predicateType": "https://slsa.dev/provenance/v1",
        "bundle": of_version(published.bundle, BUNDLE_0_2),
    }
    assert "intoto/0.0.2" in published.verify({"attestations": [of_registry]})


def test_a_digest_that_its_subjects_do_not_name_is_no_proof(published: Published) -> None:
    said = published.verify(published.bundle, expect=1, named=f"sha256:{sha256(TARBALL).hexdigest()}")
    assert "none of its digests can be told from the one given" in said


def entry(bundle: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = bundle["verificationMaterial"]["tlogEntries"][0]
    return found


def another_payload(bundle: dict[str, Any]) -> None:
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"widget", b"gadget")
    bundle["dsseEnvelope"]["payload"] = b64(payload)


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "another payload": another_payload,
    "another signature": lambda each: each["dsseEnvelope"]["signatures"][0].update(sig=b64(bytes(70))),
    "two signatures": lambda each: each["dsseEnvelope"]["signatures"].append(each["dsseEnvelope"]["signatures"][0]),
    "no signed time": lambda each: entry(each).pop("inclusionPromise"),
    "another time": lambda each: entry(each).update(integratedTime=str(int(entry(each)["integratedTime"]) + 1)),
    "no proof": lambda each: entry(each).pop("inclusionProof"),
    "another proof": lambda each: entry(each)["inclusionProof"].update(rootHash=b64(bytes(32))),
    "another body": lambda each: entry(each).update(canonicalizedBody=b64(b"{}")),
    "no entry": lambda each: each["verificationMaterial"].update(tlogEntries=[]),
    "another kind told": lambda each: entry(each).update(kindVersion={"kind": "dsse", "version": "0.0.1"}),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_changed_provenance_is_refused(published: Published, change: Callable[[dict[str, Any]], object]) -> None:
    made = copy.deepcopy(published.bundle)
    change(made)
    published.verify(made, expect=1)


def test_provenance_of_another_file_or_person_is_refused(published: Published) -> None:
    other = published.folder / "other.tgz"
    other.write_bytes(TARBALL + b"!")
    assert "about other files" in published.verify(published.bundle, expect=1, named=str(other))
    published.verify(published.bundle, expect=1, identity="mallory@acme.example")

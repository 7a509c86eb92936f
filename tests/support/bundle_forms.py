"""One signed bundle, rewritten into each form in which people hold such things, as the services document them."""

import base64
import json
from typing import Any


def _hex(text: str) -> str:
    return base64.b64decode(text).hex()


def _pem(der: str) -> str:
    lines = "\n".join(der[at : at + 64] for at in range(0, len(der), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


def certificate_of(bundle: dict[str, Any]) -> str:
    return str(bundle["verificationMaterial"]["certificate"]["rawBytes"])


def rekor_payload(entry: dict[str, Any]) -> dict[str, Any]:
    """The four fields that Rekor v1's signed entry timestamp is over."""
    return {
        "body": entry["canonicalizedBody"],
        "integratedTime": int(entry["integratedTime"]),
        "logIndex": int(entry["logIndex"]),
        "logID": _hex(entry["logId"]["keyId"]),
    }


def rekor_answer(entry: dict[str, Any]) -> dict[str, Any]:
    """SPEC rekor openapi.yaml LogEntry, as `GET /api/v1/log/entries/UUID` answers."""
    proof = entry["inclusionProof"]
    logged = {
        **rekor_payload(entry),
        "verification": {
            "signedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
            "inclusionProof": {
                "logIndex": int(proof.get("logIndex", 0)),
                "treeSize": int(proof["treeSize"]),
                "rootHash": _hex(proof["rootHash"]),
                "hashes": [_hex(each) for each in proof.get("hashes", [])],
                "checkpoint": proof["checkpoint"]["envelope"],
            },
        },
    }
    return {"24296fb24b8ad77a" + "0" * 64: logged}


def set_bundle(entry: dict[str, Any]) -> dict[str, Any]:
    """Cosign's RekorBundle, also the annotation `dev.sigstore.cosign/bundle` of an image."""
    promise = entry["inclusionPromise"]["signedEntryTimestamp"]
    return {"SignedEntryTimestamp": promise, "Payload": rekor_payload(entry)}


def snake(value: Any) -> Any:
    if isinstance(value, list):
        return [snake(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {"".join(f"_{c.lower()}" if c.isupper() else c for c in name): snake(each) for name, each in value.items()}


def with_proof(bundle: dict[str, Any]) -> dict[str, bytes]:
    """Forms that keep the inclusion proof of a bundle of a file's signature with one Rekor v1 entry."""
    entry = bundle["verificationMaterial"]["tlogEntries"][0]
    certificate = {"rawBytes": certificate_of(bundle)}
    old = json.loads(json.dumps(bundle))
    old["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2"
    old["verificationMaterial"]["x509CertificateChain"] = {"certificates": [certificate]}
    del old["verificationMaterial"]["certificate"]
    material = {"certificate": certificate["rawBytes"], "transparency_entries": [entry]}
    envelope = {"statement": base64.b64encode(b"{}").decode(), "signature": base64.b64encode(b"signature").decode()}
    attestation = {"version": 1, "verification_material": material, "envelope": envelope}
    publisher = {"kind": "GitHub", "repository": "acme/widget", "workflow": "release.yml", "claims": None}
    provenance = {"version": 1, "attestation_bundles": [{"publisher": publisher, "attestations": [attestation]}]}
    npm = {"attestations": [{"predicateType": "https://slsa.dev/provenance/v1", "bundle": bundle}]}
    github = {"attestations": [{"bundle": bundle, "repository_id": 7, "bundle_url": "https://a.example/b"}]}
    documents = {
        "bundle": bundle,
        "bundle 0.2": old,
        "protobuf names": snake(bundle),
        "nulls": {**bundle, "dsseEnvelope": None},
        "log entry": entry,
        "Rekor's answer": rekor_answer(entry),
        "Rekor's answer to a search": [rekor_answer(entry)],
        "PyPI attestation": attestation,
        "PyPI provenance": provenance,
        "npm": npm,
        "GitHub": github,
        "gh attestation verify": [{"attestation": {"bundle": bundle}, "verificationResult": {"statement": {}}}],
        "an array": [bundle],
    }
    found = {name: json.dumps(each).encode() for name, each in documents.items()}
    found["gh attestation download"] = json.dumps(bundle).encode() + b"\n"
    found["pretty"] = json.dumps(bundle, indent=2).encode()
    found["with a byte order mark"] = b"\xef\xbb\xbf" + json.dumps(bundle).encode()
    found["PowerShell"] = b"\xff\xfe" + json.dumps(bundle).encode("utf-16-le")
    return found


def with_promise(bundle: dict[str, Any]) -> dict[str, bytes]:
    """Forms that keep the signed entry timestamp alone."""
    entry = bundle["verificationMaterial"]["tlogEntries"][0]
    certificate, signature = certificate_of(bundle), bundle["messageSignature"]["signature"]
    promise = set_bundle(entry)
    first = json.loads(json.dumps(bundle))
    first["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1"
    del first["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
    pem = base64.b64encode(_pem(certificate).encode()).decode()
    documents = {
        "bundle 0.1": first,
        "cosign": {"base64Signature": signature, "cert": pem, "rekorBundle": promise},
        "cosign download signature": {
            "Base64Signature": signature,
            "Payload": "",
            "Cert": {"Raw": certificate, "Version": 3},
            "Chain": [],
            "Bundle": promise,
            "RFC3161Timestamp": None,
        },
        "cosign verify": [{"critical": {}, "optional": {"Bundle": promise}}],
        "annotation of an image": promise,
    }
    return {name: json.dumps(each).encode() for name, each in documents.items()}

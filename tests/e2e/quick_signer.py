"""Signs many artifacts with one certificate, straight against the two HTTP APIs: a client's start-up costs seconds."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificate

from tests.e2e.loop import Loop
from tests.support.waiting import PATIENCE


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@dataclass(frozen=True)
class QuickSigner:
    key: ec.EllipticCurvePrivateKey
    certificate: bytes
    log_url: str

    @classmethod
    def certified(cls, loop: Loop, token: str) -> "QuickSigner":
        """A fresh key with a certificate from ca-lite for this identity token."""
        key = ec.generate_private_key(ec.SECP256R1())
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        proof = key.sign(claims.get("email", claims["sub"]).encode(), ec.ECDSA(SHA256()))
        request = {
            "credentials": {"oidcIdentityToken": token},
            "publicKeyRequest": {
                "publicKey": {"algorithm": "ECDSA", "content": public},
                "proofOfPossession": _b64(proof),
            },
        }
        answer = httpx.post(f"{loop.ca_url}/api/v2/signingCert", json=request, timeout=PATIENCE, trust_env=False)
        assert answer.status_code == 200, answer.text
        chain = answer.json()["signedCertificateEmbeddedSct"]["chain"]["certificates"]
        leaf = load_pem_x509_certificate(chain[0].encode()).public_bytes(Encoding.DER)
        return cls(key, leaf, loop.log_url)

    def sign(self, digest: bytes) -> int:
        """Log a signature over a SHA-256 digest in Rekor v2; returns the leaf index."""
        signature = self.key.sign(digest, ec.ECDSA(Prehashed(SHA256())))
        request = {
            "hashedRekordRequestV002": {
                "digest": _b64(digest),
                "signature": {
                    "content": _b64(signature),
                    "verifier": {
                        "x509Certificate": {"rawBytes": _b64(self.certificate)},
                        "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    },
                },
            }
        }
        return int(self._submit("/api/v2/log/entries", request)["logIndex"])

    def sign_v1(self, digest: bytes) -> int:
        """Log a signature over a SHA-256 digest in Rekor v1; returns the virtual index."""
        signature = self.key.sign(digest, ec.ECDSA(Prehashed(SHA256())))
        pem = load_der_x509_certificate(self.certificate).public_bytes(Encoding.PEM)
        request = {
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": digest.hex()}},
                "signature": {"content": _b64(signature), "publicKey": {"content": _b64(pem)}},
            },
        }
        (entry,) = self._submit("/api/v1/log/entries", request).values()
        return int(entry["logIndex"])

    def _submit(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        answer = httpx.post(f"{self.log_url}{path}", json=request, timeout=PATIENCE, trust_env=False)
        assert answer.status_code == 201, answer.text
        accepted: dict[str, Any] = answer.json()
        return accepted

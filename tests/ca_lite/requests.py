"""Requests as the four clients send them."""

import base64
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

V2 = "/api/v2/signingCert"
V1 = "/api/v1/signingCert"


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def key_request(key: Any, challenge: str, hash_algorithm: hashes.HashAlgorithm | None = None) -> dict[str, Any]:
    """Body of sigstore-js, cosign and sigstore-go: PEM key and a signature over the challenge."""
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    proof = signature(key, challenge.encode(), hash_algorithm)
    return {"publicKeyRequest": {"publicKey": {"algorithm": "ECDSA", "content": pem}, "proofOfPossession": b64(proof)}}


def signature(key: Any, message: bytes, hash_algorithm: hashes.HashAlgorithm | None = None) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), hash_algorithm or hashes.SHA256())
    by_curve = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
    chosen = hash_algorithm or by_curve.get(key.curve.key_size, hashes.SHA256())
    return bytes(key.sign(message, ec.ECDSA(chosen)))


def csr(key: Any, hash_algorithm: Any) -> bytes:
    """PEM request of sigstore-python: empty subject, critical BasicConstraints."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return builder.sign(key, hash_algorithm).public_bytes(Encoding.PEM)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def issued(reply: httpx.Response) -> list[x509.Certificate]:
    """Certificates of a good v2 answer."""
    assert reply.status_code == 200, reply.text
    chain = reply.json()["signedCertificateEmbeddedSct"]["chain"]["certificates"]
    assert all(not each.endswith("\n") for each in chain)
    return [x509.load_pem_x509_certificate(each.encode()) for each in chain]


def refusal(reply: httpx.Response) -> tuple[int, int, str, str]:
    """HTTP status, gRPC code, message and reason of an error answer."""
    body = reply.json()
    assert reply.headers["content-type"] == "application/json"
    reason = body["details"][0]["reason"] if body["details"] else ""
    return reply.status_code, body["code"], body["message"], reason

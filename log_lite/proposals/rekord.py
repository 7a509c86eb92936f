"""rekord 0.0.1: a signature in one of four formats over data that the client sends with it."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

from log_lite.proposals.minisign import canonical_minisign_key, verify_minisign
from log_lite.proposals.pgp import canonical_pgp_key, verify_pgp
from log_lite.proposals.proposal import Proposal, Rejected, binary, canonical_body, encode_base64, text
from log_lite.proposals.signed import VerifiedSignature
from log_lite.proposals.sshsig import canonical_ssh_key, verify_ssh
from log_lite.proposals.verifier import parse_pem


def propose_rekord(spec: Mapping[str, Any]) -> Proposal:
    """Verify a rekord and return its canonical form. Raises `Rejected`."""
    name = text(spec, "signature.format")
    verify = _FORMATS.get(name)
    if verify is None:
        raise Rejected(
            f"validation failure: signature.format in body should be one of [pgp minisign x509 ssh], not {name!r:.20}"
        )
    data = binary(spec, "data.content")
    signed = verify(data, binary(spec, "signature.content"), binary(spec, "signature.publicKey.content"))
    digest = sha256(data).hexdigest()
    body = canonical_body(
        "rekord",
        "0.0.1",
        {
            "data": {"hash": {"algorithm": "sha256", "value": digest}},
            "signature": {
                "format": name,
                "content": encode_base64(signed.signature),
                "publicKey": {"content": encode_base64(signed.public_key)},
            },
        },
    )
    return Proposal(body, (sha256(signed.public_key).hexdigest(), *signed.subjects, f"sha256:{digest}"))


def canonical_key(name: str, public_key: bytes) -> bytes:
    """A public key of the given format, in the form that Rekor logs. Raises `Rejected`."""
    canonical = _CANONICAL.get(name)
    if canonical is None:
        raise Rejected(f"format in body should be one of {list(_CANONICAL)}, not {name!r:.20}".replace(",", ""))
    return canonical(public_key)


def _verify_x509(data: bytes, signature: bytes, public_key: bytes) -> VerifiedSignature:
    verifier = parse_pem(public_key)
    verifier.verify(signature, data)
    return VerifiedSignature(signature, verifier.pem(), verifier.subjects())


_FORMATS: Final[dict[str, Callable[[bytes, bytes, bytes], VerifiedSignature]]] = {
    "x509": _verify_x509,
    "ssh": verify_ssh,
    "minisign": verify_minisign,
    "pgp": verify_pgp,
}
_CANONICAL: Final[dict[str, Callable[[bytes], bytes]]] = {
    "pgp": canonical_pgp_key,
    "minisign": canonical_minisign_key,
    "x509": lambda raw: parse_pem(raw).pem(),
    "ssh": canonical_ssh_key,
}

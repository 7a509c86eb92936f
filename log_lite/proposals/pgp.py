"""OpenPGP signatures, where the optional `pgp` extra is installed."""

import importlib

from log_lite.proposals.proposal import Rejected
from log_lite.proposals.signed import Signed


def verify_pgp(data: bytes, signature: bytes, public_key: bytes) -> Signed:
    """Check a detached OpenPGP signature over `data`. Raises `Rejected`."""
    try:
        pysequoia = importlib.import_module("pysequoia")
    except ImportError as error:
        raise Rejected("unsupported: this log was installed without its pgp extra") from error
    # pysequoia raises bare exceptions of several classes for bad keys, bad signatures and weak algorithms alike.
    try:
        certificate = pysequoia.Cert.from_bytes(public_key)
        pysequoia.verify(bytes=data, store=lambda _ids: [certificate], signature=pysequoia.Sig.from_bytes(signature))
        subjects = tuple(str(user_id) for user_id in certificate.user_ids)
    except Exception as error:
        raise Rejected(f"verifying signature: {error}") from error
    return Signed(signature, str(certificate).encode(), subjects)

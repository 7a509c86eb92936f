"""The first leaf of every tree, signed by the log itself.

Some clients treat log index 0 as "no index" (protobuf leaves out zero values), so no client ever gets it. The leaf is
an ordinary, verifiable entry: a monitor reads it like any other.
"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from log_lite.chain import Submission
from log_lite.keys import LogKey
from log_lite.proposals.proposal import Proposal, canonical_body, encode_base64
from tlog.ct import EntryType


def statement_v1(key: LogKey, text: str) -> Proposal:
    """Make a hashedrekord 0.0.1 entry for `text`, signed with an ECDSA log key."""
    artifact = text.encode()
    spec = {
        "data": {"hash": {"algorithm": "sha256", "value": sha256(artifact).hexdigest()}},
        "signature": {
            "content": encode_base64(key.sign(artifact)),
            "publicKey": {"content": encode_base64(key.public_pem())},
        },
    }
    return Proposal(canonical_body("hashedrekord", "0.0.1", spec))


def statement_v2(key: LogKey, text: str) -> Proposal:
    """Make a hashedrekord 0.0.2 entry for `text`, signed with an ECDSA log key."""
    artifact = text.encode()
    spec = {
        "data": {"algorithm": "SHA2_256", "digest": encode_base64(sha256(artifact).digest())},
        "signature": {
            "content": encode_base64(key.sign(artifact)),
            "verifier": {"keyDetails": key.key_details, "publicKey": {"rawBytes": encode_base64(key.spki)}},
        },
    }
    return Proposal(canonical_body("hashedrekord", "0.0.2", {"hashedRekordV002": spec}))


def statement_ct(key: LogKey, text: str, now: datetime) -> Submission:
    """Make a self-signed certificate named `text`, as an X.509 entry whose chain is itself."""
    private = key.private
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise TypeError("a CT log signs with ECDSA")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(minutes=10))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .sign(private, SHA256())
    )
    der = certificate.public_bytes(Encoding.DER)
    return Submission(EntryType.X509, b"", der, der, ())


def utc(now_ms: int) -> datetime:
    """Milliseconds since the epoch as an aware time, whole seconds."""
    return datetime.fromtimestamp(now_ms // 1000, UTC)

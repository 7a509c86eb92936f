"""SSH signatures (OpenSSH PROTOCOL.sshsig), as `ssh-keygen -Y sign -n file` makes them."""

import base64
import binascii
import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from log_lite.proposals.proposal import Rejected
from log_lite.proposals.signed import VerifiedSignature
from tlog.ct import MalformedCt, Reader

_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----"
_END: Final = "-----END SSH SIGNATURE-----"
_MAGIC: Final = b"SSHSIG"
_NAMESPACE: Final = b"file"
_HASH: Final = b"sha512"
_RSA: Final[dict[bytes, HashAlgorithm]] = {b"rsa-sha2-256": SHA256(), b"rsa-sha2-512": SHA512()}
_CURVES: Final[dict[bytes, HashAlgorithm]] = {
    b"ecdsa-sha2-nistp256": SHA256(),
    b"ecdsa-sha2-nistp384": SHA384(),
    b"ecdsa-sha2-nistp521": SHA512(),
}
# Key types of security keys (FIDO2), with the algorithm of each; these types have no WebAuthn client data.
_SECURITY_KEYS: Final = {
    b"sk-ssh-ed25519@openssh.com": b"ssh-ed25519",
    b"sk-ecdsa-sha2-nistp256@openssh.com": b"ecdsa-sha2-nistp256",
}
_FIELDS_BEFORE_APPLICATION: Final = {
    b"sk-ssh-ed25519@openssh.com": 1,
    b"sk-ecdsa-sha2-nistp256@openssh.com": 2,
}


def verify_ssh(data: bytes, signature: bytes, public_key: bytes) -> VerifiedSignature:
    """Check an armored SSH signature in namespace `file` over `data`. Raises `Rejected`."""
    line = canonical_ssh_key(public_key)
    try:
        key = load_ssh_public_key(line)
        blob = _unarmor(signature)
        _check(key, base64.b64decode(line.split()[1], validate=True), blob, data)
    except (ValueError, UnsupportedAlgorithm, MalformedCt, binascii.Error) as error:
        raise Rejected(f"not an SSH key and signature: {error}") from error
    except InvalidSignature as error:
        raise Rejected("verifying signature: invalid SSH signature") from error
    return VerifiedSignature(_armor(blob), line)


def canonical_ssh_key(public_key: bytes) -> bytes:
    """A key as Rekor logs it: type and key as in `authorized_keys`, and a line end. Raises `Rejected`."""
    # The comment may hold an unproven e-mail address: Rekor drops the comment, and so does this log.
    parts = public_key.decode("utf-8", "replace").split()
    if len(parts) < 2:  # noqa: PLR2004  type and key
        raise Rejected("not an SSH public key")
    return f"{parts[0]} {parts[1]}\n".encode()


def _check(key: object, key_blob: bytes, blob: bytes, data: bytes) -> None:
    reader = Reader(blob)
    if reader.take(len(_MAGIC)) != _MAGIC or reader.number(4) != 1:
        raise Rejected("not an SSH signature of version 1")
    signing_key, namespace, reserved, hash_name = (reader.vector(4) for _ in range(4))
    signature = Reader(reader.vector(4))
    if signing_key != key_blob:
        raise Rejected("the SSH signature is by another key")
    # SPEC rekor pkg/pki/ssh, Armor: the canonical form names this namespace and this hash, and nothing reserved.
    if namespace != _NAMESPACE or hash_name != _HASH or reserved:
        raise Rejected("an SSH signature must be in namespace 'file', hash with sha512 and reserve nothing")
    digest = hashlib.sha512(data).digest()
    message = _MAGIC + b"".join(_string(part) for part in (namespace, reserved, hash_name, digest))
    algorithm, raw = signature.vector(4), signature.vector(4)
    if algorithm in _SECURITY_KEYS:
        # SPEC OpenSSH PROTOCOL.u2f: "SHA256(application), flags, counter, SHA256(message)".
        flags_and_counter = signature.take(5)
        application = _application(key_blob, algorithm)
        parts = (hashlib.sha256(application).digest(), flags_and_counter, hashlib.sha256(message).digest())
        algorithm, message = _SECURITY_KEYS[algorithm], b"".join(parts)
    if isinstance(key, ed25519.Ed25519PublicKey) and algorithm == b"ssh-ed25519":
        key.verify(raw, message)
    elif isinstance(key, rsa.RSAPublicKey) and algorithm in _RSA:
        key.verify(raw, message, padding.PKCS1v15(), _RSA[algorithm])
    elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm in _CURVES:
        numbers = Reader(raw)
        r, s = (int.from_bytes(numbers.vector(4), "big") for _ in range(2))
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(_CURVES[algorithm]))
    else:
        raise Rejected(f"unsupported SSH signature algorithm {algorithm!r:.40}")


def _application(key_blob: bytes, algorithm: bytes) -> bytes:
    """The application for which a security key signs: the last field of its public key. SPEC OpenSSH PROTOCOL.u2f."""
    reader = Reader(key_blob)
    if reader.vector(4) != algorithm:
        raise Rejected("the SSH signature is of another algorithm than its key")
    for _ in range(_FIELDS_BEFORE_APPLICATION[algorithm]):
        reader.vector(4)
    return reader.vector(4)


def _string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _unarmor(signature: bytes) -> bytes:
    lines = signature.decode("ascii").strip().splitlines()
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:  # noqa: PLR2004  two frames and some base64
        raise Rejected("not an armored SSH signature")
    return base64.b64decode("".join(lines[1:-1]), validate=True)


def _armor(blob: bytes) -> bytes:
    encoded = base64.b64encode(blob).decode()
    lines = [encoded[i : i + 64] for i in range(0, len(encoded), 64)]
    return "\n".join([_BEGIN, *lines, _END, ""]).encode()

"""SSH signatures as a FIDO2 security key makes them, by a key in software. SPEC OpenSSH PROTOCOL.u2f and sshsig."""

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def sign_with_security_key(
    data: bytes, kind: str, *, flags: bytes = b"\x01", signed_flags: bytes = b"\x01"
) -> tuple[bytes, bytes]:
    """Armored signature over `data` in the namespace `file`, and the public key; `kind` is ed25519 or ecdsa.

    With other `signed_flags` than `flags` the signature says something else than what was signed.
    """
    application, counter = b"ssh:", b"\x00\x00\x00\x07"
    message = b"SSHSIG" + b"".join(map(string, (b"file", b"", b"sha512", hashlib.sha512(data).digest())))
    message = b"".join((hashlib.sha256(application).digest(), signed_flags, counter, hashlib.sha256(message).digest()))
    if kind == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
        name = b"sk-ssh-ed25519@openssh.com"
        fields = [key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)]
        raw = key.sign(message)
    else:
        curve = ec.generate_private_key(ec.SECP256R1())
        name = b"sk-ecdsa-sha2-nistp256@openssh.com"
        fields = [b"nistp256", curve.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)]
        pair = decode_dss_signature(curve.sign(message, ec.ECDSA(SHA256())))
        raw = b"".join(string(each.to_bytes(each.bit_length() // 8 + 1, "big")) for each in pair)
    blob = b"".join(map(string, (name, *fields, application)))
    signature = string(name) + string(raw) + flags + counter
    whole = b"SSHSIG\x00\x00\x00\x01" + b"".join(map(string, (blob, b"file", b"", b"sha512", signature)))
    armored = base64.encodebytes(whole).decode().replace("\n", "")
    lines = ["-----BEGIN SSH SIGNATURE-----", *(armored[i : i + 70] for i in range(0, len(armored), 70))]
    text = "\n".join([*lines, "-----END SSH SIGNATURE-----", ""])
    return text.encode(), name + b" " + base64.b64encode(blob) + b" key@hardware\n"

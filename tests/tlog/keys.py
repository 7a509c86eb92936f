"""Fixed keys for signing test notes: never random, never used for anything else."""

import base64
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from tlog.note import NoteKey, split_vkey, tile_log_key

ED25519: Final = ed25519.Ed25519PrivateKey.from_private_bytes(sha256(b"log key").digest())
OTHER_ED25519: Final = ed25519.Ed25519PrivateKey.from_private_bytes(sha256(b"another key").digest())
WITNESS: Final = ed25519.Ed25519PrivateKey.from_private_bytes(sha256(b"witness key").digest())
P256: Final = ec.derive_private_key(int.from_bytes(sha256(b"p256 key").digest(), "big") >> 1, ec.SECP256R1())


def spki(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """SubjectPublicKeyInfo DER of the public half."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def rsa_key() -> rsa.RSAPrivateKey:
    """A 2048-bit RSA key, made once with `openssl genpkey` and kept as DER."""
    key = load_der_private_key(base64.b64decode(_RSA_PKCS8), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def signature_line(name: str, blob: bytes) -> bytes:
    """One note signature line: `blob` is key id and signature."""
    return f"— {name} {base64.b64encode(blob).decode()}\n".encode()


_RSA_PKCS8: Final = (
    "MIIEoQIBAAKCAQEApimkO+TWTd9h1ZywZLbw/pM/bFr3feSe88SgB/VJbei+SfH10XEp03k+B7/UKPqy8xqv0qMDovb419v4t4RnK94VvD8KTi"
    "V4rog6ji7I8IkLj9HhTnE+qj7y4jv//27HN5SeuRHrAHB1eJn/VjvDY+08zV8/AOuw6hNbsZRY7JUJ6SuS2csvjx4oxhCzk+2+FLBi/J9BN/Ma"
    "V8rVJBM1RhIUpleSWQVkEIGqk2Y+sZ+ZOZKq83ECIAQlYXvC8bPCVgsTcr0HHoqlqOTPHVCsUjBTXRN+UjWLQQVI8syDQ6mzkXN9K46JsUK1qu"
    "e/YRRoh38ACd+mcT8BnyAGqzxv1wIDAQABAoH/QQO0vw/1dNgdRPeKDTOHbWnakbWwy2bTdY35uni/F8IkB8rPOU6N5Fthafwk3I6Qdjklkm/g"
    "0bgl+vqW1ozNJtzpTulbnuK1Kup3/tSkys4p4pwRtspDOq8RWckgNqb29p2wJ7mwZFDxpb6bqaIN/DYBvwRazSwV4itbiqAA1eWEEjSXw6GaPT"
    "jGHePiPyc6v9RuQQidKE089pv9wUVVhR14dTAEhzcsZtKiCejmrvNwigCcwrTVPDQafgDo5ALOsgyExyWftxYvdxWYfqpjP3u1q0as8F3/Bovc"
    "q1o0Uy4MwiyLEh+iFlYciy3yJfNOhxoBwBjvAXbROilYmbJ1AoGBANC6Hv/BbKtcBMXSXGQ/8s6b3X9Bu75quPRDouSkwI4k/8i3AEn05N8L8Y"
    "qL7l7SK+PthtAEDdKhXFhZFWHqvzwFcsBFPV3Wx+EJ0AMQFFRSlrH8XWEJGpRvuDkr2sTlZovWjpK9dJnyvJBuTtXYGiJW1TsIDREm8/+6pUMp"
    "BPPjAoGBAMvLqVVounAVuzd9uJFtcWmLahHx7aU95Tlr3fBrDx/ImjN4GE3NmB/EQM8GgdNIMITDdmIkq1vxkhBCe4BkcT/uI+rVwRVmUUqqUY"
    "2o5OWjEkjQxkWgvkV3vc0z3gvdfkHe9FS4N6h/ImO7pAOIZAbHQpmDDAsERX8Pjiuf7F59AoGAHh6NdJiDxuJ7adRmMq0rq3bAaqmgnuSlldHg"
    "wp+njZt3MY5+wy1MjYcarsRsfFBVtwlCh+fd2sQgIDuSo1ONjuq2WVpkdZMVurqAwsBiPpzAVCS3kNYQeNT6P329juYPeyRV5ITkO4bUgP7570"
    "/Ezam8EU2jHROC6CcVy/AyX8MCgYBZ1kutRN967Xl8OsWUBiTKnBSEGJvkDebwayaJBwjBwBKJwdUk5w66Yi8XlAzC8L3CqM+U8AlCHLmAxW3f"
    "6WcrAXV/3f6hylrniTEuO1e8CyjSRIZCx1tZEDHxNX4ayOcRbpFSj2qpsnGceWkRzZwaiNhJB8XVTWq9WkQX4wW1mQKBgQCM+DEuxjAwW0VIDQ"
    "bofv2eSZjV33Sj4cwBWXbbjcIFiDt+6QX5HqR13OvMpFEXg0enTCednNGNDjH1gPLJ2Y7Zy8L0+RhySaWp68iOlKw7POLPO4k3kgWUkBbG9rtK"
    "BAAmKas0n0+EB6BtOeZa4m63mqWJqca7JIW50W4/SJDAwg=="
)


def note_key(vkey: str) -> NoteKey:
    """Key of a C2SP verifier key of type Ed25519."""
    name, key_id, _, raw = split_vkey(vkey, {1: 32})
    key = tile_log_key(
        name,
        ed25519.Ed25519PublicKey.from_public_bytes(raw).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )
    assert key.key_id == key_id
    return key

"""The verifier of an entry becomes a `Signer`: a list of PEM blocks, a certificate in DER, or a bare public key.

Bare keys are SubjectPublicKeyInfo, PGP, SSH and minisign; only a fingerprint identifies them. Fingerprints follow
Rekor's `pkg/pki/*/Identities`: lower-case hex SHA-256 of the SPKI, `SHA256:` and unpadded base64 for SSH.
"""

import base64
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Final

from sigstore_entries import der
from sigstore_entries.body import MalformedBody, MalformedText, blocks, from_base64
from sigstore_entries.certificate import MalformedVerifier, signer_from_certificate
from sigstore_entries.der import MAX_KEY
from sigstore_entries.openpgp import MalformedPgp, read_pgp
from sigstore_entries.signing import Signer, SignerForm

_RSA_ALGORITHM: Final = bytes.fromhex("300d06092a864886f70d0101010500")  # rsaEncryption with NULL (RFC 3279 2.3.1)
_ED25519_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")  # RFC 8410 section 4, followed by the 32-byte key
_ED25519_SIZE: Final = 32
_MINISIGN_KEY: Final = 42  # algorithm (2), key number (8), Ed25519 key (32)
_SSH_LENGTH: Final = 4


class MalformedKey(ValueError):
    """The key block does not follow its format."""


def read_spki(spki: bytes) -> Signer:
    """Read a DER SubjectPublicKeyInfo (RFC 5280 4.1.2.7). Raises `MalformedKey`."""
    if len(spki) > MAX_KEY:
        raise MalformedKey(f"a public key of {len(spki)} bytes")
    try:
        parts = [part.tag for part in der.children(der.only(spki, der.SEQUENCE, "the public key"))]
    except der.MalformedDer as error:
        raise MalformedKey(str(error)) from error
    if parts != [der.SEQUENCE, der.BIT_STRING]:
        raise MalformedKey("a public key is not an algorithm and a bit string")
    return Signer(SignerForm.KEY, fingerprints=(sha256(spki).hexdigest(),))


def read_pkcs1(key: bytes) -> Signer:
    """Read a PKCS #1 RSAPublicKey by way of its SPKI. Raises `MalformedKey`."""
    return read_spki(pkcs1_spki(key))


def pkcs1_spki(key: bytes) -> bytes:
    """SPKI of a PKCS #1 RSAPublicKey."""
    return der.encode(der.SEQUENCE, _RSA_ALGORITHM + der.encode(der.BIT_STRING, b"\x00" + key))


def ed25519_spki(key: bytes) -> bytes:
    """SPKI of a raw 32-byte Ed25519 key. Raises `MalformedKey`."""
    if len(key) != _ED25519_SIZE:
        raise MalformedKey(f"an Ed25519 key of {len(key)} bytes")
    return _ED25519_PREFIX + key


def read_minisign(block: bytes) -> Signer:
    """Read a minisign key: base64 of algorithm, key number and key; or, in old entries, the raw 32-byte key.

    Raises `MalformedKey`.
    """
    key = block
    if len(block) != _ED25519_SIZE:
        # A key file has an "untrusted comment:" line in front of the base64 line.
        lines = block.strip().splitlines()
        try:
            key = from_base64(lines[-1], "the minisign key") if lines else b""
        except MalformedText as error:
            raise MalformedKey(str(error)) from error
        if len(key) != _MINISIGN_KEY or key[:2] not in {b"Ed", b"ED"}:
            raise MalformedKey("a minisign key is not an Ed25519 key with its number")
        key = key[-_ED25519_SIZE:]
    return Signer(SignerForm.MINISIGN, fingerprints=(sha256(ed25519_spki(key)).hexdigest(),))


def read_ssh(line: bytes) -> Signer:
    """Read one authorized_keys line: type, base64, and an unsigned comment. Raises `MalformedKey`."""
    parts = line.split(maxsplit=2)
    if len(parts) < 2 or len(parts[1]) > 2 * MAX_KEY or b"\n" in line.strip():  # noqa: PLR2004  type and key
        raise MalformedKey("an SSH key is not one line of type and key")
    try:
        blob = from_base64(parts[1], "the SSH key")
    except MalformedText as error:
        raise MalformedKey(str(error)) from error
    # RFC 4253 6.6: the blob begins with the type as a string.
    length = int.from_bytes(blob[:_SSH_LENGTH], "big")
    if blob[_SSH_LENGTH : _SSH_LENGTH + length] != parts[0] or len(blob) <= _SSH_LENGTH + length:
        raise MalformedKey("an SSH key blob is of another type than its line says")
    text = base64.b64encode(sha256(blob).digest()).rstrip(b"=").decode("ascii")
    return Signer(SignerForm.SSH, fingerprints=(f"SHA256:{text}",))


def signer_from_pem(text: bytes, what: str) -> Signer:
    """Read a PEM certificate, a chain of at most ten with the leaf first, or a PEM public key.

    Raises `MalformedVerifier`.
    """
    try:
        (label, content), *rest = blocks(text, what)
    except MalformedText as error:
        raise MalformedVerifier(str(error), "malformed-key") from error
    if label == "CERTIFICATE":
        if any(each.label != "CERTIFICATE" for each in rest):
            raise MalformedVerifier(f"{what} mixes certificates with other blocks", "malformed-certificate")
        return signer_from_certificate(content, tuple(each.content for each in rest))
    if rest:
        raise MalformedVerifier(f"{what} holds more than one public key", "malformed-key")
    if label == "PUBLIC KEY":
        return signer_from_key(content)
    if label == "RSA PUBLIC KEY":
        return _of_key(read_pkcs1, content)
    raise MalformedVerifier(f"{what} holds a {label.lower()}", "malformed-key")


def signer_from_key(spki: bytes) -> Signer:
    """Read a DER SubjectPublicKeyInfo. Raises `MalformedVerifier`."""
    return _of_key(read_spki, spki)


def signer_from_ssh(line: bytes) -> Signer:
    """Read an SSH public key line. Raises `MalformedVerifier`."""
    return _of_key(read_ssh, line)


def signer_from_minisign(block: bytes) -> Signer:
    """Read a minisign public key. Raises `MalformedVerifier`."""
    return _of_key(read_minisign, block)


def signer_from_pgp(block: bytes, signature: bytes | None = None) -> Signer:
    """Read an OpenPGP public key block, beside the entry's own signature. Raises `MalformedVerifier`."""
    return _of_key(lambda raw: read_pgp(raw, signature), block)


def _of_key(read: Callable[[bytes], Signer], block: bytes) -> Signer:
    try:
        return read(block)
    except (MalformedKey, MalformedPgp) as error:
        raise MalformedVerifier(str(error), "malformed-key") from error


def all_signers(readers: Iterable[Callable[[], Signer]]) -> tuple[Signer, ...]:
    """Signers of an entry with several signatures.

    One unreadable verifier must not hide the others: all unreadable ones together become one more signer that is
    nothing but a defect, `unread: …`. When none can be read, the entry is unreadable: raises the first failure.
    """
    signers: list[Signer] = []
    failed, first = 0, None
    for read in readers:
        try:
            signers.append(read())
        except (MalformedVerifier, MalformedBody) as error:
            failed, first = failed + 1, first or error
    if first is not None:
        if not signers:
            raise first
        total = len(signers) + failed
        defect = f"unread: {failed} of {total} signers cannot be read, the first because {first}"
        signers.append(Signer(SignerForm.KEY, defects=(defect,)))
    return tuple(signers)

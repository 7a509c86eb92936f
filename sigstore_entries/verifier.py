"""The verifier material of an entry (a PEM block list, or DER) becomes one `Signer`."""

from collections.abc import Callable, Iterable

from sigstore_entries import der, keys, pem
from sigstore_entries.body import MalformedBody
from sigstore_entries.certificate import read_certificate
from sigstore_entries.openpgp import MalformedPgp, read_pgp
from sigstore_entries.signing import Signer, SignerForm


class MalformedVerifier(ValueError):
    """The entry's certificate or key cannot be read at all. `code` is for metrics."""

    def __init__(self, reason: str, code: str) -> None:
        super().__init__(reason)
        self.code = code


def signer_from_pem(text: bytes, what: str) -> Signer:
    """Read a PEM certificate, a chain of at most ten with the leaf first, or a PEM public key.

    Raises `MalformedVerifier`.
    """
    try:
        (label, content), *rest = pem.blocks(text, what)
    except pem.MalformedText as error:
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
        return _of_key(keys.read_pkcs1, content)
    raise MalformedVerifier(f"{what} holds a {label.lower()}", "malformed-key")


def signer_from_certificate(raw: bytes, chain: tuple[bytes, ...] = ()) -> Signer:
    """Read a DER certificate. Raises `MalformedVerifier`."""
    try:
        return read_certificate(raw, chain)
    except der.MalformedDer as error:
        raise MalformedVerifier(f"the certificate cannot be read: {error}", "malformed-certificate") from error


def signer_from_key(spki: bytes) -> Signer:
    """Read a DER SubjectPublicKeyInfo. Raises `MalformedVerifier`."""
    return _of_key(keys.read_spki, spki)


def signer_from_ssh(line: bytes) -> Signer:
    """Read an SSH public key line. Raises `MalformedVerifier`."""
    return _of_key(keys.read_ssh, line)


def signer_from_minisign(block: bytes) -> Signer:
    """Read a minisign public key. Raises `MalformedVerifier`."""
    return _of_key(keys.read_minisign, block)


def signer_from_pgp(block: bytes, signature: bytes | None = None) -> Signer:
    """Read an OpenPGP public key block, beside the entry's own signature. Raises `MalformedVerifier`."""
    return _of_key(lambda raw: read_pgp(raw, signature), block)


def _of_key(read: Callable[[bytes], Signer], block: bytes) -> Signer:
    try:
        return read(block)
    except (keys.MalformedKey, MalformedPgp) as error:
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

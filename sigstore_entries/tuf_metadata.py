"""Kind tuf: a TUF metadata document signed by keys of a TUF root, both inside the body."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from sigstore_entries.body import Fields, MalformedBody, read_json, shown
from sigstore_entries.decoded import Decoded
from sigstore_entries.keys import MalformedKey, ed25519_spki
from sigstore_entries.signing import Signer
from sigstore_entries.verifier import MalformedVerifier, all_signers, signer_from_key, signer_from_pem

_HEX_ED25519: Final = 64
# go-tuf before version 0.3 wrote ECDSA keys as hex of the uncompressed point (SEC 1 2.3.3), not as PEM.
_ECDSA: Final = {"ecdsa", "ecdsa-sha2-nistp256"}
_HEX_P256: Final = 130
_P256_PREFIX: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")  # RFC 5480 2


def tuf_v1(spec: Fields) -> Decoded:
    """Decode tuf 0.0.1: signers are all keys of the root, as Rekor's `Identities` has it.

    The body does not say which of them signed the metadata, and nothing here verifies it.
    """
    root = _document(spec.object("root"), "root.content")
    _document(spec.object("metadata"), "metadata.content")
    keys = root.object("signed", "keys")
    names = keys.names()
    if not names:
        raise MalformedBody("a TUF root without keys")
    readers: list[Callable[[], Signer]] = [partial(_key, keys, name) for name in names]
    return Decoded(all_signers(readers))


def _document(holder: Fields, what: str) -> Fields:
    # Rekor writes base64 of the JSON; its schema also takes the JSON itself.
    value: Any = holder.raw("content")
    return Fields(read_json(holder.bytes("content"), what) if isinstance(value, str) else value, what)


def _key(keys: Fields, name: str) -> Signer:
    key = keys.object(name)
    kind, public = key.text("keytype"), key.object("keyval").text("public")
    if public.lstrip().startswith("-----BEGIN"):
        return signer_from_pem(public.encode("utf-8", "replace"), "a TUF key")
    if kind == "ed25519" and len(public) == _HEX_ED25519:
        try:
            return signer_from_key(ed25519_spki(bytes.fromhex(public)))
        except (ValueError, MalformedKey) as error:
            raise MalformedVerifier("a TUF Ed25519 key is not hex", "malformed-key") from error
    if kind in _ECDSA and len(public) == _HEX_P256 and public.startswith("04"):
        try:
            return signer_from_key(_P256_PREFIX + bytes.fromhex(public))
        except ValueError as error:
            raise MalformedVerifier("a TUF ECDSA key is not hex", "malformed-key") from error
    raise MalformedVerifier(f"a TUF key of type {shown(kind)} is not read", "malformed-key")

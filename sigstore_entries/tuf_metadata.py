"""Kind tuf: a TUF metadata document signed by keys of a TUF root, both inside the body."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from sigstore_entries.body import MAX_ITEMS, Fields, MalformedBody, read_json, shown
from sigstore_entries.decoded import Decoded
from sigstore_entries.keys import MalformedKey, ed25519_spki
from sigstore_entries.signing import Signer
from sigstore_entries.verifier import MalformedVerifier, all_signers, signer_from_key, signer_from_pem

_HEX_ED25519: Final = 64


def tuf_v1(spec: Fields) -> Decoded:
    """Decode tuf 0.0.1: signers are all keys of the root, as Rekor's `Identities` has it.

    The body does not say which of them signed the metadata, and nothing here verifies it.
    """
    root = _document(spec.object("root"), "root.content")
    _document(spec.object("metadata"), "metadata.content")
    keys = root.object("signed", "keys")
    names = keys.names()
    if not 0 < len(names) <= MAX_ITEMS:
        raise MalformedBody(f"a TUF root with {len(names)} keys")
    readers: list[Callable[[], Signer]] = [partial(_key, keys.object(name)) for name in names]
    return Decoded(all_signers(readers))


def _document(holder: Fields, what: str) -> Fields:
    # Rekor writes base64 of the JSON; its schema also takes the JSON itself.
    value: Any = holder.raw("content")
    return Fields(read_json(holder.bytes("content"), what) if isinstance(value, str) else value, what)


def _key(key: Fields) -> Signer:
    kind, public = key.text("keytype"), key.object("keyval").text("public")
    if public.lstrip().startswith("-----BEGIN"):
        return signer_from_pem(public.encode("utf-8", "replace"), "a TUF key")
    if kind == "ed25519" and len(public) == _HEX_ED25519:
        try:
            return signer_from_key(ed25519_spki(bytes.fromhex(public)))
        except (ValueError, MalformedKey) as error:
            raise MalformedVerifier("a TUF Ed25519 key is not hex", "malformed-key") from error
    raise MalformedVerifier(f"a TUF key of type {shown(kind)} is not read", "malformed-key")

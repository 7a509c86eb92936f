"""Kind tuf: a TUF metadata document signed by keys of a TUF root, both inside the body."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from sigstore_entries.body import BodyObject, DecodedBody, MalformedBody, MalformedText, blocks, read_json, shown
from sigstore_entries.certificate import MalformedVerifier
from sigstore_entries.der import read_spki_of, split_certificate
from sigstore_entries.keys import MalformedKey, all_signers, ed25519_spki, pkcs1_spki, signer_from_key, signer_from_pem
from sigstore_entries.signing import Signer

_HEX_ED25519: Final = 64
# go-tuf before version 0.3 wrote ECDSA keys as hex of the uncompressed point (SEC 1 2.3.3), not as PEM.
_ECDSA: Final = {"ecdsa", "ecdsa-sha2-nistp256"}
_HEX_P256: Final = 130
_P256_PREFIX: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")  # RFC 5480 2


def tuf_v1(spec: BodyObject) -> DecodedBody:
    """Decode tuf 0.0.1: signers are all keys of the root, as Rekor's `Identities` has it.

    `signed_metadata` gives the keys that signed the metadata.
    """
    keys = _keys(spec)
    _document(spec.object("metadata"), "metadata.content")
    names = keys.names()
    if not names:
        raise MalformedBody("a TUF root without keys")
    readers: list[Callable[[], Signer]] = [partial(_key, keys, name) for name in names]
    return DecodedBody(all_signers(readers))


def signed_metadata(spec: BodyObject) -> tuple[bytes, dict[str, list[bytes]]]:
    """The signed bytes of a tuf entry, and by key fingerprint the signatures attributed to that key.

    Raises `MalformedBody` or `ValueError` where they cannot be read.
    """
    keys, metadata = _keys(spec), _document(spec.object("metadata"), "metadata.content")
    made: dict[str, list[bytes]] = {}
    for each in metadata.list("signatures"):
        # An unreadable signature must not hide the makers of the others.
        with suppress(MalformedVerifier, MalformedBody, MalformedText, ValueError):
            for fingerprint in _key(keys, each.text("keyid")).fingerprints:
                made.setdefault(fingerprint, []).append(bytes.fromhex(each.text("sig")))
    return canonical_json(metadata.raw("signed")), made


def public_keys(spec: BodyObject) -> dict[str, bytes]:
    """SPKI of each readable key of the root, by fingerprint."""
    keys, found = _keys(spec), dict[str, bytes]()
    for name in keys.names():
        with suppress(MalformedVerifier, MalformedBody, MalformedText):
            for fingerprint in _key(keys, name).fingerprints:
                found[fingerprint] = _spki(keys.object(name))
    return found


def canonical_json(value: Any) -> bytes:
    """OLPC canonical JSON, which TUF signs: sorted names, no spaces, only quote and backslash escaped, no fractions.

    Raises `MalformedBody` for a number with a fraction.
    """
    match value:
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'.encode("utf-8", "surrogatepass")
        case None | bool():
            return {None: b"null", True: b"true", False: b"false"}[value]
        case int():
            return b"%d" % value
        case list():
            return b"[" + b",".join(map(canonical_json, value)) + b"]"
        case dict():
            members = (canonical_json(name) + b":" + canonical_json(value[name]) for name in sorted(value))
            return b"{" + b",".join(members) + b"}"
    raise MalformedBody("canonical JSON has no numbers with a fraction")


def _keys(spec: BodyObject) -> BodyObject:
    return _document(spec.object("root"), "root.content").object("signed", "keys")


def _document(holder: BodyObject, what: str) -> BodyObject:
    # Rekor writes base64 of the JSON; its schema also takes the JSON itself.
    value: Any = holder.raw("content")
    return BodyObject(read_json(holder.bytes("content"), what) if isinstance(value, str) else value, what)


def _key(keys: BodyObject, name: str) -> Signer:
    key = keys.object(name)
    public = _public(key)
    if public.lstrip().startswith("-----BEGIN"):
        return signer_from_pem(public.encode("utf-8", "replace"), "a TUF key")
    return signer_from_key(_spki(key))


def _public(key: BodyObject) -> str:
    return key.object("keyval").text("public")


def _spki(key: BodyObject) -> bytes:
    """SPKI of a key of a TUF root."""
    kind, public = key.text("keytype"), _public(key)
    if public.lstrip().startswith("-----BEGIN"):
        block, *_ = blocks(public.encode("utf-8", "replace"), "a TUF key")
        if block.label == "CERTIFICATE":
            return read_spki_of(split_certificate(block.content).encoded)
        return pkcs1_spki(block.content) if block.label == "RSA PUBLIC KEY" else block.content
    if kind == "ed25519" and len(public) == _HEX_ED25519:
        try:
            return ed25519_spki(bytes.fromhex(public))
        except (ValueError, MalformedKey) as error:
            raise MalformedVerifier("a TUF Ed25519 key is not hex", "malformed-key") from error
    if kind in _ECDSA and len(public) == _HEX_P256 and public.startswith("04"):
        try:
            return _P256_PREFIX + bytes.fromhex(public)
        except ValueError as error:
            raise MalformedVerifier("a TUF ECDSA key is not hex", "malformed-key") from error
    raise MalformedVerifier(f"a TUF key of type {shown(kind)} is not read", "malformed-key")

"""Signings proven to be in a log, as one file that verifies offline: entries, their paths, and the head the log signed.

The path leads from an entry to the root of the first `size` entries; a consistency proof leads from there to the
signed head. An entry has its bytes if they were available, and otherwise its leaf hash alone.
"""

import binascii
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct

from monitor.model.log_source import CT_APIS, HeadStatement, LogApi, LogSource, SignedHead, read_head
from monitor.proof.evidence import NotEvidence, as_base64, as_text, from_base64
from sigstore_entries.signing import EntryRef, Unreadable
from tlog.merkle import ProofInvalid, leaf_hash, root_from_inclusion_proof, verify_consistency

MEDIA_TYPE: Final = "application/vnd.signwatch.signings+json"
VERSION: Final = 1
MAX_SIZE: Final = 256 * 1024 * 1024


class ProvenEntry(Struct, frozen=True):
    """One entry, by its leaf hash; `leaf` are its bytes. `path` leads to the root of the first `size` entries."""

    index: int
    leaf_hash: bytes
    path: tuple[bytes, ...]
    leaf: bytes | None = None


class ProvenSignings(Struct, frozen=True):
    """Entries of one log tree: `consistency` leads from the root of the first `size` entries to the signed head."""

    log: str
    api: LogApi
    key_name: str
    spki: bytes
    head: bytes
    size: int
    consistency: tuple[bytes, ...]
    entries: tuple[ProvenEntry, ...]


class CheckedSignings(Struct, frozen=True):
    """Result of checking a file of one log: the signed head, and a sentence for each entry that is in it."""

    signings: ProvenSignings
    head: HeadStatement
    sentences: tuple[str, ...]

    @property
    def key_hash(self) -> str:
        """SHA-256 of the key that signed the head, as hexadecimal."""
        return sha256(self.signings.spki).hexdigest()


def to_document(proven: Sequence[ProvenSignings], about: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON types. `about` holds the query and the coverage of the answer for people, without proof."""
    return {
        "mediaType": MEDIA_TYPE,
        "version": VERSION,
        "about": dict(about),
        "logs": [
            {
                "log": each.log,
                "api": each.api.value,
                "key": {"name": each.key_name, "spki": as_base64(each.spki)},
                "head": as_base64(each.head),
                "size": each.size,
                "consistency": [as_base64(node) for node in each.consistency],
                "entries": [
                    {
                        "index": entry.index,
                        "leafHash": as_base64(entry.leaf_hash),
                        "leaf": None if entry.leaf is None else as_base64(entry.leaf),
                        "path": [as_base64(node) for node in entry.path],
                    }
                    for entry in each.entries
                ],
            }
            for each in proven
        ],
    }


def proof_from_log(source: LogSource, head: SignedHead, index: int, leaf: bytes) -> ProvenSignings:
    """Prove one entry into a trusted head, with the log's present hashes.

    RFC 6962 2.1.1: the path of the last leaf of a tree are the subtrees to its left, so the frontier before the entry
    and a consistency proof from the tree that ends with it are its inclusion proof. Raises `NotEvidence` when they
    do not lead to the head, and the errors of `LogSource`.
    """
    identity, size = source.identity, index + 1
    before = source.frontier(index, head)
    consistency = tuple(source.consistency_proof(size, head.size)) if size < head.size else ()
    entry = ProvenEntry(index, leaf_hash(leaf), tuple(reversed(before.hashes)), leaf)
    proven = ProvenSignings(
        identity.log, identity.api, identity.key_name, identity.spki, head.raw, size, consistency, (entry,)
    )
    check(proven)
    return proven


def is_signing_proof(raw: bytes) -> bool:
    """True if the file has the media type of such a proof."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("mediaType") == MEDIA_TYPE


def check_signings(raw: bytes) -> list[CheckedSignings]:
    """Check a file on its own: every head's signature, and that every entry is in it. Raises `NotEvidence`.

    Does not check that a key in it belongs to the named log: any person can sign with a key of their own.
    """
    if len(raw) > MAX_SIZE:
        raise NotEvidence(f"a file of {len(raw)} bytes is longer than {MAX_SIZE}")
    try:
        document = json.loads(raw)
        if document["mediaType"] != MEDIA_TYPE or document["version"] != VERSION:
            raise NotEvidence(f"not version {VERSION} of {MEDIA_TYPE}")
        signings = [_read(each) for each in document["logs"]]
    except (KeyError, TypeError, ValueError, binascii.Error, AttributeError, RecursionError) as error:
        raise NotEvidence(f"the file lacks or garbles a field: {error}") from error
    if not any(each.entries for each in signings):
        raise NotEvidence("no entry is in the file")
    return [check(each) for each in signings]


def check(signings: ProvenSignings) -> CheckedSignings:
    """Check that the entries are in the signed head. Raises `NotEvidence`."""
    try:
        head = read_head(signings.head, signings.api, signings.key_name, signings.spki)
    except ValueError as error:
        raise NotEvidence(f"the head of {signings.log} is not signed by the key in the file: {error}") from error
    sentences = []
    proven: set[bytes] = set()
    for entry in signings.entries:
        try:
            if entry.leaf is not None and leaf_hash(entry.leaf) != entry.leaf_hash:
                raise NotEvidence(f"the bytes of entry {entry.index} do not have its leaf hash")
            root = root_from_inclusion_proof(entry.index, signings.size, entry.leaf_hash, entry.path)
            if root not in proven:
                verify_consistency(signings.size, head.size, signings.consistency, root, head.root)
                proven.add(root)
        except ProofInvalid as error:
            raise NotEvidence(f"entry {entry.index} is not shown to be in the signed head: {error}") from error
        sentences.append(_sentence(signings, entry))
    return CheckedSignings(signings, head, tuple(sentences))


def _sentence(signings: ProvenSignings, entry: ProvenEntry) -> str:
    where = f"Entry {entry.index} of {signings.log}"
    if entry.leaf is None:
        return f"{where}: an entry with leaf hash {entry.leaf_hash.hex()}, whose bytes are not in the file."
    # It reads entries of every kind: a file of heads, or of leaf hashes, needs none of it.
    from sigstore_entries.entry import decode_ct, decode_rekor  # noqa: PLC0415

    ref = EntryRef(signings.log, entry.index)
    decoded = decode_ct(entry.leaf, ref) if signings.api in CT_APIS else decode_rekor(entry.leaf, ref)
    if isinstance(decoded, Unreadable):
        return f"{where}: an entry that cannot be read: {decoded.reason}"
    names = [name.value for signer in decoded.signers for name in signer.names]
    keys = [signer.fingerprints[0] for signer in decoded.signers if signer.fingerprints]
    issuers = dict.fromkeys(signer.issuer for signer in decoded.signers if signer.issuer)
    digests = ", ".join(f"{digest.algorithm}:{digest.value}" for digest in decoded.digests[:4])
    who = ", ".join((names or keys)[:4]) or "an unnamed signer"
    return (
        f"{where}: {decoded.kind} by {who}"
        + "".join(f", issuer {each}" for each in issuers)
        + (f", of {digests}" if digests else "")
    )


def _read(document: Mapping[str, Any]) -> ProvenSignings:
    return ProvenSignings(
        as_text(document["log"]),
        LogApi(document["api"]),
        as_text(document["key"]["name"]),
        from_base64(document["key"]["spki"]),
        from_base64(document["head"]),
        _whole(document["size"]),
        tuple(from_base64(node) for node in document["consistency"]),
        tuple(
            ProvenEntry(
                _whole(each["index"]),
                from_base64(each["leafHash"]),
                tuple(from_base64(node) for node in each["path"]),
                None if each["leaf"] is None else from_base64(each["leaf"]),
            )
            for each in document["entries"]
        ),
    )


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"a whole number is wanted where {type(value).__name__} stands")
    return value

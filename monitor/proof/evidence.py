"""Evidence as one file that verifies offline, without this program's state and without trust in the sender.

The file states one of two strengths. *Transferable*: the log's own signatures contradict each other, which only the
holder of its key can cause. *Record*: the answer of a server; it convinces only a reader who trusts its author,
because any person can make a proof that fails or an entry that was never signed. A missing entry is always a record;
two signed entries for one index are transferable.
"""

import base64
import binascii
import json
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct

from alerts.alert import rfc3339
from monitor.model.errors import Evidence, PromiseKind, PromiseStatement, SignwatchError
from monitor.model.inclusion_promise import BadPromise, InclusionPromise, read_promise
from monitor.model.log_source import HeadStatement, LogApi, read_head
from sigstore_entries.signing import EntryRef, Unreadable
from tlog.merkle import (
    Frontier,
    MalformedFrontier,
    NodeHash,
    ProofInvalid,
    RootHash,
    leaf_hash,
    prefix_root,
    verify_consistency,
    verify_inclusion,
)
from tlog.nodes import Coordinate, conflicts, frontier_nodes, full_subtrees

MEDIA_TYPE: Final = "application/vnd.signwatch.evidence+json"
VERSION: Final = 1
MAX_SIZE: Final = 16 * 1024 * 1024
BROKEN_PROMISE: Final = "log-promise-broken"
WRONG_SIGNATURE: Final = "entry-signature-wrong"
_REFUSED: Final = "log-head-refused"
# Evidence about a missing or replaced entry may hold no signature.
_MAY_BE_UNSIGNED: Final = frozenset({"log-entries-not-in-tree", "log-shard-vanished"})
KINDS: Final = frozenset(
    {
        *_MAY_BE_UNSIGNED,
        "log-entry-missing",
        "log-forked",
        "log-inconsistent",
        "log-unfrozen",
        BROKEN_PROMISE,
        WRONG_SIGNATURE,
        _REFUSED,
    }
)


class NotEvidence(SignwatchError):
    """The document is no evidence file, or its signatures do not verify: it shows nothing."""


class Conclusion(Struct, frozen=True):
    """Conclusion from an evidence file. `transferable` if the log's key alone proves it; otherwise it is a record.

    `signed` means that the key in the file signed a part of it. The file itself cannot show the owner of the key.
    """

    transferable: bool
    sentences: tuple[str, ...]
    signed: bool = True


class CheckedEvidence(Struct, frozen=True):
    """An evidence file whose signatures verify under the key in it, and what they show."""

    evidence: Evidence
    conclusion: Conclusion

    @property
    def key_hash(self) -> str:
        """Hex SHA-256 of the key's SubjectPublicKeyInfo."""
        return sha256(self.evidence.spki).hexdigest()


def event_id(evidence: Evidence) -> str:
    """Stable id of the event, the same for every sighting."""
    parts = (evidence.log, evidence.kind, sha256(evidence.spki).hexdigest(), evidence.event)
    return sha256("\0".join(parts).encode()).hexdigest()[:32]


def to_document(evidence: Evidence) -> dict[str, Any]:
    """Plain JSON types for one evidence file; `from_document` reads it back."""
    document: dict[str, Any] = {
        "mediaType": MEDIA_TYPE,
        "version": VERSION,
        "id": event_id(evidence),
        "log": evidence.log,
        "api": evidence.api,
        "kind": evidence.kind,
        "detail": evidence.detail,
        "event": evidence.event,
        "key": {"name": evidence.key_name, "spki": as_base64(evidence.spki)},
        "trustRoot": evidence.trust_root,
        "heads": [as_base64(head) for head in evidence.heads],
        "sizes": list(evidence.sizes),
        "proof": [as_base64(node) for node in evidence.proof],
        "secondProof": [as_base64(node) for node in evidence.second_proof],
        "prefix": [as_base64(node) for node in evidence.prefix],
        "leaves": [{"index": index, "leaf": as_base64(leaf)} for index, leaf in evidence.leaves],
        "promises": [
            {"kind": each.kind, "statement": as_base64(each.statement), "signature": as_base64(each.signature)}
            for each in evidence.promises
        ],
    }
    try:
        conclusion = conclude(evidence)
    except NotEvidence as error:
        # Evidence is kept even if no conclusion follows from it.
        conclusion = Conclusion(False, (f"Record only: {evidence.detail}", f"Its heads show nothing: {error}"))
    document["strength"] = "transferable" if conclusion.transferable else "record"
    document["shows"] = list(conclusion.sentences)
    return document


def from_document(document: Any) -> Evidence:
    """Read the output of `to_document`, without verification. Raises `NotEvidence`."""
    try:
        if document["mediaType"] != MEDIA_TYPE or document["version"] != VERSION:
            raise NotEvidence(f"not version {VERSION} of {MEDIA_TYPE}")
        return Evidence(
            log=as_text(document["log"]),
            api=LogApi(document["api"]).value,
            kind=as_text(document["kind"]),
            detail=as_text(document["detail"]),
            event=as_text(document["event"]),
            spki=from_base64(document["key"]["spki"]),
            key_name=as_text(document["key"]["name"]),
            trust_root=as_text(document["trustRoot"]),
            heads=tuple(from_base64(head) for head in document["heads"]),
            sizes=tuple(int(size) for size in document["sizes"]),
            proof=tuple(from_base64(node) for node in document["proof"]),
            second_proof=tuple(from_base64(node) for node in document.get("secondProof", ())),
            prefix=tuple(from_base64(node) for node in document["prefix"]),
            leaves=tuple((int(leaf["index"]), from_base64(leaf["leaf"])) for leaf in document["leaves"]),
            promises=tuple(
                PromiseStatement(as_text(each["kind"]), from_base64(each["statement"]), from_base64(each["signature"]))
                for each in document.get("promises", ())
            ),
        )
    except (KeyError, TypeError, ValueError, binascii.Error, IndexError) as error:
        raise NotEvidence(f"the evidence file lacks or garbles a field: {error}") from error


def check_evidence(raw: bytes) -> CheckedEvidence:
    """Check an evidence file by itself: read it, verify every signature in it, and draw the conclusion.

    Does not check that the key in it belongs to the named log: any person can sign with a key of their own. Compare
    `CheckedEvidence.evidence.spki` with a trust root (`TrustRoot.signer`). Raises `NotEvidence`.
    """
    if len(raw) > MAX_SIZE:
        raise NotEvidence(f"an evidence file of {len(raw)} bytes is longer than {MAX_SIZE}")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise NotEvidence("not a JSON document") from error
    evidence = from_document(document)
    if document.get("id") != event_id(evidence):
        raise NotEvidence("the id does not belong to the event in the file")
    return CheckedEvidence(evidence, conclude(evidence))


def conclude(evidence: Evidence) -> Conclusion:
    """The conclusion from the signatures, sizes and hashes in `evidence` alone. Raises `NotEvidence`."""
    if evidence.kind not in KINDS:
        raise NotEvidence(f"{evidence.kind!r:.60} is no kind of evidence")
    if evidence.kind == _REFUSED:
        told = "A tree head was served that the log's key did not sign as this log's head."
        return Conclusion(False, (f"Record only: {told}",), signed=False)
    statements = [_read_own_head(evidence, raw) for raw in evidence.heads]
    key = sha256(evidence.spki).hexdigest()
    sentences = [
        f"The key with SHA-256 {key} signed size {s.size}, root {s.root.hex()} for {s.origin}." for s in statements
    ]
    if len({s.origin for s in statements}) > 1:
        raise NotEvidence("the heads are of different logs: they cannot contradict each other")
    promises = [_read_own_promise(evidence, each) for each in evidence.promises]
    sentences += [f"It promised {_promised(each)}." for each in promises]
    if not statements and not promises:
        if evidence.kind not in _MAY_BE_UNSIGNED:
            raise NotEvidence("the log signed no part of the file")
        return Conclusion(False, (f"Record only: {evidence.detail}",), signed=False)
    if evidence.kind == BROKEN_PROMISE:
        return _conclude_promise(evidence, statements, promises, sentences)
    if evidence.kind == WRONG_SIGNATURE:
        sentences.append(_wrong_signature(evidence))
    contradiction = _contradiction(statements, evidence) if len(statements) == 2 else None  # noqa: PLR2004  a pair
    if contradiction:
        return Conclusion(True, (*sentences, contradiction))
    sentences.append("Record only: " + evidence.detail)
    return Conclusion(False, tuple(sentences))


def _wrong_signature(evidence: Evidence) -> str:
    """Decode the entry in the file and check its own signature again. Raises `NotEvidence` unless it is wrong."""
    if len(evidence.leaves) != 1:
        raise NotEvidence("the file does not hold the one entry it is about")
    # They read and verify entries of every kind: other evidence is about heads.
    from sigstore_entries.entry import decode_rekor  # noqa: PLC0415
    from sigstore_entries.signatures import has_wrong_signature  # noqa: PLC0415

    ((index, leaf),) = evidence.leaves
    read = decode_rekor(leaf, EntryRef(evidence.log, index))
    if isinstance(read, Unreadable) or not has_wrong_signature(leaf, read):
        raise NotEvidence("the signature in the entry is not one that fails under the entry's key")
    return f"The signature in entry {index} was not made by the key or certificate in it, so no log should take it."


def _contradiction(statements: list[HeadStatement], evidence: Evidence) -> str | None:
    first, second = sorted(statements, key=lambda s: s.size)
    if first.size == second.size:
        return f"One size, two roots: size {first.size} has only one." if first.root != second.root else None
    for frozen, other in ((first, second), (second, first)):
        if frozen.frozen and other.size > frozen.size:
            return f"The log declared itself final at size {frozen.size} and signed size {other.size}."
    shown = _shown_prefix(first, second, evidence)
    if shown is not None and shown != first.root:
        return (
            f"The tree of size {second.size} begins with {first.size} leaves whose root is {shown.hex()}, which the "
            f"proof leads up to its signed root; the log signed root {first.root.hex()} for that size."
        )
    return _node_contradiction(statements, evidence)


def _node_contradiction(statements: list[HeadStatement], evidence: Evidence) -> str | None:
    """Two hashes for one full subtree, each led up to a root the log signed."""
    try:
        known, seen = _first_nodes(statements[0], evidence), _second_nodes(statements[1], evidence)
    except (ProofInvalid, MalformedFrontier, IndexError):
        return None
    places = conflicts(known, seen)
    if not places:
        return None
    level, index = places[-1]
    return (
        f"A full subtree never changes, but entries {index << level} to {((index + 1) << level) - 1} hash to "
        f"{known[level, index].hex()} in the tree of size {statements[0].size} and to {seen[level, index].hex()} in "
        f"the tree of size {statements[1].size}; the proofs lead both up to their signed roots."
    )


def _first_nodes(head: HeadStatement, evidence: Evidence) -> dict[Coordinate, NodeHash]:
    if evidence.prefix:
        frontier = Frontier(evidence.sizes[0], evidence.prefix)
        verify_consistency(frontier.size, head.size, evidence.proof, frontier.root(), head.root)
        return frontier_nodes(frontier)
    index, leaf = evidence.leaves[0]
    return full_subtrees(index, head.size, leaf_hash(leaf), evidence.proof, head.root)


def _second_nodes(head: HeadStatement, evidence: Evidence) -> dict[Coordinate, NodeHash]:
    index, leaf = evidence.leaves[-1]
    return full_subtrees(index, head.size, leaf_hash(leaf), evidence.second_proof, head.root)


def _shown_prefix(first: HeadStatement, second: HeadStatement, evidence: Evidence) -> RootHash | None:
    """Root of the second tree's first leaves, as far as the hashes in the file prove it."""
    try:
        if evidence.prefix:
            frontier = Frontier(first.size, evidence.prefix)
            verify_consistency(first.size, second.size, evidence.proof, frontier.root(), second.root)
            return frontier.root()
        return prefix_root(first.size, second.size, evidence.proof, second.root)
    except (ProofInvalid, MalformedFrontier):
        return None


def _conclude_promise(
    evidence: Evidence, statements: list[HeadStatement], promises: list[InclusionPromise], sentences: list[str]
) -> Conclusion:
    """Conclusion from a promise, the log's head, and the leaf at the promised index. Every signature must verify."""
    if not promises or evidence.event != promises[0].id:
        raise NotEvidence("the file does not hold the promise it is about")
    if len(statements) > 1 or evidence.sizes != tuple(s.size for s in statements):
        raise NotEvidence("the sizes are not those of the heads")
    shown = _shown_leaf(evidence, statements, promises[0])
    _check_second(promises, shown)
    contradiction = _promise_contradiction(promises, shown)
    if contradiction:
        return Conclusion(True, (*sentences, contradiction))
    if shown is not None:
        sentences.append(
            f"At index {shown[0]} of that tree stands another entry. It is the promised place if this tree begins at "
            f"index {(promises[0].index or 0) - shown[0]} of the log, which no log signs."
        )
    sentences.append("Record only: " + evidence.detail)
    return Conclusion(False, tuple(sentences))


def _check_second(promises: list[InclusionPromise], shown: tuple[int, bytes] | None) -> None:
    """Check that a second promise is for another entry: the shown entry, or an entry with the same promised index."""
    promised, *more = promises
    if len(more) > 1 or any(each.leaf == promised.leaf for each in more):
        raise NotEvidence("the file holds more promises than the one that was broken and the one that breaks it")
    for each in more:
        if shown is None and each.index != promised.index:
            raise NotEvidence("the second promise contradicts nothing")
        if shown is not None and each.leaf != shown[1]:
            raise NotEvidence("the second promise is not of the entry that is shown")


def _promise_contradiction(promises: list[InclusionPromise], shown: tuple[int, bytes] | None) -> str | None:
    promised, *more = promises
    if more and more[0].index == promised.index and promised.index is not None and more[0].leaf != promised.leaf:
        return f"One index, two entries: both were promised index {promised.index}, which holds only one."
    if promised.kind is PromiseKind.SCT and shown is not None and shown[0] == promised.index:
        # A CT log has one tree, so the index names one leaf. Rekor's index counts through all trees of the log, and
        # the first index of a tree is not signed: the author of the file could have chosen it.
        return f"The signed tree holds another entry at index {promised.index}; the proof leads it up to the root."
    return None


def _shown_leaf(
    evidence: Evidence, statements: list[HeadStatement], promised: InclusionPromise
) -> tuple[int, bytes] | None:
    """Index and bytes of the leaf at the promised index, proven into the head."""
    if not evidence.leaves and not evidence.proof:
        return None
    try:
        ((index, leaf),), (head,) = evidence.leaves, statements
        verify_inclusion(index, head.size, leaf_hash(leaf), evidence.proof, head.root)
    except (ProofInvalid, ValueError) as error:
        raise NotEvidence(f"the proof in the file does not lead the entry up to the signed root: {error}") from error
    if leaf == promised.leaf:
        raise NotEvidence("the shown entry is the promised one: the promise was kept")
    return index, leaf


def _promised(promise: InclusionPromise) -> str:
    where = "" if promise.index is None else f" at index {promise.index}"
    return f"an entry with leaf hash {promise.leaf_hash.hex()}{where}, by its own time {rfc3339(promise.at)}"


def _read_own_promise(evidence: Evidence, signed: PromiseStatement) -> InclusionPromise:
    if signed.kind != LogApi(evidence.api).promise:
        raise NotEvidence(f"a log of this kind makes no promise of kind {signed.kind!r:.40}")
    try:
        return read_promise(signed, evidence.spki)
    except BadPromise as error:
        raise NotEvidence(f"a promise in the file does not verify: {error}") from error


def _read_own_head(evidence: Evidence, raw: bytes) -> HeadStatement:
    try:
        return read_head(raw, LogApi(evidence.api), evidence.key_name, evidence.spki)
    except ValueError as error:
        raise NotEvidence(f"a tree head in the file is not signed by the key in it: {error}") from error


def as_base64(raw: bytes) -> str:
    """Bytes as a file holds them."""
    return base64.b64encode(raw).decode()


def from_base64(text: Any) -> bytes:
    """Bytes from a file. Raises `ValueError`, `NotEvidence`."""
    return base64.b64decode(as_text(text), validate=True)


def as_text(value: Any) -> str:
    """A text from a file. Raises `NotEvidence`."""
    if not isinstance(value, str):
        raise NotEvidence(f"a text is wanted where {type(value).__name__} stands")
    return value

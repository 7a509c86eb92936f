"""What two installations send each other, as documents: signed heads either way, and verdicts on them back.

Reading is strict and capped, and verifies nothing: what a peer says is judged by `monitor.crosscheck.peers`.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import msgspec

from alerts.inert import inert_json
from monitor.crosscheck.peers import MAX_HEAD_SIZE, PeerState, Verdict
from monitor.http_fetcher import MIB
from monitor.model.errors import FetchFailed
from monitor.model.log_source import LogApi, LogIdentity, LogSource
from monitor.proof.evidence import to_document

MEDIA_TYPE: Final = "application/vnd.signwatch.checkpoints+json"
VERDICTS_TYPE: Final = "application/vnd.signwatch.verdicts+json"
VERSION: Final = 1
MAX_DOCUMENT: Final = MIB
MAX_CHECKPOINTS: Final = 64
# The rest of a document is for the heads.
_MAX_EVIDENCE: Final = MAX_DOCUMENT // 2
_MAX_TEXT: Final = 500


class NoPeer(FetchFailed):
    """The other side does not speak this: no document of checkpoints, or not one of this version."""


class _Checkpoint(msgspec.Struct):
    api: str
    origin: str
    key: str
    head: str
    log: str = ""
    evidence: dict[str, Any] | None = None


class _Document(msgspec.Struct):
    mediaType: str  # noqa: N815
    version: int
    checkpoints: list[_Checkpoint]


class Answer(msgspec.Struct):
    """What a peer says of one head: its word only, but evidence beside it can be checked."""

    relation: str
    detail: str = ""
    log: str = ""
    evidence: dict[str, Any] | None = None


class _Answers(msgspec.Struct):
    mediaType: str  # noqa: N815
    version: int
    verdicts: list[Answer]


@dataclass(frozen=True, slots=True)
class Offered:
    """One head as somebody offers it: of which log (protocol, origin, hex SHA-256 of the key's SPKI), and its bytes.

    `evidence` is a document that is said to show a contradiction of this log.
    """

    api: str
    origin: str
    key: str
    raw: bytes
    name: str = ""
    evidence: dict[str, Any] | None = None

    def is_of(self, identity: LogIdentity) -> bool:
        """Whether it claims to be of this very tree. Names differ between installations; keys and origins do not."""
        same_origin = identity.api is LogApi.CT_RFC6962 or self.origin == identity.origin
        return self.api == identity.api and self.key == fingerprint(identity) and same_origin


@dataclass(frozen=True, slots=True)
class Comparison:
    """One log put side by side. `theirs` is what we make of the peer's head, `ours` what the peer makes of ours.

    `ours` is the peer's word only. It is empty when the peer said nothing about this log.
    """

    log: str
    theirs: Verdict
    ours: str = ""


def fingerprint(identity: LogIdentity) -> str:
    """Hex SHA-256 of the log's key."""
    return sha256(identity.spki).hexdigest()


def latest_heads(
    state: PeerState, sources: Sequence[LogSource], shown: Mapping[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Document of the newest trusted head of every tree that is followed, as the log signed it.

    Beside a head stands evidence against its log, if any is kept that convinces everybody and there is room for it;
    `shown` has it already for some logs.
    """
    checkpoints, room = [], _MAX_EVIDENCE
    for identity in (source.identity for source in sources[:MAX_CHECKPOINTS]):
        position = state.position(identity.log)
        if position is None:
            continue
        head = position.head.head
        checkpoint: dict[str, Any] = {
            "log": identity.log,
            "api": identity.api.value,
            "origin": identity.origin,
            "key": fingerprint(identity),
            "size": head.size,
            "root": head.root.hex(),
            "head": base64.b64encode(head.raw).decode(),
        }
        evidence = (shown or {}).get(identity.log) or _kept_evidence(state, identity)
        size = len(json.dumps(evidence)) if evidence is not None else 0
        if evidence is not None and size <= room:
            checkpoint["evidence"], room = evidence, room - size
        checkpoints.append(checkpoint)
    return {"mediaType": MEDIA_TYPE, "version": VERSION, "checkpoints": checkpoints}


def _kept_evidence(state: PeerState, identity: LogIdentity) -> dict[str, Any] | None:
    """The newest evidence against this very tree that shows something to whoever does not trust us."""
    documents = (to_document(each) for each in state.evidence_of(identity.log) if each.spki == identity.spki)
    return next((each for each in documents if each["strength"] == "transferable"), None)


def read_offers(raw: bytes) -> list[Offered]:
    """Read a document of checkpoints. Raises `NoPeer`; nothing in it is verified yet."""
    if len(raw) > MAX_DOCUMENT:
        raise NoPeer(f"a document of {len(raw)} bytes is longer than {MAX_DOCUMENT}")
    try:
        document = msgspec.json.decode(raw, type=_Document)
        offers = [_offered(each) for each in document.checkpoints]
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise NoPeer(f"not a document of checkpoints: {error!s:.200}") from error
    if document.mediaType != MEDIA_TYPE or document.version != VERSION:
        raise NoPeer(f"not version {VERSION} of {MEDIA_TYPE}")
    if len(offers) > MAX_CHECKPOINTS:
        raise NoPeer(f"{len(offers)} checkpoints; at most {MAX_CHECKPOINTS} are compared at once")
    return offers


def _offered(each: _Checkpoint) -> Offered:
    if any(len(text) > _MAX_TEXT for text in (each.api, each.origin, each.key, each.log)):
        raise ValueError(f"a name in it is longer than {_MAX_TEXT} characters")
    if len(each.head) > MAX_HEAD_SIZE * 4 // 3 + 4:
        raise ValueError(f"a head in it is longer than {MAX_HEAD_SIZE} bytes")
    try:
        raw = base64.b64decode(each.head, validate=True)
    except binascii.Error as error:
        raise ValueError("a head in it is not base64") from error
    return Offered(each.api, each.origin, each.key, raw, each.log, each.evidence)


def verdicts_document(verdicts: Sequence[tuple[Offered, Verdict]]) -> dict[str, Any]:
    """One verdict for each head that was offered, in the same order."""
    told = [_told(offer, verdict) for offer, verdict in verdicts]
    return {"mediaType": VERDICTS_TYPE, "version": VERSION, "verdicts": told}


def _told(offer: Offered, verdict: Verdict) -> dict[str, Any]:
    told: dict[str, Any] = {"log": offer.name, "relation": verdict.relation.value, "detail": verdict.detail}
    told = dict(inert_json(told))
    if verdict.compared is not None:
        head = verdict.compared
        told["compared"] = {"size": head.size, "root": head.root.hex(), "head": base64.b64encode(head.raw).decode()}
    told["proof"] = [base64.b64encode(node).decode() for node in verdict.proof]
    if verdict.evidence is not None:
        told["evidence"] = to_document(verdict.evidence)
    return told


def read_answers(raw: bytes) -> list[Answer]:
    """Read what `verdicts_document` made. Raises `NoPeer`; all of it is the peer's word only."""
    try:
        answers = msgspec.json.decode(raw, type=_Answers)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise NoPeer(f"not a document of verdicts: {error!s:.200}") from error
    if (answers.mediaType, answers.version) != (VERDICTS_TYPE, VERSION):
        raise NoPeer(f"not version {VERSION} of {VERDICTS_TYPE}")
    return answers.verdicts


def comparison_document(peer: str, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Plain JSON types for scripts."""
    return {
        "peer": peer,
        "logs": [
            {
                "log": each.log,
                "relation": each.theirs.relation.value,
                "detail": each.theirs.detail,
                "peer_says": each.ours or None,
                "size": each.theirs.offered.size if each.theirs.offered else None,
                "compared_size": each.theirs.compared.size if each.theirs.compared else None,
                "proof": [base64.b64encode(node).decode() for node in each.theirs.proof],
            }
            for each in comparisons
        ],
    }

"""The three kinds of trouble: the log lied, the log did not answer, or Signwatch has a fault."""

from enum import StrEnum

from msgspec import Struct


class SignwatchError(Exception):
    """Root of every error this program raises on purpose."""


class FetchFailed(SignwatchError):
    """The log did not answer, or its answer was malformed: retry, and alert only if this lasts.

    A server's malformed reply belongs here as long as nothing it *signed* contradicts anything else it signed.
    `reason` is a short fixed word for metrics.
    """

    reason = "malformed"


class Lagging(FetchFailed):
    """The answering server has a smaller tree than the requested size. Another replica may have the size: ask again."""

    reason = "lagging"


class OwnFault(SignwatchError):
    """Signwatch has a fault: disk, database, configuration. The log is not to blame."""


class BadConfig(OwnFault):
    """The configuration cannot be used; the message names the place and the correct form."""


class StateConflict(OwnFault):
    """Another process moved the position first. This commit wrote no row; read the state again."""


class PastMoved(StateConflict):
    """Another log's pass changed the past by which findings were judged. This commit wrote no row; judge them again."""


class PromiseKind(StrEnum):
    """Kinds of promise that logs sign about an entry."""

    SET = "rekor-set"
    SCT = "ct-sct"


class PromiseStatement(Struct, frozen=True):
    """A log's promise to include an entry, as it signed it. `kind` is a `PromiseKind`.

    `statement` are the bytes under the signature: for a signed entry timestamp canonical JSON, for a signed certificate
    timestamp the CertificateTimestamp of RFC 6962 3.2, which is the promised leaf byte for byte.
    """

    kind: str
    statement: bytes
    signature: bytes


class Evidence(Struct, frozen=True):
    """The proof of a log's misbehaviour for a reader who trusts neither side.

    `heads` are raw signed tree heads (notes or STH JSON), `proof` the hashes that failed, `leaves` raw entries with
    their index. `spki` is the log key that signed the heads, `detail` a sentence for people. `prefix` is a frontier of
    `[0, sizes[0])` that was proven to lie in the tree of the last head. For two proofs with two hashes for one node,
    `second_proof` leads the last leaf up to the second head, and `proof` the first leaf, or else the frontier in
    `prefix`, up to the first. `promises` are the log's signed promises about entries, the broken one first. `event`
    names the event, so that a second sighting is not a second event: it holds no signature bytes, because logs sign
    the same head anew for every request.
    """

    log: str
    api: str
    kind: str
    detail: str
    spki: bytes
    key_name: str
    heads: tuple[bytes, ...]
    sizes: tuple[int, ...] = ()
    proof: tuple[bytes, ...] = ()
    leaves: tuple[tuple[int, bytes], ...] = ()
    trust_root: str = ""
    prefix: tuple[bytes, ...] = ()
    event: str = ""
    second_proof: tuple[bytes, ...] = ()
    promises: tuple[PromiseStatement, ...] = ()


class LogMisbehaved(SignwatchError):
    """The log broke a promise it signed: alert now, keep the evidence.

    `kind` is one of the documented alert kinds (`docs/alerts/`), e.g. `log-forked`.
    """

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(f"{evidence.log}: {evidence.detail}")
        self.evidence = evidence

    @property
    def kind(self) -> str:
        """The promise that was broken."""
        return self.evidence.kind


class NotShown(FetchFailed):
    """The log did not show a part of its own signed tree: a proof fails, or an entry is missing.

    No two signed statements contradict each other yet, and a lagging replica or a bad cache has the same effect: ask
    again. If it lasts for a bounded number of fresh answers, it is raised as `LogMisbehaved` with this evidence.
    """

    reason = "not-shown"

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(f"{evidence.log}: {evidence.detail}")
        self.evidence = evidence


class MalformedEntries(NotShown):
    """Entries came in a file of the wrong length or form: the cause may be a bad cache, or a log that hides entries.

    It counts as a missing entry of the log only if it lasts for minutes (`monitor.following.follower`).
    """

    reason = FetchFailed.reason

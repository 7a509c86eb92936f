"""The three kinds of trouble, kept apart everywhere: the log lied, we could not ask, or we are ill."""

from dataclasses import dataclass


class SignwatchError(Exception):
    """Root of every error this program raises on purpose."""


class FetchFailed(SignwatchError):
    """We could not ask, or the answer was no answer: retry, and alert only when it stays so.

    A server's malformed reply belongs here as long as nothing it *signed* contradicts anything else it signed.
    `reason` is a short fixed word for metrics.
    """

    reason = "malformed"


class Lagging(FetchFailed):
    """The server that answered has not reached the size asked about. Another replica may have: ask again."""

    reason = "lagging"


class OwnFault(SignwatchError):
    """We are ill: disk, database, configuration. The log is not to blame."""


class BadConfig(OwnFault):
    """The configuration cannot be used; the message says where and what would be right."""


class StateConflict(OwnFault):
    """Another process moved the position first. Nothing was written; read the state again."""


class PastMoved(StateConflict):
    """Another log's pass changed the past that findings were judged by. Nothing was written; judge them again."""


@dataclass(frozen=True, slots=True)
class SignedPromise:
    """A log's promise to include an entry, as it signed it. `kind` is a `monitor.model.inclusion_promise.PromiseKind`.

    `statement` are the bytes under the signature: for a signed entry timestamp canonical JSON, for a signed certificate
    timestamp the CertificateTimestamp of RFC 6962 3.2, which is the promised leaf byte for byte.
    """

    kind: str
    statement: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything needed to show a log's misbehaviour to a reader who trusts neither side.

    `heads` are raw signed tree heads (notes or STH JSON), `proof` the hashes that failed, `leaves` raw entries with
    their index. `spki` is the log key that signed the heads, `detail` a sentence for people. `prefix` is a frontier of
    `[0, sizes[0])` that was proven to lie in the tree of the last head. Where two proofs give two hashes for one place,
    `second_proof` leads the last leaf up to the second head, and `proof` the first leaf, or else the frontier in
    `prefix`, up to the first. `promises` are what the log signed about entries beside its heads: the one that was
    broken first. `event` names what happened so that seeing it again is no second event: it holds no signature bytes,
    because logs sign the same head anew for every request.
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
    promises: tuple[SignedPromise, ...] = ()


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
    """The log did not show what its own signed head promises: a proof that fails, an entry that is not there.

    No two signed statements contradict each other yet, and a lagging replica or a bad cache looks the same: ask again.
    What stays so after a bounded number of fresh answers is raised as `LogMisbehaved` with this evidence.
    """

    reason = "not-shown"

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(f"{evidence.log}: {evidence.detail}")
        self.evidence = evidence


class MalformedEntries(NotShown):
    """Entries came in a file of the wrong length or shape: a bad cache as likely as a log that keeps them from us.

    Held against the log as a missing entry only when it has stayed so for minutes (`monitor.following.follower`).
    """

    reason = FetchFailed.reason

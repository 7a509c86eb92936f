"""Small values that the tests of the store share."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256

from alerts.alert import Alert
from monitor.model.errors import Evidence
from monitor.model.log_source import Position, SignedHead, TrustedHead
from monitor.model.state import Batch, Finding, UnreadableEntry
from monitor.store.database import Database
from monitor.store.store import Store
from rules.rule import Outcome, Reason, Verdict
from sigstore_entries.signing import (
    ChainTrust,
    Digest,
    EntryRef,
    Name,
    NameForm,
    Signer,
    SignerForm,
    Signing,
    Unreadable,
)
from tests.rules.signings import everyone
from tests.support.alerts import NOW, an_alert
from tlog.merkle import Frontier, RootHash, leaf_hash

LOG = "rekor-v2"
DIGEST = "ab" * 32


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


def a_store(database: Database, channels: Sequence[str] = ("mail", "hook"), clock: Clock | None = None) -> Store:
    return Store(database, clock=clock or Clock(), route=lambda _alert: channels)


def a_position(size: int, head: int | None = None, log: str = LOG) -> Position:
    """A position whose head is of the same size unless said otherwise."""
    frontier = Frontier().extended(leaf_hash(str(index).encode()) for index in range(size))
    at = size if head is None else head
    root = Frontier().extended(leaf_hash(str(index).encode()) for index in range(at)).root()
    return Position(log, frontier, TrustedHead(a_head(at, root, log)))


def a_head(size: int, root: bytes | None = None, log: str = LOG, *, final: bool = False) -> SignedHead:
    return SignedHead(log, size, RootHash(root or bytes([size]) * 32), f"note {size}".encode(), NOW, final)


def a_signing(
    index: int,
    *,
    log: str = LOG,
    kind: str = "hashedrekord",
    identity: str = "release@acme.example",
    issuer: str = "https://accounts.example",
    trust: ChainTrust = ChainTrust.TRUSTED,
    repository: str | None = None,
    issued: bytes | None = None,
) -> Signing:
    claims = {} if repository is None else {"source_repository_uri": repository, "source_repository_identifier": "17"}
    signer = Signer(
        SignerForm.CERTIFICATE,
        (Name(NameForm.EMAIL, identity),),
        issuer,
        claims,
        fingerprints=("f0" * 32,),
        not_before=NOW,
        trust=trust,
        issued=(issued or sha256(f"{log} {index}".encode()).digest()) if trust is ChainTrust.TRUSTED else None,
    )
    return Signing(EntryRef(log, index), kind, "0.0.1", (signer,), (Digest("sha256", DIGEST),))


def a_finding(index: int, rule: str = "acme-release", signing: Signing | None = None) -> Finding:
    reasons = (Reason("ref", "The ref is not one the rule lists.", "refs/tags/v*", "refs/heads/x"),)
    return Finding(rule, everyone(signing or a_signing(index)), Verdict(Outcome.UNEXPECTED, reasons), b"leaf")


def a_batch(start: int, end: int, findings: Sequence[Finding] = (), unreadable: Sequence[int] = ()) -> Batch:
    entries = tuple(
        UnreadableEntry(Unreadable(EntryRef(LOG, index), "malformed-json", "no JSON"), b"garbage")
        for index in unreadable
    )
    return Batch(LOG, start, end, tuple(findings), entries, {"hashedrekord": end - start})


def alert_for(index: int) -> Alert:
    return an_alert(index)


def some_evidence(event: str = "size 3") -> Evidence:
    return Evidence(LOG, "rekor-v2", "log-head-refused", "not its own", b"key", "log.example", (b"raw",), event=event)

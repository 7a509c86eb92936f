"""Every trust root, in order: the times at which logs came and went, and the changes of each root.

URL and key id together identify a log: a new key at an old address is another log. An old key at a new address is
another log as well, unless the same root removes the old address: then the log moved, and stays the same log.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from msgspec import Struct
from msgspec.structs import replace

from alerts.alert import rfc3339
from monitor.model.log_source import LogApi
from monitor.trust.trust_root import TrustedLog, TrustRoot
from sigstore_entries.trust import CertificateAuthority


class RecordedRoot(Struct, frozen=True):
    """A trust root, and the time at which it was first seen."""

    root: TrustRoot
    at: datetime


class KnownLog(Struct, frozen=True):
    """A log that some root named, with the times at which it appeared and went.

    `since` is `None` when the first root had it. `log.valid_until` is the earlier of its end in the last root that
    named it and `gone_at`. `former` is the log at each earlier URL, oldest first, valid until it moved.
    """

    log: TrustedLog
    since: datetime | None = None
    gone_at: datetime | None = None
    former: tuple[TrustedLog, ...] = ()

    @property
    def key(self) -> tuple[str, bytes]:
        """Identity of the log: its URL and key id."""
        return self.log.url, self.log.log_id

    @property
    def first(self) -> TrustedLog:
        """The log at its first address, which determines its name."""
        return (*self.former, self.log)[0]


class TrustChangeKind(StrEnum):
    """Kinds of change between two roots."""

    LOG_APPEARED = "log appeared"
    LOG_GONE = "log gone"
    LOG_MOVED = "log moved"
    KEY_CHANGED = "another key at a known address"
    LOG_PERIOD = "log's time changed"
    AUTHORITY_APPEARED = "authority appeared"
    AUTHORITY_GONE = "authority gone"
    AUTHORITY_PERIOD = "authority's time changed"


class Change(Struct, frozen=True):
    """One difference between two roots. `subject` is a log's URL or an authority's name; `key` a hex id or digest."""

    kind: TrustChangeKind
    subject: str
    key: str
    detail: str = ""
    log: TrustedLog | None = None


class TrustHistory(Struct, frozen=True):
    """Roots, oldest first. Empty without a recorded root."""

    roots: tuple[RecordedRoot, ...] = ()

    def followed_by(self, root: TrustRoot, at: datetime) -> "TrustHistory":
        """The history with one more root, unless the newest root is equal."""
        if self.roots and self.roots[-1].root.fingerprint == root.fingerprint:
            return self
        return TrustHistory((*self.roots, RecordedRoot(root, at)))

    def logs(self) -> list[KnownLog]:
        """Every log of any root, in the order of appearance; logs of one root in the order of its file."""
        known: dict[tuple[str, bytes], KnownLog] = {}
        before_it: Sequence[TrustedLog] = ()
        for number, recorded in enumerate(self.roots):
            for old, log in moves(before_it, recorded.root.logs, known):
                known = _moved(known, old, log, recorded.at)
            before_it = recorded.root.logs
            present = {(log.url, log.log_id) for log in recorded.root.logs}
            for key, gone in known.items():
                if key not in present and gone.gone_at is None:
                    known[key] = _gone(gone, recorded.at)
            for log in recorded.root.logs:
                before = known.get((log.url, log.log_id))
                since = before.since if before is not None else (recorded.at if number else None)
                former = before.former if before is not None else ()
                known[log.url, log.log_id] = KnownLog(log, since, former=former)
        return list(known.values())

    def followable(self) -> TrustRoot:
        """Newest root together with earlier logs, whose entries must still be read to the end.

        A log that moved is also listed at its old address, because a configuration may still use that.
        """
        newest, every = self.roots[-1].root, self.logs()
        gone = [known.log for known in every if known.gone_at is not None]
        named = {(log.url, log.log_id) for log in (*newest.logs, *gone)}
        left = {(log.url, log.log_id): log for known in every for log in known.former}
        return replace(newest, logs=(*newest.logs, *gone, *(log for key, log in left.items() if key not in named)))

    def first_key(self, url: str, api: LogApi | None) -> bytes | None:
        """Key id of the first log at this URL, if that root had exactly one."""
        for recorded in self.roots:
            found = [
                log for log in recorded.root.logs if log.url == url.rstrip("/") and (api is None or api in log.apis)
            ]
            if found:
                return found[0].log_id if len(found) == 1 else None
        return None


def moves(
    old: Sequence[TrustedLog], new: Sequence[TrustedLog], known: Collection[tuple[str, bytes]] = ()
) -> list[tuple[TrustedLog, TrustedLog]]:
    """Logs with another address in `new`: a key id had exactly one URL and now has exactly one other URL.

    A pair of URL and key id in `known` (every log so far) is no move, because such a log has a state of its own.
    """
    before, after = _by_key_id(old), _by_key_id(new)
    return [
        (before[key_id][0], after[key_id][0])
        for key_id in before
        if len(before[key_id]) == len(after.get(key_id, ())) == 1
        and before[key_id][0].url != after[key_id][0].url
        and before[key_id][0].spki == after[key_id][0].spki
        and (after[key_id][0].url, key_id) not in known
    ]


def _by_key_id(logs: Sequence[TrustedLog]) -> dict[bytes, list[TrustedLog]]:
    found: dict[bytes, list[TrustedLog]] = {}
    for log in logs:
        found.setdefault(log.log_id, []).append(log)
    return found


def _moved(
    known: dict[tuple[str, bytes], KnownLog], old: TrustedLog, log: TrustedLog, at: datetime
) -> dict[tuple[str, bytes], KnownLog]:
    """The known logs, with one of them at its new URL; it keeps its place in the order."""
    was, now = (old.url, old.log_id), (log.url, log.log_id)
    before = known[was]
    left = (*before.former, _gone(before, at).log)
    moved = KnownLog(log, before.since, former=left)
    return {(now if key == was else key): (moved if key == was else each) for key, each in known.items()}


def changes(old: TrustRoot, new: TrustRoot, known: Collection[tuple[str, bytes]] = ()) -> list[Change]:
    """Changes from `old` to `new`, logs first. A different file with the same content changes nothing.

    `known` are the keys of every log so far, see `moves`.
    """
    return [
        *_log_changes(old.logs, new.logs, known),
        *_authority_changes("", old.authorities, new.authorities),
        *_authority_changes("timestamp ", old.timestamp_authorities, new.timestamp_authorities),
    ]


def _log_changes(
    old: Sequence[TrustedLog], new: Sequence[TrustedLog], known: Collection[tuple[str, bytes]]
) -> Iterator[Change]:
    before = {(log.url, log.log_id): log for log in old}
    after = {(log.url, log.log_id): log for log in new}
    addresses = {log.url for log in old}
    for was, log in moves(old, new, known):
        del before[was.url, was.log_id], after[log.url, log.log_id]
        detail = f"was at {was.url}; valid {_period(log)}"
        yield Change(TrustChangeKind.LOG_MOVED, log.url, log.log_id.hex(), detail, log)
    for key, log in after.items():
        if key not in before:
            kind = TrustChangeKind.KEY_CHANGED if log.url in addresses else TrustChangeKind.LOG_APPEARED
            yield Change(kind, log.url, log.log_id.hex(), f"valid {_period(log)}", log)
        elif before[key].spki != log.spki:
            yield Change(
                TrustChangeKind.KEY_CHANGED, log.url, log.log_id.hex(), "the same key id names another key", log
            )
        elif _period(before[key]) != _period(log):
            detail = f"valid {_period(log)}; before: {_period(before[key])}"
            yield Change(TrustChangeKind.LOG_PERIOD, log.url, log.log_id.hex(), detail, log)
    for key, log in before.items():
        if key not in after:
            yield Change(TrustChangeKind.LOG_GONE, log.url, log.log_id.hex(), f"was valid {_period(log)}", log)


def _authority_changes(
    sort: str, old: Sequence[CertificateAuthority], new: Sequence[CertificateAuthority]
) -> Iterator[Change]:
    before, after = {each.chain: each for each in old}, {each.chain: each for each in new}
    for chain, each in after.items():
        was = before.get(chain)
        if was is None:
            yield _authority(TrustChangeKind.AUTHORITY_APPEARED, sort, each, f"valid {_period(each)}")
        elif _period(was) != _period(each):
            detail = f"valid {_period(each)}; before: {_period(was)}"
            yield _authority(TrustChangeKind.AUTHORITY_PERIOD, sort, each, detail)
    for chain, each in before.items():
        if chain not in after:
            yield _authority(TrustChangeKind.AUTHORITY_GONE, sort, each, f"was valid {_period(each)}")


def _authority(kind: TrustChangeKind, sort: str, each: CertificateAuthority, detail: str) -> Change:
    return Change(kind, f"{sort}authority {each.name}", sha256(b"".join(each.chain)).hexdigest(), detail)


def _gone(known: KnownLog, at: datetime) -> KnownLog:
    until = at if known.log.valid_until is None else min(at, known.log.valid_until)
    return replace(known, log=replace(known.log, valid_until=until), gone_at=at)


def _period(of: TrustedLog | CertificateAuthority) -> str:
    start = rfc3339(of.valid_from) if of.valid_from else "the beginning"
    return f"from {start}" + (f" until {rfc3339(of.valid_until)}" if of.valid_until else "")

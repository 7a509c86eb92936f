"""An answer of a search: entries as archived, and the exact coverage."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from msgspec import Struct, field

from alerts.alert import counted, rfc3339
from monitor.archive.query import ALGORITHMS
from monitor.archive.rows import Chain


class ArchiveRow(Struct, frozen=True):
    """One entry as archived. Texts are untrusted: render them inert. Digests and fingerprints are hexadecimal.

    `chains` has one value for each signer. `signers` holds the columns of each of several signers, else empty.
    """

    log: str
    index: int
    time: datetime | None
    time_source: str | None
    not_before: datetime | None
    kind: str
    identities: tuple[str, ...]
    issuers: tuple[str, ...]
    repositories: tuple[str, ...]
    workflows: tuple[str, ...]
    refs: tuple[str, ...]
    triggers: tuple[str, ...]
    repository_ids: tuple[str, ...]
    owner_ids: tuple[str, ...]
    runners: tuple[str, ...]
    fingerprints: tuple[str, ...]
    digests: tuple[str, ...]
    chains: tuple[Chain, ...]
    signers: tuple[Mapping[str, tuple[str, ...]], ...]
    trust_root: str | None
    defect: str | None
    leaf_hash: str

    def document(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "log": self.log,
            "index": self.index,
            "time": None if self.time is None else rfc3339(self.time),
            "time_source": self.time_source,
            "not_before": None if self.not_before is None else rfc3339(self.not_before),
            "kind": self.kind,
            "identities": list(self.identities),
            "issuers": list(self.issuers),
            "repositories": list(self.repositories),
            "workflows": list(self.workflows),
            "refs": list(self.refs),
            "triggers": list(self.triggers),
            "repository_ids": list(self.repository_ids),
            "owner_ids": list(self.owner_ids),
            "runners": list(self.runners),
            "fingerprints": list(self.fingerprints),
            "digests": list(self.digests),
            "chains": [each.value for each in self.chains],
            "signers": [{name: list(values) for name, values in each.items()} for each in self.signers],
            "trust_root": self.trust_root,
            "defect": self.defect,
            "leaf_hash": self.leaf_hash,
        }


class LogSearchCoverage(Struct, frozen=True):
    """An answer's coverage of one log: `spans` of entries, of the `size` that the newest archived head signs.

    `damaged` are ranges that could not be read, with the reason. `unreadable` and `defective` count entries in the
    spans that could not be decoded at all, or in part: their unread values cannot match. `unsearched` are older ranges
    that were left out because the search would have read too much or taken too long.
    """

    log: str
    spans: tuple[tuple[int, int], ...]
    size: int
    signed_at: datetime | None
    damaged: tuple[tuple[int, int, str], ...] = ()
    unreadable: int = 0
    defective: int = 0
    unsearched: tuple[tuple[int, int], ...] = ()

    @property
    def complete(self) -> bool:
        """True if every entry below the head was searched."""
        return self.spans == ((0, self.size),) and not self.damaged and not self.unsearched

    def sentence(self) -> str:
        """The coverage as a sentence."""
        head = "" if self.signed_at is None else f" (signed head of {rfc3339(self.signed_at)})"
        if self.complete:
            said = (
                f"complete for {self.log}, entries 0 to {self.size - 1}{head}" if self.size else f"{self.log} is empty"
            )
        else:
            spans = ", ".join(f"{first} to {last - 1}" for first, last in self.spans) or "none"
            said = f"{self.log}: entries {spans} of {self.size}{head}"
        if self.unreadable or self.defective:
            said += f"; not read: {counted(self.unreadable, 'entry')}, read only in part: {self.defective}"
        for first, last in self.unsearched:
            said += f"; {first} to {last - 1} were not searched: too many values fit, or the time ran out. "
            said += "Name more, or a shorter time"
        return said + "".join(f"; not {first} to {last - 1}: {why}" for first, last, why in self.damaged)


class SearchCoverage(Struct, frozen=True):
    """An answer's coverage: archived logs, and followed logs without any archived entry.

    `unread` are logs that were left out because their manifest cannot be read, with the reason.
    """

    logs: tuple[LogSearchCoverage, ...]
    missing: tuple[str, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()

    @property
    def complete(self) -> bool:
        """True if every entry of every log was searched; false without a log."""
        whole = bool(self.logs) and all(each.complete for each in self.logs)
        return whole and not self.missing and not self.unread

    def sentences(self) -> list[str]:
        """The coverage as sentences, one for each log."""
        return [
            *(each.sentence() for each in self.logs),
            *(f"not covered: {log}" for log in self.missing),
            *(f"not covered: {log}: {why}" for log, why in self.unread),
        ]

    def document(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "complete": self.complete,
            "logs": [
                {
                    "log": each.log,
                    "spans": [list(span) for span in each.spans],
                    "size": each.size,
                    "signed_at": None if each.signed_at is None else each.signed_at.isoformat(),
                    "damaged": [{"from": first, "to": last, "reason": why} for first, last, why in each.damaged],
                    "unreadable": each.unreadable,
                    "defective": each.defective,
                    "unsearched": [list(span) for span in each.unsearched],
                }
                for each in self.logs
            ],
            "not_covered": sorted([*self.missing, *(log for log, _ in self.unread)]),
            "unread": [{"log": log, "reason": why} for log, why in self.unread],
        }


class SearchAnswer(Struct, frozen=True):
    """The newest `rows` of `total` entries that match, and the search's coverage. `per_day` counts all, if requested.

    `timeless` counts the entries without a time, which `per_day` leaves out.
    """

    rows: tuple[ArchiveRow, ...]
    total: int
    coverage: SearchCoverage
    per_day: Mapping[date, int] = field(default_factory=dict)
    timeless: int = 0

    @property
    def cut(self) -> int:
        """Number of entries that match and are not among `rows`."""
        return self.total - len(self.rows)


def row_of(each: Mapping[str, Any]) -> ArchiveRow:
    """Make a `ArchiveRow` of one row of the Parquet file."""
    digests = tuple(f"{ALGORITHMS.get(2 * len(raw), 'unknown')}:{raw.hex()}" for raw in each["digests"])
    return ArchiveRow(
        each["log"],
        each["index"],
        None if each["time"] is None else each["time"].astimezone(UTC),
        each["time_source"],
        None if each["not_before"] is None else each["not_before"].astimezone(UTC),
        each["kind"],
        tuple(each["identities"]),
        tuple(each["issuers"]),
        tuple(each["repositories"]),
        tuple(each["workflows"]),
        tuple(each["refs"]),
        tuple(each["triggers"]),
        tuple(each["repository_ids"]),
        tuple(each["owner_ids"]),
        tuple(each["runners"]),
        tuple(raw.hex() for raw in each["fingerprints"]),
        digests,
        tuple(map(Chain, each["chains"])),
        tuple(map(_signer, each["signers"] or ())),
        each["trust_root"],
        each["defect"],
        each["leaf_hash"].hex(),
    )


def _signer(each: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Columns of one of several signers."""
    return {
        name: tuple(value.hex() if isinstance(value, bytes) else value for value in values)
        for name, values in each.items()
    }

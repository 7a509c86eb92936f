"""All durable state behind one object: `monitor.model.state.State`, the outbox and the facts."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace
from sqlalchemy import Connection, and_, select
from typing_extensions import override

from alerts.alert import Alert
from monitor.model.errors import Evidence, OwnFault
from monitor.model.inclusion_promise import BadPromise, InclusionPromise, read_promise
from monitor.model.log_source import Position, SignedHead
from monitor.model.state import Batch, Finding, State
from monitor.proof.evidence import BROKEN_PROMISE, event_id, to_document
from monitor.raising.log_alerts import heads_of, with_sightings
from monitor.store.canaries import Canaries
from monitor.store.certificates import ANSWERED, EventDispatcher, settle, withdraw
from monitor.store.coverage import BackScans, Coverage, extend
from monitor.store.database import Database
from monitor.store.facts import DatabaseFacts, ListedDigests
from monitor.store.findings import (
    DueFinding,
    add_findings,
    add_rechecks,
    add_unreadable,
    claim_past,
    known_findings,
    rest,
    settle_recheck,
    vouched_for,
    wake,
)
from monitor.store.health import Health, RuleLoad, WitnessStatuses, add_dropped
from monitor.store.history import (
    KeptRoot,
    add_root,
    append_head,
    first_position,
    first_seen,
    heads_at,
    kept_roots,
    move_position,
    read_position,
)
from monitor.store.outbox import DatabaseOutbox, QueuedAlert, new_alerts, put
from monitor.store.promises import Promises, add_promises
from monitor.store.sql import add_new, change_sealed, table
from monitor.store.tables import AlertRow, EvidenceRow, LogPosition

_EVIDENCE_SHOWN: Final = 8
Route = Callable[[Alert], Sequence[str]]


class Store(State):
    """State of the monitor in the database. `route` names the channels of an alert.

    An alert for a certificate waits for `certificate_hold`, because the entry made with the certificate is the same
    event.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime],
        route: Route,
        certificate_hold: timedelta = timedelta(0),
        digests: ListedDigests = lambda _source: None,
    ) -> None:
        self.database = database
        self.outbox = DatabaseOutbox(database)
        self.facts = DatabaseFacts(database, clock, digests)
        self.coverage = Coverage(database)
        self.back_scans = BackScans(database)
        self.rule_load = RuleLoad(database)
        self.health = Health(database)
        self.witnesses = WitnessStatuses(database)
        self.promises = Promises(database)
        self.canaries = Canaries(database)
        self.certificate_hold = certificate_hold
        self._clock, self._route = clock, route

    @override
    def position(self, log: str) -> Position | None:
        with self.database.read() as connection:
            return read_position(connection, log)

    def is_followed(self, name: str) -> bool:
        """True if a log of this configured name, or a tree of it, has a position."""
        at = table(LogPosition).c.log
        with self.database.read() as connection:
            found = connection.execute(select(at)).scalars()
            return any(log == name or log.startswith(f"{name}/") for log in found)

    def trees_of(self, name: str) -> tuple[str, ...]:
        """Tree IDs that have a position under a configured log's name, in order."""
        at = table(LogPosition).c.log
        with self.database.read() as connection:
            found = [log.partition(f"{name}/") for log in connection.execute(select(at).order_by(at)).scalars()]
        return tuple(tree for before, separator, tree in found if separator and not before)

    @override
    def baseline(self, position: Position, how: str) -> None:
        with self.database.write() as connection:
            first_position(connection, position, how, self._clock())

    @override
    def advance(self, old: Position, new: Position, batch: Batch, alerts: Sequence[Alert]) -> None:
        if (batch.log, batch.start, batch.end) != (old.log, old.frontier.size, new.frontier.size):
            raise ValueError(f"the batch {batch.start}-{batch.end} does not lie between the two positions")
        now = self._clock()
        with self.database.write() as connection:
            # The swap comes first: it locks the row, so a second daemon waits here and then conflicts.
            move_position(connection, old, new)
            self._put_batch(connection, batch, alerts, now)

    def record_scan(
        self,
        batch: Batch,
        rules: Mapping[str, str],
        alerts: Sequence[Alert],
        *,
        not_before: datetime | None = None,
    ) -> None:
        """Commit a back-scanned batch: findings, unreadable entries, alerts, covered ranges.

        In one transaction. `rules` (id to selection id) were offered the batch. Known findings do not change. Alerts
        are due at `not_before`. Raises `OwnFault` for entries that were not verified by following.
        """
        now = self._clock()
        with self.database.write() as connection:
            position = read_position(connection, batch.log)
            if position is None or batch.end > position.frontier.size:
                at = "nowhere" if position is None else f"at entry {position.frontier.size}"
                raise OwnFault(f"{batch.log}: following stands {at}; findings up to {batch.end} cannot be kept yet")
            # Kinds are counted once, by following.
            self._put_batch(connection, replace(batch, kinds={}), alerts, now, not_before=not_before)
            extend(connection, batch.log, rules, batch.start, batch.end)

    def rejudged(self, due: DueFinding, worse: Finding | None, alerts: Sequence[Alert]) -> None:
        """Commit a second judgement: its end, and, if it is worse than the first, its verdict and alert."""
        now = self._clock()
        with self.database.write() as connection:
            if settle_recheck(connection, due, worse) and worse is not None:
                self._put(connection, alerts, now)

    def vouched_for(self, due: DueFinding, finding: Finding, alerts: Sequence[Alert]) -> None:
        """Commit a finding with a certificate that is trusted now, as if it had just been found."""
        now = self._clock()
        where = finding.selected.signing.where
        with self.database.write() as connection:
            if settle_recheck(connection, due, None):
                claim_past(connection, [finding])
                vouched_for(connection, finding, now)
                add_rechecks(connection, [finding], now)
                batch = Batch(where.log, where.index, where.index + 1, (finding,))
                add_promises(connection, _of_certificates(batch), now)
                self._put_found(connection, batch, alerts, now)

    def wait_on(self, due: Sequence[DueFinding]) -> None:
        """Let findings without a trusted certificate wait for another authority."""
        rest(self.database, due, self._clock())

    @override
    def record_head(self, head: SignedHead) -> None:
        with self.database.write() as connection:
            append_head(connection, head, self._clock())

    def heads_at(self, log: str, size: int) -> Sequence[SignedHead]:
        """Every recorded head of this log with this size."""
        with self.database.read() as connection:
            return heads_at(connection, log, size)

    @override
    def keep_evidence(self, evidence: Evidence, alerts: Sequence[Alert]) -> bool:
        evidence_id, now = event_id(evidence), self._clock()
        kept = table(EvidenceRow)
        with self.database.write() as connection:
            if connection.execute(select(kept.c.id).where(kept.c.id == evidence_id)).first() is not None:
                return False
            row = {"id": evidence_id, "log": evidence.log, "kind": evidence.kind, "kept_at": now}
            add_new(connection, kept, [row | {"document": json.dumps(to_document(evidence))}])
            if evidence.kind != BROKEN_PROMISE:
                # Promises of an entry that the tree does not hold: they are checked against the log later.
                add_promises(connection, _promises(evidence), now)
            # The history is read back, so that an alert gives the first sighting of each head.
            seen = first_seen(connection, evidence.log, heads_of(evidence))
            self._put(connection, [with_sightings(alert, seen) for alert in alerts], now)
        return True

    def close_evidence(self, evidence_id: str, note: str) -> bool:
        """Close a piece of evidence, with an operator's note; false when it is closed already or absent.

        The evidence itself is never deleted.
        """
        kept = table(EvidenceRow)
        is_open = and_(kept.c.id == evidence_id, kept.c.closed_at.is_(None))
        with self.database.write() as connection:
            return bool(change_sealed(connection, kept, is_open, {"closed_at": self._clock(), "note": note}))

    @override
    def enqueue(self, alerts: Sequence[Alert]) -> None:
        with self.database.write() as connection:
            self._put(connection, alerts, self._clock())

    def tell(self, alert: Alert, channel: str) -> bool:
        """Enqueue an alert without a next step for one channel, resolved at once; false when it was enqueued before."""
        kept, now = table(AlertRow), self._clock()
        with self.database.write() as connection:
            news = new_alerts(connection, [alert])
            put(connection, [QueuedAlert(each, [channel], now) for each in news], now)
            change_sealed(connection, kept, kept.c.id.in_([each.id for each in news]), {"resolved_at": now})
        return bool(news)

    def trust_roots(self) -> list[KeptRoot]:
        """Every trust root that was ever in force, oldest first."""
        with self.database.read() as connection:
            return kept_roots(connection)

    def record_trust_root(self, root: KeptRoot, alerts: Sequence[Alert], *, more_trusted: bool = False) -> bool:
        """Record a trust root with its alerts; false when another process recorded that number first.

        `more_trusted`: a further authority is trusted, so findings that wait for one are due at once.
        """
        now = self._clock()
        with self.database.write() as connection:
            is_new = add_root(connection, root)
            if is_new:
                self._put(connection, alerts, now)
                if more_trusted:
                    wake(connection, now)
        return is_new

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def _put(self, connection: Connection, alerts: Sequence[Alert], now: datetime) -> None:
        put(connection, [QueuedAlert(alert, self._route(alert), now) for alert in new_alerts(connection, alerts)], now)

    def _put_batch(
        self,
        connection: Connection,
        batch: Batch,
        alerts: Sequence[Alert],
        now: datetime,
        *,
        not_before: datetime | None = None,
    ) -> None:
        """Put all that a batch found. Findings already known are left alone, and told no second time."""
        claim_past(connection, batch.findings)
        known = known_findings(connection, batch)
        add_findings(connection, batch.findings, now)
        add_rechecks(connection, [each for each in batch.findings if _key(each) not in known], now)
        add_unreadable(connection, batch, now)
        add_dropped(connection, batch.log, batch.dropped, now)
        add_promises(connection, _of_certificates(batch), now)
        # The (log, index, rule) of an alert identify its finding: a known finding had an alert before, perhaps under
        # another id.
        news = [alert for alert in alerts if (alert.log, alert.index, alert.rule) not in known]
        self._put_found(connection, batch, news, now, not_before=not_before)

    def _put_found(
        self,
        connection: Connection,
        batch: Batch,
        alerts: Sequence[Alert],
        now: datetime,
        *,
        not_before: datetime | None = None,
    ) -> None:
        """Enqueue alerts of new findings, except those of an event that was already reported."""
        events = EventDispatcher(connection, batch.findings, now, self.certificate_hold)
        news = new_alerts(connection, alerts)
        for part in ([alert] for alert in news) if events.of_certificates else [news]:
            sent = [events.dispatch(alert, self._route(alert)) for alert in part]
            posts = [QueuedAlert(each.alert, each.channels, max(each.due, not_before or each.due)) for each in sent]
            put(connection, posts, now)
            for each in sent:
                settle(connection, each)
        withdraw(connection, events.answered(), ANSWERED, now)


def _of_certificates(batch: Batch) -> Iterator[InclusionPromise]:
    return (promise for finding in batch.findings for promise in finding.promises)


def _promises(evidence: Evidence) -> Iterator[InclusionPromise]:
    for signed in evidence.promises:
        with suppress(BadPromise):
            yield read_promise(signed, evidence.spki)


def _key(finding: Finding) -> tuple[str, int, str]:
    return finding.selected.signing.where.log, finding.selected.signing.where.index, finding.rule

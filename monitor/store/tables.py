"""The database schema: one class per table. `migrations/` makes them; a test compares the two.

Log ids, rule ids and channel names are ours and short. Everything else may come from an attacker: it is kept as
`AnyText`, and indexed only by a digest of it. A `seal` is the row's checksum (`monitor.store.sql`).
"""

from datetime import datetime
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Text,
    and_,
    column,
)
from sqlmodel import Field

from monitor.store.sql import AnyText, Base, RowNumber, UtcTime, partial_index

# The newest revision in `migrations/`: a database that has it is opened without reading them.
SCHEMA: Final = "0001"


class Instance(Base, table=True):
    """One row that marks a Signwatch database, with the time at which it was made."""

    __tablename__ = "instance"
    id: int = Field(sa_column=Column(Integer, primary_key=True))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    created_by: str = Field(sa_column=Column(Text, nullable=False))


class LogPosition(Base, table=True):
    """Position of one log with its proof, and its baseline."""

    __tablename__ = "log_position"
    log: str = Field(sa_column=Column(Text, primary_key=True))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    frontier: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    head_size: int = Field(sa_column=Column(BigInteger, nullable=False))
    head_root: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    head_raw: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    head_timestamp: datetime | None = Field(sa_column=Column(UtcTime))
    head_final: bool = Field(sa_column=Column(Boolean, nullable=False))
    head_cosigned_by: str = Field(sa_column=Column(Text, nullable=False))
    timed_entry: int | None = Field(sa_column=Column(BigInteger))
    timed_at: datetime | None = Field(sa_column=Column(UtcTime))
    baseline_size: int = Field(sa_column=Column(BigInteger, nullable=False))
    baseline_how: str = Field(sa_column=Column(AnyText, nullable=False))
    baseline_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class HeadRow(Base, table=True):
    """Every recorded tree head of a log, hash-chained per log: `link` covers this row and the link before."""

    __tablename__ = "head"
    __table_args__ = (Index("head_statement", "log", "size", "root", "final", unique=True),)
    log: str = Field(sa_column=Column(Text, primary_key=True))
    number: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    root: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    final: bool = Field(sa_column=Column(Boolean, nullable=False))
    raw: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    seen_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    link: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class LogHealth(Base, table=True):
    """Health of one log: last pass, last success, and present trouble with its beginning.

    At `read_at` the log's newest tree had `read_size` entries, and all of them were read. Since `behind_since` every
    pass got a smaller tree than the trusted one.
    """

    __tablename__ = "log_health"
    log: str = Field(sa_column=Column(Text, primary_key=True))
    last_pass_at: datetime | None = Field(sa_column=Column(UtcTime))
    last_success_at: datetime | None = Field(sa_column=Column(UtcTime))
    fresh_at: datetime | None = Field(sa_column=Column(UtcTime))
    read_size: int | None = Field(sa_column=Column(BigInteger))
    read_at: datetime | None = Field(sa_column=Column(UtcTime))
    behind_since: datetime | None = Field(sa_column=Column(UtcTime))
    trouble: str | None = Field(sa_column=Column(Text))
    reason: str | None = Field(sa_column=Column(Text))
    detail: str | None = Field(sa_column=Column(AnyText))
    since: datetime | None = Field(sa_column=Column(UtcTime))


class WatchedSpan(Base, table=True):
    """A time in which passes over a log succeeded without a long pause, with the cause of the pause after it.

    `trouble` is the owner of the first failure since `ended_at`, empty while nothing failed.
    """

    __tablename__ = "watched_span"
    log: str = Field(sa_column=Column(Text, primary_key=True))
    began_at: datetime = Field(sa_column=Column(UtcTime, primary_key=True))
    ended_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    trouble: str | None = Field(sa_column=Column(Text))


class LogDay(Base, table=True):
    """One UTC day of one log: passes that succeeded and failed, and the most entries left unread after one.

    `[first, last)` are the entries read that day.
    """

    __tablename__ = "log_day"
    log: str = Field(sa_column=Column(Text, primary_key=True))
    day: str = Field(sa_column=Column(Text, primary_key=True))
    passes: int = Field(sa_column=Column(BigInteger, nullable=False))
    failures: int = Field(sa_column=Column(BigInteger, nullable=False))
    lag: int = Field(sa_column=Column(BigInteger, nullable=False))
    first: int = Field(sa_column=Column(BigInteger, nullable=False))
    last: int = Field(sa_column=Column(BigInteger, nullable=False))


_COUNTED: Final = and_(column("counts", Boolean).is_(True), column("certificate_log", Boolean).is_(False))


class FindingRow(Base, table=True):
    """A rule matched an entry. `counts` says whether it belongs to the past that later judgements may rely on."""

    __tablename__ = "finding"
    __table_args__ = (
        # The findings of a rate. Without the condition, thousands of self-made certificates would be read.
        partial_index("finding_rate", "rule", "signed_at", where=_COUNTED),
        # The findings of one subscription, newest first.
        Index("finding_of_rule", "rule", "signed_at", "entry", "log"),
        Index("finding_recent", "found_at"),
    )
    log: str = Field(sa_column=Column(Text, primary_key=True))
    index: int = Field(sa_column=Column("entry", BigInteger, primary_key=True, autoincrement=False))
    rule: str = Field(sa_column=Column(Text, primary_key=True))
    outcome: str = Field(sa_column=Column(Text, nullable=False))
    reasons: str = Field(sa_column=Column(Text, nullable=False))
    kind: str = Field(sa_column=Column(AnyText, nullable=False))
    signing: str = Field(sa_column=Column(Text, nullable=False))
    leaf: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    signed_at: datetime | None = Field(sa_column=Column(UtcTime))
    counts: bool = Field(sa_column=Column(Boolean, nullable=False))
    certificate_log: bool = Field(sa_column=Column(Boolean, nullable=False))
    found_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    seal: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class FindingDigest(Base, table=True):
    """Digests of a finding, to count how often a rule saw one."""

    __tablename__ = "finding_digest"
    rule: str = Field(sa_column=Column(Text, primary_key=True))
    digest_key: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    log: str = Field(sa_column=Column(Text, primary_key=True))
    index: int = Field(sa_column=Column("entry", BigInteger, primary_key=True, autoincrement=False))


class FindingCertificate(Base, table=True):
    """Trusted certificates that a finding's rule selected, by what every log agrees on (`sigstore_entries.der`)."""

    __tablename__ = "finding_certificate"
    __table_args__ = (Index("finding_certificate_shown", "certificate"),)
    rule: str = Field(sa_column=Column(Text, primary_key=True))
    certificate: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    log: str = Field(sa_column=Column(Text, primary_key=True))
    index: int = Field(sa_column=Column("entry", BigInteger, primary_key=True, autoincrement=False))


class FindingName(Base, table=True):
    """Names, repositories, fingerprints and digests of a stored signing, for looking one up; keys are SHA-256.

    `vouched` and `at` are the finding's `counts` and `signed_at`: so the newest of a name are found without reading
    the others.
    """

    __tablename__ = "finding_name"
    __table_args__ = (Index("finding_name_newest", "name_key", "vouched", "at", "entry", "log"),)
    name_key: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    log: str = Field(sa_column=Column(Text, primary_key=True))
    index: int = Field(sa_column=Column("entry", BigInteger, primary_key=True, autoincrement=False))
    vouched: bool = Field(sa_column=Column(Boolean, nullable=False))
    at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class Recheck(Base, table=True):
    """A finding to be judged again at `due_at`; deleted afterwards. `extra` as served with the leaf."""

    __tablename__ = "recheck"
    __table_args__ = (Index("recheck_due", "due_at"),)
    log: str = Field(sa_column=Column(Text, primary_key=True))
    index: int = Field(sa_column=Column("entry", BigInteger, primary_key=True, autoincrement=False))
    rule: str = Field(sa_column=Column(Text, primary_key=True))
    due_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    extra: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class SeenValue(Base, table=True):
    """Values (issuer, repository identifier) in a rule's findings of a subject (identity, repository)."""

    __tablename__ = "seen_value"
    rule: str = Field(sa_column=Column(Text, primary_key=True))
    fact: str = Field(sa_column=Column(Text, primary_key=True))
    subject_key: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    value_key: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    value: str = Field(sa_column=Column(AnyText, nullable=False))
    seal: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


_IS_PAST: Final = column("past", Boolean).is_(True)


class Sighting(Base, table=True):
    """A trusted certificate in a finding that showed a subject with a value; `past` unless it was unexpected."""

    __tablename__ = "sighting"
    __table_args__ = (
        # The first and the last certificate of a value show whether a certificate other than the own one had it.
        partial_index("sighting_past", "rule", "fact", "subject_key", "value_key", "certificate", where=_IS_PAST),
        Index("sighting_finding", "log", "entry", "rule"),
    )
    rule: str = Field(sa_column=Column(Text, primary_key=True))
    fact: str = Field(sa_column=Column(Text, primary_key=True))
    subject_key: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    value_key: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    certificate: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    log: str = Field(sa_column=Column(Text, primary_key=True))
    index: int = Field(sa_column=Column("entry", BigInteger, primary_key=True, autoincrement=False))
    past: bool = Field(sa_column=Column(Boolean, nullable=False))
    seal: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class RulePast(Base, table=True):
    """Number of times that the past of a rule grew: a verdict that depends on the past holds for one revision of it."""

    __tablename__ = "rule_past"
    rule: str = Field(sa_column=Column(Text, primary_key=True))
    revision: int = Field(sa_column=Column(BigInteger, nullable=False))


class UnreadableRow(Base, table=True):
    """An entry that could not be decoded, kept whole."""

    __tablename__ = "unreadable"
    log: str = Field(sa_column=Column(Text, primary_key=True))
    index: int = Field(sa_column=Column("entry", BigInteger, primary_key=True, autoincrement=False))
    code: str = Field(sa_column=Column(AnyText, nullable=False))
    reason: str = Field(sa_column=Column(AnyText, nullable=False))
    leaf: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    seen_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    seal: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class KindCount(Base, table=True):
    """Number of entries of each kind that were read from each log."""

    __tablename__ = "kind_count"
    log: str = Field(sa_column=Column(Text, primary_key=True))
    kind: str = Field(sa_column=Column(AnyText, primary_key=True))
    entries: int = Field(sa_column=Column(BigInteger, nullable=False))


class AlertRow(Base, table=True):
    """An alert, whole, kept for ever.

    Open until `acknowledged_at` (by a person) or `resolved_at` (its condition ended); both are empty again when it
    is reopened. `silence` is the silence in force when the alert was raised, which kept it from the channels.
    `escalated_at` is the time of the escalation.
    """

    __tablename__ = "alert"
    __table_args__ = (Index("alert_finding", "log", "entry", "rule"), Index("alert_recent", "enqueued_at"))
    id: str = Field(sa_column=Column(Text, primary_key=True))
    kind: str = Field(sa_column=Column(Text, nullable=False))
    owner: str = Field(sa_column=Column(Text, nullable=False))
    severity: str = Field(sa_column=Column(Text, nullable=False))
    log: str | None = Field(sa_column=Column(Text))
    index: int | None = Field(sa_column=Column("entry", BigInteger))
    rule: str | None = Field(sa_column=Column(Text))
    document: str = Field(sa_column=Column(Text, nullable=False))
    enqueued_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    identity: str | None = Field(sa_column=Column(AnyText))
    acknowledged_at: datetime | None = Field(sa_column=Column(UtcTime))
    acknowledged_by: str | None = Field(sa_column=Column(AnyText))
    resolved_at: datetime | None = Field(sa_column=Column(UtcTime))
    escalated_at: datetime | None = Field(sa_column=Column(UtcTime))
    silence: int | None = Field(sa_column=Column(BigInteger))
    note: str | None = Field(sa_column=Column(AnyText))
    seal: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class AlertChangeRow(Base, table=True):
    """A change of an alert, by a person or a condition: acknowledged, reopened, resolved. Never deleted."""

    __tablename__ = "alert_change"
    __table_args__ = (Index("alert_change_alert", "alert"),)
    id: int | None = Field(default=None, sa_column=Column(RowNumber, primary_key=True, autoincrement=True))
    alert: str = Field(sa_column=Column(Text, ForeignKey("alert.id"), nullable=False))
    change: str = Field(sa_column=Column(Text, nullable=False))
    at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    by: str = Field(sa_column=Column("made_by", AnyText, nullable=False))
    note: str = Field(sa_column=Column(AnyText, nullable=False))
    seal: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class SilenceRow(Base, table=True):
    """A silence of alerts of a rule, identity and kind until `expires` or `ended_at`. Never deleted.

    An empty field stands for any value. `told_at` is the time of the alert about its end.
    """

    __tablename__ = "silence"
    __table_args__ = (Index("silence_expires", "expires"),)
    id: int | None = Field(default=None, sa_column=Column(RowNumber, primary_key=True, autoincrement=True))
    rule: str | None = Field(sa_column=Column(Text))
    identity: str | None = Field(sa_column=Column(AnyText))
    kind: str | None = Field(sa_column=Column(Text))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    expires: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    by: str = Field(sa_column=Column("made_by", AnyText, nullable=False))
    note: str = Field(sa_column=Column(AnyText, nullable=False))
    ended_at: datetime | None = Field(sa_column=Column(UtcTime))
    told_at: datetime | None = Field(sa_column=Column(UtcTime))
    seal: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class DeliveryRow(Base, table=True):
    """The outbox: one alert, or a change of it (`news`), on its way to one channel."""

    __tablename__ = "delivery"
    __table_args__ = (
        Index("delivery_once", "alert", "channel", "news", unique=True),
        Index("delivery_due", "state", "channel", "due_at"),
        Index("delivery_finished", "channel", "finished_at"),
    )
    id: int | None = Field(default=None, sa_column=Column(RowNumber, primary_key=True, autoincrement=True))
    alert: str = Field(sa_column=Column(Text, ForeignKey("alert.id"), nullable=False))
    channel: str = Field(sa_column=Column(Text, nullable=False))
    news: str = Field(sa_column=Column(Text, nullable=False))
    state: str = Field(sa_column=Column(Text, nullable=False))
    urgent: bool = Field(sa_column=Column(Boolean, nullable=False))
    attempts: int = Field(sa_column=Column(BigInteger, nullable=False))
    enqueued_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    due_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    lease: str = Field(sa_column=Column(Text, nullable=False))
    leased_until: datetime | None = Field(sa_column=Column(UtcTime))
    digest: str | None = Field(sa_column=Column(Text))
    finished_at: datetime | None = Field(sa_column=Column(UtcTime))
    error: str = Field(sa_column=Column(AnyText, nullable=False))


class EvidenceRow(Base, table=True):
    """The evidence of one misbehaviour, as the exported document. Never deleted.

    Open until an operator closes it with a note; while it is open the log is not green.
    """

    __tablename__ = "evidence"
    __table_args__ = (Index("evidence_open", "closed_at", "log"),)
    id: str = Field(sa_column=Column(Text, primary_key=True))
    log: str = Field(sa_column=Column(Text, nullable=False))
    kind: str = Field(sa_column=Column(Text, nullable=False))
    document: str = Field(sa_column=Column(Text, nullable=False))
    kept_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    closed_at: datetime | None = Field(sa_column=Column(UtcTime))
    note: str | None = Field(sa_column=Column(AnyText))
    seal: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class AuthorisationRow(Base, table=True):
    """An authorisation to sign one digest some times until a day. A revoked one stays, for the record.

    `what` names the released artifact for people. Each digest under which one signature of it may be logged has a
    row; all after the first have the first one's number in `together`.
    """

    __tablename__ = "authorisation"
    __table_args__ = (
        Index("authorisation_rule", "rule", "digest"),
        Index("authorisation_together", "together"),
    )
    id: int | None = Field(default=None, sa_column=Column(RowNumber, primary_key=True, autoincrement=True))
    rule: str = Field(sa_column=Column(Text, nullable=False))
    digest: str = Field(sa_column=Column(Text, nullable=False))
    count: int = Field(sa_column=Column(BigInteger, nullable=False))
    expires: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    note: str = Field(sa_column=Column(AnyText, nullable=False))
    what: str = Field(sa_column=Column(AnyText, nullable=False))
    together: int | None = Field(default=None, sa_column=Column(RowNumber))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    revoked_at: datetime | None = Field(sa_column=Column(UtcTime))
    seal: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class PatternRow(Base, table=True):
    """A pattern of signings that a person acknowledged for a rule, from one alert (JSON). Revoked ones stay."""

    __tablename__ = "pattern"
    __table_args__ = (Index("pattern_rule", "rule"),)
    id: int | None = Field(default=None, sa_column=Column(RowNumber, primary_key=True, autoincrement=True))
    rule: str = Field(sa_column=Column(Text, nullable=False))
    alert: str = Field(sa_column=Column(Text, ForeignKey("alert.id"), nullable=False))
    document: str = Field(sa_column=Column(AnyText, nullable=False))
    by: str = Field(sa_column=Column("made_by", AnyText, nullable=False))
    note: str = Field(sa_column=Column(AnyText, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    revoked_at: datetime | None = Field(sa_column=Column(UtcTime))
    revoked_by: str | None = Field(sa_column=Column(AnyText))
    seal: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class CanaryRow(Base, table=True):
    """One run of the canary: announced, signed, seen. `digest` is that of the random artifact (`sha256:…`).

    `bundle` is the log's answer, kept until the run is seen.
    """

    __tablename__ = "canary"
    __table_args__ = (Index("canary_digest", "digest"), Index("canary_result", "result"))
    id: int | None = Field(default=None, sa_column=Column(RowNumber, primary_key=True, autoincrement=True))
    log: str = Field(sa_column=Column(Text, nullable=False))
    digest: str = Field(sa_column=Column(Text, nullable=False))
    began_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    signed_at: datetime | None = Field(sa_column=Column(UtcTime))
    seen_at: datetime | None = Field(sa_column=Column(UtcTime))
    result: str = Field(sa_column=Column(Text, nullable=False))
    detail: str = Field(sa_column=Column(AnyText, nullable=False))
    bundle: bytes | None = Field(sa_column=Column(LargeBinary))


class ScannedRange(Base, table=True):
    """Entries `[first, last)` of a log that were offered to a rule; `last` empty while the rule is active there."""

    __tablename__ = "scanned_range"
    __table_args__ = (Index("scanned_open", "log", "last"), Index("scanned_rule", "rule", "log"))
    id: int | None = Field(default=None, sa_column=Column(RowNumber, primary_key=True, autoincrement=True))
    log: str = Field(sa_column=Column(Text, nullable=False))
    rule: str = Field(sa_column=Column(Text, nullable=False))
    selection: str = Field(sa_column=Column(Text, nullable=False))
    first: int = Field(sa_column=Column(BigInteger, nullable=False))
    last: int | None = Field(sa_column=Column(BigInteger))


class BackScanRow(Base, table=True):
    """State of one log's back-scan: remaining entries, recent entries a second, and present trouble."""

    __tablename__ = "back_scan"
    log: str = Field(sa_column=Column(Text, primary_key=True))
    at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    remaining: int = Field(sa_column=Column(BigInteger, nullable=False))
    rate: int = Field(sa_column=Column(BigInteger, nullable=False))
    trouble: str | None = Field(sa_column=Column(Text))
    reason: str | None = Field(sa_column=Column(Text))
    detail: str | None = Field(sa_column=Column(AnyText))
    since: datetime | None = Field(sa_column=Column(UtcTime))


class DroppedMatch(Base, table=True):
    """Matches not judged, because more rules than the cap selected one entry; `index` is the newest such entry."""

    __tablename__ = "dropped_match"
    log: str = Field(sa_column=Column(Text, primary_key=True))
    matches: int = Field(sa_column=Column(BigInteger, nullable=False))
    index: int = Field(sa_column=Column("entry", BigInteger, nullable=False))
    at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class RulesInForce(Base, table=True):
    """One row about the rules last put in force: their number, and the number that is asked about every entry.

    `names` are the first few of those, as a JSON list.
    """

    __tablename__ = "rules_in_force"
    id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    rules: int = Field(sa_column=Column(BigInteger, nullable=False))
    unindexed: int = Field(sa_column=Column(BigInteger, nullable=False))
    names: str = Field(sa_column=Column(Text, nullable=False))


class ViewRow(Base, table=True):
    """A view that a user's bundle proves: a head, a leaf and the proof between. It may become evidence.

    `tree` identifies the log's key and origin, independent of the log's name here.
    """

    __tablename__ = "bundle_view"
    __table_args__ = (Index("bundle_view_size", "tree", "size"),)
    id: str = Field(sa_column=Column(Text, primary_key=True))
    tree: str = Field(sa_column=Column(Text, nullable=False))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    root: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    head: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    index: int = Field(sa_column=Column("entry", BigInteger, nullable=False))
    leaf: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    proof: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    seen_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class NodeRow(Base, table=True):
    """Hash of one full subtree, which never changes in an honest log; `view` is the first view that proved it."""

    __tablename__ = "node"
    tree: str = Field(sa_column=Column(Text, primary_key=True))
    level: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    place: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    view: str = Field(sa_column=Column(Text, ForeignKey("bundle_view.id"), nullable=False))


class PromiseRow(Base, table=True):
    """A log's signed promise to include an entry: pending (deleted once it is shown to be kept) or broken.

    `log_id` is the hex SHA-256 of the key that promised, `index` the promised index, if there is one.
    """

    __tablename__ = "promise"
    __table_args__ = (Index("promise_waiting", "log_id", "state", "next_at"),)
    id: str = Field(sa_column=Column(Text, primary_key=True))
    log_id: str = Field(sa_column=Column(Text, nullable=False))
    kind: str = Field(sa_column=Column(Text, nullable=False))
    index: int | None = Field(sa_column=Column("entry", BigInteger))
    spki: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    statement: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    signature: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    seen_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    due_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    next_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    tries: int = Field(sa_column=Column(BigInteger, nullable=False))
    state: str = Field(sa_column=Column(Text, nullable=False))
    detail: str = Field(sa_column=Column(AnyText, nullable=False))
    evidence: str | None = Field(sa_column=Column(Text))


class PromiseCount(Base, table=True):
    """Number of a log's promises that ended without a row: kept, undecided, or refused for lack of room."""

    __tablename__ = "promise_count"
    log_id: str = Field(sa_column=Column(Text, primary_key=True))
    outcome: str = Field(sa_column=Column(Text, primary_key=True))
    entries: int = Field(sa_column=Column(BigInteger, nullable=False))


class WitnessStatusRow(Base, table=True):
    """Since when a log's head has too few cosignatures, and since when each witness of its policy is missing (JSON)."""

    __tablename__ = "witness_standing"
    log: str = Field(sa_column=Column(Text, primary_key=True))
    short_since: datetime | None = Field(sa_column=Column(UtcTime))
    missing: str = Field(sa_column=Column(Text, nullable=False))


class TrustRootRow(Base, table=True):
    """A trust root that was in force from `seen_at` until the next one. Never deleted: findings were judged by it."""

    __tablename__ = "trust_root"
    number: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    fingerprint: str = Field(sa_column=Column(Text, nullable=False))
    document: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    seen_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


_OWNED: Final = column("owner") != ""
_ENDED: Final = column("ended_at").is_not(None)


class AskRow(Base, table=True):
    """Selection and expectation of one or more subscriptions; equal ones share a row, a compiled rule, a judgement.

    A request that depends on a subscriber's own past is not shared: `owner` is its only subscription, else empty.
    `index_keys` are the keys of `document` (JSON) as `keys_version` of the program computes them. `change` is the
    number of the last change that put it in force or out of force, and `ended_at` when it went out of force.
    """

    __tablename__ = "ask"
    __table_args__ = (
        Index("ask_by_change", "change"),
        Index("ask_digest", "digest", unique=True),
        partial_index("ask_owner", "owner", where=_OWNED),
        partial_index("ask_ended", "ended_at", where=_ENDED),
        # Findings hold the number permanently, so it is not reused after its request is deleted.
        {"sqlite_autoincrement": True},
    )
    number: int | None = Field(default=None, sa_column=Column(RowNumber, primary_key=True, autoincrement=True))
    digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    document: str = Field(sa_column=Column(Text, nullable=False))
    index_keys: str = Field(sa_column=Column(Text, nullable=False))
    keys_version: int = Field(sa_column=Column(BigInteger, nullable=False))
    active: bool = Field(sa_column=Column(Boolean, nullable=False))
    change: int = Field(sa_column=Column(BigInteger, nullable=False))
    owner: str = Field(sa_column=Column(Text, nullable=False))
    ended_at: datetime | None = Field(sa_column=Column(UtcTime))


class AskChange(Base, table=True):
    """One row: the number of the last change to what is asked for."""

    __tablename__ = "ask_change"
    id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    change: int = Field(sa_column=Column(BigInteger, nullable=False))


class AskRange(Base, table=True):
    """Every ask in force whose change is at most `change` was offered every entry of a log from `first` on."""

    __tablename__ = "ask_range"
    log: str = Field(sa_column=Column(Text, primary_key=True))
    change: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    first: int = Field(sa_column=Column(BigInteger, nullable=False))
    at: datetime = Field(sa_column=Column(UtcTime, nullable=False))

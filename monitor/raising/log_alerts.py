"""Alerts about faults of a log or of this installation: severity, consequence and next step.

An alert's id is stable for one event, so a second sighting adds no row to the outbox. Events that a stranger can cause
in bulk (entries that cannot be decoded) make one alert a batch with a count. `monitor.raising.signing_alerts` makes
the alerts about signings.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from alerts.alert import Alert, Owner, Severity, alert_id, counted, day_of, lasting, rfc3339
from monitor.model.errors import Evidence
from monitor.model.inclusion_promise import BadPromise, Overdue, read_promise
from monitor.model.log_source import LogApi, SignedHead, read_head
from monitor.model.witness_policy import WitnessPolicy, WitnessReport
from monitor.proof.evidence import event_id


class _Meaning(Struct, frozen=True):
    """Consequence of a kind of misbehaviour for users of the log, and the next step."""

    title: str
    consequence: str
    next_step: str


_EXPORT: Final = "Export the evidence with `signwatch evidence export`, show it to the log's operator and to others"
_MEANING: Final = {
    "log-forked": _Meaning(
        "{log} showed two different histories",
        "The log's own signatures contradict each other: it may have shown others signings that it hid from you. "
        "Entries after the last proven one are not being checked.",
        f"{_EXPORT} who watch this log. Treat signatures that rely on this log alone as unproven.",
    ),
    "log-inconsistent": _Meaning(
        "{log} cannot prove that it only grew",
        "The log may have changed or removed earlier entries. Entries after the last proven one are not being checked.",
        f"Ask the log from another network. If it still gives no valid proof: {_EXPORT} who watch this log.",
    ),
    "log-unfrozen": _Meaning(
        "{log} changed after it was declared final",
        "A retired shard must never change again; other monitors no longer read entries that are added now.",
        f"{_EXPORT} who watch this log.",
    ),
    "log-head-refused": _Meaning(
        "{log} serves a tree head that is not its own",
        "New entries are not being checked until the pinned key signs the head under the right origin.",
        "Check that the trust root is fresh and the log's URL, key and tree ID are right. If they are, another server "
        "answers in the log's place: export the evidence and tell its operator.",
    ),
    "log-entries-not-in-tree": _Meaning(
        "{log} serves an entry other than the one it signed",
        "The entry that the log signed at this index is not known. Entries from this index on are not being checked.",
        f"Ask the log from another network, past any cache. {_EXPORT} who watch it if it stays so.",
    ),
    "log-entry-missing": _Meaning(
        "{log} does not show an entry it signed for",
        "The log may hide an entry from you. Entries from this index on are not being checked.",
        f"Ask the log from another network, past any cache. {_EXPORT} who watch it if it stays so.",
    ),
    "log-promise-broken": _Meaning(
        "{log} did not keep a promise to include an entry",
        "A client holds a promise signed by the log for an entry that is not in the log: clients accept a signing "
        "that no monitor of the log can see.",
        f"{_EXPORT} who watch this log. Treat the promised entry as a real signing that the log left out.",
    ),
    "log-shard-vanished": _Meaning(
        "{log} no longer lists a tree that it listed before",
        "The entries of that tree can no longer be checked.",
        "Check the log's configuration and announcements; export the heads kept for this tree.",
    ),
}


NEVER_SILENT: Final = frozenset(
    {
        *_MEANING,
        "canary-seen",
        "digest",
        "entry-signature-wrong",
        "log-clock",
        "log-key-expired",
        "log-rewound",
        "silence-ended",
    }
)
"""Kinds about a log's misbehaviour, or about silences and the canary themselves: a silence does not cover them."""
CONDITIONS: Final = frozenset({"log-unreachable", "log-stale", "signwatch-ill"})
"""Kinds of alerts about a lasting condition: Signwatch resolves such an alert when the condition ends."""
ALERT_KINDS: Final = (
    *_MEANING,
    "back-scan-stuck",
    "canary-missed",
    "canary-not-signed",
    "canary-seen",
    "digest",
    "entry-signature-wrong",
    "entry-unreadable",
    "log-appeared",
    "log-clock",
    "log-ended",
    "log-key-expired",
    "log-promise-unasked",
    "log-rewound",
    "log-stale",
    "log-trees-left-out",
    "log-unreachable",
    "rules-dropped",
    "silence-ended",
    "signwatch-ill",
    "trust-changed",
    "trust-root-stale",
    "trust-sources-disagree",
    "unexpected-signing",
    "unverified-signing",
    "weekly-summary",
    "witness-missing",
)
"""All kinds of alerts; each has a page `docs/alerts/<kind>.md`."""


def alert_of_evidence(evidence: Evidence, now: datetime) -> Alert:
    """Alert for a log that misbehaved; `evidence.kind` must be a key of `_MEANING`."""
    meaning = _MEANING[evidence.kind]
    facts = [("Log", evidence.log), ("Protocol", evidence.api), ("Log key", sha256(evidence.spki).hexdigest())]
    facts += _head_facts(evidence) or [("Size", str(size)) for size in evidence.sizes]
    facts += _promise_facts(evidence)
    return Alert(
        id=event_id(evidence),
        kind=evidence.kind,
        owner=Owner.LOG_MISBEHAVED,
        severity=Severity.PAGE,
        title=meaning.title.format(log=evidence.log),
        summary=evidence.detail,
        consequence=meaning.consequence,
        next_step=meaning.next_step,
        created_at=now,
        facts=(
            *facts,
            ("Export", f"signwatch evidence export {event_id(evidence)[:12]} --output evidence.json"),
            ("Verify", "signwatch evidence verify evidence.json --trusted-root trusted_root.json"),
        ),
        log=evidence.log,
        index=evidence.leaves[0][0] if evidence.leaves else None,
        evidence=event_id(evidence),
    )


def heads_of(evidence: Evidence) -> list[tuple[int, bytes]]:
    """Size and root of each signed head in the evidence; empty if a head cannot be read."""
    try:
        heads = [read_head(raw, LogApi(evidence.api), evidence.key_name, evidence.spki) for raw in evidence.heads]
    except ValueError:
        return []
    return [(head.size, bytes(head.root)) for head in heads]


def with_sightings(alert: Alert, seen: Mapping[tuple[int, bytes], datetime]) -> Alert:
    """The alert with the time at which each of its signed heads, by size and root, was first seen here."""
    told = {_head_words(size, root): at for (size, root), at in seen.items()}

    def dated(value: str) -> str:
        if value not in told:
            return value
        return f"{value}, first seen {rfc3339(told[value])}"

    return replace(alert, facts=tuple((label, dated(value)) for label, value in alert.facts))


def _head_facts(evidence: Evidence) -> list[tuple[str, str]]:
    heads = enumerate(heads_of(evidence), start=1)
    return [(f"Signed head {number}", _head_words(size, root)) for number, (size, root) in heads]


def _head_words(size: int, root: bytes) -> str:
    return f"size {size}, root {root.hex()}"


def _promise_facts(evidence: Evidence) -> list[tuple[str, str]]:
    """Leaf hash, index and time of each promised entry: its signer is found by them."""
    try:
        promises = [read_promise(signed, evidence.spki) for signed in evidence.promises[:1]]
    except BadPromise:
        return []
    facts = [("Promised leaf", each.leaf_hash.hex()) for each in promises]
    facts += [("Promised index", str(each.index)) for each in promises if each.index is not None]
    return [*facts, *(("Promised at", rfc3339(each.at)) for each in promises)]


def key_expired_alert(log: str, until: datetime, head: SignedHead, now: datetime) -> Alert:
    """Alert for a log that grew although the trust root says that its key stopped signing at `until`."""
    return Alert(
        id=alert_id("log-key-expired", log, until.isoformat()),
        kind="log-key-expired",
        owner=Owner.LOG_MISBEHAVED,
        severity=Severity.WARN,
        title=f"{log} still grows after the validity of its key",
        summary=f"The trust root ends the key's validity at {rfc3339(until)}, but the log has signed size {head.size} "
        "since.",
        consequence="Clients no longer accept the heads that this log signs now. Its entries are still being checked.",
        next_step="Check that the trust root is fresh, and ask the operator whether the log is retired.",
        created_at=now,
        facts=(("Log", log), ("Key valid until", rfc3339(until)), ("Size", str(head.size))),
        log=log,
    )


def stale_head_alert(log: str, head: SignedHead | None, since: datetime, now: datetime) -> Alert:
    """Alert for a busy log that answers, but has shown no newer head since `since`.

    This does not accuse the log: Rekor's heads carry no signed time, and a lagging replica or cache has the same
    effect.
    """
    return Alert(
        id=alert_id("log-stale", log, since.isoformat()),
        kind="log-stale",
        owner=Owner.COULD_NOT_ASK,
        severity=Severity.PAGE,
        title=f"{log} has not moved for {lasting(now - since)}",
        summary=f"The log is busy, and has shown no new head for {lasting(now - since)}: the newest still has size "
        f"{head.size if head else 'unknown'}, first seen {rfc3339(since)}.",
        consequence="The log may hide later signings from you. They are not being checked.",
        next_step="Ask the log from another network and compare sizes. If the log is quiet or retired, set `busy: "
        "false`.",
        created_at=now,
        facts=(("Log", log), ("Since", rfc3339(since))),
        log=log,
    )


def rewound_head_alert(trusted: SignedHead, shown: SignedHead, since: datetime, now: datetime) -> Alert:
    """Alert for a log that has shown only trees older than an earlier signed one since `since`."""
    log = trusted.log
    return Alert(
        id=alert_id("log-rewound", log, since.isoformat()),
        kind="log-rewound",
        owner=Owner.LOG_MISBEHAVED,
        severity=Severity.PAGE,
        title=f"{log} went back from {trusted.size} to {counted(shown.size, 'entry')}",
        summary=f"It signed size {trusted.size} before and has shown only smaller trees since {rfc3339(since)}; now "
        f"it shows size {shown.size}, which is a prefix of that tree.",
        consequence=f"The log no longer shows the entries from {shown.size} on. Signings made since "
        "then are not being checked.",
        next_step="Ask the log from another network: one replica may lag. If all do, tell the log's operator: both "
        "signed heads are in the history of heads.",
        created_at=now,
        facts=(("Log", log), ("Size signed", str(trusted.size)), ("Size shown", str(shown.size))),
        log=log,
    )


def could_not_ask_alert(
    log: str, reason: str, last_error: str, since: datetime, now: datetime, *, answered: bool = False
) -> Alert:
    """Alert for a log that could not be asked since `since`; `reason` is a `FetchFailed.reason`.

    `answered` means that the log does show signed heads, but no valid proof for them.
    """
    span = lasting(now - since)
    unproven = f"{log} answers, but for {span} never with a proof that can be checked"
    consequence = "New entries of this log are not being checked; they will be read when it answers."
    return Alert(
        id=alert_id("log-unreachable", log, since.isoformat()),
        kind="log-unreachable",
        owner=Owner.COULD_NOT_ASK,
        severity=Severity.WARN,
        title=unproven if answered else f"{log} could not be asked for {span}",
        summary=last_error,
        consequence=f"It signs new heads that this monitor cannot tell from a fork. {consequence}"
        if answered
        else consequence,
        next_step="Ask the log from another network: a log that refuses proofs to you alone may hide entries. Tell "
        "its operator."
        if answered
        else "Check the network and the log's status page. You need not reset any state.",
        created_at=now,
        facts=(("Log", log), ("Reason", reason), ("Since", rfc3339(since))),
        log=log,
    )


def promises_unasked_alert(log: str, overdue: Overdue, now: datetime) -> Alert:
    """Alert for overdue promises about which the log has given no answer since `overdue.since`."""
    since = rfc3339(overdue.since)
    return Alert(
        id=alert_id("log-promise-unasked", overdue.log_id, since),
        kind="log-promise-unasked",
        owner=Owner.COULD_NOT_ASK,
        severity=Severity.WARN,
        title=f"{log} does not answer whether it kept {overdue.promises} overdue promises",
        summary=f"The oldest was due at {since}. {overdue.why}",
        consequence="The log may have promised an entry that it does not show. It is still being followed.",
        next_step="Ask the log from another network: a log that refuses this request alone may hide an entry. Tell "
        "its operator. Signwatch gives the promises up after a month.",
        created_at=now,
        facts=(("Log", log), ("Promises", str(overdue.promises)), ("Since", since)),
        log=log,
    )


def promises_given_up_alert(log: str, overdue: Overdue, now: datetime) -> Alert:
    """Alert for promises that stayed undecided for a month, and that are given up now."""
    since = rfc3339(overdue.since)
    return Alert(
        id=alert_id("log-promise-unasked", overdue.log_id, since, "given up"),
        kind="log-promise-unasked",
        owner=Owner.COULD_NOT_ASK,
        severity=Severity.WARN,
        title=f"{counted(overdue.promises, 'promise')} of {log} given up",
        summary=f"The oldest was due at {since}. {overdue.why}",
        consequence="Signwatch will not find out whether the log kept them.",
        next_step="When the log answers, check the bundles that hold them with `signwatch check-bundle`.",
        created_at=now,
        facts=(("Log", log), ("Promises", str(overdue.promises)), ("Since", since)),
        log=log,
    )


def own_fault_alert(what: str, detail: str, since: datetime, now: datetime) -> Alert:
    """Alert for a fault of Signwatch itself: `what` is a short fixed word such as `database`, `delivery`, `backlog`."""
    return Alert(
        id=alert_id("signwatch-ill", what, since.isoformat()),
        kind="signwatch-ill",
        owner=Owner.OURSELVES,
        severity=Severity.PAGE,
        title=f"Signwatch itself is in trouble: {what}",
        summary=detail,
        consequence="Logs are not being checked as promised until this fault is repaired. No finding is lost.",
        next_step="Run `signwatch doctor` and look at the daemon's log.",
        created_at=now,
        facts=(("Part", what), ("Since", rfc3339(since))),
    )


def new_shard_alert(log: str, origin: str, how: str, now: datetime) -> Alert:
    """Alert for a log or shard that appeared in the trust root or in a log's own list."""
    return Alert(
        id=alert_id("log-appeared", log, origin),
        kind="log-appeared",
        owner=Owner.LOG_MISBEHAVED,
        severity=Severity.INFO,
        title=f"A new log appeared: {log}",
        summary=f"{origin} was found in {how}.",
        consequence="It is followed from its first entry on.",
        next_step="Check that its operator announced it.",
        created_at=now,
        facts=(("Log", log), ("Origin", origin), ("Found in", how)),
        log=log,
    )


def trees_left_out_alert(log: str, count: int, now: datetime) -> Alert:
    """Alert for a log that names trees which are not followed: their heads are not signed by its key, or too many."""
    return Alert(
        id=alert_id("log-trees-left-out", log, day_of(now)),
        kind="log-trees-left-out",
        owner=Owner.COULD_NOT_ASK,
        severity=Severity.WARN,
        title=f"{log} names {counted(count, 'tree')} that Signwatch does not follow",
        summary=f"Not followed: {counted(count, 'inactive tree')} of its list, without a head that the log's key "
        "signed, or beyond the number that is followed. The list is not signed: the server, or a proxy in between, "
        "may have invented it.",
        consequence="Entries of these trees are not being checked. All other trees are followed.",
        next_step="Ask the log's operator for the list of trees. To follow a further tree, configure it as a log of "
        "its own, with `tree_id` and its key.",
        created_at=now,
        facts=(("Log", log), ("Trees left out", str(count))),
        log=log,
    )


def back_scan_stuck_alert(log: str, detail: str, remaining: int, since: datetime, now: datetime) -> Alert:
    """Alert for older entries that rules ask for and that the log has not given since `since`."""
    return Alert(
        id=alert_id("back-scan-stuck", log, since.isoformat()),
        kind="back-scan-stuck",
        owner=Owner.COULD_NOT_ASK,
        severity=Severity.WARN,
        title=f"The back-scan of {log} has made no progress for {lasting(now - since)}",
        summary=detail,
        consequence=f"Rules have not been offered {counted(remaining, 'older entry')}. New entries are followed.",
        next_step="You need not reset any state: the back-scan continues once the log answers. If the log no longer "
        "serves old entries, ask its operator, or reduce the rule's `backscan`.",
        created_at=now,
        facts=(("Log", log), ("Entries left", str(remaining)), ("Since", rfc3339(since))),
        log=log,
    )


def witness_alerts(
    policy: WitnessPolicy, witnessed: WitnessReport, head: SignedHead, now: datetime, patience: timedelta
) -> Sequence[Alert]:
    """One alert a day for a log with too few witnesses for longer than `patience`; otherwise none.

    Witnesses cosign after the log signs, so a new head has no cosignatures at first.
    """
    cosigning, status = witnessed.cosigning, witnessed.status
    since = status.short_since
    if since is None or now - since <= patience:
        return ()
    facts = [("Log", head.log), ("Size", str(head.size)), ("Required", f"{policy.required} of {len(policy.names)}")]
    facts += [("Cosigned by", ", ".join(cosigning.present) or "no witness")]
    facts += [("Missing", f"{name} since {rfc3339(at)}") for name, at in status.missing_since]
    return (
        Alert(
            id=alert_id("witness-missing", head.log, day_of(now)),
            kind="witness-missing",
            owner=Owner.COULD_NOT_ASK,
            severity=Severity.WARN,
            title=f"Too few witnesses cosigned the newest head of {head.log}",
            summary=f"{len(cosigning.present)} of {counted(policy.required, 'wanted witness')} cosigned the newest "
            f"head recently; there have been too few since {rfc3339(since)}.",
            consequence="Entries are being checked as before, but no independent witness confirms that others see the "
            "same history. This does not accuse the log.",
            next_step="Ask the missing witnesses' operators, and compare heads with another installation: "
            "`signwatch peers compare`.",
            created_at=now,
            facts=tuple(facts),
            log=head.log,
        ),
    )

"""Alerts about trouble with a log, or our own: urgency, meaning and next step.

An alert's id is stable for one event, so seeing it again enqueues nothing. Events that a stranger can cause in bulk
(entries that cannot be decoded) are told once a batch with a count, never one by one. Signings:
`monitor.raising.signing_alerts`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from alerts.alert import Alert, Owner, Severity, alert_id, counted, day_of, lasting, rfc3339
from monitor.model.errors import Evidence
from monitor.model.inclusion_promise import BadPromise, Overdue, read_promise
from monitor.model.log_source import LogApi, SignedHead, read_head
from monitor.model.witness_policy import Witnessed, WitnessPolicy
from monitor.proof.evidence import event_id


@dataclass(frozen=True, slots=True)
class _Meaning:
    """Consequence of a kind of misbehaviour for users of the log, and the next step."""

    title: str
    consequence: str
    next_step: str


_EXPORT: Final = "Export the evidence with `signwatch evidence export`, show it to the log's operator and to others"
_MEANING: Final = {
    "log-forked": _Meaning(
        "{log} showed two different histories",
        "The log's own signatures contradict each other: others may have been shown signings that you were not. "
        "Nothing after the last proven entry is being checked.",
        f"{_EXPORT} who watch this log. Treat signatures that rely on this log alone as unproven.",
    ),
    "log-inconsistent": _Meaning(
        "{log} cannot prove that it only grew",
        "Entries seen before may have been changed or removed. Nothing after the last proven entry is being checked.",
        f"Ask the log from another network. {_EXPORT} who watch it if it stays so.",
    ),
    "log-unfrozen": _Meaning(
        "{log} changed after it was declared final",
        "A retired shard must never change again; entries added now are outside every monitor's watch.",
        f"{_EXPORT} who watch this log.",
    ),
    "log-head-refused": _Meaning(
        "{log} serves a tree head that is not its own",
        "Until it is signed by the pinned key under the right origin, nothing new is being checked.",
        "Check that the trust root is fresh and the log's URL, key and tree ID are right. If they are, another server "
        "answers in the log's place: export the evidence and tell its operator.",
    ),
    "log-entries-not-in-tree": _Meaning(
        "{log} serves an entry other than the one it signed",
        "The entry that was signed at this index is not known. Entries from here on are not being checked.",
        f"Ask the log from another network, past any cache. {_EXPORT} who watch it if it stays so.",
    ),
    "log-entry-missing": _Meaning(
        "{log} does not show an entry it signed for",
        "An entry may be hidden from you. Entries from here on are not being checked.",
        f"Ask the log from another network, past any cache. {_EXPORT} who watch it if it stays so.",
    ),
    "log-promise-broken": _Meaning(
        "{log} did not keep a promise to include an entry",
        "A client holds the log's signature that an entry is in it, and it is not: clients accept a signing that "
        "no monitor of the log can see.",
        f"{_EXPORT} who watch this log. Treat the promised entry as a signing that was made and kept out of the log.",
    ),
    "log-shard-vanished": _Meaning(
        "{log} no longer lists a tree it had",
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
"""Kinds that tell of a log's misbehaviour, or of a silence itself."""
CONDITIONS: Final = frozenset({"log-unreachable", "log-stale", "signwatch-ill"})
"""Kinds of alerts about something that lasts: such an alert is resolved when its condition ends."""
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
"""Every kind of alert there is; each has a page `docs/alerts/<kind>.md`."""


def alert_of_evidence(evidence: Evidence, now: datetime) -> Alert:
    """Alert for a log that broke a promise; `evidence.kind` must be one this module knows."""
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
    """Size and root of each signed head in the evidence; empty where one of them cannot be read."""
    try:
        heads = [read_head(raw, LogApi(evidence.api), evidence.key_name, evidence.spki) for raw in evidence.heads]
    except ValueError:
        return []
    return [(head.size, bytes(head.root)) for head in heads]


def with_sightings(alert: Alert, seen: Mapping[tuple[int, bytes], datetime]) -> Alert:
    """The alert with when each of its signed heads, by size and root, was first seen here."""
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
    """The promised entry, for the search for its signer."""
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
        title=f"{log} still grows after its key's time",
        summary=f"The trust root ends the key's validity at {rfc3339(until)}, but it signed size {head.size} since.",
        consequence="Clients no longer accept the heads that this log signs now. Its entries are still being checked.",
        next_step="Check that the trust root is fresh, and ask the operator whether the log is retired.",
        created_at=now,
        facts=(("Log", log), ("Key valid until", rfc3339(until)), ("Size", str(head.size))),
        log=log,
    )


def stale_head_alert(log: str, head: SignedHead | None, since: datetime, now: datetime) -> Alert:
    """Alert for a busy log that answers, but has shown no newer head since `since`: whether it has one cannot be told.

    Silence is no lie: Rekor's heads carry no signed time, and a replica or a cache that shows an old head looks alike.
    """
    return Alert(
        id=alert_id("log-stale", log, since.isoformat()),
        kind="log-stale",
        owner=Owner.COULD_NOT_ASK,
        severity=Severity.PAGE,
        title=f"{log} has not moved for {lasting(now - since)}",
        summary=f"No new head for {lasting(now - since)}, from a log that is busy: the newest is still of size "
        f"{head.size if head else 'unknown'}, first seen {rfc3339(since)}.",
        consequence="Signings made since then may be kept from you. They are not being checked.",
        next_step="Ask the log from another network and compare sizes. If it is quiet or retired, set `busy: false`.",
        created_at=now,
        facts=(("Log", log), ("Since", rfc3339(since))),
        log=log,
    )


def rewound_head_alert(trusted: SignedHead, shown: SignedHead, since: datetime, now: datetime) -> Alert:
    """Alert for a log that has shown nothing but trees older than one it signed before, and still does."""
    log = trusted.log
    return Alert(
        id=alert_id("log-rewound", log, since.isoformat()),
        kind="log-rewound",
        owner=Owner.LOG_MISBEHAVED,
        severity=Severity.PAGE,
        title=f"{log} went back from {trusted.size} to {counted(shown.size, 'entry')}",
        summary=f"It signed size {trusted.size} before and has shown nothing newer since {rfc3339(since)}; now it "
        f"shows size {shown.size}, which that tree does contain.",
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

    `answered` says that it does show signed heads, but nothing they could be checked with.
    """
    span = lasting(now - since)
    unproven = f"{log} answers, but for {span} never with a proof that can be checked"
    consequence = "New entries of this log are not being checked; none is lost, they are read when it answers."
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
        next_step="Ask the log from another network: a log that keeps its proofs from you alone has something to hide. "
        "Tell its operator."
        if answered
        else "Check the network and the log's status page. Nothing needs to be reset.",
        created_at=now,
        facts=(("Log", log), ("Reason", reason), ("Since", rfc3339(since))),
        log=log,
    )


def promises_unasked_alert(log: str, overdue: Overdue, now: datetime) -> Alert:
    """Alert for overdue promises that the log could not be asked for since `overdue.since`."""
    since = rfc3339(overdue.since)
    return Alert(
        id=alert_id("log-promise-unasked", overdue.log_id, since),
        kind="log-promise-unasked",
        owner=Owner.COULD_NOT_ASK,
        severity=Severity.WARN,
        title=f"{log} cannot be asked whether it kept {overdue.promises} overdue promises",
        summary=f"The oldest was to be kept by {since}. {overdue.why}",
        consequence="The log may have promised an entry that it does not show. Following goes on.",
        next_step="Ask the log from another network: one that refuses this question alone has something to hide. Tell "
        "its operator. After a month the promises are given up.",
        created_at=now,
        facts=(("Log", log), ("Promises", str(overdue.promises)), ("Since", since)),
        log=log,
    )


def promises_given_up_alert(log: str, overdue: Overdue, now: datetime) -> Alert:
    """Alert for promises that nothing was found out about in a month, and that are forgotten now."""
    since = rfc3339(overdue.since)
    return Alert(
        id=alert_id("log-promise-unasked", overdue.log_id, since, "given up"),
        kind="log-promise-unasked",
        owner=Owner.COULD_NOT_ASK,
        severity=Severity.WARN,
        title=f"{counted(overdue.promises, 'promise')} of {log} given up",
        summary=f"The oldest was to be kept by {since}. {overdue.why}",
        consequence="Whether the log kept them will not be known here.",
        next_step="When the log answers, check the bundles that hold them with `signwatch check-bundle`.",
        created_at=now,
        facts=(("Log", log), ("Promises", str(overdue.promises)), ("Since", since)),
        log=log,
    )


def own_fault_alert(what: str, detail: str, since: datetime, now: datetime) -> Alert:
    """Alert for our own illness: `what` is a short fixed word such as `database`, `delivery`, `backlog`."""
    return Alert(
        id=alert_id("signwatch-ill", what, since.isoformat()),
        kind="signwatch-ill",
        owner=Owner.OURSELVES,
        severity=Severity.PAGE,
        title=f"Signwatch itself is in trouble: {what}",
        summary=detail,
        consequence="Logs are not being checked as promised until this is mended. No finding is lost.",
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
        title=f"{log} names {counted(count, 'tree')} that we do not follow",
        summary=f"Not followed: {counted(count, 'inactive tree')} of its list, without a head that the log's key "
        "signed, or beyond the newest ones that are taken up. The list is not signed: the server, or a proxy in "
        "between, may have made it up.",
        consequence="Entries of these trees are not being checked. All others are followed.",
        next_step="Ask the log's operator which trees there are. One that you want followed is a log of its own in the "
        "configuration, with `tree_id` and its key.",
        created_at=now,
        facts=(("Log", log), ("Trees left out", str(count))),
        log=log,
    )


def back_scan_stuck_alert(log: str, detail: str, remaining: int, since: datetime, now: datetime) -> Alert:
    """Alert for a range of a log that rules ask to be looked at and that could not be had since `since`."""
    return Alert(
        id=alert_id("back-scan-stuck", log, since.isoformat()),
        kind="back-scan-stuck",
        owner=Owner.COULD_NOT_ASK,
        severity=Severity.WARN,
        title=f"Looking back in {log} has not got on for {lasting(now - since)}",
        summary=detail,
        consequence=f"Rules wait for {counted(remaining, 'older entry')}. New entries are followed.",
        next_step="Nothing needs to be reset: it goes on where it stands once the log answers. If the log no longer "
        "serves old entries, ask its operator, or take back the rule's `backscan`.",
        created_at=now,
        facts=(("Log", log), ("Entries left", str(remaining)), ("Since", rfc3339(since))),
        log=log,
    )


def witness_alerts(
    policy: WitnessPolicy, witnessed: Witnessed, head: SignedHead, now: datetime, patience: timedelta
) -> Sequence[Alert]:
    """One alert a day for a log that had too few witnesses for longer than `patience`; none otherwise.

    Witnesses cosign after the log signs, so a newest head without them is ordinary for a while.
    """
    cosigning, standing = witnessed.cosigning, witnessed.standing
    since = standing.short_since
    if since is None or now - since <= patience:
        return ()
    facts = [("Log", head.log), ("Size", str(head.size)), ("Required", f"{policy.required} of {len(policy.names)}")]
    facts += [("Cosigned by", ", ".join(cosigning.present) or "no witness")]
    facts += [("Missing", f"{name} since {rfc3339(at)}") for name, at in standing.missing_since]
    return (
        Alert(
            id=alert_id("witness-missing", head.log, day_of(now)),
            kind="witness-missing",
            owner=Owner.COULD_NOT_ASK,
            severity=Severity.WARN,
            title=f"{head.log} is seen by too few witnesses",
            summary=f"{len(cosigning.present)} of {counted(policy.required, 'wanted witness')} cosigned the newest "
            f"head of late; it has been too few since {rfc3339(since)}.",
            consequence="Entries are being checked as before, but only the log's own word says that others see the "
            "same history. This shows no wrongdoing of the log.",
            next_step="Ask the missing witnesses' operators, and compare heads with another installation: "
            "`signwatch peers compare`.",
            created_at=now,
            facts=tuple(facts),
            log=head.log,
        ),
    )

"""Contents of a report as plain values: logs, ranges, signed heads, hours watched, findings, alerts, evidence.

All values come from the database, without requests to logs. The signatures of the heads are verified again, so that
a report holds only heads that the named key signed.
"""

import base64
import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct

from alerts.alert import Owner, rfc3339
from monitor.config import Config, LogConfig
from monitor.daemon.followed_logs import configured_logs
from monitor.daemon.trust_watch import history_of
from monitor.model.errors import OwnFault
from monitor.model.log_source import LogApi, read_head
from monitor.program import VERSION
from monitor.store.events import Event, Events, FindingFilter
from monitor.store.history import History, Pause, SeenHead, Span, pauses
from monitor.store.reading import AlertsAbout, Followed, KeptAlert, KeptEvidence, Reading
from monitor.store.store import Store
from monitor.trust.history import TrustHistory
from monitor.trust.trust_root import TrustedLog

MEDIA_TYPE: Final = "application/vnd.signwatch.report+json"
VERSION_OF_REPORT: Final = 1
_MOST_EVENTS: Final = 500
_MOST_ALERTS: Final = 1_000
_MOST_EVIDENCE: Final = 200
_MOST_PAUSES: Final = 100


class ReportPeriod(Struct, frozen=True):
    """Times `[begin, end)` of a report; `end` is not after the time at which the report is made."""

    begin: datetime
    end: datetime


class RecordedTrust(Struct, frozen=True):
    """Trust roots as the database holds them, without a request for newer ones."""

    recorded: TrustHistory

    def history(self) -> TrustHistory:
        """Every root."""
        return self.recorded


def report_document(config: Config, store: Store, period: ReportPeriod, now: datetime) -> dict[str, Any]:
    """The report as plain JSON types. Raises `OwnFault` when a recorded trust root cannot be read any more."""
    reading, events, history = Reading(store.database), Events(store.database), History(store.database)
    wanted = FindingFilter(begin=period.begin, end=period.end)
    roots = store.trust_roots()
    keys = _keys(config, history_of(store))
    followed = reading.followed()
    logs = [
        _log(name, history, followed.get(name), keys.get(name.partition("/")[0]), period)
        | _watched(
            history.spans(name, period.begin, period.end, now, config.longest_pause(name)),
            period,
            history.trouble_before(name, period.begin),
        )
        for name in sorted({*history.logs(), *followed})
    ]
    counts = events.count(wanted)
    listed = events.newest(_MOST_EVENTS, wanted)
    alerts = reading.alerts(_MOST_ALERTS + 1, about=AlertsAbout(begin=period.begin, end=period.end))
    evidence = reading.evidence(_MOST_EVIDENCE + 1)
    standing = [each for each in evidence if _stood_in(each, period)]
    return {
        "mediaType": MEDIA_TYPE,
        "version": VERSION_OF_REPORT,
        "made_at": rfc3339(now),
        "made_by": f"signwatch {VERSION}",
        "from": rfc3339(period.begin),
        "to": rfc3339(period.end),
        "hours": round((period.end - period.begin).total_seconds() / 3600, 2),
        "logs": logs,
        "trust_roots": [
            {"sha256": each.fingerprint, "seen_at": rfc3339(each.seen_at)}
            for number, each in enumerate(roots)
            if each.seen_at < period.end and (number + 1 == len(roots) or roots[number + 1].seen_at > period.begin)
        ],
        "events": counts,
        "findings": [_event(each) for each in listed],
        "findings_left_out": max(0, sum(counts.values()) - len(listed)),
        "alerts": [_alert(each) for each in alerts[:_MOST_ALERTS]],
        "alerts_left_out": len(alerts) > _MOST_ALERTS,
        "canary": dict(store.canaries.counts(period.begin, period.end)),
        "evidence": [_evidence(each, period) for each in standing[:_MOST_EVIDENCE]],
        "evidence_left_out": len(evidence) > _MOST_EVIDENCE,
    }


def signed_head_document(raw: bytes) -> dict[str, str]:
    """A signed head, byte for byte as the log served it: as text where it is text, else in base64."""
    with suppress(UnicodeDecodeError):
        return {"text": raw.decode("utf-8")}
    return {"base64": base64.b64encode(raw).decode()}


def _keys(config: Config, history: TrustHistory) -> dict[str, TrustedLog]:
    """Key of each configured log, by its name, as far as the recorded trust roots hold it."""
    found: dict[str, TrustedLog] = {}
    if not history.roots:
        return found
    root = history.followable()
    logs: Sequence[LogConfig] = configured_logs(config, RecordedTrust(history))
    for log in logs:
        with suppress(OwnFault):
            found[log.name] = root.log_at(log.url, log.api, log.log_id)
    return found


def _log(
    name: str, history: History, followed: Followed | None, key: TrustedLog | None, period: ReportPeriod
) -> dict[str, Any]:
    count, heads = history.heads_between(name, period.begin, period.end)
    within = [head for head in heads if head.seen_at >= period.begin]
    before = [head for head in heads if head.seen_at < period.begin]
    shown = [_head(head, key) for head in heads]
    return {
        "log": name,
        "url": key.url if key is not None else None,
        "key_id": key.log_id.hex() if key is not None else None,
        "key": base64.b64encode(key.spki).decode() if key is not None else None,
        "baseline": None
        if followed is None
        else {"size": followed.baseline_size, "at": rfc3339(followed.baseline_at), "how": followed.baseline_how},
        "entries": _range(history, name, followed, period),
        "size_before": before[-1].size if before else None,
        "heads_seen": count,
        "heads": shown,
        "heads_left_out": max(0, count - len(within)),
    }


def _watched(spans: Sequence[Span], period: ReportPeriod, before: Owner | None) -> dict[str, Any]:
    """The times outside all spans; `before` is the owner of a pause that began before the period."""
    missed = list(pauses(spans, period.begin, period.end, before))
    lost = sum((each.length for each in missed), timedelta())
    return {
        "seconds_watched": int((period.end - period.begin - lost).total_seconds()),
        "seconds_not_watched": int(lost.total_seconds()),
        "not_watched": [_pause(each) for each in sorted(missed, key=_longest_first)[:_MOST_PAUSES]],
        "pauses": len(missed),
    }


def _range(history: History, name: str, followed: Followed | None, period: ReportPeriod) -> dict[str, int] | None:
    """Entries `[from, to)` that were read, proven and judged on the days of the period."""
    days = history.days(name, period.begin.date(), (period.end - timedelta(microseconds=1)).date())
    if followed is None or not days:
        return None
    first = max(days[0].first, followed.baseline_size)
    return {"from": first, "to": max(first, min(days[-1].last, followed.position.frontier.size))}


def _head(head: SeenHead, key: TrustedLog | None) -> dict[str, Any]:
    return {
        "size": head.size,
        "root": head.root.hex(),
        "final": head.final,
        "seen_at": rfc3339(head.seen_at),
        "signed": signed_head_document(head.raw),
        "verified_again": _is_signed(head, key),
    }


def _is_signed(head: SeenHead, key: TrustedLog | None) -> bool:
    """True if the log's key signed exactly this head."""
    if key is None:
        return False
    text = head.raw.decode("utf-8", "replace")
    # SPEC C2SP signed-note: a signature line is an em dash, the key's name and the signature.
    names = {line.split(" ")[1] for line in text.splitlines() if line.startswith("\u2014 ") and line.count(" ") > 1}
    for api in key.apis:
        for name in sorted(names)[:16] if api is not LogApi.CT_RFC6962 else [""]:
            with suppress(ValueError):
                statement = read_head(head.raw, api, name, key.spki)
                return (statement.size, bytes(statement.root)) == (head.size, head.root)
    return False


def _longest_first(pause: Pause) -> tuple[timedelta, datetime]:
    return -pause.length, pause.began


def _pause(pause: Pause) -> dict[str, Any]:
    return {
        "from": rfc3339(pause.began),
        "to": rfc3339(pause.ended),
        "seconds": int(pause.length.total_seconds()),
        "trouble": pause.trouble.value if pause.trouble is not None else "not-running",
    }


def _event(event: Event) -> dict[str, Any]:
    worst = event.worst
    names = [name["value"] for signer in worst.signing.get("signers", ()) for name in signer["names"]]
    return {
        "outcome": event.outcome,
        "found_at": rfc3339(worst.found_at),
        "kind": worst.signing.get("kind"),
        "names": names[:10],
        "rules": list(event.rules),
        "entries": [{"log": log, "index": index} for log, index in event.entries],
        "reasons": [dict(reason) for reason in worst.reasons],
    }


def _alert(kept: KeptAlert) -> dict[str, Any]:
    alert = kept.alert
    return {
        "id": alert.id,
        "at": rfc3339(kept.enqueued_at),
        "kind": alert.kind,
        "owner": alert.owner.value,
        "severity": alert.severity.value,
        "title": alert.title,
        "log": alert.log,
        "index": alert.index,
        "rule": alert.rule,
        "state": kept.state,
        "acknowledged_at": rfc3339(kept.acknowledged_at) if kept.acknowledged_at is not None else None,
        "acknowledged_by": kept.acknowledged_by,
        "note": kept.note,
        "deliveries": dict(kept.deliveries),
    }


def _stood_in(piece: KeptEvidence, period: ReportPeriod) -> bool:
    """True if evidence was kept in the period, or was open in it."""
    return piece.kept_at < period.end and (
        piece.kept_at >= period.begin or piece.closed_at is None or piece.closed_at >= period.begin
    )


def _evidence(piece: KeptEvidence, period: ReportPeriod) -> dict[str, Any]:
    closed = piece.closed_at if piece.closed_at is not None and piece.closed_at < period.end else None
    return {
        "id": piece.id,
        "log": piece.log,
        "kind": piece.kind,
        "kept_at": rfc3339(piece.kept_at),
        "detail": piece.document.get("detail"),
        "closed_at": rfc3339(closed) if closed is not None else None,
        "note": piece.note if closed is not None else None,
        "document": json.loads(json.dumps(piece.document)),
    }

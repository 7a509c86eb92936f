"""Findings and unreadable entries as rows."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, and_, select

from monitor.model.state import Batch, Finding
from monitor.store.columns import text_key
from monitor.store.past import add_past, is_past, set_past
from monitor.store.seals import change_sealed
from monitor.store.site_tables import FindingName
from monitor.store.tables import FindingRow, KindCount, Unreadable, table
from monitor.store.writing import add_new, add_up
from rules.rule import CT_KINDS
from rules.selected import Selected
from rules.subject import names_of
from rules.verdict import Reason
from sigstore_entries.signing import ChainTrust, SignatureCheck, Signer, SignerForm, Signing

_SAID_BY_AUTHORITY: Final = ("timestamp-response", "integrated-time", "ct-timestamp")


def add_findings(connection: Connection, findings: Sequence[Finding], now: datetime) -> None:
    """Store findings; those already known are left alone."""
    add_new(connection, table(FindingRow), [_row(finding, now) for finding in findings])
    _add_names(connection, findings)
    add_past(connection, findings)


def vouched_for(connection: Connection, finding: Finding, now: datetime) -> None:
    """Replace a finding that no authority vouched for by what it is now; when it was found stays."""
    row, found = _row(finding, now), table(FindingRow).c
    here = and_(found.log == row["log"], found.entry == row["entry"], found.rule == row["rule"])
    changed = {name: value for name, value in row.items() if name not in {"log", "entry", "rule", "found_at"}}
    change_sealed(connection, table(FindingRow), here, changed)
    add_past(connection, [finding])
    set_past(connection, finding.signing.where, finding.rule, past=is_past(finding))


def _add_names(connection: Connection, findings: Sequence[Finding]) -> None:
    """File signings under their names, for looking one up: each entry once, however many rules select it."""
    signings = {finding.signing.where: finding.signing for finding in findings}
    rows = {
        (text_key(name), where.log, where.index) for where, signing in signings.items() for name in names_of(signing)
    }
    add_new(connection, table(FindingName), [{"name_key": key, "log": log, "entry": index} for key, log, index in rows])


def add_unreadable(connection: Connection, batch: Batch, now: datetime) -> None:
    """Store undecodable entries, and count the kinds in the batch."""
    rows = [
        {
            "log": each.unreadable.where.log,
            "entry": each.unreadable.where.index,
            "code": each.unreadable.code,
            "reason": each.unreadable.reason,
            "leaf": each.leaf,
            "seen_at": now,
        }
        for each in batch.unreadable
    ]
    add_new(connection, table(Unreadable), rows)
    counts = [{"log": batch.log, "kind": kind, "entries": count} for kind, count in sorted(batch.kinds.items())]
    add_up(connection, table(KindCount), counts, ("log", "kind"))


def known_findings(connection: Connection, batch: Batch) -> set[tuple[str, int, str]]:
    """Findings of the batch's range that are already stored, as (log, index, rule)."""
    if not batch.findings:
        return set()
    found = table(FindingRow)
    stored = select(found.c.log, found.c.entry, found.c.rule).where(
        found.c.log == batch.log, found.c.entry >= batch.start, found.c.entry < batch.end
    )
    return {(row.log, row.entry, row.rule) for row in connection.execute(stored)}


def is_certificate_only(signing: Signing) -> bool:
    """Whether the entry is a certificate in a CT log: its holder may sign, and no signature is known yet."""
    return signing.kind in CT_KINDS


def signed_at(selected: Selected, otherwise: datetime) -> datetime:
    """When it was signed: by a vouched signer's certificate first, then by an authority, else when it was found."""
    starts = [signer.not_before for signer in selected.vouched if signer.not_before is not None]
    times = selected.signing.times
    told = [time.at for source in _SAID_BY_AUTHORITY for time in times if time.source == source]
    return next(iter([*starts, *told]), otherwise)


def signing_document(signing: Signing) -> dict[str, Any]:
    """What people and scripts are shown of a signing, as plain JSON types. The entry itself is kept beside it."""
    return {
        "log": signing.where.log,
        "index": signing.where.index,
        "kind": signing.kind,
        "version": signing.version,
        "signers": [_signer_document(signer) for signer in signing.signers],
        "digests": [{"algorithm": each.algorithm, "value": each.value, "of": each.of} for each in signing.digests],
        "times": [{"source": time.source, "at": time.at.isoformat()} for time in signing.times],
    }


def _signer_document(signer: Signer) -> dict[str, Any]:
    return {
        "form": SignerForm(signer.form).value,
        "names": [{"form": name.form.value, "value": name.value} for name in signer.names],
        "issuer": signer.issuer,
        "claims": dict(signer.claims),
        "fingerprints": list(signer.fingerprints),
        "not_before": signer.not_before.isoformat() if signer.not_before else None,
        "trust": ChainTrust(signer.trust).value,
        "trusted_by": signer.trusted_by,
        "sct_verified": signer.sct_verified,
        "signature": SignatureCheck(signer.signature).value,
        "only_listed": list(signer.only_listed),
        "maybe_signed": list(signer.maybe_signed),
        "defects": list(signer.defects),
    }


def _reason_document(reason: Reason) -> dict[str, str]:
    return {"id": reason.id, "sentence": reason.sentence, "expected": reason.expected, "found": reason.found}


def _row(finding: Finding, now: datetime) -> dict[str, Any]:
    signing = finding.signing
    return {
        "log": signing.where.log,
        "entry": signing.where.index,
        "rule": finding.rule,
        "outcome": finding.verdict.outcome.value,
        "reasons": json.dumps([_reason_document(reason) for reason in finding.verdict.reasons]),
        "kind": signing.kind,
        "signing": json.dumps(signing_document(signing)),
        "leaf": finding.leaf,
        "signed_at": signed_at(finding.selected, now),
        "counts": bool(finding.selected.vouched),
        "certificate_log": is_certificate_only(signing),
        "found_at": now,
    }

"""`signwatch backscan`: offer the rules all older entries that they were never offered, at once and on all cores."""

import time
from contextlib import ExitStack
from typing import Annotated, Final

import typer
from msgspec.structs import replace

from monitor.backscan.progress import PassingProgress, ScanState
from monitor.backscan.range import NotInLog
from monitor.backscan.step import missing_ranges, offer_gap, recording_of
from monitor.commands.scan import tell_evidence
from monitor.commands.scan_output import Tell, progress, show_findings, stored
from monitor.commands.scan_parts import (
    JobsOption,
    PatienceOption,
    RuleOption,
    ScanParts,
    ScanTally,
    open_store,
    scan_parts,
)
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, JsonOption, leave
from monitor.config import load_config
from monitor.daemon.assembly import from_archive
from monitor.daemon.log_sources import UnknownLogName, opened_trees
from monitor.following.follower import Timing
from monitor.judging.judge import RuleJudge
from monitor.model.log_source import CT_APIS, LogSource
from monitor.model.state import Batch
from monitor.program import utc_now
from monitor.store.coverage import Gap
from monitor.store.store import Store

# Covered ranges of very many rules are written at the end of a piece, so a kill repeats at most one piece.
_PIECE: Final = 1 << 16


def backscan(
    *,
    log: Annotated[
        str | None, typer.Option("--log", help="Only this log, or one tree of it: NAME or NAME/TREE.")
    ] = None,
    first: Annotated[
        int | None, typer.Option("--from", min=0, help="First entry; by default the first entry that was followed.")
    ] = None,
    only: RuleOption = None,
    jobs: JobsOption = None,
    patience: PatienceOption = 120,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Offer the rules every older entry that they were never offered, and record the findings.

    Use it after adding a rule; the daemon's `backscan` setting does the same in small steps. `signwatch run` sends
    alerts about unexpected signings at the next full hour, marked as looking back. A run that was ended continues
    from its last point. Exits 1 when an unexpected signing was found or a log misbehaved, 3
    when an entry cannot be read.

    Examples:
      signwatch backscan
      signwatch backscan --rule acme-release --log rekor-v2 --from 0
    """
    tally, ranges = ScanTally(), []
    with ExitStack() as parts:
        shared = scan_parts(load_config(config), None, only, jobs, patience=patience, parts=parts, opened=open_store)
        store = shared.store
        try:
            trees = parts.enter_context(
                opened_trees(shared.config, shared.trust, store, Timing(utc_now, time.sleep), log)
            )
            # Entries before certificates: a signing with an alert for its entry gets no second alert for its
            # certificate.
            for source in sorted(trees, key=lambda source: source.identity.api in CT_APIS):
                for gap in missing_ranges(store, source.identity.log, shared.selections, first):
                    _offer(shared, source, gap, tally, as_json=as_json)
                    told = {"log": source.identity.log, "from": gap.first, "to": gap.last, "rules": len(gap.rules)}
                    ranges.append(told)
        except (UnknownLogName, NotInLog) as error:
            raise typer.BadParameter(str(error)) from error
        tally.summarise({"ranges": ranges}, as_json=as_json)
    raise leave(tally.code())


def _offer(parts: ScanParts[Store], source: LogSource, gap: Gap, tally: ScanTally, *, as_json: bool) -> None:
    store = parts.store
    judge = RuleJudge(parts.pool.matcher, store.facts, parts.trust.authorities)
    with progress(source.identity.log, gap.first, gap.last, gap.first) as tell:
        ask = from_archive(
            parts.config.archive,
            store,
            parts.world.timing.clock,
            lambda batch: _show(batch, tally, tell, as_json=as_json),
            tell_evidence,
        )
        first = gap.first
        while first < gap.last:
            archived = None
            if ask is not None:
                archived = ask(source, replace(gap, first=first), parts.pool.matcher, parts.selections, judge)
            if archived is not None:
                first = archived.last
                continue
            state = ScanState(
                PassingProgress(),
                store,
                recording=recording_of(gap.rules, parts.selections, parts.world.timing.clock),
                on_evidence=tell_evidence,
                on_batch=lambda batch: _show(batch, tally, tell, as_json=as_json),
            )
            piece = replace(gap, first=first, last=min(first + _PIECE, gap.last))
            offer_gap(
                source, store, piece, parts.selections, state=state, judge=judge, pool=parts.pool, world=parts.world
            )
            first = piece.last


def _show(batch: Batch, tally: ScanTally, tell: Tell, *, as_json: bool) -> None:
    tally.entries += batch.end - batch.start
    tally.unreadable += len(batch.unreadable)
    tally.dropped += batch.matches_dropped
    tally.findings.update(finding.verdict.outcome.value for finding in batch.findings)
    show_findings(tally.passing(map(stored, batch.findings)), as_json=as_json)
    tell(batch.end)

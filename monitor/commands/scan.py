"""`signwatch scan`: run rules over any range of any log, and report."""

import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from monitor.backscan.ledger import ScanLedger, Scope, Unfinished, open_ledger
from monitor.backscan.progress import PassingProgress, Progress, ScanState
from monitor.backscan.range import NotInLog, ScanFacts, begin_range, scan_range
from monitor.commands.dask import (
    DaskCaOption,
    DaskCertOption,
    DaskCheckOption,
    DaskKeyOption,
    DaskOption,
    cluster_options,
    connected,
    reading,
)
from monitor.commands.scan_output import progress, show_findings
from monitor.commands.scan_parts import (
    PatienceOption,
    RuleOption,
    ScanParts,
    ScanTally,
    open_store,
    scan_parts,
)
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, leave, note
from monitor.config import Config, load_config
from monitor.daemon.log_sources import NamedTree, UnknownLogName, only_tree, opened_named
from monitor.following.follower import Timing
from monitor.following.workers import ScanPool, usable_jobs
from monitor.judging.digest_lists import DigestLists
from monitor.judging.judge import RuleJudge
from monitor.model.errors import Evidence
from monitor.model.log_source import LogSource, Position
from monitor.model.state import Batch
from monitor.program import utc_now
from monitor.proof.evidence import event_id, to_document
from monitor.store.database import sqlite_path
from monitor.store.facts import DatabaseFacts
from monitor.store.store import Store

if TYPE_CHECKING:
    from monitor.cluster.pipeline import ClusterScanWorkers
    from monitor.cluster.workers import ClusterOptions

_FOLDER: Final = "scans"
# Entries that this process examines in less time than it takes to fork others and to end them.
_SHORT: Final = 2_000


def scan(
    *,
    log: Annotated[str, typer.Option("--log", help="The log, or one tree of it: NAME or NAME/TREE.")],
    first: Annotated[int, typer.Option("--from", min=0, help="First entry.")],
    last: Annotated[
        int | None, typer.Option("--to", min=0, help="Entry to stop before; the log's head if left out.")
    ] = None,
    rules: Annotated[Path | None, typer.Option("--rules", help="A rule file; the configured one by default.")] = None,
    only: RuleOption = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, max=256, help="Processes; by default one per core, and one for a short range."
        ),
    ] = None,
    patience: PatienceOption = 120,
    dask: DaskOption = None,
    dask_check: DaskCheckOption = None,
    dask_tls_ca: DaskCaOption = None,
    dask_tls_cert: DaskCertOption = None,
    dask_tls_key: DaskKeyOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    resume: Annotated[bool, typer.Option("--resume", help="Continue this scan from its last point.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines: one per finding, and a summary.")] = False,
) -> None:
    """Run rules over a range of a log, on all cores, and report. Every entry is proven to be in the signed tree.

    The command prints findings and sends no alert; `signwatch backscan` records findings and sends alerts. Continue
    an interrupted scan with --resume. Exits 1 when an unexpected signing was found or the log misbehaved, 3 when an
    entry in the range cannot be read. With --dask the workers of a Dask cluster read the log: this command proves
    each of their ranges before its findings count (docs/scale.md).

    Examples:
      signwatch scan --log rekor-v2 --from 0 --to 100000
      signwatch scan --log rekor-v2 --from 0 --rules draft.yaml --json > findings.jsonl
      signwatch scan --log rekor-v2 --from 0 --to 100000 --resume
      signwatch scan --log rekor-v2 --from 0 --dask tls://scheduler:8786
    """
    tally = ScanTally()
    cluster = cluster_options(dask, dask_check, (dask_tls_ca, dask_tls_cert, dask_tls_key), usable_jobs(jobs))
    with ExitStack() as parts:
        settings = load_config(config)
        if cluster or (jobs is None and last is not None and last - first <= _SHORT):
            jobs = 1
        shared = scan_parts(settings, rules, only, jobs, patience=patience, parts=parts, opened=_store_if_there)
        digest = sha256((rules or settings.rules).read_bytes() + json.dumps(sorted(only or ())).encode()).hexdigest()
        timing = Timing(utc_now, time.sleep)
        try:
            trees = parts.enter_context(opened_named(shared.config, shared.trust, shared.store, timing, log))
            source = only_tree([tree.source for tree in trees], log)
            scope = Scope(source.identity.log, sha256(source.identity.spki).hexdigest(), first, last, digest)
            pool: ClusterScanWorkers | ScanPool = shared.pool
            if cluster is not None:
                pool = _on_workers(cluster, trees[0], shared, parts)
            _scan(shared, source, pool, scope, tally, resume=resume, as_json=as_json)
        except (UnknownLogName, NotInLog, Unfinished) as error:
            raise typer.BadParameter(str(error)) from error
    raise leave(tally.code())


def _on_workers(
    options: "ClusterOptions", tree: NamedTree, shared: ScanParts[Store | None], parts: ExitStack
) -> "ClusterScanWorkers | ScanPool":
    workers = parts.enter_context(connected(options))
    if workers is None:
        return shared.pool
    from monitor.cluster.pipeline import ClusterScanWorkers

    run = parts.enter_context(reading(workers, tree, shared.rules))
    return ClusterScanWorkers(run, tree.source, options.checked, shared.pool.matcher)


def _store_if_there(config: Config, lists: DigestLists) -> Store | None:
    path = sqlite_path(config.database)
    if path is None or path.exists():
        return open_store(config, lists)
    note("there is no database yet, so the log's heads are compared with no earlier ones", "yellow")
    return None


def _scan(
    parts: ScanParts[Store | None],
    source: LogSource,
    pool: "ClusterScanWorkers | ScanPool",
    scope: Scope,
    tally: ScanTally,
    *,
    resume: bool,
    as_json: bool,
) -> None:
    """Scan the range with a ledger; print findings once the whole range is proven."""
    log, first = scope.log, scope.first
    known = parts.store.position(log) if parts.store is not None else None

    def begin() -> tuple[Position, int]:
        state, trusted = _state(parts, PassingProgress()), known.head if known is not None else None
        return begin_range(source, trusted, first, scope.last, state=state, world=parts.world)

    with open_ledger(parts.config.base / _FOLDER, scope, begin, utc_now, parts.lists.digests, resume=resume) as ledger:
        at = ledger.position(log)
        with progress(log, first, ledger.last, at.frontier.size if at else first) as tell:
            state = _state(parts, ledger, lambda batch: tell(batch.end))
            judge = RuleJudge(pool.matcher, _facts(parts, ledger), parts.trust.authorities, final=True)
            reached = scan_range(source, state, judge, pool, last=ledger.last, world=parts.world)
        tally.entries, tally.findings = ledger.last - first, Counter(ledger.outcomes())
        tally.unreadable, tally.dropped = sum(ledger.unreadable().values()), ledger.dropped()
        show_findings(tally.passing(ledger.findings()), as_json=as_json)
        head = reached.head.head
        about = {"log": log, "from": first, "to": ledger.last, "head": {"size": head.size, "root": head.root.hex()}}
        tally.summarise(about | {"kinds": ledger.kinds()}, as_json=as_json)


def _state(
    parts: ScanParts[Store | None], at: Progress, on_batch: Callable[[Batch], None] = lambda _: None
) -> ScanState:
    def keep(evidence: Evidence) -> None:
        if parts.store is None:
            _write_evidence(parts.config.base / _FOLDER, evidence)
        else:
            tell_evidence(evidence)

    return ScanState(at, parts.store, on_evidence=keep, on_batch=on_batch)


def _facts(parts: ScanParts[Store | None], ledger: ScanLedger) -> DatabaseFacts | ScanFacts:
    """Facts for judgements: only entries of this scan count as the past, so that findings depend on the range alone."""
    if parts.store is None:
        return ledger.store.facts
    return ScanFacts(ledger.store.facts, parts.store.facts)


def tell_evidence(evidence: Evidence) -> None:
    """Say that evidence was kept in the database, and the command that exports it."""
    note(f"evidence {event_id(evidence)} is kept: `signwatch evidence export {event_id(evidence)[:8]}`", "bold red")


def _write_evidence(folder: Path, evidence: Evidence) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"evidence-{event_id(evidence)}.json"
    path.write_text(json.dumps(to_document(evidence), indent=2) + "\n", encoding="utf-8")
    note(f"wrote {path}; `signwatch evidence verify {path.name}` checks it as others would", "bold red")

"""`signwatch scan`: run rules over any range of any log, or over what they have not seen yet."""

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from monitor.backscan.facts import ScanFacts
from monitor.backscan.ledger import Ledger, Scope, Unfinished, open_ledger
from monitor.backscan.missing import missing_ranges
from monitor.backscan.progress import PassingProgress, Progress, Recording, ScanState, SomeRules
from monitor.backscan.range import NotInLog, World, begin_range, scan_range, waits
from monitor.commands.scan_output import json_line, progress, show_findings, stored
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, leave, note
from monitor.config import BadConfig, Config, load_config
from monitor.daemon.assembly import configured_logs, hold_of, route_of, tell_facts, utc_now
from monitor.daemon.named_logs import UnknownLog, only_tree, opened_trees
from monitor.daemon.trust_watch import trust_of
from monitor.following.pool import ExaminerPool, usable_jobs
from monitor.following.timing import Timing
from monitor.judging.active_rules import RuleKeeper, read_rules
from monitor.judging.digest_lists import DigestLists
from monitor.judging.judge import RuleJudge
from monitor.model.errors import Evidence
from monitor.model.heads import Position
from monitor.model.log_source import LogApi, LogSource
from monitor.model.state import Batch
from monitor.proof.evidence import event_id, to_document
from monitor.store.coverage import Gap
from monitor.store.database import open_database, sqlite_path
from monitor.store.facts import DatabaseFacts
from monitor.store.store import Store
from monitor.trust.provider import TrustKeeper
from rules.index import TooManyUnindexed, compile_rules
from rules.rule import Rule

_FOLDER: Final = "scans"
_CT: Final = frozenset({LogApi.CT_RFC6962, LogApi.CT_STATIC})


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked for on the command line."""

    log: str | None
    first: int | None
    last: int | None
    record: bool
    deliver: bool
    resume: bool
    as_json: bool


@dataclass(frozen=True, slots=True)
class _Parts:
    """What every scan of one run shares. `digest` is of the rules as they stand in the file."""

    config: Config
    rules: tuple[Rule, ...]
    digest: str
    pool: ExaminerPool
    trust: TrustKeeper
    store: Store | None
    lists: DigestLists
    world: World

    @property
    def selections(self) -> dict[str, str]:
        """Rule ids to what they select."""
        return {rule.id: rule.selection_id() for rule in self.rules}


@dataclass(slots=True)
class _Tally:
    """What the scans of one run read and found."""

    entries: int = 0
    findings: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0

    def code(self) -> Exit:
        """What it comes to."""
        return Exit.MISBEHAVED if self.findings["unexpected"] else Exit.FINE


def scan(
    *,
    log: Annotated[str | None, typer.Option("--log", help="The log, or one tree of it: NAME or NAME/TREE.")] = None,
    first: Annotated[int | None, typer.Option("--from", min=0, help="First entry.")] = None,
    last: Annotated[
        int | None, typer.Option("--to", min=0, help="Entry to stop before; the log's head if left out.")
    ] = None,
    rules: Annotated[Path | None, typer.Option("--rules", help="A rule file; the configured one by default.")] = None,
    only: Annotated[list[str] | None, typer.Option("--rule", help="Only this rule; may be given again.")] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, max=256, help="Processes; one per core by default.")
    ] = None,
    patience: Annotated[int, typer.Option("--patience", min=0, help="Seconds to wait for a log that is down.")] = 120,
    config: ConfigOption = DEFAULT_CONFIG,
    missing: Annotated[
        bool, typer.Option("--missing", help="Whatever the rules were not offered yet. Records.")
    ] = False,
    record: Annotated[bool, typer.Option("--record", help="Keep findings and covered ranges in the database.")] = False,
    deliver: Annotated[
        bool, typer.Option("--deliver", help="With --record: also alert on what is unexpected.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with this very scan where it was ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines: one per finding, and a summary.")] = False,
) -> None:
    """Run rules over a range of a log, on all cores. Every entry is proven to be what the log signed.

    Nobody is alerted unless you say so. A scan that was ended goes on with --resume. With --missing, rules see what
    they were not offered so far: that is how a new rule learns of the past. Exits 1 when something unexpected was
    signed or the log misbehaved.

    Examples:
      signwatch scan --log rekor-v2 --from 0 --to 100000
      signwatch scan --log rekor-v2 --from 0 --rules draft.yaml --json > findings.jsonl
      signwatch scan --log rekor-v2 --from 0 --to 100000 --resume
      signwatch scan --rule acme-release --missing
    """
    wanted = _Wanted(log, first, last, record or missing, deliver, resume, as_json)
    _check(wanted, rules, missing=missing)
    tally = _Tally()
    with ExitStack() as parts:
        shared = _assemble(load_config(config), rules, only, jobs, parts, patience=patience, needs_store=wanted.record)
        timing = Timing(utc_now, time.sleep)
        try:
            trees = parts.enter_context(opened_trees(shared.config, shared.trust, shared.store, timing, log))
            if missing:
                _scan_missing(shared, trees, wanted, tally)
            else:
                _scan_one(shared, only_tree(trees, log or ""), wanted, tally)
        except (UnknownLog, NotInLog, Unfinished) as error:
            raise typer.BadParameter(str(error)) from error
    raise leave(tally.code())


def _check(wanted: _Wanted, rules: Path | None, *, missing: bool) -> None:
    if missing and (wanted.last is not None or wanted.resume):
        raise typer.BadParameter("--missing finds its ranges itself, and goes on by itself: without --to and --resume")
    if not missing and (wanted.log is None or wanted.first is None):
        raise typer.BadParameter("say which entries: --log NAME --from N [--to M], or --missing")
    if wanted.record and rules is not None:
        raise typer.BadParameter("only what the configured rules find can be recorded: without --rules")
    if wanted.deliver and not wanted.record:
        raise typer.BadParameter("alerts are made of recorded findings: add --record")


def _assemble(
    config: Config,
    file: Path | None,
    only: list[str] | None,
    jobs: int | None,
    parts: ExitStack,
    *,
    patience: int,
    needs_store: bool,
) -> _Parts:
    path = file or config.rules
    rules = _chosen(path, read_rules(path, config.channels if file is None else None).rules, only)
    try:
        matcher = compile_rules(rules)
    except TooManyUnindexed as error:
        raise BadConfig(f"{path}: {error}") from error
    # Forked before a connection or a thread is there to be inherited.
    pool = ExaminerPool(matcher, usable_jobs(jobs))
    parts.callback(pool.close)
    store = _store(config, needs_store=needs_store)
    if store is not None:
        parts.callback(store.close)
    trust = trust_of(config.trust, utc_now, store)
    lists = DigestLists(config.base, utc_now)
    for failure in lists.refresh(rules):
        note(failure, "yellow")
    if store is not None:
        store.facts.digests = lists.digests
        logs = configured_logs(config, trust)
        tell_facts(store.facts, logs, utc_now)
        store.certificate_hold = hold_of(config, logs)
    ahead = usable_jobs(jobs) + 1
    executor = parts.enter_context(ThreadPoolExecutor(ahead, thread_name_prefix="fetch"))
    digest = sha256(path.read_bytes() + json.dumps(sorted(only or ())).encode()).hexdigest()
    world = World(utc_now, time.sleep, executor, ahead, waits(patience))
    return _Parts(config, rules, digest, pool, trust, store, lists, world)


def _chosen(path: Path, rules: tuple[Rule, ...], only: list[str] | None) -> tuple[Rule, ...]:
    known = {rule.id for rule in rules}
    if unknown := sorted(set(only or ()) - known):
        raise typer.BadParameter(f"{path}: there is no rule {unknown[0]!r}", param_hint="--rule")
    return tuple(rule for rule in rules if not only or rule.id in only)


def _store(config: Config, *, needs_store: bool) -> Store | None:
    path = sqlite_path(config.database)
    if path is not None and not path.exists() and not needs_store:
        note("there is no database yet: nothing the log signed before is known to compare with", "yellow")
        return None
    database = open_database(config.database)
    return Store(database, clock=utc_now, route=route_of(config, RuleKeeper(config.rules, config.channels)))


def _scan_one(parts: _Parts, source: LogSource, wanted: _Wanted, tally: _Tally) -> None:
    """Scan the range asked for, with a ledger; findings are shown once all of it is proven."""
    log, first = source.identity.log, wanted.first or 0
    key = sha256(source.identity.spki).hexdigest()
    scope = Scope(log, key, first, wanted.last, wanted.record, parts.digest)
    recording = Recording(parts.selections, wanted.deliver) if wanted.record else None
    known = parts.store.position(log) if parts.store is not None else None
    if recording is not None and known is not None and wanted.last is None:
        # Only what following has verified can be recorded.
        scope = Scope(log, key, first, known.frontier.size, wanted.record, parts.digest)

    def begin() -> tuple[Position, int]:
        state, trusted = _state(parts, PassingProgress()), known.head if known is not None else None
        return begin_range(source, trusted, first, scope.last, state=state, world=parts.world)

    folder = parts.config.base / _FOLDER
    with open_ledger(folder, scope, begin, utc_now, resume=wanted.resume) as ledger:
        at = ledger.position(log)
        with progress(log, first, ledger.last, at.frontier.size if at else first) as tell:
            state = _state(parts, ledger, recording=recording, on_batch=lambda batch: tell(batch.end))
            # Only what is recorded is judged again.
            facts, final = _facts(parts, ledger, recording), recording is None
            judge = RuleJudge(parts.pool.matcher, facts, parts.trust.authorities, final=final)
            reached = scan_range(source, state, judge, parts.pool, last=ledger.last, world=parts.world)
        tally.entries, tally.findings = ledger.last - first, Counter(ledger.outcomes())
        tally.unreadable = sum(ledger.unreadable().values())
        show_findings(ledger.findings(), as_json=wanted.as_json)
        head = reached.head.head
        document = {"log": log, "from": first, "to": ledger.last, "head": {"size": head.size, "root": head.root.hex()}}
        _summarise(document | {"kinds": ledger.kinds()}, parts, wanted, tally)


def _scan_missing(parts: _Parts, trees: list[LogSource], wanted: _Wanted, tally: _Tally) -> None:
    """Offer the rules what they were not offered; what is found is shown and recorded batch by batch."""
    if parts.store is None:
        raise AssertionError
    ranges = []
    # Entries before certificates: what an entry tells of is not told again for its certificate.
    for source in sorted(trees, key=lambda source: source.identity.api in _CT):
        for gap in missing_ranges(parts.store, source.identity.log, parts.selections, wanted.first):
            _scan_gap(parts, source, gap, wanted, tally)
            ranges.append({"log": source.identity.log, "from": gap.first, "to": gap.last, "rules": len(gap.rules)})
    _summarise({"ranges": ranges}, parts, wanted, tally)


def _scan_gap(parts: _Parts, source: LogSource, gap: Gap, wanted: _Wanted, tally: _Tally) -> None:
    store, log = parts.store, source.identity.log
    if store is None:
        raise AssertionError
    known = store.position(log)
    recording = Recording({rule: parts.selections[rule] for rule in gap.rules}, wanted.deliver)
    with progress(log, gap.first, gap.last, gap.first) as tell:

        def kept(batch: Batch) -> None:
            tally.entries += batch.end - batch.start
            tally.unreadable += len(batch.unreadable)
            tally.findings.update(finding.verdict.outcome.value for finding in batch.findings)
            show_findings(map(stored, batch.findings), as_json=wanted.as_json)
            tell(batch.end)

        state = _state(parts, PassingProgress(), recording=recording, on_batch=kept)
        trusted = known.head if known is not None else None
        position, last = begin_range(source, trusted, gap.first, gap.last, state=state, world=parts.world)
        state.baseline(position, "")
        judge = SomeRules(RuleJudge(parts.pool.matcher, store.facts, parts.trust.authorities), gap.rules)
        scan_range(source, state, judge, parts.pool, last=last, world=parts.world)


def _state(parts: _Parts, progress_of: Progress, **more: Any) -> ScanState:
    keep = partial(_write_evidence, parts.config.base / _FOLDER) if parts.store is None else _told
    return ScanState(progress_of, parts.store, on_evidence=keep, **more)


def _facts(parts: _Parts, ledger: Ledger, recording: Recording | None) -> DatabaseFacts | ScanFacts:
    """What a judgement may ask: recorded findings are judged by the monitor's past, others by the scan's own."""
    if parts.store is None:
        ledger.store.facts.digests = parts.lists.digests
        return ledger.store.facts
    return ScanFacts(ledger.store.facts, parts.store.facts) if recording is None else parts.store.facts


def _told(evidence: Evidence) -> None:
    note(f"evidence {event_id(evidence)} is kept: `signwatch evidence export {event_id(evidence)[:8]}`", "bold red")


def _write_evidence(folder: Path, evidence: Evidence) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"evidence-{event_id(evidence)}.json"
    path.write_text(json.dumps(to_document(evidence), indent=2) + "\n", encoding="utf-8")
    note(f"wrote {path}; anybody can check it with `signwatch evidence verify {path.name}`", "bold red")


def _summarise(document: dict[str, Any], parts: _Parts, wanted: _Wanted, tally: _Tally) -> None:
    numbers = {
        "entries": tally.entries,
        "findings": dict(tally.findings),
        "unreadable": tally.unreadable,
        "matches_left_out": parts.pool.dropped,
    }
    if wanted.as_json:
        json_line({"summary": document | numbers})
        return
    found = ", ".join(f"{count} {name}" for name, count in sorted(tally.findings.items())) or "nothing found"
    note(f"{tally.entries} entries read and proven: {found}", "bold red" if tally.findings["unexpected"] else "green")
    if tally.unreadable:
        note(f"{tally.unreadable} entries could not be read: what they say is not known", "yellow")
    if parts.pool.dropped:
        note(f"{parts.pool.dropped} matches are left out: more rules match one entry than are looked at", "yellow")

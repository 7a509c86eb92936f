"""Parts that `signwatch scan` and `signwatch backscan` share: the chosen rules, processes, trust root and database."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import typer
from msgspec import Struct, field

from alerts.alert import counted
from monitor.backscan.ledger import LedgerFinding
from monitor.backscan.range import ScanEnvironment, waits
from monitor.commands.outcomes import dropped_line
from monitor.commands.scan_output import json_line
from monitor.commands.terminal import Exit, note
from monitor.config import Config
from monitor.daemon.followed_logs import configured_logs, hold_of, tell_facts
from monitor.daemon.trust_watch import trust_of
from monitor.following.follower import Timing
from monitor.following.workers import ScanPool, usable_jobs
from monitor.judging.active_rules import RuleKeeper, route_of
from monitor.judging.digest_lists import DigestLists
from monitor.judging.rule_file import read_rules
from monitor.model.errors import BadConfig
from monitor.program import utc_now
from monitor.store.database import open_database
from monitor.store.store import Store
from monitor.trust.provider import TrustKeeper
from rules.judge import WRONG_SIGNATURE
from rules.matching.matcher import TooManyUnindexed, compile_rules
from rules.rule import Rule

RuleOption = Annotated[list[str] | None, typer.Option("--rule", help="Only this rule; may be given again.")]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, max=256, help="Processes; one per core by default.")
]
PatienceOption = Annotated[int, typer.Option("--patience", min=0, help="Seconds to wait for a log that is down.")]


S = TypeVar("S", bound=Store | None)


class ScanParts(Struct, Generic[S], frozen=True):
    """Parts of one run; `S` is `Store` where the run needs the database, else `Store | None`."""

    config: Config
    rules: tuple[Rule, ...]
    pool: ScanPool
    trust: TrustKeeper
    store: S
    lists: DigestLists
    world: ScanEnvironment

    @property
    def selections(self) -> dict[str, str]:
        """Selection id of each rule, by rule id."""
        return {rule.id: rule.selection_id() for rule in self.rules}


class ScanTally(Struct):
    """Entries read, findings by outcome, and matches left out in one run.

    `wrong_signatures` counts findings in entries whose signature does not verify.
    """

    entries: int = 0
    findings: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    dropped: int = 0
    wrong_signatures: int = 0

    def passing(self, findings: Iterable[LedgerFinding]) -> Iterator[LedgerFinding]:
        """The same findings, after counting them."""
        for finding in findings:
            self.wrong_signatures += any(reason["id"] == WRONG_SIGNATURE.id for reason in finding.reasons)
            yield finding

    def code(self) -> Exit:
        """Exit code of the run. With unreadable entries or matches left out, the run counts as unfinished."""
        if self.findings["unexpected"] or self.wrong_signatures:
            return Exit.MISBEHAVED
        return Exit.UNFINISHED if self.unreadable or self.dropped else Exit.FINE

    def summarise(self, about: Mapping[str, Any], *, as_json: bool) -> None:
        """Print the last line of a run: JSON for scripts, sentences for people."""
        if as_json:
            numbers = {"entries": self.entries, "findings": dict(self.findings), "unreadable": self.unreadable}
            more = {"matches_left_out": self.dropped, "wrong_signatures": self.wrong_signatures}
            json_line({"summary": {**about, **numbers, **more}})
            return
        found = ", ".join(f"{count} {name}" for name, count in sorted(self.findings.items())) or "nothing found"
        colour = {Exit.FINE: "green", Exit.UNFINISHED: "yellow"}.get(self.code(), "bold red")
        note(f"{counted(self.entries, 'entry')} read and proven: {found}", colour)
        if self.wrong_signatures:
            note(
                f"the log misbehaved: {self.wrong_signatures} of them are in entries whose signature does not verify",
                "bold red",
            )
        if self.unreadable:
            entries, them = ("entry", "it") if self.unreadable == 1 else ("entries", "them")
            note(f"{self.unreadable} {entries} cannot be read, so whether a rule selects {them} is not known", "yellow")
        if self.dropped:
            note(dropped_line(self.dropped), "yellow")


def scan_parts(
    config: Config,
    rule_file: Path | None,
    only: list[str] | None,
    jobs: int | None,
    *,
    patience: int,
    parts: ExitStack,
    opened: Callable[[Config, DigestLists], S],
) -> ScanParts[S]:
    """Read the rules, fork the processes, open the database with `opened`, and the trust root.

    `parts` closes all of them. Raises `OwnFault`, `FetchFailed`, `typer.BadParameter`.
    """
    path = rule_file or config.rules
    rules = _chosen(path, read_rules(path, config.channels if rule_file is None else None).rules, only)
    try:
        matcher = compile_rules(rules)
    except TooManyUnindexed as error:
        raise BadConfig(f"{path}: {error}") from error
    # Forked before there is a connection or a thread that a child would inherit.
    pool = ScanPool(matcher, usable_jobs(jobs))
    parts.callback(pool.close)
    lists = DigestLists(config.base, utc_now)
    store = opened(config, lists)
    if store is not None:
        parts.callback(store.close)
    trust = trust_of(config.trust, utc_now, store)
    for failure in lists.refresh(rules):
        note(failure, "yellow")
    if store is not None:
        logs = configured_logs(config, trust)
        tell_facts(store.facts.known, logs)
        store.certificate_hold = hold_of(config, logs)
    ahead = usable_jobs(jobs) + 1
    executor = parts.enter_context(ThreadPoolExecutor(ahead, thread_name_prefix="fetch"))
    world = ScanEnvironment(Timing(utc_now, time.sleep), executor, ahead, waits(patience))
    return ScanParts(config, rules, pool, trust, store, lists, world)


def _chosen(path: Path, rules: tuple[Rule, ...], only: list[str] | None) -> tuple[Rule, ...]:
    known = {rule.id for rule in rules}
    if unknown := sorted(set(only or ()) - known):
        raise typer.BadParameter(f"{path}: there is no rule {unknown[0]!r}", param_hint="--rule")
    return tuple(rule for rule in rules if not only or rule.id in only)


def open_store(config: Config, lists: DigestLists) -> Store:
    """Open the database of a run. Raises `OwnFault`."""
    route = route_of(config, RuleKeeper(config.rules, config.channels))
    return Store(open_database(config.database), clock=utc_now, route=route, digests=lists.digests)

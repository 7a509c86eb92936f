"""The simulated year, followed by the product: the attacks it finds, and how often it wakes somebody for nothing."""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final

from alerts.alert import Alert, Severity
from benchmarks.corpus import Authority, authority, body_v2, framed
from benchmarks.tile_log import ORIGIN, ServedLog, served
from benchmarks.year import DAYS, LEAVE_COUNT, RELEASE_RULE, RULES, YEAR, Event, simulated_year
from monitor.examine import Hit
from monitor.follow import Follower, Limits, baseline
from monitor.judging import RuleJudge
from monitor.net import HttpFetcher
from monitor.scan import RuleScanner
from monitor.source import LogApi, LogIdentity
from monitor.sources.rekor_v2 import RekorV2Source
from monitor.state import Finding
from monitor.store.database import create
from monitor.store.facts import Authorisations
from monitor.store.store import Store
from rules.facts import Authorisation
from rules.index import Matcher, compile_rules
from rules.rule_file import load_rules
from sigstore_entries.trust import CertificateAuthorities, CertificateAuthority
from tlog.note import tile_log_key
from tlog.tiles import TILE_WIDTH

_PASSES: Final = 52
_PART: Final = 1_000


class _ListeningJudge(RuleJudge):
    """The daemon's judge; also remembers what it said."""

    findings: dict[tuple[int, str], Finding]

    def judge(self, hits: Sequence[Hit], now: datetime) -> Sequence[Finding]:
        found = super().judge(hits, now)
        self.findings.update({(each.signing.where.index, each.rule): each for each in found})
        return found


def measure_noise() -> dict[str, float]:
    """Figures `noise_attacks_found` (with exactly the right reasons, paged) and `noise_false_pages`."""
    events, _ = simulated_year()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = write_log(folder, events)
        with served(folder, size) as log:
            findings, alerts = _follow(log, folder)
    pages = {(alert.index, alert.rule) for alert in alerts if alert.severity is Severity.PAGE}
    attacks = {index: event.attack for index, event in enumerate(events) if event.attack is not None}
    found = 0
    for index, attack in attacks.items():
        finding = findings.get((index, attack.rule))
        reasons = frozenset() if finding is None else frozenset(reason.id for reason in finding.verdict.reasons)
        found += (index, attack.rule) in pages and reasons == attack.reasons
    false_pages = sum(index not in attacks for index, _ in pages)
    return {"noise_attacks_found": found, "noise_false_pages": false_pages}


def _follow(log: ServedLog, folder: Path) -> tuple[dict[tuple[int, str], Finding], list[Alert]]:
    """Follow the log week by week, as the year goes by."""
    now = YEAR
    alerts: list[Alert] = []

    def clock() -> datetime:
        return now

    def route(alert: Alert) -> list[str]:
        alerts.append(alert)
        return ["channel"]

    matcher = compile_rules(load_rules(RULES).rules)
    with (
        closing(Store(create(str(folder / "state.db"), now, "benchmark"), clock=clock, route=route)) as store,
        closing(HttpFetcher(log.url)) as fetcher,
    ):
        _give_leave(store)
        judge = _judge(matcher, store)
        source = RekorV2Source(
            LogIdentity(ORIGIN, LogApi.REKOR_V2, ORIGIN, ORIGIN, log.spki), fetcher, tile_log_key(ORIGIN, log.spki)
        )
        baseline(source, store, 0)
        week = Limits(entries_per_pass=-(-log.size // _PASSES))
        follower = Follower(source, store, RuleScanner(matcher), judge, clock=clock, pause=_impatient, limits=week)
        backlog = log.size
        while backlog:
            now += timedelta(days=DAYS / _PASSES)
            backlog = follower.run_pass().backlog
    return judge.findings, alerts


def _judge(matcher: Matcher, store: Store) -> _ListeningJudge:
    trusted = CertificateAuthorities([CertificateAuthority("benchmark", authority().chain)])
    judge = _ListeningJudge(matcher, store.facts, lambda: (trusted, ()))
    judge.findings = {}
    return judge


def _give_leave(store: Store) -> None:
    _, leaves = simulated_year()
    given = Authorisations(store.database)
    for leave in leaves:
        given.add(RELEASE_RULE, Authorisation(f"sha256:{leave.digest}", LEAVE_COUNT, leave.expires), YEAR)


def _impatient(seconds: float) -> None:
    raise RuntimeError(f"a log that never fails asked for a pause of {seconds} s")


def write_log(folder: Path, events: Sequence[Event]) -> int:
    """Write the events' entries, on every core, as `benchmarks.tile_log` serves them; returns how many there are."""
    parts = [events[start : start + _PART] for start in range(0, len(events), _PART)]
    with ProcessPoolExecutor() as pool:
        bodies = b"".join(pool.map(_bodies, parts))
    # The served log is made of whole bundles: entries of nobody fill the last one.
    missing = -len(events) % TILE_WIDTH
    (folder / "v2").write_bytes(bodies + framed(b'{"kind":"padding"}') * missing)
    return len(events)


def _bodies(events: Sequence[Event]) -> bytes:
    made = []
    for event in events:
        issuer = authority() if event.genuine else _impostor()
        made.append(framed(body_v2(issuer.issue(event.identity, at=event.at), event.digest, bytes(70))))
    return b"".join(made)


@cache
def _impostor() -> Authority:
    return Authority("impostor")

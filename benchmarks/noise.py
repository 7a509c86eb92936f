"""The simulated year, followed by the product: the attacks it finds, and how often it pages without reason.

What is counted is what reaches a pager: alerts are held, withdrawn and delivered as in the daemon, findings are judged
again when their time has come, and the daemon ends and begins anew all through the year, most of all while an attack's
certificate is known and its entry is not.
"""

import base64
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Final

from alerts.alert import Alert, Severity
from alerts.delivery import DeliveryPolicy, deliver_channel
from benchmarks.corpus import Authority, authority, body_v1, body_v2, fixed_key, leaf_key
from benchmarks.grown_log import GrownLog
from benchmarks.year import (
    DAYS,
    LEAVE_COUNT,
    RELEASE_RULE,
    RULES,
    WHOLE_YEAR,
    YEAR,
    Attack,
    Event,
    Size,
    Where,
    simulated_year,
)
from monitor.backscan.planner import Services
from monitor.config import TrustConfig
from monitor.daemon.supervisor import LogSupervisor, WatchSettings
from monitor.following.follower import Timing
from monitor.judging.active_rules import RuleKeeper
from monitor.judging.reevaluation import recheck
from monitor.model.log_source import Freshness, LogApi, LogEntry
from monitor.store.authorisations import Authorisations
from monitor.store.database import create, open_database
from monitor.store.reading import Reading
from monitor.store.store import Store
from monitor.telemetry.prometheus import PrometheusMeter
from monitor.trust.provider import TrustKeeper
from rules.facts import Authorisation
from sigstore_entries.der import tbs_without_scts
from tlog.ct import CtLeaf, EntryType, leaf_timestamped_entry

_CT, _V1, _V2 = "ct", "rekor-v1", "rekor-v2"
_APIS: Final = {_CT: LogApi.CT_RFC6962, _V1: LogApi.REKOR_V1, _V2: LogApi.REKOR_V2}
_ENTRY_AFTER: Final = timedelta(seconds=10)
_HOLD: Final = timedelta(seconds=60)
# When the daemon wakes around a certificate: it is known; the entry is known; for an attack, the hold and the hour for
# it are over. For others the next time it wakes will do.
_WAKES: Final = (timedelta(seconds=5), timedelta(seconds=35), timedelta(minutes=61))
_OTHERWISE: Final = timedelta(days=28)
# The daemon begins anew after so many wakes, and between certificate and entry of each so manieth attack.
_RESTART_EVERY: Final = 97
_RESTART_AT: Final = 3
_PART: Final = 1_000
_EPOCH: Final = datetime.fromtimestamp(0, YEAR.tzinfo)


@dataclass(frozen=True, slots=True)
class Noise:
    """Result of a year: attacks paged once with exactly the right reasons, those that were not, and other pages."""

    found: int
    missed: tuple[str, ...]
    false_pages: tuple[tuple[str, int], ...]
    restarts: int


def measure_noise() -> dict[str, float]:
    """Figures `noise_attacks_found` and `noise_false_pages`."""
    noise = live_through(WHOLE_YEAR)
    return {"noise_attacks_found": noise.found, "noise_false_pages": len(noise.false_pages)}


def live_through(size: Size) -> Noise:
    """Follow a year of this size from its first day to its last."""
    events, _ = simulated_year(size)
    logs, places = _logs(events)
    # In memory where there is such a place: what survives a power cut is not the question here.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as temporary:
        site = _Site(Path(temporary), logs)
        site.prepare(size)
        restarts = _live(site, events)
        outcomes = site.reasons()
    pages = Counter(
        (alert.log or "", alert.index if alert.index is not None else -1, alert.rule or "")
        for alert in site.pager.received
        if alert.severity is Severity.PAGE
    )
    attacks = {(*places[number], each.attack.rule): each.attack for number, each in enumerate(events) if each.attack}
    missed = [f"{each.name}: {_missing(where, each, pages, outcomes)}" for where, each in attacks.items()]
    missed = [each for each in missed if not each.endswith(": ")]
    false = [page[:2] for page in pages.elements() if page not in attacks]
    return Noise(len(attacks) - len(missed), tuple(missed), tuple(false), restarts)


_Page = tuple[str, int, str]


def _missing(where: _Page, attack: Attack, pages: Counter[_Page], outcomes: dict[_Page, frozenset[str]]) -> str:
    """Faults in the alerts about an attack; empty when there is none."""
    if pages[where] != 1:
        return f"paged {pages[where]} times"
    found = outcomes.get(where, frozenset())
    return "" if found == attack.reasons else f"{sorted(found)} instead of {sorted(attack.reasons)}"


def _live(site: "_Site", events: Sequence[Event]) -> int:
    """Wake as the daemon would; returns how often it was begun anew."""
    attacks = [each for each in events if each.attack is not None]
    known = {each.at + _WAKES[0] for each in attacks[::_RESTART_AT]}
    ours = [each for each in events if _is_ours(each)]
    around = (each.at + wake for each in ours for wake in (_WAKES if each.attack is not None else _WAKES[:2]))
    quiet = (YEAR + _OTHERWISE * number for number in range(1, 1 + int(timedelta(days=DAYS + 1) / _OTHERWISE)))
    restarts = 0
    process = _Process(site)
    for number, now in enumerate(sorted(set(chain(around, quiet)))):
        site.now = now
        process.wake()
        if now in known or number % _RESTART_EVERY == 0:
            process.end()
            process = _Process(site)
            restarts += 1
    process.end()
    return restarts


def _is_ours(event: Event) -> bool:
    """True if a genuine certificate is about the project: signings of strangers page no person."""
    return event.genuine and (event.attack is not None or event.identity.san.startswith(_OURS))


_OURS: Final = ("https://github.com/acme/widget/", "https://github.com/acme-foundation/widget/", "release@acme.example")


@dataclass
class _Pager:
    """A channel that remembers what reached it."""

    name: str = "pager"
    digests: bool = False
    received: list[Alert] = field(default_factory=list)

    def send(self, alert: Alert, key: str, now: datetime) -> None:  # noqa: ARG002
        self.received.append(alert)


class _Site:
    """State that outlives a process: the files, the logs, the pager, the time."""

    def __init__(self, folder: Path, logs: dict[str, list[tuple[datetime, LogEntry]]]) -> None:
        self.folder, self.now, self.pager = folder, YEAR, _Pager()
        self.sources = [GrownLog(name, _APIS[name], entries, self.clock) for name, entries in logs.items()]

    def clock(self) -> datetime:
        return self.now

    @property
    def database(self) -> str:
        return str(self.folder / "state.db")

    def prepare(self, size: Size) -> None:
        (self.folder / "rules.yaml").write_text(RULES, encoding="utf-8")
        certificates = [{"rawBytes": base64.b64encode(each).decode()} for each in authority().chain]
        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "certificateAuthorities": [
                {"certChain": {"certificates": certificates}, "validFor": {"start": "2020-01-01T00:00:00Z"}}
            ],
        }
        (self.folder / "trusted_root.json").write_text(json.dumps(root), encoding="utf-8")
        with closing(create(self.database, self.now, "benchmark")) as database:
            given = Authorisations(database)
            for leave in simulated_year(size)[1]:
                given.add(RELEASE_RULE, Authorisation(f"sha256:{leave.digest}", LEAVE_COUNT, leave.expires), YEAR)
        process = _Process(self)
        for watch in process.watches:
            watch.baseline(0)
        process.end()

    def reasons(self) -> dict[_Page, frozenset[str]]:
        """Reasons of everything unexpected, by log, index and rule."""
        with closing(open_database(self.database)) as database:
            found = Reading(database).findings(100_000, outcome="unexpected")
        return {(each.log, each.index, each.rule): frozenset(r["id"] for r in each.reasons) for each in found}


class _Process:
    """One life of the daemon: its own parts over the database, woken by hand."""

    def __init__(self, site: _Site) -> None:
        self._site = site
        database = open_database(site.database)
        self._store = Store(database, clock=site.clock, route=lambda _: [site.pager.name], certificate_hold=_HOLD)
        self._store.facts.known.certificate_logs = frozenset({_CT})
        self._store.facts.known.signature_logs = frozenset({_V1, _V2})
        self._rules = RuleKeeper(site.folder / "rules.yaml", [site.pager.name])
        self._trust = TrustKeeper(TrustConfig(trusted_root=site.folder / "trusted_root.json"), site.clock)
        meter, timing = PrometheusMeter("benchmark"), Timing(site.clock, _impatient)
        self.watches = [
            LogSupervisor(
                source.identity.log,
                lambda source=source: [source],  # type: ignore[misc]
                Services(self._store, self._rules, self._trust, meter, timing),
                WatchSettings(Freshness(timedelta(days=60))),
            )
            for source in site.sources
        ]

    def wake(self) -> None:
        """Read every log, judge again what is due, deliver what is due."""
        for watch in self.watches:
            for outcome in watch.run_pass():
                if outcome.owner is not None:
                    raise RuntimeError(f"{outcome.log}: {outcome.detail}")
        recheck(self._store, self._rules.held, self._trust, self._site.now)
        deliver_channel(
            self._store.outbox, self._site.pager, self._site.now, random=lambda: 0.5, policy=DeliveryPolicy()
        )

    def end(self) -> None:
        self._store.close()


def _impatient(seconds: float) -> None:
    raise RuntimeError(f"a log that never fails asked for a pause of {seconds} s")


def _logs(
    events: Sequence[Event],
) -> tuple[dict[str, list[tuple[datetime, LogEntry]]], list[tuple[str, int]]]:
    """Entries of each log with the times they appear, and for each event where its page should be about."""
    parts = [list(enumerate(events))[start : start + _PART] for start in range(0, len(events), _PART)]
    if len(parts) == 1:
        made = _entries(parts[0])
    else:
        with ProcessPoolExecutor() as pool:
            made = list(chain.from_iterable(pool.map(_entries, parts)))
    logs: dict[str, list[tuple[datetime, LogEntry]]] = {_CT: [], _V1: [], _V2: []}
    places: list[tuple[str, int]] = []
    # Events are in the order of time, and every entry comes equally long after its certificate.
    for event, entries in zip(events, made, strict=True):
        for name, entry in entries:
            places[len(places) :] = [(name, len(logs[name]))] if (name, entry) == entries[-1] else []
            logs[name].append((event.at if name == _CT else event.at + _ENTRY_AFTER, entry))
    return logs, places


def _entries(part: Sequence[tuple[int, Event]]) -> list[list[tuple[str, LogEntry]]]:
    """Entries that each event leaves in the logs, the certificate first."""
    return [list(_entries_of(number, event)) for number, event in part]


def _entries_of(number: int, event: Event) -> Iterator[tuple[str, LogEntry]]:
    issuer = authority() if event.genuine else impostor()
    key = fixed_key(f"leaf {number}") if event.genuine else leaf_key()
    certificate = issuer.issue(event.identity, at=event.at, serial=number + 1, key=key.public_key())
    if event.where is not Where.ENTRY:
        yield _CT, LogEntry(_certificate_leaf(certificate, event.at))
    if event.where is not Where.CERTIFICATE:
        name = _V1 if number % 2 else _V2
        body = (body_v1 if name == _V1 else body_v2)(certificate, event.digest, key)
        yield name, LogEntry(body, integrated_time=event.at + _ENTRY_AFTER if name == _V1 else None)


def _certificate_leaf(certificate: bytes, at: datetime) -> bytes:
    """MerkleTreeLeaf (RFC 6962 3.4) of the precertificate behind a certificate."""
    milliseconds = (at - _EPOCH) // timedelta(milliseconds=1)
    tbs = tbs_without_scts(certificate)
    leaf = CtLeaf(milliseconds, EntryType.PRECERT, authority().issuer_key_hash, tbs, b"")
    return b"\x00\x00" + leaf_timestamped_entry(leaf)


@cache
def impostor() -> Authority:
    """A person with self-made certificates."""
    return Authority("impostor")

"""What subscribers ask for is matched wherever entries are scanned, and a batch of very many matches is cut."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.following.scan_batch import Fetched, RuleScanner, scan_batch, scan_in_parts
from monitor.following.workers import ScanWorkers
from monitor.judging.active_rules import AskedRules, RuleKeeper
from monitor.model.log_source import LogApi, LogEntry
from monitor.model.state import Hit
from monitor.store.asks import Asks
from monitor.store.database import Database
from monitor.store.subscribers import Subscribers
from rules.asking import ask_of
from rules.matching.matcher import PREFIX
from rules.subject import read_subject
from tests.support.alerts import NOW
from tests.support.database_fixtures import database, postgres_url, where
from tests.support.served_log import RULES, signing_body
from tlog.merkle import Frontier, LeafHash, leaf_hash

__all__ = ["database", "postgres_url", "where"]
NAME = "https://github.com/acme/widget"
SIZE = 16
BODIES = [signing_body(), signing_body("refs/heads/x"), b"{}", b'{"kind": "hashedrekord"}']


def batches(first: int, end: int) -> Iterator[Fetched]:
    for number in range(first, end):
        start = number * SIZE
        yield Fetched(start, tuple(LogEntry(BODIES[(start + i) % 4]) for i in range(SIZE)))


class Asked:
    """Rules of a file beside what subscribers ask for, from the database."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.subscribers = Subscribers(database, lambda: NOW)
        self.rules = AskedRules(Asks(database))
        (folder / "rules.yaml").write_text(RULES, encoding="utf-8")
        self.keeper = RuleKeeper(folder / "rules.yaml", ["file"], self.rules)

    def subscribe(self, address: str, expect: dict[str, str]) -> str:
        """Subscribe to the name; returns the rule's id."""
        account = self.subscribers.ensure_account(address).id
        made = self.subscribers.subscribe(account, ask_of(read_subject(NAME).select(), expect), NAME, "widget")
        self.rules.refresh()
        return f"{PREFIX}{made.ask}"


@pytest.fixture
def asked(database: Database, tmp_path: Path) -> Asked:
    return Asked(database, tmp_path)


def test_a_subscription_is_in_force_in_the_daemons_processes_and_the_next_one_at_once(asked: Asked) -> None:
    workers = ScanWorkers(2)
    try:
        mine = asked.subscribe("mia@acme.example", {"ref": "refs/tags/v1"})
        run = workers.batch_scanner(asked.keeper.held, "v2", LogApi.REKOR_V2)
        found = [scanned.scan.hits for _, scanned in run(batches(0, 6))]
        assert workers.running, "control: the backlog was scanned in other processes"
        rules = [hit.rules for hits in found for hit in hits]
        assert len(rules) == 6 * SIZE // 2
        assert {(asked.keeper.held.rules.rules[0].id, mine)} == set(rules)
        other = asked.subscribe("theo@acme.example", {"ref": "refs/tags/v2"})
        later = [scanned.scan.hits for _, scanned in run(batches(6, 12))]
        assert {hit.rules[1:] for hits in later for hit in hits} == {(mine, other)}
        account = asked.subscribers.by_address("mia@acme.example")
        assert account is not None
        asked.subscribers.unsubscribe(asked.subscribers.subscriptions(account.id)[0].id, account.id)
        asked.rules.refresh()
        last = [scanned.scan.hits for _, scanned in run(batches(12, 18))]
        assert {hit.rules[1:] for hits in last for hit in hits} == {(other,)}
    finally:
        workers.close()


@pytest.mark.parametrize("most", [1, 5, 6, 7, 10_000])
def test_a_batch_is_cut_where_it_has_so_many_matches_and_nothing_is_lost(asked: Asked, most: int) -> None:
    for number in range(3):
        asked.subscribe(f"u{number}@acme.example", {"same_issuer": "true"})
    scanner = RuleScanner(asked.keeper.held.everything)
    [whole] = batches(2, 3)
    control = scan_batch(whole.entries, whole.start, "v2", LogApi.REKOR_V2, scanner)
    frontier = at = Frontier.from_bytes(whole.start, Frontier().extended(_hashes(whole.start)).to_bytes())
    parts = list(scan_in_parts(whole, "v2", LogApi.REKOR_V2, scanner, most))
    hits: list[Hit] = []
    kinds, start = 0, whole.start
    for fetched, scanned in parts:
        assert (fetched.start, scanned.start, fetched.end) == (start, start, scanned.end)
        *before, _ = [len(hit.rules) for hit in scanned.scan.hits] or [0]
        assert sum(before) < most, "no entry was added to a full batch"
        start, at = fetched.end, scanned.extend(at)
        hits += scanned.scan.hits
        kinds += sum(scanned.scan.kinds.values())
    assert start == whole.end
    assert tuple(hits) == control.scan.hits
    assert kinds == sum(control.scan.kinds.values()) == SIZE
    assert at == control.extend(frontier)
    assert len(parts) == {1: 9, 5: 5, 6: 5, 7: 5, 10_000: 1}[most]


def _hashes(size: int) -> Iterator[LeafHash]:
    return (leaf_hash(str(number).encode()) for number in range(size))

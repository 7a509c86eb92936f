"""Leave to sign is used up once, whichever log an entry stands in and however passes overlap."""

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import pytest
from msgspec.structs import replace

from monitor.following.follower import BatchCommitter
from monitor.following.scan_batch import Fetched, RuleScanner, scan_batch
from monitor.judging.judge import RuleJudge
from monitor.model.errors import PastMoved
from monitor.model.log_source import LogApi, LogEntry, LogIdentity, Position, SignedHead, TrustedHead
from monitor.model.state import Batch, Finding, Hit
from monitor.store.authorisations import Authorisations
from monitor.store.database import Database
from monitor.store.reading import Reading
from monitor.store.store import Store
from rules.facts import Authorisation
from rules.matching.matcher import compile_rules
from rules.rule_file import load_rules
from sigstore_entries.trust import CertificateAuthorities, CertificateAuthority
from tests.support import entries as made
from tests.support.alerts import NOW
from tests.support.parts import a_store
from tlog.merkle import Frontier, leaf_hash

CA, STRANGER = made.make_ca(), made.make_ca("stranger")
TRUSTED = CertificateAuthorities([CertificateAuthority("ca", CA.chain)])
RULES: Final = compile_rules(
    load_rules("""\
version: 1
rules:
  - {id: leave, select: {identity: dev@acme.example}, expect: {authorised: []}}
  - {id: rate, select: {identity: dev@acme.example}, expect: {rate: {at_most: 1, per: 30d}}}
""").rules
)


def mine(serial: int = 7) -> bytes:
    return made.make_certificate(CA, san="dev@acme.example", serial=serial, issuer=made.GOOGLE_ISSUER)


def a_judge(store: Store) -> RuleJudge:
    return RuleJudge(RULES, store.facts, lambda: (TRUSTED, ()))


class MetByAnother(RuleJudge):
    """A judge that lets another one reach the same point before either may commit."""

    def __init__(self, store: Store, meeting: threading.Barrier) -> None:
        super().__init__(RULES, store.facts, lambda: (TRUSTED, ()))
        self._meeting, self.judgements = meeting, 0

    def judge(self, hits: Sequence[Hit], now: datetime) -> Sequence[Finding]:
        found = super().judge(hits, now)
        self.judgements += 1
        if self.judgements == 1:
            self._meeting.wait(60)
        return found


class Pass:
    """One log with one entry, ready to be taken."""

    def __init__(self, store: Store, log: str, leaf: bytes) -> None:
        entry = LogEntry(leaf)
        frontier = Frontier().extended([leaf_hash(leaf)])
        head = SignedHead(log, 1, frontier.root(), b"note", NOW, final=False)
        self.position = Position(log, Frontier(), TrustedHead(head))
        store.record_head(head)
        store.baseline(self.position, "index 0")
        self.fetched = Fetched(0, (entry,))
        self.scanned = scan_batch([entry], 0, log, LogApi.REKOR_V2, RuleScanner(RULES))
        self.identity = LogIdentity(log, LogApi.REKOR_V2, log, log, b"key")

    def take(self, store: Store, judge: RuleJudge) -> Batch:
        taking = BatchCommitter(self, store, judge, lambda: NOW)  # type: ignore[arg-type]  # asked for nothing but its identity
        return taking.commit(self.position, self.fetched, self.scanned)[1]


def outcomes(database: Database, rule: str) -> list[str]:
    return sorted(found.outcome for found in Reading(database).findings(99) if found.rule == rule)


@pytest.mark.parametrize("rule", ["leave", "rate"])
def test_two_logs_read_at_once_cannot_both_use_up_the_last_leave(database: Database, rule: str) -> None:
    store = a_store(database)
    leave = Authorisation(f"sha256:{made.ARTIFACT}", 1, NOW + timedelta(days=9))
    Authorisations(database).add("leave", leave, NOW)
    passes = [Pass(store, log, made.hashedrekord_v2(mine(number))) for number, log in enumerate(("one", "two"))]
    meeting = threading.Barrier(2)
    judges = [MetByAnother(store, meeting) for _ in passes]
    failures: list[Exception] = []

    def run(one: Pass, judge: MetByAnother) -> None:
        try:
            one.take(store, judge)
        except Exception as error:  # noqa: BLE001  told by the test's thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=each) for each in zip(passes, judges, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    assert outcomes(database, rule) == ["expected", "unexpected"]
    assert sorted(judge.judgements for judge in judges) == [1, 2], "the later one judged again"


def test_findings_judged_by_a_past_that_grew_are_not_committed(database: Database) -> None:
    store = a_store(database)
    one, two = (Pass(store, log, made.hashedrekord_v2(mine())) for log in ("one", "two"))
    stale = a_judge(store).judge(two.scanned.scan.hits, NOW)
    one.take(store, a_judge(store))
    moved = replace(two.position, frontier=two.scanned.extend(two.position.frontier))
    with pytest.raises(PastMoved):
        store.advance(two.position, moved, Batch("two", 0, 1, tuple(stale)), [])
    assert store.position("two") == two.position, "nothing was written"
    two.take(store, a_judge(store))


def test_what_strangers_log_uses_up_no_leave_and_no_rate(database: Database) -> None:
    """Entries beside one's own: a self-made certificate in one's name, a bare key, another person's certificate."""
    store = a_store(database)
    leave = Authorisation(f"sha256:{made.ARTIFACT}", 1, NOW + timedelta(days=9))
    Authorisations(database).add("leave", leave, NOW)
    forged = made.make_certificate(STRANGER, san="dev@acme.example", serial=7)
    theirs = made.make_certificate(CA, san="thief@else.example", serial=8)
    Pass(store, "theirs", made.dsse_v2(forged, made.spki_of(made.make_key(3)), theirs)).take(store, a_judge(store))
    Pass(store, "mine", made.hashedrekord_v2(mine())).take(store, a_judge(store))
    for rule in ("leave", "rate"):
        assert outcomes(database, rule) == ["expected", "unverified"]

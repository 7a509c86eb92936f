"""A rule that came late is offered the past a little at a time: nothing twice, nothing lost, one alert each."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from monitor.backscan.step import BackscanStep, backscan_step, missing_ranges
from monitor.following.follower import LogFollower, Timing, baseline
from monitor.following.scan_batch import RuleScanner
from monitor.judging.judge import RuleJudge
from monitor.model.errors import LogMisbehaved, NotShown, OwnFault
from monitor.model.state import Batch
from monitor.store.coverage import Gap
from monitor.store.database import open_database
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from monitor.store.store import Store
from rules.matching.matcher import compile_rules
from rules.rule import Rule
from rules.rule_file import load_rules
from sigstore_entries.trust import CertificateAuthorities, CertificateAuthority
from tests.support.harness import NOW
from tests.support.looking_back import NEW, OLD
from tests.support.misbehaving_log import RekorV2Log
from tests.support.served_log import CA, signing_body

LOG: Final = "v2"
GOOD, EVIL = signing_body(), signing_body("refs/heads/evil")


def rules_of(text: str) -> tuple[Rule, ...]:
    return load_rules(text, "rules.yaml").rules


def selections(rules: Sequence[Rule]) -> dict[str, str]:
    return {rule.id: rule.selection_id() for rule in rules}


def judge_of(store: Store, rules: Sequence[Rule]) -> RuleJudge:
    chain = tuple(each.public_bytes(Encoding.DER) for each in (CA.certificate, CA.root))
    authorities = CertificateAuthorities([CertificateAuthority("https://ca.example", chain, None, None)])
    return RuleJudge(compile_rules(rules), store.facts, lambda: (authorities, ()))


class Watched:
    """A log followed under some rules, in a database."""

    def __init__(self, path: Path, log: RekorV2Log) -> None:
        self.log = log
        self.store = Store(open_database(str(path)), clock=lambda: NOW, route=lambda _: ["console"])

    def follow(self, text: str) -> None:
        rules, source = rules_of(text), self.log.source()
        if self.store.position(LOG) is None:
            baseline(source, self.store, 0)
        self.store.coverage.activate(LOG, selections(rules))
        LogFollower(
            source,
            self.store,
            RuleScanner(compile_rules(rules)),
            judge_of(self.store, rules),
            Timing(lambda: NOW, lambda _: None),
        ).run_pass()

    def step(self, text: str, entries: int = 16) -> BackscanStep | None:
        rules = rules_of(text)
        gaps = missing_ranges(self.store, LOG, selections(rules))
        if not gaps:
            return None
        return backscan_step(
            self.log.source(),
            self.store,
            compile_rules(rules),
            selections(rules),
            judge_of(self.store, rules),
            gap=gaps[0],
            timing=Timing(lambda: NOW, lambda _: None),
            entries=entries,
        )

    def rows(self) -> list[tuple[str, int]]:
        return sorted((each.rule, each.index) for each in Reading(self.store.database).findings(1000))


@pytest.fixture
def watched(empty: Path, tmp_path: Path) -> Iterator[Watched]:
    log = RekorV2Log([GOOD] * 5 + [EVIL] + [GOOD] * 34 + [EVIL] + [GOOD] * 9)
    made = Watched(Path(shutil.copy(empty, tmp_path / "signwatch.db")), log)
    with closing(made.store):
        made.follow(OLD)
        yield made


def test_a_new_rule_sees_the_past_step_by_step_and_each_finding_is_alerted_once(watched: Watched) -> None:
    watched.follow(NEW)
    steps = []
    for _ in range(20):
        step = watched.step(NEW)
        if step is None:
            break
        steps.append((step.first, step.last, dict(step.findings)))
        assert step.rules == {"new"}
    assert steps == [(0, 16, {"unexpected": 1}), (16, 32, {}), (32, 48, {"unexpected": 1}), (48, 50, {})]
    assert [row for row in watched.rows() if row[0] == "new"] == [("new", 5), ("new", 40)]
    alerts = [each for each in Reading(watched.store.database).alerts(100) if each.alert.rule == "new"]
    assert sorted(each.alert.index or 0 for each in alerts) == [5, 40]
    assert all(set(each.deliveries) == {"console"} for each in alerts)
    assert watched.step(NEW) is None
    assert fsck(watched.store.database) == []


def test_following_meanwhile_is_neither_held_up_nor_repeated(watched: Watched) -> None:
    watched.follow(NEW)
    for _ in range(10):
        watched.log.append(EVIL)
        watched.follow(NEW)
        if watched.step(NEW) is None:
            break
    news = [index for rule, index in watched.rows() if rule == "new"]
    assert news == [index for index, leaf in enumerate(watched.log.leaves) if leaf == EVIL]
    assert fsck(watched.store.database) == []


def test_a_step_killed_after_its_commit_offers_nothing_twice(watched: Watched) -> None:
    watched.follow(NEW)
    watched.step(NEW)
    before = watched.rows(), len(Reading(watched.store.database).alerts(1000))
    rules = rules_of(NEW)
    # A step that did not hear of its own commit: the same batch again.
    watched.store.record_scan(Batch(LOG, 0, 16), {"new": selections(rules)["new"]}, ())
    assert (watched.rows(), len(Reading(watched.store.database).alerts(1000))) == before
    assert missing_ranges(watched.store, LOG, selections(rules)) == [Gap(16, 50, frozenset({"new"}))]


def test_a_rule_that_selects_something_else_than_before_has_seen_nothing(watched: Watched) -> None:
    changed = OLD.replace("widget/**", "widge*/**")
    assert missing_ranges(watched.store, LOG, selections(rules_of(OLD))) == []
    assert missing_ranges(watched.store, LOG, selections(rules_of(changed))) == [Gap(0, 50, frozenset({"old"}))]


def test_rules_with_different_gaps_are_each_offered_only_what_they_lack(watched: Watched) -> None:
    rules = selections(rules_of(NEW)) | {"third": "x"}
    watched.store.coverage.offered(LOG, {"new": rules["new"]}, 10, 20)
    watched.store.coverage.offered(LOG, {"third": "x"}, 15, 60)
    assert missing_ranges(watched.store, LOG, rules) == [
        Gap(0, 10, frozenset({"new", "third"})),
        Gap(10, 15, frozenset({"third"})),
        Gap(20, 50, frozenset({"new"})),
    ]
    assert missing_ranges(watched.store, LOG, rules, 30) == [Gap(30, 50, frozenset({"new"}))]


def test_an_entry_served_otherwise_than_signed_is_not_judged(watched: Watched) -> None:
    watched.follow(NEW)
    watched.log.swap_leaf(5, GOOD)
    with pytest.raises((NotShown, LogMisbehaved)):
        watched.step(NEW)
    watched.log.honest()
    for _ in range(10):
        if watched.step(NEW) is None:
            break
    assert [index for rule, index in watched.rows() if rule == "new"] == [5, 40]


def test_nothing_beyond_what_was_verified_is_ever_recorded(watched: Watched) -> None:
    with pytest.raises(OwnFault, match="stands at entry 50"):
        watched.store.record_scan(Batch(LOG, 40, 51), {"old": "x"}, ())
    with pytest.raises(OwnFault, match="stands nowhere"):
        watched.store.record_scan(Batch("another", 0, 1), {"old": "x"}, ())

"""A rule that is not asked, or not judged, is never silent: it is counted, kept and told."""

from pathlib import Path

import pytest

from alerts.alert import Alert
from monitor.following.follower import LogFollower, Timing, baseline
from monitor.following.scan_batch import RuleScanner
from monitor.judging.judge import RuleJudge
from monitor.model.errors import OwnFault
from monitor.model.state import LeftOut
from monitor.store.database import Database, create
from monitor.store.health import InForce
from monitor.store.reading import Reading
from rules.matching.matcher import compile_rules
from rules.rule_file import load_rules
from sigstore_entries.entry import readable_part
from sigstore_entries.trust import CertificateAuthorities
from tests.support.alerts import NOW
from tests.support.misbehaving_log import RekorV2Log
from tests.support.parts import LOG, a_batch, a_position, a_store
from tests.support.served_log import signing_body

SAME = """
version: 1
rules:
  - {id: first, select: {identity: {glob: "https://github.com/acme/widget/**"}}}
  - {id: second, select: {identity: {glob: "https://github.com/acme/widget/**"}}}
  - {id: third, select: {identity: {glob: "https://github.com/acme/**"}}}
"""


def told_of(database: Database) -> list[Alert]:
    return [each.alert for each in Reading(database).alerts(100) if each.alert.kind == "rules-dropped"]


@pytest.mark.parametrize(("cap", "left_out"), [(3, 0), (1, 2)])
def test_matches_beyond_the_cap_are_counted_kept_and_told_by_each_batch_that_has_more(
    database: Database, cap: int, left_out: int
) -> None:
    log, store = RekorV2Log([b"{}", signing_body(), signing_body()]), a_store(database)
    matcher = compile_rules(load_rules(SAME).rules, max_matches=cap)
    source = log.source()
    name = source.identity.log
    baseline(source, store, 0)
    judge = RuleJudge(matcher, store.facts, lambda: (CertificateAuthorities([]), ()))
    follower = LogFollower(source, store, RuleScanner(matcher), judge, Timing(lambda: NOW, lambda _: None))
    follower.run_pass()
    assert {found.rule for found in Reading(database).findings(100)} == {"first", "second", "third"} & {
        rule.id for rule in load_rules(SAME).rules[:cap]
    }
    if not left_out:
        assert (store.rule_load.dropped(), told_of(database)) == ({}, []), "control: at the cap nothing is left out"
        return
    kept = store.rule_load.dropped()[name]
    assert (kept.matches, kept.index) == (2 * left_out, 2)
    [alert] = told_of(database)
    assert (alert.index, alert.log) == (1, name)
    facts = dict(alert.facts)
    assert (facts["Rules left out of it"], facts["Matches left out"], facts["Entries"]) == ("2", "4", "2")
    assert facts["Readable in it"] == readable_part(signing_body())
    assert "kind hashedrekord" in facts["Readable in it"]
    log.append(signing_body())
    follower.run_pass()
    assert store.rule_load.dropped()[name].matches == 3 * left_out
    assert sorted(each.index or 0 for each in told_of(database)) == [1, 3]


def test_what_was_left_out_is_committed_with_its_batch_or_not_at_all(database: Database) -> None:
    store = a_store(database)
    store.baseline(a_position(0, head=9), "index 0")
    batch = a_batch(0, 9)
    over = type(batch)(LOG, 0, 9, dropped=(LeftOut(4, 7, "kind none"),))
    store.advance(a_position(0, head=9), a_position(9), over, [])
    with pytest.raises(OwnFault):
        store.advance(a_position(0, head=9), a_position(9), over, [])
    assert store.rule_load.dropped()[LOG].matches == 7


def test_the_rules_in_force_are_known_beside_a_daemon(tmp_path: Path) -> None:
    database = create(str(tmp_path / "signwatch.db"), NOW, "test")
    store = a_store(database)
    assert store.rule_load.in_force() is None
    store.rule_load.put_in_force(5, [], NOW)
    store.rule_load.put_in_force(100, [f"r{number}" for number in range(30)], NOW)
    assert store.rule_load.in_force() == InForce(NOW, 100, 30, tuple(f"r{number}" for number in range(20)))
    database.close()

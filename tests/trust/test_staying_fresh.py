"""A daemon that is up for months: what the trust repository changes is seen, told once, and in force without a restart.

A real TUF repository and real logs over HTTP; the daemon's jobs are run by hand, at times the test chooses.
"""

import json

import pytest

from ca_lite.tuf_repository import publish_targets
from monitor.model.errors import FetchFailed
from monitor.store.reading import Reading
from tests.support.misbehaving_log import spki_of
from tests.support.served_log import CA, signing_body
from tests.support.trust_world import OTHER_CA, World, b64, passes, told, trusted_root
from tlog.note import tile_log_key


def test_an_authority_rotated_while_the_daemon_is_up_judges_the_next_signing(world: World) -> None:
    served = world.log("one")
    world.publish([served])
    monitor, daemon = world.begin()
    world.clock.advance(days=30)
    served.log.leaves.append(signing_body(ca=OTHER_CA))
    passes(monitor)
    world.publish([served], [CA, OTHER_CA])
    daemon.refresh_trust()
    served.log.leaves.append(signing_body(ca=OTHER_CA))
    passes(monitor)
    judged = {each.index: each.outcome for each in Reading(monitor.store.database).findings(10)}
    assert (judged[3], judged[4]) == ("unverified", "expected")
    assert told(monitor, "trust-changed") == ["trust-changed"]
    daemon.refresh_trust()
    monitor, daemon = world.start()
    daemon.refresh_trust()
    assert told(monitor, "trust-changed") == ["trust-changed"], "a restart does not repeat it"


def test_a_new_shard_is_told_and_followed_from_its_first_entry_without_a_restart(world: World) -> None:
    old, new = world.log("old"), world.log("new")
    world.publish([old])
    monitor, daemon = world.begin()
    world.publish([old, new])
    daemon.refresh_trust()
    assert [outcome.last for outcome in passes(monitor)] == [3, 3]
    assert told(monitor) == ["log-appeared"]
    name = monitor.logs[1].name
    assert Reading(monitor.store.database).followed()[name].baseline_size == 0
    new.log.leaves.append(signing_body("refs/heads/stranger"))
    passes(monitor)
    assert told(monitor) == ["log-appeared", "unexpected-signing"]


def test_a_crash_between_seeing_a_new_shard_and_following_it_loses_nothing_of_it(world: World) -> None:
    old, new = world.log("old"), world.log("new")
    world.publish([old])
    monitor, daemon = world.begin()
    world.publish([new, old])
    daemon.refresh_trust()
    monitor, _ = world.start()
    assert [outcome.last for outcome in passes(monitor)] == [3, 3]
    assert told(monitor) == ["log-appeared"]
    assert monitor.logs[0].url == old.url, "state belongs to names: they stay as they were given"


def test_a_shard_that_appears_while_the_daemon_is_down_is_told_at_the_start(world: World) -> None:
    old, new = world.log("old"), world.log("new")
    world.publish([old])
    world.begin()
    world.running.close()
    world.clock.advance(days=3)
    world.publish([old, new])
    old.log.leaves.append(signing_body())
    monitor, _ = world.start()
    assert [outcome.last for outcome in passes(monitor)] == [4, 3]
    assert told(monitor) == ["log-appeared"]


def test_a_shard_that_ends_is_read_to_its_end_and_then_nothing_more_is_expected_of_it(world: World) -> None:
    served = world.log("one")
    world.publish([served])
    monitor, daemon = world.begin()
    world.publish([(served, world.clock.now.replace(microsecond=0))])
    world.clock.advance(minutes=10)
    served.log.leaves.append(signing_body())
    daemon.refresh_trust()
    assert told(monitor) == ["log-ended", "trust-changed"]
    passes(monitor)
    daemon.refresh_trust()
    assert told(monitor, "log-ended") == ["log-ended"] * 2, "once that it ended, once that it was read to the end"
    position = monitor.store.position(monitor.logs[0].name)
    assert position is not None
    assert position.frontier.size == 4
    world.clock.advance(hours=20)
    assert [outcome.owner for outcome in passes(monitor)] == [None]
    before = told(monitor)
    assert "log-stale" not in before
    monitor, daemon = world.start()
    daemon.refresh_trust()
    passes(monitor)
    assert told(monitor) == before


def test_a_log_that_the_root_no_longer_names_is_still_read_under_the_key_it_had(world: World) -> None:
    old, new = world.log("old"), world.log("new")
    world.publish([old, new])
    monitor, daemon = world.begin()
    world.publish([new])
    daemon.refresh_trust()
    old.log.leaves.append(signing_body("refs/heads/stranger"))
    world.clock.advance(minutes=1)
    assert [outcome.owner for outcome in passes(monitor)] == [None, None]
    assert told(monitor, "trust-changed", "log-ended", "unexpected-signing") == [
        "log-ended",
        "trust-changed",
        "unexpected-signing",
    ]
    monitor, _ = world.start()
    assert [log.url for log in monitor.logs] == [old.url, new.url]
    assert [outcome.owner for outcome in passes(monitor)] == [None, None]


def test_a_repository_that_fails_for_days_is_told_before_and_when_the_root_is_stale(world: World) -> None:
    served = world.log("one")
    world.publish([served])
    monitor, daemon = world.begin()
    world.break_repository()
    expected: list[str] = []
    for hours, new in ((24, 0), (13, 1), (24, 0), (12, 1), (24, 0)):
        world.clock.advance(hours=hours)
        daemon.refresh_trust()
        daemon.heartbeat()
        expected += ["trust-root-stale"] * new
        assert told(monitor, "trust-root-stale") == expected
    assert "The keys verified last stay in force" in " ".join(daemon.reasons())
    assert 'signwatch_trust_root_refreshes_total{result="failed"} 5.0' in world.meter.expose().decode()
    served.log.leaves.append(signing_body())
    assert passes(monitor)[0].detail == "", "the keys known last stay in force"
    monitor, daemon = world.start()
    assert passes(monitor)[0].detail == "", "also after a restart while the repository is down"
    daemon.heartbeat()
    assert told(monitor, "trust-root-stale") == expected
    with pytest.raises(FetchFailed, match="longer ago"):
        monitor.trust.current()
    world.mend_repository()
    world.publish([served])
    daemon.refresh_trust()
    daemon.heartbeat()
    assert told(monitor, "trust-root-stale") == expected
    assert daemon.reasons() == []


def test_trouble_of_ours_is_logged_when_it_begins_and_then_seldom(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.publish([world.log("one")])
    _, daemon = world.begin()
    world.break_repository()
    for said in (1, 1, 1, 2):
        daemon.refresh_trust()
        assert sum(each.getMessage().startswith("own_trouble") for each in caplog.records) == said
        world.clock.advance(minutes=20)
    assert len(daemon.reasons()) == 1
    world.mend_repository()
    daemon.refresh_trust()
    assert daemon.reasons() == []


def test_metadata_about_to_expire_is_told_though_every_refresh_goes_well(world: World) -> None:
    world.publish([world.log("one")])
    monitor, daemon = world.begin()
    world.clock.advance(days=6, hours=1)
    daemon.refresh_trust()
    daemon.heartbeat()
    assert told(monitor) == ["trust-root-stale"]


def test_another_key_at_a_known_address_is_never_taken_for_the_log_that_was_there(world: World) -> None:
    served = world.log("one")
    more = f'logs: [{{name: mine, api: rekor-v2, url: "{served.url}"}}]'
    world.publish([served])
    monitor, daemon = world.begin(more)
    document = json.loads(trusted_root([served]))
    spki = spki_of(OTHER_CA.key)
    document["tlogs"][0]["publicKey"]["rawBytes"] = b64(spki)
    document["tlogs"][0]["logId"]["keyId"] = b64(tile_log_key("127.0.0.1", spki).log_id)
    targets = {"trusted_root.json": json.dumps(document).encode()}
    publish_targets(world.folder / "repository", world.folder / "keys", targets, world.clock.now)
    daemon.refresh_trust()
    served.log.leaves.append(signing_body())
    assert [outcome.owner for outcome in passes(monitor)] == [None], "still under its own key"
    assert set(told(monitor)) == {"trust-changed", "log-ended"}


def test_a_log_that_clients_are_sent_to_and_the_root_has_no_key_for_is_told_once(world: World) -> None:
    served = world.log("one")
    world.publish([served], services=[served.url])
    monitor, daemon = world.begin()
    daemon.refresh_trust()
    assert told(monitor) == [], "control: both sources name the same log"
    world.publish([served], services=[served.url, "https://log2031-2.example.org"])
    daemon.refresh_trust()
    daemon.refresh_trust()
    assert told(monitor) == ["trust-sources-disagree"]


def test_a_log_that_the_configuration_does_not_list_is_told_and_not_followed(world: World) -> None:
    old, new = world.log("old"), world.log("new")
    world.publish([old])
    monitor, daemon = world.begin(f'logs: [{{name: mine, api: rekor-v2, url: "{old.url}"}}]')
    world.publish([old, new])
    daemon.refresh_trust()
    assert len(monitor.watches) == 1
    [alert] = [each.alert for each in Reading(monitor.store.database).alerts(10)]
    assert (alert.kind, "not followed" in alert.consequence) == ("log-appeared", True)

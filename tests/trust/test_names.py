"""State belongs to names: for every command a name stands for the log it was first given to."""

import copy
import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from monitor.cli import run_command
from monitor.crosscheck.peers import checkpoints_document
from monitor.daemon.log_sources import own_sources
from monitor.model.log_source import LogSource
from monitor.program import utc_now
from tests.support.bundles import bundle, entry
from tests.support.misbehaving_log import RekorV2Log, b64, spki_of
from tests.support.served_log import ServedLog, signing_body
from tests.support.trust_world import World, keyed, passes
from tlog.note import tile_log_key


class Street(RekorV2Log):
    """Two logs behind one address, each below a path of its own."""

    houses: tuple[RekorV2Log, ...] = ()

    def answer(self, path: str, query: dict[str, str], document: Any) -> bytes:
        house = next((each for each in self.houses if path.startswith(each.prefix)), self.houses[0])
        return house.answer(path, query, document)


def colliding(world: World) -> tuple[ServedLog, ServedLog]:
    """Logs at `…/a/b` and `…/a-b`: with `/` and `:` left out of names, both are called the same."""
    street = Street()
    street.houses = keyed(11, [signing_body()] * 3, "a/b/"), keyed(12, [signing_body()] * 5, "a-b/")
    for house in street.houses:
        house.host = "127.0.0.1"
        house.timestamp = int(world.clock.now.timestamp() * 1000)
    url = world.log("street", street).url
    first, second = street.houses
    return ServedLog(first, f"{url}/a/b", world.folder), ServedLog(second, f"{url}/a-b", world.folder)


@pytest.fixture
def known(world: World) -> tuple[ServedLog, ServedLog, str]:
    """The first log is followed for long when the second appears, and is named before it."""
    # The commands go by the real clock, and so does the repository's expiry.
    world.clock.now = utc_now()
    first, second = colliding(world)
    world.publish([first])
    monitor, daemon = world.begin()
    name = monitor.logs[0].name
    world.publish([second, first])
    daemon.refresh_trust()
    assert [outcome.last for outcome in passes(monitor)] == [3, 5]
    assert [log.url for log in monitor.logs] == [first.url, second.url]
    assert monitor.logs[1].name == f"{name}-{_log_id(second).hex()[:8]}"
    world.running.close()
    return first, second, name


def _log_id(served: ServedLog) -> bytes:
    return tile_log_key("127.0.0.1", spki_of(served.log.log_key)).log_id


def a_bundle_of(served: ServedLog) -> bytes:
    log = copy.copy(served.log)
    log.prefix = ""
    return bundle(entry(log, 1) | {"logId": {"keyId": b64(_log_id(served))}})


def run(world: World, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = run_command([words[0], "--config", str(world.folder / "signwatch.yaml"), *words[1:]])
    return code, capsys.readouterr().out


def test_scan_reads_the_log_that_had_the_name_first(
    world: World, known: tuple[ServedLog, ServedLog, str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, name = known
    code, out = run(world, capsys, "scan", "--json", "--log", name, "--from", "0")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["summary"]["to"] == first.log.size
    code, out = run(world, capsys, "scan", "--json", "--log", f"{name}-{_log_id(second).hex()[:8]}", "--from", "0")
    assert (code, json.loads(out.splitlines()[-1])["summary"]["to"]) == (0, second.log.size)


def test_a_bundle_of_either_log_is_compared_with_that_log(
    world: World, known: tuple[ServedLog, ServedLog, str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, _ = known
    for served in (first, second):
        file = world.folder / "bundle.json"
        file.write_bytes(a_bundle_of(served))
        code, out = run(world, capsys, "check-bundle", "--json", str(file))
        [checked] = json.loads(out)["entries"]
        assert (code, checked["verdict"]) == (0, "consistent"), checked


def test_a_bundle_of_a_log_that_the_root_no_longer_names_still_bears_witness(
    world: World, known: tuple[ServedLog, ServedLog, str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, _ = known
    world.publish([second])
    file = world.folder / "bundle.json"
    file.write_bytes(a_bundle_of(first))
    code, out = run(world, capsys, "check-bundle", "--json", str(file))
    [checked] = json.loads(out)["entries"]
    assert (code, checked["verdict"]) == (0, "consistent"), checked


def test_the_doctor_counts_logs_that_are_gone_as_those_that_are_followed(
    world: World, known: tuple[ServedLog, ServedLog, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, second, _ = known
    world.publish([second])
    _, out = run(world, capsys, "doctor", "--json")
    [check] = [each for each in json.loads(out)["checks"] if each["what"] == "trust root"]
    assert check["fine"] is True
    assert check["told"].startswith("2 logs, each with its key")


def test_a_log_that_appears_is_shown_to_peers_without_a_restart(world: World) -> None:
    first, second = colliding(world)
    world.publish([first])
    monitor, daemon = world.begin()
    with ExitStack() as parts:
        sources = own_sources(monitor, parts)
        before = sources()
        assert names_of(before) == [log.name for log in monitor.logs]
        assert sources() is before, "kept as long as nothing changes"
        world.publish([first, second])
        daemon.refresh_trust()
        passes(monitor)
        names = names_of(sources())
        assert names == [log.name for log in monitor.logs]
        assert len(names) == 2
        assert len(checkpoints_document(monitor.store, sources())["checkpoints"]) == 2
        world.publish([second])
        daemon.refresh_trust()
        assert names_of(sources()) == names, "also once the root no longer names one"


def names_of(sources: Sequence[LogSource]) -> list[str]:
    return [each.identity.log for each in sources]

"""The same attacks once more over real HTTP: `log-lite` as a process, with its faults switched on one after the other.

Every log holds 301 entries or more; following has read 200 of them and trusts the head of all.
"""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from monitor.following.follower import baseline
from monitor.http_fetcher import HttpFetcher
from monitor.logs.opening import open_sources
from monitor.model.log_description import LogDescription
from monitor.model.log_source import LogApi, LogSource
from monitor.proof.evidence import check_evidence, to_document
from tests.support.log_server import LogServer, log_server
from tests.support.memory_state import MemoryState
from tests.support.served_following import ALL, CT, PATHS, READ, STATIC, V1, V2, Followed, add, trust_of, wait_for
from tests.support.waiting import wait_until


@dataclass
class Site:
    server: LogServer
    logs: dict[LogApi, Followed]
    seconds: list[float]

    def let_time_pass(self) -> None:
        """A server that asked for rest got it; an answer that is still trickling in is late."""
        self.seconds[0] += 3600.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with log_server(Path(tmp_path_factory.mktemp("real")) / "log") as server:
        for log in ("v1", "v2", "ct"):
            add(server, log, 300)
        root = trust_of(server)
        logs, fetchers, passed = {}, [], [0.0]

        def rest(seconds: float) -> None:
            # The rest that a server asks for passes on the fetcher's clock: two minutes for all answers of one mode.
            passed[0] += seconds

        for api, path in PATHS.items():
            trusted = root.log_at(server.url + path, api)
            fetcher = HttpFetcher(trusted.url, clock=lambda: time.monotonic() + passed[0], pause=rest)
            fetchers.append(fetcher)
            description = LogDescription(api.value, trusted.url, trusted.spki, (api,), trusted.log_id)
            opened = open_sources(description, fetcher)
            wait_for(opened[-1], 301)
            logs[api] = Followed(opened[-1], baseline(opened[-1], MemoryState(), READ))
        yield Site(server, logs, passed)
        for fetcher in fetchers:
            fetcher.close()


@pytest.mark.parametrize("api", ALL)
def test_the_honest_log_is_followed_to_its_head(site: Site, api: LogApi) -> None:
    site.server.fault("none")
    outcome, state = site.logs[api].follow()
    assert outcome == "fine"
    (position,) = state.positions.values()
    assert position.frontier.root() == position.head.head.root
    assert position.frontier.size == position.head.head.size >= 300
    assert len(state.findings) == len(range(203, position.frontier.size, 7))


@pytest.mark.parametrize("log", ["v1", "v2", "ct"])
def test_the_protocol_is_found_by_asking(site: Site, log: str) -> None:
    site.server.fault("none")
    api = {"v1": V1, "v2": V2, "ct": CT}[log]
    trusted = trust_of(site.server).log_at(site.server.url + PATHS[api], api)
    fetcher = HttpFetcher(trusted.url)
    opened = open_sources(LogDescription("x", trusted.url, trusted.spki, trusted.apis, trusted.log_id), fetcher)
    fetcher.close()
    assert opened[-1].identity.api is api


FAULTS: dict[str, dict[LogApi, str]] = {
    "fork": dict.fromkeys(ALL, "log-forked"),
    "same-size-other-root": dict.fromkeys(ALL, "log-forked"),
    "hide": dict.fromkeys(ALL, "log-entry-missing"),
    "swap": dict.fromkeys(ALL, "log-entries-not-in-tree"),
    "duplicate-index": dict.fromkeys(ALL, "log-entries-not-in-tree"),
    "wrong-key": dict.fromkeys(ALL, "log-head-refused"),
    "bad-signature": dict.fromkeys(ALL, "log-head-refused"),
    "wrong-origin": {V1: "log-head-refused", V2: "log-head-refused", CT: "fine", STATIC: "log-head-refused"},
    "malformed-proof": {V1: "log-inconsistent", CT: "log-inconsistent", STATIC: "fine"},
    "truncated-tile": {V2: "malformed", CT: "fine", STATIC: "malformed"},
    "padded-bundle": {V2: "malformed", CT: "fine", STATIC: "malformed"},
    "partial-not-prefix": {V2: "log-forked"},
    "extra-signature": {V1: "malformed", V2: "fine", CT: "fine", STATIC: "fine"},
    "stale-replica": dict.fromkeys((V1, V2), "fine"),
    "out-of-order": {V1: "fine"},
    "oversized": dict.fromkeys((V1, V2), "too-large"),
    "redirect": dict.fromkeys(ALL, "wrong-content"),
    "gzip": dict.fromkeys((V1, V2), "wrong-content"),
    "html": dict.fromkeys(ALL, "wrong-content"),
    "error-500": dict.fromkeys(ALL, "server-failed"),
    "rate-limit": dict.fromkeys(ALL, "throttled"),
    "slow": {V2: "timeout"},
}
INDEXED = {"fork", "hide", "swap", "duplicate-index"}


@pytest.mark.parametrize("mode", FAULTS)
def test_every_fault_is_told_for_what_it_is(site: Site, mode: str) -> None:
    site.server.fault("none")
    site.server.fault(mode, *(["--index", "250"] if mode in INDEXED else []))
    outcomes = {}
    # An answer that only trickles is given up in the middle. Where its request begins later, a minute has to pass.
    late = threading.Timer(1.0, site.let_time_pass)
    if mode == "slow":
        late.start()
    for api in FAULTS[mode]:
        outcome, state = site.logs[api].follow(1 if mode == "slow" else 3)
        outcomes[api] = outcome
        assert all(position.frontier.size <= 301 for position in state.positions.values())
        for evidence in state.evidence.values():
            conclusion = check_evidence(json.dumps(to_document(evidence)).encode()).conclusion
            assert conclusion.transferable == (evidence.kind == "log-forked")
    late.cancel()
    site.let_time_pass()
    assert outcomes == FAULTS[mode]


def test_after_every_fault_the_honest_log_is_followed_again(site: Site) -> None:
    site.server.fault("none")
    for followed in site.logs.values():
        assert followed.follow()[0] == "fine"


def opened(server: LogServer, api: LogApi, fetchers: list[HttpFetcher]) -> list[LogSource]:
    trusted = trust_of(server).log_at(server.url, api)
    fetchers.append(HttpFetcher(trusted.url))
    return open_sources(LogDescription(api.value, trusted.url, trusted.spki, (api,), trusted.log_id), fetchers[-1])


def test_a_rotated_and_a_frozen_shard_are_followed_to_their_end_and_stay_final(tmp_path: Path) -> None:
    fetchers: list[HttpFetcher] = []
    with log_server(tmp_path / "log") as server:
        add(server, "v1", 50)
        add(server, "v2", 50)
        (old,), (frozen,) = opened(server, V1, fetchers), opened(server, V2, fetchers)
        followed = {}
        for source in (old, frozen):
            wait_for(source, 51)
            followed[source.identity.api] = Followed(source, baseline(source, MemoryState(), 10))
        add(server, "v1", 20, first=1000)
        server.command("rotate", "--log", "v1")
        add(server, "v1", 5, first=5000)
        server.command("freeze", "--log", "v2")
        wait_for(old, 71)
        wait_for_final(old)
        new = opened(server, V1, fetchers)[-1]
        wait_for(new, 5)
        for api, size in ((V1, 71), (V2, 51)):
            wait_for_final(followed[api].source)
            outcome, state = followed[api].follow()
            (position,) = state.positions.values()
            assert outcome == "fine"
            assert (position.frontier.size, position.head.head.final) == (size, True)
            followed[api] = replace(followed[api], position=position)
        assert new.identity.log != old.identity.log
        assert Followed(new, baseline(new, MemoryState(), 0)).follow()[0] == "fine"
        server.fault("inactive-shard-changed", "--log", "v1")
        assert followed[V1].follow()[0] == "log-forked"
        server.fault("unfreeze", "--log", "v2")
        assert followed[V2].follow()[0] == "log-unfrozen"
        server.fault("none")
        assert [each.follow()[0] for each in followed.values()] == ["fine", "fine"]
    for fetcher in fetchers:
        fetcher.close()


def wait_for_final(source: LogSource) -> None:
    wait_until(f"{source.identity.log} to be final", lambda: source.latest().final)

"""A resolver that hangs holds no request longer than its limit, and the error tells the name."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from addresses.image_name import parse_image_name
from monitor.http_fetcher import Expect, HttpFetcher, Unreachable
from monitor.model.errors import OwnFault
from outbound import names as names_module
from outbound.address_guard import GuardedBackend
from outbound.json_client import JsonClient, Outage
from outbound.names import OWN, STRANGERS, BoundedCalls, CallNotEnded, look_up
from outbound.registry import Registry, RegistryFailed
from outbound.transport import Deadline, DeadlineBackend, HttpLimits, believed, connect, resolve
from tests.support.hanging_names import HangingNames, first_address_dead, hanging_names
from tests.support.waiting import PATIENCE

SHORT = 0.5


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingNames]:
    with hanging_names(monkeypatch) as names:
        yield names


def test_control_a_name_that_resolves_is_resolved(hanging: HangingNames) -> None:
    assert "127.0.0.1" in resolve("localhost", 443)
    assert hanging.lookups == []


def test_an_address_is_looked_up_by_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "OWN", BoundedCalls(0))
    assert resolve("192.0.2.1", 443) == ["192.0.2.1"]
    assert resolve("2001:db8::1", 443) == ["2001:db8::1"]


def test_a_log_whose_name_hangs_could_not_be_asked(hanging: HangingNames) -> None:
    limits = HttpLimits(total=SHORT)
    with (
        closing(HttpFetcher("https://log.hanging.example", limits=limits, clock=lambda: 0.0)) as fetcher,
        pytest.raises(Unreachable, match=r"the name log\.hanging\.example was not resolved"),
    ):
        fetcher.get("checkpoint", max_bytes=10, expect=Expect.BYTES)
    assert not hanging.released.is_set()


def test_a_sign_in_service_whose_name_hangs_is_an_outage(hanging: HangingNames) -> None:
    with (
        JsonClient(believed(None)) as client,
        pytest.raises(Outage, match=r"the name issuer\.hanging\.example was not resolved"),
    ):
        client.request_json("https://issuer.hanging.example/x", limit=10, seconds=SHORT)
    assert not hanging.released.is_set()


def test_a_registry_whose_name_hangs_cannot_be_reached(hanging: HangingNames) -> None:
    image = parse_image_name("registry.hanging.example/acme/app")
    with (
        Registry(image, seconds=SHORT) as registry,
        pytest.raises(RegistryFailed, match=r"the name registry\.hanging\.example was not resolved"),
    ):
        registry.tags()
    assert not hanging.released.is_set()


def test_a_connection_to_a_name_that_hangs_ends_with_its_name(hanging: HangingNames) -> None:
    with pytest.raises(CallNotEnded, match=r"the name mail\.hanging\.example was not resolved"):
        connect("mail.hanging.example", 25, SHORT)
    assert not hanging.released.is_set()


def test_a_dead_first_address_leaves_time_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as live:
        port = live.getsockname()[1]
        with first_address_dead(monkeypatch, "mail.example", port):
            with pytest.raises(TimeoutError):
                connect("127.0.0.2", port, SHORT)
            with connect("mail.example", port, 4 * SHORT) as connection:
                assert connection.getpeername() == ("127.0.0.1", port)


def test_a_dead_first_address_of_a_guarded_host_leaves_time_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as live:
        port, deadline = live.getsockname()[1], Deadline(time.monotonic)
        backend = GuardedBackend(DeadlineBackend(deadline), resolve, allow_private=True)
        with (
            first_address_dead(monkeypatch, "hook.example", port),
            deadline.running(4 * SHORT),
            closing(backend.connect_tcp("hook.example", port, 4 * SHORT)) as stream,
        ):
            assert stream.get_extra_info("server_addr") == ("127.0.0.1", port)


def test_requests_for_one_name_share_one_thread(hanging: HangingNames) -> None:
    calls = BoundedCalls(1)

    def ask(_: int) -> str:
        with pytest.raises(CallNotEnded) as caught:
            look_up("log.hanging.example", 443, SHORT, calls=calls)
        return str(caught.value)

    with ThreadPoolExecutor(4) as threads:
        told = set(threads.map(ask, range(8)))
    assert told == {"the name log.hanging.example was not resolved: not within 0.5 seconds"}
    assert hanging.lookups == ["log.hanging.example"]


def test_names_that_hang_take_no_more_threads_than_the_bound(hanging: HangingNames) -> None:
    calls, before = BoundedCalls(2), threading.active_count()
    for number in range(4):
        with pytest.raises(CallNotEnded, match=rf"the name {number}\.hanging\.example was not resolved"):
            look_up(f"{number}.hanging.example", 443, SHORT, calls=calls)
    assert hanging.lookups == ["0.hanging.example", "1.hanging.example"]
    assert threading.active_count() <= before + 2
    with pytest.raises(CallNotEnded, match="2 others have not ended"):
        look_up("localhost", 443, SHORT, calls=calls)
    hanging.released.set()
    assert "127.0.0.1" in look_up("localhost", 443, PATIENCE, calls=calls), "ended lookups make room"


def test_the_names_of_strangers_leave_the_others_their_threads(
    hanging: HangingNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(STRANGERS, "_most", 1)
    image = parse_image_name("registry.hanging.example/acme/app")
    with Registry(image, seconds=SHORT) as registry, pytest.raises(RegistryFailed):
        registry.tags()
    with pytest.raises(CallNotEnded, match="1 others have not ended"):
        look_up("localhost", 443, SHORT, calls=STRANGERS)
    assert "127.0.0.1" in look_up("localhost", 443, PATIENCE, calls=OWN)
    assert hanging.lookups == ["registry.hanging.example"]


def test_the_error_of_a_lookup_is_the_systems_own() -> None:
    with pytest.raises(socket.gaierror):
        look_up("nowhere.invalid", 443, PATIENCE)


def test_a_call_that_itself_runs_out_of_time_is_no_call_left_behind() -> None:
    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        BoundedCalls(1).result("key", fail, PATIENCE)


def test_a_machine_without_a_thread_left_is_our_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with closing(HttpFetcher("https://localhost:1")) as fetcher:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OwnFault, match="Cannot allocate memory on this machine"):
            fetcher.get("x", max_bytes=10, expect=Expect.BYTES)

"""Ports of tests: each is given once, and the kernel gives none of them to an outgoing connection."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from monitor.demo.processes import DemoFailed, free_ports, is_free, server_ports
from tests.support.log_server import free_port
from tests.support.waiting import PATIENCE

_CLAIM = "import sys; from tests.support import log_server; print(log_server._claim(int(sys.argv[1])))"
_ROOT = Path(__file__).parents[2]


def claimed_elsewhere(port: int) -> bool:
    command = [sys.executable, "-c", _CLAIM, str(port)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout == "True\n"


def test_a_port_is_given_to_one_process_of_tests() -> None:
    port = free_port()
    assert not claimed_elsewhere(port)
    never_given = next(each for each in range(1024, 20_000) if each != port)
    assert claimed_elsewhere(never_given), "control"
    assert len({free_port() for _ in range(50)} - {port}) == 50


def test_no_outgoing_connection_takes_a_port_of_a_server() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if last - first > 60_000:
        pytest.skip("this kernel gives every port to outgoing connections")
    assert not set(server_ports()) & set(range(first, last + 1))


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_port_that_is_taken_on_either_loopback_address_is_not_free(family: int, address: str) -> None:
    port = free_port()
    assert is_free(port), "control"
    with socket.socket(family) as taken:
        try:
            taken.bind((address, port))
        except OSError:
            pytest.skip("this machine has no IPv6")
        assert not is_free(port)


def test_more_ports_than_there_are_is_an_error_that_says_so() -> None:
    with pytest.raises(DemoFailed, match=r"ports from .* are free"):
        free_ports(2_000)

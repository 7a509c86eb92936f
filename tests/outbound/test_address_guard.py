"""Public is what the IANA registries say is globally reachable, block by block, however an address is written."""

import ipaddress

import httpcore
import pytest

from outbound.address_guard import AddressRefused, GuardedBackend, is_private_literal, is_public
from outbound.transport import resolve

# IANA IPv4 Special-Purpose Address Registry, every row in order; "N/A" is false. Then the multicast registry's block.
IPV4 = {
    "0.0.0.0/8": False,
    "0.0.0.0/32": False,
    "10.0.0.0/8": False,
    "100.64.0.0/10": False,
    "127.0.0.0/8": False,
    "169.254.0.0/16": False,
    "172.16.0.0/12": False,
    "192.0.0.0/24": False,
    "192.0.0.0/29": False,
    "192.0.0.8/32": False,
    "192.0.0.9/32": True,
    "192.0.0.10/32": True,
    "192.0.0.170/32": False,
    "192.0.0.171/32": False,
    "192.0.2.0/24": False,
    "192.31.196.0/24": True,
    "192.52.193.0/24": True,
    "192.88.99.0/24": False,
    "192.88.99.2/32": False,
    "192.168.0.0/16": False,
    "192.175.48.0/24": True,
    "198.18.0.0/15": False,
    "198.51.100.0/24": False,
    "203.0.113.0/24": False,
    "240.0.0.0/4": False,
    "255.255.255.255/32": False,
    "224.0.0.0/4": False,
}
# IANA IPv6 Special-Purpose Address Registry, every row in order but the three that carry IPv4 addresses (::ffff:0:0/96,
# 64:ff9b::/96 and 2002::/16, below). Then blocks of the IPv6 address space registry.
IPV6 = {
    "::1/128": False,
    "::/128": False,
    "64:ff9b:1::/48": False,
    "100::/64": False,
    "100:0:0:1::/64": False,
    "2001::/23": False,
    "2001::/32": False,
    "2001:1::1/128": True,
    "2001:1::2/128": True,
    "2001:1::3/128": True,
    "2001:2::/48": False,
    "2001:3::/32": True,
    "2001:4:112::/48": True,
    "2001:10::/28": False,
    "2001:20::/28": True,
    "2001:30::/28": True,
    "2001:db8::/32": False,
    "2620:4f:8000::/48": True,
    "3fff::/20": False,
    "5f00::/16": False,
    "fc00::/7": False,
    "fe80::/10": False,
    "fec0::/10": False,
    "ff00::/8": False,
    "::/96": False,
    "4000::/3": False,
    "c000::/3": False,
}
NAMED_BY_USERS = (
    "64:ff9b:1::1",
    "64:ff9b:1::7f00:1",
    "::127.0.0.1",
    "::8.8.8.8",
    "fec0::1",
    "192.0.0.192",
    "fe80::1%eth0",
)
CARRIERS = ("::ffff:{a:04x}:{b:04x}", "64:ff9b::{a:04x}:{b:04x}", "2002:{a:04x}:{b:04x}::")


def probes(block: str) -> list[str]:
    """First and last address of a block, and one in the middle, that no smaller block decides otherwise."""
    network = ipaddress.ip_network(block)
    smaller = [ipaddress.ip_network(other) for other in (*IPV4, *IPV6) if other != block]
    inside = [other for other in smaller if other.version == network.version and other.subnet_of(network)]  # type: ignore[arg-type]
    wanted = [network[0], network[-1], network[network.num_addresses // 2], network[network.num_addresses // 3]]
    found = [str(each) for each in wanted if not any(each in other for other in inside)]
    assert found, block
    return found


@pytest.mark.parametrize("block", [*IPV4, *IPV6])
def test_an_address_of_a_registered_block_is_public_only_where_the_registry_says_so(block: str) -> None:
    for address in probes(block):
        assert is_public(address) is (IPV4 | IPV6)[block], address


@pytest.mark.parametrize("form", CARRIERS, ids=["mapped", "nat64", "6to4"])
@pytest.mark.parametrize("block", IPV4)
def test_an_ipv4_address_inside_ipv6_is_what_it_is_by_itself(block: str, form: str) -> None:
    for address in probes(block):
        packed = int(ipaddress.IPv4Address(address))
        assert is_public(form.format(a=packed >> 16, b=packed & 0xFFFF)) is IPV4[block], address


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450::1", "3ffe::1"])
def test_an_ordinary_address_is_public(address: str) -> None:
    assert is_public(address)
    if "." in address:
        packed = int(ipaddress.IPv4Address(address))
        assert all(is_public(form.format(a=packed >> 16, b=packed & 0xFFFF)) for form in CARRIERS)


@pytest.mark.parametrize("address", NAMED_BY_USERS)
def test_a_form_that_older_pythons_call_global_is_refused(address: str) -> None:
    assert not is_public(address)
    assert is_private_literal(address)


def test_a_name_is_no_private_literal_and_no_address() -> None:
    assert not is_private_literal("hooks.example")
    with pytest.raises(ValueError, match="does not appear to be"):
        is_public("hooks.example")


class Recorder(httpcore.NetworkBackend):
    """Stands where the network would be, and refuses every connection after noting the address."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def connect_tcp(self, host: str, *_arguments: object, **_named: object) -> httpcore.NetworkStream:
        self.asked.append(host)
        raise httpcore.ConnectError("refused")


def test_only_checked_addresses_are_connected_to_and_every_one_of_them_is_tried() -> None:
    network, addresses = Recorder(), ["127.0.0.1", "8.8.8.8", "fec0::1", "1.1.1.1"]
    with pytest.raises(httpcore.ConnectError):
        GuardedBackend(network, lambda _host, _port, _seconds: addresses, allow_private=False).connect_tcp(
            "hooks.example", 443
        )
    assert network.asked == ["8.8.8.8", "1.1.1.1"]
    with pytest.raises(AddressRefused):
        GuardedBackend(network, lambda _host, _port, _seconds: addresses[:1], allow_private=False).connect_tcp(
            "hooks.example", 443
        )
    assert network.asked == ["8.8.8.8", "1.1.1.1"]
    with pytest.raises(httpcore.ConnectError):
        GuardedBackend(network, lambda _host, _port, _seconds: addresses[:1], allow_private=True).connect_tcp(
            "hooks.example", 443
        )
    assert network.asked[2:] == ["127.0.0.1"]


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
def test_a_text_that_can_be_no_name_is_an_error_of_the_network(host: str) -> None:
    with pytest.raises(OSError, match="cannot be the name of a host"):
        resolve(host, 443)

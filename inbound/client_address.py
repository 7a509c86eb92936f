"""Address of a request's client: the connection's address, or behind a known proxy the forwarded address."""

import ipaddress
from collections.abc import Sequence
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
UNKNOWN: Final = "unknown"
_IPV6: Final = 6


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks of proxies. Raises `ValueError`."""
    return tuple(ipaddress.ip_network(each, strict=False) for each in texts)


def client_address(peer: str, forwarded: str, proxies: Sequence[Network]) -> str:
    """The client's address; for IPv6 its /64, because one household has a whole /64. `forwarded`: `X-Forwarded-For`.

    A forwarded address counts only behind a known proxy: the last address is the one that the proxy saw.
    """
    told = [part.strip() for part in forwarded.split(",") if part.strip()]
    while told and _is_proxy(peer, proxies):
        peer = told.pop()
    try:
        parsed = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return UNKNOWN
    if parsed.version == _IPV6:
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return str(parsed)


def _is_proxy(address: str, proxies: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in proxies if network.version == parsed.version)

"""Connects only to public addresses, so that a stranger's URL cannot reach a private network.

A name may resolve to a public address once and to the metadata service the next time (DNS rebinding). This attack
fails, because the connection goes to the very address that was checked.

An address is public if the IANA special-purpose address registries do not except it (RFC 6890, RFC 8190), within the
space that IANA delegates as global unicast. Python's `ipaddress.is_global` follows an older copy of the registries.
"""

import ipaddress
import math
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final

import httpcore
import httpx

from outbound.names import shares

# IANA IPv4 Special-Purpose Address Registry, column "Globally Reachable"; "N/A" counts as false. Beside it the
# multicast block, which has a registry of its own. The smallest block that holds an address decides.
_IPV4: Final = tuple(
    (IPv4Network(block), reachable)
    for block, reachable in (
        ("0.0.0.0/8", False),  # this network
        ("10.0.0.0/8", False),  # private use
        ("100.64.0.0/10", False),  # shared address space
        ("127.0.0.0/8", False),  # loopback
        ("169.254.0.0/16", False),  # link local, metadata services
        ("172.16.0.0/12", False),  # private use
        ("192.0.0.0/24", False),  # IETF protocol assignments
        ("192.0.0.9/32", True),  # Port Control Protocol anycast
        ("192.0.0.10/32", True),  # TURN anycast
        ("192.0.2.0/24", False),  # documentation
        ("192.31.196.0/24", True),  # AS112-v4
        ("192.52.193.0/24", True),  # AMT
        ("192.88.99.0/24", False),  # deprecated 6to4 relay anycast
        ("192.168.0.0/16", False),  # private use
        ("192.175.48.0/24", True),  # direct delegation AS112 service
        ("198.18.0.0/15", False),  # benchmarking
        ("198.51.100.0/24", False),  # documentation
        ("203.0.113.0/24", False),  # documentation
        ("224.0.0.0/4", False),  # multicast
        ("240.0.0.0/4", False),  # reserved, limited broadcast
    )
)
# IANA IPv6 Special-Purpose Address Registry, as far as it lies in the global unicast space. What lies outside it is
# not public: loopback, unique local, link local, multicast, the deprecated site-local and IPv4-compatible addresses.
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_IPV6: Final = tuple(
    (IPv6Network(block), reachable)
    for block, reachable in (
        ("2001::/23", False),  # IETF protocol assignments, Teredo in it
        ("2001:1::1/128", True),  # Port Control Protocol anycast
        ("2001:1::2/128", True),  # TURN anycast
        ("2001:1::3/128", True),  # DNS-SD Service Registration Protocol anycast
        ("2001:2::/48", False),  # benchmarking
        ("2001:3::/32", True),  # AMT
        ("2001:4:112::/48", True),  # AS112-v6
        ("2001:10::/28", False),  # deprecated ORCHID
        ("2001:20::/28", True),  # ORCHIDv2
        ("2001:30::/28", True),  # drone remote identification
        ("2001:db8::/32", False),  # documentation
        ("2620:4f:8000::/48", True),  # direct delegation AS112 service
        ("3fff::/20", False),  # documentation
    )
)
# Forms that hold an IPv4 address, with its distance from the right: that address decides.
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_CARRIERS: Final = ((_MAPPED, 0), (_NAT64, 0), (_SIX_TO_FOUR, 80))

Resolve = Callable[[str, int, float | None], list[str]]
"""Addresses of a host and port, within a number of seconds. Raises `OSError`."""


class AddressRefused(OSError):
    """The host's name leads to an address that is not on the public internet."""


def is_public(address: str) -> bool:
    """True if an IP address is public, also inside an IPv6 form.

    Raises `ValueError` for a text that is no IP address.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv4Address):
        return _decide(_IPV4, parsed, otherwise=True)
    for block, shift in _CARRIERS:
        if parsed in block:
            return _decide(_IPV4, IPv4Address((int(parsed) >> shift) & 0xFFFFFFFF), otherwise=True)
    return _decide(_IPV6, parsed, otherwise=parsed in _GLOBAL_UNICAST)


def is_private_literal(host: str) -> bool:
    """True if the host of a URL is an IP address that is not public; false for a name."""
    try:
        return not is_public(host)
    except ValueError:
        return False


def _decide(
    blocks: Iterable[tuple[IPv4Network | IPv6Network, bool]], address: IPv4Address | IPv6Address, *, otherwise: bool
) -> bool:
    holding = [(block.prefixlen, reachable) for block, reachable in blocks if address in block]
    return max(holding)[1] if holding else otherwise


class GuardedBackend(httpcore.NetworkBackend):
    """Connects through `inner` to a checked address of the host, and to no other. TLS still checks the host's name.

    Raises `AddressRefused` when the name has no public address, unless `allow_private`.
    """

    def __init__(self, inner: httpcore.NetworkBackend, resolver: Resolve, *, allow_private: bool) -> None:
        self._inner, self._resolve, self._allow_private = inner, resolver, allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first public address that answers. Raises `AddressRefused` when the host has none."""
        ends = math.inf if timeout is None else time.monotonic() + timeout
        addresses = self._resolve(host, port, timeout)
        allowed = [address for address in addresses if self._allow_private or is_public(address)]
        if not allowed:
            raise AddressRefused(f"{host} leads to no public address")
        failure: Exception = httpcore.ConnectTimeout(f"{host} took no connection in time")
        for address, share in shares(allowed, ends):
            try:
                return self._inner.connect_tcp(
                    address, port, share if timeout is not None else None, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


class GuardedTransport(httpx.BaseTransport):
    """httpx over one fresh httpcore pool with a network backend. Raises `httpcore`'s errors as they are."""

    def __init__(self, backend: httpcore.NetworkBackend, context: ssl.SSLContext) -> None:
        self._pool = httpcore.ConnectionPool(ssl_context=context, max_connections=1, network_backend=backend)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request over the guarded pool."""
        answer = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions)

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

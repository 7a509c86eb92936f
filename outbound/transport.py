"""Requests to other hosts: a deadline for the whole, public addresses only, who lacked what, Retry-After, a rate.

The name in a URL is resolved by others than the author of the URL. A name that resolves to a public address once and to
the metadata service the next time (DNS rebinding) gains nothing: the address that was checked is the one connected to.

Public is what the IANA special-purpose address registries do not except (RFC 6890, RFC 8190), within the space that
IANA delegates as global unicast. Python's `ipaddress.is_global` follows an older copy of the registries.
"""

import errno
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, Final

import httpcore
import httpx

from outbound.named_authorities import believing

# No more descriptors in this process or on this machine, no memory, no buffers of the network.
OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_DEEPEST: Final = 20


def own_shortage(error: BaseException) -> str:
    """The resource this machine lacked, as the system names it; "" for any other error.

    A resolver that can open neither its files nor a socket says only that the name is unknown for now, so after such an
    error a socket is opened to see.
    """
    seen: BaseException | None = error
    for _ in range(_DEEPEST):
        if seen is None:
            break
        if isinstance(seen, socket.gaierror):
            return _missing_now()
        if isinstance(seen, OSError) and seen.errno in OURS:
            return os.strerror(seen.errno)
        seen = seen.__cause__ or seen.__context__
    return ""


def _missing_now() -> str:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM):
            return ""
    except OSError as error:
        return os.strerror(error.errno) if error.errno in OURS else ""


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
# Forms that carry an IPv4 address, with how far it stands from the right: that address decides.
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_CARRIERS: Final = ((_MAPPED, 0), (_NAT64, 0), (_SIX_TO_FOUR, 80))

Resolve = Callable[[str, int], list[str]]


class AddressRefused(OSError):
    """The host's name leads to an address that is not on the public internet."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also when it stands inside an IPv6 form.

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
    """Whether a host of a URL is written as an IP address that is not public; false for a name."""
    try:
        return not is_public(host)
    except ValueError:
        return False


def _decide(
    blocks: Iterable[tuple[IPv4Network | IPv6Network, bool]], address: IPv4Address | IPv6Address, *, otherwise: bool
) -> bool:
    holding = [(block.prefixlen, reachable) for block, reachable in blocks if address in block]
    return max(holding)[1] if holding else otherwise


def resolve(host: str, port: int) -> list[str]:
    """Every address of `host`, as the system resolves it."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


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
        """Connect to the first public address of the host. Raises `AddressRefused` when it has none."""
        addresses = self._resolve(host, port)
        allowed = [address for address in addresses if self._allow_private or is_public(address)]
        if not allowed:
            raise AddressRefused(f"{host} leads to no public address")
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in allowed:
            try:
                return self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
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


# A bundle of 256 entries has ten times what httpcore reads at once, and each piece costs tens of microseconds on its
# way up. More than this is slower again: memory for larger pieces is fetched from the system anew each time.
_READ_BYTES: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Seconds for connecting, for one read or write, and for a whole answer; connections kept open."""

    connect: float = 10.0
    operation: float = 15.0
    total: float = 60.0
    connections: int = 8
    keepalive: float = 120.0


class Deadline:
    """When the request running in this thread must be over.

    A server that sends one byte a second beats any timeout per read, so every socket operation is held to this too.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._local = threading.local()

    @contextmanager
    def running(self, seconds: float) -> Iterator[None]:
        """Everything this thread does on a socket inside must be over in this many seconds."""
        self._local.at = self._clock() + seconds
        try:
            yield
        finally:
            del self._local.at

    def cut(self, timeout: float | None) -> float | None:
        """Shorten one operation's timeout to the time left. Raises `httpcore.ReadTimeout` when none is."""
        at = getattr(self._local, "at", None)
        if at is None:
            return timeout
        left = at - self._clock()
        if left <= 0:
            raise httpcore.ReadTimeout("total deadline passed")
        return float(left) if timeout is None else min(timeout, float(left))


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max(max_bytes, _READ_BYTES), self._deadline.cut(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.cut(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._stream.start_tls(ssl_context, server_hostname, self._deadline.cut(timeout))
        return _DeadlineStream(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class DeadlineBackend(httpcore.SyncBackend):
    """Connections whose every operation is held to the deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect within the time left until the deadline."""
        stream = super().connect_tcp(host, port, self._deadline.cut(timeout), local_address, socket_options)
        return _DeadlineStream(stream, self._deadline)


class DeadlineTransport(httpx.BaseTransport):
    """httpx's own transport, but over a pool whose sockets obey the deadline."""

    def __init__(self, deadline: Deadline, limits: HttpLimits, context: ssl.SSLContext, proxy: str | None) -> None:
        settings: dict[str, Any] = {
            "ssl_context": context,
            "max_connections": limits.connections,
            "max_keepalive_connections": limits.connections,
            "keepalive_expiry": limits.keepalive,
            "network_backend": DeadlineBackend(deadline),
        }
        if proxy:
            # A proxy that is itself asked over TLS is believed by the same authorities; httpcore refuses one otherwise.
            its_own = {"proxy_ssl_context": settings["ssl_context"]} if proxy.startswith("https:") else {}
            self._pool: httpcore.ConnectionPool = httpcore.HTTPProxy(proxy_url=proxy, **settings, **its_own)
        else:
            self._pool = httpcore.ConnectionPool(**settings)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.BaseTransport.handle_request`. Raises `httpcore`'s errors as they are."""
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        answer = self._pool.handle_request(
            httpcore.Request(
                request.method, url, headers=request.headers.raw, content=request.stream, extensions=request.extensions
            )
        )
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_BodyStream(answer.stream), extensions=answer.extensions
        )

    def close(self) -> None:
        """Close every connection of the pool."""
        self._pool.close()


def believed(ca_file: str | None) -> ssl.SSLContext:
    """Trusted TLS roots: those of the PEM file alone, else the system's.

    Raises `OSError` (which `ssl.SSLError` is) when the file cannot be read or holds no certificate.
    """
    if ca_file is None:
        return httpx.create_ssl_context(trust_env=False)
    if Path(ca_file).is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    return believing(file=ca_file)


class _BodyStream(httpx.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)

    def close(self) -> None:
        self._stream.close()


_MAX_DIGITS: Final = 9  # thirty years of seconds


def parse_retry_after(value: str | None, now: datetime | None) -> timedelta | None:
    """Return the wait that a Retry-After header asks for: seconds or an HTTP date; None when absent or not understood.

    `now` is the time the date counts from: the answer's own Date, or our clock. Without it a date is not understood.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        return timedelta(seconds=int(value))
    at = parse_http_date(value)
    return None if at is None or now is None else max(at - now, timedelta(0))


def parse_http_date(value: str | None) -> datetime | None:
    """Return the time of an HTTP date (RFC 9110 5.6.7), None when it is none."""
    try:
        at = parsedate_to_datetime(value or "")
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


class Tokens:
    """At most `rate` a second on average, `burst` at once. `now` counts seconds. Raises `ValueError` for no rate."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(f"a rate of {rate}/s with a burst of {burst} lets nothing through")
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, now

    def borrow(self, now: float) -> float:
        """Take one in any case; returns the seconds to wait before it is used.

        The count may go below zero: each waiter then waits for its own share, so waiting needs no queue.
        """
        self._fill(now)
        self._left -= 1
        return max(0.0, -self._left / self._rate)

    def take(self, now: float) -> float:
        """Take one if there is one, and return 0; otherwise the seconds until there is."""
        self._fill(now)
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= 1
        return 0.0

    def _fill(self, now: float) -> None:
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now

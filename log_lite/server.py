"""Running the log: sockets, the writer thread, and an orderly end."""

import contextlib
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

from addresses.url import is_loopback_host
from inbound.connections import ConnectionLimits
from inbound.serving import guarded, listener
from inbound.serving import serve as run_server
from log_lite.api_v2 import OwnAddress
from log_lite.app import application
from log_lite.faults.switch import ActiveFaults, in_force
from log_lite.faults.transport import HttpFault, Misbehave
from log_lite.home import NotApplicable
from log_lite.ledger import DATABASE, Ledger
from log_lite.sequencer import Sequencer, wall_clock_ms
from log_lite.service import LogLiteService
from log_lite.store import LedgerDatabase

_HTTP_PORT: Final = 80
# Further loopback addresses, for the Rekor v2 shards that `rotate` makes.
_SPARE_HOSTS: Final = tuple(f"127.0.0.{n}" for n in range(2, 10))
# A quarter of the file descriptors; database connections need the rest. A trickle fault lasts two minutes.
_LIMITS: Final = ConnectionLimits(idle=30, exchange=180.0, most=512, share=4)
_logger = logging.getLogger(__name__)


class CannotListen(Exception):
    """Another process holds the address, or this machine does not have it."""


class AlreadyServing(Exception):
    """Another process serves this directory."""


def read_anchors(path: Path | None) -> tuple[x509.Certificate, ...]:
    """Read the certificates a CT log accepts chains to, from a PEM file. Raises `NotApplicable`."""
    if path is None:
        return ()
    try:
        return tuple(x509.load_pem_x509_certificates(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise NotApplicable(f"cannot read the CT log's accepted roots from {path}: {error}") from error


@contextlib.contextmanager
def sole_server(folder: Path) -> Iterator[None]:
    """Hold the directory's lock: two servers would answer with different sizes.

    Raises `AlreadyServing`, and `WrongFolder` when there is no log.
    """
    LedgerDatabase.open(folder / DATABASE).close()
    with (folder / "serve.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AlreadyServing(
                f"another log-lite serves {folder} already, and two would answer with different sizes; nothing was "
                "started: use the one that runs, or stop it first"
            ) from error
        yield


def addresses(url: str, listen: str | None) -> list[tuple[str, int]]:
    """Addresses to listen on: the URL's port on loopback, or `listen` (`host:port`). Raises `NotApplicable`."""
    if listen is not None:
        host, separator, port = listen.rpartition(":")
        if not separator or not port.isdecimal() or not host:
            raise NotApplicable(f"--listen {listen!r} is not host:port")
        return [(host.strip("[]"), int(port))]
    parts = urlsplit(url)
    port_number, host = parts.port or _HTTP_PORT, parts.hostname or ""
    if not is_loopback_host(host):
        raise NotApplicable(
            f"{url} is not on loopback: say where to listen with --listen, such as --listen 0.0.0.0:3000"
        )
    # A host name resolves to IPv4 and IPv6, and clients differ in which of the two they try first.
    own = () if host in ("localhost", "127.0.0.1", "::1", *_SPARE_HOSTS) else (host,)
    return [(name, port_number) for name in (*own, "127.0.0.1", "::1", *_SPARE_HOSTS)]


def bind(wanted: Sequence[tuple[str, int]]) -> list[socket.socket]:
    """Bind every address this machine has; the first one must work. Raises `CannotListen`.

    An address that another process holds is an error: half of our clients would talk to that process.
    """
    bound: list[socket.socket] = []
    for host, port in wanted:
        try:
            bound.append(listener(host, port))
        except OSError as error:
            if not bound or error.errno == errno.EADDRINUSE:
                for other in bound:
                    other.close()
                raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}") from error
            _logger.info("not listening on %s:%d: %s", host, port, error.strerror)
    return bound


def serve(
    folder: Path,
    *,
    anchors: Sequence[x509.Certificate],
    listen: str | None,
    accept_dsse: bool,
    max_get_entries: int,
) -> None:
    """Serve until SIGTERM or SIGINT. Raises the errors of `opened`, `CannotListen`, `AlreadyServing`."""
    with contextlib.closing(LedgerDatabase.open(folder / DATABASE)) as stored:
        wanted = addresses(stored.meta("url") or "", listen)  # refused before a lock file is made
    with sole_server(folder), contextlib.closing(Ledger.open(folder, wall_clock_ms())) as ledger:
        sockets = bind(wanted)
        sequencer = Sequencer(ledger)
        service = LogLiteService(ledger, sequencer, anchors)
        switch = _FaultSwitch(service)
        switch.read()
        sequencer.on_change = switch.read
        apis = application(service, accept_dsse=accept_dsse, max_get_entries=max_get_entries)
        app = OwnAddress(Misbehave(apis, lambda: switch.http))
        config = guarded(app, _LIMITS)
        sequencer.start()
        try:
            run_server(config, sockets, f"log-lite ready at {ledger.url} (pid {os.getpid()})")
        finally:
            sequencer.stop()


class _FaultSwitch:
    """Puts the faults that the database lists into force."""

    def __init__(self, service: LogLiteService) -> None:
        self._service = service
        self.http: Mapping[str, HttpFault] = {}

    def read(self) -> None:
        """Read the database; called by the writer thread whenever another process has written."""
        faults: ActiveFaults = in_force(self._service.ledger)
        if faults.modes != self._service.fault_modes:
            _logger.warning("faults switched on: %s", dict(faults.modes) or "none")
        self.http, self._service.lenses, self._service.fault_modes = faults.http, faults.lenses, faults.modes

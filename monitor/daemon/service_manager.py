"""Tells systemd that the daemon is ready, alive or stopping (sd_notify(3)).

The protocol is one datagram of `NAME=value` lines to the socket that $NOTIFY_SOCKET names. Without that variable, as
under any other service manager, it sends no datagram.
"""

import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

_LOG: Final = logging.getLogger(__name__)
_MICROSECONDS: Final = 1_000_000
# sd_watchdog_enabled(3) recommends half of the time; a third leaves room for one late message.
_PINGS: Final = 3


class ServiceManager:
    """The service manager that started this process, if $NOTIFY_SOCKET is set. No method raises."""

    def __init__(self, environment: Mapping[str, str] = os.environ, pid: int | None = None) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._watchdog = _watchdog_seconds(environment, os.getpid() if pid is None else pid) if self._address else None

    @property
    def ping_seconds(self) -> float | None:
        """Seconds between two calls of `alive`; None without a watchdog."""
        return None if self._watchdog is None else self._watchdog / _PINGS

    def ready(self, status: str) -> None:
        """Report the end of the start, with one line for `systemctl status`."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """Report that the scheduler runs jobs. After WatchdogSec= without this report, systemd restarts the service."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Report the beginning of the stop."""
        self._send("STOPPING=1\nSTATUS=finishing the commit under way")

    def _send(self, message: str) -> None:
        # "@" stands for the zero byte that begins an abstract name; other forms of address are ignored.
        if self._address[:1] not in {"/", "@"}:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1)
                sender.sendto(message.encode(), address)
        except OSError as error:
            _LOG.warning("service_manager_not_told message=%s detail=%s", message.partition("\n")[0], error)


def _watchdog_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    """WatchdogSec= of the unit, in seconds, if it is meant for this process."""
    text, meant_for = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not (text.isascii() and text.isdigit()) or (meant_for and meant_for != str(pid)):
        return None
    return int(text) / _MICROSECONDS or None

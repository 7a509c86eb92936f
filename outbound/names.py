"""Calls that no caller can end, first of all the system's lookup of a name, each left behind at its limit.

`getaddrinfo` has only the limit of the system's resolver, and a thread in the C library cannot be ended. Each call
therefore has a thread of its own. At its limit the caller goes on with an error, and the thread stays until the library
returns. The number of such threads is bounded, and callers that need the same name share one thread.
"""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

T = TypeVar("T")

LONGEST_LOOKUP: Final = 10.0
"""Seconds after which a name counts as unresolved: time for two name servers of which the first gives no answer."""
_MOST_CALLS: Final = 32
_MOST_FOR_RECEIVER: Final = 4


class CallNotEnded(OSError):
    """A call gave no result within its limit, or did not begin, because too many others have not ended."""


class BoundedCalls:
    """Runs calls in threads of their own, at most `most` at once. Safe to use from several threads."""

    def __init__(self, most: int = _MOST_CALLS) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._running: dict[Hashable, Future[Any]] = {}

    def result(self, key: Hashable, call: Callable[[], T], seconds: float) -> T:
        """Result of a call, or of the running call with this key. Raises `CallNotEnded`, or the error of the call."""
        ends = time.monotonic() + seconds
        future = self._begin(key, call, seconds)
        try:
            return future.result(max(0.0, ends - time.monotonic()))  # type: ignore[no-any-return]
        except TimeoutError as error:
            if not future.done():
                raise CallNotEnded(f"not within {seconds:.3g} seconds") from error
            return future.result()  # type: ignore[no-any-return]

    def _begin(self, key: Hashable, call: Callable[[], T], seconds: float) -> "Future[Any]":
        with self._changed:
            if not self._changed.wait_for(lambda: key in self._running or len(self._running) < self._most, seconds):
                raise CallNotEnded(
                    f"not begun within {seconds:.3g} seconds, because {self._most} others have not ended"
                )
            if key in self._running:
                return self._running[key]
            future = self._running[key] = Future()
        thread = threading.Thread(target=self._run, args=(key, call, future), name="left-behind", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # The system has no thread left: a shortage of this machine, as lack of memory is.
            shortage = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            self._end(key)
            future.set_exception(shortage)
            raise shortage from error
        return future

    def _run(self, key: Hashable, call: Callable[[], T], future: "Future[Any]") -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  it belongs to the caller, as a pool of threads hands it over
            self._end(key)
            future.set_exception(error)
        else:
            self._end(key)
            future.set_result(result)

    def _end(self, key: Hashable) -> None:
        with self._changed:
            del self._running[key]
            self._changed.notify_all()


OWN: Final = BoundedCalls()
"""Lookups of names that the operator chose."""
STRANGERS: Final = BoundedCalls()
"""Lookups of names that a stranger chose: any number of names that hang leave `OWN` as it is."""


def receiver_calls() -> BoundedCalls:
    """Calls to one receiver alone: an answer that never ends keeps its thread, and takes none from the others."""
    return BoundedCalls(_MOST_FOR_RECEIVER)


def look_up(host: str, port: int, seconds: float | None = None, *, calls: BoundedCalls = OWN) -> list[str]:
    """Every address of a name, as the system resolves it, within `seconds` and at most `LONGEST_LOOKUP`.

    Raises `OSError`, also for a text that can be no name; `CallNotEnded` tells the name that gave no address in time.
    """
    limit = LONGEST_LOOKUP if seconds is None else min(seconds, LONGEST_LOOKUP)
    try:
        # The port is only repeated in the answer, so one lookup serves every port.
        return calls.result(host, lambda: _addresses(host, port), limit)
    except CallNotEnded as error:
        raise CallNotEnded(f"the name {host:.253} was not resolved: {error}") from error


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label is empty, or longer than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, f"{host:.80} cannot be the name of a host") from error
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def shares(addresses: Sequence[str], ends: float) -> Iterator[tuple[str, float]]:
    """Addresses of a host to try in turn, each with its seconds until `ends`, a monotonic time.

    The last one has all that are left, each other one half: a dead address would use up the time of the others.
    """
    for number, address in enumerate(addresses, 1):
        left = ends - time.monotonic()
        if left <= 0:
            return
        yield address, left if number == len(addresses) else left / 2


def own_name(seconds: float) -> str | None:
    """Full name of this machine, for which the system may ask a name server; `None` without one in time."""
    try:
        name = OWN.result(own_name, socket.getfqdn, seconds)
    except OSError:
        return None
    return name if "." in name else None

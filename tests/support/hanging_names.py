"""A resolver that hangs for some names, as the system's does when no name server answers."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from outbound.names import OWN, STRANGERS
from tests.support.waiting import PATIENCE


class HangingNames:
    """`lookups` are the names that are looked up and hang; `released` lets them fail."""

    def __init__(self) -> None:
        self.lookups: list[str] = []
        self.begun = threading.Semaphore(0)
        self.released = threading.Event()
        self.ended = threading.Semaphore(0)

    def hang(self, name: str) -> None:
        """Hang until released, then fail as the system's resolver does."""
        self.lookups.append(name)
        self.begun.release()
        self.released.wait(PATIENCE)
        self.ended.release()
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@contextmanager
def hanging_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingNames]:
    """Names below `hanging.example` hang; all others are looked up. No thread outlives the block."""
    names, looked_up = HangingNames(), socket.getaddrinfo

    def getaddrinfo(host: Any, *others: Any, **named: Any) -> list[Any]:
        if str(host).endswith("hanging.example"):
            names.hang(str(host))
        return list(looked_up(host, *others, **named))

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", getaddrinfo)
        try:
            yield names
        finally:
            names.released.set()
            for _ in list(names.lookups):
                names.ended.acquire(timeout=PATIENCE)
            # A call counts until its error is handed over: the next test would share it, or find no room.
            for calls in (OWN, STRANGERS):
                with calls._changed:
                    assert calls._changed.wait_for(lambda calls=calls: not calls._running, PATIENCE)  # type: ignore[misc]


@contextmanager
def first_address_dead(monkeypatch: pytest.MonkeyPatch, name: str, port: int) -> Iterator[None]:
    """Give a name two addresses: the first takes no connection at a port, the second one is 127.0.0.1."""
    looked_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *others: Any, **named: Any) -> list[Any]:
        if host == name:
            return [each for at in ("127.0.0.2", "127.0.0.1") for each in looked_up(at, *others, **named)]
        return list(looked_up(host, *others, **named))

    with closing(socket.socket()) as dead, ExitStack() as waiting, monkeypatch.context() as patched:
        dead.bind(("127.0.0.2", port))
        dead.listen(0)
        for _ in range(8):  # more than its queue holds: the system drops the next ones
            client = waiting.enter_context(closing(socket.socket()))
            client.setblocking(False)
            client.connect_ex(dead.getsockname())
        patched.setattr(socket, "getaddrinfo", getaddrinfo)
        yield

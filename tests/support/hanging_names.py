"""A resolver that hangs for some names, as the system's does when no name server answers."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

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

"""Connections of a server: limits that keep a client with many open connections from starving the rest of the process.

Each connection has a time for its request and a time for the whole exchange. Their number is limited, so that the
process keeps file descriptors for databases, logs and channels. When all are taken, the connection that has waited
longest for its client is closed, so that new requests are still answered.
"""

import asyncio
import resource
from typing import Any, Final

import h11
from msgspec import Struct
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

_LEAST: Final = 4


class ConnectionLimits(Struct, frozen=True):
    """Seconds for a request's headers, between two requests, and for a whole exchange; connections at once.

    At most `most` connections, and one in `share` of the descriptors that the process may have.
    """

    headers: float = 10.0
    idle: int = 5
    exchange: float = 60.0
    most: int = 64
    share: int = 8

    def most_connections(self) -> int:
        """Connections that may be open at once."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return self.most
        return min(self.most, max(_LEAST, soft // self.share))


class GuardedProtocol(H11Protocol):
    """One connection. `order` holds the server's connections, the one with the oldest last step first.

    A step is the begin of a connection, of a request, and of the wait for the next request.
    """

    def __init__(self, limits: ConnectionLimits, order: dict["GuardedProtocol", None], **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._limits, self._order, self._most = limits, order, limits.most_connections()
        self._alarm: asyncio.TimerHandle | None = None
        # `_asking`: a request's headers are awaited, under a time limit. `_answering`: a request is read or answered.
        self._asking = self._answering = False

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._asking = True
        self._step(self._limits.headers)
        if len(self.connections) > self._most:
            # This connection is the newest of the waiting ones, so it is closed only if all others are being answered.
            longest = next(each for each in self._order if each.waits_for_client())
            del self._order[longest]
            longest.transport.abort()

    def waits_for_client(self) -> bool:
        """True while the client owes the rest of a request, or does not read the answer."""
        return not self._is_busy() or self.cycle.more_body or self.flow.write_paused

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._is_busy():
            if not self._answering:
                self._asking, self._answering = False, True
                self._step(self._limits.exchange)
        elif not self._asking:
            self._asking = True
            self._step(self._limits.headers)

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        self._answering = self._is_busy()
        # The start of a further request, received together with this one.
        self._asking = not self._answering and bool(self.conn.trailing_data[0])
        if self._answering:
            self._step(self._limits.exchange)
        elif not self.transport.get_write_buffer_size():
            self._step(self._limits.headers if self._asking else self._limits.idle)
        # Else the client has yet to take the rest of the answer, for which it has the time of the exchange: at the end
        # of a time for the next request, `abort` would discard the rest. uvicorn's end of an idle connection sends it.

    @override
    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, if no answer has begun, and close. The application's own answer goes nowhere.

        uvicorn would send both, and write a traceback for each such request.
        """
        if self._is_busy():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            super().send_400_response(msg)
        else:
            self.transport.close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._order.pop(self, None)
        if self._alarm is not None:
            self._alarm.cancel()
        super().connection_lost(exc)

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _step(self, seconds: float) -> None:
        self._order.pop(self, None)
        self._order[self] = None
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self.loop.call_later(seconds, self.transport.abort)

"""HTTP details the three APIs share: bounded request bodies, errors as values, bytes as responses."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

from fastapi import Request
from fastapi.responses import Response

NO_CACHE: Final = {"Cache-Control": "no-cache"}
# SPEC tessera: tiles are immutable once full; partial ones too, under their own name.
IMMUTABLE: Final = {"Cache-Control": "public, max-age=604800, immutable"}
MAX_BODY: Final = 4 * 1024 * 1024


class ErrorAnswer(Exception):
    """An error answer: status, JSON body (or none), headers."""

    def __init__(self, status: int, content: Any = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, content)
        self.status = status
        self.content = content
        self.headers = headers or {}


class ApiErrors(Protocol):
    """Errors of the server's own, in the form of one API."""

    def not_found(self, path: str, /) -> ErrorAnswer:
        """Answer to a path that the API does not have."""

    def wrong_method(self, method: str, allowed: Sequence[str], /) -> ErrorAnswer:
        """Answer to a method that the path does not have."""

    def too_large(self) -> ErrorAnswer:
        """Answer to a body over the limit."""

    def unusable(self, why: str, /) -> ErrorAnswer:
        """Answer while the log cannot be read."""


class BodyTooLarge(Exception):
    """The request body is longer than this log reads."""


async def read_body(request: Request) -> bytes:
    """Read the request's body, at most `MAX_BODY` bytes. Raises `BodyTooLarge`."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY:
            raise BodyTooLarge
        chunks.append(chunk)
    return b"".join(chunks)


def plain(raw: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """Answer with bytes."""
    return Response(raw, media_type=media_type, headers=headers)

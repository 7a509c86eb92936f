"""Bytes over HTTP from servers that may lie, stall or flood: every read has a size, every request a deadline.

One `Fetcher` asks one base URL. It follows no redirect, decodes no unexpected compression, and turns every failure
into a `FetchFailed` with a `reason` that is a metric label. The caller interprets the bytes.
"""

import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import httpcore
import httpx
from typing_extensions import override

from addresses.url import shown_url
from alerts.alert import counted
from monitor.model.errors import FetchFailed, OwnFault
from outbound.transport import (
    TARGET,
    Deadline,
    DeadlineTransport,
    HttpLimits,
    NoAuthorities,
    Tokens,
    believed,
    body_within,
    own_shortage,
    parse_http_date,
    parse_retry_after,
)

MIB: Final = 1024 * 1024
FETCHED: Final = "ok"
_USER_AGENT: Final = "signwatch"
_SHOWN_BODY: Final = 300
_MAX_RETRY_AFTER: Final = 3600.0
# Longest total delay of one request for a server's `Retry-After`; without a time the delay is one second, then two.
_SHORT_REST: Final = 10.0
_UNSAID_REST: Final = 1.0
_LONGEST_NAP: Final = 0.5
_EARLY: Final = 0.05  # seconds by which a pause may end too soon


class Expect(StrEnum):
    """Kind of body that an answer must have; a login page or an error page has none of them."""

    JSON = "json"
    TEXT = "text"
    BYTES = "bytes"
    GZIP_ALLOWED = "gzip-allowed"


class Unreachable(FetchFailed):
    """No connection, or it broke."""

    reason = "unreachable"


class TimedOut(FetchFailed):
    """The answer was not complete by its deadline."""

    reason = "timeout"


class TooLarge(FetchFailed):
    """The answer is longer than its cap. `start` are the bytes within the cap, if they were read."""

    reason = "too-large"

    def __init__(self, message: str, start: bytes = b"") -> None:
        super().__init__(message)
        self.start = start


class WrongContent(FetchFailed):
    """The answer has an unexpected kind: HTML, compressed, or a redirect."""

    reason = "wrong-content"


class Refused(FetchFailed):
    """The server said no (HTTP 4xx or 5xx): `status`, and the start of the body as a reason."""

    reason = "refused"

    def __init__(self, message: str, status: int, body: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class NotFound(Refused):
    """HTTP 404."""

    reason = "not-found"


class Throttled(Refused):
    """HTTP 429, or 503 with Retry-After: too many requests. `retry_after` in seconds, if the server gave it."""

    reason = "throttled"

    def __init__(self, message: str, status: int, retry_after: float | None) -> None:
        super().__init__(message, status)
        self.retry_after = retry_after


class ServerFailed(Refused):
    """HTTP 5xx: the server has a fault."""

    reason = "server-failed"


def denied(error: FetchFailed) -> bool:
    """True if the server understood the request and has no such resource: 404, or another server's 400, 403 or 410."""
    return isinstance(error, Refused) and not isinstance(error, Throttled | ServerFailed)


class Fetcher(Protocol):
    """Asks one server. Returns the whole body of a 200 answer, at most `max_bytes` long, or raises `FetchFailed`."""

    def get(self, path: str, *, max_bytes: int, expect: Expect) -> bytes:
        """Body at `path`, relative to the base URL, query included."""

    def post_json(self, path: str, document: Any, *, max_bytes: int) -> bytes:
        """Answer to a JSON document posted to `path`; the answer is JSON too."""


ReportRequest = Callable[[str, float], object]
"""Gets the result of a request (`FETCHED`, or a `FetchFailed.reason`) and its duration in seconds."""


class TokenBucket:
    """At most `rate` requests a second on average, `burst` at once. Safe to share between threads."""

    def __init__(
        self, rate: float, burst: float, *, clock: Callable[[], float], sleep: Callable[[float], object]
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        try:
            self._tokens = Tokens(rate, burst, clock())
        except ValueError as error:
            raise OwnFault(f"requests to a log: {error}") from error

    def take(self) -> None:
        """Wait until one request is allowed, and count it."""
        with self._lock:
            wait = self._tokens.borrow(self._clock())
        if wait > 0:
            self._sleep(wait)


class Allowance(Protocol):
    """Highest rate of requests to a server."""

    def take(self) -> None:
        """Wait until one request is allowed, and count it."""


class HttpFetcher(Fetcher):
    """A `Fetcher` over httpx for one base URL, safe to use from several threads.

    After HTTP 429 it obeys the server's delay: it waits for a short one with `pause` and asks again; it raises a
    longer one as `Throttled`, and sends no request meanwhile. `report` gets each request's result.
    """

    def __init__(
        self,
        base_url: str,
        *,
        limits: HttpLimits | None = None,
        bucket: Allowance | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
        ca_file: str | None = None,
        proxy: str | None = None,
        report: ReportRequest | None = None,
    ) -> None:
        self.move_to(base_url)
        self._limits = limits or HttpLimits()
        self._bucket = bucket
        self._clock, self._pause, self._report = clock, pause, report or (lambda _result, _seconds: None)
        self._deadline = Deadline(clock)
        self._not_before = float("-inf")
        self._through = f" through the proxy {shown_url(proxy)}" if proxy else ""
        try:
            transport = DeadlineTransport(self._deadline, self._limits, believed(ca_file), proxy)
        except NoAuthorities as error:
            raise _own_fault(shown_url(base_url), error) from error
        except OSError as error:
            why = error.strerror or str(error)
            raise OwnFault(
                f"ca_file: {ca_file} cannot be used: {why}. {shown_url(base_url)} cannot be asked without it: name "
                "a PEM file with the certificates of the authorities to believe."
            ) from error
        # httpx's client is left out. It follows redirects, so that a server would choose the next host, and keeps
        # cookies, so that a server could fill the memory. With both turned off it takes half as long as the request.
        self._transport = transport
        timeout = httpx.Timeout(self._limits.operation, connect=self._limits.connect)
        self._extensions = {"timeout": timeout.as_dict()}

    def move_to(self, base_url: str) -> None:
        """Ask at another base URL from now on; running requests end at the old one.

        Raises `OwnFault` for a malformed URL.
        """
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise OwnFault(f"not an http(s) base URL: {shown_url(base_url)!r}")
        self._base = base_url.rstrip("/") + "/"
        self._prepared: _PreparedRequests | None = None

    @override
    def get(self, path: str, *, max_bytes: int, expect: Expect) -> bytes:
        return self._ask("GET", path, None, max_bytes, expect)

    @override
    def post_json(self, path: str, document: Any, *, max_bytes: int) -> bytes:
        return self._ask("POST", path, json.dumps(document).encode(), max_bytes, Expect.JSON)

    def allow(self, stop: Callable[[], bool]) -> bool:
        """Wait until one more request by another machine is allowed, and count it; false once `stop`."""
        while (left := self._not_before - self._clock()) > 0:
            if stop():
                return False
            self._pause(min(left, _LONGEST_NAP))
        if self._bucket is not None:
            self._bucket.take()
        return True

    def rest(self, seconds: float) -> None:
        """Send no request for this time: the server asked another machine for it."""
        wait = min(max(seconds, 0.0), _MAX_RETRY_AFTER)
        self._not_before = max(self._not_before, self._clock() + wait)

    @property
    def resting(self) -> bool:
        """True while the server's delay lasts."""
        return self._not_before > self._clock()

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def _ask(self, method: str, path: str, content: bytes | None, max_bytes: int, expect: Expect) -> bytes:
        began = self._clock()
        try:
            answer = self._patiently(method, path, content, max_bytes, expect)
        except FetchFailed as error:
            self._report(error.reason, self._clock() - began)
            raise
        self._report(FETCHED, self._clock() - began)
        return answer

    def _patiently(self, method: str, path: str, content: bytes | None, max_bytes: int, expect: Expect) -> bytes:
        """Send a request, and send it again after a short delay that the server asked for."""
        base, path = self._base, path.lstrip("/")
        url = base + path
        patience, unsaid = _SHORT_REST, _UNSAID_REST
        while True:
            left = self._not_before - self._clock()
            if left > 0 and not self._rested(left, patience):
                raise Throttled(
                    f"{shown_url(url)}: not asked: the server wants {counted(round(left), 'second')} of rest", 429, left
                )
            if self._bucket is not None:
                self._bucket.take()
            try:
                return self._exchange(_Question(method, base, path, content, expect), max_bytes)
            except Throttled as error:
                # A delay of zero counts as a second, so that the number of repeats is bounded.
                wait = unsaid if error.retry_after is None else max(error.retry_after, _UNSAID_REST)
                self._not_before = self._clock() + wait
                if not self._rested(wait, patience):
                    raise
                patience, unsaid = patience - wait, unsaid * 2

    def _rested(self, seconds: float, patience: float) -> bool:
        """Wait if the delay is short; false for a longer one, or when the program ends meanwhile."""
        if seconds > patience:
            return False
        self._pause(seconds)
        return self._not_before - self._clock() < _EARLY

    def _exchange(self, question: "_Question", max_bytes: int) -> bytes:
        shown = _ShownUrl(question.base + question.path)
        with self._deadline.running(self._limits.total), _as_fetch_failed(shown, self._through):
            response = self._transport.handle_request(self._request(question))
            with closing(response):
                return _answer(shown, response, max_bytes, question.expect)

    def _request(self, question: "_Question") -> httpx.Request:
        """The request of a question. Reading a URL and making headers took as long as sending them."""
        if _PLAIN_PATH.fullmatch(question.path) is None:
            return question.request(self._extensions)
        prepared = self._prepared
        if prepared is None or prepared.base != question.base:
            prepared = self._prepared = _PreparedRequests(question.base)
        return prepared.request(question, self._extensions)


class _Question(NamedTuple):
    """One request to a server: `path` is relative to `base`, which ends with a slash."""

    method: str
    base: str
    path: str
    content: bytes | None
    expect: Expect

    def request(self, extensions: Mapping[str, Any]) -> httpx.Request:
        """The request as httpx makes it. Raises `httpx.InvalidURL`."""
        request = httpx.Request(
            self.method,
            self.base + self.path,
            headers=_HEADERS[self.expect],
            content=self.content,
            extensions=dict(extensions),
        )
        if self.content is not None:
            request.headers["Content-Type"] = _JSON
        if request.url.userinfo:
            request = next(httpx.BasicAuth(request.url.username, request.url.password).auth_flow(request))
        return request


# Paths of tiles and most others, which httpx would leave as they are.
_PLAIN_PATH: Final = re.compile(r"(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+(?:\.p/[0-9]+)?")


class _PreparedRequests:
    """Requests below one base URL, as httpx makes them for it. Raises `httpx.InvalidURL`."""

    def __init__(self, base: str) -> None:
        self.base = base
        made = {expect: _Question("GET", base, "", None, expect).request({}) for expect in Expect}
        self._headers = {expect: request.headers for expect, request in made.items()}
        self._headers_of_content = {
            expect: httpx.Headers({**headers, "Content-Type": _JSON}) for expect, headers in self._headers.items()
        }
        self._url, self._stream = made[Expect.BYTES].url, made[Expect.BYTES].stream
        self._folder = self._url.raw_path

    def request(self, question: _Question, extensions: Mapping[str, Any]) -> httpx.Request:
        """The request of a question that has a plain path."""
        bare = question.content is None
        return httpx.Request(
            question.method,
            self._url,
            headers=(self._headers if bare else self._headers_of_content)[question.expect],
            content=question.content,
            stream=self._stream if bare else None,
            extensions={**extensions, TARGET: self._folder + question.path.encode("ascii")},
        )


_JSON: Final = "application/json"
# With compression a server would decide how much memory an answer takes.
_HEADERS: Final = {
    expect: httpx.Headers(
        {
            "User-Agent": _USER_AGENT,
            "Accept-Encoding": "identity",
            "Accept": _JSON if expect is Expect.JSON else "*/*",
        }
    )
    for expect in Expect
}


@dataclass(frozen=True, slots=True)
class _ShownUrl:
    """A URL whose text is the part that a message may show; worked out when there is a message."""

    text: str = field(repr=False)

    @override
    def __str__(self) -> str:
        return shown_url(self.text)


def _answer(url: _ShownUrl, response: httpx.Response, max_bytes: int, expect: Expect) -> bytes:
    if response.status_code != httpx.codes.OK:
        raise _refusal(url, response)
    _check_content(url, response, expect)
    body = _read_capped(url, response, max_bytes, with_start=expect is Expect.GZIP_ALLOWED)
    return _gunzip_capped(url, body, max_bytes) if response.headers.get("content-encoding") == "gzip" else body


def _read_capped(url: _ShownUrl, response: httpx.Response, max_bytes: int, *, with_start: bool) -> bytes:
    declared = response.headers.get("content-length", "0")
    if not with_start and declared.isascii() and declared.isdigit() and int(declared) > max_bytes:
        raise TooLarge(f"{url}: answer of {declared} bytes, at most {max_bytes} expected")
    body, more = body_within(response, max_bytes)
    if more:
        is_plain = with_start and "content-encoding" not in response.headers
        raise TooLarge(f"{url}: answer is longer than {max_bytes} bytes", body if is_plain else b"")
    return body


def _gunzip_capped(url: _ShownUrl, body: bytes, max_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    try:
        plain = decompressor.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise WrongContent(f"{url}: answer is no gzip stream") from error
    if len(plain) > max_bytes or decompressor.unconsumed_tail:
        raise TooLarge(f"{url}: answer unpacks to more than {max_bytes} bytes", plain[:max_bytes])
    if not decompressor.eof or decompressor.unused_data:
        raise WrongContent(f"{url}: gzip stream is cut short or followed by more")
    return plain


def _check_content(url: _ShownUrl, response: httpx.Response, expect: Expect) -> None:
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding != "identity" and not (encoding == "gzip" and expect is Expect.GZIP_ALLOWED):
        raise WrongContent(f"{url}: answer is {encoding!r:.40} encoded, asked for identity")
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type in {"text/html", "application/xhtml+xml"}:
        raise WrongContent(f"{url}: answer is a web page, not {expect}")
    if expect is Expect.JSON and not (content_type == "application/json" or content_type.endswith("+json")):
        raise WrongContent(f"{url}: answer is {content_type!r:.60}, not JSON")


def _refusal(url: _ShownUrl, response: httpx.Response) -> FetchFailed:
    status = response.status_code
    if httpx.codes.is_redirect(status):
        return WrongContent(f"{url}: redirected to {shown_url(response.headers.get('location', ''))!r}; not followed")
    if status < httpx.codes.BAD_REQUEST:
        return WrongContent(f"{url}: HTTP {status} is no answer")
    retry_after = _retry_after(response.headers)
    if status == httpx.codes.TOO_MANY_REQUESTS or (
        status == httpx.codes.SERVICE_UNAVAILABLE and retry_after is not None
    ):
        return Throttled(f"{url}: HTTP {status}, too many requests", status, retry_after)
    body = _start_of_body(response)
    message = f"{url}: HTTP {status}: {body.decode('utf-8', 'replace')!r}"
    if status == httpx.codes.NOT_FOUND:
        return NotFound(message, status, body)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return ServerFailed(message, status, body)
    return Refused(message, status, body)


def _start_of_body(response: httpx.Response) -> bytes:
    start = b""
    for chunk in response.iter_raw():
        start += chunk
        if len(start) >= _SHOWN_BODY:
            break
    return start[:_SHOWN_BODY]


def _retry_after(headers: httpx.Headers) -> float | None:
    # A date is compared with the answer's own `Date`, independent of this machine's clock.
    wait = parse_retry_after(headers.get("retry-after"), parse_http_date(headers.get("date")))
    return None if wait is None else min(wait.total_seconds(), _MAX_RETRY_AFTER)


@contextmanager
def _as_fetch_failed(url: _ShownUrl, through: str) -> Iterator[None]:
    try:
        yield
    except (httpx.TimeoutException, httpcore.TimeoutException) as error:
        raise TimedOut(f"{url}{through}: {type(error).__name__}, no complete answer in time") from error
    except httpcore.ProxyError as error:
        raise Unreachable(f"{url}{through}: the proxy would not connect: {error}") from error
    except (httpx.HTTPError, httpx.InvalidURL, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        if lacking := own_shortage(error):
            raise OwnFault(
                f"{url} could not be asked: {lacking} on this machine. Raise the limit of file descriptors "
                "(`ulimit -n`, LimitNOFILE) or free memory; `signwatch doctor` shows the limit."
            ) from error
        if isinstance(error, NoAuthorities):
            raise _own_fault(url, error) from error
        told = f"{type(error).__name__}: {error}"
        if "CERTIFICATE_VERIFY_FAILED" in told:
            told = (
                f"its TLS certificate is from no trusted authority ({error}). `ca_file` in the configuration names "
                "the trusted authorities; without an authority of your own, another server may be answering"
            )
        raise Unreachable(f"{url}{through}: {told}") from error


def _own_fault(url: object, error: NoAuthorities) -> OwnFault:
    return OwnFault(
        f"{url} could not be asked: {error}. Install the Python package `certifi` again, or name a PEM file with "
        "authorities as `ca_file` in the configuration."
    )

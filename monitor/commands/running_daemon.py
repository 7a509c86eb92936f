"""The answer of the daemon that runs on a configuration, asked at the address under `web` within a bounded time."""

import json
import socket
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from alerts.alert import counted, rfc3339
from alerts.inert import inert_line
from monitor.config import Config
from monitor.model.errors import FetchFailed
from monitor.program import utc_now

_MOST_REASONS: Final = 1 << 20
_LONGEST: Final = 1_000
_CONNECT_SECONDS: Final = 1
_ANSWER_SECONDS: Final = 10
_UNASKED: Final = "Faults that only the daemon knows are missing here"


class DaemonState(StrEnum):
    """Result of asking the daemon. `ABSENT`: nothing listens at the address; a missing daemon is no fault of the state.

    `STRANGER`: the answer is none of Signwatch's daemon. `SILENT`: a connection, and no answer in time.
    """

    ABSENT = "absent"
    ANSWERS = "answers"
    ILL = "ill"
    SILENT = "silent"
    STRANGER = "stranger"


class DaemonAnswer(Struct, frozen=True):
    """State of the daemon at `url` when it was asked. `reasons` make the status not green; `detail` is for people."""

    url: str
    asked_at: datetime
    state: DaemonState
    reasons: tuple[str, ...] = ()
    detail: str = ""

    def document(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"url": self.url, "asked": rfc3339(self.asked_at), "state": self.state.value, "detail": self.detail}


class _Question(Struct, frozen=True):
    """A question to the daemon at `url`; `newest_pass` is the time of the newest pass over a log in the database."""

    url: str
    at: datetime
    newest_pass: datetime | None

    def answer(self, state: DaemonState, reasons: tuple[str, ...] = (), detail: str = "") -> DaemonAnswer:
        return DaemonAnswer(self.url, self.at, state, reasons, detail)

    def silence(self, accepts: str, told: str) -> DaemonAnswer:
        """The sentence about a daemon without an answer. The newest pass shows if the daemon still does its work."""
        newest = "no pass over a log is recorded"
        if self.newest_pass is not None:
            newest = f"the newest pass over a log was at {rfc3339(self.newest_pass)}"
        reason = (
            f"ourselves: the daemon at {self.url} {accepts} and does not answer: asked at {rfc3339(self.at)}, {told}. "
            f"{_UNASKED}, and the daemon may follow no log and send no alert; {newest}. Read the end of its log, and "
            "start it again if that time stays the same: a new start loses nothing."
        )
        return self.answer(DaemonState.SILENT, (reason,), told)


def ask_daemon(settings: Config, newest_pass: datetime | None = None) -> DaemonAnswer | None:
    """Ask the daemon for the faults that only it knows, such as a full disk; `None` if `web` names no address."""
    if settings.web is None or settings.web.port == 0:
        return None
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.web.host, settings.web.host)  # noqa: S104
    url = f"http://[{host}]:{settings.web.port}" if ":" in host else f"http://{host}:{settings.web.port}"
    question = _Question(url, utc_now(), newest_pass)
    try:
        socket.create_connection((host, settings.web.port), _CONNECT_SECONDS).close()
    except TimeoutError:
        # The kernel takes connections for a stopped process too, until its queue is full; then it drops them.
        within = counted(_CONNECT_SECONDS, "second")
        return question.silence(
            "takes no connection", f"none within {within}: its queue is full, or a firewall is between"
        )
    except (OSError, UnicodeError):  # `UnicodeError`: a text that can be no host's name
        return question.answer(DaemonState.ABSENT)
    return _asked(question)


def _asked(question: _Question) -> DaemonAnswer:
    # Only for a daemon that listens: importing the HTTP client takes longer than asking one.
    from monitor.http_fetcher import Expect, HttpFetcher, ServerFailed, TimedOut, Unreachable  # noqa: PLC0415
    from outbound.transport import HttpLimits  # noqa: PLC0415

    limits = HttpLimits(connect=_CONNECT_SECONDS, operation=_ANSWER_SECONDS, total=_ANSWER_SECONDS)
    # A pause that ends at once: a stranger's `Retry-After` is not waited for.
    fetcher = HttpFetcher(question.url, limits=limits, pause=lambda _seconds: None)
    try:
        answer = json.loads(fetcher.get("api/reasons.json", max_bytes=_MOST_REASONS, expect=Expect.JSON))
        reasons = tuple(inert_line(str(each), _LONGEST) for each in _listed(answer["daemon"]))
    except ServerFailed as error:
        told = inert_line(error.body.decode("utf-8", "replace"), _LONGEST)
        return question.answer(DaemonState.ILL, (f"the daemon at {question.url} is ill: {told}",), told)
    except TimedOut:
        return question.silence("accepts connections", f"no whole answer within {counted(_ANSWER_SECONDS, 'second')}")
    except Unreachable as error:
        return question.silence("accepts connections", inert_line(f"the connection broke ({error})", _LONGEST))
    except (FetchFailed, ValueError, KeyError, TypeError, RecursionError) as error:
        told = inert_line(f"the answer at {question.url} is none of Signwatch's daemon: {error}. {_UNASKED}", _LONGEST)
        return question.answer(DaemonState.STRANGER, detail=told)
    finally:
        fetcher.close()
    return question.answer(DaemonState.ANSWERS, reasons)


def _listed(reasons: Any) -> list[Any]:
    if not isinstance(reasons, list):
        raise TypeError("the reasons are no list")
    return reasons

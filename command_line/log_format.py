"""Format of log records: text for people, logfmt or JSON, one line a record, times in UTC.

A message `event name=%s other=%d` becomes the fields `event`, `name` and `other`; any other message is the field
`message`; fields given as `extra` follow. Values may contain text of a server or a log entry. So every text is made
visible (`addresses/visible.py`), also within JSON, because a JSON reader decodes escapes; a cut value says how much is
missing.
"""

import json
import logging
import re
import time
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final

from addresses.visible import inert_line

_LONGEST: Final = 8_000
_EXACT: Final = 2**53
_EVENT: Final = re.compile(r"[a-z][a-z0-9_-]*( [a-z][a-z0-9_]*=%[sdr])*", re.ASCII)
_OF_LOGGING: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}
_BARE: Final = re.compile(r"[A-Za-z0-9_.:/@+-]+", re.ASCII)


class LogFormat(StrEnum):
    """Format of a record."""

    TEXT = "text"
    LOGFMT = "logfmt"
    JSON = "json"


class LogLevel(StrEnum):
    """Lowest level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def formatter(wanted: LogFormat) -> logging.Formatter:
    """Formatter that writes each record on one line; in text format a traceback follows on lines of its own."""
    kinds: dict[LogFormat, type[logging.Formatter]] = {
        LogFormat.TEXT: Text,
        LogFormat.LOGFMT: _Logfmt,
        LogFormat.JSON: _Json,
    }
    return kinds[wanted]()


class _Inert(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802  the name that logging calls
        """Traceback whose lines are indented: no line of an error's text can look like a new record."""
        lines = super().formatException(ei)
        left_out = len(lines) - _LONGEST
        shown = "\n".join(f"  {_inert(line)}" for line in lines[:_LONGEST].split("\n"))
        return shown if left_out <= 0 else f"{shown}… (+{left_out} characters)"


class Text(_Inert):
    """Lines for people, by a template; times in UTC."""

    def __init__(self, template: str = "%(asctime)s %(levelname)s %(name)s %(message)s") -> None:
        super().__init__(template, "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name that logging calls
        """Fill in the template, with the message made into one line."""
        record.message = _inert(record.message.rstrip("\n"))
        return super().formatMessage(record)


class _Logfmt(_Inert):
    def format(self, record: logging.LogRecord) -> str:
        """`name=value` pairs; a value that is not a single word becomes a JSON string."""
        return " ".join(f"{name}={_logfmt_value(value)}" for name, value in _fields(self, record))


class _Json(_Inert):
    def format(self, record: logging.LogRecord) -> str:
        """One JSON object in ASCII."""
        return json.dumps(dict(_fields(self, record)))


def _fields(formatter: logging.Formatter, record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """Fields of a record, in the order of output; a message's name that equals a fixed name gets a `_` at its end."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    fixed = {"time": f"{at}.{int(record.msecs):03d}Z", "level": record.levelname.lower(), "logger": record.name}
    yield from fixed.items()
    template, arguments = str(record.msg), record.args
    if _EVENT.fullmatch(template) and isinstance(arguments, tuple) and template.count("%") == len(arguments):
        event, *names = (part.partition("=")[0] for part in template.split(" "))
        yield "event", event
        for name, value in zip(names, arguments, strict=True):
            yield (f"{name}_" if name in {*fixed, "event"} else name), _plain(value)
    else:
        yield "message", _inert(record.getMessage().rstrip("\n"))
    for name, value in record.__dict__.items():
        if name not in _OF_LOGGING:
            yield (f"{name}_" if name in {*fixed, "event"} else name), _plain(value)
    if record.exc_info:
        yield "exception", formatter.formatException(record.exc_info)


def _plain(value: object) -> float | str:
    """The number if every JSON reader keeps it exactly, otherwise text (NaN, infinity, large numbers)."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _EXACT:
        return value
    return _inert(str(value))


def _inert(text: str) -> str:
    return inert_line(text, _LONGEST)


def _logfmt_value(value: float | str) -> str:
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)

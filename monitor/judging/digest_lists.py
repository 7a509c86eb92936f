"""Lists of allowed digests kept outside the rule file: fetched on a schedule, answered from memory.

A judgement never waits for a file server or a program. What could not be fetched again for longer than `max_age` is
no longer known, and what depends on it fails closed.
"""

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from monitor.http_fetcher import Expect, HttpFetcher
from monitor.model.errors import FetchFailed, OwnFault, SignwatchError
from outbound.shown_url import is_https_or_loopback, shown_url
from rules.digest_list import MAX_SIZE, parse_digest_list
from rules.expectations.digests import DigestsFromExpectation
from rules.facts import DigestSource, SourceForm
from rules.rule import Rule

_LOG: Final = logging.getLogger(__name__)
_MAX_URL: Final = 4096


@dataclass(frozen=True, slots=True)
class _Fetched:
    digests: frozenset[str]
    at: datetime


class DigestLists:
    """Digest lists in memory. Safe to use from several threads."""

    def __init__(
        self,
        base: Path,
        clock: Callable[[], datetime],
        max_age: timedelta = timedelta(hours=1),
        command_seconds: float = 60,
    ) -> None:
        self._base, self._clock, self._max_age = base, clock, max_age
        self._command_seconds = command_seconds
        self._lock = threading.Lock()
        self._lists: dict[DigestSource, _Fetched] = {}

    def digests(self, source: DigestSource) -> frozenset[str] | None:
        """Digests on the list, as last fetched; None once it could not be fetched for `max_age`."""
        with self._lock:
            fetched = self._lists.get(source)
        if fetched is None or self._clock() - fetched.at > self._max_age:
            return None
        return fetched.digests

    def refresh(self, rules: Iterable[Rule]) -> list[str]:
        """Fetch every list the rules name; one sentence for each that could not be."""
        expectations = (each for rule in rules for each in rule.expect if isinstance(each, DigestsFromExpectation))
        failures = []
        for source in dict.fromkeys(expectation.source for expectation in expectations):
            try:
                fetched = _Fetched(parse_digest_list(self._fetch(source)), self._clock())
            except (OSError, ValueError, SignwatchError) as error:
                _LOG.warning("digest_list_failed source=%s detail=%s", source, error)
                failures.append(f"{source}: {error}. Until it can be read, nothing counts as being on this list.")
                continue
            with self._lock:
                self._lists[source] = fetched
        return failures

    def _fetch(self, source: DigestSource) -> str:
        match source.form:
            case SourceForm.FILE:
                with (self._base / source.target[0]).open("rb") as file:
                    return file.read(MAX_SIZE + 1).decode("utf-8")
            case SourceForm.COMMAND:
                return _output(source.target, self._base, self._command_seconds).decode("utf-8")
            case SourceForm.URL:
                return _fetched(source.target[0])
            case SourceForm.URL_FILE:
                return self._fetch_secret(source.target[0])

    def _fetch_secret(self, name: str) -> str:
        """Fetch the list at the URL that a file holds; no message repeats the URL."""
        with (self._base / name).open("rb") as file:
            url = file.read(_MAX_URL).decode("utf-8").strip()
        if not is_https_or_loopback(url):
            raise ValueError("the file holds no https URL")
        try:
            return _fetched(url)
        except SignwatchError as error:
            # Its path may be the secret.
            raise FetchFailed(str(error).replace(shown_url(url), "the URL in the file")) from error


def _fetched(url: str) -> str:
    parts = urlsplit(url)
    fetcher = HttpFetcher(f"{parts.scheme}://{parts.netloc}")
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        return fetcher.get(path, max_bytes=MAX_SIZE, expect=Expect.BYTES).decode("utf-8")
    finally:
        fetcher.close()


def _output(command: Sequence[str], folder: Path, seconds: float) -> bytes:
    """Return what a command prints, at most one byte more than a list may have. Raises `OwnFault`, `OSError`.

    The operator's own words from the operator's own file: no shell. It gets a process group of its own, so that what
    it started ends with it when it takes too long or does not stop talking.
    """
    with subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        start_new_session=True,
    ) as process:
        watchdog = threading.Timer(seconds, _end_group, (process,))
        watchdog.start()
        try:
            output: bytes = b"" if process.stdout is None else process.stdout.read(MAX_SIZE + 1)
            if len(output) > MAX_SIZE:
                _end_group(process)
            code = process.wait()
        finally:
            watchdog.cancel()
    if len(output) > MAX_SIZE:
        raise OwnFault(f"it printed more than {MAX_SIZE} bytes")
    if code:
        raise OwnFault(f"it ended with {code} (a negative number is a signal: it gets {seconds:.0f} s)")
    return output


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)

"""Lists of allowed digests outside the rule file: fetched on a schedule, answered from memory.

A judgement never waits for a file or a server. A list without a successful fetch for longer than `max_age` counts as
unknown, so that expectations on it are unmet.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from addresses.image_name import ImageName, parse_image_name
from addresses.url import is_https_or_loopback, shown_url
from monitor.http_fetcher import Expect, HttpFetcher, Refused, WrongContent
from monitor.model.errors import FetchFailed, SignwatchError
from rules.expectations.digests import DigestsFromExpectation
from rules.facts import MAX_SIZE, DigestSource, SourceForm, parse_digest_list
from rules.rule import Rule
from sigstore_entries.release import released_image

_LOG: Final = logging.getLogger(__name__)
_MAX_URL: Final = 4096
_REGISTRY_SECONDS: Final = 120.0
# Tags by which clients find signatures and referrers, not releases.
_OF_SIGNATURES: Final = re.compile(r"sha256-[0-9a-f]{64}")


class _Fetched(Struct, frozen=True):
    digests: frozenset[str]
    at: datetime


class DigestLists:
    """Digest lists in memory. Safe to use from several threads."""

    def __init__(
        self,
        base: Path,
        clock: Callable[[], datetime],
        max_age: timedelta = timedelta(hours=1),
    ) -> None:
        self._base, self._clock, self._max_age = base, clock, max_age
        self._lock = threading.Lock()
        self._lists: dict[DigestSource, _Fetched] = {}

    def digests(self, source: DigestSource) -> frozenset[str] | None:
        """Digests on the list, as last fetched; None after `max_age` without a successful fetch."""
        with self._lock:
            fetched = self._lists.get(source)
        if fetched is None or self._clock() - fetched.at > self._max_age:
            return None
        return fetched.digests

    def refresh(self, rules: Iterable[Rule]) -> list[str]:
        """Fetch every list that the rules name; returns one sentence for each failure."""
        expectations = (each for rule in rules for each in rule.expect if isinstance(each, DigestsFromExpectation))
        failures = []
        for source in dict.fromkeys(expectation.source for expectation in expectations):
            try:
                fetched = _Fetched(self._list(source), self._clock())
            except (OSError, ValueError, SignwatchError) as error:
                _LOG.warning("digest_list_failed source=%s detail=%s", source, error)
                failures.append(f"{source}: {error}. Until it can be read, this list allows no digest.")
                continue
            with self._lock:
                self._lists[source] = fetched
        return failures

    def _list(self, source: DigestSource) -> frozenset[str]:
        if source.form is SourceForm.REGISTRY:
            return _of_repository(parse_image_name(source.target))
        return parse_digest_list(self._fetch(source))

    def _fetch(self, source: DigestSource) -> str:
        match source.form:
            case SourceForm.FILE:
                with (self._base / source.target).open("rb") as file:
                    return file.read(MAX_SIZE + 1).decode("utf-8")
            case SourceForm.URL:
                return _fetched(source.target)
            case SourceForm.URL_FILE:
                return self._fetch_secret(source.target)
            case SourceForm.REGISTRY:
                raise ValueError("a repository is no text")

    def _fetch_secret(self, name: str) -> str:
        """Fetch the list at the URL that a file holds; no message repeats the URL."""
        with (self._base / name).open("rb") as file:
            url = file.read(_MAX_URL).decode("utf-8").strip()
        if not is_https_or_loopback(url):
            raise ValueError("the file holds no https URL")
        try:
            return _fetched(url)
        except WrongContent as error:
            # The target of a redirect may repeat the path, which may be the secret.
            raise FetchFailed("the URL in the file: redirected, or another kind of answer than a list") from error
        except SignwatchError as error:
            # The path may be the secret.
            raise FetchFailed(str(error).replace(shown_url(url), "the URL in the file")) from error


def _of_repository(image: ImageName) -> frozenset[str]:
    """Digests that logs show for signatures of tagged images.

    Raises `FetchFailed` instead of returning a part of the list.
    """
    from outbound.registry import Registry, RegistryFailed  # noqa: PLC0415  loads a client that few rules need

    try:
        with Registry(image, seconds=_REGISTRY_SECONDS) as registry:
            digests = {registry.digest(tag) for tag in registry.tags() if not _OF_SIGNATURES.match(tag)}
    except RegistryFailed as error:
        raise FetchFailed(str(error)) from error
    return frozenset(each for digest in digests for each in released_image(image.at(digest)).digests)


def _fetched(url: str) -> str:
    parts = urlsplit(url)
    fetcher = HttpFetcher(f"{parts.scheme}://{parts.netloc}")
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        return fetcher.get(path, max_bytes=MAX_SIZE, expect=Expect.BYTES).decode("utf-8")
    except Refused as error:
        # The message does not repeat the answer, because many servers write the whole URL into it.
        raise FetchFailed(f"{shown_url(url)}: HTTP {error.status}, {error.reason}") from error
    finally:
        fetcher.close()

"""Reads archived entries whole for public pages: from their log alone, compared with the proven leaf hash.

A visitor must be able neither to make this installation hammer a log nor to have one slow log hold up pages. So each
log has one thread and an allowance of its own, few entries wait for it, a page waits a short time, few pages wait at
once, one client has a part of these places, and answers are kept. An entry that is not read is named with the reason.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from datetime import datetime
from queue import SimpleQueue
from typing import Final

from msgspec import Struct, field

from monitor.archive.rows import decoded
from monitor.daemon.assembly import Monitor
from monitor.judging.judge import labelled
from monitor.logs.opening import LogTrees, NotListed
from monitor.model.errors import NotShown, SignwatchError
from monitor.model.log_source import LogSource, SignedHead, hashes_of
from monitor.model.state import Hit
from monitor.store.signings import ArchivedEntry, Unread
from monitor.store.store import Store
from sigstore_entries.signing import EntryRef, Signing, Unreadable
from sigstore_entries.trust import CertificateAuthorities, CtLogKey

_LOG: Final = logging.getLogger(__name__)
_PATIENCE: Final = 2.5  # seconds for which a page waits
_PAGES: Final = 8  # that wait at once
_PAGES_EACH: Final = 2  # of these, those of one client
_QUEUED: Final = 32  # entries that wait for one log
_QUEUED_EACH: Final = 8  # of these, those that one client asked for: the entries of one preview
_REST: Final = 30.0  # seconds for which a log that failed is not asked for pages
_KEPT: Final = 512  # answers
_KEPT_BYTES: Final = 4 * 1024 * 1024  # of their entries: decoded they take up to thirteen times as much
_KEPT_FOR: Final = 600.0  # seconds: the trust root may change
_UNREAD_FOR: Final = 60.0
_LARGEST: Final = 128 * 1024  # bytes of an entry
NOT_FOLLOWED: Final = Unread("this site does not follow the log now")
FAILED: Final = Unread("the log could not be asked")
SLOW: Final = Unread("the log did not answer in time")
BUSY: Final = Unread("too many entries are being read now")
OFTEN: Final = Unread("you had many entries read in the last minute")
AT_ONCE: Final = Unread("other pages of yours wait for this log now")
OTHER: Final = Unread("the log serves another entry there now than the one that it signed")
NOT_SERVED: Final = Unread("the log does not serve the entry now")
LARGE: Final = Unread(f"the entry has more than {_LARGEST // 1024} KiB")
UNDECODED: Final = Unread("the entry cannot be decoded")
EntryReading = Signing | Unread


class _Line(Struct):
    """Entries of one log that wait to be read, by its only thread. `late`: a page gave up waiting for these.

    `clients` are those that had them read first. `None` in `work` ends the thread.
    """

    trees: LogTrees
    work: "SimpleQueue[tuple[ArchivedEntry, Future[EntryReading]] | None]" = field(default_factory=SimpleQueue)
    waiting: dict[ArchivedEntry, Future[EntryReading]] = field(default_factory=dict)
    clients: dict[ArchivedEntry, str] = field(default_factory=dict)
    late: bool = False
    failed_until: float = float("-inf")


class _Kept(Struct, frozen=True):
    """An answer, until a time of the monotonic clock; `size` are the bytes of the entry that it was made of."""

    answer: EntryReading
    until: float
    size: int


class EntryReader:
    """A `monitor.store.signings.ReadEntries`. `trees_of` opens a log by its name, `None` where it is not followed."""

    def __init__(
        self,
        trees_of: Callable[[str], LogTrees | None],
        store: Store,
        authorities: Callable[[], tuple[CertificateAuthorities, Sequence[CtLogKey]]],
        clock: Callable[[], datetime],
        *,
        patience: float = _PATIENCE,
    ) -> None:
        self._trees_of, self._store, self._authorities, self._clock = trees_of, store, authorities, clock
        self._patience = patience
        self._lock = threading.Lock()
        self._pages: list[str] = []  # the client of each page that waits
        self._lines: dict[str, _Line] = {}
        self._kept: OrderedDict[ArchivedEntry, _Kept] = OrderedDict()
        self._closed = False

    def __call__(
        self, wanted: Sequence[ArchivedEntry], client: str, allow: Callable[[], bool]
    ) -> Mapping[EntryRef, EntryReading]:
        """The entries, each as a judge sees it. `allow` counts an entry that a log is asked for, or refuses it."""
        told: dict[EntryRef, EntryReading] = {}
        asked: dict[EntryRef, Future[EntryReading]] = {}
        with self._lock:
            for each in wanted:
                answer = self._known(each) or self._ask(each, client, allow)
                if isinstance(answer, Future):
                    asked[each.where] = answer
                else:
                    told[each.where] = answer
        return told | self._waited(asked, client)

    def close(self) -> None:
        """End the threads; entries that wait are not read.

        An entry that is being read is not waited for: it has nothing to finish, and a slow log would delay the stop of
        the daemon by a minute for each request.
        """
        with self._lock:
            self._closed = True
            for line in self._lines.values():
                for future in line.waiting.values():
                    future.cancel()
                line.work.put(None)

    def _known(self, wanted: ArchivedEntry) -> EntryReading | None:
        kept = self._kept.get(wanted)
        return kept.answer if kept is not None and time.monotonic() < kept.until else None

    def _ask(self, wanted: ArchivedEntry, client: str, allow: Callable[[], bool]) -> "Future[EntryReading] | Unread":
        line = self._line(wanted.where.log.partition("/")[0])
        if line is None:
            return NOT_FOLLOWED
        if (under_way := line.waiting.get(wanted)) is not None:
            return SLOW if line.late else under_way
        if (refusal := self._refusal(line, client)) is not None:
            return refusal
        if not allow():
            return OFTEN
        line.waiting[wanted] = made = Future[EntryReading]()
        line.clients[wanted] = client
        line.work.put((wanted, made))
        return made

    @staticmethod
    def _refusal(line: _Line, client: str) -> Unread | None:
        if time.monotonic() < line.failed_until:
            return FAILED
        if line.late or len(line.waiting) >= _QUEUED:
            return SLOW if line.late else BUSY
        return AT_ONCE if list(line.clients.values()).count(client) >= _QUEUED_EACH else None

    def _line(self, name: str) -> _Line | None:
        if self._closed:
            return None
        if name not in self._lines:
            trees = self._trees_of(name)
            if trees is None:
                return None
            self._lines[name] = line = _Line(trees)
            # A daemon thread: the end of the program does not wait for a slow log.
            threading.Thread(target=self._work, args=(line,), name=f"read for pages {name}", daemon=True).start()
        return self._lines[name]

    def _waited(self, asked: "Mapping[EntryRef, Future[EntryReading]]", client: str) -> dict[EntryRef, EntryReading]:
        if not asked:
            return {}
        with self._lock:
            if self._pages.count(client) >= _PAGES_EACH:
                return dict.fromkeys(asked, AT_ONCE)
            if len(self._pages) >= _PAGES:
                return dict.fromkeys(asked, BUSY)
            self._pages.append(client)
        try:
            wait(asked.values(), self._patience)
        finally:
            with self._lock:
                self._pages.remove(client)
        told: dict[EntryRef, EntryReading] = {}
        for where, future in asked.items():
            is_done = future.done() and not future.cancelled()
            told[where] = future.result() if is_done else SLOW
            if not is_done:
                with self._lock:
                    line = self._lines[where.log.partition("/")[0]]
                    line.late = bool(line.waiting)
        return told

    def _work(self, line: _Line) -> None:
        """Runs in the log's thread."""
        while (next_one := line.work.get()) is not None:
            wanted, future = next_one
            if future.set_running_or_notify_cancel():
                future.set_result(self._read(line, wanted))

    def _read(self, line: _Line, wanted: ArchivedEntry) -> EntryReading:
        answer: EntryReading = FAILED
        size = 0
        try:
            if time.monotonic() >= line.failed_until:
                answer, size = self._whole(line.trees, wanted)
        except SignwatchError as error:
            _LOG.warning(
                "entry_not_read_for_page log=%s index=%d detail=%s", wanted.where.log, wanted.where.index, error
            )
            line.failed_until = time.monotonic() + _REST
        except Exception:  # noqa: BLE001
            # A defect that an entry brings to light: its page is shown without it, and the thread reads on.
            _LOG.exception("entry_not_read_for_page log=%s index=%d", wanted.where.log, wanted.where.index)
            answer = UNDECODED
        finally:
            with self._lock:
                del line.waiting[wanted], line.clients[wanted]
                line.late = line.late and bool(line.waiting)
                for_seconds = _UNREAD_FOR if isinstance(answer, Unread) else _KEPT_FOR
                if answer is not FAILED:
                    self._keep(wanted, _Kept(answer, time.monotonic() + for_seconds, size))
        return answer

    def _keep(self, wanted: ArchivedEntry, kept: _Kept) -> None:
        self._kept[wanted] = kept
        self._kept.move_to_end(wanted)
        while len(self._kept) > _KEPT or sum(each.size for each in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)

    def _whole(self, trees: LogTrees, wanted: ArchivedEntry) -> tuple[EntryReading, int]:
        """The answer, and the bytes of the entry that it holds. Raises the errors that are about the whole log."""
        where = wanted.where
        try:
            source = trees.source(where.log)
        except NotListed:
            return self._not_served(where, "its tree is not listed")
        head = self._head(source, where.index)
        try:
            (entry, *_) = source.entries(where.index, where.index + 1, head)
        except NotShown as error:
            # The log answered. Were it left alone for that, a visitor could keep its other entries from every page.
            return self._not_served(where, str(error))
        if hashes_of([entry])[0].hex() != wanted.leaf_hash:
            # The archived hash was proven to be in a head that the log signed.
            _LOG.error("another_entry_served log=%s index=%d", where.log, where.index)
            return OTHER, 0
        if entry.unread or len(entry.leaf) + len(entry.extra) > _LARGEST:
            return LARGE, 0
        signing = decoded(entry, where, source.identity.api)
        if isinstance(signing, Unreadable):
            return UNDECODED, 0
        hit = Hit(signing, (), entry.leaf, entry.extra)
        return labelled(hit, *self._authorities(), self._clock())[0], len(entry.leaf) + len(entry.extra)

    @staticmethod
    def _not_served(where: EntryRef, why: str) -> tuple[EntryReading, int]:
        _LOG.warning("entry_not_served_for_page log=%s index=%d detail=%s", where.log, where.index, why)
        return NOT_SERVED, 0

    def _head(self, source: LogSource, index: int) -> SignedHead:
        position = self._store.position(source.identity.log)
        return position.head.head if position is not None and index < position.head.head.size else source.latest()


def entry_reader(monitor: Monitor, *, patience: float = _PATIENCE) -> EntryReader:
    """Reads entries of the logs that are followed at the time of asking; closed with the monitor."""

    def trees_of(name: str) -> LogTrees | None:
        log = next((each for each in tuple(monitor.logs) if each.name == name), None)
        return None if log is None else monitor.make.trees(log)

    services = monitor.services
    made = EntryReader(trees_of, services.store, services.trust.authorities, services.timing.clock, patience=patience)
    monitor.parts.callback(made.close)
    return made

"""The only writing thread. It collects submissions into batches, so that many submissions share one fsync."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from log_lite.ledger import Ledger, LogDamaged, PendingEntry, Receipt, TreeClosed
from log_lite.store import StoreUnusable

_QUEUE_SIZE: Final = 4096
_BATCH_SIZE: Final = 256
_IDLE_SECONDS: Final = 0.1
_ANSWER_SECONDS: Final = 20.0
_logger = logging.getLogger(__name__)


class Pushback(Exception):
    """The queue of submissions is full; the client should try again."""


class NotStored(Exception):
    """The entry could not be stored, or not within the time limit. No client got a receipt for it."""


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Sequencer:
    """Runs `Ledger.commit` on batches in a thread of its own, and notices changes by other processes."""

    def __init__(self, ledger: Ledger, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._ledger = ledger
        self._now_ms = now_ms
        self._queue: queue.Queue[tuple[PendingEntry, Future[Receipt | TreeClosed]]] = queue.Queue(_QUEUE_SIZE)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self.on_change: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Start the writer thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the queued drafts, then end the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_ANSWER_SECONDS)

    def alive(self) -> bool:
        """True while the writer thread runs, so that submissions are answered."""
        return self._thread.is_alive()

    def submit(self, draft: PendingEntry) -> Receipt | TreeClosed:
        """Wait until the draft is durable and published. Raises `Pushback`, `NotStored`."""
        future: Future[Receipt | TreeClosed] = Future()
        try:
            self._queue.put_nowait((draft, future))
        except queue.Full as error:
            raise Pushback from error
        try:
            return future.result(_ANSWER_SECONDS)
        except TimeoutError as error:
            raise NotStored(f"not integrated within {_ANSWER_SECONDS:.0f} s") from error

    def _run(self) -> None:
        while not (self._stopping.is_set() and self._queue.empty()):
            batch = self._batch()
            try:
                if batch:
                    self._commit(batch)
                else:
                    self._take_over()
            except (StoreUnusable, LogDamaged) as error:
                _logger.error("the database cannot be used, submissions fail until it is repaired: %s", error)  # noqa: TRY400  the message says all
                time.sleep(_IDLE_SECONDS)
            except Exception:
                # If this thread ended, one bad submission would make every later one fail.
                _logger.exception("a batch failed; its submitters were told")

    def _take_over(self) -> None:
        """Take over what another process has written since the last look."""
        if self._ledger.sync_if_changed(self._now_ms()):
            self.on_change()

    def _batch(self) -> list[tuple[PendingEntry, Future[Receipt | TreeClosed]]]:
        batch: list[tuple[PendingEntry, Future[Receipt | TreeClosed]]] = []
        try:
            batch.append(self._queue.get(timeout=_IDLE_SECONDS))
            while len(batch) < _BATCH_SIZE:
                batch.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return batch

    def _commit(self, batch: list[tuple[PendingEntry, Future[Receipt | TreeClosed]]]) -> None:
        try:
            # A fault or a rotation that another process wrote before a submission is in force in its answer, however
            # many submissions follow each other.
            self._take_over()
            results = self._ledger.commit([draft for draft, _ in batch], self._now_ms())
        except Exception as error:
            # After any error every submitter must learn that the entry is not promised.
            for _, future in batch:
                future.set_exception(NotStored(f"the entry was not stored: {error}"))
            raise
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)

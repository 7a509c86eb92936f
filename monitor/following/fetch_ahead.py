"""Entries of a range, batch by batch, fetched ahead of their reader, with a bound on how far."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from monitor.model.errors import FetchFailed
from monitor.model.log_source import LogEntry, LogSource, SignedHead


@dataclass(frozen=True, slots=True)
class Fetched:
    """Entries `[start, start + len(entries))` of one tree, as served."""

    start: int
    entries: tuple[LogEntry, ...]

    @property
    def end(self) -> int:
        """Index after the last entry."""
        return self.start + len(self.entries)

    @property
    def size(self) -> int:
        """Bytes that were served for these entries."""
        return _size(self.entries)


def fetch_batches(
    source: LogSource,
    head: SignedHead,
    wanted: range,
    *,
    batch_entries: int,
    batch_bytes: int,
    ahead: int,
    executor: Executor | None,
) -> Iterator[Fetched]:
    """Yield the entries of `wanted` in order, in batches cut at multiples of `batch_entries`.

    At most `ahead` batches wait unread; without an executor nothing is fetched ahead. A batch ends early when it has
    `batch_bytes`. Raises what the source raises, at the place in the order where it happened.
    """
    planned: deque[tuple[range, Future[Fetched]]] = deque()
    position = start = wanted.start
    try:
        while position < wanted.stop:
            while executor is not None and start < wanted.stop and len(planned) < ahead:
                part = _cut(start, wanted.stop, batch_entries)
                planned.append((part, executor.submit(_fetch, source, head, part, batch_bytes)))
                start = part.stop
            if planned:
                part, future = planned.popleft()
                fetched = future.result()
            else:
                part = _cut(position, wanted.stop, batch_entries)
                fetched = _fetch(source, head, part, batch_bytes)
            yield fetched
            position = fetched.end
            if position < part.stop:
                # Cut short by its bytes: what was fetched ahead no longer follows it.
                _drop(planned)
                start = position
    finally:
        _drop(planned)


def _cut(start: int, stop: int, batch_entries: int) -> range:
    return range(start, min(stop, (start // batch_entries + 1) * batch_entries))


def _drop(planned: deque[tuple[range, Future[Fetched]]]) -> None:
    for _, future in planned:
        future.cancel()
    planned.clear()


def _fetch(source: LogSource, head: SignedHead, part: range, batch_bytes: int) -> Fetched:
    entries: list[LogEntry] = []
    size = 0
    while len(entries) < len(part) and size < batch_bytes:
        start = part.start + len(entries)
        try:
            more = source.entries(start, part.stop, head)
        except FetchFailed:
            # What was served before it is worth a commit; the next batch starts at what failed and fails there.
            if entries:
                break
            raise
        if not 1 <= len(more) <= part.stop - start:
            raise FetchFailed(f"{head.log}: {len(more)} entries served where 1 to {part.stop - start} were asked for")
        entries.extend(more)
        size += _size(more)
    return Fetched(part.start, tuple(entries))


def _size(entries: Sequence[LogEntry]) -> int:
    return sum([len(entry.leaf) + len(entry.extra) for entry in entries])

"""Rekor v2: a signed checkpoint, hash tiles and entry bundles, all static files (C2SP tlog-tiles)."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from typing_extensions import override

from monitor.http_fetcher import Expect, Fetcher, NotFound
from monitor.logs.tile_tree import (
    TileLogSource,
    TileTree,
    fetch_tile,
    head_of,
    read_checkpoint,
)
from monitor.model.log_source import LogEntry, LogIdentity, SignedHead
from tlog.cosignature import WitnessKey
from tlog.note import MAX_NOTE_SIZE, NoteKey
from tlog.tiles import MAX_BUNDLE_SIZE, TILE_WIDTH, entries_path, parse_entry_bundle

# Deployments publish at the root of the URL; some only below the API path, where witnesses read.
_PREFIXES: Final = ("", "api/v2/")


class RekorV2Source(TileLogSource):
    """One Rekor v2 shard. Implements `monitor.model.log_source.LogSource`."""

    def __init__(
        self, identity: LogIdentity, fetcher: Fetcher, key: NoteKey, witnesses: Sequence[WitnessKey] = ()
    ) -> None:
        super().__init__(identity, fetcher)
        self._key, self._witnesses = key, witnesses
        self._prefix: str | None = None

    @override
    def latest(self) -> SignedHead:
        read = read_checkpoint(self._checkpoint(), self._key, self._identity)
        return head_of(read, self._identity, self._witnesses)

    @override
    def entries(self, start: int, end: int, head: SignedHead) -> Sequence[LogEntry]:
        """Entries of one bundle."""
        index, offset = divmod(start, TILE_WIDTH)
        width = min(TILE_WIDTH, head.size - index * TILE_WIDTH)
        prefix = self._where()
        with self._reading(start, head):
            raw, served = fetch_tile(
                self._fetcher, partial(entries_path, index), width, prefix=prefix, max_bytes=MAX_BUNDLE_SIZE
            )
            bodies = parse_entry_bundle(raw, served)
        return list(map(LogEntry, bodies[offset : min(width, end - index * TILE_WIDTH)]))

    def _checkpoint(self) -> bytes:
        if self._prefix is not None:
            return self._fetcher.get(self._prefix + "checkpoint", max_bytes=MAX_NOTE_SIZE, expect=Expect.TEXT)
        *others, last = _PREFIXES
        for prefix in others:
            try:
                raw = self._fetcher.get(prefix + "checkpoint", max_bytes=MAX_NOTE_SIZE, expect=Expect.TEXT)
            except NotFound:
                continue
            self._prefix = prefix
            return raw
        raw = self._fetcher.get(last + "checkpoint", max_bytes=MAX_NOTE_SIZE, expect=Expect.TEXT)
        self._prefix = last
        return raw

    def _where(self) -> str:
        if self._prefix is None:
            self._checkpoint()
        return self._prefix or ""

    @override
    def _tree(self, size: int) -> TileTree:
        return TileTree(self._fetcher, self._where(), size)

"""From a log's description to its sources: its protocol, its origin and its trees.

Trees are opened at the first use, and listed again every ten minutes.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, assert_never
from urllib.parse import urlsplit

from msgspec.structs import replace

from monitor.http_fetcher import Fetcher, Refused, WrongContent
from monitor.logs.ct_rfc6962 import CtRfc6962Source
from monitor.logs.ct_static import CtStaticSource
from monitor.logs.rekor_v1 import RekorV1Source, ShardInfo, shards
from monitor.logs.rekor_v2 import RekorV2Source
from monitor.model.errors import FetchFailed, NotShown, OwnFault
from monitor.model.log_description import LogDescription
from monitor.model.log_source import LogApi, LogIdentity, LogSource
from tlog.note import (
    BadSignature,
    MalformedCheckpoint,
    MalformedNote,
    NoteKey,
    open_note,
    parse_checkpoint,
    rekor_v1_key,
    tile_log_key,
)
from tlog.static_ct import static_ct_key

MAX_SIGNED: Final = 64
LIST_EVERY: Final = timedelta(minutes=10)


class TreeSources(list[LogSource]):
    """Sources of one log, oldest first. `left_out` counts trees that the log names and that are not followed.

    A list of trees is not signed, so a tree without a head by the pinned key may be invented; of signed new trees
    the newest `MAX_SIGNED` are taken.
    """

    def __init__(self, sources: Iterable[LogSource] = (), *, left_out: int = 0) -> None:
        super().__init__(sources)
        self.left_out = left_out


OpenTrees = Callable[[], Sequence[LogSource]]
"""Opens every tree of one log. Raises `FetchFailed`, `OwnFault`."""


class NotListed(FetchFailed):
    """The log does not list this tree any more; it answered, and its other trees may be read."""


class LogTrees:
    """Trees of one log. `refresh` is called by one thread at a time, `forget` by any.

    After a failed listing, no request goes to the log until the first `refresh` after `retry`. Trees listed earlier
    stay in `sources`.
    """

    def __init__(
        self, open_trees: OpenTrees, clock: Callable[[], datetime], *, retry: timedelta = timedelta(0)
    ) -> None:
        self._open, self._clock, self._retry = open_trees, clock, retry
        self._listed_at: datetime | None = None
        self._failed_at: datetime | None = None
        self.sources: Sequence[LogSource] = ()

    def forget(self) -> None:
        """List the trees again at the next `refresh`: the log's keys or its address may have changed."""
        self._listed_at = self._failed_at = None

    def refresh(self) -> bool:
        """List the trees if that is due; true if they were listed. Raises the errors of opening."""
        now = self._clock()
        if self._listed_at is not None and now - self._listed_at < LIST_EVERY:
            return False
        if self._failed_at is not None and now - self._failed_at < self._retry:
            return False
        # Set before opening, so that a concurrent `forget` is not overwritten.
        self._listed_at = now
        try:
            self.sources = self._open()
        except BaseException:
            self._listed_at, self._failed_at = None, now
            raise
        self._failed_at = None
        return True

    @property
    def left_out(self) -> int:
        """Number of trees in the log's newest listing that are not followed."""
        return self.sources.left_out if isinstance(self.sources, TreeSources) else 0

    def source(self, log: str) -> LogSource:
        """The tree named `log`; if it is unknown, the trees are listed again.

        Raises `NotListed`, `FetchFailed`, `OwnFault`.
        """
        if not self.refresh() and log not in self._logs():
            self.forget()
            self.refresh()
        for source in self.sources:
            if source.identity.log == log:
                return source
        raise NotListed(f"{log}: the log does not list this tree any more, so its entries cannot be read")

    def _logs(self) -> set[str]:
        return {source.identity.log for source in self.sources}


_LOG: Final = logging.getLogger(__name__)


def open_sources(description: LogDescription, fetcher: Fetcher) -> list[LogSource]:
    """Return one source per tree of the log: several for a Rekor v1 log with shards, oldest first.

    Sends a request to the log if the description leaves a choice. Raises `FetchFailed`; `NotShown` when every answer
    was signed by another key or for another origin; `OwnFault` for an unusable description.
    """
    candidates = list(_candidates(description, fetcher))
    if len(candidates) == 1:
        return candidates[0]
    refusal: FetchFailed = FetchFailed(f"{description.name}: no protocol of {', '.join(description.apis)} fits its key")
    for sources in candidates:
        try:
            # The newest tree decides: a retired tree may be empty, or no longer be served.
            sources[-1].latest()
        except (NotShown, Refused, WrongContent) as error:
            # A head signed by another key is a more precise error than a missing path.
            refusal = refusal if isinstance(refusal, NotShown) else error
            continue
        return sources
    raise refusal


def pinned_to(description: LogDescription, identity: LogIdentity) -> LogDescription:
    """The description that opens this one tree again, on any machine, without a request for the list of trees."""
    is_v1 = identity.api is LogApi.REKOR_V1
    return replace(
        description,
        name=identity.log,
        apis=(identity.api,),
        origin=identity.origin,
        tree_id=identity.origin.rpartition(" - ")[2] if is_v1 else None,
        offset=description.offset if description.tree_id is not None else None,
        witnesses=(),
        former=(),
        known_trees=(),
    )


def _candidates(description: LogDescription, fetcher: Fetcher) -> Iterator[list[LogSource]]:
    for api in description.apis:
        match api:
            case LogApi.REKOR_V1:
                for host in _hosts(description):
                    if trees := _rekor_v1(description, fetcher, host):
                        yield trees
            case LogApi.REKOR_V2:
                yield from ([source] for source in _rekor_v2(description, fetcher))
            case LogApi.CT_RFC6962:
                origin = description.origin or _origins(description.urls)[0]
                yield [CtRfc6962Source(_identity(description, api, description.name, origin, origin), fetcher)]
            case LogApi.CT_STATIC:
                for origin in [description.origin] if description.origin else _origins(description.urls):
                    identity = _identity(description, api, description.name, origin, origin)
                    yield [CtStaticSource(identity, fetcher, static_ct_key(origin, description.spki))]
            case _:
                assert_never(api)


def _hosts(description: LogDescription) -> list[str]:
    """Host names that a Rekor v1 log may sign under."""
    pinned = (description.origin or "").rpartition(" - ")[0]
    return [pinned] if pinned else list(dict.fromkeys(_host(url) for url in description.urls))


def _rekor_v1(description: LogDescription, fetcher: Fetcher, host: str) -> TreeSources:
    """One source per tree, oldest first; none if the server does not speak Rekor v1 and other protocols are left."""
    key = rekor_v1_key(host, description.spki)
    left_out = 0
    if description.tree_id is not None:
        trees = [(description.tree_id, description.offset, description.name)]
    else:
        try:
            found = shards(fetcher)
        except (Refused, WrongContent):
            if description.apis == (LogApi.REKOR_V1,):
                raise
            return TreeSources()
        known = set(description.known_trees)
        new = [tree for tree in found if not tree.active and tree.tree_id not in known]
        newest = {tree.tree_id for tree in [each for each in new if _is_signed(each, host, key)][-MAX_SIGNED:]}
        ours = [tree for tree in found if tree.active or tree.tree_id in known | newest]
        left_out = len(found) - len(ours)
        offsets = {tree.tree_id: tree.offset for tree in ours}
        missed = [tree_id for tree_id in description.known_trees if tree_id not in offsets]
        named = [*missed, *offsets]
        trees = [(tree_id, offsets.get(tree_id), f"{description.name}/{tree_id}") for tree_id in named]
    # SPEC rekor checkpoint.go: the origin is "<host> - <tree ID>", the note's key name the bare host.
    sources = (
        RekorV1Source(
            _identity(description, LogApi.REKOR_V1, name, host, f"{host} - {tree_id}"),
            fetcher,
            key,
            tree_id=tree_id,
            offset=offset,
        )
        for tree_id, offset, name in trees
    )
    return TreeSources(sources, left_out=left_out)


def _is_signed(tree: ShardInfo, host: str, key: NoteKey) -> bool:
    """True if the pinned key signed the head in the list of an inactive tree: a proxy in between can add trees.

    A followed tree is never left out: a wrong head of it is refused and counts against the log.
    """
    try:
        checkpoint = parse_checkpoint(open_note(tree.head, key))
    except (BadSignature, MalformedNote, MalformedCheckpoint):
        return False
    return checkpoint.origin == f"{host} - {tree.tree_id}" and checkpoint.size == tree.size


def _rekor_v2(description: LogDescription, fetcher: Fetcher) -> Iterator[LogSource]:
    origins = [description.origin] if description.origin else _origins(description.urls, path_first=False)
    keys = [tile_log_key(origin, description.spki) for origin in origins]
    # The key id of an Ed25519 log hashes its name, so the trust root itself determines the name.
    named = [key for key in keys if key.log_id == description.log_id] or keys
    if description.log_id and not description.origin and named is keys:
        raise OwnFault(
            f"{description.name}: the key id in the trust root fits none of the origins {', '.join(origins)}; "
            "set the log's `origin`"
        )
    for key in named:
        identity = _identity(description, LogApi.REKOR_V2, description.name, key.name, key.name)
        yield RekorV2Source(identity, fetcher, key, description.witnesses)


def _identity(description: LogDescription, api: LogApi, name: str, key_name: str, origin: str) -> LogIdentity:
    return LogIdentity(name, api, key_name, origin, description.spki, description.trust_root, description.valid_until)


def _host(url: str) -> str:
    host = urlsplit(url).hostname
    if not host:
        raise OwnFault(f"not a URL with a host: {url!r:.200}")
    return host


def _origins(urls: Sequence[str], *, path_first: bool = True) -> list[str]:
    """Possible origins of a log with these URLs: with and without port, with and without path."""
    found: list[str] = []
    for url in urls:
        parts = urlsplit(url)
        host, path = _host(url), parts.path.rstrip("/")
        names = [host + path, parts.netloc.rpartition("@")[2] + path, host, parts.netloc.rpartition("@")[2]]
        found += names if path_first else [host, *names]
    return list(dict.fromkeys(found))

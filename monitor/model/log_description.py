"""A log to follow, as configuration, trust root and state describe it, before it is asked."""

from datetime import datetime

from msgspec import Struct

from monitor.model.log_source import LogApi
from tlog.cosignature import WitnessKey


class LogDescription(Struct, frozen=True):
    """One log to follow. `name` is its id in state, metrics and alerts; `apis` the protocols it may speak.

    `log_id` is the 32-byte key id of the trust root, where there is one. `origin` and, for Rekor v1, `tree_id` and
    `offset` override the values from the URL and the log's own list of trees. `former` are earlier URLs of the log,
    from which its origin may derive. `known_trees` are the IDs of followed trees: a tree that a Rekor v1 log no
    longer lists is still requested, and reported as missing.
    """

    name: str
    url: str
    spki: bytes
    apis: tuple[LogApi, ...]
    log_id: bytes = b""
    origin: str | None = None
    tree_id: str | None = None
    offset: int | None = None
    witnesses: tuple[WitnessKey, ...] = ()
    trust_root: str = ""
    valid_until: datetime | None = None
    former: tuple[str, ...] = ()
    known_trees: tuple[str, ...] = ()

    @property
    def urls(self) -> tuple[str, ...]:
        """Every URL of the log, oldest first."""
        return *self.former, self.url

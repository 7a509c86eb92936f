"""Switching faults on and off: the database holds the active faults, so that a change reaches a running server."""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct, field

from log_lite.faults import entries, heads, histories, promises
from log_lite.faults.modes import MODES, NONE
from log_lite.faults.settings import FaultSettings, choose
from log_lite.faults.transport import TRANSPORT_MODES, HttpFault
from log_lite.home import CT_KEY, V1_KEY, NotApplicable
from log_lite.keys import read_key
from log_lite.ledger import CT, KEYS, V1, V2, Ledger
from log_lite.lens import Lens

_LENSES: Final[dict[str, Callable[[FaultSettings], Lens]]] = {
    "fork": histories.Fork,
    "rewind": histories.Rewind,
    "hide": entries.Hide,
    "swap": entries.Swap,
    "freeze": histories.Freeze,
    "same-size-other-root": lambda _s: heads.SameSizeOtherRoot(),
    "bad-signature": lambda _s: heads.BrokenSignature(),
    "wrong-origin": lambda _s: heads.WrongOrigin(),
    "truncated-tile": lambda _s: heads.TruncatedTile(),
    "padded-bundle": lambda _s: heads.PaddedBundle(),
    "partial-not-prefix": histories.PartialNotPrefix,
    "malformed-proof": lambda _s: heads.MalformedProof(),
    "inactive-shard-changed": histories.InactiveShardChanged,
    "shard-vanished": histories.ShardVanished,
    "unfreeze": histories.Unfreeze,
    "extra-signature": lambda _s: heads.ExtraSignature(),
    "future-time": lambda _s: heads.FutureTime(),
    "stale-replica": histories.StaleReplica,
    "duplicate-index": entries.DuplicateIndex,
    "out-of-order": lambda _s: entries.OutOfOrder(),
    "set-not-included": lambda _s: promises.SetNotIncluded(),
}


class ActiveFaults(Struct, frozen=True):
    """Faults that are switched on: each log's mode by name, and the lens or hook of that mode."""

    modes: Mapping[str, str] = field(default_factory=dict)
    lenses: Mapping[str, Lens] = field(default_factory=dict)
    http: Mapping[str, HttpFault] = field(default_factory=dict)


def in_force(ledger: Ledger) -> ActiveFaults:
    """Read which faults are switched on."""
    modes: dict[str, str] = {}
    lenses: dict[str, Lens] = {}
    http: dict[str, HttpFault] = {}
    for log, (mode, text) in ledger.store.faults().items():
        settings = FaultSettings.load(text)
        modes[log] = mode
        if mode in TRANSPORT_MODES:
            http[log] = HttpFault(mode, settings.part)
        elif mode == "wrong-key":
            # Rekor v1 and CT both sign with ECDSA: each takes the other's key; v2 takes v1's.
            other = CT_KEY if log == V1 else V1_KEY
            lenses[log] = heads.WrongKey(read_key(ledger.folder / KEYS / other))
        else:
            lenses[log] = _LENSES[mode](settings)
    return ActiveFaults(modes, lenses, http)


def switch(
    ledger: Ledger, mode: str, log: str | None, index: int | None, part: str
) -> list[tuple[str, FaultSettings | None]]:
    """Switch `mode` on (`none`: off) for one log, or for every log to which it applies. Raises `NotApplicable`.

    Returns each log with the settings chosen for it.
    """
    if mode != NONE and mode not in MODES:
        raise NotApplicable(f"there is no fault {mode!r}; the faults are: none, {', '.join(MODES)}")
    possible = MODES[mode].logs if mode in MODES else (V1, V2, CT)
    if log is not None and log not in possible:
        raise NotApplicable(f"{mode} makes no sense for {log}: only for {', '.join(possible)}")
    logs = [log] if log else list(possible)
    chosen: list[tuple[str, FaultSettings | None]] = [
        (name, None if mode == NONE else choose(ledger, name, mode, index, part)) for name in logs
    ]
    with ledger.store.write() as connection:
        for name, settings in chosen:
            connection.execute("DELETE FROM faults WHERE log = ?", (name,))
            if settings is not None:
                connection.execute("INSERT INTO faults VALUES (?, ?, ?)", (name, mode, settings.dump()))
    return chosen

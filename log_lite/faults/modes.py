"""Every way this log can misbehave: one row per fault, with the logs to which the fault applies."""

from typing import Final

from msgspec import Struct

from log_lite.ledger import CT, V1, V2

_ALL: Final = (V1, V2, CT)
_TILED: Final = (V2, CT)


class Mode(Struct, frozen=True):
    """A fault: its name, the logs to which it applies, and its effect as readers see it."""

    name: str
    logs: tuple[str, ...]
    summary: str


MODES: Final = {
    mode.name: mode
    for mode in (
        Mode("fork", _ALL, "another history with entry N replaced: signed, complete, growing, and inconsistent"),
        Mode("rewind", _ALL, "an older tree of size N (default: half)"),
        Mode("hide", _ALL, "entry N is in the tree and never served"),
        Mode("swap", _ALL, "entry N is served with another body than its leaf"),
        Mode("freeze", _ALL, "the head of now for ever, while entries are still accepted"),
        Mode("same-size-other-root", _ALL, "the head names another root at the same size"),
        Mode("wrong-key", _ALL, "heads are signed by another trusted log's key"),
        Mode("bad-signature", _ALL, "one bit of every head signature is wrong"),
        Mode("wrong-origin", _ALL, "checkpoints name another origin (for CT: the static checkpoint)"),
        Mode("truncated-tile", _TILED, "hash tiles are 16 bytes short"),
        Mode("padded-bundle", _TILED, "three bytes follow the last entry of every bundle"),
        Mode("oversized", _ALL, "answers that do not end for 80 MiB"),
        Mode("partial-not-prefix", _TILED, "entry N differs until its tile is full, then it is the real one"),
        Mode("malformed-proof", (V1, CT), "proofs have one hash too many"),
        Mode("inactive-shard-changed", (V1,), "an inactive shard has another root than when it was closed"),
        Mode("shard-vanished", (V1,), "an inactive shard is listed no more, and nothing of it is served"),
        Mode("unfreeze", (V2,), "a frozen shard loses its freeze line and grows"),
        Mode("extra-signature", _ALL, "checkpoints carry a second signature by an unknown key"),
        Mode("future-time", (V1, CT), "the log's clock is a day ahead"),
        Mode("stale-replica", _ALL, "every second answer comes from an older, consistent tree"),
        Mode("duplicate-index", _ALL, "entry N is served at N + 1 again"),
        Mode("out-of-order", (V1,), "retrieve answers backwards"),
        Mode("set-not-included", _ALL, "submissions are promised, and never put into the tree"),
        Mode("redirect", _ALL, "answers send readers to another host"),
        Mode("gzip", _ALL, "answers unpack to 256 MiB"),
        Mode("html", _ALL, "answers are a web page with status 200"),
        Mode("slow", _ALL, "answers arrive one byte at a time"),
        Mode("error-500", _ALL, "answers are errors"),
        Mode("gone", _ALL, "answers are 410: the log was taken down"),
        Mode("rate-limit", _ALL, "answers are 429 with Retry-After"),
    )
}
NONE: Final = "none"
# Parts of an API that the HTTP faults can be limited to.
PARTS: Final = ("reads", "head", "proof", "entries", "writes", "all")

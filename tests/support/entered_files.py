"""Which files one matching entry enters from HTTP to commit: `python -m tests.support.entered_files` prints them."""

import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from monitor.config import load_config
from monitor.daemon.assembly import assemble
from monitor.following.follower import Timing
from monitor.store.database import create
from monitor.store.reading import Reading
from monitor.telemetry.prometheus import PrometheusMeter
from tests.support.parts import Clock
from tests.support.served_log import served_log, signing_body

ROOT: Final = Path(__file__).parents[2]
_PACKAGES: Final = ("addresses", "alerts", "monitor", "outbound", "rules", "sigstore_entries", "tlog")
_OURS: Final = tuple(f"{ROOT / name}/" for name in _PACKAGES)


@dataclass
class Entered:
    """Calls by file, relative to the repository, and how many calls came from another room.

    A room is a top-level package, or a package of `monitor/`. A library between two rooms is looked through.
    """

    calls: Counter[str] = field(default_factory=Counter)
    changes: int = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Count one call. What a module runs when it is imported is no part of the way of an entry."""
        if event != "call" or not _is_ours(frame) or frame.f_code.co_name == "<module>":
            return
        self.calls[str(_file(frame))] += 1
        caller = frame.f_back
        while caller is not None and not _is_ours(caller):
            caller = caller.f_back
        if caller is not None and _room(_file(caller)) != _room(_file(frame)):
            self.changes += 1


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_OURS)


def _file(frame: FrameType) -> Path:
    return Path(frame.f_code.co_filename).relative_to(ROOT)


def _room(file: Path) -> str:
    return "/".join(file.parts[: 2 if file.parts[0] == "monitor" else 1])


@contextmanager
def counted() -> Iterator[Entered]:
    """Count the calls of this thread and of those that it starts."""
    entered = Entered()
    threading.setprofile(entered)
    sys.setprofile(entered)
    try:
        yield entered
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def follow_one_entry(folder: Path) -> Entered:
    """Count one pass of the daemon over a log that grew by one signing, which a rule selects and does not expect."""
    with served_log(folder) as served:
        config, clock = load_config(served.config), Clock()
        create(config.database, clock(), "test").close()
        monitor = assemble(config, PrometheusMeter("test", config.channels), Timing(clock, lambda _seconds: None))
        try:
            (watch,) = monitor.watches
            watch.baseline("head")
            assert watch.run_pass()[0].owner is None, "control: nothing is wrong before"
            served.log.append(signing_body("refs/heads/main"))
            with counted() as entered:
                (done,) = watch.run_pass()
            assert done.findings == {"unexpected": 1}
            assert [each.alert.kind for each in Reading(monitor.store.database).alerts(9)] == ["unexpected-signing"]
        finally:
            monitor.close()
    return entered


def main() -> None:
    """Print both figures and a line for each file."""
    with tempfile.TemporaryDirectory() as folder:
        entered = follow_one_entry(Path(folder))
    for file, count in sorted(entered.calls.items()):
        print(f"{count:6}  {file}")
    print(f"{len(entered.calls)} files entered, {entered.changes} changes of room")


if __name__ == "__main__":
    main()

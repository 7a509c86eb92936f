"""Runs lives of the story in forked processes: cheap, because everything is imported, and really ended by `_exit`.

Forking is only safe where there is one thread, so this is used from programs of their own, never from within pytest.
"""

import gc
import os
import pickle
import shutil
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from monitor.model.errors import FetchFailed, OwnFault
from tests.crash.story import Around, Life, step_through_database

DIED: Final = 86
_UNFINISHED: Final = 3
_FAILED: Final = 99
_LASTING: Final = (
    "signwatch.db.new",
    "signwatch.db.new-wal",
    "signwatch.db",
    "signwatch.db-wal",
    "file.jsonl",
    "people.jsonl",
)


@dataclass
class Steps:
    """Counts calls to the world and ends the process before the one it was told of; 0 ends none."""

    die_at: int = 0
    taken: int = 0

    def around(self, _seam: str, call: Callable[[], Any]) -> Any:
        self.taken += 1
        if self.taken == self.die_at:
            os._exit(DIED)
        return call()

    def count(self) -> int:
        """How many there were."""
        return self.taken


@dataclass
class Watching:
    """Notes before each call what a process that died there would leave behind, as a digest of every lasting file."""

    folder: Path
    seen: list[tuple[str, bytes]] = field(default_factory=list)

    def around(self, seam: str, call: Callable[[], Any]) -> Any:
        self.seen.append((seam, remains(self.folder)))
        return call()

    def finish(self) -> list[tuple[str, bytes]]:
        """All notes, with a last one for the end."""
        return [*self.seen, ("end", remains(self.folder))]


def remains(folder: Path) -> bytes:
    """Digest of what lasts. SQLite's shared memory is no part of it: without a process it is made anew."""
    digest = sha256()
    for name in _LASTING:
        path = folder / name
        content = path.read_bytes() if path.exists() else None
        digest.update(b"absent" if content is None else b"%d:" % len(content) + content)
    return digest.digest()


def live(folder: Path, stages: Sequence[int], around: Around, told: Callable[[], Any], *, number: int = 0) -> Any:
    """Live through stages in a process of its own; returns what `told` gives there at the end.

    `None` if it did not reach the end: it died, or ended itself because it was ill before it could begin to follow.
    """
    reading, writing = os.pipe()
    gc.freeze()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_child(Life(folder, around, number), stages, told, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, DIED, _UNFINISHED}, f"a life ended with {code}"
    return pickle.loads(answer) if code == 0 else None


def _be_child(life: Life, stages: Sequence[int], told: Callable[[], Any], pipe: int) -> None:
    try:
        step_through_database(life.around)
        life.live(stages)
        with os.fdopen(pipe, "wb") as answer:
            pickle.dump(told(), answer)
    except (FetchFailed, OwnFault):
        os._exit(_UNFINISHED)
    except BaseException:  # noqa: BLE001  a forked process must never return into what its parent was doing
        traceback.print_exc()
        os._exit(_FAILED)
    os._exit(0)


def fresh(folder: Path, template: Path | None = None) -> Path:
    """An empty folder, or a copy of the one a finished stage left."""
    shutil.rmtree(folder, ignore_errors=True)
    if template is None:
        folder.mkdir(parents=True)
    else:
        shutil.copytree(template, folder)
    return folder

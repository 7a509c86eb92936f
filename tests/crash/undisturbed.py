"""The story lived once without any disturbance: what every disturbed life of it is compared with."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.crash.forking import Watching, fresh, live
from tests.crash.outcome import Tries, check_delivered, check_folder, check_tries, check_truth, outcome, tries
from tests.crash.scene import STAGES, certificate_log_at

LIVES: Final = 3
"""Processes that one disturbed stage may take."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call to the world: through which seam, the how manieth through it, and whether anything lasting changed."""

    seam: str
    number: int
    changed: bool


class Undisturbed:
    """Keeps the files each stage ended with, and what was seen on the way. Makes its folders in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before: list[Path | None] = [None]
        self._seen: list[list[tuple[str, bytes]]] = []
        self._expected: list[dict[str, Any]] = []
        self._tries: list[Tries] = []
        for stage in range(len(STAGES)):
            # Signed before any life is forked, so that all of them are shown the same bytes.
            certificate_log_at(stage)
        for stage in range(len(STAGES)):
            home = fresh(folder / f"after {stage}", self._before[-1])
            watching = Watching(home)
            seen = live(home, [stage], watching.around, watching.finish)
            assert seen, "an undisturbed life dies nowhere"
            check_folder(home, stage, complete=stage > 0)
            check_delivered(home)
            self._seen.append(seen)
            self._expected.append(outcome(home))
            self._tries.append(tries(home))
            self._before.append(home)
        check_truth(home)

    def before(self, stage: int) -> Path:
        """A fresh folder as it was when the stage began."""
        return fresh(self._folder / "disturbed", self._before[stage])

    def count(self, stage: int) -> int:
        """How many steps a stage has."""
        return len(self._seen[stage]) - 1

    def steps(self, stage: int, *, every: bool) -> list[int]:
        """Steps of a stage worth dying at, counted from 1: all, or those that find files no earlier step found."""
        seen = self._seen[stage][:-1]
        return [at for at in range(1, len(seen) + 1) if every or at == 1 or seen[at - 1][1] != seen[at - 2][1]]

    def calls(self, stage: int) -> list[Call]:
        """Every call of a stage, in order."""
        counts: Counter[str] = Counter()
        calls = []
        for (seam, before), (_, after) in zip(self._seen[stage], self._seen[stage][1:], strict=False):
            counts[seam] += 1
            calls.append(Call(seam, counts[seam], before != after))
        return calls

    def compare(self, home: Path, stage: int) -> None:
        """Check that a disturbed life ended the stage as the undisturbed one did."""
        check_folder(home, stage, complete=stage > 0)
        check_delivered(home)
        check_tries(tries(home), self._tries[stage], lives=LIVES)
        found, expected = outcome(home), self._expected[stage]
        for name, rows in expected.items():
            missing, extra = set(rows) - set(found[name]), set(found[name]) - set(rows)
            assert found[name] == rows, f"{name}: missing {sorted(missing)}\nand too many {sorted(extra)}"

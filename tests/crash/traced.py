"""`python -m tests.crash.traced FOLDER WHICH`: system calls of `signwatch` fail one after the other, by strace.

Every call on the database's files, the alert file and their folder, in `init` and in `run --once`: the disk fails
(EIO), the disk is full (ENOSPC), the process is killed (SIGKILL); at the first such call, the second, and so on until a
run meets no fault any more. After each, the commands are run again without faults, and what they end with is compared
with a run that was never disturbed; of that one, the order of the calls is checked too. WHICH is `every`, or a number:
then only so many faults are chosen, spread over all of them. Prints one
JSON line of figures, and its progress on standard error; exits 1 with everything that differs.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.crash.ordering import check_order
from tests.crash.outcome import check_tries, tries
from tests.crash.traced_site import Fault, check_truth, fresh, outcome, signwatch, site
from tests.support.progress import told

CALLS: Final = (
    "openat",
    "read",
    "pread64",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "unlink",
    "ftruncate",
)
_HOW: Final = ("error=EIO", "error=ENOSPC", "signal=KILL")
_COMMANDS: Final = (("init",), ("run", "--once"))
_FOUND_SOMETHING: Final = 1
_UNFINISHED: Final = 3
_RESTARTS: Final = 3
# An hour of sweeping at a second each.
_MOST: Final = 3_600


class Traced:
    """Runs the commands undisturbed, then disturbed."""

    def __init__(self, folder: Path, template: Path) -> None:
        self._home = folder / "home"
        self._templates = [template, folder / "initialised"]
        self.counts, self.synced = [], []
        for number, words in enumerate(_COMMANDS):
            home = fresh(self._home, self._templates[number])
            run = signwatch(home, *words, trace=CALLS)
            assert run.code == number * _FOUND_SOMETHING, f"{words} undisturbed ended with {run.code}"
            # strace counts by thread, so no fault can be later than the busiest thread's last call.
            threads = Counter(tuple(call.split("(")[0].split()) for call in run.calls if "(" in call)
            self.counts.append(
                {name: max(n for (_, each), n in threads.items() if each == name) for _, name in threads}
            )
            self.synced.append(check_order(run.calls, home))
            if number == 0:
                fresh(self._templates[1], home)
        assert {"openat", "pwrite64", "fdatasync"} <= set(self.counts[1]), f"strace saw too little: {self.counts}"
        assert home.name in self.synced[0], "the database's name is on disk"
        assert {"signwatch.db-wal", "alerts.jsonl", home.name} <= self.synced[1], f"never synchronised: {self.synced}"
        self._expected, self._tries = outcome(self._home), tries(self._home)
        check_truth(self._home)

    def faults(self) -> Iterator[tuple[int, Fault]]:
        """Every fault there is, with the number of the command it is for."""
        for number, counts in enumerate(self.counts):
            for call in sorted(counts):
                for how in _HOW:
                    for when in range(1, counts[call] + 1):
                        yield number, Fault(call, how, when)

    def disturb(self, number: int, fault: Fault) -> bool:
        """Run with the fault, then without, and compare; returns whether the fault met a call."""
        home = fresh(self._home, self._templates[number])
        run = signwatch(home, *_COMMANDS[number], trace=CALLS, fault=fault)
        assert run.code in {0, _FOUND_SOMETHING, _UNFINISHED, -9}, f"it ended with {run.code}"
        for restart in range(1, _RESTARTS + 1):
            # Later than the leases and retries of the life before.
            codes = [signwatch(home, *words, hours=6 * restart).code for words in _COMMANDS[number:]]
            if _UNFINISHED not in codes:
                break
        assert set(codes) <= {0, _FOUND_SOMETHING}, f"without a fault the commands end with {codes}"
        fsck = signwatch(home, "fsck").code
        assert fsck == 0, f"fsck ends with {fsck}"
        check_tries(tries(home), self._tries, lives=1 + restart, pauses=restart)
        found = outcome(home)
        for name, rows in self._expected.items():
            assert found[name] == rows, f"{name}: {found[name]} instead of {rows}"
        return run.injected


def main(folder: Path, which: str) -> None:
    """Disturb as often as told."""
    met: Counter[str] = Counter()
    failures = 0
    with site(folder) as template:
        traced = Traced(folder, template)
        faults = list(traced.faults())
        assert len(faults) <= _MOST, f"{len(faults)} faults are too many to try"
        chosen = faults if which == "every" else faults[:: max(1, len(faults) // int(which))]
        for number, fault in told(chosen, "faults at system calls"):
            words = " ".join(_COMMANDS[number])
            try:
                met[f"{words}: {fault.how}"] += traced.disturb(number, fault)
            except AssertionError as error:
                failures += 1
                print(f"signwatch {words}, {fault}: {error}", flush=True)
        figures: dict[str, Any] = {"tried": len(chosen), "of": len(faults), "met": met, "calls": traced.counts}
    if failures:
        sys.exit(1)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

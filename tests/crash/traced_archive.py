"""`python -m tests.crash.traced_archive FOLDER WHICH`: system calls on an archive fail one after the other, by strace.

As `tests.crash.traced`, for files of the archive that `signwatch run --once` keeps: at each call that opens, writes,
synchronises, renames or removes one of them the disk fails, the disk is full, or the process is killed. What is left
must be an archive that verifies, or none; following is not held up; and a restart ends with the rows, files and alerts
of a run that was never disturbed.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from monitor.archive.files import ArchiveFiles
from monitor.archive.verifying import check_heads, check_ranges
from monitor.archive.writing import read_manifest, read_rows
from monitor.store.database import open_database
from monitor.store.sql import table
from monitor.store.tables import FindingRow
from tests.crash.outcome import messages
from tests.crash.traced_site import Fault, fresh, signwatch, site
from tests.support.progress import told

_CALLS: Final = ("openat", "write", "pwrite64", "fsync", "rename", "unlink", "mkdir")
_HOW: Final = ("error=EIO", "error=ENOSPC", "signal=KILL")
_LOG: Final = "rekor-v2"
_SIZE: Final = 6
_NAME: Final = f"{0:012d}-{_SIZE:012d}.parquet"
_FOLDERS: Final = ("archive", f"archive/{_LOG}", f"archive/{_LOG}/rows", f"archive/{_LOG}/index")
_FILES: Final = (
    f"archive/{_LOG}/rows/.{_NAME}.new",
    f"archive/{_LOG}/rows/{_NAME}",
    f"archive/{_LOG}/index/.{_NAME}.new",
    f"archive/{_LOG}/index/{_NAME}",
    f"archive/{_LOG}/.archive.json.new",
    f"archive/{_LOG}/archive.json",
)
_PASS: Final = ("run", "--once")
_RESTARTS: Final = 3
_MOST: Final = 2_000


class Traced:
    """Keeps an archive undisturbed, then disturbed."""

    def __init__(self, folder: Path, template: Path) -> None:
        config = template / "signwatch.yaml"
        config.write_text(config.read_text(encoding="utf-8") + "archive: {location: archive}\n", encoding="utf-8")
        self._home, self._begun = folder / "home", folder / "begun"
        home = fresh(self._home, template)
        assert signwatch(home, "init").code == 0
        fresh(self._begun, home)
        run = signwatch(home, *_PASS, trace=_CALLS, lasting=(*_FOLDERS, *_FILES))
        assert run.code == 1, f"undisturbed it ended with {run.code}"
        threads = Counter(tuple(call.split("(")[0].split()) for call in run.calls if "(" in call)
        self.counts = {name: max(n for (_, each), n in threads.items() if each == name) for _, name in threads}
        assert {"openat", "write", "fsync", "rename"} <= set(self.counts), f"strace saw too little: {self.counts}"
        self._expected = archived(home)
        assert self._expected is not None
        assert len(self._expected) == _SIZE

    def faults(self) -> Iterator[Fault]:
        """Every fault there is."""
        for call in sorted(self.counts):
            for how in _HOW:
                for when in range(1, self.counts[call] + 1):
                    yield Fault(call, how, when)

    def disturb(self, fault: Fault) -> bool:
        """Run with the fault, look at what is left, run without, and compare; returns whether it met a call."""
        home = fresh(self._home, self._begun)
        run = signwatch(home, *_PASS, trace=_CALLS, fault=fault, lasting=(*_FOLDERS, *_FILES))
        assert run.code in {1, 3, -9}, f"it ended with {run.code}"
        left = archived(home)
        assert left is None or left == self._expected, "a part of a range counts as archived"
        for restart in range(1, _RESTARTS + 1):
            # Later than the leases and retries of the life before.
            signwatch(home, *_PASS, hours=6 * restart)
            if archived(home) is not None:
                break
        assert archived(home) == self._expected, "the restart archived something else"
        verified = signwatch(home, "archive", "verify", "--all", hours=6 * restart).code
        assert verified == 0, f"archive verify ends with {verified}"
        check_followed(home)
        return run.injected


def archived(home: Path) -> list[dict[str, Any]] | None:
    """Rows of the archive, which must be whole; `None` while nothing is archived."""
    files = ArchiveFiles(str(home / "archive"))
    manifest = read_manifest(files, _LOG)
    if manifest is None:
        return None
    check_heads(manifest)
    assert list(check_ranges(files, manifest)) == []
    assert manifest.spans() == [(0, _SIZE)]
    (each,) = manifest.runs[0].ranges
    named = {Path(file.name) for file in (each.rows, each.index)}
    found = {path.relative_to(home / "archive") for path in (home / "archive").rglob("*.parquet")}
    assert named <= found
    rows: list[dict[str, Any]] = read_rows(files, manifest, each).to_pylist()
    return rows


def check_followed(home: Path) -> None:
    """Each signing was found and told once: trouble of the archive is none of theirs."""
    found = table(FindingRow)
    with closing(open_database(str(home / "signwatch.db"))) as database, database.read() as connection:
        judged = {row.entry: row.outcome for row in connection.execute(select(found.c.entry, found.c.outcome))}
    assert judged == dict.fromkeys(range(3), "expected") | {3: "unexpected", 5: "unexpected"}
    kinds = [json.loads(message)["kind"] for message in messages(home, "alerts").values()]
    assert kinds.count("unexpected-signing") == len({3, 5}), f"told: {kinds}"


def main(folder: Path, which: str) -> None:
    """Disturb as often as told."""
    met: Counter[str] = Counter()
    failures = 0
    with site(folder) as template:
        traced = Traced(folder, template)
        faults = list(traced.faults())
        assert len(faults) <= _MOST, f"{len(faults)} faults are too many to try"
        chosen = faults if which == "every" else faults[:: max(1, len(faults) // int(which))]
        for fault in told(chosen, "faults at an archive's system calls"):
            try:
                met[fault.how] += traced.disturb(fault)
            except AssertionError as error:
                failures += 1
                print(f"{fault}: {error}", flush=True)
        figures: dict[str, Any] = {"tried": len(chosen), "of": len(faults), "met": met, "calls": traced.counts}
    if failures:
        sys.exit(1)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

"""`signwatch` as people start it: a folder that follows served logs, and the cost of a command with its processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_SAMPLE: Final = 0.05  # seconds between two looks at the memory of a process tree
_TIMEOUT: Final = 1200.0  # seconds for one command
_MIB: Final = 1 << 20
_NO_LIMIT: Final = 1_000_000  # requests a second that a log on this machine may be asked
_CONFIG: Final = """\
version: 1
database: signwatch.db
trust: {trusted_root: trusted_root.json}
rules: rules.yaml
channels: {file: {type: jsonl, path: alerts.jsonl}}
notify: [file]
logs:
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """Cost of a command: processor seconds, user and system, and peak resident MiB, of all its processes together."""

    seconds: float
    mib: float
    exit_code: int
    output: str


class TookTooLong(RuntimeError):
    """A command was ended because it ran longer than it may; `spent` is what it had used by then."""

    def __init__(self, command: str, longest: float, spent: Spent) -> None:
        super().__init__(
            f"{command} did not end in {longest:.0f} seconds and was ended; it had used {spent.seconds:.1f} s of "
            f"processor time. It said: {spent.output[-1000:].strip() or 'nothing'}"
        )
        self.spent = spent


def program(name: str, *arguments: str) -> list[str]:
    """The command line of one of our programs in this environment."""
    return [str(Path(sys.executable).with_name(name)), *arguments]


def run(
    command: Sequence[str],
    folder: Path,
    *,
    memory: bool = False,
    until: Callable[[], bool] = lambda: False,
    longest: float = _TIMEOUT,
) -> Spent:
    """Run a command in `folder` to its end, or `until` it did enough. Raises `TookTooLong` after `longest` seconds.

    The kernel adds a process's time to its parent's when the parent waits for it, so the times are those of the whole
    tree. With `memory` the tree is looked at twenty times a second; pages that several processes share count once. A
    command that takes too long, or that is left by an exception, is killed with its whole group of processes.
    """
    with (
        (folder / "output.txt").open("w+", encoding="utf-8") as output,
        subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        latest, peak = time.monotonic() + longest, 0
        try:
            waited, status, usage = os.wait4(process.pid, os.WNOHANG)
            while not waited and time.monotonic() < latest:
                if memory:
                    peak = max(peak, resident(process.pid))
                time.sleep(_SAMPLE)
                if until():
                    os.kill(process.pid, signal.SIGTERM)
                waited, status, usage = os.wait4(process.pid, os.WNOHANG)
            is_late = not waited
            if is_late:
                os.killpg(process.pid, signal.SIGKILL)
                _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            if not waited:
                os.killpg(process.pid, signal.SIGKILL)
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        spent = Spent(usage.ru_utime + usage.ru_stime, peak / _MIB, process.returncode, output.read())
        if is_late:
            raise TookTooLong(command[0], longest, spent)
        return spent


def resident(pid: int) -> int:
    """Resident bytes of a process and its descendants; a page that several of them share counts once."""
    return sum(_proportional(each) for each in _tree(pid))


def _tree(pid: int) -> list[int]:
    """The process and every descendant of it."""
    parents = {
        child: parent
        for each in Path("/proc").iterdir()
        if (child := each.name).isdigit() and (parent := _parent(each))
    }
    found = [pid]
    for known in found:
        found += [int(child) for child, parent in parents.items() if parent == known]
    return found


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def write_site(folder: Path, logs: Sequence[tuple[str, str, str]], trust: Mapping[str, Any], rules: str) -> None:
    """Write a folder for `signwatch run`. Each log (name, protocol, base URL) is followed from entry 0."""
    named = [
        f'  - {{name: {name}, api: {api}, url: "{url}", start: 0, requests_per_second: {_NO_LIMIT}}}'
        for name, api, url in logs
    ]
    (folder / "signwatch.yaml").write_text(_CONFIG + "\n".join(named) + "\n", encoding="utf-8")
    (folder / "rules.yaml").write_text(rules, encoding="utf-8")
    (folder / "trusted_root.json").write_text(json.dumps(trust), encoding="utf-8")

"""What a power cut would find: system calls in the order in which they make things last.

Killing a process loses nothing that it wrote; only a power cut shows what was never synchronised. So the order itself
is looked at: what a receiver is told is on disk before, and a message is on disk before it counts as delivered.
"""

import re
from collections.abc import Iterable
from pathlib import Path

# As `strace -f -y` prints it: the process, the call, and the first descriptor with its path.
_CALL = re.compile(r"^\d+ +(?P<name>\w+)\((?:\d+<(?P<path>[^>]*)>)?(?P<rest>.*)")
_SYNCS = {"fsync", "fdatasync"}
_WRITES = {"write", "pwrite64"}


def check_order(calls: Iterable[str], home: Path) -> set[str]:
    """Fail at the first call that relies on something not on disk yet; returns the names of what was synchronised."""
    folder, log, told = str(home), str(home / "signwatch.db-wal"), str(home / "alerts.jsonl")
    unsynced: set[str] = set()
    synced: set[str] = set()
    seen_told = False
    for line in calls:
        found = _CALL.match(line)
        if found is None:
            continue
        name, path, rest = found["name"], found["path"] or "", found["rest"]
        if name in _WRITES:
            assert path != told or log not in unsynced, "a receiver is told of a finding that is not on disk"
            assert path != log or not unsynced & {told, folder}, "a message counts as delivered before it is on disk"
            unsynced.add(path)
        elif name == "rename" or (name == "openat" and "O_CREAT" in rest and told in rest and not seen_told):
            seen_told = seen_told or name == "openat"
            unsynced.add(folder)
        elif name in _SYNCS:
            unsynced.discard(path)
            synced.add(Path(path).name)
    assert not unsynced & {log, told, folder}, f"the program ended before this was on disk: {unsynced}"
    return synced

"""`signwatch` as people start it: a folder that follows served logs, and the cost of a command with its processes."""

import json
import os
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.corpus import authority

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
    """What a command cost: processor seconds, user and system, and peak resident MiB, of all its processes together.

    `first_seconds` are the part of `seconds` that its first process spent, as far as the last look shows.
    """

    seconds: float
    mib: float
    first_seconds: float
    exit_code: int
    output: str


def signwatch(*arguments: str) -> list[str]:
    """The command line of `signwatch` in this environment."""
    return [str(Path(sys.executable).with_name("signwatch")), *arguments]


def run(command: Sequence[str], folder: Path, *, memory: bool = False) -> Spent:
    """Run a command in `folder` to its end. Raises `RuntimeError` when it takes too long.

    The kernel adds a process's time to its parent's when the parent waits for it, so the times are those of the whole
    tree. With `memory` the tree is looked at twenty times a second; pages that several processes share count once.
    """
    with (
        (folder / "output.txt").open("w+", encoding="utf-8") as output,
        subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        until, peak, first = time.monotonic() + _TIMEOUT, 0, 0.0
        try:
            waited, status, usage = os.wait4(process.pid, os.WNOHANG)
            while not waited and time.monotonic() < until:
                if memory:
                    peak, first = max(peak, resident(process.pid)), _own_seconds(process.pid) or first
                time.sleep(_SAMPLE)
                waited, status, usage = os.wait4(process.pid, os.WNOHANG)
        except BaseException:
            process.kill()
            raise
        if not waited:
            process.kill()
            raise RuntimeError(f"{command[0]} did not end in {_TIMEOUT:.0f} seconds")
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        seconds = usage.ru_utime + usage.ru_stime
        return Spent(seconds, peak / _MIB, first, process.returncode, output.read())


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


def _own_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Followed:
    """A log to follow: its name in state, protocol, base URL, pinned key, and id in a trust root."""

    name: str
    api: str
    url: str
    origin: str
    spki: bytes
    log_id: bytes


def write_site(folder: Path, logs: Sequence[Followed], rules: str) -> None:
    """Write a folder for `signwatch run`: configuration, trust root, and rules. Each log is followed from entry 0."""
    named = [
        f'  - {{name: {each.name}, api: {each.api}, url: "{each.url}", origin: "{each.origin}", start: 0, '
        f"requests_per_second: {_NO_LIMIT}}}"
        for each in logs
    ]
    (folder / "signwatch.yaml").write_text(_CONFIG + "\n".join(named) + "\n", encoding="utf-8")
    (folder / "rules.yaml").write_text(rules, encoding="utf-8")
    (folder / "trusted_root.json").write_text(json.dumps(trusted_root(logs)), encoding="utf-8")


def trusted_root(logs: Sequence[Followed]) -> dict[str, object]:
    """The trust root that names these logs and the authority that issued the corpus."""
    since = {"start": "2020-01-01T00:00:00Z"}
    tlogs: dict[str, list[dict[str, object]]] = {"tlogs": [], "ctlogs": []}
    for each in logs:
        tlogs["ctlogs" if each.api.startswith("ct-") else "tlogs"].append(
            {
                "baseUrl": each.url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": {"rawBytes": _b64(each.spki), "validFor": since},
                "logId": {"keyId": _b64(each.log_id)},
            }
        )
    chain = [{"rawBytes": _b64(each)} for each in authority().chain]
    certifying = {
        "subject": {"organization": "benchmark", "commonName": "benchmark"},
        "uri": "https://ca.bench.example",
        "certChain": {"certificates": chain},
        "validFor": since,
    }
    return {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        **tlogs,
        "certificateAuthorities": [certifying],
    }


def _b64(raw: bytes) -> str:
    return b64encode(raw).decode()

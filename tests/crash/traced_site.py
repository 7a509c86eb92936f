"""What `signwatch` is run against when its system calls fail: a log over HTTP, its files, and the two commands."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import time_machine
from sqlalchemy import select

from monitor.cli import run_command
from monitor.store.database import open_database
from monitor.store.sql import SEAL, Base, UtcTime, broken_seals, table
from monitor.store.tables import FindingRow, UnreadableRow
from tests.crash.outcome import messages
from tests.support.misbehaving_log import RekorV2Log
from tests.support.served_log import served_log, signing_body
from tests.support.state_checker import check_state

DATABASES: Final = ("signwatch.db", "signwatch.db.new")
_ENDS: Final = ("", "-wal", "-shm", "-journal")
LASTING: Final = (*(name + end for name in DATABASES for end in _ENDS), "alerts.jsonl")
_LOG: Final = "rekor-v2"
_RUN_SECONDS: Final = 120
# Some alerts are told once a day: all runs of a test are on the same one.
_NOW: Final = datetime(2031, 3, 1, 2, tzinfo=UTC)
# Texts that tell a time, and what is hashed over one: the clock of a real program goes on.
_TELLS_TIME: Final = {("alert", "document"), ("head", "link"), ("log_health", "detail"), ("instance", "created_by")}
_INCIDENTAL: Final = {
    "delivery": {"id", "attempts", "lease", "digest", "error"},
    "scanned_range": {"id"},
    "log_day": {"passes", "failures"},  # `check_tries` holds them to bounds
}
# A row for every pause that a restart makes: `check_tries` holds their number and their troubles to bounds.
_BY_RESTARTS: Final = frozenset({"watched_span"})


def log_entries() -> list[bytes]:
    """Three expected signings, two unexpected ones, and an entry that cannot be read."""
    strange = [signing_body("refs/heads/main"), signing_body("refs/heads/evil")]
    return [*[signing_body()] * 3, strange[0], b"{garbage", strange[1]]


@contextmanager
def site(folder: Path) -> Iterator[Path]:
    """Serve the log from a process of its own; yields a folder with the configuration in it."""
    home = folder / "template"
    home.mkdir(parents=True)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with served_log(home) as served:
            served.log.append(*log_entries()[3:])
            config = served.config.read_text(encoding="utf-8")
            served.config.write_text(
                config.replace("poll_seconds: 1", "poll_seconds: 1, start: 0, stale_after_seconds: 864000"),
                encoding="utf-8",
            )
            os.write(writing, b"ready")
            signal.pause()
        os._exit(0)
    try:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.read(5) == b"ready"
        yield home
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to the `when`-th matching system call of each thread, in strace's words: `error=EIO`."""

    call: str
    how: str
    when: int

    def __str__(self) -> str:
        return f"{self.call} number {self.when}: {self.how}"


@dataclass
class Run:
    """One run of a command: its exit code (negative for a signal), and the traced calls."""

    code: int
    calls: list[str] = field(default_factory=list)

    @property
    def injected(self) -> bool:
        """Whether the fault met a call: a killed process leaves no mark on it."""
        return self.code == -signal.SIGKILL or any("(INJECTED)" in call for call in self.calls)


def signwatch(
    home: Path,
    *words: str,
    hours: float = 0,
    trace: Sequence[str] = (),
    fault: Fault | None = None,
    lasting: Sequence[str] = LASTING,
) -> Run:
    """Run a command in a forked process, `hours` into the day; with `trace`, under strace watching these calls.

    Watched are calls on the folder and on the files `lasting` in it.
    """
    child = os.fork()
    if child == 0:
        _be_signwatch(home, words, hours, stop=bool(trace))
    if not trace:
        return Run(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.waitpid(child, os.WUNTRACED)
    out = home.parent / "strace.out"
    paths = [word for path in (home, *(home / name for name in lasting)) for word in ("-P", str(path))]
    inject = [] if fault is None else ["-e", f"inject={fault.call}:{fault.how}:when={fault.when}"]
    command = [
        "strace",
        "-f",
        "-y",
        "-p",
        str(child),
        "-o",
        str(out),
        *paths,
        "-e",
        f"trace={','.join(trace)}",
        *inject,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        attached = tracer.stderr.readline()
        os.kill(child, signal.SIGCONT)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        tracer.wait(_RUN_SECONDS)
    assert b"attached" in attached, attached
    return Run(code, out.read_text(encoding="utf-8", errors="replace").splitlines())


def _be_signwatch(home: Path, words: Sequence[str], hours: float, *, stop: bool) -> None:
    code = 70
    try:
        os.chdir(home)
        quiet = os.open(home.parent / "signwatch.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        signal.alarm(_RUN_SECONDS)
        if stop:
            os.kill(os.getpid(), signal.SIGSTOP)
        with time_machine.travel(_NOW + timedelta(hours=hours)):
            code = run_command([*words, "--config", str(home / "signwatch.yaml")])
    finally:
        os._exit(code)


def fresh(home: Path, template: Path) -> Path:
    """A copy of a finished folder."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(template, home)
    return home


def outcome(home: Path) -> dict[str, Any]:
    """Every row of every table without its times, and the keys of what the file channel holds."""
    where = str(home / "signwatch.db")
    with closing(open_database(where)) as database:
        log = RekorV2Log(log_entries())
        check_state(database, {_LOG: log.oracle()}, ["file"], complete=True)
        with database.read() as connection:
            assert list(broken_seals(connection)) == []
            tables = {
                name: sorted(
                    repr([bytes(row[c]) if isinstance(row[c], bytes) else row[c] for c in each.c if _kept(name, c)])
                    for row in connection.execute(select(each)).mappings()
                )
                for name, each in Base.metadata.tables.items()
                if name not in _BY_RESTARTS
            }
    return {**tables, "file": sorted(messages(home, "alerts"))}


def check_truth(home: Path) -> None:
    """Whether what is in the log was found: a comparison alone would not notice what is lost in every run."""
    found, unread = table(FindingRow), table(UnreadableRow)
    with closing(open_database(str(home / "signwatch.db"))) as database, database.read() as connection:
        judged = dict(connection.execute(select(found.c.entry, found.c.outcome)).tuples().all())
        assert judged == dict.fromkeys(range(3), "expected") | {3: "unexpected", 5: "unexpected"}
        assert list(connection.execute(select(unread.c.entry)).scalars()) == [4]
    told = [json.loads(message)["kind"] for message in messages(home, "alerts").values()]
    assert sorted(told) == ["entry-unreadable", "unexpected-signing", "unexpected-signing"]


def _kept(name: str, column: Any) -> bool:
    incidental = column.name in _INCIDENTAL.get(name, set()) or (name, column.name) in _TELLS_TIME
    # A seal is hashed over times as well: `outcome` verifies each instead, and every value below it is compared.
    return not incidental and column.name != SEAL and not isinstance(column.type, UtcTime)

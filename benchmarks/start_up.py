"""Processor time of each command's start, and the memory of a daemon: idle, and following a million entries."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.command import program, run, write_site
from benchmarks.corpus import authority
from benchmarks.tile_log import ServedLog, served
from benchmarks.watched import make_watches, rule_file
from monitor.model.log_source import LogApi
from tests.support.log_server import LogServer, free_port
from tests.support.log_server import run as log_lite
from tlog.note import tile_log_key

COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "version": ("--version",),
    "help": ("--help",),
    "lint": ("rules", "lint"),
    "verify": ("evidence", "verify", "evidence.json"),
    "status": ("status",),
    "audit": ("audit",),
    "run_once": ("run", "--once"),
    "scan": ("scan", "--log", "v2", "--from", "0", "--to", "1"),
}
"""What is started, by the name of its figure."""
_ROUNDS: Final = 7
_SETTLED: Final = 30.0  # seconds: several passes over each log and every delivery that is due
_STARTS: Final = 60.0
_RULES: Final = 5
_MIB: Final = 1 << 20
_BACKLOG: Final = 1_000_000
_WATCHES: Final = 1_000
_SINCE: Final = {"start": "2020-01-01T00:00:00Z"}
_POLL: Final = "objectives: {poll_seconds: 5}\n"


def measure_start_up(_corpus: Path) -> dict[str, float]:
    """Figures `startup_NAME_s` and `startup_NAME_over_python`: processor time of a command, children included.

    The second is over `python -c pass` of the same environment, which means the same on another machine. Each is the
    least of some rounds in which the commands take turns. The logs are on loopback and hold one entry that was read.
    `startup_audit_to_request_s` ends where `audit` connects to the first of them.
    """
    with _three_logs() as (folder, log):
        commands = {name: program("signwatch", *words) for name, words in COMMANDS.items()}
        commands["python"] = [sys.executable, "-c", "pass"]
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(_ROUNDS + 1):
            for name, command in commands.items():
                taken[name].append(_spent(command, folder))
        log.stop()
        taken["audit_to_request"] = [_spent_to_request(commands["audit"], folder, log.port) for _ in range(_ROUNDS)]
    # The first round writes the compiled modules, as installing a package does.
    seconds = {name: min(each[1:]) for name, each in taken.items()}
    python = seconds.pop("python")
    figures = {"startup_python_s": python}
    for name, each in seconds.items():
        figures |= {f"startup_{name}_s": each, f"startup_{name}_over_python": each / python}
    return figures


def measure_idle(_corpus: Path) -> dict[str, float]:
    """Figures `idle_daemon_mb` and `idle_daemon_pss_mb`: MiB of a daemon on three logs that show nothing new.

    The status page is on, as `signwatch init` sets it up. The second counts a page that several processes share by its
    part.
    """
    with (
        _three_logs() as (folder, _),
        (folder / "run.txt").open("w") as output,
        subprocess.Popen(
            program("signwatch", "run"), cwd=folder, stdout=output, stderr=output, env=_environment()
        ) as daemon,
    ):
        try:
            _wait_until_started(daemon, folder / "run.txt")
            time.sleep(_SETTLED)
            if daemon.poll() is not None:
                raise RuntimeError((folder / "run.txt").read_text())
            rss, pss = _memory(daemon.pid)
        finally:
            daemon.terminate()
    return {"idle_daemon_mb": rss / _MIB, "idle_daemon_pss_mb": pss / _MIB}


def measure_following(corpus: Path) -> dict[str, float]:
    """Figure `follow_1m_all_processes_mb`: peak MiB of `signwatch run --once` over a million entries of Rekor v2.

    All its processes together, with 1,000 rules and default settings; a page that several share counts once.
    """
    with (
        served(corpus, _BACKLOG, named_by_address=True) as log,
        tempfile.TemporaryDirectory(prefix="signwatch-bench-follow-") as temporary,
    ):
        folder = Path(temporary)
        write_tile_site(folder, log, rule_file([each.rule for each in make_watches(_WATCHES)]))
        for words, memory in ((("init",), False), (("run", "--once"), True)):
            done = run(program("signwatch", *words), folder, memory=memory)
        if f"to {_BACKLOG};" not in done.output:
            raise RuntimeError(done.output)
    return {"follow_1m_all_processes_mb": done.mib}


def write_tile_site(folder: Path, log: ServedLog, rules: str) -> None:
    """Write a folder for `signwatch` with one log, `v2`, which is named by its address."""
    key = {"rawBytes": b64encode(log.spki).decode(), "keyDetails": "PKIX_ED25519", "validFor": _SINCE}
    log_id = b64encode(tile_log_key(log.origin, log.spki).log_id).decode()
    known = {"baseUrl": log.url, "hashAlgorithm": "SHA2_256", "publicKey": key, "logId": {"keyId": log_id}}
    write_site(folder, [("v2", LogApi.REKOR_V2.value, log.url)], _trusted({"tlogs": [known]}), rules)


@contextmanager
def _three_logs() -> Iterator[tuple[Path, LogServer]]:
    """A folder of a `signwatch` that has read the Rekor v1, Rekor v2 and CT logs of this `log-lite` to their end."""
    with tempfile.TemporaryDirectory(prefix="signwatch-bench-start-") as temporary:
        folder = Path(temporary)
        log = LogServer(folder / "log", f"http://localhost:{free_port()}")
        log_lite("init", "--dir", str(log.folder), "--url", log.url)
        trust = _trusted(json.loads(log.command("export-trust")))
        logs = [
            ("v1", LogApi.REKOR_V1.value, log.url),
            ("v2", LogApi.REKOR_V2.value, log.url),
            ("ct", LogApi.CT_RFC6962.value, f"{log.url}/ct"),
        ]
        write_site(folder, logs, trust, rule_file([each.rule for each in make_watches(_RULES)]))
        with (folder / "signwatch.yaml").open("a", encoding="utf-8") as config:
            config.write(_POLL + f'web: {{listen: "127.0.0.1:{free_port()}"}}\n')
        (folder / "evidence.json").write_text("{}", encoding="utf-8")
        log.start()
        try:
            for words in (("init",), ("run", "--once")):
                done = run(program("signwatch", *words), folder)
                if done.exit_code:
                    raise RuntimeError(done.output)
            yield folder, log
        finally:
            log.stop()


def _trusted(logs: Mapping[str, Any]) -> dict[str, Any]:
    """A trusted root: these logs, and the authority of the corpus."""
    chain = [{"rawBytes": b64encode(each).decode()} for each in authority().chain]
    named = {"organization": "benchmark", "commonName": "benchmark"}
    fulcio = {"subject": named, "uri": "https://ca.bench.example", "certChain": {"certificates": chain}}
    media = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
    return {**logs, "mediaType": media, "certificateAuthorities": [{**fulcio, "validFor": _SINCE}]}


def _environment() -> dict[str, str]:
    # An installed package has its modules compiled; here they may be compiled by the first command that needs them.
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _spent(command: Sequence[str], folder: Path) -> float:
    """Processor seconds of a command with its children."""
    process = subprocess.Popen(
        command, cwd=folder, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _spent_to_request(command: Sequence[str], folder: Path, port: int) -> float:
    """Processor seconds of a command, without children, until it connects to this port of 127.0.0.1."""
    with (
        socket.create_server(("127.0.0.1", port)) as listener,
        subprocess.Popen(
            command, cwd=folder, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process,
    ):
        try:
            listener.settimeout(_STARTS)
            listener.accept()[0].close()
            # The clock of another process, as clock_getcpuclockid(3) names it.
            return time.clock_gettime(~process.pid << 3 | 2)
        finally:
            process.kill()


def _wait_until_started(daemon: "subprocess.Popen[bytes]", output: Path) -> None:
    until = time.monotonic() + _STARTS
    while "started logs=3" not in output.read_text(encoding="utf-8"):
        if daemon.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the daemon did not start: {output.read_text(encoding='utf-8')}")
        time.sleep(0.1)


def _memory(pid: int) -> tuple[int, int]:
    """Resident bytes of a process, and those with shared pages counted by their part."""
    lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]]
    sizes = {each[0]: int(each[1]) * 1024 for each in lines}
    return sizes["Rss:"], sizes["Pss:"]

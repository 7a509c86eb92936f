"""Completion in real shells on a pseudo-terminal: installed by the program, used by pressing TAB in a new session."""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monitor.demo.processes import program
from tests.support.waiting import PATIENCE

SHELLS = ("bash", "zsh", "fish")
# What is typed, and what the completed command prints.
LINES = {
    "signwatch": (b"signwatch rul\tlin\t--hel\t\r", "Check a rule file: every problem"),
    "ca-lite": (b"ca-lite expl\t--hel\t\r", "Explain a token"),
    "log-lite": (b"log-lite exp\t--hel\t\r", "Print trust.json: the log entries"),
    "sign-lite": (b"sign-lite att\t--hel\t\r", "Sign one in-toto statement"),
}
_READY = b"\x1b[?2004h"  # the line editor turns bracketed paste on


def environment(home: Path) -> dict[str, str]:
    # fish describes every manual page of the machine at its first start, unless that was done.
    (home / ".local/share/fish/generated_completions").mkdir(parents=True, exist_ok=True)
    path = f"{Path(program('signwatch')).parent}{os.pathsep}/usr/bin{os.pathsep}/bin"
    return {"HOME": str(home), "PATH": path, "TERM": "xterm", "LANG": "C.UTF-8", "COLUMNS": "100"}


def install(shell: str, name: str, home: Path) -> subprocess.CompletedProcess[str]:
    # Not the last command, so that the shell does not replace itself by the program.
    line = f"{name} --install-completion; echo $?" if shell != "fish" else f"{name} --install-completion; echo $status"
    return subprocess.run(
        [shell, "-c", line], env=environment(home), capture_output=True, text=True, timeout=PATIENCE, check=True
    )


class Terminal:
    """An interactive shell on a pseudo-terminal."""

    def __init__(self, shell: str, home: Path) -> None:
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.chdir(home)
            os.execvpe(shell, [shell, "-i"], environment(home))

    def type(self, keys: bytes) -> None:
        os.write(self.end, keys)

    def wait_for(self, wanted: bytes) -> str:
        """What is shown until `wanted` is; fails when that does not come."""
        shown, until = b"", time.monotonic() + PATIENCE
        while wanted not in shown and time.monotonic() < until:
            if select.select([self.end], [], [], 1)[0]:
                try:
                    shown += os.read(self.end, 65536)
                except OSError:  # the shell has ended
                    break
        assert wanted in shown, shown.decode(errors="replace")
        return shown.decode(errors="replace")

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.end)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", LINES)
def test_commands_and_options_are_completed_at_the_first_tab_of_a_session(
    shell: str, name: str, tmp_path: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is missing: install the Debian package {shell} (.ci/install-debian-packages)")
    said = install(shell, name, tmp_path)
    assert said.stdout.splitlines()[-1] == "0", said
    assert f"{shell} completion installed" in said.stdout
    keys, shows = LINES[name]
    terminal = Terminal(shell, tmp_path)
    try:
        terminal.wait_for(_READY)
        terminal.type(keys)
        terminal.wait_for(shows.encode())
    finally:
        terminal.close()


@pytest.mark.parametrize("option", ["--install-completion", "--show-completion"])
def test_outside_of_a_known_shell_it_is_misuse_and_says_where_to_run_it(option: str, tmp_path: Path) -> None:
    # A shell is looked for among the ten nearest ancestors.
    script = (
        "import subprocess, sys; depth, *rest = sys.argv[1:];"
        "more = [sys.executable, '-c', sys.orig_argv[2], str(int(depth) - 1)] if int(depth) else [];"
        "sys.exit(subprocess.run([*more, *rest], check=False).returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "11", program("signwatch"), option],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "bash, zsh, fish" in " ".join(done.stderr.split())
    assert not (tmp_path / ".bashrc").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_can_be_shown_instead(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is missing: install the Debian package {shell} (.ci/install-debian-packages)")
    done = subprocess.run(
        [shell, "-c", "signwatch --show-completion; true"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert "_SIGNWATCH_COMPLETE" in done.stdout
    assert sorted(tmp_path.rglob("*")) == sorted(
        path for path in tmp_path.rglob("*") if "fish" in str(path) or path.is_dir()
    )

"""A template of the operator's own: sandboxed by Jinja2, and run in a process that can be stopped.

Jinja2's sandbox keeps a template from reaching Python's internals; it bounds neither time nor memory. So a user's
template runs in a child process with a deadline, a memory limit and an output limit.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from msgspec import Struct, to_builtins

from alerts.alert import counted
from alerts.inert import inert_line
from alerts.page import Page

MAX_TEMPLATE: Final = 64 * 1024
MAX_OUTPUT: Final = 256 * 1024
_SECONDS: Final = 5.0
_MEMORY: Final = 512 * 1024 * 1024


class TemplateFailed(Exception):
    """The user's template gave no page: it is wrong, too slow, or too large."""


class UserTemplate(Struct, frozen=True):
    """One template: its source, its file's name for messages, and `html` for a template of HTML.

    The template sees `page` (`alerts.page.Page`). For HTML every value is escaped before the template sees it, so not
    even `|safe` lets log content become markup.
    """

    name: str
    source: str
    html: bool = False
    seconds: float = _SECONDS

    @classmethod
    def read(cls, path: Path, *, html: bool = False) -> "UserTemplate":
        """Read a template file of at most 64 KiB. Raises `OSError`, or `ValueError` when too long or not UTF-8."""
        with path.open("rb") as file:
            raw = file.read(MAX_TEMPLATE + 1)
        if len(raw) > MAX_TEMPLATE:
            raise ValueError(f"the template {path.name} is longer than {MAX_TEMPLATE} bytes")
        return cls(path.name, raw.decode(), html)

    def render(self, page: Page) -> str:
        """The template's page, at most 256 KiB. Raises `TemplateFailed`."""
        job = {
            "source": self.source,
            "html": self.html,
            "page": to_builtins(page) | {"heading": page.heading, "facts": page.facts},
            "max_output": MAX_OUTPUT,
            "memory": _MEMORY,
            "cpu_seconds": max(1, int(self.seconds)),
        }
        command = [sys.executable, "-I", "-m", "alerts.template_child"]
        try:
            done = subprocess.run(  # noqa: S603 - our own module; the template travels on standard input
                command, input=json.dumps(job).encode(), capture_output=True, timeout=self.seconds, check=False, env={}
            )
        except subprocess.TimeoutExpired as late:
            raise TemplateFailed(
                f"the template {self.name} took longer than {counted(self.seconds, 'second')}"
            ) from late
        except OSError as error:
            raise TemplateFailed(f"the template {self.name} could not be run: {error}") from error
        return self._answer(done)

    def _answer(self, done: "subprocess.CompletedProcess[bytes]") -> str:
        # A child that exceeds its memory or CPU limit dies without an answer.
        try:
            answer = json.loads(done.stdout)
        except ValueError as error:
            raise TemplateFailed(
                f"the template {self.name} used too much memory or time, or could not start (exit {done.returncode})"
            ) from error
        if "failed" in answer:
            raise TemplateFailed(f"the template {self.name} failed: {inert_line(str(answer['failed']), 300)}")
        # A template can write a lone surrogate, which no channel could send.
        return str(answer["page"]).encode("utf-8", "replace").decode()

"""A real browser without a window, spoken to over two pipes in the DevTools protocol. It can reach loopback only."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE

_QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
]
_LOOPBACK_ONLY = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
_SECONDS = PATIENCE


def chromium() -> str | None:
    """The browser's command, where one is installed."""
    return shutil.which("chromium")


@dataclass
class Seen:
    """One page as it was laid out, and what the browser had to say. It overflows where `width` exceeds `room`."""

    text: str
    width: int
    room: int
    complaints: list[str]
    links: list[str]


@dataclass
class Browser:
    """A running browser, a new page at each visit: an earlier one reloads itself and finds its server gone.

    `complaints` are the page's console messages, blocked content, dialogs and exceptions.
    """

    to_browser: int
    from_browser: int
    page: str = ""
    session: str = ""
    complaints: list[str] = field(default_factory=list)
    loaded: set[str] = field(default_factory=set)
    _number: int = 0
    _rest: bytes = b""

    def open_page(self) -> None:
        """Make a page, listen to everything it may complain of, and close the one before it."""
        before, self.session = self.page, ""
        self.page = self.call("Target.createTarget", url="about:blank")["targetId"]
        if before:
            self.call("Target.closeTarget", targetId=before)
        self.session = self.call("Target.attachToTarget", targetId=self.page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def visit(self, url: str, *, width: int, dark: bool = False) -> Seen:
        """Lay a page out in a window of `width` pixels."""
        self.open_page()
        self.complaints, self.loaded = [], set()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        loader = self.call("Page.navigate", url=url)["loaderId"]
        deadline = time.monotonic() + _SECONDS
        # The empty document of a new page is loaded too, and may say so late: each document has its loader's name.
        while loader not in self.loaded:
            self._take(deadline)
        found = self.evaluate(
            "({text: document.body.innerText, width: document.documentElement.scrollWidth,"
            " room: document.documentElement.clientWidth,"
            " links: [...document.querySelectorAll('[href], [src]')].map(each => each.href || each.src)})"
        )
        return Seen(found["text"], found["width"], found["room"], list(self.complaints), found["links"])

    def evaluate(self, expression: str) -> Any:
        """What an expression is in the page; works where the page itself may run no script."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser and wait for its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _SECONDS
        while True:
            said = self._take(deadline)
            if said.get("id") == self._number:
                assert "error" not in said, f"{method}: {said['error']}"
                result: dict[str, Any] = said["result"]
                return result

    def _take(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self.from_browser], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser did not answer in time"
            more = os.read(self.from_browser, 1 << 16)
            assert more, "the browser ended by itself"
            self._rest += more
        whole, _, self._rest = self._rest.partition(b"\0")
        said: dict[str, Any] = json.loads(whole)
        if said.get("sessionId", "") == self.session:
            self._note(said.get("method", ""), said.get("params", {}))
        return said

    def _note(self, event: str, what: dict[str, Any]) -> None:
        if event == "Page.lifecycleEvent" and what["name"] == "load":
            self.loaded.add(what["loaderId"])
        elif event == "Log.entryAdded":
            self.complaints.append(f"{what['entry']['source']}: {what['entry']['text']}")
        elif event in {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening"}:
            self.complaints.append(f"{event}: {json.dumps(what)[:300]}")


@contextlib.contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """A browser with a new profile in `folder`, ended by its process id however the block ends."""
    command = chromium()
    assert command is not None
    its_input, to_browser = os.pipe()
    from_browser, its_output = os.pipe()
    # The protocol's pipes are descriptors 3 and 4 of the browser; the shell puts them there and becomes the browser.
    start = f'exec "$0" "$@" 3<&{its_input} 4>&{its_output}'
    options = [*_QUIET, _LOOPBACK_ONLY, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(
        ["bash", "-c", start, command, *options],
        pass_fds=(its_input, its_output),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(its_input)
    os.close(its_output)
    try:
        yield Browser(to_browser, from_browser)
    finally:
        os.close(to_browser)
        os.close(from_browser)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)

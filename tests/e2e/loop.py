"""The real loop for end-to-end tests: ca-lite, log-lite and signwatch as processes on free loopback ports."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from monitor.demo.processes import Programs, program, programs, wait_until
from tests.support.log_server import free_port
from tests.support.waiting import PATIENCE

REPOSITORY = "acme/widget"
WORKFLOW = ".github/workflows/release.yml"
TAG = "refs/tags/v1.0.0"

CONFIG = """\
version: 1
database: signwatch.db
trust: {{trusted_root: ca/trust/trusted_root.json}}
logs:
  - {{name: rekor-v1, api: rekor-v1, url: "{log}", start: head, poll_seconds: 1}}
  - {{name: rekor-v2, api: rekor-v2, url: "{log}", start: head, poll_seconds: 1}}
  - {{name: ct, api: ct-rfc6962, url: "{log}/ct", start: head, poll_seconds: 1}}
rules: rules.yaml
channels:
  file: {{type: jsonl, path: alerts.jsonl}}
notify: [file]
web: {{listen: "127.0.0.1:{web}"}}
# However slow the machine is, a signing's entry is followed before its certificate gets an alert of its own.
objectives: {{certificate_hold: 1h}}
"""

RULES = """\
version: 1
rules:
  - id: widget-release
    select:
      all:
        - identity: {{glob: "https://github.com/acme/widget/**"}}
        - issuer: "{ca}/oidc/github"
    expect: {{workflow: ".github/workflows/release.yml", ref: {{glob: "refs/tags/v*"}}, trigger: [push]}}
  - id: alice
    select: {{identity: alice@example.com}}
"""


@dataclass
class Loop:
    """One running loop in `folder`. Every command runs with `folder` as its working directory."""

    folder: Path
    children: Programs
    log_url: str = ""
    ca_url: str = ""
    web_url: str = ""
    tokens: int = 0
    starts: int = field(default=0)

    def start_servers(self) -> None:
        log, ca, web = free_port(), free_port(), free_port()
        self.log_url, self.ca_url = f"http://localhost:{log}", f"http://localhost:{ca}"
        self.web_url = f"http://127.0.0.1:{web}"
        self.run("log-lite", "init", "--dir", "log", "--url", self.log_url)
        self.run("ca-lite", "init", "--dir", "ca", "--url", self.ca_url, "--log-trust", "log/trust.json")
        self.start_log()
        self.children.start("ca-lite", [program("ca-lite"), "serve", "--dir", "ca"])
        self.wait_for(f"{self.ca_url}/healthz")
        (self.folder / "signwatch.yaml").write_text(CONFIG.format(log=self.log_url, web=web))
        (self.folder / "rules.yaml").write_text(RULES.format(ca=self.ca_url))

    def start_log(self) -> None:
        serve = [program("log-lite"), "serve", "--dir", "log", "--ct-roots", "ca/trust/ca-chain.pem"]
        self.children.start("log-lite", serve)
        self.wait_for(f"{self.log_url}/healthz")

    def stop(self, name: str) -> None:
        process = self.children.running.pop(name)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)

    def start_monitor(self, *, ready: bool = True) -> None:
        self.starts += 1
        self.children.start("signwatch", [program("signwatch"), "run", "--config", "signwatch.yaml"])
        if ready:
            self.wait_for(f"{self.web_url}/readyz")

    def await_verified(self) -> None:
        """Wait until the monitor has verified all that the Rekor v2 log has signed by now."""
        checkpoint = httpx.get(f"{self.log_url}/checkpoint", timeout=PATIENCE, trust_env=False)
        size = int(checkpoint.raise_for_status().text.splitlines()[1])

        def is_verified() -> bool:
            return any(each["name"] == "rekor-v2" and each["verified_size"] >= size for each in self.status()["logs"])

        wait_until(f"{size} verified entries of rekor-v2", is_verified, seconds=PATIENCE)

    @contextmanager
    def log_that_only_counts(self) -> Iterator[list[str]]:
        """A server in the log's place that knows no page; yields the requests that reached it, as they come.

        The monitor stops meanwhile: it would ask too. Both run again afterwards.
        """
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(f"{self.command} {self.path}")
                self.send_error(404)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                return

        self.stop("signwatch")
        self.stop("log-lite")
        with ThreadingHTTPServer(("localhost", urlsplit(self.log_url).port or 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield asked
            finally:
                server.shutdown()
                thread.join()
        self.start_log()
        self.start_monitor()

    def kill_monitor(self) -> None:
        process = self.children.running.pop("signwatch")
        process.kill()
        process.wait()

    def wait_for(self, url: str, seconds: float = PATIENCE) -> None:
        def answers() -> bool:
            self.children.check_alive()
            try:
                return httpx.get(url, timeout=2, trust_env=False).is_success
            except httpx.HTTPError:
                return False

        wait_until(url, answers, seconds=seconds)

    def run(self, name: str, *arguments: str, expect: int = 0) -> str:
        return self.children.run([program(name), *arguments], expect=expect)

    def token(self, *arguments: str) -> str:
        return self.run("ca-lite", "token", "--dir", "ca", *arguments).strip()

    def github_token(self, ref: str) -> str:
        return self.token("--github", REPOSITORY, "--ref", ref, "--workflow", WORKFLOW, "--event", "push")

    def sigstore_sign(self, name: str, token: str, rekor_version: int) -> None:
        """Sign with the unmodified `sigstore` command from PyPI."""
        (self.folder / name).write_text(f"contents of {name}\n")
        command = [sys.executable, "-m", "sigstore", "--trust-config", "ca/trust/client_trust_config.json", "sign"]
        options = ["--rekor-version", str(rekor_version), "--identity-token", token, "--bundle", f"{name}.json", name]
        environment = {**os.environ, "HOME": str(self.folder), "NO_COLOR": "1"}
        done = subprocess.run(
            [*command, *options],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def alerts(self) -> list[dict[str, Any]]:
        path = self.folder / "alerts.jsonl"
        if not path.exists():
            return []
        whole = path.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = httpx.get(
            f"{self.web_url}/api/status.json", timeout=PATIENCE, trust_env=False
        ).json()
        return document

    def audit(self, expect: int) -> dict[str, Any]:
        out = self.run("signwatch", "audit", "--json", "--config", "signwatch.yaml", expect=expect)
        document: dict[str, Any] = json.loads(out)
        return document


@contextmanager
def running_loop(folder: Path) -> Iterator[Loop]:
    """A loop whose CA and log are up and whose monitor is initialised but not started."""
    with programs(folder) as children:
        loop = Loop(folder, children)
        loop.start_servers()
        loop.run("signwatch", "init", "--config", "signwatch.yaml")
        yield loop

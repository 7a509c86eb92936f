"""From an entry that a log integrated to the webhook of its alert: real log-lite and `signwatch run` on loopback."""

import base64
import hashlib
import json
import os
import queue
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from monitor.demo.processes import Programs, free_ports, program, programs, wait_until

_POLL_SECONDS: Final = 1
# A channel gets at most 20 pages a minute: beyond them, alerts would wait for a digest.
_SAMPLES: Final = 15
_WAIT: Final = 60.0
_START: Final = 120.0
_CONFIG: Final = """\
version: 1
database: signwatch.db
trust: {{trusted_root: trusted_root.json}}
logs:
  - {{name: rekor-v2, api: rekor-v2, url: "{log}", start: head, poll_seconds: {poll}}}
rules: rules.yaml
channels: {{hook: {{type: webhook, url: "{hook}", unsigned: true, allow_private: true}}}}
notify: [hook]
web: {{listen: "127.0.0.1:{web}"}}
"""


def measure_latency() -> dict[str, float]:
    """Figure `alert_latency_ms`: the median of single signings at random moments, less the poll interval."""
    with (
        tempfile.TemporaryDirectory(prefix="signwatch-latency-") as folder,
        _receiver() as (hook, received),
        programs(Path(folder)) as started,
    ):
        log = _start(Path(folder), started, hook)
        key = ec.generate_private_key(ec.SECP256R1())
        _watch(Path(folder), started, key, log)
        taken = [_sample(key, log, received) for _ in range(_SAMPLES)]
    return {"alert_latency_ms": (statistics.median(taken) - _POLL_SECONDS) * 1000}


@contextmanager
def _receiver() -> Iterator[tuple[str, Any]]:
    """A webhook that notes which entry each message is about, and when it came."""
    received: Any = queue.SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            at = time.monotonic()
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()
            received.put((body["data"]["index"], at))

        def log_message(self, *_arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _start(folder: Path, started: Programs, hook: str) -> str:
    """Start the log, and write the monitor's configuration; returns the log's URL."""
    port, web = free_ports(2)
    log = f"http://localhost:{port}"
    started.run([program("log-lite"), "init", "--dir", "log", "--url", log])
    trust = json.loads(started.run([program("log-lite"), "export-trust", "--dir", "log"]))
    media = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
    (folder / "trusted_root.json").write_text(json.dumps({"mediaType": media, "tlogs": trust["tlogs"]}))
    (folder / "signwatch.yaml").write_text(_CONFIG.format(log=log, hook=hook, web=web, poll=_POLL_SECONDS))
    started.start("log-lite", [program("log-lite"), "serve", "--dir", "log"])
    wait_until("the log", lambda: _answers(f"{log}/healthz"), seconds=_START)
    return log


def _watch(folder: Path, started: Programs, key: ec.EllipticCurvePrivateKey, log: str) -> None:
    """Start the monitor with one rule: every signing with this key is news."""
    fingerprint = hashlib.sha256(_spki(key)).hexdigest()
    (folder / "rules.yaml").write_text(f"version: 1\nrules:\n  - {{id: key, select: {{fingerprint: {fingerprint}}}}}\n")
    _sign(ec.generate_private_key(ec.SECP256R1()), log)
    started.run([program("signwatch"), "init", "--config", "signwatch.yaml"])
    started.start("signwatch", [program("signwatch"), "run", "--config", "signwatch.yaml"])
    port = (folder / "signwatch.yaml").read_text().rpartition(":")[2].strip('"}\n ')
    wait_until("the monitor", lambda: _answers(f"http://127.0.0.1:{port}/readyz"), seconds=_START)


def _sample(key: ec.EllipticCurvePrivateKey, log: str, received: Any) -> float:
    # At any moment between two polls.
    time.sleep(random.uniform(0.5, 0.5 + 2 * _POLL_SECONDS))
    index = _sign(key, log)
    integrated = time.monotonic()
    found, at = received.get(timeout=_WAIT)
    if found != index:
        raise RuntimeError(f"the alert is about entry {found}, not about {index}")
    return float(at - integrated)


def _sign(key: ec.EllipticCurvePrivateKey, log: str) -> int:
    """Log a signature over a random digest; returns its index once the log has integrated it."""
    digest = os.urandom(32)
    verifier = {"publicKey": {"rawBytes": _b64(_spki(key))}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    signature = {"content": _b64(key.sign(digest, ec.ECDSA(Prehashed(SHA256())))), "verifier": verifier}
    request = {"hashedRekordRequestV002": {"digest": _b64(digest), "signature": signature}}
    answer = httpx.post(f"{log}/api/v2/log/entries", json=request, timeout=30, trust_env=False)
    answer.raise_for_status()
    return int(answer.json()["logIndex"])


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False

"""From an entry that a log integrated to its alert: real log-lite and `signwatch run` on loopback.

Once to the webhook of a rule, once to the mail of one subscriber among a hundred thousand.
"""

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
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks import subscriptions
from monitor.demo.processes import Programs, free_ports, program, programs, wait_until
from monitor.program import utc_now
from monitor.store.database import open_database
from monitor.store.subscribers import Subscribers
from rules.asking import ask_of
from rules.subject import read_subject

_POLL_SECONDS: Final = 1
# A channel gets at most 20 pages a minute: beyond them, alerts would wait for a digest.
_SAMPLES: Final = 15
_SUBSCRIBERS: Final = 100_000
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
_SITE: Final = """\
site:
  public_url: "http://127.0.0.1:{site}"
  key_file: site.key
  mail: {{server: 127.0.0.1, port: {smtp}, security: none, from: signwatch@watch.example}}
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


def measure_mail_latency() -> dict[str, float]:
    """Figure `mail_latency_ms`: as `measure_latency`, to the SMTP server's taking the mail, by subscription."""
    with (
        tempfile.TemporaryDirectory(prefix="signwatch-latency-") as folder,
        _mail_server() as (smtp, received),
        programs(Path(folder)) as started,
    ):
        home, site = Path(folder), free_ports(1)[0]
        log = _start(home, started, "http://127.0.0.1:9/nothing")
        with (home / "signwatch.yaml").open("a", encoding="utf-8") as config:
            config.write(_SITE.format(site=site, smtp=smtp))
        (home / "rules.yaml").write_text("version: 1\nrules: []\n")
        _sign(ec.generate_private_key(ec.SECP256R1()), log)
        started.run([program("signwatch"), "init", "--config", "signwatch.yaml"])
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(_SAMPLES)]
        _subscribe(home / "signwatch.db", keys)
        _run(home, started)
        taken = [_sample(key, log, received, number) for number, key in enumerate(keys)]
    return {"mail_latency_ms": (statistics.median(taken) - _POLL_SECONDS) * 1000}


def _subscribe(path: Path, keys: Sequence[ec.EllipticCurvePrivateKey]) -> None:
    """A hundred thousand subscribers of repositories and of these keys, each with an address of their own."""
    with closing(open_database(str(path))) as database:
        subscriptions.fill(database, _SUBSCRIBERS - len(keys))
        subscribers = Subscribers(database, utc_now)
        for number, key in enumerate(keys):
            account = subscribers.ensure_account(_address(number))
            # With colons, as OpenSSL prints a fingerprint: without them it reads as a digest.
            subject = read_subject(hashlib.sha256(_spki(key)).digest().hex(":"))
            subscribers.subscribe(account.id, ask_of(subject.select(), {}), subject.text, f"key {number}")


def _address(number: int) -> str:
    return f"key{number}@acme.example"


class _Mailbox:
    """Puts down whom each mail is for, and when the server took it."""

    def __init__(self) -> None:
        self.received: Any = queue.SimpleQueue()

    async def handle_DATA(self, _server: object, _session: object, envelope: Envelope) -> str:  # noqa: N802
        self.received.put((envelope.rcpt_tos[0], time.monotonic()))
        return "250 taken"


@contextmanager
def _mail_server() -> Iterator[tuple[int, Any]]:
    """A real SMTP server; yields its port and what arrives."""
    box = _Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_ports(1)[0])
    controller.start()
    try:
        yield int(controller.port), box.received
    finally:
        controller.stop()


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
    _run(folder, started)


def _run(folder: Path, started: Programs) -> None:
    started.start("signwatch", [program("signwatch"), "run", "--config", "signwatch.yaml"])
    web = (folder / "signwatch.yaml").read_text().partition("web: {listen: ")[2].partition("}")[0]
    port = web.rpartition(":")[2].strip('"')
    wait_until("the monitor", lambda: _answers(f"http://127.0.0.1:{port}/readyz"), seconds=_START)


def _sample(key: ec.EllipticCurvePrivateKey, log: str, received: Any, number: int | None = None) -> float:
    """Seconds from integration to the alert of one signing; `number` is whose mail it must be."""
    # At any moment between two polls.
    time.sleep(random.uniform(0.5, 0.5 + 2 * _POLL_SECONDS))
    index = _sign(key, log)
    integrated = time.monotonic()
    found, at = received.get(timeout=_WAIT)
    wanted = index if number is None else _address(number)
    if found != wanted:
        raise RuntimeError(f"the alert is about {found}, not about {wanted}")
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

"""Certificates, appends and reads a second of the real `ca-lite` and `log-lite`, beside what bounds them here."""

import base64
import http.client
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.ca_server import CaServer, make_ca
from tests.support.log_server import LogServer, free_port
from tests.support.log_server import run as log_lite
from tests.support.served_process import ServedProcess

CLIENTS: Final = (1, 16, 64)
_SECONDS: Final = 5.0
_LIMIT_SECONDS: Final = 1.0
_BLOCK: Final = 4096
_PERSON: Final = "bench@lab.local"
_GENEROUS: Final = "rate_limit: {per_minute: 1000000, burst: 1000000}\n"
_PERCENT: Final = 100

Request = Callable[[], tuple[str, str, bytes]]
"""Method, path and body of the next request of one client."""


def measure(_corpus: Path) -> dict[str, float]:
    """Every figure, with the servers in processes of their own and the clients as threads of this one."""
    figures = {"p256_signatures_per_s": _signatures_per_second()}
    with tempfile.TemporaryDirectory(prefix="signwatch-bench-ca-") as temporary:
        folder = Path(temporary)
        figures["fsyncs_per_s"] = _fsyncs_per_second(folder / "fsync")
        log = LogServer(folder / "log", f"http://localhost:{free_port()}")
        log_lite("init", "--dir", str(log.folder), "--url", log.url)
        trust = folder / "log-trust.json"
        trust.write_text(log.command("export-trust"))
        ca = make_ca(folder / "ca", trust)
        with (ca.folder / "ca.yaml").open("a") as settings:
            settings.write(_GENEROUS)
        log.options = ("--ct-roots", str(ca.folder / "trust" / "ca-chain.pem"))
        try:
            log.start()
            ca.start()
            figures |= _rates("certificates", "certificate", ca, lambda: _certificates(ca))
            figures |= _rates("appends", "append", log, _appends)
            figures |= _rates("reads", "read", log, _reads, clients=(16,))
        finally:
            ca.stop()
            log.stop()
    # Precertificate, certificate and SCT: three signatures of this kind for each.
    best = max(figures[f"certificates_per_s_{clients}"] for clients in CLIENTS)
    figures["certificates_of_limit"] = 3 * best / figures["p256_signatures_per_s"]
    figures["appends_over_fsyncs"] = figures["appends_per_s_64"] / figures["fsyncs_per_s"]
    return figures


def _rates(
    many: str, one: str, server: ServedProcess, client: Callable[[], Request], clients: tuple[int, ...] = CLIENTS
) -> dict[str, float]:
    figures: dict[str, float] = {}
    for count in clients:
        before = _processor_seconds(server)
        seconds, taken = _load(server.url, client, count)
        figures[f"{one}_cpu_ms_{count}"] = 1000 * (_processor_seconds(server) - before) / len(taken)
        figures[f"{many}_per_s_{count}"] = len(taken) / seconds
        figures[f"{one}_p50_ms_{count}"] = 1000 * statistics.median(taken)
        figures[f"{one}_p99_ms_{count}"] = 1000 * statistics.quantiles(taken, n=_PERCENT)[-1]
    return figures


def _load(url: str, client: Callable[[], Request], count: int) -> tuple[float, list[float]]:
    """Seconds that it took, and seconds of each request, of so many clients at once for a while."""
    requests = [client() for _ in range(count)]
    taken: list[float] = []
    wrong: list[str] = []
    started = time.perf_counter()

    def work(request: Request) -> None:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        mine = []
        while time.perf_counter() - started < _SECONDS and not wrong:
            method, path, body = request()
            before = time.perf_counter()
            connection.request(method, path, body or None, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status not in {200, 201}:
                wrong.append(f"{path} answered {answer.status}: {said[:200]!r}")
            mine.append(time.perf_counter() - before)
        connection.close()
        taken.extend(mine)

    threads = [threading.Thread(target=work, args=(request,)) for request in requests]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if wrong:
        raise RuntimeError(wrong[0])
    return time.perf_counter() - started, taken


def _certificates(ca: CaServer) -> Request:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    proof = base64.b64encode(key.sign(_PERSON.encode(), ec.ECDSA(SHA256()))).decode()
    body = json.dumps(
        {
            "credentials": {"oidcIdentityToken": ca.email_token(_PERSON)},
            "publicKeyRequest": {
                "publicKey": {"algorithm": "ECDSA", "content": pem},
                "proofOfPossession": proof,
            },
        }
    ).encode()
    return lambda: ("POST", "/api/v2/signingCert", body)


def _appends() -> Request:
    key = ec.generate_private_key(ec.SECP256R1())
    spki = base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    verifier = {"publicKey": {"rawBytes": spki}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}

    def request() -> tuple[str, str, bytes]:
        artifact = os.urandom(32)
        signature = base64.b64encode(key.sign(artifact, ec.ECDSA(SHA256()))).decode()
        digest = base64.b64encode(sha256(artifact).digest()).decode()
        signed: dict[str, Any] = {"content": signature, "verifier": verifier}
        body = {"hashedRekordRequestV002": {"digest": digest, "signature": signed}}
        return "POST", "/api/v2/log/entries", json.dumps(body).encode()

    return request


def _reads() -> Request:
    return lambda: ("GET", "/tile/entries/000", b"")


def _processor_seconds(server: ServedProcess) -> float:
    """Processor seconds of a server so far: what other programs do changes them least."""
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def _signatures_per_second() -> float:
    key, count, started = ec.generate_private_key(ec.SECP256R1()), 0, time.perf_counter()
    while time.perf_counter() - started < _LIMIT_SECONDS:
        key.sign(b"x", ec.ECDSA(SHA256()))
        count += 1
    return count / (time.perf_counter() - started)


def _fsyncs_per_second(path: Path) -> float:
    count, started = 0, time.perf_counter()
    with path.open("wb") as file:
        while time.perf_counter() - started < _LIMIT_SECONDS:
            file.write(bytes(_BLOCK))
            file.flush()
            os.fsync(file.fileno())
            count += 1
    return count / (time.perf_counter() - started)

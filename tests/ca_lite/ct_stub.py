"""A small honest CT log over real HTTP: it signs SCTs for the precertificates it gets, or misbehaves when told to."""

import base64
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ca_lite.keys import spki
from tlog.ct import CtLeaf, EntryType, sct_message
from tlog.merkle import leaf_hash

VALID_FOR = {"start": "2020-01-01T00:00:00Z"}


@dataclass
class CtStub:
    """`mode` is `honest`, `refuse`, `wrong-key`, `wrong-tbs`, `future`, `garbage`, `huge`, `two-hundred-html`."""

    url: str = ""
    mode: str = "honest"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    leaves: list[bytes] = field(default_factory=list)
    chains: list[list[x509.Certificate]] = field(default_factory=list)

    def trust(self) -> dict[str, Any]:
        """What `log-lite export-trust` would print."""
        public = spki(self.key.public_key())
        instance = {
            "baseUrl": f"{self.url}/ct",
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": base64.b64encode(public).decode(),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": VALID_FOR,
            },
            "logId": {"keyId": base64.b64encode(hashlib.sha256(public).digest()).decode()},
        }
        service = {"url": self.url, "majorApiVersion": 1, "validFor": VALID_FOR, "operator": "stub"}
        tlog = {**instance, "baseUrl": self.url}
        return {"tlogs": [tlog], "ctlogs": [instance], "rekorTlogUrls": [service], "apis": {}}

    def answer(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """Answer to add-pre-chain."""
        chain = [x509.load_der_x509_certificate(base64.b64decode(each)) for each in body["chain"]]
        self.chains.append(chain)
        if self.mode == "refuse":
            return 503, b'{"error": "busy"}'
        if self.mode == "garbage":
            return 200, b'{"sct_version": 0, "id": "AA==", "timestamp": -1, "signature": ""}'
        if self.mode == "two-hundred-html":
            return 200, b"<html>"
        if self.mode == "huge":
            return 200, b'{"pad": "' + b"x" * 1_000_000 + b'"}'
        return 200, json.dumps(self._sct(chain)).encode()

    def _sct(self, chain: list[x509.Certificate]) -> dict[str, Any]:
        tbs = without_poison(chain[0])
        timestamp = int(time.time() * 1000) + (3_600_000 if self.mode == "future" else 0)
        leaf = CtLeaf(timestamp, EntryType.PRECERT, hashlib.sha256(spki(chain[1].public_key())).digest(), tbs, b"")
        self.leaves.append(leaf_hash(b"\x00\x00" + sct_message(leaf)[2:]))
        key = ec.generate_private_key(ec.SECP256R1()) if self.mode == "wrong-key" else self.key
        message = sct_message(leaf) if self.mode != "wrong-tbs" else sct_message(leaf) + b"x"
        signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
        signed = b"\x04\x03" + len(signature).to_bytes(2, "big") + signature
        return {
            "sct_version": 0,
            "id": base64.b64encode(hashlib.sha256(spki(self.key.public_key())).digest()).decode(),
            "timestamp": timestamp,
            "extensions": "",
            "signature": base64.b64encode(signed).decode(),
        }


def without_poison(precertificate: x509.Certificate) -> bytes:
    """TBSCertificate of a precertificate without the poison: built anew, so independent of the CA's own code."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(precertificate.subject)
        .issuer_name(precertificate.issuer)
        .public_key(precertificate.public_key())
        .serial_number(precertificate.serial_number)
        .not_valid_before(precertificate.not_valid_before_utc)
        .not_valid_after(precertificate.not_valid_after_utc)
    )
    for extension in precertificate.extensions:
        if not isinstance(extension.value, x509.PrecertPoison):
            builder = builder.add_extension(extension.value, extension.critical)
    throwaway = ec.generate_private_key(ec.SECP256R1())
    return builder.sign(throwaway, precertificate.signature_hash_algorithm).tbs_certificate_bytes  # type: ignore[arg-type]


@contextlib.contextmanager
def ct_stub() -> Iterator[CtStub]:
    """Serve a stub on a free loopback port."""
    stub = CtStub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = json.loads(self.rfile.read(length))
            known = self.path == "/ct/ct/v1/add-pre-chain"
            self._send(*(stub.answer(body) if known else (404, b"")))

        def do_GET(self) -> None:
            self._send(200 if self.path == "/ct/ct/v1/get-sth" else 404, b"{}")

        def _send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()

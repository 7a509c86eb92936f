"""A misbehaving Rekor v2 log behind real HTTP on loopback, with the files that `signwatch` needs to follow it."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from monitor.http_fetcher import Expect
from monitor.model.errors import FetchFailed
from tests.support.entries import (
    ARTIFACT,
    CA_NOT_AFTER,
    Authority,
    github_claims,
    hashedrekord_v2,
    make_ca,
    make_certificate,
)
from tests.support.misbehaving_log import MisbehavingLog, RekorV2Log, spki_of
from tlog.note import tile_log_key

CA = make_ca()
ISSUER = "https://token.actions.githubusercontent.com"
CONFIG = """\
version: 1
database: signwatch.db
trust: {{trusted_root: trusted_root.json}}
logs:
  - {{name: rekor-v2, api: rekor-v2, url: "{url}", origin: {origin}, poll_seconds: 1}}
rules: rules.yaml
channels:
  file: {{type: jsonl, path: alerts.jsonl}}
notify: [file]
web: {{listen: "127.0.0.1:{port}"}}
"""
RULES = """\
version: 1
rules:
  - id: widget
    select: {identity: {glob: "https://github.com/acme/widget/**"}}
    expect: {ref: {glob: "refs/tags/v*"}}
"""


def signing_body(ref: str = "refs/tags/v1.2.3", ca: Authority = CA, artifact: str = ARTIFACT) -> bytes:
    """Entry of a GitHub workflow's signing on a ref; the clock is real, so the certificate is still valid by it."""
    san = f"https://github.com/acme/widget/.github/workflows/release.yml@{ref}"
    claims = github_claims(ref=ref) | {"source_repository_ref": ref}
    return hashedrekord_v2(
        make_certificate(ca, san=san, issuer=ISSUER, claims=claims, not_after=CA_NOT_AFTER), artifact
    )


@dataclass
class ServedLog:
    """The log, its URL, and the folder of a `signwatch` that follows it. `down` answers 503 to everything.

    `busy` is how many of the next questions are refused with 429 and a second of rest.
    """

    log: RekorV2Log
    url: str
    folder: Path
    down: bool = False
    busy: int = 0

    def refusal(self) -> int | None:
        """Status that the next question is refused with."""
        if self.busy:
            self.busy -= 1
            return 429
        return 503 if self.down else None

    @property
    def config(self) -> Path:
        return self.folder / "signwatch.yaml"

    def write_files(self, port: int = 0) -> None:
        (self.folder / "signwatch.yaml").write_text(
            CONFIG.format(url=self.url, origin=RekorV2Log.host, port=port), encoding="utf-8"
        )
        (self.folder / "rules.yaml").write_text(RULES, encoding="utf-8")
        (self.folder / "trusted_root.json").write_text(json.dumps(self._trusted_root()), encoding="utf-8")

    def _trusted_root(self) -> dict[str, object]:
        key = tile_log_key(RekorV2Log.host, spki_of(self.log.log_key))
        chain = [CA.certificate.public_bytes(Encoding.DER), CA.root.public_bytes(Encoding.DER)]
        log = {
            "baseUrl": self.url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": {"rawBytes": _b64(key.spki), "validFor": {"start": "2020-01-01T00:00:00Z"}},
            "logId": {"keyId": _b64(key.log_id)},
        }
        authority = {
            "subject": {"organization": "test", "commonName": "test"},
            "uri": "https://ca.example",
            "certChain": {"certificates": [{"rawBytes": _b64(each)} for each in chain]},
            "validFor": {"start": "2020-01-01T00:00:00Z"},
        }
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log],
            "certificateAuthorities": [authority],
        }


@contextmanager
def served_log(folder: Path) -> Iterator[ServedLog]:
    """Serve a log with three expected signings in it."""
    log = RekorV2Log([signing_body()] * 3)
    with serving(log, lambda: served.refusal()) as url:  # noqa: PLW0108  made below
        served = ServedLog(log, url, folder)
        served.write_files()
        yield served


@contextmanager
def serving(log: MisbehavingLog, refusal: Callable[[], int | None] = lambda: None) -> Iterator[str]:
    """Serve a log of any protocol on loopback; yields its URL. `refusal` gives each question's status, if refused."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                if status := refusal():
                    self.send_response(status)
                    if status == HTTPStatus.TOO_MANY_REQUESTS:
                        self.send_header("Retry-After", "1")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = log.get(self.path.lstrip("/"), max_bytes=1 << 24, expect=Expect.BYTES)
            except FetchFailed:
                self.send_error(404)
                return
            self.send_response(200)
            is_json = "/ct/v1/" in self.path
            self.send_header("Content-Type", "application/json" if is_json else "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()

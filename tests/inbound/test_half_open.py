"""Clients that hold connections open stop neither log-lite nor ca-lite, which have few file descriptors."""

import base64
import json
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.ca_server import CaServer, ca_and_log
from tests.support.log_server import LogServer
from tests.support.served_process import ServedProcess
from tests.support.waiting import PATIENCE

_DESCRIPTORS = 256
_HELD = 400
_PERSON = "alice@acme.example"
_FORMS = {
    "nothing": b"",
    "half a header": b"GET /healthz HTTP/1.1\r\nHost: local",
    "half a body": b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{",
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CaServer, LogServer]]:
    """A CA and its CT log, each with 256 descriptors."""
    with ca_and_log(tmp_path_factory.mktemp("pair")) as (ca, log):
        for server in (ca, log):
            assert server.process is not None
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
        yield ca, log


def held_open(server: ServedProcess, sent: bytes, stack: ExitStack) -> None:
    parts = urlsplit(server.url)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > _HELD + 100, "this test needs the descriptors itself"
    for _ in range(_HELD):
        connection = stack.enter_context(socket.create_connection((parts.hostname or "", parts.port or 80), timeout=60))
        connection.sendall(sent)


def open_descriptors(server: ServedProcess) -> int:
    assert server.process is not None
    return sum(1 for _ in Path(f"/proc/{server.process.pid}/fd").iterdir())


def appended(log: LogServer) -> httpx.Response:
    key, artifact = ec.generate_private_key(ec.SECP256R1()), os.urandom(32)
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    request = {
        "digest": base64.b64encode(sha256(artifact).digest()).decode(),
        "signature": {
            "content": base64.b64encode(key.sign(artifact, ec.ECDSA(SHA256()))).decode(),
            "verifier": {
                "publicKey": {"rawBytes": base64.b64encode(spki).decode()},
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
            },
        },
    }
    url = f"{log.url}/api/v2/log/entries"
    return httpx.post(url, json={"hashedRekordRequestV002": request}, timeout=PATIENCE, trust_env=False)


def certified(ca: CaServer) -> httpx.Response:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    proof = base64.b64encode(key.sign(_PERSON.encode(), ec.ECDSA(SHA256()))).decode()
    body = {
        "credentials": {"oidcIdentityToken": ca.email_token(_PERSON)},
        "publicKeyRequest": {"publicKey": {"algorithm": "ECDSA", "content": pem}, "proofOfPossession": proof},
    }
    return httpx.post(f"{ca.url}/api/v2/signingCert", json=body, timeout=PATIENCE, trust_env=False)


@pytest.mark.parametrize("form", _FORMS)
def test_four_hundred_half_open_requests_stop_neither_log_nor_ca(pair: tuple[CaServer, LogServer], form: str) -> None:
    ca, log = pair
    told = [len(each.errors()) for each in pair]
    with ExitStack() as stack:
        for server, path in ((ca, b"/api/v2/signingCert"), (log, b"/api/v2/log/entries")):
            sent = _FORMS[form]
            held_open(server, sent % path if b"%s" in sent else sent, stack)
        for _ in range(3):
            assert appended(log).status_code == 201
            answer = certified(ca)
            assert answer.status_code == 200, answer.text
        assert json.loads(answer.text)["signedCertificateEmbeddedSct"]["chain"]
        assert all(open_descriptors(each) < _DESCRIPTORS - 40 for each in pair), "some are left for the rest"
    for told_by, before in zip(pair, told, strict=True):
        news = told_by.errors()[before:]
        assert "Traceback" not in news
        assert "Too many open files" not in news
        assert len(news) < 10_000

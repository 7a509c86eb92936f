"""One honest served log per test module that asks for it: tests add to it and never break it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.log_lite.client import LogClient
from tests.support.entries import make_ca
from tests.support.log_server import log_server


@pytest.fixture(scope="session")
def ct_roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificates the CT log accepts: intermediate and root of the test CA."""
    ca = make_ca()
    path = tmp_path_factory.mktemp("roots") / "ca-chain.pem"
    path.write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in (ca.certificate, ca.root)))
    return path


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory, ct_roots: Path) -> Iterator[LogClient]:
    with log_server(tmp_path_factory.mktemp("served") / "log", ct_roots=ct_roots) as server:
        client = LogClient(server)
        yield client
        client.http.close()

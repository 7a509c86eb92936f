"""One served CA per worker with a CT log of our own making behind it."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.ca_lite.ct_stub import CtStub, ct_stub
from tests.support.ca_server import DEVELOPMENT_LOGIN, CaServer, ca_server
from tests.support.waiting import PATIENCE


@pytest.fixture(scope="session")
def served_stub() -> Iterator[CtStub]:
    with ct_stub() as stub:
        yield stub


@pytest.fixture(scope="session")
def log_trust(served_stub: CtStub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "trust.json"
    path.write_text(json.dumps(served_stub.trust()))
    return path


@pytest.fixture(scope="session")
def served_ca(log_trust: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaServer]:
    with ca_server(tmp_path_factory.mktemp("ca") / "ca", log_trust, DEVELOPMENT_LOGIN, key="p384") as server:
        yield server


@pytest.fixture
def stub(served_stub: CtStub) -> Iterator[CtStub]:
    served_stub.mode = "honest"
    yield served_stub
    served_stub.mode = "honest"


@pytest.fixture
def ca(served_ca: CaServer, stub: CtStub) -> CaServer:
    return served_ca


@pytest.fixture(scope="session")
def http(served_ca: CaServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served_ca.url, timeout=PATIENCE, trust_env=False) as client:
        yield client

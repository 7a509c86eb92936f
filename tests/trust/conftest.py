"""A world of its own for each test."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ca_lite.tuf_repository import create_repository
from tests.support.alerts import NOW
from tests.support.trust_world import Quiet, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    repository, keys = tmp_path / "repository", tmp_path / "keys"
    for folder in (repository, keys, repository / "targets"):
        folder.mkdir()
    create_repository(repository, keys, NOW)
    with (
        ExitStack() as parts,
        ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(repository))) as server,
    ):
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        made = World(tmp_path, f"http://127.0.0.1:{server.server_address[1]}", parts)
        yield made
        made.running.close()
        server.shutdown()
        serving.join(10)

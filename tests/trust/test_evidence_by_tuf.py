"""`signwatch evidence verify --tuf`: the keys that count come from a TUF repository, by its own first root."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ca_lite.tuf_repository import create_repository, publish_targets
from monitor.cli import run_command
from monitor.proof.evidence import to_document
from tests.evidence.test_independent_reader import forked
from tests.evidence.test_whose_key import trusted_root
from tests.support.misbehaving_log import RekorV2Log, ed25519_key, spki_of
from tests.support.trust_world import Quiet

EVIDENCE = forked(RekorV2Log, 20, 5)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty repository below a folder that also holds `evidence.json` and `root.json`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIGNWATCH_CONFIG", raising=False)
    repository, keys = tmp_path / "repository", tmp_path / "keys"
    for folder in (repository, keys, repository / "targets"):
        folder.mkdir()
    create_repository(repository, keys, datetime.now(UTC))
    (tmp_path / "root.json").write_bytes((repository / "root.json").read_bytes())
    (tmp_path / "evidence.json").write_text(json.dumps(to_document(EVIDENCE)), encoding="utf-8")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(repository))) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        serving.join(10)


@pytest.mark.parametrize("is_the_logs", [True, False])
def test_a_tuf_repository_says_whose_key_counts(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, is_the_logs: bool
) -> None:
    spki = EVIDENCE.spki if is_the_logs else spki_of(ed25519_key(77))
    targets = {"trusted_root.json": json.dumps(trusted_root(EVIDENCE, spki)).encode()}
    publish_targets(tmp_path / "repository", tmp_path / "keys", targets, datetime.now(UTC))
    words = ["evidence", "verify", "evidence.json", "--tuf", url, "--tuf-root", "root.json", "--json"]
    assert run_command(words) == (0 if is_the_logs else 1)
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == ("verified" if is_the_logs else "another-key")
    assert url in told["key"]["checked_against"]


def test_a_tuf_root_of_another_repository_starts_no_trust(url: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for folder in (other, other / "keys", other / "targets"):
        folder.mkdir()
    create_repository(other, other / "keys", datetime.now(UTC))
    words = ["evidence", "verify", "evidence.json", "--tuf", url, "--tuf-root", str(other / "root.json")]
    assert run_command(words) == 3


@pytest.mark.parametrize("more", [(), ("--key", "log.pub"), ("--trusted-root", "trusted.json")], ids=" ".join)
def test_a_tuf_root_without_its_repository_is_misused(
    url: str, tmp_path: Path, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.pub").write_bytes(EVIDENCE.spki)
    (tmp_path / "trusted.json").write_text(json.dumps(trusted_root(EVIDENCE)), encoding="utf-8")
    assert run_command(["evidence", "verify", "evidence.json", "--tuf-root", "root.json", *more]) == 2
    assert "--tuf-root needs --tuf" in " ".join(capsys.readouterr().err.split())

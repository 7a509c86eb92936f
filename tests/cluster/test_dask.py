"""The archive and the findings of workers of a Dask cluster are those of this process, even with a lying worker.

Scheduler and workers are processes of their own; `lying_worker.py` is loaded into each worker before it starts.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from monitor.archive.writing import read_manifest
from monitor.cluster import pipeline, workers
from monitor.cluster.workers import SharedRun
from monitor.commands import dask as dask_options
from tests.archive.conftest import Place

_START = 120.0  # seconds
_PART = 16
LIES = ("hash", "identity", "cut", "fewer", "foreign", "other range", "nothing", "raise", "older")


@dataclass
class Cluster:
    """A scheduler and its workers; `order` tells one of them what to do wrong from now on."""

    folder: Path
    tls: tuple[str, ...] = ()
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return str(json.loads((self.folder / "scheduler.json").read_text())["address"])

    def start(self, *names: str) -> None:
        self.order("nobody", "")
        self._run("scheduler", "scheduler", "--port", "0")
        self._until((self.folder / "scheduler.json").exists)
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        preload = str(Path(__file__).with_name("lying_worker.py"))
        said = self._run(name, "worker", "--nthreads", "1", "--no-nanny", "--name", name, "--preload", preload)
        self._until(lambda: "Registered to" in said.read_text())

    def order(self, name: str, order: str) -> None:
        (self.folder / "orders").write_text(f"{name}:{order}")

    def asked(self) -> list[tuple[str, int, int]]:
        """Ranges that workers were asked for since this was last called."""
        path = self.folder / "asked.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [(name, int(start), int(stop)) for name, start, stop in map(str.split, lines)]

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """Kill all: a worker that is asked to end while its scheduler ends too may wait for it for ever."""
        for name in reversed(list(self.processes)):
            self.kill(name)

    def _run(self, name: str, *words: str) -> Path:
        said = self.folder / f"{name}.err"
        common = ["--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(self.folder / "scheduler.json")]
        environment = os.environ | {
            "SIGNWATCH_TEST_ORDERS": str(self.folder / "orders"),
            "SIGNWATCH_TEST_NAME": name,
        }
        with said.open("wb") as errors:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *words, *common, *self.tls],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env=environment,
                cwd=self.folder,
            )
        return said

    def _until(self, ready: Any) -> None:
        deadline = time.monotonic() + _START
        while not ready():
            assert time.monotonic() < deadline, [path.read_text() for path in self.folder.glob("*.err")]
            time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start("first", "second", "third")
        yield made
    finally:
        made.stop()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tasks, so that every worker gets some; a sample is a whole one."""
    monkeypatch.setattr(pipeline, "PART", _PART)


def built(place: Place, name: str, *arguments: str, expect: int = 0) -> tuple[dict[str, Any], str]:
    """Build an archive in a folder of its own; what the command printed, and what it said."""
    config = place.served.config
    config.write_text(re.sub(r"location: \w+", f"location: {name}", config.read_text()))
    out, said = place.run("archive", "build", "--log", "rekor-v2", "--json", *arguments, expect=expect)
    return (json.loads(out) if out else {}), said


def digests(place: Place, name: str) -> list[tuple[int, int, str, str]]:
    """Each range of an archive, with the digests of its files."""
    manifest = read_manifest(type(place.files)(str(place.folder / name)), "rekor-v2")
    assert manifest is not None
    for run in manifest.runs:
        run.check()
    return [
        (each.first, each.last, each.rows.sha256, each.index.sha256) for run in manifest.runs for each in run.ranges
    ]


def test_local_cores_build_the_same_files(place: Place) -> None:
    built(place, "here", "--jobs", "1")
    done, _ = built(place, "dask", "--jobs", "2", "--dask")
    assert done["archived"] == 200
    assert done["dask"]["check"] == "sample"
    assert sum(done["dask"]["ranges"].values()) == -(-200 // _PART)
    assert digests(place, "dask") == digests(place, "here")


def test_an_existing_cluster_builds_the_same_files_each_range_read_twice(place: Place, cluster: Cluster) -> None:
    built(place, "here", "--jobs", "1")
    cluster.asked()
    done, said = built(place, "dask", "--dask", cluster.address)
    assert digests(place, "dask") == digests(place, "here")
    assert (done["dask"]["check"], done["dask"]["retries"], done["dask"]["not_used"]) == ("twice", 0, {})
    asked = cluster.asked()
    for start in range(0, 200, _PART):
        assert len({name for name, first, _ in asked if first == start}) == 2
    assert "200 entries archived" in said


@pytest.mark.parametrize(
    ("check", "lie"),
    [*(("twice", lie) for lie in LIES), ("sample", "identity"), ("sample", "fewer"), ("sample", "hash")],
)
def test_a_worker_that_returns_something_wrong_costs_a_retry_and_never_a_wrong_file(
    place: Place, cluster: Cluster, check: str, lie: str
) -> None:
    built(place, "here", "--jobs", "1")
    cluster.order("second", lie)
    try:
        done, said = built(place, "dask", "--dask", cluster.address, "--dask-check", check)
    finally:
        cluster.order("nobody", "")
    assert digests(place, "dask") == digests(place, "here")
    if lie != "older":
        assert done["dask"]["retries"] > 0
    if lie not in {"hash", "raise"}:  # those may happen to an honest worker once
        (why,) = done["dask"]["not_used"].values()
        assert why.split(":")[0][:40] in said


def test_a_cluster_with_a_worker_that_changes_one_row_of_one_range_writes_no_wrong_file_by_default(
    place: Place, cluster: Cluster
) -> None:
    built(place, "here", "--jobs", "1")
    (cluster.folder / "lied").unlink(missing_ok=True)
    cluster.order("second", "one row")
    try:
        done, said = built(place, "dask", "--dask", cluster.address)
    finally:
        cluster.order("nobody", "")
    assert (cluster.folder / "lied").exists(), "control: one row was changed"
    assert digests(place, "dask") == digests(place, "here")
    assert done["dask"]["check"] == "twice"
    (why,) = done["dask"]["not_used"].values()
    assert why.split(":")[0][:40] in said


def test_a_worker_that_is_killed_in_the_middle_of_a_range_costs_a_retry(place: Place, cluster: Cluster) -> None:
    built(place, "here", "--jobs", "1")
    (cluster.folder / "stalled").unlink(missing_ok=True)
    cluster.add("doomed")
    cluster.order("doomed", "stall")

    def kill() -> None:
        deadline = time.monotonic() + _START
        while not (cluster.folder / "stalled").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        cluster.kill("doomed")

    killer = threading.Thread(target=kill)
    killer.start()
    done, _ = built(place, "dask", "--dask", cluster.address)
    killer.join()
    assert (cluster.folder / "stalled").exists()
    assert done["dask"]["retries"] > 0
    assert digests(place, "dask") == digests(place, "here")


def test_a_worker_that_dies_of_a_range_costs_a_retry(place: Place, cluster: Cluster) -> None:
    built(place, "here", "--jobs", "1")
    cluster.add("dying")
    cluster.order("dying", "die")
    try:
        done, _ = built(place, "dask", "--dask", cluster.address)
        assert cluster.processes["dying"].wait(_START) == 1, "control: it was asked for a range, and died of it"
    finally:
        cluster.order("nobody", "")
        cluster.kill("dying")
    assert done["dask"]["retries"] > 0
    assert digests(place, "dask") == digests(place, "here")


def test_a_worker_that_hangs_costs_a_retry_after_the_limit(
    place: Place, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "STALLED", 5.0)
    built(place, "here", "--jobs", "1")
    (cluster.folder / "stalled").unlink(missing_ok=True)
    cluster.add("hung")
    cluster.order("hung", "stall")
    # Without the limit the build would wait for this worker: then it is killed, and missing below.
    ends = threading.Timer(_START, cluster.kill, ("hung",))
    ends.start()
    try:
        done, _ = built(place, "dask", "--dask", cluster.address)
        ends.cancel()
        assert (cluster.folder / "stalled").exists(), "control: it was asked for a range, and hung"
        assert "hung" in cluster.processes, "the build went on without its answer"
        assert cluster.processes["hung"].poll() is None
    finally:
        ends.cancel()
        cluster.order("nobody", "")
        if "hung" in cluster.processes:
            cluster.kill("hung")
    assert done["dask"]["retries"] > 0
    assert digests(place, "dask") == digests(place, "here")


def test_when_all_workers_return_wrong_hashes_they_are_named_and_nothing_is_archived(
    place: Place, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What proves is led astray here instead of at each worker: to it all three look the same.
    real = pipeline.RowWork.opened

    def astray(self: pipeline.RowWork, reply: Any, given: Any) -> Any:
        rows, scan = real(self, reply, given)
        raise pipeline.WrongReply(f"{len(rows or ())} rows that do not hold") if scan is not None else AssertionError

    monkeypatch.setattr(pipeline.RowWork, "opened", astray)
    _, said = built(place, "dask", "--dask", cluster.address, expect=3)
    assert "were read wrongly 4 times" in said
    assert "tcp://127.0.0.1:" in said
    assert read_manifest(type(place.files)(str(place.folder / "dask")), "rekor-v2") is None


def test_when_the_log_is_at_fault_no_worker_is_blamed(place: Place, cluster: Cluster) -> None:
    place.served.down = True
    _, said = built(place, "dask", "--dask", cluster.address, "--patience", "0", expect=3)
    assert "503" in said


def test_a_log_that_wants_rest_gets_it_from_all_workers_and_they_share_one_budget(
    place: Place, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = place.served.config
    config.write_text(config.read_text().replace("poll_seconds: 1", "poll_seconds: 1, requests_per_second: 10"))
    asked: list[tuple[float, int | None]] = []
    real = place.served.refusal

    def refusal() -> int | None:
        status = real()
        asked.append((time.monotonic(), status))
        if len(asked) == 12:
            place.served.busy = 1
        return status

    place.served.refusal = refusal  # type: ignore[method-assign]
    heard: list[float] = []
    hear = SharedRun._hear_of_rest

    def noted(run: SharedRun, event: tuple[float, object]) -> None:
        hear(run, event)
        heard.append(time.monotonic())

    monkeypatch.setattr(SharedRun, "_hear_of_rest", noted)
    began = time.monotonic()
    built(place, "dask", "--dask", cluster.address)
    took = time.monotonic() - began
    # Requests at once, and those of each second since: for all workers and this process together.
    assert 26 < len(asked) <= 20 + 10 * (took + 1)
    (refused,) = [at for at, status in asked if status == 429]
    # The budget is this process's: from when it has heard of the refusal, by a worker's event or by its own request.
    since = min(heard, default=refused)
    # Three workers with two threads that fetch each, and this process, may have been allowed to ask before.
    assert len([at for at, _ in asked if since < at < since + 0.9]) <= 7


def test_what_is_archived_is_not_fetched_again(place: Place, cluster: Cluster) -> None:
    served, count = place.served, 0
    real = served.refusal

    def refusal() -> int | None:
        nonlocal count
        count += 1
        served.down = count > 30
        return real()

    served.refusal = refusal  # type: ignore[method-assign]
    built(place, "dask", "--dask", cluster.address, "--dask-check", "sample", "--patience", "0", expect=3)
    kept = read_manifest(type(place.files)(str(place.folder / "dask")), "rekor-v2")
    assert kept is not None
    (_, end) = kept.spans()[0]
    assert 0 < end < 200
    assert end % _PART == 0, "it ends behind a range that a worker read and this process proved"
    served.refusal = real  # type: ignore[method-assign]
    served.down = False
    cluster.asked()
    done, _ = built(place, "dask", "--dask", cluster.address, "--dask-check", "sample")
    assert done["archived"] == 200 - end
    assert min(start for _, start, _ in cluster.asked()) == end
    built(place, "here", "--jobs", "1")
    assert digests(place, "dask") == digests(place, "here")


def scanned(place: Place, *arguments: str) -> list[dict[str, Any]]:
    rules = place.folder / "people.yaml"
    rules.write_text("version: 1\nrules:\n  - id: people\n    select: {identity: {glob: 'Dev*@Example.com'}}\n")
    out, _ = place.run(
        "scan", "--log", "rekor-v2", "--from", "0", "--rules", str(rules), "--json", *arguments, expect=1
    )
    return [json.loads(line) for line in out.splitlines()]


def test_a_scan_on_workers_finds_the_same_and_a_worker_that_leaves_matches_out_is_found(
    place: Place, cluster: Cluster
) -> None:
    here = scanned(place, "--jobs", "1")
    assert len(here) > 20
    cluster.order("second", "no matches")
    try:
        for check in ("twice", "sample"):
            assert scanned(place, "--dask", cluster.address, "--dask-check", check) == here
    finally:
        cluster.order("nobody", "")
    assert scanned(place, "--dask", "--jobs", "1") == here


def test_without_a_scheduler_or_without_dask_one_sentence_says_what_to_do(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "CONNECT", 1)
    _, said = built(place, "dask", "--dask", "tcp://127.0.0.1:1", expect=3)
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in said
    _, said = built(place, "dask", "--dask", "tls://127.0.0.1:1", "--dask-tls-ca", "nowhere.pem", expect=2)
    assert "--dask-tls-cert, --dask-tls-key: missing" in said
    monkeypatch.setattr(dask_options, "find_spec", lambda _: None)
    _, said = built(place, "dask", "--dask", expect=2)
    assert "Install requirements/extras.txt" in said
    place.run("archive", "build", "--dask-check", "twice", expect=2)


def _certificates(folder: Path) -> tuple[str, str, str]:
    """An authority, and a certificate of it for scheduler, workers and client."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cluster")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "cluster.pem", folder / "cluster.key"
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(certificate), str(certificate), str(secret)


def test_a_cluster_behind_tls_is_used_with_its_certificates_and_by_no_other(
    place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tls")
    ca, certificate, key = _certificates(folder)
    tls = ("--tls-ca-file", ca, "--tls-cert", certificate, "--tls-key", key, "--protocol", "tls")
    made = Cluster(folder, tls)
    try:
        made.start("only")
        assert made.address.startswith("tls://")
        built(place, "other", "--dask", made.address, expect=3)
        words = ("--dask-tls-ca", ca, "--dask-tls-cert", certificate, "--dask-tls-key", key)
        done, _ = built(place, "dask", "--dask", made.address, "--dask-check", "sample", *words)
        assert done["archived"] == 200
    finally:
        made.stop()

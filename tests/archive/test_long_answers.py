"""An answer of a million entries is handed on piece by piece: it takes little more memory than a short one."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from tests.archive.mass_archive import ENTRIES, PERSON, write_mass_archive
from tests.support.waiting import PATIENCE

_MIB = 1 << 20
# The entries found are some 400 MiB as columns, and 4 GiB as values.
_MOST = 96 * _MIB
_CONFIG = """\
version: 1
database: signwatch.db
trust: {trusted_root: none.json}
rules: rules.yaml
channels: {file: {type: jsonl, path: alerts.jsonl}}
notify: [file]
archive: {location: archive}
logs:
  - {name: mass, api: rekor-v2, url: "http://127.0.0.1:9"}
"""
# Says its peak before it ends: afterwards the kernel does not tell it from that of the process that started it.
_SEARCH = """\
import sys
from pathlib import Path
from monitor.cli import run_command
code = run_command(["search", *sys.argv[1:]])
sys.stdout.flush()
sys.stderr.write(Path("/proc/self/status").read_text())
sys.exit(code)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `signwatch` with the archive."""
    made = tmp_path_factory.mktemp("mass")
    (made / "signwatch.yaml").write_text(_CONFIG)
    (made / "rules.yaml").write_text("rules: []\n")
    write_mass_archive(made / "archive")
    return made


def peak(status: str) -> int:
    """Largest resident size, in bytes, by `/proc/PID/status`."""
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def searched(folder: Path, *arguments: str) -> tuple[str, int]:
    """Output of a search that runs to its end, and its peak."""
    command = [sys.executable, "-c", _SEARCH, PERSON, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, peak(done.stderr)


def test_a_table_of_a_million_entries_is_written_in_bounded_memory(folder: Path) -> None:
    _, short = searched(folder, "--parquet", "short.parquet", "--limit", "10")
    _, long = searched(folder, "--parquet", "long.parquet")
    assert pq.ParquetFile(folder / "short.parquet").metadata.num_rows == 10
    found = pq.ParquetFile(folder / "long.parquet")
    assert found.metadata.num_rows == ENTRIES
    assert [found.read_row_group(at, ["index"])["index"][0].as_py() for at in range(3)] == [0, 32_768, 65_536]
    assert long - short < _MOST


@pytest.mark.parametrize("form", [("--json",), ("--csv",), ("--parquet", "cut.parquet")])
def test_an_export_that_is_cut_says_so_with_the_number_of_all(folder: Path, form: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", _SEARCH, PERSON, *form]
    done = subprocess.run(
        [*command, "-n", "2"], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    said = f"{ENTRIES:,} entries match; only the first 2 are written, log by log, oldest first"
    assert said in done.stderr.splitlines()
    if form == ("--json",):
        *lines, last = map(json.loads, done.stdout.splitlines())
        summary = last["summary"]
        assert (len(lines), summary["entries"], summary["total"], summary["left_out"]) == (2, 2, ENTRIES, ENTRIES - 2)


@pytest.mark.parametrize(
    ("form", "index"),
    [("--json", lambda line: json.loads(line)["index"]), ("--csv", lambda line: next(csv.reader([line]))[1])],
)
def test_lines_come_while_a_million_entries_are_read(folder: Path, form: str, index: Callable[[str], object]) -> None:
    """Each line is handed on before later entries are read: the search is not over, and holds little."""
    _, short = searched(folder, form, "--limit", "10")
    command = [sys.executable, "-c", _SEARCH, PERSON, form]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = list(islice(process.stdout, 20_001))
        so_far = peak(Path(f"/proc/{process.pid}/status").read_text())
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    assert len(lines) == 20_001
    assert int(str(index(lines[20_000]))) in {19_999, 20_000}
    assert so_far - short < _MOST


def test_an_answer_over_http_is_cut_with_the_number_said_in_bounded_memory(folder: Path) -> None:
    command = [sys.executable, "-m", "tests.archive.mass_archive", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as client:
                status = Path(f"/proc/{process.pid}/status")
                assert client.get("/api/search", params={"q": PERSON, "limit": 1}).json()["total"] == ENTRIES
                before = peak(status.read_text())
                answer = client.get("/api/search", params={"q": PERSON, "limit": 10 * ENTRIES}).json()
                assert len(answer["rows"]) == 1_000
                assert answer["total"] == sum(answer["per_day"].values()) == ENTRIES
                assert answer["rows"][0]["index"] == ENTRIES - 1
                uuids = client.post("/api/v1/index/retrieve", json={"email": PERSON})
                assert len(uuids.json()) == 1_000
                assert uuids.headers["x-signwatch-matches"] == str(ENTRIES)
                assert peak(status.read_text()) - before < _MOST
        finally:
            process.kill()

"""Memory of an archive: building it, its search maps, joining its ranges, and searching it, at two sizes.

Every step is a process of its own. `python -m benchmarks.archive_memory STEP FOLDER` takes one over an archive of
made-up rows and prints its peak in bytes.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.archived import IDENTITY, make_parts, map_bytes
from benchmarks.command import program, run
from benchmarks.measure import peak_memory
from benchmarks.start_up import write_tile_site
from benchmarks.tile_log import served
from monitor.archive.answer import row_of
from monitor.archive.compacting import compact, compactable
from monitor.archive.files import ArchiveFiles
from monitor.archive.map_building import build_maps
from monitor.archive.map_files import read_maps
from monitor.archive.query import MatchMode, Query
from monitor.archive.ranges import RANGE
from monitor.archive.search import Archive
from monitor.archive.writing import ManifestWriter

SIZES: Final = {"100k": 2 * RANGE, "1m": 16 * RANGE}
_TIMEOUT: Final = 1800  # seconds of one step
_MIB: Final = 1 << 20
_JOBS: Final = 2
_RULES: Final = "version: 1\nrules: []\n"


def measure_build(corpus: Path) -> dict[str, float]:
    """Figures `archive_build_…_mb`: peak MiB of all processes of `signwatch archive build` over a Rekor v2 log."""
    peaks = {}
    for name, size in SIZES.items():
        with (
            served(corpus, size, named_by_address=True) as log,
            tempfile.TemporaryDirectory(prefix="signwatch-bench-archive-") as temporary,
        ):
            folder = Path(temporary)
            write_tile_site(folder, log, _RULES)
            with (folder / "signwatch.yaml").open("a", encoding="utf-8") as config:
                config.write("archive: {location: archive}\n")
            command = program("signwatch", "archive", "build", "--log", "v2", "--jobs", str(_JOBS))
            done = run(command, folder, memory=True)
            if done.exit_code or f"entries 0 to {size} are there now" not in done.output:
                raise RuntimeError(done.output)
            peaks[name] = done.mib
    return _figures("archive_build", peaks)


def measure_steps() -> dict[str, float]:
    """Figures of search maps, joining and searching over made-up rows, and the bytes of the maps."""
    peaks: dict[str, dict[str, float]] = {}
    figures: dict[str, float] = {}
    for name, size in SIZES.items():
        with tempfile.TemporaryDirectory(prefix="signwatch-bench-archive-") as temporary:
            folder = Path(temporary)
            make_parts(folder, size // RANGE)
            for step in ("maps", "search", "export"):
                peaks.setdefault(step, {})[name] = _peak(step, folder)
            if size > RANGE * 2:
                figures["archive_1m_map_bytes_per_entry"] = (
                    map_bytes(read_maps(ArchiveFiles(str(folder)), IDENTITY.log).maps) / size
                )
                figures["archive_compact_1m_mb"] = _peak("compact", folder)
                figures["search_joined_1m_mb"] = _peak("search", folder)
                figures["search_export_joined_1m_mb"] = _peak("export", folder)
    for step, prefix in (("maps", "archive_maps"), ("search", "search"), ("export", "search_export")):
        figures |= _figures(prefix, peaks[step])
    return figures


def _figures(prefix: str, peaks: dict[str, float]) -> dict[str, float]:
    return {
        **{f"{prefix}_{name}_mb": peak for name, peak in peaks.items()},
        f"{prefix}_growth_mb": peaks["1m"] - peaks["100k"],
    }


def _peak(step: str, folder: Path) -> float:
    command = [sys.executable, "-m", "benchmarks.archive_memory", step, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return int(done.stdout) / _MIB


def _maps(files: ArchiveFiles) -> None:
    build_maps(ManifestWriter(files, IDENTITY))


def _compact(files: ArchiveFiles) -> None:
    writer = ManifestWriter(files, IDENTITY)
    for group in compactable(writer.manifest):
        compact(writer, group)


def _search(files: ArchiveFiles) -> None:
    """A person, an organisation, every workflow of a name, and everything, entries a day counted."""
    archive = Archive(files)
    for query in (
        Query("person1@mail1.example"),
        Query("https://github.com/org1/", match=MatchMode.PREFIX),
        Query("*/project1*/*release.yml@*", match=MatchMode.GLOB),
        Query("*", match=MatchMode.GLOB),
    ):
        if not archive.search(query, per_day=True).total:
            raise RuntimeError(f"nothing was found by {query.text}")


def _export(files: ArchiveFiles) -> None:
    """Every entry as a JSON line, as `signwatch search '*' --json` does."""
    with Path(os.devnull).open("w", encoding="utf-8") as out:
        for rows in Archive(files).stream(Query("*", match=MatchMode.GLOB), {}):
            out.writelines(json.dumps(row_of(each).document()) + "\n" for each in rows.to_pylist())


_STEPS: Final[dict[str, Callable[[ArchiveFiles], None]]] = {
    "maps": _maps,
    "compact": _compact,
    "search": _search,
    "export": _export,
}

if __name__ == "__main__":
    _STEPS[sys.argv[1]](ArchiveFiles(sys.argv[2]))
    print(peak_memory())

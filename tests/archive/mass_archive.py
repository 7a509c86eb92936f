"""An archive of 2^20 entries that one person made, in one range. Nothing in it has to be true of any log."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import FastAPI

from monitor.archive.files import ArchiveFiles
from monitor.archive.ranges import ArchivedRun, ArchiveManifest, to_json
from monitor.archive.rows import MADE_SCHEMA
from monitor.archive.search import Archive
from monitor.archive.writing import manifest_name, write_range
from monitor.config import WebConfig
from monitor.daemon.rekor_search import load_key, search_router
from monitor.daemon.web_server import WebServer
from monitor.model.log_source import LogApi, LogIdentity, SignedHead
from tlog.merkle import Frontier, RootHash

PERSON: Final = "mass@example.com"
ENTRIES: Final = 1 << 20
_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_SECOND: Final = 1_000_000
_IDENTITY: Final = LogIdentity("mass", LogApi.REKOR_V2, "mass.example", "mass.example", b"key")


def write_mass_archive(folder: Path) -> None:
    """Write the archive."""
    files = ArchiveFiles(str(folder))
    made = write_range(files, _IDENTITY, _rows())
    end = made.extend(Frontier())
    head = SignedHead("mass", ENTRIES, RootHash(end.root()), b"", _BEGIN)
    files.write(manifest_name("mass"), to_json(ArchiveManifest(_IDENTITY, (ArchivedRun(Frontier(), (made,), head),))))


def _rows() -> pa.Table:
    hashes = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), ENTRIES, [None, pa.py_buffer(os.urandom(32 * ENTRIES))]
    )
    digests = pa.ListArray.from_arrays(pa.array(range(ENTRIES + 1), pa.int32()), hashes.cast(pa.binary()))
    times = pa.array(range(0, ENTRIES * _SECOND, _SECOND), pa.int64())
    at = pc.add(times, int(_BEGIN.timestamp()) * _SECOND)
    columns = {
        "log": pa.repeat("mass", ENTRIES),
        "index": pa.array(range(ENTRIES), pa.int64()),
        "time": at,
        "not_before": at,
        "time_source": pa.repeat("certificate-not-before", ENTRIES),
        "kind": pa.repeat("hashedrekord", ENTRIES),
        "identities": _each(PERSON),
        "issuers": _each("https://accounts.example.com"),
        "chains": _each("trusted"),
        "digests": digests,
        "leaf_hash": hashes,
    }
    empty = pa.ListArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), ENTRIES + 1), pa.array([], pa.binary()))
    made = [
        columns[field.name]
        if field.name in columns
        else pa.nulls(ENTRIES, field.type)
        if field.nullable
        else empty.cast(field.type)
        for field in MADE_SCHEMA
    ]
    return pa.table([each.cast(field.type) for each, field in zip(made, MADE_SCHEMA, strict=True)], schema=MADE_SCHEMA)


def _each(text: str) -> pa.Array:
    """A list of this one text for each entry."""
    return pa.ListArray.from_arrays(pa.array(range(ENTRIES + 1), pa.int32()), pa.repeat(text, ENTRIES))


def _serve(folder: Path) -> None:
    """Serve the search API over the archive in a folder until standard input ends; the first line is its URL."""
    app = FastAPI()
    app.include_router(
        search_router(Archive(ArchiveFiles(str(folder / "archive"))), list, load_key(folder / "key.pem"))
    )
    server = WebServer(app, WebConfig(("127.0.0.1", 0)))
    server.start()
    print(server.url, flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))

"""Search answers as one file that proves them."""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from alerts.alert import counted
from alerts.inert import inert_json
from monitor.archive.answer import ArchiveRow, SearchAnswer
from monitor.archive.files import ArchiveFiles
from monitor.archive.proofs import RunProver
from monitor.archive.writing import read_manifest
from monitor.commands.terminal import note
from monitor.config import Config
from monitor.daemon.log_sources import UnknownLogName, opened_trees
from monitor.daemon.trust_watch import trust_of
from monitor.following.follower import Timing
from monitor.model.errors import FetchFailed, OwnFault
from monitor.model.log_source import SignedHead
from monitor.program import utc_now
from monitor.proof.signing_proof import ProvenSignings, to_document
from tlog.merkle import leaf_hash


def write_proof(
    config: Config, files: ArchiveFiles, answer: SearchAnswer, query: str, path: Path, *, offline: bool
) -> None:
    """Write the answer's entries with their proofs. Bytes of entries are fetched from the log, unless `offline`.

    Raises `ArchiveFault`, `OwnFault`.
    """
    proven: list[ProvenSignings] = []
    for log in dict.fromkeys(row.log for row in answer.rows):
        rows = [row for row in answer.rows if row.log == log]
        manifest = read_manifest(files, log)
        if manifest is None:
            raise OwnFault(f"{log}: its archive is gone")
        for run in manifest.runs:
            here = sorted(row.index for row in rows if run.first <= row.index < run.last)
            if here:
                leaves = {} if offline else _fetched(config, rows, run.head)
                proven.append(RunProver(files, manifest, run).prove(here, leaves))
    about = {"query": query, "matches": answer.total, "left_out": answer.cut, "coverage": answer.coverage.document()}
    document = to_document(proven, inert_json(about))
    try:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OwnFault(f"{path}: cannot be written: {error.strerror or error}") from error
    entries = counted(len(answer.rows), "entry")
    note(f"wrote {path}: {entries}, each proven; `signwatch evidence verify {path.name}` checks them")


def _fetched(config: Config, rows: Sequence[ArchiveRow], head: SignedHead) -> dict[int, bytes]:
    """Bytes of the entries that the log serves with the archived leaf hash."""
    log = rows[0].log
    found: dict[int, bytes] = {}
    try:
        with ExitStack() as parts:
            trust = trust_of(config.trust, utc_now, None)
            trees = parts.enter_context(opened_trees(config, trust, None, Timing(utc_now, time.sleep), log))
            source = next(each for each in trees if each.identity.log == log)
            for row in rows:
                if row.index < head.size:
                    (entry, *_) = source.entries(row.index, row.index + 1, head)
                    if entry.unread:
                        continue
                    if leaf_hash(entry.leaf).hex() == row.leaf_hash:
                        found[row.index] = entry.leaf
                    else:
                        note(f"{log}: now serves other bytes for entry {row.index} than it signed", "bold red")
    except (FetchFailed, OwnFault, UnknownLogName, StopIteration) as error:
        note(f"{log}: the entries' bytes are not in the file, only their hashes: {error}", "yellow")
    return found

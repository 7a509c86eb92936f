"""With any step of writing an archive as the last one, the archive is sound, and building on ends the same."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from monitor.archive import compacting
from monitor.archive.building import RowMaker
from monitor.archive.compacting import compact, compactable
from monitor.archive.files import ArchiveFiles, DiskFull
from monitor.archive.query import MatchMode, Query
from monitor.archive.search import Archive
from monitor.archive.verifying import check_heads, check_ranges
from monitor.archive.writing import ManifestWriter, read_manifest
from monitor.backscan.archiving import archive_range, missing_from
from monitor.backscan.range import ScanEnvironment
from monitor.following.follower import Timing
from monitor.program import utc_now
from tests.archive.conftest import RANGE, varied_bodies
from tests.support.misbehaving_log import RekorV2Log

_STEPS = ("fsync", "replace", "unlink", "mkdir")
_ENTRIES = 300
_EVERYTHING = Query("*", match=MatchMode.GLOB, limit=1000)


class Died(BaseException):
    """The process is no more: no step after this one happens, and nothing tidies up."""


@contextmanager
def last_step(monkeypatch: pytest.MonkeyPatch, number: int, error: Callable[[], BaseException]) -> Iterator[list[str]]:
    """From the step with this number on, each call that makes something lasting fails. Yields the steps taken."""
    taken: list[str] = []
    with monkeypatch.context() as patched:
        for name in _STEPS:
            real = getattr(os, name)

            def step(*arguments: Any, real: Any = real, name: str = name, **more: Any) -> Any:
                if len(taken) >= number:
                    raise error()
                taken.append(name)
                return real(*arguments, **more)

            patched.setattr(os, name, step)
        yield taken


def grow(folder: Path | str, log: RekorV2Log) -> None:
    """Archive what is missing."""
    source, files = log.source(), ArchiveFiles(str(folder))
    world = ScanEnvironment(Timing(utc_now, lambda _: None), patience=(), pauses=())
    manifest = read_manifest(files, source.identity.log)
    for first, last in missing_from(manifest, 0, _ENTRIES):
        archive_range(source, files, None, first, last, store=None, rows=RowMaker(1, lambda: None), world=world)


def shrink(folder: Path | str, log: RekorV2Log) -> None:
    """Join ranges."""
    files = ArchiveFiles(str(folder))
    writer = ManifestWriter(files, log.source().identity)
    for group in compactable(writer.manifest, RANGE, 4):
        compact(writer, group)


def is_sound(folder: Path | str, log: RekorV2Log) -> None:
    files = ArchiveFiles(str(folder))
    manifest = read_manifest(files, log.source().identity.log)
    if manifest is not None:
        check_heads(manifest)
        assert list(check_ranges(files, manifest)) == []


def told(folder: Path) -> tuple[object, object]:
    """What a search answers, and the files that count."""
    answer = Archive(ArchiveFiles(str(folder))).search(_EVERYTHING, per_day=True)
    manifest = next(iter(Archive(ArchiveFiles(str(folder))).manifests().values()))
    return answer, [
        (each.first, each.last, each.rows.sha256, each.index.sha256) for run in manifest.runs for each in run.ranges
    ]


@pytest.fixture
def begun(tmp_path: Path, small_ranges: None, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, RekorV2Log]:
    """An archive whose last range is not full, of a log that has grown since."""
    monkeypatch.setattr(compacting, "_SPLIT", 3)
    bodies = varied_bodies(_ENTRIES)
    log = RekorV2Log(bodies[:100])
    source, files = log.source(), ArchiveFiles(str(tmp_path / "begun"))
    world = ScanEnvironment(Timing(utc_now, lambda _: None), patience=(), pauses=())
    archive_range(source, files, None, 0, 100, store=None, rows=RowMaker(1, lambda: None), world=world)
    log.append(*bodies[100:])
    return tmp_path / "begun", log


def test_dying_at_any_step_of_writing_leaves_a_sound_archive_that_goes_on(
    begun: tuple[Path, RekorV2Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, log = begun
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(folder, undisturbed)
    with last_step(monkeypatch, 10_000, Died) as steps:
        grow(undisturbed, log)
        grown = len(steps)
        shrink(undisturbed, log)
    wanted = told(undisturbed)
    assert grown > 20, "there must be enough steps to mean something"
    assert len(steps) > grown + 6
    for number in range(len(steps)):
        dying = tmp_path / f"dying-{number}"
        shutil.copytree(folder, dying)
        with last_step(monkeypatch, number, Died) as taken, pytest.raises(Died):  # noqa: PT012  all of it may die
            grow(dying, log)
            shrink(dying, log)
        assert len(taken) == number
        is_sound(dying, log)
        grow(dying, log)
        shrink(dying, log)
        assert told(dying) == wanted, f"after dying at step {number}"
        shutil.rmtree(dying)


def test_a_full_disk_is_told_and_costs_nothing_once_there_is_room(
    begun: tuple[Path, RekorV2Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, log = begun
    for number in range(0, 24, 3):
        full = tmp_path / f"full-{number}"
        shutil.copytree(folder, full)
        with last_step(monkeypatch, number, lambda: OSError(errno.ENOSPC, "no space")), pytest.raises(DiskFull):
            grow(full, log)
        is_sound(full, log)
        grow(full, log)
        assert read_manifest(ArchiveFiles(str(full)), log.source().identity.log) is not None
        is_sound(full, log)
        assert told(full)[0] == _answer(folder, log, tmp_path)
        shutil.rmtree(full)


def _answer(folder: Path, log: RekorV2Log, tmp_path: Path) -> object:
    whole = tmp_path / "whole"
    if not whole.exists():
        shutil.copytree(folder, whole)
        grow(whole, log)
    return told(whole)[0]

"""A backup is one tar file: the database, the archive, the trust metadata, and a list with the SHA-256 of each.

What of the archive is damaged does not prevent a backup: the rest of it is copied, `Summary.left_out` and the list name
what is not, and `signwatch archive verify --mend` reads that again from the log after a restore.

A daemon may run meanwhile. The archive is copied before the database: an archive that is behind its database is the
usual state, and the daemon catches up; an archive that is ahead would hold entries that the database never proved.
"""

import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final

from msgspec import Struct

from alerts.alert import rfc3339
from monitor.model.errors import BadConfig, OwnFault
from monitor.store.tables import SCHEMA

if TYPE_CHECKING:
    from monitor.archive.files import ArchiveFiles

LIST: Final = "backup.json"
DATABASE: Final = "database"
TRUST: Final = "trust"
ARCHIVE: Final = "archive"
_FORMAT: Final = 1
_LARGEST_LIST: Final = 64 * 1024 * 1024
_CHUNK: Final = 1 << 20
_ATTEMPTS: Final = 5


_Listed = tuple[dict[str, Any], tuple[str, ...]]
"""Files of a backup by name, each with size and SHA-256, and a sentence for each part that it lacks."""


class InstallationPaths(Struct, frozen=True):
    """Paths of an installation's state. `archive` and `trust` are folders; None where there is none."""

    database: Path
    trust: Path | None
    archive: Path | None

    def folders(self) -> Iterator[tuple[str, Path]]:
        """Folders by their name in a backup; the archive first."""
        if self.archive is not None:
            yield ARCHIVE, self.archive
        if self.trust is not None:
            yield TRUST, self.trust


class Summary(Struct, frozen=True):
    """Contents of a backup: number of files, and their bytes together.

    `left_out` has a sentence for each damaged part of the archive.
    """

    files: int
    size: int
    left_out: tuple[str, ...] = ()


class _Unread(OSError):
    """A file that is there and cannot be read."""


class _Changed(Exception):
    """A file is missing, or has another SHA-256 than its manifest names."""


def write_backup(places: InstallationPaths, target: Path, now: datetime, version: str) -> Summary:
    """Write a backup to a file that does not exist yet. Raises `BadConfig`, `OwnFault`."""
    if target.exists():
        raise BadConfig(f"{target}: there is a file already; a backup overwrites nothing. Name another one.")
    draft = target.with_name(target.name + ".part")
    snapshot = target.with_name(target.name + ".database")
    try:
        listed, left_out = _write(places, draft, snapshot, now, version)
        os.link(draft, target)  # unlike a rename, it fails when the name was taken meanwhile
        _sync_folder(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise OwnFault(f"{target}: the backup could not be written: {error}. There is no new backup.") from error
    finally:
        for each in (draft, snapshot):
            each.unlink(missing_ok=True)
    return Summary(len(listed), sum(each["size"] for each in listed.values()), left_out)


def _write(places: InstallationPaths, draft: Path, snapshot: Path, now: datetime, version: str) -> _Listed:
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            listed: dict[str, Any] = {}
            left_out: list[str] = []
            if places.archive is not None and places.archive.is_dir():
                _add_archive(tar, places.archive, listed, left_out)
            if places.trust is not None and places.trust.is_dir():
                _add_trust(tar, places.trust, listed)
            _copy_database(places.database, snapshot)
            _add(tar, DATABASE, snapshot, listed)
            document = {
                "format": _FORMAT,
                "at": rfc3339(now),
                "version": version,
                "schema": SCHEMA,
                "left_out": left_out,
                "files": listed,
            }
            raw = json.dumps(document, indent=1).encode()
            member = tarfile.TarInfo(LIST)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
        file.flush()
        os.fsync(file.fileno())
    return listed, tuple(left_out)


def _copy_database(database: Path, snapshot: Path) -> None:
    """Copy one committed state in a single step, so that no writer waits for the copy or changes it."""
    snapshot.unlink(missing_ok=True)
    os.close(os.open(snapshot, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    source_uri = f"{database.absolute().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(source_uri, uri=True, timeout=30)) as source,
        closing(sqlite3.connect(snapshot)) as copy,
    ):
        source.backup(copy)
        found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise OwnFault(f"{database}: the database is damaged: {found}. There is no new backup: see `signwatch fsck`.")


def _add_archive(tar: tarfile.TarFile, folder: Path, listed: dict[str, Any], left_out: list[str]) -> None:
    """Add each log's manifest and the files that it names, all as of one moment of that log."""
    from monitor.archive.files import ArchiveFault, ArchiveFiles  # noqa: PLC0415  imports pyarrow
    from monitor.archive.ranges import MANIFEST  # noqa: PLC0415
    from monitor.archive.writing import lost_manifests  # noqa: PLC0415

    files = ArchiveFiles(str(folder))
    try:
        lost, names = lost_manifests(files), files.names(f"/{MANIFEST}")
    except ArchiveFault as fault:
        left_out.append(f"the archive is not in the backup: {fault}")
        return
    for log, why in lost.items():
        left_out.append(f"{log}: its files are in the backup, unchecked: {why}")
        _add_unnamed(tar, folder, log, listed, left_out)
    for name in names:
        _add_log(tar, files, name, listed, left_out)


def _add_log(
    tar: tarfile.TarFile, files: "ArchiveFiles", name: str, listed: dict[str, Any], left_out: list[str]
) -> None:
    """Add the manifest of this name and the files that it names."""
    from monitor.archive.files import ArchiveFault  # noqa: PLC0415  imports pyarrow
    from monitor.archive.ranges import MANIFEST, from_json  # noqa: PLC0415

    folder = Path(files.location)
    for attempt in range(1, _ATTEMPTS + 1):
        raw = None
        try:
            raw = files.read(name)
            if raw is None:
                return
            named = [each for run in from_json(raw, name).runs for each in run.ranges]
        except ArchiveFault as fault:
            log = name.removesuffix(f"/{MANIFEST}")
            left_out.append(f"{log}: its files are in the backup as they are, unchecked: {fault}")
            _add_unnamed(tar, folder, log, listed, left_out)
            if raw is not None:
                _add_raw(tar, f"{ARCHIVE}/{name}", raw, listed)
            return
        missing = []
        for file in (file for each in named for file in (each.rows, each.index)):
            try:
                _add_named(tar, folder, file.name, file.sha256, listed)
            except _Changed:
                missing.append(file.name)
        # The daemon may have joined or mended files meanwhile: the stored manifest then names the new files.
        if missing and attempt < _ATTEMPTS:
            continue
        _add_raw(tar, f"{ARCHIVE}/{name}", raw, listed)
        left_out += [
            f"{each}: this file of the archive is missing, unreadable or not as its manifest says, and is not in the "
            "backup: `signwatch archive verify --mend` reads its entries again"
            for each in missing
        ]
        return


def _add_unnamed(tar: tarfile.TarFile, folder: Path, log: str, listed: dict[str, Any], left_out: list[str]) -> None:
    """Add the files of rows and indexes of a log without a readable manifest: they may prove themselves later."""
    for each in sorted(path for part in ("rows", "index") for path in (folder / log / part).glob("*.parquet")):
        if each.is_file() and not each.is_symlink():
            try:
                _add(tar, f"{ARCHIVE}/{each.relative_to(folder).as_posix()}", each, listed)
            except FileNotFoundError:
                continue
            except _Unread as error:
                left_out.append(
                    f"{each.relative_to(folder)}: cannot be read, and is not in the backup: {error.strerror}"
                )


def _add_named(tar: tarfile.TarFile, folder: Path, name: str, sha256: str, listed: dict[str, Any]) -> None:
    into = f"{ARCHIVE}/{name}"
    if into in listed and listed[into]["sha256"] == sha256:
        return
    try:
        _add(tar, into, folder / name, listed, expect=sha256)
    except (FileNotFoundError, _Unread):
        raise _Changed(name) from None


def _add_trust(tar: tarfile.TarFile, folder: Path, listed: dict[str, Any]) -> None:
    """Add the verified metadata of the trust root. Versions in it only grow: a refresh mends any mix."""
    for each in sorted(folder.rglob("*")):
        if each.is_file() and not each.is_symlink():
            with suppress(FileNotFoundError):
                _add(tar, f"{TRUST}/{each.relative_to(folder).as_posix()}", each, listed)


def _add(tar: tarfile.TarFile, name: str, path: Path, listed: dict[str, Any], expect: str | None = None) -> None:
    """Add one file. Raises `_Changed` if its SHA-256 is not `expect`, `FileNotFoundError`, `_Unread`."""
    with ExitStack() as opened:
        try:
            file = opened.enter_context(path.open("rb"))
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _Unread(error.errno, error.strerror, str(path)) from error
        if expect is not None and digest != expect:
            raise _Changed(str(path))
        member = tarfile.TarInfo(name)
        member.size, member.mode = file.tell(), 0o600
        file.seek(0)
        tar.addfile(member, file)
    listed[name] = {"size": member.size, "sha256": digest}


def _add_raw(tar: tarfile.TarFile, name: str, raw: bytes, listed: dict[str, Any]) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(raw), 0o600
    tar.addfile(member, io.BytesIO(raw))
    listed[name] = {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}


def restore(source: Path, places: InstallationPaths) -> Summary:
    """Put the state of a backup in place. Existing state is never overwritten. Raises `BadConfig`, `OwnFault`.

    All files are first checked and written beside their places. The database is moved last: an interrupted restore
    leaves no database, and every command reports that.
    """
    for each in (places.database, *(folder for _, folder in places.folders())):
        if each.exists() and (each.is_file() or any(each.iterdir())):
            raise BadConfig(
                f"{each}: there is state here, and a restore overwrites nothing. Stop the daemon, move it away, and "
                "restore again."
            )
    for suffix in ("-wal", "-shm"):
        beside = places.database.with_name(places.database.name + suffix)
        if beside.exists():
            raise BadConfig(f"{beside}: this is a part of another database: move it away, and restore again.")
    staged = {name: _staging(folder) for name, folder in (*places.folders(), (DATABASE, places.database))}
    try:
        listed, left_out = _unpack(source, staged)
        for name, place in (*places.folders(), (DATABASE, places.database)):
            if staged[name].exists():
                if place.is_dir():
                    place.rmdir()  # empty, as checked above
                place.parent.mkdir(parents=True, exist_ok=True)
                staged[name].rename(place)
                _sync_folder(place.parent)
    except (OSError, tarfile.TarError) as error:
        raise OwnFault(f"{source}: the backup could not be restored: {error}. There is no database.") from error
    finally:
        for each in staged.values():
            shutil.rmtree(each, ignore_errors=True) if each.is_dir() else each.unlink(missing_ok=True)
    return Summary(len(listed), sum(each["size"] for each in listed.values()), left_out)


def _staging(place: Path) -> Path:
    return place.with_name(place.name + ".restoring")


def _unpack(source: Path, staged: dict[str, Path]) -> _Listed:
    """Write every listed file to its staging place; returns the list. Raises `OwnFault` for a file that differs."""
    with tarfile.open(source, mode="r:") as tar:
        # Members in the order of the tar; a later member replaces an earlier one of the same name.
        members = {member.name: member for member in tar.getmembers() if member.isreg()}
        listed, left_out = _read_list(tar, members, source)
        for each in staged.values():
            shutil.rmtree(each, ignore_errors=True) if each.is_dir() else each.unlink(missing_ok=True)
        for name, told in listed.items():
            top, _, below = name.partition("/")
            if top not in staged:
                where = "archive.location" if top == ARCHIVE else "trust.folder"
                raise BadConfig(f"{source}: it holds {top}, and the configuration has no folder for it: set `{where}`")
            if any(part in {"", ".", ".."} for part in PurePosixPath(below).parts) or (not below) != (top == DATABASE):
                raise OwnFault(f"{source}: {name!r} is no name of a file in a backup; nothing was restored")
            opened = tar.extractfile(members[name]) if name in members else None
            if opened is None:
                raise OwnFault(f"{source}: {name} is missing in it; nothing was restored")
            _write_checked(opened, staged[top] / below if below else staged[top], told, f"{source}: {name}")
    if DATABASE not in listed:
        raise OwnFault(f"{source}: there is no database in it; nothing was restored")
    return listed, left_out


def _read_list(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], source: Path) -> _Listed:
    opened = tar.extractfile(members[LIST]) if LIST in members else None
    if opened is None or members[LIST].size > _LARGEST_LIST:
        raise OwnFault(
            f"{source}: this is no whole backup of Signwatch: it has no list of its files. Nothing was done."
        )
    try:
        document = json.loads(opened.read(_LARGEST_LIST))
        files, found = document["files"], document["format"]
        left_out = tuple(map(str, document["left_out"]))
        sound = all(isinstance(each["size"], int) and isinstance(each["sha256"], str) for each in files.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OwnFault(f"{source}: the list of its files cannot be read: {error!r}. Nothing was done.") from error
    if found != _FORMAT or not sound:
        raise OwnFault(f"{source}: it has format {found}, and this version reads format {_FORMAT}. Nothing was done.")
    return dict(files), left_out


def _write_checked(opened: IO[bytes], into: Path, told: dict[str, Any], where: str) -> None:
    into.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if (size, digest.hexdigest()) != (told["size"], told["sha256"]):
        raise OwnFault(f"{where}: this file is not as the list says: the backup is damaged. Nothing was restored.")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

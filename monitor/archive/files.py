"""Files of an archive in a folder or an object store: written whole and durably, or not at all.

All access goes through `pyarrow.fs`, which lacks one step for a folder: fsync of the file and of the folder's entry.
"""

import errno
import os
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import IO, Final

import pyarrow as pa
import pyarrow.fs as pafs
from msgspec import Struct

from monitor.model.errors import OwnFault

_LARGEST_MANIFEST: Final = 64 * 1024 * 1024
_DEEPEST: Final = 3  # slashes in the name of a folder; the bound ends a loop of links


class ArchiveFault(OwnFault):
    """The archive cannot be read or written: disk, object store, or a file that is not as the manifest says."""


class DamagedManifest(ArchiveFault):
    """A log's manifest is damaged or of an earlier format. Its files may be sound: `recovered` makes it again."""


class OtherFormat(ArchiveFault):
    """A file of another release's format: neither read nor changed."""


class DiskFull(ArchiveFault):
    """The storage of the archive is full. Following continues; archiving continues once there is room."""


class FileRef(Struct, frozen=True):
    """One file as the manifest names it: size in bytes, and SHA-256 of the whole file."""

    name: str
    size: int
    sha256: str


class ArchiveFiles:
    """Files under one location: a folder, or `s3://bucket/prefix` and other URIs that `pyarrow.fs` opens."""

    def __init__(self, location: str) -> None:
        self.location = location
        try:
            self._files, root = _opened(location)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ArchiveFault(f"archive {location}: cannot be opened: {error}") from error
        self._root = root.rstrip("/")
        self._is_local = isinstance(self._files, pafs.LocalFileSystem)

    @property
    def folder(self) -> Path | None:
        """The folder, where it is one."""
        return Path(self._root) if self._is_local else None

    def names(self, suffix: str, folder: str = "") -> list[str]:
        """Names of all files in a folder and below that end in `suffix`, sorted."""
        selector = pafs.FileSelector(self._path(folder), allow_not_found=True, recursive=True)
        try:
            found = self._files.get_file_info(selector)
        except OSError as error:
            raise self.fault("", error) from error
        names = (each.path[len(self._root) :].lstrip("/") for each in found if each.type == pafs.FileType.File)
        return sorted(name for name in names if name.endswith(suffix))

    def folders_of(self, name: str, contents: Collection[str]) -> list[str]:
        """Names of all files called `name`, sorted, at most four folders deep.

        The folders in `contents` are skipped where they stand beside such a file.
        """
        found, folders = [], [""]
        while folders:
            folder = folders.pop()
            selector = pafs.FileSelector(self._path(folder), allow_not_found=True)
            try:
                inside = self._files.get_file_info(selector)
            except OSError as error:
                raise self.fault(folder, error) from error
            is_here = any(each.base_name == name and each.type == pafs.FileType.File for each in inside)
            if is_here and folder:
                found.append(f"{folder}/{name}")
            if folder.count("/") < _DEEPEST:
                folders += [
                    each.path[len(self._root) :].lstrip("/")
                    for each in inside
                    if each.type == pafs.FileType.Directory and not (is_here and each.base_name in contents)
                ]
        return sorted(found)

    def size(self, name: str) -> int | None:
        """Size of a file in bytes; `None` when no file has this name."""
        try:
            found = self._files.get_file_info(self._path(name))
        except OSError as error:
            raise self.fault(name, error) from error
        return found.size if found.type == pafs.FileType.File else None

    def open(self, name: str) -> pa.NativeFile:
        """Open a file for reading with random access. Raises `ArchiveFault`."""
        try:
            return self._files.open_input_file(self._path(name))
        except OSError as error:
            raise self.fault(name, error) from error

    def read(self, name: str, largest: int = _LARGEST_MANIFEST) -> bytes | None:
        """All of a file of at most `largest` bytes; `None` when no file has this name."""
        if self.size(name) is None:
            return None
        with self.open(name) as opened:
            raw: bytes = opened.read(largest + 1)
        if len(raw) > largest:
            raise ArchiveFault(f"archive file {self._path(name)}: larger than {largest} bytes")
        return raw

    def write(self, name: str, raw: bytes | memoryview) -> FileRef:
        """Write a file so that after a crash it is complete or absent. Raises `ArchiveFault`, `DiskFull`."""
        try:
            if self._is_local:
                _write_durably(Path(self._path(name)), raw)
            else:
                # An object appears with its last byte: an incomplete upload leaves no readable object.
                with self._files.open_output_stream(self._path(name)) as opened:
                    opened.write(raw)
        except OSError as error:
            raise self.fault(name, error) from error
        return FileRef(name, len(raw), sha256(raw).hexdigest())

    def remove(self, name: str) -> None:
        """Remove a file that the manifest no longer names; a missing file is no error."""
        try:
            if self.size(name) is not None:
                self._files.delete_file(self._path(name))
        except OSError as error:
            raise self.fault(name, error) from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def fault(self, name: str, error: OSError) -> ArchiveFault:
        """The error to raise for an error of the file system."""
        where = f"archive file {self._path(name)}"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return DiskFull(f"{where}: no room is left on the disk. Nothing is archived until there is; make room.")
        if error.errno == errno.EISDIR:
            return ArchiveFault(f"{where}: a folder stands in the place of the file. Move it away and run this again.")
        return ArchiveFault(f"{where}: {error.strerror or error}")


def _opened(location: str) -> tuple[pafs.FileSystem, str]:
    if "://" not in location:
        return pafs.LocalFileSystem(), str(Path(location).absolute())
    files, root = pafs.FileSystem.from_uri(location)
    return files, root


def _write_durably(path: Path, raw: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    try:
        with beside.open("wb") as opened:
            _write_all(opened, raw)
            opened.flush()
            os.fsync(opened.fileno())
        # A crash before this line leaves the former file, a crash after it the complete new one.
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_all(opened: IO[bytes], raw: bytes | memoryview) -> None:
    opened.write(raw)

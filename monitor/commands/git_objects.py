"""Commits and tags of a git repository, read by `git` itself."""

import subprocess
from pathlib import Path
from typing import Final

from msgspec import Struct

from monitor.model.errors import BadConfig, OwnFault
from sigstore_entries.git_signature import MAX_OBJECT

_SECONDS: Final = 60
_MAX_REVISION: Final = 1024


class GitObject(Struct, frozen=True):
    """One object: its hexadecimal id, `commit` or `tag`, and its bytes."""

    id: str
    kind: str
    raw: bytes


def read_object(repository: Path, revision: str) -> GitObject:
    """Read the commit or annotated tag that a revision names. Raises `BadConfig`, `OwnFault`."""
    if "\n" in revision or "\0" in revision or not 0 < len(revision) <= _MAX_REVISION:
        raise BadConfig(f"{revision!r:.80} is no revision")
    try:
        # The revision goes to standard input, so that git never takes it for an option.
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(repository), "cat-file", "--batch"],  # noqa: S607  the user's own git
            input=f"{revision}\n".encode(),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise BadConfig("git is not installed: it is needed to read commits") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OwnFault(f"git could not read {revision!r:.80}: {type(error).__name__}") from error
    if done.returncode:
        raise BadConfig(f"{repository}: git says: {done.stderr.decode('utf-8', 'replace').strip()[:300]}")
    first, _, rest = done.stdout.partition(b"\n")
    words = first.decode("ascii", "replace").split(" ")
    if words[-1] in {"missing", "ambiguous"}:
        raise BadConfig(f"{repository}: there is no object {revision!r:.80}, or more than one")
    name, kind, size = words[0], words[1], int(words[2])
    if kind not in {"commit", "tag"}:
        raise BadConfig(f"{revision!r:.80} is a {kind}: name a commit or an annotated tag")
    if size > MAX_OBJECT:
        raise BadConfig(f"{revision!r:.80} is larger than {MAX_OBJECT // 2**20} MiB")
    return GitObject(name, kind, rest[:size])

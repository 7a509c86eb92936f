"""The documents of a trust root, and the file with the documents that were verified last."""

import json
import os
from base64 import b64decode, b64encode
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct

_LAST_GOOD: Final = "last_good.json"


class TrustDocuments(Struct, frozen=True):
    """Newest documents of the repository: raw target files, all verified, and their metadata.

    `expires` is the earliest expiry of the metadata chain: after it the root is stale until a refresh succeeds. `None`
    for a plain file.
    """

    trusted_root: bytes
    signing_configs: tuple[bytes, ...]
    root_version: int
    expires: datetime | None


class LastGood(NamedTuple):
    """Documents that a refresh verified, and the time of that refresh."""

    documents: TrustDocuments
    refreshed_at: datetime


def last_good(folder: Path) -> LastGood | None:
    """The documents verified last; `None` before the first successful refresh, or when the file cannot be read."""
    try:
        kept = json.loads((folder / _LAST_GOOD).read_bytes())
        expires = datetime.fromisoformat(kept["expires"]) if kept["expires"] else None
        configs = tuple(b64decode(each, validate=True) for each in kept["signing_configs"])
        root = b64decode(kept["trusted_root"], validate=True)
        documents = TrustDocuments(root, configs, int(kept["root_version"]), expires)
        return LastGood(documents, datetime.fromisoformat(kept["refreshed_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_good(folder: Path, documents: TrustDocuments, now: datetime) -> None:
    """Store verified documents in one file, replaced whole, so that a crash leaves the earlier one."""
    kept = {
        "refreshed_at": now.isoformat(),
        "expires": documents.expires.isoformat() if documents.expires else None,
        "root_version": documents.root_version,
        "trusted_root": b64encode(documents.trusted_root).decode(),
        "signing_configs": [b64encode(each).decode() for each in documents.signing_configs],
    }
    path = folder / _LAST_GOOD
    draft = path.with_name(path.name + ".new")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(kept, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)

"""A TUF repository with the two trust files, so that `sigstore --instance URL/tuf` and npm's `sigstore.verify` work.

One offline root key, one online key for targets, snapshot and timestamp. Versions only grow. Each file is replaced
after the files to which it refers, so that a client always reads a whole release.
"""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from ca_lite.errors import ConfigError
from ca_lite.keys import generate, read_limited, read_private_key, replace_file, write_private_key

ROOT_LIFETIME: Final = timedelta(days=3650)
TARGETS_LIFETIME: Final = timedelta(days=365)
TIMESTAMP_LIFETIME: Final = timedelta(days=7)

_ONLINE_ROLES: Final = ("targets", "snapshot", "timestamp")
_S = TypeVar("_S", Root, Timestamp, Snapshot, Targets)


def create_repository(folder: Path, keys: Path, now: datetime) -> None:
    """Make the keys and 1.root.json. Raises `ConfigError` if the keys exist."""
    for name in ("root", "online"):
        write_private_key(keys / f"{name}.pem", generate("p256"))
    root = Root(expires=_expiry(now, ROOT_LIFETIME), consistent_snapshot=True)
    root.add_key(_signer(keys, "root").public_key, "root")
    for role in _ONLINE_ROLES:
        root.add_key(_signer(keys, "online").public_key, role)
    _publish(folder / "1.root.json", Metadata(root), keys, "root")
    replace_file(folder / "root.json", (folder / "1.root.json").read_bytes())


def publish_targets(folder: Path, keys: Path, targets: dict[str, bytes], now: datetime) -> None:
    """Release these files, by target name, replacing the ones before. Raises `ConfigError`."""
    last = _load_timestamp(folder)
    version = last.snapshot_meta.version + 1 if last else 1
    release = Targets(version=version, expires=_expiry(now, TARGETS_LIFETIME))
    for name, content in targets.items():
        target = TargetFile.from_data(name, content, ["sha256"])
        release.targets[name] = target
        replace_file(folder / "targets" / f"{target.hashes['sha256']}.{name}", content)
    _publish(folder / f"{version}.targets.json", Metadata(release), keys, "online")
    snapshot = Snapshot(version, expires=_expiry(now, TARGETS_LIFETIME), meta={"targets.json": MetaFile(version)})
    _publish(folder / f"{version}.snapshot.json", Metadata(snapshot), keys, "online")
    _publish_timestamp(folder, keys, last.version + 1 if last else 1, version, now)


def refresh(folder: Path, keys: Path, now: datetime) -> bool:
    """Sign the timestamp again after half its validity, and the release near its end. True if it signed."""
    last = _load_timestamp(folder)
    if last is None:
        raise ConfigError(f"{folder}: no timestamp.json; run `ca-lite trust`")
    version = last.snapshot_meta.version
    snapshot = _load(folder / f"{version}.snapshot.json", Snapshot)
    if snapshot.expires - now < TARGETS_LIFETIME / 4:
        names = _load(folder / f"{version}.targets.json", Targets).targets
        contents = {
            name: read_limited(folder / "targets" / f"{each.hashes['sha256']}.{name}") for name, each in names.items()
        }
        publish_targets(folder, keys, contents, now)
        return True
    if last.expires - now < TIMESTAMP_LIFETIME / 2:
        _publish_timestamp(folder, keys, last.version + 1, version, now)
        return True
    return False


def _publish_timestamp(folder: Path, keys: Path, version: int, snapshot: int, now: datetime) -> None:
    timestamp = Timestamp(version, expires=_expiry(now, TIMESTAMP_LIFETIME), snapshot_meta=MetaFile(snapshot))
    _publish(folder / "timestamp.json", Metadata(timestamp), keys, "online")


def _publish(path: Path, metadata: Metadata[_S], keys: Path, key: str) -> None:
    metadata.sign(_signer(keys, key))
    replace_file(path, metadata.to_bytes(JSONSerializer(compact=False)))


def _load_timestamp(folder: Path) -> Timestamp | None:
    path = folder / "timestamp.json"
    return _load(path, Timestamp) if path.exists() else None


def _load(path: Path, kind: type[_S]) -> _S:
    try:
        signed: Signed = Metadata.from_bytes(read_limited(path)).signed
    except (RepositoryError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not TUF metadata ({error}); restore it or run `ca-lite init` anew") from error
    if not isinstance(signed, kind):
        raise ConfigError(f"{path}: is {signed.type} metadata, not {kind.type}")
    return signed


def _signer(keys: Path, name: str) -> CryptoSigner:
    key = read_private_key(keys / f"{name}.pem")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{keys / name}.pem: not an EC key")
    return CryptoSigner(key)


def _expiry(now: datetime, lifetime: timedelta) -> datetime:
    return now.replace(microsecond=0) + lifetime

"""Bundles as a signer gets them from a log in memory, and a trust root that knows that log."""

import json
from typing import Any

from monitor.crosscheck.bundles import BadBundle, BundlePromise, BundleView, read_entries, read_timestamps
from monitor.model.log_source import LogApi
from monitor.trust.trust_root import TrustedLog, TrustRoot
from sigstore_entries.bundle_file import HeldBundle, NotHeld, read_bundle_file
from tests.support.misbehaving_log import MisbehavingLog, RekorV1Log, RekorV2Log, b64, spki_of
from tlog.note import rekor_v1_key, tile_log_key


def entry(log: MisbehavingLog, index: int, size: int | None = None) -> dict[str, Any]:
    """The log's present answer for an entry, in the tree of `size`: a TransparencyLogEntry."""
    size = len(log.leaves) if size is None else size
    return {
        "logIndex": str(index),
        "logId": {"keyId": b64(log_id(log))},
        "kindVersion": {"kind": "hashedrekord", "version": "0.0.1"},
        "inclusionProof": {
            "logIndex": str(index),
            "rootHash": b64(log.oracle().root(size)),
            "treeSize": str(size),
            "hashes": [b64(node) for node in log.oracle().inclusion_proof(index, size)],
            "checkpoint": {"envelope": checkpoint(log, size).decode()},
        },
        "canonicalizedBody": b64(log.leaves[index]),
    }


def bundle(*entries: dict[str, Any]) -> bytes:
    document = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"certificate": {"rawBytes": ""}, "tlogEntries": list(entries)},
        "messageSignature": {},
    }
    return json.dumps(document).encode()


def held(raw: bytes) -> HeldBundle:
    """The one bundle of a file. Raises `BadBundle` where there is none."""
    (only,) = read_bundle_file(raw)
    if isinstance(only, NotHeld):
        raise BadBundle(only.why)
    return only


def entries_in(raw: bytes, trust: TrustRoot) -> list[BundleView | BadBundle]:
    return read_entries(held(raw), trust)


def views_in(raw: bytes, trust: TrustRoot) -> list[BundleView]:
    """What a bundle proves. Raises the first `BadBundle` in it."""
    found = []
    for each in entries_in(raw, trust):
        if isinstance(each, BadBundle):
            raise each
        found.append(each)
    if not found:
        raise BadBundle("no log entry")
    return found


def timestamps_in(raw: bytes, trust: TrustRoot) -> list[BundlePromise | BadBundle | None]:
    return read_timestamps(held(raw), trust)


def checkpoint(log: MisbehavingLog, size: int) -> bytes:
    if isinstance(log, RekorV1Log):
        return log.head_note(size)
    shown, log.shown_size = log.shown_size, size
    try:
        return log.answer("checkpoint", {}, None)
    finally:
        log.shown_size = shown


def log_id(log: MisbehavingLog) -> bytes:
    spki = spki_of(log.log_key)
    return rekor_v1_key(RekorV1Log.host, spki).log_id if isinstance(log, RekorV1Log) else _v2_id(spki)


def _v2_id(spki: bytes) -> bytes:
    return tile_log_key(RekorV2Log.host, spki).log_id


def trust_root(*logs: MisbehavingLog) -> TrustRoot:
    trusted = []
    for log in logs:
        is_v1 = isinstance(log, RekorV1Log)
        host = RekorV1Log.host if is_v1 else RekorV2Log.host
        apis = (LogApi.REKOR_V1, LogApi.REKOR_V2) if is_v1 else (LogApi.REKOR_V2,)
        trusted.append(TrustedLog(f"https://{host}", spki_of(log.log_key), log_id(log), apis))
    return TrustRoot("f" * 64, tuple(trusted), ())

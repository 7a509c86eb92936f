"""Trust material for clients and monitors: the log entries of a Sigstore trusted root.

Written with the field names of `trusted_root.json` and of a signing config, so a CA can copy them unchanged.
"""

import base64
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from log_lite.ledger import CT, V1, V2, Ledger
from log_lite.shard import Shard, v2_address

_OPERATOR: Final = "log-lite"
# Clients drop a key that starts in their future, and the clock of another machine may be behind.
_BACKDATED: Final = timedelta(days=1)


def trust_document(ledger: Ledger) -> dict[str, Any]:
    """Return trust.json: `tlogs`, `ctlogs`, `rekorTlogUrls`, and the API of each log by its base64 key id."""
    v1, v2, ct = (ledger.of_log(log) for log in (V1, V2, CT))
    # All Rekor v1 shards share key and URL, so clients know them as one log.
    tlogs = [_log_instance(v1[0]), *(_log_instance(shard, end=shard.row.ended_at) for shard in v2)]
    ctlogs = [_log_instance(shard) for shard in ct]
    apis = {tlogs[0]["logId"]["keyId"]: "rekor-v1"}
    apis.update({log["logId"]["keyId"]: "rekor-v2" for log in tlogs[1:]})
    apis.update({log["logId"]["keyId"]: "ct-rfc6962" for log in ctlogs})
    services = [_service(shard, 2) for shard in reversed(v2)] + [_service(v1[-1], 1)]
    return {"tlogs": tlogs, "ctlogs": ctlogs, "rekorTlogUrls": services, "apis": apis}


def _log_instance(shard: Shard, end: int | None = None) -> dict[str, Any]:
    key = shard.signer.key
    # SPEC sigstore_trustroot: a Rekor v2 log's id begins with its note key id; the others hash the key alone.
    log_id = shard.signer.verifier.log_id if shard.row.log == V2 else sha256(key.spki).digest()
    return {
        "baseUrl": shard.row.url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": base64.b64encode(key.spki).decode(),
            "keyDetails": key.key_details,
            "validFor": _validity(shard.row.created_at, end),
        },
        "logId": {"keyId": base64.b64encode(log_id).decode()},
    }


def _service(shard: Shard, version: int) -> dict[str, Any]:
    return {
        "url": v2_address(shard.row.url) if shard.row.log == V2 else shard.row.url,
        "majorApiVersion": version,
        "validFor": _validity(shard.row.created_at, shard.row.ended_at),
        "operator": _OPERATOR,
    }


def _validity(start: int, end: int | None) -> dict[str, str]:
    begins = datetime.fromtimestamp(start, UTC) - _BACKDATED
    validity = {"start": begins.strftime("%Y-%m-%dT%H:%M:%SZ")}
    if end is not None:
        validity["end"] = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return validity

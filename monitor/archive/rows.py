"""One row per log entry: who signed what and when, as column data.

`DECODER` is part of the archive's format: rows of one decoder version are a deterministic function of the log's bytes,
`time` of a Rekor v1 entry and `chain` excepted (the log's claim, and what was known of the certificate when reading).
"""

from base64 import b64decode
from binascii import Error
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import pyarrow as pa

from monitor.model.log_source import CT_APIS, LogApi, LogEntry, hashes_of, unread_entry
from rules.forges import github_repository, source_repository
from sigstore_entries.entry import decode_ct, decode_rekor
from sigstore_entries.signing import ChainTrust, EntryRef, KnownTime, Signer, SignerForm, Signing, Unreadable

DECODER: Final = 1
UNREADABLE: Final = "unreadable"
# The log's or an authority's clock before the certificate's: a certificate is issued shortly before it is used.
_TIMES: Final = ("integrated-time", "timestamp-response", "ct-timestamp", "certificate-not-before")
_SSH: Final = "SHA256:"

_texts: Final = pa.list_(pa.string())
_bytes: Final = pa.list_(pa.binary())
SCHEMA: Final = pa.schema(
    [
        pa.field("log", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC")),
        pa.field("time_source", pa.string()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("identities", _texts, nullable=False),
        pa.field("issuers", _texts, nullable=False),
        pa.field("repositories", _texts, nullable=False),
        pa.field("workflows", _texts, nullable=False),
        pa.field("refs", _texts, nullable=False),
        pa.field("triggers", _texts, nullable=False),
        pa.field("digests", _bytes, nullable=False),
        pa.field("fingerprints", _bytes, nullable=False),
        pa.field("chain", pa.string(), nullable=False),
        pa.field("trust_root", pa.string()),
        pa.field("defect", pa.string()),
        pa.field("leaf_hash", pa.binary(32), nullable=False),
    ]
)
NOT_FROM_LEAF: Final = ("chain", "trust_root")


def rows_of(entries: Sequence[LogEntry], start: int, log: str, api: LogApi) -> pa.RecordBatch:
    """Rows of entries `[start, start + len(entries))` of one tree, in order. Never raises for what an entry holds."""
    hashes = hashes_of(entries)
    columns: list[list[Any]] = [[] for _ in SCHEMA.names]
    for offset, (entry, leaf_hash) in enumerate(zip(entries, hashes, strict=True)):
        signing = decoded(entry, EntryRef(log, start + offset), api)
        for column, value in zip(columns, (log, start + offset, *_values(signing), leaf_hash), strict=True):
            column.append(value)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def decoded(entry: LogEntry, where: EntryRef, api: LogApi) -> Signing | Unreadable:
    """Decode one entry by the log's protocol."""
    if entry.unread:
        return unread_entry(where, entry.unread)
    if api in CT_APIS:
        return decode_ct(entry.leaf, where, entry.extra)
    return decode_rekor(entry.leaf, where, entry.integrated_time)


def _values(signing: Signing | Unreadable) -> tuple[Any, ...]:
    """Values of the columns from `time` to `defect`."""
    if isinstance(signing, Unreadable):
        return (
            None,
            None,
            UNREADABLE,
            (),
            (),
            (),
            (),
            (),
            (),
            (),
            (),
            ChainTrust.NO_CERTIFICATE.value,
            None,
            signing.code,
        )
    at, source = _time(signing.times)
    signers = signing.signers
    return (
        at,
        source,
        signing.kind,
        _each(name.value for signer in signers for name in signer.names),
        _each(issuer for signer in signers for issuer in _issuers(signer)),
        _each(repository for signer in signers for repository in _repositories(signer)),
        _each(uri for signer in signers for uri in _workflows(signer)),
        _each(ref for signer in signers for ref in _claims(signer, "source_repository_ref", "github_workflow_ref")),
        _each(name for signer in signers for name in _claims(signer, "build_trigger", "github_workflow_trigger")),
        _each(bytes.fromhex(digest.value) for digest in signing.digests),
        _each(fingerprint_bytes(text) for signer in signers for text in signer.fingerprints),
        _chain(signers),
        None,
        _defect(signers),
    )


def _time(times: Sequence[KnownTime]) -> tuple[datetime | None, str | None]:
    known = {each.source: each.at for each in reversed(times)}
    for source in _TIMES:
        if source in known:
            return known[source], source
    return None, None


def _each(values: Iterable[Any]) -> tuple[Any, ...]:
    # JSON can spell half of a surrogate pair, which UTF-8 cannot.
    return tuple(dict.fromkeys(_utf8(value) if isinstance(value, str) else value for value in values))


def _utf8(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _issuers(signer: Signer) -> Iterable[str]:
    if signer.issuer is not None:
        yield signer.issuer
    yield from _claims(signer, "issuer", "issuer_v1")


def _claims(signer: Signer, *names: str) -> Iterable[str]:
    return (signer.claims[name] for name in names if name in signer.claims)


def _workflows(signer: Signer) -> Iterable[str]:
    """Workflows that the certificate names beside its identities, which hold nearly all of them."""
    names = {name.value for name in signer.names}
    return (uri for uri in _claims(signer, "build_config_uri", "build_signer_uri") if uri not in names)


def _repositories(signer: Signer) -> Iterable[str]:
    """The repository as the certificate says it, and on the host that the certificate means."""
    yield from _claims(signer, "source_repository_uri")
    found = source_repository(signer) or github_repository(signer)
    if found is not None:
        yield found


def fingerprint_bytes(text: str) -> bytes:
    """Fingerprint as bytes: hexadecimal, or OpenSSH's unpadded base64 behind `SHA256:`; other text as it is."""
    try:
        if text.startswith(_SSH):
            return b64decode(text[len(_SSH) :] + "=", validate=True)
        return bytes.fromhex(text)
    except (ValueError, Error):
        return text.encode()


def _chain(signers: Sequence[Signer]) -> str:
    forms = {signer.form for signer in signers}
    if forms.isdisjoint({SignerForm.CERTIFICATE, SignerForm.PRECERTIFICATE}):
        return ChainTrust.NO_CERTIFICATE.value
    return ChainTrust.NOT_CHECKED.value


def _defect(signers: Sequence[Signer]) -> str | None:
    """Name of the first part that could not be read: what depends on it may be missing from the row."""
    found = sorted(each.partition(":")[0][:40] for signer in signers for each in signer.defects)
    return found[0] if found else None

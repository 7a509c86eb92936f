"""One row per log entry: signers, digests and times, as column data.

`DECODER` is part of the archive's format: rows of one decoder version are a deterministic function of the log's bytes,
except `time` of a Rekor v1 entry (the log's claim), `chains` and `trust_root` (the trust root at the time of reading).
"""

from base64 import b64decode
from binascii import Error
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import pyarrow as pa
from msgspec import Struct
from msgspec.structs import replace

from monitor.model.log_source import CT_APIS, LogApi, LogEntry, hashes_of, unread_entry
from monitor.trust.trust_root import TrustRoot
from rules.pattern import github_repository, source_repository
from sigstore_entries.entry import decode_ct, decode_rekor
from sigstore_entries.signatures import LISTING_KINDS, check_signers
from sigstore_entries.signing import ChainTrust, EntryRef, KnownTime, Signer, SignerForm, Signing, Unreadable
from sigstore_entries.trust import CertificateAuthorities, CertificateAuthority

DECODER: Final = 1
UNREADABLE: Final = "unreadable"
LEFT_OUT: Final = "unread"
"""Defect of an entry with signers, keys or names that were left out (`sigstore_entries.signing.Signer.defects`)."""
# The log's or an authority's clock before the certificate's: a certificate is issued shortly before it is used.
_TIMES: Final = ("integrated-time", "timestamp-response", "ct-timestamp", "certificate-not-before")
_SSH: Final = "SHA256:"
_ISSUERS: Final = ("issuer", "issuer_v1")
_CLAIMED: Final = (
    ("source_repository_ref", "github_workflow_ref"),
    ("build_trigger", "github_workflow_trigger"),
    ("source_repository_identifier",),
    ("source_repository_owner_identifier",),
    ("runner_environment",),
)
_WORKFLOWS: Final = ("build_config_uri", "build_signer_uri")
_REPOSITORIES: Final = ("source_repository_uri",)

_texts: Final = pa.list_(pa.string())
_bytes: Final = pa.list_(pa.binary())
_OF_SIGNER: Final = (
    pa.field("identities", _texts, nullable=False),
    pa.field("issuers", _texts, nullable=False),
    pa.field("repositories", _texts, nullable=False),
    pa.field("workflows", _texts, nullable=False),
    pa.field("refs", _texts, nullable=False),
    pa.field("triggers", _texts, nullable=False),
    pa.field("repository_ids", _texts, nullable=False),
    pa.field("owner_ids", _texts, nullable=False),
    pa.field("runners", _texts, nullable=False),
    pa.field("fingerprints", _bytes, nullable=False),
)
SIGNER_TEXTS: Final = tuple(each.name for each in _OF_SIGNER if each.type == _texts)
"""Columns that say something about a signer, in text."""
SCHEMA: Final = pa.schema(
    [
        pa.field("log", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC")),
        pa.field("time_source", pa.string()),
        pa.field("not_before", pa.timestamp("us", tz="UTC")),
        pa.field("kind", pa.string(), nullable=False),
        *_OF_SIGNER,
        pa.field("digests", _bytes, nullable=False),
        pa.field("chains", _texts, nullable=False),
        # Columns of each signer of an entry with several signers, with all fingerprints; the row itself describes a
        # single signer.
        pa.field("signers", pa.list_(pa.struct(_OF_SIGNER))),
        pa.field("trust_root", pa.string()),
        pa.field("defect", pa.string()),
        pa.field("leaf_hash", pa.binary(32), nullable=False),
    ]
)
KEYS: Final = pa.field("keys", _bytes, nullable=False)
"""Fingerprints of the keys in certificates. The index alone keeps them: each belongs to one certificate, as a rule."""
MADE_SCHEMA: Final = SCHEMA.append(KEYS)
"""Rows as they are made, before a file of rows and an index are written of them."""
NOT_FROM_LEAF: Final = ("chains", "trust_root")


class Chain(StrEnum):
    """Trust in one signer at the time when its entry was archived."""

    TRUSTED = "trusted"
    """A certificate authority of the trust root issued the certificate."""
    UNTRUSTED = "untrusted"
    """No such authority issued the certificate: any person can make one, with any name in it."""
    KEY = "key"
    """A key without a certificate."""
    LISTED = "listed"
    """The entry lists the certificate or key, and does not show that it made the entry's signature."""
    NOT_CHECKED = "not-checked"
    """No trust root was available."""


_CHAINS: Final = {
    ChainTrust.TRUSTED: Chain.TRUSTED,
    ChainTrust.UNTRUSTED: Chain.UNTRUSTED,
    ChainTrust.NO_CERTIFICATE: Chain.KEY,
}


class RowTrust(Struct, frozen=True):
    """Authorities that may issue certificates, by the trust root with this fingerprint (hex SHA-256 of its file)."""

    fingerprint: str
    authorities: tuple[CertificateAuthority, ...]

    @classmethod
    def of(cls, root: TrustRoot) -> "RowTrust":
        """The part of a trust root that rows are judged by; it can be sent to another process, unlike the root."""
        return cls(root.fingerprint, root.authorities)


def rows_of(entries: Sequence[LogEntry], start: int, log: str, api: LogApi, trust: RowTrust | None) -> pa.RecordBatch:
    """Rows of entries `[start, start + len(entries))` of one tree, in order. Never raises for any bytes of an entry.

    They have `MADE_SCHEMA`. Chains are judged by `trust`; they are not checked if it is `None`.
    """
    hashes = hashes_of(entries)
    columns: list[list[Any]] = [[] for _ in MADE_SCHEMA.names]
    for offset, (entry, leaf_hash) in enumerate(zip(entries, hashes, strict=True)):
        signing = decoded(entry, EntryRef(log, start + offset), api)
        chains = _chains(entry.leaf, signing, trust)
        values = (log, start + offset, *_values(signing, chains, trust), leaf_hash, _keys(signing))
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, MADE_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=MADE_SCHEMA)


def decoded(entry: LogEntry, where: EntryRef, api: LogApi) -> Signing | Unreadable:
    """Decode one entry by the log's protocol."""
    if entry.unread:
        return unread_entry(where, entry.unread)
    if api in CT_APIS:
        return decode_ct(entry.leaf, where, entry.extra)
    return decode_rekor(entry.leaf, where, entry.integrated_time)


def _values(signing: Signing | Unreadable, chains: Sequence[str], trust: RowTrust | None) -> tuple[Any, ...]:
    """Values of the columns from `time` to `defect`."""
    if isinstance(signing, Unreadable):
        none: tuple[Any, ...] = ((),) * len(_OF_SIGNER)
        return None, None, None, UNREADABLE, *none, (), (), None, None, signing.code
    at, source = _time(signing.times)
    signers = [_of_signer(each) for each in signing.signers]
    one = signers[0] if len(signers) == 1 else _together(signers)
    several = None
    if len(signers) > 1:
        several = [
            dict(zip(_SIGNER_NAMES, each, strict=True)) | {"fingerprints": _prints(signer.fingerprints)}
            for each, signer in zip(signers, signing.signers, strict=True)
        ]
    return (
        at,
        source,
        next((signer.not_before for signer in signing.signers if signer.not_before is not None), None),
        signing.kind,
        *one,
        _once([bytes.fromhex(digest.value) for digest in signing.digests]),
        chains,
        several,
        None if trust is None else trust.fingerprint,
        _defect(signing.signers),
    )


_SIGNER_NAMES: Final = tuple(each.name for each in _OF_SIGNER)


def _of_signer(signer: Signer) -> tuple[Sequence[Any], ...]:
    """Values of the columns in `_OF_SIGNER`."""
    return (
        _texts_of([name.value for name in signer.names]),
        _texts_of(_issuers(signer)),
        _texts_of(_repositories(signer)),
        _texts_of(_workflows(signer)),
        *(_texts_of(_claims(signer, names)) for names in _CLAIMED),
        _prints(signer.fingerprints[:1] if signer.form is SignerForm.CERTIFICATE else signer.fingerprints),
    )


def _prints(texts: Sequence[str]) -> tuple[bytes, ...]:
    return _once([fingerprint_bytes(text) for text in texts])


def _keys(signing: Signing | Unreadable) -> Sequence[bytes]:
    """Fingerprints that the signers have and the column `fingerprints` leaves out, ascending."""
    if isinstance(signing, Unreadable):
        return ()
    if len(signing.signers) == 1:
        (one,) = signing.signers
        return _prints(one.fingerprints[1:]) if one.form is SignerForm.CERTIFICATE else ()
    kept = {value for each in signing.signers for value in _of_signer(each)[-1]}
    return sorted({value for each in signing.signers for value in _prints(each.fingerprints)} - kept)


def _together(signers: Sequence[tuple[Sequence[Any], ...]]) -> tuple[Sequence[Any], ...]:
    """Values of all signers of an entry, without duplicates."""
    if not signers:
        return ((),) * len(_OF_SIGNER)
    return tuple(_once([value for values in column for value in values]) for column in zip(*signers, strict=True))


def _chains(leaf: bytes, signing: Signing | Unreadable, trust: RowTrust | None) -> list[str]:
    """Trust in each signer, in the entry's order."""
    if isinstance(signing, Unreadable):
        return []
    if trust is None:
        return [_chain(each, each.trust) for each in signing.signers]
    authorities = _authorities(trust)
    if signing.kind not in LISTING_KINDS:
        return [_chain(each, authorities.trust_of(each)) for each in signing.signers]
    signers = [authorities.judge_chain(each) for each in signing.signers]
    if any(each.trust is ChainTrust.TRUSTED for each in signers):
        signers = list(check_signers(leaf, replace(signing, signers=tuple(signers))).signers)
    return [_chain(each, each.trust) for each in signers]


def _chain(signer: Signer, trust: ChainTrust) -> str:
    is_key = signer.certificate is None and signer.issuer_key_hash is None
    if trust is ChainTrust.NOT_CHECKED and not is_key:
        return Chain.NOT_CHECKED
    # A signer with an OpenPGP ring has several fingerprints, of which some may only be listed.
    if {*signer.fingerprints} and {*signer.fingerprints} <= {*signer.only_listed, *signer.maybe_signed}:
        return Chain.LISTED
    return Chain.KEY if is_key else _CHAINS[trust]


@lru_cache(maxsize=4)
def _authorities(trust: RowTrust) -> CertificateAuthorities:
    return CertificateAuthorities(trust.authorities)


def _time(times: Sequence[KnownTime]) -> tuple[datetime | None, str | None]:
    known = {each.source: each.at for each in reversed(times)}
    for source in _TIMES:
        if source in known:
            return known[source], source
    return None, None


def _texts_of(values: list[str]) -> tuple[str, ...]:
    """The texts without duplicates; characters that UTF-8 cannot hold are escaped."""
    if len(values) < 2 and all(map(str.isascii, values)):  # noqa: PLR2004  one text has no duplicate
        return tuple(values)
    # JSON can spell half of a surrogate pair, which UTF-8 cannot.
    return tuple(dict.fromkeys([_utf8(value) for value in values]))


def _once(values: list[Any]) -> tuple[Any, ...]:
    return tuple(values) if len(values) < 2 else tuple(dict.fromkeys(values))  # noqa: PLR2004


def _utf8(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _issuers(signer: Signer) -> list[str]:
    claimed = _claims(signer, _ISSUERS)
    return claimed if signer.issuer is None else [signer.issuer, *claimed]


def _claims(signer: Signer, names: tuple[str, ...]) -> list[str]:
    claims = signer.claims
    return [claims[name] for name in names if name in claims]


def _workflows(signer: Signer) -> list[str]:
    """Workflows that the certificate names in addition to its identities, which hold nearly all workflows."""
    names = {name.value for name in signer.names}
    return [uri for uri in _claims(signer, _WORKFLOWS) if uri not in names]


def _repositories(signer: Signer) -> list[str]:
    """The repository as the certificate spells it, and with the host that the certificate implies."""
    said = _claims(signer, _REPOSITORIES)
    found = source_repository(signer) or github_repository(signer)
    return said if found is None else [*said, found]


def fingerprint_bytes(text: str) -> bytes:
    """Fingerprint as bytes: hexadecimal, or OpenSSH's unpadded base64 behind `SHA256:`; other text as it is."""
    try:
        if text.startswith(_SSH):
            return b64decode(text[len(_SSH) :] + "=", validate=True)
        return bytes.fromhex(text)
    except (ValueError, Error):
        return text.encode()


def _defect(signers: Sequence[Signer]) -> str | None:
    """Name of one part that could not be read: values that depend on this part may be missing from the row.

    It is `LEFT_OUT` where signers, keys or names were left out, also when other parts are defective.
    """
    found = {each.partition(":")[0][:40] for signer in signers for each in signer.defects}
    return LEFT_OUT if LEFT_OUT in found else min(found, default=None)

"""Decode a CT log's MerkleTreeLeaf (RFC 6962 3.4), certificate or precertificate, into a `Signing`."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sigstore_entries import der
from sigstore_entries.certificate import MAX_CERTIFICATE, read_certificate, read_precertificate
from sigstore_entries.decoded import failed
from sigstore_entries.issued import tbs_without_scts
from sigstore_entries.signing import EntryRef, KnownTime, Signer, Signing, Unreadable
from tlog.ct import CtLeaf, EntryType, MalformedCt, Reader, parse_leaf

VERSION = "v1"
MAX_CHAIN = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decode_ct(leaf: bytes, where: EntryRef, extra: bytes = b"") -> Signing | Unreadable:
    """Decode a leaf as it is hashed into the tree. Never raises for any bytes; see `Unreadable.code` for why not.

    `extra` is RFC 6962 4.6 `extra_data`. The tree does not cover it, so it is used only where it agrees with the
    leaf; a log that serves none, or nonsense, changes nothing but the signer's `certificate`, `chain` and defects.
    Kinds are `certificate` and `precertificate`. Codes: `malformed-leaf`, `malformed-certificate`, `decoder-failed`.
    """
    try:
        parsed = parse_leaf(leaf)
        if parsed.entry_type is EntryType.PRECERT:
            signer = _precertificate(parsed, extra)
        else:
            signer = _certificate(parsed, extra)
    except MalformedCt as error:
        return Unreadable(where, "malformed-leaf", str(error))
    except der.MalformedDer as error:
        return Unreadable(where, "malformed-certificate", f"the certificate cannot be read: {error}")
    except BaseException as error:  # noqa: BLE001  `failed` raises again what is not the entry's doing
        return failed(where, error)
    return Signing(where, signer.form.value, VERSION, (signer,), (), _times(parsed, signer))


def _certificate(leaf: CtLeaf, extra: bytes) -> Signer:
    chain, _ = _read_extra(extra, EntryType.X509)
    return read_certificate(leaf.certificate, chain)


def _precertificate(leaf: CtLeaf, extra: bytes) -> Signer:
    chain, signed = _read_extra(extra, EntryType.PRECERT)
    defects: tuple[str, ...] = ()
    if signed is not None and not _same(signed, leaf.certificate):
        signed, chain = None, ()
        defects = ("chain: the log served a precertificate that is not the one in the tree",)
    return replace(read_precertificate(leaf.certificate, signed, chain, defects), issuer_key_hash=leaf.issuer_key_hash)


def _same(precertificate: bytes, tbs: bytes) -> bool:
    try:
        return tbs_without_scts(precertificate) == tbs
    except der.MalformedDer:
        return False


def _read_extra(extra: bytes, kind: EntryType) -> tuple[tuple[bytes, ...], bytes | None]:
    if not extra or len(extra) > MAX_CHAIN * MAX_CERTIFICATE:
        return (), None
    try:
        reader = Reader(extra)
        signed = reader.vector(3) if kind is EntryType.PRECERT else None
        listed = Reader(reader.vector(3))
        reader.finish()
        chain: list[bytes] = []
        while listed.left() and len(chain) < MAX_CHAIN:
            chain.append(listed.vector(3))
    except MalformedCt:
        return (), None
    return tuple(chain), signed


def _times(leaf: CtLeaf, signer: Signer) -> tuple[KnownTime, ...]:
    times = []
    with suppress(OverflowError):  # a timestamp after the year 9999 tells no time
        times.append(KnownTime("ct-timestamp", _EPOCH + timedelta(milliseconds=leaf.timestamp)))
    if signer.not_before is not None:
        times.append(KnownTime("certificate-not-before", signer.not_before))
    return tuple(times)

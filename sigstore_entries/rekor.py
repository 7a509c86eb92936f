"""Decode a Rekor entry body, version 1 or 2 of the log, into a `Signing`."""

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from sigstore_entries import envelopes, packages
from sigstore_entries.body import Fields, MalformedBody, read_json, shown
from sigstore_entries.decoded import Decoded, failed
from sigstore_entries.signing import EntryRef, KnownTime, Signing, Unreadable
from sigstore_entries.timestamp import rfc3161_v1
from sigstore_entries.tuf_metadata import tuf_v1
from sigstore_entries.verifier import MalformedVerifier

# logs of both API versions: (kind, apiVersion). hashedrekord and dsse 0.0.2 are Rekor v2's.
KINDS: Final[Mapping[tuple[str, str], Callable[[Fields], Decoded]]] = MappingProxyType(
    {
        ("hashedrekord", "0.0.1"): envelopes.hashedrekord_v1,
        ("hashedrekord", "0.0.2"): envelopes.hashedrekord_v2,
        ("dsse", "0.0.1"): envelopes.dsse_v1,
        ("dsse", "0.0.2"): envelopes.dsse_v2,
        ("intoto", "0.0.1"): envelopes.intoto_v1,
        ("intoto", "0.0.2"): envelopes.intoto_v2,
        ("cose", "0.0.1"): envelopes.cose_v1,
        ("rekord", "0.0.1"): packages.rekord_v1,
        ("jar", "0.0.1"): packages.jar_v1,
        ("rpm", "0.0.1"): packages.rpm_v1,
        ("alpine", "0.0.1"): packages.alpine_v1,
        ("helm", "0.0.1"): packages.helm_v1,
        ("tuf", "0.0.1"): tuf_v1,
        ("rfc3161", "0.0.1"): rfc3161_v1,
    }
)


def decode_rekor(body: bytes, where: EntryRef, integrated_time: datetime | None = None) -> Signing | Unreadable:
    """Decode a canonical body as the log serves it. Never raises for any bytes; see `Unreadable.code` for why not.

    `integrated_time` is Rekor v1's, which stands outside the body; version 2 has none. Codes: `too-large`,
    `malformed-json`, `repeated-key`, `malformed-body`, `unsupported-kind`, `malformed-certificate`, `malformed-key`,
    `decoder-failed`. Of an entry that is read in part `signing.left_out` tells: `unreadable-signer`.
    """
    try:
        return _decode(body, where, integrated_time)
    except (MalformedBody, MalformedVerifier) as error:
        return Unreadable(where, error.code, str(error))
    except BaseException as error:  # noqa: BLE001  `failed` raises again what is not the entry's doing
        return failed(where, error)


def _decode(body: bytes, where: EntryRef, integrated_time: datetime | None) -> Signing | Unreadable:
    top = Fields(read_json(body, "the body"), "body")
    kind, version = top.text("kind"), top.text("apiVersion")
    decode = KINDS.get((kind, version))
    if decode is None:
        return Unreadable(where, "unsupported-kind", f"no decoder for kind {shown(kind)} version {shown(version)}")
    decoded = decode(top.object("spec"))
    times = decoded.times + tuple(
        KnownTime("certificate-not-before", signer.not_before) for signer in decoded.signers if signer.not_before
    )
    if integrated_time is not None:
        times = (KnownTime("integrated-time", integrated_time), *times)
    return Signing(where, kind, version, decoded.signers, decoded.digests, times)

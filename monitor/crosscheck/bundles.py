"""Reads the log's statements in users' own bundles, which a log cannot know to be compared.

A bundle carries the log's signature over the tree that its signer saw. Compared with the heads that this monitor saw,
the bundle reveals a split view. Reading is pure: bytes and a trust root in, verified views out. Only the log's
statements are verified here, not the artifact's signature: that is a Sigstore client's job.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.x509 import load_der_x509_certificate
from msgspec import Struct
from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

from alerts.alert import rfc3339
from alerts.inert import inert_line
from monitor.logs.tile_tree import ReadNote, head_of
from monitor.model.errors import PromiseKind, PromiseStatement, SignwatchError
from monitor.model.inclusion_promise import BadPromise, InclusionPromise, promise_of, read_promise
from monitor.model.log_source import LogApi, LogIdentity, SignedHead
from monitor.trust.trust_root import TrustedLog, TrustRoot
from sigstore_entries import logged_entry
from sigstore_entries.bundle_file import HeldBundle, NoBundle
from sigstore_entries.certificate import read_certificate
from sigstore_entries.trust import CertificateAuthorities, NotTrusted
from tlog.merkle import NodeHash
from tlog.nodes import Coordinate
from tlog.note import MalformedNote, parse_note

_MAX_ENTRIES: Final = 100
_MAX_ORIGIN: Final = 200
_STAGING: Final = ".sigstage.dev"


class BadBundle(SignwatchError):
    """The file is no bundle, or its log statements do not verify. The file proves nothing about the log."""


class EntryWithoutProof(BadBundle):
    """A log entry without an inclusion proof: it may hold a promise of the log (`read_timestamps`)."""


class EntryOfUnknownLog(BadBundle):
    """A log entry of a log that is not in the trust root."""


class BundleView(Struct, frozen=True):
    """A log's signed statements that one bundle proves: a head, the leaf below it, and every full subtree between them.

    `identity` is the tree and its key, as the bundle names it and the signature confirms; `log` is the log of the trust
    root that the key belongs to. `proof` is the inclusion proof.
    """

    log: TrustedLog
    identity: LogIdentity
    head: SignedHead
    index: int
    leaf: bytes
    proof: tuple[NodeHash, ...]
    nodes: Mapping[Coordinate, NodeHash]


class BundlePromise(Struct, frozen=True):
    """A log's promise that one bundle holds. `identity` is the log by its key; a promise names no tree."""

    log: TrustedLog
    identity: LogIdentity
    promise: InclusionPromise


class UnloggedBundle(Struct, frozen=True):
    """Checks of a bundle without a log entry: the issuer of its certificate, and the timestamps that verify.

    `issuer` is `None` where no authority of the trust root issued it, `timestamps` are (authority, time).
    """

    has_certificate: bool
    issuer: str | None
    timestamps: tuple[tuple[str, datetime], ...]
    unverified: int

    @property
    def told(self) -> str:
        """The results as clauses joined by semicolons, without a full stop."""
        parts = ["the bundle holds no log entry, so no log is shown to know of it"]
        if self.has_certificate:
            by = f"was issued by {self.issuer}" if self.issuer else "is of no certificate authority of the trust root"
            parts.append(f"its certificate {by}")
        for authority, at in self.timestamps:
            parts.append(f"its timestamp of {rfc3339(at)} by {authority} verifies")
        if self.unverified:
            parts.append(f"timestamps that verify under no timestamp authority of the trust root: {self.unverified}")
        return "; ".join(parts)


def read_entries(held: HeldBundle, trust: TrustRoot) -> list[BundleView | BadBundle]:
    """Verify every log entry of a bundle by itself: the view that the entry proves, or the reason for none.

    Raises `BadBundle` if the entries cannot be read.
    """
    return [_read_entry(entry, trust) for entry in _entries(held)]


def read_timestamps(held: HeldBundle, trust: TrustRoot) -> list[BundlePromise | BadBundle | None]:
    """Verify the signed entry timestamp of every log entry of a bundle; `None` where an entry has none.

    In the order of `read_entries`. A timestamp that the log did not sign proves nothing about the log: a third party
    may have made it. Raises `BadBundle` if the entries cannot be read.
    """
    return [_read_timestamp(entry, trust) for entry in _entries(held)]


def read_certificate_timestamps(
    held: HeldBundle, trust: TrustRoot, authorities: CertificateAuthorities
) -> list[BundlePromise | BadBundle]:
    """Verify the certificate timestamps in the certificate of a bundle; none where the bundle has no certificate."""
    try:
        leaf, *chain = held.certificates or (b"",)
        if not leaf:
            return []
        scts = authorities.embedded_scts(read_certificate(leaf, tuple(chain)), trust.ct_keys())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return [BadBundle(f"the certificate in the bundle cannot be read ({type(error).__name__}: {error!s:.80})")]
    if scts is None:
        return []
    logs = {log.spki: log for log in trust.logs if LogApi.CT_RFC6962 in log.apis}
    promises = [
        _promised(logs[each.spki], promise, trust) for each in scts if (promise := promise_of(each)) is not None
    ]
    return [*promises] or [BadBundle("no timestamp in the certificate verifies under a CT log of the trust root")]


def read_unlogged(held: HeldBundle, trust: TrustRoot, authorities: CertificateAuthorities) -> UnloggedBundle | None:
    """Check certificate and timestamps of a bundle without a log entry; `None` for a bundle with one.

    Raises `BadBundle`.
    """
    try:
        if held.entries:
            return None
        certificates, stamps = held.certificates, held.timestamps
        signature = held.signature if stamps else b""
    except NoBundle as error:
        raise BadBundle(str(error)) from error
    issuer = None
    with suppress(NotTrusted):
        issuer = authorities.verify_chain(certificates[0], certificates[1:]).name if certificates else None
    found = [told for raw in stamps if (told := _stamped(raw, signature, trust)) is not None]
    return UnloggedBundle(bool(certificates), issuer, tuple(found), len(stamps) - len(found))


def stamped_at(held: HeldBundle, trust: TrustRoot) -> list[tuple[str, datetime]]:
    """Authority and time of each timestamp over the signature of a bundle that verifies. Raises `NoBundle`."""
    signature = held.signature
    return [told for raw in held.timestamps if (told := _stamped(raw, signature, trust)) is not None]


def _stamped(raw: bytes, signature: bytes, trust: TrustRoot) -> tuple[str, datetime] | None:
    """Authority and time of a timestamp over the signature; `None` where no authority of the root made it."""
    try:
        response = decode_timestamp_response(raw)
        at = response.tst_info.gen_time
    except ValueError:
        return None
    for authority in trust.timestamp_authorities:
        if (authority.valid_from and at < authority.valid_from) or (
            authority.valid_until and at > authority.valid_until
        ):
            continue
        try:
            leaf, *above = (load_der_x509_certificate(each) for each in authority.chain)
            verifier = VerifierBuilder().tsa_certificate(leaf).add_root_certificate((above or [leaf])[-1])
            for each in above[:-1]:
                verifier = verifier.add_intermediate_certificate(each)
            verifier.build().verify_message(response, signature)
        except (VerificationError, ValueError):
            continue
        return authority.name, at
    return None


def _read_entry(entry: Mapping[str, Any], trust: TrustRoot) -> BundleView | BadBundle:
    try:
        return _view(entry, trust)
    except BadBundle as bad:
        return bad
    except logged_entry.NoProof as lacking:
        return EntryWithoutProof(str(lacking))
    except logged_entry.NotLogged as error:
        return BadBundle(str(error))


def _view(entry: Mapping[str, Any], trust: TrustRoot) -> BundleView:
    checkpoint = logged_entry.checkpoint_of(entry)
    try:
        log = logged_entry.log_of(entry, _followable(trust))
    except logged_entry.UnknownLog as unknown:
        raise BadBundle(f"{unknown}{_named(checkpoint)}") from unknown
    found = logged_entry.proven_entry(entry, log)
    api = LogApi.REKOR_V1 if found.is_rekor_v1 and LogApi.REKOR_V1 in log.apis else LogApi.REKOR_V2
    identity = LogIdentity(log.name, api, found.key.name, found.tree_name, log.spki, trust.fingerprint)
    head = head_of(ReadNote(found.note, found.checkpoint), identity)
    return BundleView(log, identity, head, found.index, found.body, found.hashes, found.nodes)


def _read_timestamp(entry: Mapping[str, Any], trust: TrustRoot) -> BundlePromise | BadBundle | None:
    try:
        if not (entry.get("inclusionPromise") or {}).get("signedEntryTimestamp"):
            return None
        log = logged_entry.log_of(entry, _followable(trust))
        if LogApi.REKOR_V1 not in log.apis:
            return BadBundle(f"{log.name} signs no entry timestamps")
        stamp = logged_entry.entry_timestamp(entry, log)
        if stamp is None:
            return None
        promise = read_promise(PromiseStatement(PromiseKind.SET, stamp.statement, stamp.signature), log.spki)
    except logged_entry.NotLogged as error:
        return (EntryOfUnknownLog if isinstance(error, logged_entry.UnknownLog) else BadBundle)(str(error))
    except (AttributeError, BadPromise) as error:
        return BadBundle(f"the signed entry timestamp in the bundle shows nothing: {error!s:.200}")
    return _promised(log, promise, trust)


def _promised(log: TrustedLog, promise: InclusionPromise, trust: TrustRoot) -> BundlePromise:
    name = urlsplit(log.url).hostname or log.name
    api = LogApi.REKOR_V1 if promise.kind is PromiseKind.SET else LogApi.CT_RFC6962
    return BundlePromise(log, LogIdentity(log.name, api, name, name, log.spki, trust.fingerprint), promise)


def _entries(held: HeldBundle) -> Sequence[Mapping[str, Any]]:
    try:
        entries = held.entries
    except NoBundle as error:
        raise BadBundle(str(error)) from error
    if len(entries) > _MAX_ENTRIES:
        raise BadBundle(f"the bundle holds {len(entries)} log entries; at most {_MAX_ENTRIES} are looked at")
    return entries


def _followable(trust: TrustRoot) -> list[TrustedLog]:
    """Logs of entries.

    CT logs are left out: their key ids may equal an entry log's, and they sign no such checkpoints.
    """
    return [log for log in trust.logs if LogApi.CT_RFC6962 not in log.apis]


def _named(checkpoint: bytes) -> str:
    """Name of the deployment that an unknown log gives; unverified, because the log's key is unknown."""
    try:
        origin = inert_line(parse_note(checkpoint).text.split(b"\n", 1)[0].decode(), _MAX_ORIGIN)
    except MalformedNote:
        return ""
    if origin.partition(" ")[0].endswith(_STAGING):
        return (
            f". Its checkpoint says it is of {origin}: Sigstore's staging deployment, which has a trust root of its own"
        )
    return f". Its checkpoint says it is of {origin}: check it with the trust root of that deployment"

"""A Sigstore trusted root as values: logs with their keys, and authorities that may issue certificates.

A log's key is pinned to this log; no key is valid for all logs of the root, and names are not used to guess.
"""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from cryptography.hazmat.primitives.asymmetric import ed25519
from msgspec import Struct

from monitor.model.errors import OwnFault
from monitor.model.log_source import LogApi
from sigstore_entries.protobuf import canonical, read_json
from sigstore_entries.trust import BadAuthority, CertificateAuthorities, CertificateAuthority, CtLogKey
from tlog.note import MalformedNote, load_public_key, tile_log_key

MAX_SIZE: Final = 5 * 1024 * 1024
_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.trustedroot"
_SHA256: Final = {"SHA2_256", "HASH_ALGORITHM_UNSPECIFIED", ""}
_T = TypeVar("_T")
# SPEC protobuf ProtoJSON: a Timestamp names its offset from UTC.
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class TimeRange(msgspec.Struct, frozen=True):
    """SPEC protobuf-specs sigstore_common.proto TimeRange: "start" is required, "end" optional; both are inclusive."""

    start: _Instant | None = None
    end: _Instant | None = None


class _PublicKey(msgspec.Struct):
    rawBytes: bytes = b""  # noqa: N815  protobuf-specs' names
    validFor: TimeRange | None = None  # noqa: N815


class _LogId(msgspec.Struct):
    keyId: bytes = b""  # noqa: N815


class _LogInstance(msgspec.Struct):
    baseUrl: str = ""  # noqa: N815
    hashAlgorithm: str = ""  # noqa: N815
    publicKey: _PublicKey = msgspec.field(default_factory=_PublicKey)  # noqa: N815
    logId: _LogId = msgspec.field(default_factory=_LogId)  # noqa: N815
    operator: str = ""


class _Certificate(msgspec.Struct):
    rawBytes: bytes = b""  # noqa: N815


class _Chain(msgspec.Struct):
    certificates: list[_Certificate] = []


class _Subject(msgspec.Struct):
    organization: str = ""
    commonName: str = ""  # noqa: N815


class _Authority(msgspec.Struct):
    subject: _Subject = msgspec.field(default_factory=_Subject)
    uri: str = ""
    certChain: _Chain = msgspec.field(default_factory=_Chain)  # noqa: N815
    validFor: TimeRange | None = None  # noqa: N815


class _TrustedRoot(msgspec.Struct):
    mediaType: str  # noqa: N815
    tlogs: list[_LogInstance] = []
    certificateAuthorities: list[_Authority] = []  # noqa: N815
    ctlogs: list[_LogInstance] = []
    timestampAuthorities: list[_Authority] = []  # noqa: N815


class TrustedLog(Struct, frozen=True):
    """One log of a trusted root.

    `apis` are the protocols that its key and id allow, the likeliest first; a request to the log decides.

    `log_id` is the 32-byte key id as the root gives it; the period says when the key may have signed.
    """

    url: str
    spki: bytes
    log_id: bytes
    apis: tuple[LogApi, ...]
    valid_from: datetime | None = None
    valid_until: datetime | None = None

    @property
    def name(self) -> str:
        """Host and path of the URL."""
        return self.url.partition("://")[2].rstrip("/")


class TrustRoot(Struct, frozen=True):
    """A trusted root. `fingerprint` is the hex SHA-256 of the file; `skipped` lists the unusable parts with reasons."""

    fingerprint: str
    logs: tuple[TrustedLog, ...]
    authorities: tuple[CertificateAuthority, ...]
    timestamp_authorities: tuple[CertificateAuthority, ...] = ()
    skipped: tuple[str, ...] = ()

    def ct_keys(self) -> tuple[CtLogKey, ...]:
        """Keys of the CT logs, for checking timestamps embedded in certificates."""
        return tuple(
            CtLogKey(log.log_id, log.spki, log.valid_from, log.valid_until)
            for log in self.logs
            if LogApi.CT_RFC6962 in log.apis
        )

    def signer(self, api: LogApi, key_name: str, spki: bytes) -> TrustedLog | None:
        """Find the log of this root that signs with the key under this name in this protocol.

        The name is compared if the log's id covers it (Rekor v2 with Ed25519 or RSA). If not, one key may sign for
        trees with several names, which the root does not list.
        """
        for log in self.logs:
            if log.spki != spki or api not in log.apis:
                continue
            if api is not LogApi.REKOR_V2 or log.log_id in {sha256(spki).digest(), _named_id(key_name, spki)}:
                return log
        return None

    def log_at(self, url: str, api: LogApi | None = None, log_id: bytes | None = None) -> TrustedLog:
        """Find the one log at a URL, narrowed by protocol and key id. Raises `OwnFault` for none or several."""
        found = [
            log
            for log in self.logs
            if log.url.rstrip("/") == url.rstrip("/")
            and (api is None or api in log.apis)
            and (log_id is None or log.log_id == log_id)
        ]
        # A key for this protocol alone is preferred to a key for several protocols.
        certain = [log for log in found if log.apis == (api,)]
        found = certain or found
        if len(found) != 1:
            raise OwnFault(self._not_one(url, found))
        return found[0]

    def _not_one(self, url: str, found: Sequence[TrustedLog]) -> str:
        """Reason why no key, or more than one, fits the log, and the correction."""
        if len({log.log_id for log in found}) == 1:
            key = found[0].log_id.hex()
            return f"the trust root lists the key {key} {len(found)} times for a log at {url}: remove one entry from it"
        if found:
            keys = ", ".join(log.log_id.hex() for log in found)
            return f"the trust root holds {len(found)} keys for a log at {url}: say which by `log_id`, one of {keys}"
        known = ", ".join(sorted({log.url for log in self.logs})) or "none"
        unusable = f". Of no use in it: {'; '.join(self.skipped)}" if self.skipped else ""
        return (
            f"the trust root holds no key for a log at {url} that fits the protocol and the `log_id` asked for. "
            f"Logs in it: {known}{unusable}"
        )


def read_trust_root(raw: bytes) -> TrustRoot:
    """Read a trusted_root.json. Raises `OwnFault` for another document, or for an authority that is not a CA."""
    if len(raw) > MAX_SIZE:
        raise OwnFault(f"a trusted root of {len(raw)} bytes is longer than {MAX_SIZE}")
    try:
        root = read_message(raw, _TrustedRoot)
    except ValueError as error:
        raise OwnFault(f"not a trusted root: {error}") from error
    if not root.mediaType.startswith(_MEDIA_TYPE):
        raise OwnFault(f"not a trusted root: its media type is {root.mediaType!r:.120}")
    skipped: list[str] = []
    logs = [log for each in root.tlogs if (log := _read_log(each, skipped, ct=False)) is not None]
    logs += [log for each in root.ctlogs if (log := _read_log(each, skipped, ct=True)) is not None]
    authorities = tuple(_read_authority(each) for each in root.certificateAuthorities)
    try:
        CertificateAuthorities(authorities)
    except BadAuthority as error:
        raise OwnFault(f"the trusted root names a certificate authority that cannot be read: {error}") from error
    stampers = tuple(_read_authority(each) for each in root.timestampAuthorities)
    return TrustRoot(sha256(raw).hexdigest(), tuple(logs), authorities, stampers, tuple(skipped))


def read_message(raw: bytes, kind: type[_T]) -> _T:
    """Read protobuf JSON, in any spelling the format allows, into a struct. Raises `ValueError`."""
    # The only leniency: a number may be written as text, as 64-bit numbers must be.
    return msgspec.convert(canonical(read_json(raw)), type=kind, strict=False)


def _read_log(log: _LogInstance, skipped: list[str], *, ct: bool) -> TrustedLog | None:
    spki, log_id = log.publicKey.rawBytes, log.logId.keyId
    try:
        if not log_id:
            # The id determines protocol and name of the key; clients refuse the log too.
            raise ValueError("has no log id (`logId.keyId`)")  # noqa: TRY301
        apis = _ct_apis(spki, log_id) if ct else _rekor_apis(spki, log_id)
        if log.hashAlgorithm not in _SHA256:
            raise ValueError(f"hashes with {log.hashAlgorithm!r:.40}")  # noqa: TRY301
        if urlsplit(log.baseUrl).scheme not in {"http", "https"} or not urlsplit(log.baseUrl).hostname:
            raise ValueError("has no http(s) URL (`baseUrl`)")  # noqa: TRY301
        if log.publicKey.validFor is None or log.publicKey.validFor.start is None:
            # A missing start does not mean an open period: clients refuse such a key too.
            raise ValueError("has a key without a start of validity")  # noqa: TRY301
    except ValueError as error:
        # A log of an unknown kind must not make the whole root unusable; it is listed as skipped.
        what = "CT log" if ct else "Rekor log"
        at = f" at {log.baseUrl!r:.120}" if log.baseUrl else ""
        skipped.append(f"{what}{at} with the key {sha256(spki).hexdigest()[:16]}…: {error}")
        return None
    period = log.publicKey.validFor
    return TrustedLog(log.baseUrl.rstrip("/"), spki, log_id, apis, period.start, period.end)


def _rekor_apis(spki: bytes, log_id: bytes) -> tuple[LogApi, ...]:
    key = load_public_key(spki)
    if log_id != sha256(spki).digest():
        # Only C2SP key ids hash the log's name too, and only Rekor v2 uses them.
        return (LogApi.REKOR_V2,)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return (LogApi.REKOR_V1,)
    return (LogApi.REKOR_V1, LogApi.REKOR_V2)


def _named_id(name: str, spki: bytes) -> bytes | None:
    try:
        return tile_log_key(name, spki).log_id
    except MalformedNote:
        return None


def _ct_apis(spki: bytes, log_id: bytes) -> tuple[LogApi, ...]:
    load_public_key(spki)
    if log_id != sha256(spki).digest():
        # SPEC RFC 6962 3.2: "The "key_id" is the SHA-256 hash of the log's public key".
        raise MalformedNote("the log id is not the hash of its key")
    return (LogApi.CT_RFC6962, LogApi.CT_STATIC)


def _read_authority(authority: _Authority) -> CertificateAuthority:
    period = authority.validFor or TimeRange()
    subject = authority.subject
    name = authority.uri or " ".join(part for part in (subject.organization, subject.commonName) if part)
    chain = tuple(each.rawBytes for each in authority.certChain.certificates)
    return CertificateAuthority(name, chain, period.start, period.end)

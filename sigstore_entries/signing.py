"""The value of a decoded log entry."""

import copyreg
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from msgspec import Struct

from sigstore_entries.der import Tbs


def _read_only(mapping: dict[str, object]) -> MappingProxyType[str, object]:
    return MappingProxyType(mapping)


# A signing travels between processes, and Python does not pickle the read-only mappings in it by itself.
copyreg.pickle(MappingProxyType, lambda mapping: (_read_only, (dict(mapping),)))


class SignerForm(StrEnum):
    """Kind of verifier material in an entry."""

    CERTIFICATE = "certificate"
    PRECERTIFICATE = "precertificate"
    KEY = "key"
    PGP = "pgp"
    SSH = "ssh"
    MINISIGN = "minisign"


class NameForm(StrEnum):
    """Kind of name that a signer carries."""

    EMAIL = "email"
    URI = "uri"
    OTHER = "othername"
    DNS = "dns"
    IP = "ip"
    PGP_USER_ID = "pgp-user-id"
    PGP_ADDRESS = "pgp-address"


class ChainTrust(StrEnum):
    """Result of verifying a certificate's chain against the trust root."""

    NOT_CHECKED = "not-checked"
    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"
    NO_CERTIFICATE = "no-certificate"


class SignatureCheck(StrEnum):
    """Result of verifying the entry's own signature by the signer's key (`sigstore_entries.signatures`)."""

    NOT_CHECKED = "not-checked"
    VERIFIED = "verified"
    WRONG = "wrong"


class EntryRef(Struct, frozen=True, gc=False):
    """Place of an entry: the log's id as configured or discovered, and the leaf index in that one tree."""

    log: str
    index: int


class Name(Struct, frozen=True, gc=False):
    """A name as the certificate or key spells it. Untrusted text: never render it as markup."""

    form: NameForm
    value: str


class Digest(Struct, frozen=True, gc=False):
    """A digest of the artifact, envelope or payload: `algorithm` as `sha256`, `value` as lower-case hex."""

    algorithm: str
    value: str
    of: str = "artifact"


class KnownTime(Struct, frozen=True, gc=False):
    """A time with its source: `certificate-not-before`, `integrated-time`, `ct-timestamp`, `timestamp-response`."""

    source: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Signer:
    """One key that signed, with the content of its certificate or key block.

    `claims` maps readable Fulcio claim names (`sigstore_entries.certificate`) to text; `extensions` maps every dotted
    OID to the raw extension value. `fingerprints` are lower-case hex SHA-256 (certificate, SPKI), PGP hex in either
    case, or `SHA256:` SSH form. `issuer_key_hash` is a CT precertificate leaf's SHA-256 of the issuer's SPKI.
    `sct_verified` is `None` without an SCT, and for a certificate that no trusted authority issued. `issued` is
    the identity of a trusted certificate in every log that shows it (`sigstore_entries.der`), filled with `trust`;
    so is `signature`. `tbs` are the parts of `certificate`, as far as they were read already.

    Of an entry that lists several keys or certificates, `only_listed` are fingerprints of keys that did not make its
    signature, and `maybe_signed` those of which the entry does not show whether they did. Both are in `fingerprints`.

    `defects` names parts that could not be read, or are not as a certificate authority would write them:
    expectations that depend on them are unmet. Each is `part: sentence`; parts are `names`, `issuer`,
    `claim:<name>`, `extension:<oid>`,
    `validity`, `chain`, `certificate` for all of it, and `unread` for signers, keys or names that are left out.
    """

    form: SignerForm
    names: tuple[Name, ...] = ()
    issuer: str | None = None
    claims: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    extensions: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    fingerprints: tuple[str, ...] = ()
    certificate: bytes | None = None
    chain: tuple[bytes, ...] = ()
    issuer_key_hash: bytes | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    trust: ChainTrust = ChainTrust.NOT_CHECKED
    trusted_by: str | None = None
    sct_verified: bool | None = None
    issued: bytes | None = None
    signature: SignatureCheck = SignatureCheck.NOT_CHECKED
    only_listed: tuple[str, ...] = ()
    maybe_signed: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    tbs: Tbs | None = field(default=None, compare=False, repr=False)


class Signing(Struct, frozen=True):
    """The signers and digests of one log entry."""

    where: EntryRef
    kind: str
    version: str
    signers: tuple[Signer, ...]
    digests: tuple[Digest, ...] = ()
    times: tuple[KnownTime, ...] = ()

    @property
    def unread(self) -> str:
        """Reason why signers of the entry are left out as unreadable; empty when every signer was read."""
        return "; ".join(
            text
            for signer in self.signers
            for part, _, text in (each.partition(": ") for each in signer.defects)
            if part == "unread"
        )


class Unreadable(Struct, frozen=True):
    """An entry that is in the log but could not be decoded. `reason` is for people, `code` for metrics.

    The caller keeps the raw bytes: an unreadable entry is recorded and reported, never skipped.
    """

    where: EntryRef
    code: str
    reason: str


UNREADABLE_SIGNER = "unreadable-signer"
_SHOWN_NAMES = 3


def left_out(signing: Signing) -> Unreadable | None:
    """The unreadable part of a decoded entry, with the readable part; `None` when every part was read."""
    if not signing.unread:
        return None
    names = [name.value for signer in signing.signers for name in signer.names[:_SHOWN_NAMES]]
    keys = [f"key {key}" for signer in signing.signers for key in signer.fingerprints[:1]]
    shown = ", ".join(ascii(each)[1:-1][:100] for each in (names or keys)[:_SHOWN_NAMES])
    return Unreadable(signing.where, UNREADABLE_SIGNER, f"{signing.unread[:300]}. Read in it: {shown or 'no signer'}")


def digest_label(kind: str, of: str) -> str:
    """Label for a digest of an entry of this kind: the content that was hashed.

    A hashedrekord may hold the digest of a file, of a commit's id, or of an envelope's signed bytes, without a mark.
    """
    if kind == "hashedrekord":
        return "Digest of the signed bytes"
    return {"payload": "Digest of the statement", "envelope": "Digest of the envelope"}.get(of, f"Digest of {of}")

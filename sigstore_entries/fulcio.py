"""The Fulcio certificate extensions 1.3.6.1.4.1.57264.1.N: one table, written by the CA and read by the decoder.

Source: Fulcio's `docs/oid-info.md`. Extensions .1 to .6 hold the bare text, .8 and later a DER UTF8String; .7 is not
an extension but the type of the `otherName` in a username certificate's subject alternative name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

FULCIO_ARC: Final = "1.3.6.1.4.1.57264.1"
USERNAME_OTHER_NAME_OID: Final = f"{FULCIO_ARC}.7"  # otherName type-id, value a UTF8String `user!domain`
SCT_LIST_OID: Final = "1.3.6.1.4.1.11129.2.4.2"  # RFC 6962 3.3: OCTET STRING holding the SCT list
POISON_OID: Final = "1.3.6.1.4.1.11129.2.4.3"  # RFC 6962 3.1: critical, NULL, marks a precertificate

_UTF8_STRING: Final = 0x0C
_SHORT_FORM_LIMIT: Final = 0x80
_LAST_RAW: Final = 6  # .1 to .6 predate the DER form


@dataclass(frozen=True, slots=True)
class FulcioExtension:
    """One claim a Fulcio certificate can carry: `name` is the readable claim name, `title` the name people see."""

    number: int
    name: str
    title: str

    @property
    def oid(self) -> str:
        """Dotted object identifier."""
        return f"{FULCIO_ARC}.{self.number}"

    @property
    def raw(self) -> bool:
        """Whether the extension holds the bare text instead of a DER UTF8String."""
        return self.number <= _LAST_RAW

    def encode(self, value: str) -> bytes:
        """Extension value for a claim. Raises `ValueError` for an empty one: Fulcio leaves the extension out."""
        if not value:
            raise ValueError(f"{self.name} is empty: leave the extension out")
        return value.encode() if self.raw else encode_utf8_string(value)

    def decode(self, value: bytes) -> str:
        """Read an extension value. Raises `ValueError` when it is not exactly the encoding this number demands."""
        try:
            return value.decode() if self.raw else decode_utf8_string(value)
        except ValueError as error:
            raise ValueError(f"extension {self.oid} ({self.name}): {error}") from error


EXTENSIONS: Final[tuple[FulcioExtension, ...]] = (
    FulcioExtension(1, "issuer_v1", "Issuer"),
    FulcioExtension(2, "github_workflow_trigger", "GitHub Workflow Trigger"),
    FulcioExtension(3, "github_workflow_sha", "GitHub Workflow SHA"),
    FulcioExtension(4, "github_workflow_name", "GitHub Workflow Name"),
    FulcioExtension(5, "github_workflow_repository", "GitHub Workflow Repository"),
    FulcioExtension(6, "github_workflow_ref", "GitHub Workflow Ref"),
    FulcioExtension(8, "issuer", "Issuer (V2)"),
    FulcioExtension(9, "build_signer_uri", "Build Signer URI"),
    FulcioExtension(10, "build_signer_digest", "Build Signer Digest"),
    FulcioExtension(11, "runner_environment", "Runner Environment"),
    FulcioExtension(12, "source_repository_uri", "Source Repository URI"),
    FulcioExtension(13, "source_repository_digest", "Source Repository Digest"),
    FulcioExtension(14, "source_repository_ref", "Source Repository Ref"),
    FulcioExtension(15, "source_repository_identifier", "Source Repository Identifier"),
    FulcioExtension(16, "source_repository_owner_uri", "Source Repository Owner URI"),
    FulcioExtension(17, "source_repository_owner_identifier", "Source Repository Owner Identifier"),
    FulcioExtension(18, "build_config_uri", "Build Config URI"),
    FulcioExtension(19, "build_config_digest", "Build Config Digest"),
    FulcioExtension(20, "build_trigger", "Build Trigger"),
    FulcioExtension(21, "run_invocation_uri", "Run Invocation URI"),
    FulcioExtension(22, "source_repository_visibility", "Source Repository Visibility At Signing"),
    FulcioExtension(23, "deployment_environment", "Deployment Environment"),
    FulcioExtension(24, "token_subject", "Token Subject"),
)

BY_OID: Final[Mapping[str, FulcioExtension]] = MappingProxyType({each.oid: each for each in EXTENSIONS})
BY_NAME: Final[Mapping[str, FulcioExtension]] = MappingProxyType({each.name: each for each in EXTENSIONS})


def encode_utf8_string(value: str) -> bytes:
    """DER UTF8String (X.690 8.23)."""
    content = value.encode()
    if len(content) < _SHORT_FORM_LIMIT:
        return bytes((_UTF8_STRING, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((_UTF8_STRING, _SHORT_FORM_LIMIT | len(length))) + length + content


def decode_utf8_string(raw: bytes) -> str:
    """Read exactly one DER UTF8String. Raises `ValueError` for another tag, another length form or bytes left over."""
    if len(raw) < 2 or raw[0] != _UTF8_STRING:  # noqa: PLR2004  tag and length
        raise ValueError("not a DER UTF8String")
    start = 2
    length = raw[1]
    if length < _SHORT_FORM_LIMIT and len(raw) == start + length:
        return raw[start:].decode()  # X.690 8.1.3.4: the short form, which DER has for nearly every claim
    if length >= _SHORT_FORM_LIMIT:
        start += length & 0x7F
        length = int.from_bytes(raw[2:start], "big")
    content = raw[start:]
    if len(content) != length:
        raise ValueError(f"UTF8String says {length} bytes and holds {len(content)}")
    text = content.decode()
    # X.690 10.1: DER has one length form for a value, so writing it again must give the same bytes.
    if encode_utf8_string(text) != raw:
        raise ValueError("UTF8String length is not in DER form")
    return text

"""Writing checkpoints: the signed notes of Rekor v1, Rekor v2 and static CT, byte for byte as clients read them."""

import base64

from msgspec import Struct

from log_lite.keys import LogKey
from tlog.ct import tree_head_message
from tlog.note import NoteKey, rekor_v1_key, tile_log_key
from tlog.static_ct import static_ct_key

_SHA256_ECDSA = b"\x04\x03"


class HeadText(Struct, frozen=True):
    """Contents of a checkpoint: `size` leaves, 32-byte `root`, under `origin`, plus extension lines."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Serialise the note text, up to and including its last newline (C2SP tlog-checkpoint)."""
        lines = [self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions]
        return "".join(f"{line}\n" for line in lines).encode()


class NoteSigner(Struct, frozen=True):
    """A key with the name and key id it signs notes under."""

    key: LogKey
    verifier: NoteKey

    def with_key(self, key: LogKey) -> "NoteSigner":
        """Return a signer of the same form and name with another key, which must be ECDSA."""
        # Rekor v1 and v2 cut an ECDSA key's id from the same hash.
        return rekor_v1_signer(key, self.name)

    @property
    def name(self) -> str:
        """Key name on the signature line."""
        return self.verifier.name

    def line(self, blob: bytes) -> bytes:
        """Return the signature line that carries `blob` under this name and key id."""
        return signature_line(self.name, self.verifier.key_id, blob)

    def blob(self, head: HeadText, timestamp_ms: int) -> bytes:  # noqa: ARG002  only a CT tree head carries a time
        """Signature over `head`; `timestamp_ms` is the signing time, for formats that contain one."""
        return self.key.sign(head.to_bytes())


class CtNoteSigner(NoteSigner, frozen=True):
    """Signs as a static CT log: the RFC 6962 tree head instead of the note text, with its timestamp in front."""

    def with_key(self, key: LogKey) -> NoteSigner:
        """Return a signer of the same form and name with another key."""
        return ct_signer(key, self.name)

    def blob(self, head: HeadText, timestamp_ms: int) -> bytes:
        """SPEC static-ct-api, RFC6962NoteSignature: uint64 timestamp, then the digitally-signed TreeHeadSignature."""
        message = tree_head_message(head.size, timestamp_ms, head.root)
        return timestamp_ms.to_bytes(8, "big") + digitally_signed(self.key, message)


def signature_line(name: str, key_id: bytes, blob: bytes) -> bytes:
    """SPEC signed-note: em dash, space, key name, space, base64 of key id and signature, newline."""
    return f"— {name} {base64.b64encode(key_id + blob).decode()}\n".encode()


def assemble(text: bytes, *signature_lines: bytes) -> bytes:
    """Join text and signature lines. Exactly one empty line: sigstore-python refuses a second one."""
    return text + b"\n" + b"".join(signature_lines)


def digitally_signed(key: LogKey, message: bytes) -> bytes:
    """TLS DigitallySigned by ECDSA with SHA-256 (RFC 6962 2.1.4)."""
    signature = key.sign(message)
    return _SHA256_ECDSA + len(signature).to_bytes(2, "big") + signature


def rekor_v1_signer(key: LogKey, host: str) -> NoteSigner:
    """Rekor v1 signs under the bare host, although its origin carries the tree id as well."""
    return NoteSigner(key, rekor_v1_key(host, key.spki))


def rekor_v2_signer(key: LogKey, origin: str) -> NoteSigner:
    """Rekor v2 signs under its origin: the shard's host without a port."""
    return NoteSigner(key, tile_log_key(origin, key.spki))


def ct_signer(key: LogKey, origin: str) -> CtNoteSigner:
    """Static CT signs under its origin, with a key id of type 0x05."""
    return CtNoteSigner(key, static_ct_key(origin, key.spki))

"""A strict client of the log's three APIs: it signs, submits, and believes nothing it did not verify with `tlog`."""

import base64
import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.entries import make_key
from tests.support.log_server import LogServer
from tests.support.waiting import PATIENCE
from tlog.ct import TreeHead, verify_tree_head
from tlog.merkle import leaf_hash, verify_inclusion
from tlog.note import Checkpoint, NoteKey, open_note, parse_checkpoint, rekor_v1_key, tile_log_key
from tlog.static_ct import open_ct_checkpoint, static_ct_key

KEY = make_key("log_lite client")
Json = dict[str, Any]


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hashedrekord(artifact: bytes, key: ec.EllipticCurvePrivateKey = KEY) -> Json:
    """A Rekor v1 proposal for an artifact, correctly signed."""
    return {
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": sha256(artifact).hexdigest()}},
            "signature": {
                "content": b64(key.sign(artifact, ec.ECDSA(SHA256()))),
                "publicKey": {"content": b64(pem_of(key))},
            },
        },
    }


def hashedrekord_v2(artifact: bytes, key: ec.EllipticCurvePrivateKey = KEY) -> Json:
    """A Rekor v2 request for an artifact, correctly signed."""
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    verifier = {"publicKey": {"rawBytes": b64(spki)}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    signature = {"content": b64(key.sign(artifact, ec.ECDSA(SHA256()))), "verifier": verifier}
    return {"hashedRekordRequestV002": {"digest": b64(sha256(artifact).digest()), "signature": signature}}


@dataclass
class LogClient:
    """Talks to one served log, with keys read from its trust.json."""

    server: LogServer
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=PATIENCE))

    @property
    def url(self) -> str:
        return self.server.url

    def trust(self) -> Json:
        document: Json = json.loads((self.server.folder / "trust.json").read_text())
        return document

    def spki(self, position: int, kind: str = "tlogs") -> bytes:
        return base64.b64decode(self.trust()[kind][position]["publicKey"]["rawBytes"])

    def v1_key(self) -> NoteKey:
        return rekor_v1_key("localhost", self.spki(0))

    def v2_key(self, origin: str = "localhost", position: int = 1) -> NoteKey:
        return tile_log_key(origin, self.spki(position))

    def get(self, path: str) -> httpx.Response:
        return self.http.get(self.url + path)

    def post(self, path: str, content: object) -> httpx.Response:
        return self.http.post(self.url + path, json=content)

    def submit_v1(self, artifact: bytes) -> Json:
        """Add to the Rekor v1 log and check everything the answer promises."""
        answer = self.post("/api/v1/log/entries", hashedrekord(artifact))
        assert answer.status_code == 201, answer.text
        ((uuid, entry),) = answer.json().items()
        assert answer.headers["etag"] == uuid
        self.check_v1(uuid, entry)
        return {**entry, "uuid": uuid}

    def check_v1(self, uuid: str, entry: Json) -> Checkpoint:
        """Check an entry's proof against its own signed checkpoint."""
        proof = entry["verification"]["inclusionProof"]
        checkpoint = parse_checkpoint(open_note(proof["checkpoint"].encode(), self.v1_key()))
        assert (checkpoint.size, checkpoint.root.hex()) == (proof["treeSize"], proof["rootHash"])
        leaf = leaf_hash(base64.b64decode(entry["body"]))
        assert uuid == f"{int(checkpoint.origin.rpartition(' - ')[2]):016x}{leaf.hex()}"
        hashes = [bytes.fromhex(h) for h in proof["hashes"]]
        verify_inclusion(proof["logIndex"], proof["treeSize"], leaf, hashes, checkpoint.root)
        return checkpoint

    def submit_v2(self, artifact: bytes) -> Json:
        """Add to the Rekor v2 log and check everything the answer promises."""
        answer = self.post("/api/v2/log/entries", hashedrekord_v2(artifact))
        assert answer.status_code == 201, answer.text
        entry: Json = answer.json()
        self.check_v2(entry)
        return entry

    def check_v2(self, entry: Json, key: NoteKey | None = None) -> Checkpoint:
        proof = entry["inclusionProof"]
        checkpoint = parse_checkpoint(open_note(proof["checkpoint"]["envelope"].encode(), key or self.v2_key()))
        assert (str(checkpoint.size), b64(checkpoint.root)) == (proof["treeSize"], proof["rootHash"])
        leaf = leaf_hash(base64.b64decode(entry["canonicalizedBody"]))
        hashes = [base64.b64decode(h) for h in proof["hashes"]]
        verify_inclusion(int(proof["logIndex"]), checkpoint.size, leaf, hashes, checkpoint.root)
        return checkpoint

    def head_v1(self) -> Checkpoint:
        return parse_checkpoint(open_note(self.log_info()["signedTreeHead"].encode(), self.v1_key()))

    def log_info(self) -> Json:
        answer: Json = self.get("/api/v1/log").json()
        return answer

    def head_v2(self) -> Checkpoint:
        return parse_checkpoint(open_note(self.get("/checkpoint").content, self.v2_key()))

    def head_ct(self) -> TreeHead:
        sth = self.get("/ct/ct/v1/get-sth").json()
        root, signature = (base64.b64decode(sth[name]) for name in ("sha256_root_hash", "tree_head_signature"))
        return verify_tree_head(self.spki(0, "ctlogs"), sth["tree_size"], sth["timestamp"], root, signature)

    def head_static_ct(self) -> Checkpoint:
        key = static_ct_key("localhost/ct", self.spki(0, "ctlogs"))
        return open_ct_checkpoint(self.get("/ct/checkpoint").content, key)[0]

    def entry_v1(self, index: int) -> tuple[str, Json]:
        answer = self.get(f"/api/v1/log/entries?logIndex={index}")
        assert answer.status_code == 200, answer.text
        ((uuid, entry),) = answer.json().items()
        return uuid, entry

"""Signs with a key pair: entries of both Rekors, and bundles for verifiers that have the key."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from sigstore._internal.rekor import EntryRequestBody, RekorLogSubmitter
from sigstore._internal.rekor.client_v2 import RekorV2Client
from sigstore._internal.timestamp import TimestampError
from sigstore.models import ClientTrustConfig

from sign_lite.errors import Misuse, ServiceUnreachable
from sign_lite.files import Artifact
from sign_lite.private_key import KeyPair
from sigstore_entries.bundle_file import BUNDLE_0_3
from sigstore_entries.release import pre_authentication

_IN_TOTO: Final = "application/vnd.in-toto+json"


class KeySigner:
    """Signs with one key and enters each signature in the log that the configuration names first."""

    def __init__(self, key: KeyPair, config: ClientTrustConfig) -> None:
        self._key = key
        self._log: RekorLogSubmitter = config.signing_config.get_tlogs()[0]
        self._authorities = config.signing_config.get_tsas()

    def file(self, artifact: Artifact) -> dict[str, Any]:
        """Bundle over a file. Raises `Misuse` where only its SHA-256 is known and the key signs another digest."""
        name = self._key.hash_name
        digest = artifact.digest(name)
        if digest is None:
            raise Misuse(f"this key signs the {name.upper()} of a file, and only its SHA-256 is known here")
        signature = self._key.sign(digest)
        stamps = self._stamps(signature)
        entry = self._entered(self._v2(digest, signature), self._hashedrekord(digest, signature))
        content = {
            "messageDigest": {"algorithm": name.upper().replace("SHA", "SHA2_"), "digest": _b64(digest)},
            "signature": _b64(signature),
        }
        return self._bundle(entry, stamps, {"messageSignature": content})

    def statement(self, contents: bytes) -> dict[str, Any]:
        """Bundle with an in-toto statement, in an envelope of one signature. SPEC DSSE v1."""
        encoded = pre_authentication(_IN_TOTO, contents)
        digest = hashlib.new(self._key.hash_name, encoded).digest()
        is_v2 = isinstance(self._log, RekorV2Client)
        signature = self._key.sign(digest) if is_v2 else self._key.sign_for_rekor_v1(encoded)
        stamps = self._stamps(signature)
        envelope = {"payload": _b64(contents), "payloadType": _IN_TOTO, "signatures": [{"sig": _b64(signature)}]}
        entry = self._entered(self._v2(digest, signature), self._dsse(envelope))
        return self._bundle(entry, stamps, {"dsseEnvelope": envelope})

    def _entered(self, v2: Mapping[str, Any], v1: Mapping[str, Any]) -> dict[str, Any]:
        request = v2 if isinstance(self._log, RekorV2Client) else v1
        made = self._log.create_entry(EntryRequestBody(dict(request)))
        # The package has no public access to the document.
        entry: dict[str, Any] = json.loads(made._inner.to_json())  # noqa: SLF001
        return entry

    def _v2(self, digest: bytes, signature: bytes) -> dict[str, Any]:
        verifier = {"publicKey": {"rawBytes": _b64(self._key.spki())}, "keyDetails": self._key.details}
        signed = {"content": _b64(signature), "verifier": verifier}
        return {"hashedRekordRequestV002": {"digest": _b64(digest), "signature": signed}}

    def _hashedrekord(self, digest: bytes, signature: bytes) -> dict[str, Any]:
        key = {"content": _b64(self._key.pem())}
        spec = {
            "data": {"hash": {"algorithm": self._key.hash_name, "value": digest.hex()}},
            "signature": {"content": _b64(signature), "publicKey": key},
        }
        return {"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": spec}

    def _dsse(self, envelope: Mapping[str, Any]) -> dict[str, Any]:
        content = {"envelope": json.dumps(envelope), "verifiers": [_b64(self._key.pem())]}
        return {"apiVersion": "0.0.1", "kind": "dsse", "spec": {"proposedContent": content}}

    def _bundle(
        self, entry: dict[str, Any], stamps: list[dict[str, str]], content: Mapping[str, Any]
    ) -> dict[str, Any]:
        # SPEC cosign pkg/cosign/bundle: the hint is the text of the key's SHA-256 in base64.
        hint = _b64(hashlib.sha256(self._key.spki()).digest())
        material: dict[str, Any] = {"publicKey": {"hint": hint}, "tlogEntries": [entry]}
        if stamps:
            material["timestampVerificationData"] = {"rfc3161Timestamps": stamps}
        return {"mediaType": BUNDLE_0_3, "verificationMaterial": material, **content}

    def _stamps(self, signature: bytes) -> list[dict[str, str]]:
        """Timestamps, which an entry of Rekor v2 lacks.

        Requested before the entry, because an entry cannot be removed.
        """
        try:
            replies = [each.request_timestamp(signature) for each in self._authorities]
        except TimestampError as error:
            raise ServiceUnreachable(f"the timestamp authority gave no time: {str(error)[:200]}") from error
        return [{"signedTimestamp": _b64(each.as_bytes())} for each in replies]


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()

"""Verifies bundles: file signatures and attestations, by a certificate's identity or by a bare key.

Certificates are verified by the `sigstore` package, bare keys by `sign_lite.keyed`, bundles with older kinds of log
entries by `sign_lite.promised`.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from sigstore.errors import Error
from sigstore.models import Bundle
from sigstore.verify import Verifier
from sigstore.verify.policy import Identity

from sign_lite.errors import VerificationFailed
from sign_lite.files import Artifact
from sign_lite.keyed import verify_with_key
from sign_lite.promised import is_promised, verify_promised
from sign_lite.summary import describe, describe_certified, describe_keyed
from sign_lite.trust import Trust
from sigstore_entries.bundle_file import HeldBundle, NotHeld, read_bundle_file
from sigstore_entries.client_keys import HASHES, ClientKey

_IN_TOTO: Final = "application/vnd.in-toto+json"
_STATEMENTS: Final = frozenset({"https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1"})
_SHOWN: Final = 3


class WantedSigner(Struct, frozen=True):
    """The wanted signer: a certificate's identity and issuer, or a key."""

    identity: str = ""
    issuer: str = ""
    key: ClientKey | None = None


def verify_file(raw: bytes, artifact: Artifact, trust: Trust, who: WantedSigner) -> dict[str, Any]:
    """Prove with one of the bundles in `raw` that the signer wanted signed the file of these digests.

    Returns the contents of the bundle (`sign_lite.summary`). A file may hold several bundles, some of them about other
    files or by other signers. Raises `VerificationFailed`.
    """
    problems: list[str] = []
    for each in read_bundle_file(raw):
        if isinstance(each, NotHeld):
            problems.append(f"{each.place}: {each.why}" if each.place else f"not a bundle: {each.why}")
            continue
        try:
            return verify_held(each, artifact, trust, who)
        except VerificationFailed as error:
            problems.append(f"{each.place}: {error}" if each.place else str(error))
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise VerificationFailed("; ".join(problems[:_SHOWN]) + more)


def verify_held(held: HeldBundle, artifact: Artifact, trust: Trust, who: WantedSigner) -> dict[str, Any]:
    """Prove with one bundle that the signer wanted signed the file; see `verify_file`."""
    return _verify_keyed(held, artifact, trust, who.key) if who.key else _verify_identity(held, artifact, trust, who)


def _verify_keyed(held: HeldBundle, artifact: Artifact, trust: Trust, key: ClientKey) -> dict[str, Any]:
    found = verify_with_key(held, artifact, trust.document, key)
    attested = {} if found is None else _attested(*found, artifact)
    return {**describe_keyed(held, key), **attested}


def _verify_identity(held: HeldBundle, artifact: Artifact, trust: Trust, who: WantedSigner) -> dict[str, Any]:
    """Check the certificate chain and its SCT, identity, log entry, a trusted time, and the signature."""
    if is_promised(held):
        policy = Identity(identity=who.identity, issuer=who.issuer)
        found = verify_promised(held, artifact, trust.document, policy)
        return {**describe_certified(held), **(_attested(*found, artifact) if found is not None else {})}
    bundle = read_bundle(held.document)
    try:
        verifier = Verifier(trusted_root=trust.root)
        policy = Identity(identity=who.identity, issuer=who.issuer)
        if "dsseEnvelope" not in held.document:
            verifier.verify_artifact(artifact.hashed, bundle, policy)
            return describe(bundle)
        payload_type, payload = verifier.verify_dsse(bundle, policy)
    except Exception as error:
        # The bundle is untrusted: any exception that it makes the package raise means that it did not verify.
        raise VerificationFailed(str(error).strip() or type(error).__name__) from error
    return {**describe(bundle), **_attested(payload_type, payload, artifact)}


def read_bundle(document: Mapping[str, Any]) -> Bundle:
    """Parse a bundle with a certificate. Raises `VerificationFailed`."""
    try:
        return Bundle.from_json(json.dumps(document))
    except (Error, ValueError, RecursionError) as error:
        raise VerificationFailed(f"not a Sigstore bundle: {str(error).strip().splitlines()[0]}") from error


def _attested(payload_type: str, payload: bytes, artifact: Artifact) -> dict[str, Any]:
    return {"predicate_type": _matching_statement(payload_type, payload, artifact).get("predicateType")}


def _matching_statement(payload_type: str, payload: bytes, artifact: Artifact) -> dict[str, Any]:
    """Return the statement if one of its subjects is this file. The signature alone proves the signer only."""
    if payload_type != _IN_TOTO:
        raise VerificationFailed(f"the attestation holds {payload_type}, not an in-toto statement")
    try:
        statement = json.loads(payload)
        kind, subjects = statement.get("_type"), [dict(each["digest"]) for each in statement["subject"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VerificationFailed("the attestation's statement has no readable subjects") from error
    if kind not in _STATEMENTS:
        raise VerificationFailed(f"the attestation's statement is of type {kind!r:.80}, which is none of in-toto's")
    if not any(_is_about(each, artifact) for each in subjects):
        known = any(artifact.digest(name) is not None for each in subjects for name in each if name in HASHES)
        why = "no subject has this file's digest" if known else "none of its digests can be told from the one given"
        raise VerificationFailed(f"the attestation is about other files: {why}")
    return dict(statement)


def _is_about(subject: Mapping[str, Any], artifact: Artifact) -> bool:
    """True if each digest that can be compared is the file's, and one can. npm's provenance names SHA-512 alone."""
    mine = {name: digest.hex() for name in HASHES if name in subject and (digest := artifact.digest(name)) is not None}
    return bool(mine) and all(subject[name] == digest for name, digest in mine.items())

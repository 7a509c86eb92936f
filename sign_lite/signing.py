"""Signs files and statements through the `sigstore` package, and turns its errors into `SignLiteError`."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import requests
from msgspec import Struct
from sigstore.dsse import Statement
from sigstore.errors import Error
from sigstore.models import Bundle, ClientTrustConfig
from sigstore.oidc import ExpiredIdentity, IdentityToken
from sigstore.sign import Signer, SigningContext
from typing_extensions import override

from sign_lite.authorities import authorities_fault
from sign_lite.errors import Misuse, ServiceRefused, ServiceUnreachable, SignLiteError
from sign_lite.files import Artifact
from sign_lite.key_signing import KeySigner
from sign_lite.private_key import KeyPair
from sign_lite.summary import describe, describe_keyed
from sigstore_entries.bundle_file import NotHeld, read_bundle_file


class SignedBundle(Struct, frozen=True):
    """A bundle as JSON, and its summary (`sign_lite.summary`)."""

    json: str
    told: dict[str, Any]


class BundleSigner(Protocol):
    """Signs as one signer. Both methods raise `ServiceRefused` or `ServiceUnreachable`."""

    def file(self, artifact: Artifact) -> SignedBundle:
        """Sign a file, given by its digests."""

    def statement(self, statement: Statement) -> SignedBundle:
        """Sign an in-toto statement."""


@contextlib.contextmanager
def signer(config: ClientTrustConfig, by: IdentityToken | KeyPair) -> Iterator[BundleSigner]:
    """One signer for several signatures: one certificate, or a key.

    Raises `ServiceRefused`, `ServiceUnreachable` or `Misuse`.
    """
    with _translated():
        if isinstance(by, KeyPair):
            yield _Keyed(KeySigner(by, config), by)
            return
        with SigningContext.from_trust_config(config).signer(by) as opened:
            yield _Certified(opened)


class _Certified(BundleSigner):
    def __init__(self, opened: Signer) -> None:
        self._opened = opened

    @override
    def file(self, artifact: Artifact) -> SignedBundle:
        return self._made(self._opened.sign_artifact(artifact.hashed))

    @override
    def statement(self, statement: Statement) -> SignedBundle:
        return self._made(self._opened.sign_dsse(statement))

    def _made(self, bundle: Bundle) -> SignedBundle:
        return SignedBundle(bundle.to_json(), describe(bundle))


class _Keyed(BundleSigner):
    def __init__(self, opened: KeySigner, key: KeyPair) -> None:
        self._opened, self._key = opened, key

    @override
    def file(self, artifact: Artifact) -> SignedBundle:
        return self._made(self._opened.file(artifact))

    @override
    def statement(self, statement: Statement) -> SignedBundle:
        return self._made(self._opened.statement(statement._contents))  # noqa: SLF001  no public access

    def _made(self, document: dict[str, Any]) -> SignedBundle:
        text = json.dumps(document)
        (held,) = read_bundle_file(text.encode())
        if isinstance(held, NotHeld):
            raise ServiceRefused(f"the log's answer makes no bundle: {held.why}")
        return SignedBundle(text, describe_keyed(held, self._key.public))


def build_statement(subjects: Sequence[tuple[Path, Artifact]], predicate_type: str, predicate: Any) -> Statement:
    """In-toto statement v1 about these files. Raises `Misuse`."""
    if not isinstance(predicate, dict):
        raise Misuse("the predicate must be a JSON object")
    if len({path.name for path, _ in subjects}) != len(subjects):
        raise Misuse("two files have the same name; a statement could not tell them apart")
    content = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path.name, "digest": {"sha256": each.sha256.hex()}} for path, each in subjects],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    try:
        return Statement(json.dumps(content).encode())
    except (Error, ValueError) as error:
        raise Misuse(f"the statement cannot be built: {error}") from error


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SignLiteError:
        raise
    except ExpiredIdentity as error:
        raise Misuse("the identity token has expired; get a new one") from error
    except OSError as error:
        # requests names a missing file of authorities in a plain `OSError`.
        if fault := authorities_fault():
            raise fault from error
        if not isinstance(error, requests.RequestException):
            raise
        url = str(error.request.url) if error.request is not None else "a service"
        raise ServiceUnreachable(f"{url} did not answer: {type(error).__name__}; try again later") from error
    except Exception as error:
        # The package's own errors (FulcioClientError, RekorClientError, …) have no common base class.
        if not type(error).__module__.startswith("sigstore."):
            raise
        raise _service_error(error) from error


def _service_error(error: Exception) -> SignLiteError:
    """Error with the server's own message, which the package drops for 4xx answers."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, requests.RequestException):
        cause = cause.__cause__
    response = cause.response if isinstance(cause, requests.RequestException) else None
    if response is None:
        if isinstance(cause, requests.RequestException):
            return ServiceUnreachable(f"a service did not answer: {type(cause).__name__}; try again later")
        return ServiceRefused(str(error).strip() or type(error).__name__)
    return ServiceRefused(f"{response.url} answered {response.status_code}: {_reason(response)}")


def _reason(response: requests.Response) -> str:
    """`message` and, when the server gives it, the precise reason of an error answer."""
    try:
        body = json.loads(response.content[:65536])
        message = str(body["message"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
    for detail in body.get("details") or ():
        if isinstance(detail, dict) and detail.get("reason"):
            metadata = detail.get("metadata") or {}
            return f"{message} ({detail['reason']}: {metadata.get('detail', '')})".replace(": )", ")")
    return message

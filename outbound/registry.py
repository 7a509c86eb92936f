"""A client of container registries (OCI distribution-spec 1.1) that does not trust them and bounds every read.

Every body has a cap and all requests together one deadline; every blob and manifest is checked against its digest. A
connection goes to the registry that the user named, at any address, and otherwise to public addresses alone: a
redirect, or a token service that the registry names, cannot lead into a private network.
"""

import hashlib
import json
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self
from urllib.parse import urljoin, urlsplit

import httpcore
import httpx
import oras.auth
import oras.container
import requests
from msgspec import Struct
from requests.adapters import BaseAdapter

from addresses.image_name import ImageName, is_digest, is_tag
from addresses.url import is_loopback_host, shown_url
from outbound.address_guard import GuardedBackend, GuardedTransport, Resolve
from outbound.transport import Deadline, DeadlineBackend, resolve_strange

MAX_MANIFEST: Final = 4 * 1024 * 1024  # SPEC distribution-spec: registries take manifests of at least 4 MiB
MAX_BLOB: Final = 16 * 1024 * 1024
MAX_REFERRERS: Final = 1_000
MAX_TAGS: Final = 10_000
IMAGE_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
IMAGE_INDEX: Final = "application/vnd.oci.image.index.v1+json"
EMPTY_CONFIG: Final = "application/vnd.oci.empty.v1+json"
EMPTY: Final = b"{}"
_DOCKER: Final = "application/vnd.docker.distribution.manifest"
_ACCEPTED: Final = f"{IMAGE_MANIFEST}, {IMAGE_INDEX}, {_DOCKER}.v2+json, {_DOCKER}.list.v2+json"
_MAX_REQUESTS: Final = 5_000
_MAX_PAGES: Final = 100
_MAX_REDIRECTS: Final = 5
_SMALL: Final = 64 * 1024
_SHOWN: Final = 200
_OK, _CREATED, _ACCEPTED_LATER, _NOT_FOUND = 200, 201, 202, 404
_NEEDS_LOGIN: Final = frozenset({401, 403})


class RegistryFailed(Exception):
    """The registry gave no usable answer; the message says which registry and why."""


class NotInRegistry(RegistryFailed):
    """The registry answered that it has no such manifest or blob."""


class RegistryManifest(Struct, frozen=True):
    """A manifest or index whose bytes have the digest `digest`."""

    digest: str
    media_type: str
    raw: bytes
    document: Mapping[str, Any]

    @property
    def is_index(self) -> bool:
        """True if it lists images of several platforms."""
        return isinstance(self.document.get("manifests"), list)


class Descriptor(Struct, frozen=True):
    """A manifest's reference to another blob or manifest. SPEC image-spec descriptor. Texts are untrusted."""

    digest: str
    media_type: str
    size: int
    artifact_type: str
    annotations: Mapping[str, str]


class DescriptorList(Struct, frozen=True):
    """Descriptors, and the number of further ones that are not read (0 when these are all)."""

    found: tuple[Descriptor, ...]
    left_out: int


class Registry:
    """One repository of a registry. `seconds` bounds all of its requests together. Not safe for several threads.

    `plain_http` allows http to the named registry. A registry on this machine is always reached over http.
    """

    def __init__(
        self,
        image: ImageName,
        *,
        plain_http: bool = False,
        seconds: float = 120.0,
        resolver: Resolve = resolve_strange,
        context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.image = image
        host = "registry-1.docker.io" if image.registry == "index.docker.io" else image.registry
        scheme = "http" if plain_http or is_this_machine(host) else "https"
        self._base = f"{scheme}://{host}/v2/{image.repository}/"
        self._adapter = _Adapter(host, scheme, seconds, resolver, context, clock)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.max_redirects = _MAX_REDIRECTS
        self._session.adapters.clear()
        self._session.mount("https://", self._adapter)
        self._session.mount("http://", self._adapter)
        logging.getLogger("oras").setLevel(logging.CRITICAL)
        self._auth = oras.auth.get_auth_backend("token", self._session, insecure=scheme == "http")
        self._has_configs = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._session.close()

    def manifest(self, reference: str) -> RegistryManifest:
        """Manifest by tag or digest; its bytes have the requested digest. Raises `RegistryFailed`."""
        answer = self._get(f"manifests/{_reference(reference)}", MAX_MANIFEST, accept=_ACCEPTED)
        raw = answer.content
        digest = _digest(raw)
        if is_digest(reference) and digest != reference:
            raise RegistryFailed(f"{self.image.registry} answered with other bytes than those of {reference}: {digest}")
        document = self._json(raw, f"the manifest {reference}")
        told = document.get("mediaType") or answer.headers.get("content-type", "").partition(";")[0]
        return RegistryManifest(digest, str(told)[:_SHOWN], raw, document)

    def digest(self, tag: str) -> str:
        """Digest of a tagged manifest, by the registry's claim. Raises `RegistryFailed`."""
        url = urljoin(self._base, f"manifests/{_reference(tag)}")
        answer = self._ask("HEAD", url, _SMALL, headers={"Accept": _ACCEPTED})
        self._expect(answer, {_OK}, f"tag {tag}")
        told = answer.headers.get("docker-content-digest")
        return told if told is not None and is_digest(told) else self.manifest(tag).digest

    def blob(self, digest: str, limit: int = MAX_BLOB) -> bytes:
        """Bytes of a blob of at most `limit` bytes. Raises `RegistryFailed`."""
        raw = self._get(f"blobs/{_reference(digest)}", limit).content
        if _digest(raw) != digest:
            raise RegistryFailed(f"{self.image.registry} answered with other bytes than those of the blob {digest}")
        return raw

    def referrers(self, digest: str) -> DescriptorList:
        """Referrers of a manifest. SPEC distribution-spec, listing referrers, and the tag schema where it is missing.

        Raises `RegistryFailed`.
        """
        try:
            return self._referrers(f"referrers/{_reference(digest)}")
        except NotInRegistry:
            pass
        try:
            return self._listed(self.manifest(digest.replace(":", "-")).document)
        except NotInRegistry:
            return DescriptorList((), 0)

    def _referrers(self, path: str) -> DescriptorList:
        found: list[Descriptor] = []
        left_out = 0
        following: str | None = path
        for _ in range(_MAX_PAGES):
            if following is None:
                return DescriptorList(tuple(found), left_out)
            answer = self._get(following, MAX_MANIFEST, accept=IMAGE_INDEX)
            page = self._listed(self._json(answer.content, "the list of referrers"), MAX_REFERRERS - len(found))
            found += page.found
            left_out += page.left_out
            following = self._next(answer)
        return DescriptorList(tuple(found), left_out + 1)

    def _listed(self, document: Mapping[str, Any], limit: int = MAX_REFERRERS) -> DescriptorList:
        listed = document.get("manifests")
        if not isinstance(listed, list):
            raise RegistryFailed(f"{self.image.registry} answered a list of referrers without manifests")
        read = [descriptor for each in listed[:limit] if (descriptor := read_descriptor(each)) is not None]
        return DescriptorList(tuple(read), len(listed) - len(read))

    def tags(self) -> tuple[str, ...]:
        """Every tag of the repository, at most `MAX_TAGS`. Raises `RegistryFailed`, also when there are more."""
        found: list[str] = []
        following: str | None = "tags/list"
        for _ in range(_MAX_PAGES):
            if following is None:
                return tuple(found)
            answer = self._get(following, MAX_MANIFEST)
            listed = self._json(answer.content, "the list of tags").get("tags") or []
            if not isinstance(listed, list):
                raise RegistryFailed(f"{self.image.registry} answered a malformed list of tags")
            found += [each for each in listed if is_tag(each)]
            if len(found) > MAX_TAGS:
                break
            following = self._next(answer)
        raise RegistryFailed(f"{self.image.in_full} has more than {MAX_TAGS} tags")

    def put_blob(self, content: bytes) -> str:
        """Upload a blob; returns its digest. Raises `RegistryFailed`. SPEC distribution-spec, POST then PUT."""
        digest = _digest(content)
        begun = self._ask("POST", urljoin(self._base, "blobs/uploads/"), _SMALL)
        self._expect(begun, {_ACCEPTED_LATER}, "to upload a blob")
        location = urljoin(self._base, begun.headers.get("location", ""))
        target = location + ("&" if urlsplit(location).query else "?") + f"digest={digest}"
        done = self._ask("PUT", target, _SMALL, content, {"Content-Type": "application/octet-stream"})
        self._expect(done, {_CREATED}, "a blob")
        return digest

    def put_manifest(self, raw: bytes, media_type: str, reference: str | None = None) -> str:
        """Upload a manifest under its digest, or under a tag; returns its digest. Raises `RegistryFailed`."""
        digest = _digest(raw)
        url = urljoin(self._base, f"manifests/{_reference(reference or digest)}")
        done = self._ask("PUT", url, _SMALL, raw, {"Content-Type": media_type})
        self._expect(done, {_CREATED, _OK, _ACCEPTED_LATER}, "a manifest")
        return digest

    def add_referrer(self, subject: RegistryManifest, raw: bytes) -> str:
        """Upload a manifest with a `subject`, and list it under the tag schema where the registry has no referrers API.

        SPEC distribution-spec, pushing manifests with subject: the header `OCI-Subject` says that it has one.
        """
        digest = _digest(raw)
        url = urljoin(self._base, f"manifests/{digest}")
        done = self._ask("PUT", url, _SMALL, raw, {"Content-Type": IMAGE_MANIFEST})
        self._expect(done, {_CREATED, _OK, _ACCEPTED_LATER}, "a manifest")
        if done.headers.get("oci-subject") == subject.digest:
            return digest
        tag = subject.digest.replace(":", "-")
        try:
            listed = list(self.manifest(tag).document.get("manifests") or [])
        except NotInRegistry:
            listed = []
        written = json.loads(raw)
        listed.append(
            {
                "mediaType": IMAGE_MANIFEST,
                "digest": digest,
                "size": len(raw),
                "artifactType": written.get("artifactType") or written["config"]["mediaType"],
                "annotations": written.get("annotations") or {},
            }
        )
        index = {"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": listed}
        self.put_manifest(json.dumps(index, separators=(",", ":")).encode(), IMAGE_INDEX, tag)
        return digest

    def _next(self, answer: requests.Response) -> str | None:
        """The next page of a list (RFC 8288), on the same registry."""
        link = answer.links.get("next", {}).get("url")
        if not link:
            return None
        found = urljoin(self._base, link)
        if urlsplit(found).netloc != urlsplit(self._base).netloc:
            raise RegistryFailed(f"{self.image.registry} continues a list at another host: {shown_url(found)}")
        return found

    def _get(self, path: str, limit: int, *, accept: str = "*/*") -> requests.Response:
        answer = self._ask("GET", urljoin(self._base, path), limit, headers={"Accept": accept})
        self._expect(answer, {_OK}, shown_url(answer.url))
        return answer

    def _ask(
        self, method: str, url: str, limit: int, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        sent = dict(headers or {})
        self._adapter.limit = limit
        try:
            answer = self._session.request(method, url, data=body, headers={**sent, **self._token()})
            if answer.status_code in _NEEDS_LOGIN and "www-authenticate" in answer.headers:
                self._adapter.limit = _SMALL
                self._load_configs()
                self._auth.authenticate_request(answer, {}, refresh=bool(self._token()))
                self._adapter.limit = limit
                answer = self._session.request(method, url, data=body, headers={**sent, **self._token()})
        except RegistryFailed:
            raise
        except Exception as error:
            # Answers are untrusted: any exception that they cause in a library counts as a missing answer.
            what = f"{type(error).__name__}: {error!s:.{_SHOWN}}"
            raise RegistryFailed(f"{self.image.registry} was asked for {shown_url(url)}: {what}") from error
        return answer

    def _token(self) -> Mapping[str, str]:
        header: Mapping[str, str] = self._auth.get_auth_header()
        return header

    def _load_configs(self) -> None:
        """Load the user's logins of `docker login`, only after a registry asked for one."""
        if not self._has_configs:
            self._has_configs = True
            self._auth.load_configs(oras.container.Container(f"{self.image.in_full}:latest"))

    def _expect(self, answer: requests.Response, wanted: set[int], what: str) -> None:
        if answer.status_code in wanted:
            return
        if answer.status_code == _NOT_FOUND:
            raise NotInRegistry(f"{self.image.registry} has no {what}")
        said = answer.content[:_SHOWN].decode("utf-8", "replace")
        hint = (
            ": it wants a login (`docker login` stores one that is used here)"
            if answer.status_code in _NEEDS_LOGIN
            else ""
        )
        raise RegistryFailed(f"{self.image.registry} answered {answer.status_code} for {what}{hint}: {said}")

    def _json(self, raw: bytes, what: str) -> Mapping[str, Any]:
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise RegistryFailed(f"{self.image.registry}: {what} is not JSON") from error
        if not isinstance(document, dict):
            raise RegistryFailed(f"{self.image.registry}: {what} is no JSON object")
        return document


def descriptors(document: Mapping[str, Any], name: str) -> Iterator[Descriptor]:
    """The readable descriptors under a name of a manifest, such as `layers`."""
    listed = document.get(name)
    for each in listed if isinstance(listed, list) else []:
        if (read := read_descriptor(each)) is not None:
            yield read


def read_descriptor(value: Any) -> Descriptor | None:
    """A descriptor; `None` for a malformed one, and for one without a SHA-256 digest."""
    if not isinstance(value, dict) or not is_digest(value.get("digest")) or not isinstance(value.get("size"), int):
        return None
    annotations = value.get("annotations")
    return Descriptor(
        str(value["digest"]),
        str(value.get("mediaType"))[:_SHOWN],
        int(value["size"]),
        str(value.get("artifactType"))[:_SHOWN],
        {str(key): str(text) for key, text in annotations.items()} if isinstance(annotations, dict) else {},
    )


def is_this_machine(registry: str) -> bool:
    """True if a registry host is a loopback address or `localhost`, to which clients speak http."""
    return is_loopback_host(urlsplit(f"//{registry}").hostname)


class _Adapter(BaseAdapter):
    """The transport under `requests` and `oras`, with the address guard, the deadline and the caps."""

    def __init__(  # noqa: PLR0917  all inputs of a transport
        self,
        named: str,
        scheme: str,
        seconds: float,
        resolver: Resolve,
        context: ssl.SSLContext | None,
        clock: Callable[[], float],
    ) -> None:
        super().__init__()
        self.limit = _SMALL
        self._named, self._scheme = named, scheme
        self._clock, self._seconds, self._until = clock, seconds, clock() + seconds
        self._requests = 0
        self._deadline = Deadline(clock)
        made = context or ssl.create_default_context()
        backend = DeadlineBackend(self._deadline)
        self._clients = {
            allow: httpx.Client(
                transport=GuardedTransport(GuardedBackend(backend, resolver, allow_private=allow), made),
                follow_redirects=False,
                trust_env=False,
                timeout=seconds,
            )
            for allow in (False, True)
        }

    def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            client.close()

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Send one request and read the whole answer, at most `limit` bytes. Raises `RegistryFailed`."""
        url = str(request.url)
        parts = urlsplit(url)
        is_named = parts.netloc == self._named
        if parts.scheme != "https" and not (is_named and parts.scheme == self._scheme):
            raise RegistryFailed(f"{self._named} leads to {shown_url(url)}, which is not https")
        self._requests += 1
        left = self._until - self._clock()
        if left <= 0:
            raise RegistryFailed(f"{self._named} took longer than {self._seconds:g} s for all that was asked")
        if self._requests > _MAX_REQUESTS:
            raise RegistryFailed(f"{self._named} needs more than {_MAX_REQUESTS} requests")
        headers = {name: str(value) for name, value in request.headers.items()}
        headers |= {"Accept-Encoding": "identity", "User-Agent": "signwatch"}
        body = request.body if isinstance(request.body, bytes | str | None) else b""
        try:
            with (
                self._deadline.running(left),
                self._clients[is_named].stream(
                    str(request.method), url, content=body, headers=headers, timeout=left
                ) as answer,
            ):
                return self._read(request, answer)
        except httpcore.TimeoutException as error:
            raise RegistryFailed(f"{parts.netloc} gave no complete answer within {self._seconds:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise RegistryFailed(f"{parts.netloc} cannot be reached: {type(error).__name__}: {error}") from error

    def _read(self, request: requests.PreparedRequest, answer: httpx.Response) -> requests.Response:
        body = bytearray()
        for piece in answer.iter_raw():
            body += piece
            if len(body) > self.limit:
                raise RegistryFailed(f"{shown_url(str(request.url))} is larger than {self.limit} bytes")
        made = requests.Response()
        made.status_code = answer.status_code
        made.headers.update(dict(answer.headers))
        made._content = bytes(body)  # noqa: SLF001  the way to make one without a connection of urllib3's
        made._content_consumed = True  # noqa: SLF001
        made.url, made.request, made.reason = str(request.url), request, answer.reason_phrase
        made.encoding = "utf-8"
        return made


def _reference(text: str) -> str:
    if not (is_digest(text) or is_tag(text)):
        raise RegistryFailed(f"{text!r:.80} is neither a tag nor a SHA-256 digest")
    return text


def _digest(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"

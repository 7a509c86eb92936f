"""A registry is a stranger: it lies about digests, floods, stalls, redirects into private networks, asks for logins."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from addresses.image_name import parse_image_name
from outbound.image_signatures import fetch_signatures
from outbound.registry import IMAGE_INDEX, IMAGE_MANIFEST, NotInRegistry, Registry, RegistryFailed

Answer = tuple[int, dict[str, str], bytes]
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": IMAGE_MANIFEST, "layers": []}).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


@contextlib.contextmanager
def serving(answer: Callable[[str, dict[str, str]], Answer]) -> Iterator[int]:
    """A server on loopback that answers each path as the function says; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self.path, {key.lower(): value for key, value in self.headers.items()})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def registry_at(port: int, seconds: float = 30) -> Registry:
    return Registry(parse_image_name(f"localhost:{port}/acme/app"), seconds=seconds)


def test_control_a_manifest_with_its_digest_is_read() -> None:
    with serving(lambda path, _: (200, {"content-type": IMAGE_MANIFEST}, MANIFEST)) as port, registry_at(port) as asked:
        assert asked.manifest(DIGEST).raw == MANIFEST
        assert asked.manifest("v1").digest == DIGEST


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((200, {}, b"{}"), "other bytes"),
        ((200, {}, b"x" * (4 * 1024 * 1024 + 1)), "is larger than"),
        ((200, {}, b"[" * 100_000), "other bytes"),
        ((500, {}, b"\x1b[2Jbroken"), "answered 500"),
        ((302, {"location": "http://169.254.169.254/latest"}, b""), "which is not https"),
        ((302, {"location": "https://169.254.169.254/latest"}, b""), "leads to no public address"),
        ((302, {"location": "https://127.0.0.1:1/"}, b""), "leads to no public address"),
        ((401, {"www-authenticate": 'Bearer realm="https://10.0.0.1/token",service="x"'}, b""), "no public address"),
        ((401, {"www-authenticate": 'Bearer realm="http://example.com/token"'}, b""), "which is not https"),
        ((401, {"www-authenticate": "Bearer"}, b""), "localhost"),
        ((401, {}, b""), "wants a login"),
    ],
)
def test_each_way_to_misbehave_ends_in_one_sentence(answer: Answer, told: str) -> None:
    with serving(lambda path, _: answer) as port, registry_at(port) as asked:
        with pytest.raises(RegistryFailed) as caught:
            asked.manifest(DIGEST)
        assert told in str(caught.value)


def test_a_redirect_that_never_ends_ends() -> None:
    endless = serving(lambda path, _: (302, {"location": path + "x"}, b""))
    with endless as port, registry_at(port) as asked, pytest.raises(RegistryFailed, match="TooManyRedirects"):
        asked.manifest(DIGEST)


def test_everything_together_has_one_deadline() -> None:
    now = [0.0]
    with serving(lambda path, _: (200, {}, MANIFEST)) as port:
        image = parse_image_name(f"localhost:{port}/acme/app")
        with Registry(image, seconds=30, clock=lambda: now[0]) as asked:
            asked.manifest(DIGEST)
            now[0] = 31
            with pytest.raises(RegistryFailed, match="took longer than 30 s"):
                asked.manifest(DIGEST)


@contextlib.contextmanager
def pouring(chunk: bytes, pause: float) -> Iterator[tuple[int, list[int]]]:
    """A server whose answer has no end: yields its port, and how many bytes it got rid of."""
    sent = [0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while sent[0] < 1 << 30 and not over.wait(pause):
                    self.wfile.write(chunk)
                    sent[0] += len(chunk)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    over = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, sent
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def test_an_answer_of_a_gigabyte_is_read_up_to_the_limit_only() -> None:
    with pouring(b"x" * 65_536, 0) as (port, sent), registry_at(port) as asked:
        with pytest.raises(RegistryFailed, match="is larger than"):
            asked.manifest(DIGEST)
        assert sent[0] < 64 * 1024 * 1024


def test_an_answer_that_trickles_ends_with_the_deadline() -> None:
    trickle, wanted = pouring(b" ", 0.05), pytest.raises(RegistryFailed, match="no complete answer within 1 s")
    with trickle as (port, _), registry_at(port, seconds=1) as asked, wanted:
        asked.manifest(DIGEST)


def test_a_registry_that_is_not_there_cannot_be_reached() -> None:
    with registry_at(1) as asked, pytest.raises(RegistryFailed, match="cannot be reached"):
        asked.manifest("v1")


def test_referrers_by_the_thousand_are_cut_and_counted_and_a_missing_api_is_no_failure() -> None:
    descriptor = {"mediaType": IMAGE_MANIFEST, "digest": DIGEST, "size": 1, "artifactType": "text/plain"}
    listed = json.dumps({"mediaType": IMAGE_INDEX, "manifests": [descriptor] * 3_000}).encode()
    with serving(lambda path, _: (200, {}, listed)) as port, registry_at(port) as asked:
        found = asked.referrers(DIGEST)
        assert (len(found.found), found.left_out) == (1_000, 2_000)
    with serving(lambda path, _: (404, {}, b"")) as port, registry_at(port) as asked:
        assert asked.referrers(DIGEST).found == ()
        with pytest.raises(NotInRegistry):
            asked.manifest("v1")


def test_pages_without_end_and_pages_elsewhere_are_refused() -> None:
    listed = json.dumps({"manifests": []}).encode()
    loop = {"link": '</v2/acme/app/referrers/x>; rel="next"'}
    with serving(lambda path, _: (200, loop, listed)) as port, registry_at(port) as asked:
        assert asked.referrers(DIGEST).left_out == 1, "the list is not whole, and that is told"
    away = {"link": '<https://example.com/>; rel="next"'}
    elsewhere = serving(lambda path, _: (200, away, listed))
    with elsewhere as port, registry_at(port) as asked, pytest.raises(RegistryFailed, match="another host"):
        asked.referrers(DIGEST)


def test_a_token_is_fetched_and_sent_and_a_referrer_of_another_image_is_no_signature() -> None:
    bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
    other = json.dumps({"layers": [], "subject": {"digest": "sha256:" + "0" * 64}}).encode()
    digest = f"sha256:{hashlib.sha256(other).hexdigest()}"
    descriptor = {"mediaType": IMAGE_MANIFEST, "digest": digest, "size": len(other), "artifactType": bundle}
    seen: list[str | None] = []

    def answer(path: str, headers: dict[str, str]) -> Answer:
        if path.startswith("/token"):
            return 200, {}, b'{"token": "secret"}'
        seen.append(headers.get("authorization"))
        if headers.get("authorization") != "Bearer secret":
            return 401, {"www-authenticate": f'Bearer realm="http://localhost:{port}/token",service="x"'}, b""
        if "/referrers/" in path:
            return 200, {}, json.dumps({"manifests": [descriptor]}).encode()
        if digest in path:
            return 200, {}, other
        return (200, {}, MANIFEST) if DIGEST in path else (404, {}, b"")

    with serving(answer) as port, registry_at(port) as asked:
        found = fetch_signatures(asked, asked.manifest(DIGEST))
    assert found.found == ()
    assert found.unread == ((f"referrer {digest}", "the registry lists it, but it is about another image"),)
    assert seen[:2] == [None, "Bearer secret"]


@pytest.mark.parametrize("named", ["", "application/vnd.oci.empty.v1+json"])
def test_a_signature_whose_type_the_index_does_not_name_is_found_by_its_manifest(named: str) -> None:
    """As cosign 2.6 writes the index; a signature must not hide behind what a list says of it."""
    bundle, kind = b'{"a": "bundle"}', "application/vnd.dev.sigstore.bundle.v0.3+json"
    blob = f"sha256:{hashlib.sha256(bundle).hexdigest()}"
    layer = {"mediaType": kind, "digest": blob, "size": len(bundle)}
    manifests = [
        json.dumps({"layers": [layer], "subject": {"digest": DIGEST}}).encode(),
        json.dumps({"layers": [{**layer, "mediaType": "text/plain"}], "subject": {"digest": DIGEST}}).encode(),
    ]
    digests = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in manifests]
    listed = [
        {"mediaType": IMAGE_MANIFEST, "digest": digest, "size": len(raw), "artifactType": named}
        for digest, raw in zip(digests, manifests, strict=True)
    ]
    known = {DIGEST: MANIFEST, blob: bundle, **dict(zip(digests, manifests, strict=True))}

    def answer(path: str, _: dict[str, str]) -> Answer:
        if "/referrers/" in path:
            return 200, {}, json.dumps({"manifests": listed}).encode()
        found = known.get(path.rpartition("/")[2])
        return (200, {}, found) if found is not None else (404, {}, b"")

    with serving(answer) as port, registry_at(port) as asked:
        found = fetch_signatures(asked, asked.manifest(DIGEST))
    assert [each.raw for each in found.found] == [bundle]
    assert (found.others, found.unread) == (1, ())

"""A tile log as static files in memory (C2SP tlog-tiles), served over HTTP by a process of its own.

The log repeats the corpus, whole bundle after whole bundle, up to the size asked for: what a follower has to
fetch, hash, prove and commit does not depend on entries being new. `python -m benchmarks.tile_log CORPUS SIZE` prints
one JSON line with its URL and key, and serves until its standard input ends.
"""

import json
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, Final

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks.corpus import framed, read_corpus
from tlog.merkle import Frontier, leaf_hash, subtree_root
from tlog.note import tile_log_key
from tlog.tiles import TILE_WIDTH, entries_path, right_edge, tile_path

ORIGIN: Final = "tiles.bench.example"
_KEY: Final = ed25519.Ed25519PrivateKey.from_private_bytes(sha256(b"signwatch benchmark tile log").digest())


@dataclass(frozen=True, slots=True)
class ServedLog:
    """URL of a served log, and the key (SPKI DER) that signs its checkpoint."""

    url: str
    spki: bytes
    size: int
    origin: str = ORIGIN


@contextmanager
def served(corpus: Path, size: int, *, named_by_address: bool = False) -> Iterator[ServedLog]:
    """Serve a log of `size` entries from another process for as long as the block runs.

    `named_by_address`: it signs as its host and port, which is what rekor-monitor expects of a log.
    """
    command = [sys.executable, "-m", "benchmarks.tile_log", str(corpus), str(size), *["address"] * named_by_address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        try:
            yield ServedLog(told["url"], b64decode(told["spki"]), size, told["origin"])
        finally:
            process.stdin.close()


def make_files(bodies: Sequence[bytes], size: int, origin: str = ORIGIN) -> dict[str, bytes]:
    """Every file of a log of `size` entries, by path."""
    bundles = [bodies[start : start + TILE_WIDTH] for start in range(0, len(bodies) - TILE_WIDTH + 1, TILE_WIDTH)]
    contents = [b"".join(framed(body) for body in bundle) for bundle in bundles]
    tiles = [[leaf_hash(body) for body in bundle] for bundle in bundles]
    full, rest = divmod(size, TILE_WIDTH)
    files: dict[str, bytes] = {}
    for index in range(full):
        files[entries_path(index)] = contents[index % len(bundles)]
    if rest:
        last = bundles[full % len(bundles)][:rest]
        files[entries_path(full, rest)] = b"".join(framed(body) for body in last)
    # Level 0 repeats as the bundles do; what is above is worked out from it.
    hashes: list[bytes] = [leaf for index in range(full) for leaf in tiles[index % len(bundles)]]
    hashes.extend(tiles[full % len(bundles)][:rest])
    frontier = Frontier().extended(hashes)
    level = 0
    while hashes:
        for start in range(0, len(hashes), TILE_WIDTH):
            tile = hashes[start : start + TILE_WIDTH]
            files[tile_path(level, start // TILE_WIDTH, len(tile))] = b"".join(tile)
        hashes = [
            subtree_root(hashes[start : start + TILE_WIDTH])
            for start in range(0, len(hashes) - TILE_WIDTH + 1, TILE_WIDTH)
        ]
        level += 1
    missing = [edge for edge in right_edge(size) if tile_path(*edge) not in files]
    if missing:
        raise RuntimeError(f"tiles of the right edge were not made: {missing}")
    files["checkpoint"] = _checkpoint(size, frontier.root(), origin)
    return files


def public_key() -> bytes:
    """SPKI DER of the key that signs the checkpoint."""
    return _KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _checkpoint(size: int, root: bytes, origin: str) -> bytes:
    text = f"{origin}\n{size}\n{b64encode(root).decode()}\n".encode()
    blob = tile_log_key(origin, public_key()).key_id + _KEY.sign(text)
    return text + b"\n" + f"— {origin} {b64encode(blob).decode()}\n".encode()


class _Files(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        content = self.files.get(self.path.lstrip("/"))
        self.send_response(200 if content is not None else 404)
        kind = "text/plain" if self.path.endswith("checkpoint") else "application/octet-stream"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """Say nothing: a benchmark's terminal is for its figures."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A follower that is killed in the middle of a request is no news; anything else is."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _serve(corpus: Path, size: int, *, named_by_address: bool) -> None:
    server = _Server(("127.0.0.1", 0), _Files)
    address = f"127.0.0.1:{server.server_address[1]}"
    origin = address if named_by_address else ORIGIN
    _Files.files = make_files(read_corpus(corpus, "v2", size + TILE_WIDTH), size, origin)
    Thread(target=server.serve_forever, daemon=True).start()
    told = {"url": f"http://{address}", "spki": b64encode(public_key()).decode(), "origin": origin}
    print(json.dumps(told), flush=True)
    sys.stdin.buffer.read()
    server.shutdown()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]), named_by_address="address" in sys.argv[3:])

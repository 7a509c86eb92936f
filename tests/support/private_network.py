"""A network of one's own on loopback: a private CA, a TLS front before a plain server, and an HTTP proxy."""

import ipaddress
import selectors
import socket
import socketserver
import ssl
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_PIECE = 65536
_IDLE = 30.0


@dataclass(frozen=True)
class PrivateCa:
    """A CA that no machine believes. `file` is its certificate in PEM, `context` a server of its for localhost."""

    file: Path
    context: ssl.SSLContext


def private_ca(folder: Path, name: str = "ca") -> PrivateCa:
    """Make a CA and a certificate for localhost and 127.0.0.1."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate(f"{name} root", authority_key, f"{name} root", authority_key, is_ca=True)
    server = _certificate("localhost", key, f"{name} root", authority_key, is_ca=False)
    file, chain = folder / f"{name}.pem", folder / f"{name}-server.pem"
    file.write_bytes(authority.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(server.public_bytes(Encoding.PEM) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return PrivateCa(file, context)


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey, *, is_ca: bool
) -> x509.Certificate:
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    identifier = x509.SubjectKeyIdentifier.from_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    if not is_ca:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Front:
    """A TLS server that hands on what it is asked to a plain one; `served` counts the connections it accepted."""

    url: str
    served: int = 0


@dataclass
class Proxy:
    """An HTTP proxy. `asked` are the request lines it got; with `refuses` it answers every one of them so.

    `passwords` are the user names and passwords that it got.
    """

    url: str
    asked: list[str] = field(default_factory=list)
    passwords: list[str] = field(default_factory=list)
    refuses: str = ""


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def tls_front(ca: PrivateCa, plain_url: str) -> Iterator[Front]:
    """Serve a plain HTTP server of this machine over TLS."""
    where = urlsplit(plain_url)
    front = Front("")

    class Session(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), ca.context.wrap_socket(self.request, server_side=True) as secure:
                front.served += 1
                with socket.create_connection((where.hostname or "", where.port or 80), _IDLE) as plain:
                    _relay(secure, plain)

    with _serving(Session) as port:
        front.url = f"https://localhost:{port}"
        yield front


@contextmanager
def http_proxy() -> Iterator[Proxy]:
    """Serve as a proxy: CONNECT for TLS, whole URLs for plain requests."""
    proxy = Proxy("")

    class Session(socketserver.StreamRequestHandler):
        rbufsize = 0  # a body that follows the head stays in the socket, to be relayed

        def handle(self) -> None:
            with suppress(OSError, ValueError):
                self._handle()

        def _handle(self) -> None:
            line = self.rfile.readline(_PIECE).decode("ascii").strip()
            head = b""
            while (header := self.rfile.readline(_PIECE)) not in {b"\r\n", b""}:
                name, _, value = header.partition(b": ")
                if name.lower() == b"proxy-authorization":
                    proxy.passwords.append(b64decode(value.split()[1]).decode())
                else:
                    head += header
            proxy.asked.append(line)
            if proxy.refuses:
                self.wfile.write(f"HTTP/1.1 {proxy.refuses}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                return
            method, target, version = line.split(" ")
            url = urlsplit(target if "://" in target else f"//{target}")
            with socket.create_connection((url.hostname or "", url.port or 80), _IDLE) as upstream:
                if method == "CONNECT":
                    self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    # One request a connection: what follows would need its own line to be rewritten.
                    path = url.path + (f"?{url.query}" if url.query else "")
                    upstream.sendall(f"{method} {path} {version}\r\nConnection: close\r\n".encode() + head + b"\r\n")
                _relay(self.connection, upstream)

    with _serving(Session) as port:
        proxy.url = f"http://127.0.0.1:{port}"
        yield proxy


@contextmanager
def _serving(session: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    with _Server(("127.0.0.1", 0), session) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(10)


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Hand on bytes both ways until either side ends or nothing is said for long."""
    with selectors.DefaultSelector() as ready:
        for side, opposite in ((one, other), (other, one)):
            ready.register(side, selectors.EVENT_READ, opposite)
        while events := ready.select(_IDLE):
            for key, _ in events:
                speaker, listener = key.fileobj, key.data
                assert isinstance(speaker, socket.socket)
                piece = speaker.recv(_PIECE)
                if not piece:
                    return
                listener.sendall(piece)
                while isinstance(speaker, ssl.SSLSocket) and speaker.pending():
                    # Decrypted already, so the selector does not see it.
                    listener.sendall(speaker.recv(_PIECE))

"""An authority that an operator names is believed on every supported Python, and no other is."""

import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from outbound.named_authorities import believing
from tests.packaging.test_house import sources
from tests.support.private_network import Front, private_ca, tls_front

# Nothing listens there: the handshake is over before it would be asked.
_PLAIN = "http://127.0.0.1:9"


def shake_hands(front: Front, context: ssl.SSLContext) -> None:
    port = urlsplit(front.url).port
    with (
        socket.create_connection(("127.0.0.1", port), 30) as plain,
        context.wrap_socket(plain, server_hostname="localhost"),
    ):
        pass


@pytest.mark.parametrize("named", ["file", "pem"])
def test_an_authority_without_a_key_usage_is_believed_when_it_is_named(named: str, tmp_path: Path) -> None:
    ca = private_ca(tmp_path)
    context = believing(file=ca.file) if named == "file" else believing(pem=ca.file.read_text())
    with tls_front(ca, _PLAIN) as front:
        shake_hands(front, context)


def test_no_other_authority_is_believed_and_no_other_host(tmp_path: Path) -> None:
    ca, other = private_ca(tmp_path), private_ca(tmp_path, "other")
    with tls_front(ca, _PLAIN) as front, pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(front, believing(file=other.file))
    context = believing(file=ca.file)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert [each["subject"] for each in context.get_ca_certs()] == [((("commonName", "ca root"),),)]


def test_named_authorities_are_believed_by_no_other_means() -> None:
    elsewhere = [
        path
        for path, text in sources()
        if "create_default_context(c" in text and path != "outbound/named_authorities.py"
    ]
    assert elsewhere == []

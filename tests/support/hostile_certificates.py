"""Certificates made so that a first look at their bytes goes wrong, from one source of randomness."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from sigstore_entries.certificate import EXTENSIONS, USERNAME_OTHER_NAME_OID, encode_utf8_string
from tests.support import entries as make

PLAIN_OIDS: Final = ("1.2.3.4", "2.5.6.3.85.29.17", "1.2.6.3", "2.999.5", make.SAN_OID)
CLAIMS: Final = ("issuer", "issuer_v1", "source_repository_uri", "github_workflow_name", "build_signer_uri")
TEXTS: Final = (
    "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1",
    "https://github.com/acme/widget/.github/workflows/" + "x" * 90 + ".yml@refs/heads/main",
    "https://github.com/acme/gadget/.github/workflows/ci.yml@refs/heads/main",
    "https://GITHUB.com/Acme/Widget/x",
    "https://github.com/acme/widget",
    "https://gitlab.com/group/deeper/project//.gitlab-ci.yml@refs/heads/main",
    "https://token.actions.githubusercontent.com",
    "alice@acme.example",
    "Alice@Acme.example",
    "a@b.c",
    "spiffe://acme.example/ns/builder",
    "alice@acme.example\x00.evil.example",
    "https://github.com/acme/widget/\n",
    "https://github.com/acme/wi\u200bdget/x",
    "größe@müller.example",
    "\x7f",
    "",
    "push",
)
_OIDS: Final = {extension.name: extension.oid for extension in EXTENSIONS}
_NAME_TAGS: Final = (0x86, 0x86, 0x86, 0x81, 0x81, 0x82, 0x87, 0xA4, 0xA6)


def hostile_certificate(chance: random.Random) -> bytes:
    """A DER certificate; one in a few is broken, and some repeat or imitate extensions."""
    made = make.OddCertificate()
    for _ in range(chance.choice((0, 1, 1, 2, 3, 5))):
        oid, value = chance.choice((_san, _san, _claim, _claim, _plain, _decoy))(chance)
        made = made.with_extension(oid, value, critical=chance.random() < 0.6)
    if chance.random() < 0.1:
        made = replace(made, subject=make.der(0x30, make.der(0x31, _looks_like_a_san(chance))))
    raw = made.certificate()
    if chance.random() < 0.3:
        raw = chance.choice((_flipped, _cut, _doubled, _not_critical))(chance, raw)
    return raw


def hostile_body(chance: random.Random) -> bytes:
    """A Rekor body around such certificates: one, several, a PEM list, in both versions of the log."""
    first, second = hostile_certificate(chance), hostile_certificate(chance)
    one, other = make.pem(first), make.pem(second)
    bodies: tuple[Callable[[], bytes], ...] = (
        lambda: make.hashedrekord_v2_raw(first),
        lambda: make.hashedrekord_v2_raw(second),
        lambda: make.hashedrekord_v1(one),
        lambda: make.dsse_v1(one),
        lambda: make.dsse_v1(one, other),
        lambda: make.intoto_v2(one),
        lambda: make.intoto_v2(one.rstrip()),
        lambda: make.hashedrekord_v1(one + other),
        lambda: make.hashedrekord_v1(one.replace(b"\n", b"\r\n")),
        lambda: make.hashedrekord_v1(one.replace(b"\n", b"", 3).replace(b"CERTIFICATE-----", b"CERTIFICATE-----\n", 1)),
        lambda: make.hashedrekord_v1(one.replace(b"\n", b"\n\n", 3)),
        lambda: make.hashedrekord_v2(make.spki_of(make.make_key("plain"))),
    )
    return chance.choice(bodies)()


def long_text(chance: random.Random) -> str:
    """Text about as long as DER changes its form of length at."""
    size = chance.choice((*range(112, 132), *range(240, 262), 1_000, 9_000, 20_000))
    return "https://github.com/acme/widget/".ljust(size, "y")


def _text(chance: random.Random) -> str:
    return long_text(chance) if chance.random() < 0.15 else chance.choice(TEXTS)


def _san(chance: random.Random) -> tuple[str, bytes]:
    names = [(chance.choice(_NAME_TAGS), _text(chance).encode()) for _ in range(chance.choice((0, 1, 1, 1, 1, 2, 3)))]
    if chance.random() < 0.15:
        other = make.der_oid(USERNAME_OTHER_NAME_OID) + make.der(0xA0, encode_utf8_string(_text(chance)))
        names.append((0xA0, other))
    return make.SAN_OID, make.san_value(*names)


def _claim(chance: random.Random) -> tuple[str, bytes]:
    name, text = chance.choice(CLAIMS), _text(chance).encode()
    forms = (
        text,
        text,
        make.der(0x0C, text),
        make.der(0x0C, text),
        make.der(0x16, text),
        b"\x0c\x81\x05abcde",
        b"\xff",
    )
    return _OIDS[name], chance.choice(forms)


def _plain(chance: random.Random) -> tuple[str, bytes]:
    text = _text(chance).encode()
    return chance.choice(PLAIN_OIDS), chance.choice((text, make.der(0x0C, text), make.der(0x13, text), b""))


def _looks_like_a_san(chance: random.Random) -> bytes:
    oid, value = _san(chance)
    return make.der_oid(oid) + b"\x01\x01\xff" + make.der(0x04, value)


def _decoy(chance: random.Random) -> tuple[str, bytes]:
    return _OIDS[chance.choice(CLAIMS)], chance.choice((_looks_like_a_san(chance), make.der_oid(make.SAN_OID)))


def _flipped(chance: random.Random, raw: bytes) -> bytes:
    at = chance.randrange(len(raw))
    return raw[:at] + bytes((chance.randrange(256),)) + raw[at + 1 :]


def _cut(chance: random.Random, raw: bytes) -> bytes:
    return raw[: chance.randrange(len(raw))]


def _doubled(chance: random.Random, raw: bytes) -> bytes:
    start = chance.randrange(len(raw))
    return raw[:start] + raw[start : start + chance.randint(1, 60)] + raw[start:]


def _not_critical(chance: random.Random, raw: bytes) -> bytes:
    return raw.replace(b"\x01\x01\xff", chance.choice((b"\x01\x01\x00", b"\x02\x01\xff", b"\x01\x01\x01")), 1)

"""An OpenPGP block tells the fingerprints of keys and subkeys, and its user IDs."""

import base64

import pytest

from sigstore_entries.entry import decode_rekor
from sigstore_entries.openpgp import _READ, MAX_NAMES, MalformedPgp, _packets, read_pgp
from sigstore_entries.signing import EntryRef, NameForm, SignerForm, Signing
from tests.support import entries as make

# Made once with Sequoia, which says: primary key d38d…, subkeys 63f2… (signing) and 8080… (encryption).
ARMORED = b"""-----BEGIN PGP PUBLIC KEY BLOCK-----
Comment: D38D BCA4 F912 8E47 1CC1  5EF0 39BA 21A0 627F F33A
Comment: Alice Example <alice@example.com>
Comment: Bob <bob@example.com>

xjMEawA1fxYJKwYBBAHaRw8BAQdAQcpzpZNIdFK2xj45+3SbPvi8RqRzFOYqZfwg
qkYBe8LCwBEEHxYKAIMFgmsANX8FiQWfpgADCwkHCRA5uiGgYn/zOkcUAAAAAAAe
ACBzYWx0QG5vdGF0aW9ucy5zZXF1b2lhLXBncC5vcmdK+nYTfghTz7ocEEokJAsy
PFB9iiE/hkhhS9DEgzxHTwMVCggCmwECHgkWIQTTjbyk+RKORxzBXvA5uiGgYn/z
OgAAFr4A/jErDk0o3REXYZ9//m00zdJjgWzOTY9czYwG7RPjeAypAQDS8Ly+gr5Z
MzF+nIsNERRDsFOCbx8nfJJarvn4kXxgCc0hQWxpY2UgRXhhbXBsZSA8YWxpY2VA
ZXhhbXBsZS5jb20+wsAUBBMWCgCGBYJrADV/BYkFn6YAAwsJBwkQObohoGJ/8zpH
FAAAAAAAHgAgc2FsdEBub3RhdGlvbnMuc2VxdW9pYS1wZ3Aub3JnSYGTA9wYR7ZL
ZjySa1zBoKCOFC3hs9MI10eVfZLkGGwDFQoIApkBApsBAh4JFiEE0428pPkSjkcc
wV7wObohoGJ/8zoAAADeAQDUeJa5FEAbUlZ2ZqKRjBfalX6sjzwJrz939NwJZxxi
KAD6A+iKRBCPpCSUF33FXrpgOWZBU7feMsVMOg52jXvGyADNFUJvYiA8Ym9iQGV4
YW1wbGUuY29tPsLAEQQTFgoAgwWCawA1fwWJBZ+mAAMLCQcJEDm6IaBif/M6RxQA
AAAAAB4AIHNhbHRAbm90YXRpb25zLnNlcXVvaWEtcGdwLm9yZ0vPJ+citHjcKu8R
CAQjGbj1jlG0M5IHoBD5OLrfldI/AxUKCAKbAQIeCRYhBNONvKT5Eo5HHMFe8Dm6
IaBif/M6AAC7SwD/fUAS25sS6x4J5Q+g+whqvCFrq7Tt6i1R8r/BQAfbi3cA/1cq
8QIvxn7oSsPDaWkRtTHGo4+fbCa9dgLx358vkI4AzjMEawA1fxYJKwYBBAHaRw8B
AQdAz1KTtfyrQRRo+rkclCZz1H61EdiJLVyPljSKM4/71unCwMUEGBYKATcFgmsA
NX8FiQWfpgAJEDm6IaBif/M6RxQAAAAAAB4AIHNhbHRAbm90YXRpb25zLnNlcXVv
aWEtcGdwLm9yZ8m+v2LpO2PdUyfuvTyMyOdlW5+ymhOo+Txu2twIs2G6ApsCvqAE
GRYKAG8FgmsANX8JEMK3vBNNm72hRxQAAAAAAB4AIHNhbHRAbm90YXRpb25zLnNl
cXVvaWEtcGdwLm9yZ0bSc/agRmCeRJPxFVvqWnqhIDJPXq+zA8+MIdtnaQyOFiEE
Y/IfEEjrHXq2B2dYwre8E02bvaEAAGkKAP91QWF/pj3GlpS6Cz4+TOWUaawaUL8t
SrVEFF8vsN0F3wEAiXhv+wb0I20jvFxsMlFTFAUYUIiexn6+AiSPYf2vogIWIQTT
jbyk+RKORxzBXvA5uiGgYn/zOgAA4uYBAP7ACa9mNOdTW+KWio01FxvxOvZHFsQn
ybVtBFMCVeSwAP0bB17gC270i3eNa4tycIdzTPRiBZWJQq0bKWhzdX7kB844BGsA
NX8SCisGAQQBl1UBBQEBB0C1PKOyQoKtViSH9ozkIXIbLpR8GmJJ0f+3Bn4NK6zV
MAMBCAfCwAYEGBYKAHgFgmsANX8FiQWfpgAJEDm6IaBif/M6RxQAAAAAAB4AIHNh
bHRAbm90YXRpb25zLnNlcXVvaWEtcGdwLm9yZ6gYcMXC3bcF8B9c5mH38HJp+Coq
wud1Z6feIzls8xYAApsMFiEE0428pPkSjkccwV7wObohoGJ/8zoAAA6KAP9XgWFF
cLEDuTSOTyBiguo+0xg0IXLvsy7tPZn2+bgqEQD/UH/W1B7NOTsumNmbGVyZX0Bk
BcMXPxla1PeL/xrBfAM=
=sfe2
-----END PGP PUBLIC KEY BLOCK-----
"""
FINGERPRINTS = (
    "d38dbca4f9128e471cc15ef039ba21a0627ff33a",
    "63f21f1048eb1d7ab6076758c2b7bc134d9bbda1",
    "80807983144fb2ae1c2877494856e072245139c9",
)
BINARY = base64.b64decode(b"".join(ARMORED.split(b"\n\n")[1].split(b"\n=")[0].split(b"\n")))


SPELLINGS = {
    "armored": ARMORED,
    "CRLF": ARMORED.replace(b"\n", b"\r\n"),
    "binary": BINARY,
    "another checksum": ARMORED.replace(b"=sfe2", b"=sfe3"),
    "no checksum": ARMORED.replace(b"=sfe2\n", b""),
}


@pytest.mark.parametrize("block", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_fingerprints_of_subkeys_and_user_ids_are_read(block: bytes) -> None:
    signer = read_pgp(block)
    assert signer.form is SignerForm.PGP
    assert signer.fingerprints == FINGERPRINTS
    assert [(name.form, name.value) for name in signer.names] == [
        (NameForm.PGP_USER_ID, "Alice Example <alice@example.com>"),
        (NameForm.PGP_USER_ID, "Bob <bob@example.com>"),
        (NameForm.PGP_ADDRESS, "alice@example.com"),
        (NameForm.PGP_ADDRESS, "bob@example.com"),
    ]
    assert signer.defects == ()


@pytest.mark.parametrize("body", [make.rekord("pgp", ARMORED), make.rpm(ARMORED), make.helm(ARMORED)])
def test_rekord_rpm_and_helm_carry_such_a_key(body: bytes) -> None:
    signing = decode_rekor(body, EntryRef("rekor.example", 1))
    assert isinstance(signing, Signing)
    assert signing.signers == (read_pgp(ARMORED),)
    assert signing.digests[0].value == make.ARTIFACT


def packet(tag: int, body: bytes) -> bytes:
    """One packet with a five-octet length."""
    return bytes((0xC0 | tag, 255)) + len(body).to_bytes(4, "big") + body


KEY = packet(6, b"\x04" + b"\x00" * 40)


def test_a_keyring_of_several_keys_tells_all_of_them() -> None:
    assert len(read_pgp(KEY + BINARY + packet(6, b"\x06" + b"\x00" * 40)).fingerprints) == len(FINGERPRINTS) + 2


def test_a_version_6_key_has_a_sha256_fingerprint() -> None:
    assert len(read_pgp(packet(6, b"\x06" + b"\x00" * 40)).fingerprints[0]) == 64


def test_a_user_id_that_is_not_text_is_a_defect() -> None:
    signer = read_pgp(KEY + packet(13, b"\xff\xfe") + packet(13, b"eve\x1b[2J"))
    assert [name.value for name in signer.names] == ["eve\\x1b[2J"]
    assert [defect.partition(": ")[0] for defect in signer.defects] == ["names", "unread"]


def ring(keys: int) -> bytes:
    """Many keys, each another."""
    return b"".join(packet(6, b"\x04" + number.to_bytes(4, "big")) for number in range(keys))


FLOODS = {
    "71 keys": ring(71),
    "5,000 keys": ring(5_000),
    "65 user IDs": b"".join(packet(13, b"bystander %d" % number) for number in range(65)),
    "10,000 signatures": packet(2, b"\x04") * 10_000,
    "200 KB of user IDs": packet(13, b"x" * 8000) * 25,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_no_number_of_packets_hides_the_keys_behind_them(flood: bytes) -> None:
    for block in (flood + BINARY, packet(6, b"\x04junk") + flood + BINARY):
        assert set(FINGERPRINTS) <= set(read_pgp(block).fingerprints)


def test_no_number_of_armored_blocks_hides_a_key() -> None:
    junk = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n%s\n-----END PGP PUBLIC KEY BLOCK-----\n"
    blocks = b"".join(junk % base64.b64encode(packet(6, b"\x04%d" % number)) for number in range(100))
    assert set(FINGERPRINTS) <= set(read_pgp(blocks + ARMORED).fingerprints)


def test_keys_and_names_that_are_left_out_are_counted() -> None:
    many = b"".join(packet(13, b"%d %s" % (number, b"x" * 1000)) for number in range(100))
    signer = read_pgp(KEY + packet(6, b"\x03" + b"\x00" * 40) * 2 + many + b"\x00")
    told = sorted(signer.defects)
    assert sum(len(name.value) for name in signer.names) <= MAX_NAMES
    assert told[0] == "unread: 2 keys of a version that is not read"
    assert told[1].startswith(f"unread: {100 - len(signer.names)} user IDs")
    assert told[2].startswith("unread: the rest of the block")


MALFORMED = {
    "empty": b"",
    "text": b"hello",
    "no key": packet(13, b"Alice"),
    "packet cut short": KEY[:-1],
    "packet of four gigabytes": b"\xc6\xff\xff\xff\xff\xff",
    "partial length": b"\xc6\xe1" + b"\x00" * 40,
    "indeterminate length": b"\x9b" + b"\x00" * 40,
    "unknown version only": packet(6, b"\x03" + b"\x00" * 40),
    "armor without an end": ARMORED[:-40],
    "armor with a private key": ARMORED.replace(b"PUBLIC", b"PRIVATE"),
    "armor that is not base64": ARMORED.replace(b"xjMEawA1", b"!!!!!!!!"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_not_a_public_key_block_is_refused(case: str) -> None:
    assert read_pgp(ARMORED).fingerprints
    with pytest.raises(MalformedPgp):
        read_pgp(MALFORMED[case])


@pytest.mark.parametrize(
    ("user_id", "addresses"),
    [
        ("Alice Example (release key) <alice@acme.example>", ["alice@acme.example"]),
        ("alice@acme.example", []),
        ("<alice@acme.example>", ["alice@acme.example"]),
        ("Alice <alice@acme.example", ["alice@acme.example"]),
        (
            "A <first@acme.example> <second@acme.example> <last@acme.example>",
            ["first@acme.example", "last@acme.example"],
        ),
        ("Alice <not an address>", []),
        ("Alice <no at>", []),
    ],
)
def test_the_address_in_a_user_id_is_a_name_of_its_own(user_id: str, addresses: list[str]) -> None:
    """rekor-monitor compares its `subjects` with the bare address, and so do rules made from one."""
    key = next(body for tag, body in _packets(BINARY, _READ) if tag == 6)
    signer = read_pgp(packet(6, key) + packet(13, user_id.encode()))
    assert [name.value for name in signer.names] == [user_id, *addresses]

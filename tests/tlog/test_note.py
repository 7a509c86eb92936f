"""Signed notes: one text, one key, one way to write them."""

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, padding
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tlog import keys, vectors
from tests.tlog.refusal import refused
from tlog.note import (
    MAX_NOTE_SIZE,
    MAX_SIGNATURES,
    BadSignature,
    MalformedNote,
    NoteKey,
    open_note,
    parse_note,
    rekor_v1_key,
    split_vkey,
    tile_log_key,
)

TEXT = b"log.example\n7\nsomething\n"
KEY = tile_log_key("log.example", keys.spki(keys.ED25519))
LINE = keys.signature_line("log.example", KEY.key_id + keys.ED25519.sign(TEXT))
NOTE = TEXT + b"\n" + LINE


def test_a_note_signed_by_other_tools_opens_with_its_key() -> None:
    key = keys.note_key(vectors.text("log.vkey"))
    note = open_note(vectors.text("checkpoint.txt").encode(), key)
    assert note.key is key
    assert note.text.startswith(b"log.example/2026\n7\n")
    assert [each.name for each in note.signatures] == ["witness.example", "log.example/2026"]


def test_opening_keeps_every_byte_and_every_signature() -> None:
    note = open_note(NOTE, KEY)
    assert (note.raw, note.text, note.key) == (NOTE, TEXT, KEY)
    assert note.signatures == parse_note(NOTE).signatures


WRONG_BYTES: list[tuple[str, object]] = [
    ("empty", b""),
    ("nothing", None),
    ("text instead of bytes", NOTE.decode()),
    ("no signature at all", TEXT),
    ("no signature after the empty line", TEXT + b"\n"),
    ("no empty line", TEXT + LINE),
    ("an empty line at the end", NOTE + b"\n"),
    ("an empty line between signatures", NOTE + b"\n" + LINE + b"\n"),
    ("the last line does not end", NOTE[:-1]),
    ("carriage returns", NOTE.replace(b"\n", b"\r\n")),
    ("a tab", NOTE.replace(b"something", b"some\tthing")),
    ("a NUL", NOTE.replace(b"something", b"some\x00thing")),
    ("an escape character", NOTE.replace(b"something", b"some\x1bthing")),
    ("not UTF-8", NOTE.replace(b"something", b"some\xffthing")),
    ("an encoded surrogate", NOTE.replace(b"something", b"some\xed\xa0\x80thing")),
    ("a hyphen for the dash", NOTE.replace("—".encode(), b"-")),
    ("an en dash for the dash", NOTE.replace("—".encode(), "\u2013".encode())),
    ("no space after the dash", NOTE.replace("— ".encode(), "—".encode())),
    ("two spaces after the dash", NOTE.replace("— ".encode(), "—  ".encode())),
    ("no name", NOTE.replace(b" log.example ", b" ")),
    ("a plus in the name", NOTE.replace(b" log.example ", b" log+example ")),
    ("a no-break space in the name", NOTE.replace(b" log.example ", " log\u00a0example ".encode())),
    ("a line separator in the name", NOTE.replace(b" log.example ", " log\u2028example ".encode())),
    ("a space behind the signature", NOTE[:-1] + b" \n"),
    ("URL-safe base64", TEXT + b"\n" + "— log.example ".encode() + b"-_" * 12 + b"\n"),
    ("base64 without padding", NOTE.replace(b"=", b"")),
    ("base64 with too much padding", NOTE[:-1] + b"=\n"),
    ("a newline inside the base64", NOTE[:-20] + b"\n" + NOTE[-20:]),
    ("a key id and no signature", TEXT + b"\n" + keys.signature_line("log.example", KEY.key_id)),
    ("three bytes", TEXT + b"\n" + keys.signature_line("log.example", b"abc")),
    ("too many signatures", NOTE + LINE * MAX_SIGNATURES),
    ("too long", b"x" * MAX_NOTE_SIZE + b"\n" + NOTE),
]


@pytest.mark.parametrize(("name", "raw"), WRONG_BYTES, ids=[name for name, _ in WRONG_BYTES])
def test_a_note_written_any_other_way_is_malformed(name: str, raw: bytes) -> None:
    assert open_note(NOTE, KEY).text == TEXT  # the control case
    assert raw != NOTE
    with pytest.raises(MalformedNote):
        parse_note(raw)
    with pytest.raises(MalformedNote):
        open_note(raw, KEY)


def test_a_second_spelling_of_the_same_signature_is_malformed() -> None:
    blob = KEY.key_id + keys.ED25519.sign(TEXT)  # 68 bytes end in one padding character and two unused bits
    encoded = base64.b64encode(blob)
    assert encoded.endswith(b"=")
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = encoded[:-2] + alphabet[alphabet.index(encoded[-2]) + 1 :][:1] + b"="
    assert base64.b64decode(other) == blob
    parse_note(TEXT + "\n— log.example ".encode() + encoded + b"\n")
    with pytest.raises(MalformedNote, match="canonical"):
        parse_note(TEXT + "\n— log.example ".encode() + other + b"\n")


def test_a_text_may_hold_empty_lines_and_the_last_one_divides() -> None:
    text = b"first\n\n\nlast\n\n"
    note = parse_note(text + b"\n" + LINE)
    assert note.text == text


def test_the_keys_signature_is_found_by_name_and_id_in_any_place() -> None:
    stranger = keys.signature_line("witness.example", b"\x01\x02\x03\x04" + bytes(64))
    for lines in (LINE + stranger, stranger + LINE, stranger * 98 + LINE, LINE + LINE):
        assert open_note(TEXT + b"\n" + lines, KEY).text == TEXT


def signed_by(key: NoteKey, signature: bytes, name: str | None = None, key_id: bytes | None = None) -> bytes:
    return TEXT + b"\n" + keys.signature_line(name or key.name, (key_id or key.key_id) + signature)


def test_a_note_the_key_did_not_sign_is_refused() -> None:
    good = keys.ED25519.sign(TEXT)
    other = tile_log_key("log.example", keys.spki(keys.OTHER_ED25519))
    assert open_note(signed_by(KEY, good), KEY).text == TEXT
    wrong = {
        "another name": signed_by(KEY, good, name="other.example"),
        "a longer name": signed_by(KEY, good, name="log.example.evil.example"),
        "another id": signed_by(KEY, good, key_id=b"\x00\x00\x00\x00"),
        "another key under its own id": signed_by(other, keys.OTHER_ED25519.sign(TEXT)),
        "another key under our id": signed_by(KEY, keys.OTHER_ED25519.sign(TEXT)),
        "another text": signed_by(KEY, keys.ED25519.sign(TEXT + b"more\n")),
        "the text without its newline": signed_by(KEY, keys.ED25519.sign(TEXT[:-1])),
        "zeroes": signed_by(KEY, bytes(64)),
        "a byte less": signed_by(KEY, good[:-1]),
        "a byte more": signed_by(KEY, good + b"\x00"),
        "one byte": signed_by(KEY, b"\x00"),
        "a good line and a bad one": signed_by(KEY, good) + keys.signature_line("log.example", KEY.key_id + bytes(64)),
        "a bad line and a good one": signed_by(KEY, bytes(64)) + LINE,
    }
    for name, raw in wrong.items():
        refused(name, BadSignature, open_note, raw, KEY)


@given(st.integers(0, len(TEXT) * 8 - 1))
@settings(max_examples=60, deadline=None)
def test_changing_any_bit_of_the_text_breaks_the_note(bit: int) -> None:
    changed = bytearray(NOTE)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises((BadSignature, MalformedNote)):
        open_note(bytes(changed), KEY)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_bytes_raise_anything_else(noise: bytes) -> None:
    for raw in (noise, NOTE + noise, noise + NOTE, TEXT + b"\n" + "— log.example ".encode() + noise + b"\n"):
        try:
            open_note(raw, KEY)
        except (MalformedNote, BadSignature):
            continue


def test_ecdsa_and_rsa_logs_sign_the_sha256_of_the_text() -> None:
    rsa_key = keys.rsa_key()
    p256 = tile_log_key("log.example", keys.spki(keys.P256))
    rsa_log = tile_log_key("log.example", keys.spki(rsa_key))
    ecdsa_signature = keys.P256.sign(TEXT, ec.ECDSA(SHA256()))
    rsa_signature = rsa_key.sign(TEXT, padding.PKCS1v15(), SHA256())
    assert open_note(signed_by(p256, ecdsa_signature), p256).text == TEXT
    assert open_note(signed_by(rsa_log, rsa_signature), rsa_log).text == TEXT
    for key, signature in (
        (p256, rsa_signature),
        (rsa_log, ecdsa_signature),
        (p256, b"\x30\x00"),
        (rsa_log, bytes(256)),
    ):
        with pytest.raises(BadSignature):
            open_note(signed_by(key, signature), key)


def test_key_ids_follow_each_logs_own_rule() -> None:
    ed25519, p256, rsa_spki = keys.spki(keys.ED25519), keys.spki(keys.P256), keys.spki(keys.rsa_key())
    assert tile_log_key("a", ed25519).log_id == sha256(b"a\n\x01" + ed25519[-32:]).digest()
    assert tile_log_key("a", p256).log_id == sha256(p256).digest()
    assert tile_log_key("a", rsa_spki).log_id == sha256(b"a\n\xffPKIX-RSA-PKCS#1v1.5" + rsa_spki).digest()
    for spki in (ed25519, p256, rsa_spki):
        v1 = rekor_v1_key("rekor.example", spki)
        assert v1.log_id == sha256(spki).digest()
        assert v1.key_id == v1.log_id[:4]


def test_the_public_rekor_v2_shard_has_the_log_id_it_is_known_by() -> None:
    spki = base64.b64decode("MCowBQYDK2VwAyEAt8rlp1knGwjfbcXAYPYAkn0XiLz1x8O4t0YkEhie244=")
    key = tile_log_key("log2025-1.rekor.sigstore.dev", spki)
    assert key.log_id.hex() == "cf1199155bddd051268d1f16ac5c0c75c009f6fb5a63f4177f8e18d7051e3fa0"


def test_a_key_that_no_log_signs_with_is_malformed() -> None:
    assert tile_log_key("log.example", keys.spki(keys.ED25519)).name == "log.example"
    ed448_spki = ed448.Ed448PrivateKey.from_private_bytes(bytes(57)).public_key()
    wrong: list[object] = [
        b"",
        b"\x30\x00",
        keys.spki(keys.ED25519)[:-1],
        keys.spki(keys.ED25519) + b"\x00",
        ed448_spki.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        # An algorithm of no library: OID 1.2.3.4.
        bytes.fromhex("300c300506032a0304030300abcd"),
        None,
        "MCowBQYDK2VwAyEA",
    ]
    for spki in wrong:
        for make in (tile_log_key, rekor_v1_key):
            with pytest.raises(MalformedNote):
                make("log.example", spki)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\tb", "a\nb", "a\u00a0b", "a\u3000b", "a\x00b", "\ud800", None, 7]
)
def test_a_name_that_cannot_stand_in_a_note_is_malformed(name: str) -> None:
    assert tile_log_key("rekor.example", keys.spki(keys.ED25519)).name == "rekor.example"
    for make in (tile_log_key, rekor_v1_key):
        with pytest.raises(MalformedNote):
            make(name, keys.spki(keys.ED25519))


VKEY = vectors.text("log.vkey")
NAME, KEY_ID, ENCODED = VKEY.split("+", 2)
WRONG_VKEYS: list[tuple[str, object]] = [
    ("empty", ""),
    ("nothing", None),
    ("bytes", VKEY.encode()),
    ("two parts", f"{NAME}+{KEY_ID}"),
    ("no name", f"+{KEY_ID}+{ENCODED}"),
    ("a space in the name", f"log example+{KEY_ID}+{ENCODED}"),
    ("a short id", f"{NAME}+{KEY_ID[:6]}+{ENCODED}"),
    ("an upper-case id", f"{NAME}+{KEY_ID.upper()}+{ENCODED}"),
    ("a newline behind", VKEY + "\n"),
    ("a space in front", " " + VKEY),
    ("no base64", f"{NAME}+{KEY_ID}+****"),
    ("base64 cut short", VKEY[:-1]),
    ("letters that are not ASCII", f"{NAME}+{KEY_ID}+é{ENCODED[1:]}"),
    ("too few bytes", f"{NAME}+{KEY_ID}+{base64.b64encode(bytes([1] * 32)).decode()}"),
    ("too many bytes", f"{NAME}+{KEY_ID}+{base64.b64encode(bytes([1] * 34)).decode()}"),
    ("a witness's type", vectors.text("witness.vkey")),
]


@pytest.mark.parametrize(("name", "vkey"), WRONG_VKEYS, ids=[name for name, _ in WRONG_VKEYS])
def test_a_verifier_key_written_any_other_way_is_malformed(name: str, vkey: str) -> None:
    key = keys.note_key(VKEY)
    assert (key.name, key.key_id.hex()) == (NAME, KEY_ID)
    with pytest.raises(MalformedNote):
        split_vkey(vkey, {1: 32})

"""Certificate Transparency structures: read strictly, verified with the pinned key."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tlog import keys, vectors
from tests.tlog.refusal import refused
from tlog.ct import (
    CtLeaf,
    EntryType,
    MalformedCt,
    Reader,
    decode_base64,
    leaf_timestamped_entry,
    parse_leaf,
    parse_sct_list,
    sct_message,
    tree_head_message,
    verify_digitally_signed,
    verify_sct,
    verify_tree_head,
)
from tlog.merkle import EMPTY_ROOT, leaf_hash
from tlog.note import BadSignature, MalformedNote

KNOWN = vectors.ct()
SPKI = base64.b64decode(KNOWN["spki"])
ROOT = base64.b64decode(KNOWN["sha256_root_hash"])
SIGNATURE = base64.b64decode(KNOWN["tree_head_signature"])
HEAD = (SPKI, KNOWN["tree_size"], KNOWN["timestamp"], ROOT, SIGNATURE)
LEAF = bytes.fromhex(KNOWN["leaf"])
SCT_LIST = bytes.fromhex(KNOWN["sct_list"])
ISSUER = base64.b64decode(KNOWN["issuer_spki"])
TBS = bytes.fromhex("300101")


def signed(message: bytes, hash_id: int = 4, signature_id: int = 3) -> bytes:
    signature = keys.P256.sign(message, ec.ECDSA(SHA256()))
    return bytes([hash_id, signature_id]) + len(signature).to_bytes(2, "big") + signature


def test_a_tree_head_signed_by_other_tools_verifies() -> None:
    head = verify_tree_head(*HEAD)
    assert (head.size, head.timestamp, head.root) == (7, 1_767_225_600_123, ROOT)
    assert ROOT.hex() == vectors.merkle()["roots"][7]


def test_a_tree_head_says_nothing_else_than_what_was_signed() -> None:
    spki, size, timestamp, root, signature = HEAD
    other_root = bytes([root[0] ^ 1]) + root[1:]
    wrong = {
        "another key": (keys.spki(keys.P256), size, timestamp, root, signature),
        "another size": (spki, size + 1, timestamp, root, signature),
        "another time": (spki, size, timestamp + 1, root, signature),
        "another root": (spki, size, timestamp, other_root, signature),
        "another signature": (spki, size, timestamp, root, signature[:-1] + bytes([signature[-1] ^ 1])),
    }
    for name, arguments in wrong.items():
        refused(name, BadSignature, verify_tree_head, *arguments)


HOSTILE_NUMBERS: tuple[Any, ...] = (None, "7", 7.0, True, -1, 1 << 63, 1 << 64, 10**5000, b"7", [])


@pytest.mark.parametrize(
    ("position", "values"),
    [(1, HOSTILE_NUMBERS), (2, HOSTILE_NUMBERS), (3, (None, "", b"", ROOT[:31], ROOT + b"x", ROOT.hex(), 7))],
    ids=["size", "timestamp", "root"],
)
def test_values_that_no_log_can_sign_are_malformed(position: int, values: tuple[Any, ...]) -> None:
    verify_tree_head(*HEAD)
    for value in values:
        arguments: list[Any] = [*HEAD]
        arguments[position] = value
        with pytest.raises(MalformedCt):
            verify_tree_head(*arguments)


def test_an_empty_tree_has_one_root_only() -> None:
    spki = keys.spki(keys.P256)
    assert verify_tree_head(spki, 0, 1, EMPTY_ROOT, signed(tree_head_message(0, 1, EMPTY_ROOT))).size == 0
    with pytest.raises(MalformedCt):
        verify_tree_head(spki, 0, 1, ROOT, signed(tree_head_message(0, 1, ROOT)))


def test_a_signature_names_its_algorithms_and_its_length_exactly() -> None:
    spki, message = keys.spki(keys.P256), b"message"
    verify_digitally_signed(spki, message, signed(message))
    blob = signed(message)
    for malformed in (b"", b"\x04\x03", blob[:-1], blob + b"\x00", blob[:2] + b"\x00\x00" + blob[4:]):
        with pytest.raises(MalformedCt):
            verify_digitally_signed(spki, message, malformed)
    sha384 = keys.P256.sign(message, ec.ECDSA(SHA384()))
    for bad in (
        signed(message, hash_id=5),
        signed(message, hash_id=0),
        signed(message, signature_id=1),
        signed(message, signature_id=0),
        b"\x04\x03" + len(sha384).to_bytes(2, "big") + sha384,
        b"\x04\x03\x00\x00",
        b"\x04\x03\x00\x02\x30\x00",
    ):
        with pytest.raises(BadSignature):
            verify_digitally_signed(spki, message, bad)
    with pytest.raises(MalformedNote):
        verify_digitally_signed(b"no key", message, signed(message))


def test_rsa_logs_verify_and_ed25519_is_no_ct_key() -> None:
    rsa_key = keys.rsa_key()
    signature = rsa_key.sign(b"message", padding.PKCS1v15(), SHA256())
    verify_digitally_signed(keys.spki(rsa_key), b"message", b"\x04\x01" + len(signature).to_bytes(2, "big") + signature)
    ed25519 = keys.ED25519.sign(b"message")
    for algorithm in (1, 3, 7):
        with pytest.raises(BadSignature):
            verify_digitally_signed(keys.spki(keys.ED25519), b"message", bytes([4, algorithm, 0, 64]) + ed25519)


def test_a_leaf_written_by_hand_is_read_and_hashed() -> None:
    leaf = parse_leaf(LEAF)
    assert (leaf.timestamp, leaf.entry_type, leaf.certificate) == (1_767_225_600_123, EntryType.PRECERT, TBS)
    assert leaf.extensions == bytes.fromhex("000005000000000a")
    assert leaf_hash(LEAF).hex() == KNOWN["leaf_hash"]
    assert b"\x00\x00" + leaf_timestamped_entry(leaf) == LEAF


leaves = st.builds(
    CtLeaf,
    st.integers(0, (1 << 64) - 1),
    st.just(EntryType.X509),
    st.just(b""),
    st.binary(min_size=1, max_size=80),
    st.binary(max_size=20),
) | st.builds(
    CtLeaf,
    st.integers(0, (1 << 64) - 1),
    st.just(EntryType.PRECERT),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=1, max_size=80),
    st.binary(max_size=20),
)


@given(leaves)
@settings(max_examples=80)
def test_reading_a_leaf_undoes_writing_it(leaf: CtLeaf) -> None:
    raw = b"\x00\x00" + leaf_timestamped_entry(leaf)
    assert parse_leaf(raw) == leaf
    for wrong in (raw[:-1], raw + b"\x00"):
        with pytest.raises(MalformedCt):
            parse_leaf(wrong)


def test_a_leaf_of_another_version_or_kind_or_without_a_certificate_is_malformed() -> None:
    parse_leaf(LEAF)
    wrong = {
        "version 2": b"\x01" + LEAF[1:],
        "another leaf type": b"\x00\x01" + LEAF[2:],
        "an unknown entry type": LEAF[:10] + b"\x00\x02" + LEAF[12:],
        "no certificate": LEAF[:44] + bytes(3) + LEAF[50:],
        "empty": b"",
    }
    for name, raw in wrong.items():
        refused(name, MalformedCt, parse_leaf, raw)


def test_an_sct_signed_by_other_tools_verifies() -> None:
    (sct,) = parse_sct_list(SCT_LIST)
    verify_sct(sct, SPKI, issuer_spki=ISSUER, tbs=TBS)
    verify_digitally_signed(SPKI, sct_message(parse_leaf(LEAF)), sct.signature)
    wrong: list[dict[str, bytes]] = [
        {"spki": keys.spki(keys.P256)},
        {"issuer_spki": keys.spki(keys.ED25519)},
        {"tbs": TBS + b"\x00"},
    ]
    for change in wrong:
        arguments = {"spki": SPKI, "issuer_spki": ISSUER, "tbs": TBS, **change}
        with pytest.raises(BadSignature):
            verify_sct(sct, arguments["spki"], issuer_spki=arguments["issuer_spki"], tbs=arguments["tbs"])


def test_an_sct_list_is_never_empty_cut_or_padded() -> None:
    one = SCT_LIST[2:]
    assert len(parse_sct_list(SCT_LIST)) == 1
    assert len(parse_sct_list((2 * len(one)).to_bytes(2, "big") + one + one)) == 2
    wrong = {
        "no bytes": b"",
        "no SCT": b"\x00\x00",
        "an empty SCT": b"\x00\x02\x00\x00",
        "cut": SCT_LIST[:-1],
        "padded": SCT_LIST + b"\x00",
        "padded inside": (len(one) + 1).to_bytes(2, "big") + one + b"\x00",
        "version 2": SCT_LIST[:4] + b"\x01" + SCT_LIST[5:],
        "cut inside the log id": b"\x00\x0c\x00\x0a\x00" + bytes(9),
    }
    for name, raw in wrong.items():
        refused(name, MalformedCt, parse_sct_list, raw)


@given(st.binary(max_size=120))
@settings(max_examples=150)
def test_no_bytes_raise_anything_else(noise: bytes) -> None:
    parsers: tuple[Callable[[bytes], object], ...] = (parse_leaf, parse_sct_list)
    for raw in (noise, LEAF[:12] + noise, SCT_LIST[:5] + noise):
        for parse in parsers:
            try:
                parse(raw)
            except MalformedCt:
                continue
        try:
            verify_digitally_signed(SPKI, b"message", raw)
        except (MalformedCt, BadSignature):
            continue


def test_base64_in_json_has_one_spelling() -> None:
    assert decode_base64("3q2+7w==", "field") == bytes.fromhex("deadbeef")
    assert decode_base64("", "field") == b""
    for wrong in (
        "3q2+7w=",
        "3q2+7w",
        "3q2+7x==",
        "3q2-7w==",
        " 3q2+7w==",
        "3q2+7w==\n",
        "é",
        None,
        7,
        b"3q2+7w==",
        ["a"],
    ):
        with pytest.raises(MalformedCt):
            decode_base64(wrong, "field")  # type: ignore[arg-type]


def test_no_read_goes_past_the_end() -> None:
    reader = Reader(b"\x00\x02ab\x07")
    assert (reader.vector(2), reader.left(), reader.number(1)) == (b"ab", 0 + 1, 7)
    reader.finish()
    for read in (lambda: reader.take(1), lambda: reader.number(1), lambda: reader.vector(1)):
        with pytest.raises(MalformedCt):
            read()

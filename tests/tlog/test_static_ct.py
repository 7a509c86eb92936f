"""Static CT: a tree head inside a note, and data tiles."""

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tlog import keys, vectors
from tests.tlog.refusal import refused
from tlog.ct import CtLeaf, EntryType, leaf_timestamped_entry, tree_head_message
from tlog.note import BadSignature, MalformedCheckpoint, MalformedNote
from tlog.static_ct import TileLeaf, open_ct_checkpoint, parse_data_tile, static_ct_key
from tlog.tiles import MalformedTile

KNOWN = vectors.ct()
KEY = static_ct_key("ct.example/2026h1", base64.b64decode(KNOWN["spki"]))
OURS = static_ct_key("ct.example", keys.spki(keys.P256))
ROOT = bytes(range(32))
TIME = 1_767_225_600_123


def test_a_checkpoint_signed_by_other_tools_opens() -> None:
    checkpoint, timestamp = open_ct_checkpoint(KNOWN["static_checkpoint"].encode(), KEY)
    assert (checkpoint.origin, checkpoint.size, timestamp) == ("ct.example/2026h1", 7, KNOWN["timestamp"])
    assert checkpoint.root.hex() == vectors.merkle()["roots"][7]


def test_the_key_id_covers_name_type_and_log_id() -> None:
    log_id = sha256(keys.spki(keys.P256)).digest()
    assert OURS.log_id == log_id
    assert OURS.key_id == sha256(b"ct.example\n\x05" + log_id).digest()[:4]
    for name in ("", "ct example", "ct+example", "\ud800"):
        with pytest.raises(MalformedNote):
            static_ct_key(name, keys.spki(keys.P256))


def checkpoint_text(
    *,
    origin: str = "ct.example",
    size: str = "7",
    root: bytes = ROOT,
    extra: str = "",
    time: int = TIME,
    signed_size: int = 7,
    cut: int | None = None,
) -> bytes:
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n{extra}".encode()
    signature = keys.P256.sign(tree_head_message(signed_size, TIME, ROOT), ec.ECDSA(SHA256()))
    blob = time.to_bytes(8, "big") + b"\x04\x03" + len(signature).to_bytes(2, "big") + signature
    return text + b"\n" + keys.signature_line("ct.example", OURS.key_id + blob[:cut])


def test_nothing_in_a_checkpoint_can_be_changed_although_the_signature_covers_only_the_tree_head() -> None:
    checkpoint, timestamp = open_ct_checkpoint(checkpoint_text(), OURS)
    assert (checkpoint.size, checkpoint.root, timestamp) == (7, ROOT, TIME)
    wrong = {
        "another size": checkpoint_text(size="8"),
        "another root": checkpoint_text(root=bytes(32)),
        "another time": checkpoint_text(time=TIME + 1),
        "another signed size": checkpoint_text(signed_size=8),
        "another origin": checkpoint_text(origin="other.example"),
        "an extension line": checkpoint_text(extra="anything\n"),
        "only a time": checkpoint_text(cut=8),
        "half a time": checkpoint_text(cut=4),
        "a signature cut short": checkpoint_text(cut=40),
    }
    for name, raw in wrong.items():
        refused(name, BadSignature, open_ct_checkpoint, raw, OURS)
    for malformed in (checkpoint_text(size="07"), checkpoint_text(size="x"), checkpoint_text(root=bytes(31))):
        with pytest.raises(MalformedCheckpoint):
            open_ct_checkpoint(malformed, OURS)
    with pytest.raises(MalformedNote):
        open_ct_checkpoint(checkpoint_text()[:-1], OURS)
    with pytest.raises(BadSignature):
        open_ct_checkpoint(checkpoint_text(), KEY)


def data_tile(leaves: list[TileLeaf]) -> bytes:
    parts = []
    for each in leaves:
        parts.append(leaf_timestamped_entry(each.leaf))
        if each.leaf.entry_type is EntryType.PRECERT:
            parts.append(len(each.precertificate).to_bytes(3, "big") + each.precertificate)
        chain = b"".join(each.chain)
        parts.append(len(chain).to_bytes(2, "big") + chain)
    return b"".join(parts)


fingerprints = st.lists(st.binary(min_size=32, max_size=32), max_size=3).map(tuple)
certificates = st.binary(min_size=1, max_size=60)
tile_leaves = st.builds(
    TileLeaf,
    st.builds(
        CtLeaf, st.integers(0, 1 << 60), st.just(EntryType.X509), st.just(b""), certificates, st.binary(max_size=9)
    ),
    st.just(b""),
    fingerprints,
) | st.builds(
    TileLeaf,
    st.builds(
        CtLeaf,
        st.integers(0, 1 << 60),
        st.just(EntryType.PRECERT),
        st.binary(min_size=32, max_size=32),
        certificates,
        st.binary(max_size=9),
    ),
    certificates,
    fingerprints,
)


@given(st.lists(tile_leaves, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_splitting_a_data_tile_undoes_joining_it(leaves: list[TileLeaf]) -> None:
    raw = data_tile(leaves)
    assert parse_data_tile(raw, len(leaves)) == leaves
    for wrong, width in ((raw[:-1], len(leaves)), (raw + b"\x00", len(leaves)), (raw, len(leaves) + 1)):
        with pytest.raises(MalformedTile):
            parse_data_tile(wrong, width)


def test_a_tile_leaf_is_hashed_as_the_rfc_6962_leaf() -> None:
    raw = bytes.fromhex(KNOWN["leaf"])
    (leaf,) = parse_data_tile(raw[2:] + b"\x00\x00\x01\x30" + b"\x00\x20" + bytes(32), 1)
    assert leaf.merkle_tree_leaf() == raw
    assert (leaf.precertificate, leaf.chain) == (b"\x30", (bytes(32),))


def test_a_data_tile_of_a_width_or_chain_that_cannot_be_is_malformed() -> None:
    good = bytes.fromhex(KNOWN["leaf"])[2:] + b"\x00\x00\x01\x30" + b"\x00\x00"
    assert len(parse_data_tile(good, 1)) == 1
    wrong = [(good, 0), (good, -1), (b"", 0), (good * 257, 257), (good[:-2] + b"\x00\x1f" + bytes(31), 1), (b"", 1)]
    for raw, width in wrong:
        with pytest.raises(MalformedTile):
            parse_data_tile(raw, width)


@given(st.binary(max_size=120), st.integers(-1, 4))
@settings(max_examples=100)
def test_no_bytes_raise_anything_else(noise: bytes, width: int) -> None:
    try:
        parse_data_tile(noise, width)
    except MalformedTile:
        return

"""Witness cosignatures: who saw the checkpoint, and when. A bad one counts as missing."""

import base64
import struct
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import mldsa

from tests.tlog import keys, vectors
from tlog.cosignature import (
    WitnessAlgorithm,
    WitnessKey,
    cosigned_message,
    cosigned_tree,
    parse_witness_vkey,
    verify_cosignature,
)
from tlog.note import MalformedNote, open_note, parse_note

TEXT = b"log.example\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
RAW_KEY = keys.spki(keys.WITNESS)[-32:]
WITNESS = WitnessKey("witness.example", sha256(b"witness.example\n\x04" + RAW_KEY).digest()[:4], RAW_KEY)
TIME = 1_767_225_600


def cosignature(time: int = TIME, text: bytes = TEXT) -> bytes:
    return WITNESS.key_id + time.to_bytes(8, "big") + keys.WITNESS.sign(cosigned_message(text, time))


def note_with(*lines: bytes) -> bytes:
    return TEXT + b"\n" + b"".join(lines)


def test_a_cosignature_made_by_other_tools_verifies() -> None:
    witness = parse_witness_vkey(vectors.text("witness.vkey"))
    note = open_note(vectors.text("checkpoint.txt").encode(), keys.note_key(vectors.text("log.vkey")))
    seen = verify_cosignature(note, witness)
    assert seen is not None
    assert (seen.witness, seen.time) == (witness, 1_767_225_600)


def test_the_signed_message_is_the_one_the_specification_spells_out() -> None:
    assert cosigned_message(b"origin\n1\nroot\n", 12) == b"cosignature/v1\ntime 12\norigin\n1\nroot\n"


def test_the_time_is_covered_by_the_signature() -> None:
    for time in (0, TIME, (1 << 63) - 1):
        found = verify_cosignature(parse_note(note_with(keys.signature_line(WITNESS.name, cosignature(time)))), WITNESS)
        assert found is not None
        assert found.time == time


def test_a_cosignature_that_does_not_verify_counts_as_missing() -> None:
    good = cosignature()
    assert verify_cosignature(parse_note(note_with(keys.signature_line(WITNESS.name, good))), WITNESS)
    later = WITNESS.key_id + (TIME + 1).to_bytes(8, "big") + good[12:]
    plain = WITNESS.key_id + TIME.to_bytes(8, "big") + keys.WITNESS.sign(TEXT)
    stranger = WITNESS.key_id + TIME.to_bytes(8, "big") + keys.ED25519.sign(cosigned_message(TEXT, TIME))
    wrong = {
        "another name": keys.signature_line("other.example", good),
        "another key id": keys.signature_line(WITNESS.name, b"\x00\x00\x00\x00" + good[4:]),
        "another time": keys.signature_line(WITNESS.name, later),
        "another text": keys.signature_line(WITNESS.name, cosignature(text=TEXT + b"more\n")),
        "a signature over the bare text": keys.signature_line(WITNESS.name, plain),
        "another key": keys.signature_line(WITNESS.name, stranger),
        "a byte less": keys.signature_line(WITNESS.name, good[:-1]),
        "a byte more": keys.signature_line(WITNESS.name, good + b"\x00"),
        "only the time": keys.signature_line(WITNESS.name, good[:12]),
    }
    for name, line in wrong.items():
        assert verify_cosignature(parse_note(note_with(line)), WITNESS) is None, name


def test_a_bad_line_does_not_hide_a_good_one() -> None:
    bad = keys.signature_line(WITNESS.name, cosignature()[:-1] + b"\x00")
    good = keys.signature_line(WITNESS.name, cosignature())
    for lines in ((bad, good), (good, bad)):
        assert verify_cosignature(parse_note(note_with(*lines)), WITNESS) is not None


def vkey(name: str = WITNESS.name, key_id: str = WITNESS.key_id.hex(), blob: bytes = b"\x04" + RAW_KEY) -> str:
    return f"{name}+{key_id}+{base64.b64encode(blob).decode()}"


def id_for(blob: bytes, name: str = WITNESS.name) -> str:
    return sha256(name.encode() + b"\n" + blob).hexdigest()[:8]


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        None,
        vkey(name=""),
        vkey(name="other.example"),
        vkey(name="witness example"),
        vkey(key_id="00000000"),
        vkey(key_id=WITNESS.key_id.hex()[:6]),
        vkey(blob=b"\x01" + RAW_KEY, key_id=id_for(b"\x01" + RAW_KEY)),
        vkey(blob=b"\x06" + RAW_KEY, key_id=id_for(b"\x06" + RAW_KEY)),
        vkey(blob=b"\x04" + bytes(1312), key_id=id_for(b"\x04" + bytes(1312))),
        vkey(blob=b"\x04" + RAW_KEY[:-1], key_id=id_for(b"\x04" + RAW_KEY[:-1])),
        vkey(blob=b"\x04" + RAW_KEY + b"\x00", key_id=id_for(b"\x04" + RAW_KEY + b"\x00")),
        vkey() + "\n",
        vkey().replace("+B", "+é", 1),
        vectors.text("log.vkey"),
    ],
)
def test_a_witness_key_written_any_other_way_is_malformed(wrong: str) -> None:
    assert parse_witness_vkey(vkey()) == WITNESS
    with pytest.raises(MalformedNote):
        parse_witness_vkey(wrong)


ML_DSA = mldsa.MLDSA44PrivateKey.from_seed_bytes(sha256(b"post-quantum witness").digest())
ML_DSA_RAW = ML_DSA.public_key().public_bytes_raw()
LARGE = WitnessKey(
    "large.example",
    bytes.fromhex(id_for(b"\x06" + ML_DSA_RAW, "large.example")),
    ML_DSA_RAW,
    WitnessAlgorithm.ML_DSA_44,
)


def signed_tree(  # noqa: PLR0917  the fields of the structure
    name: str = LARGE.name,
    time: int = TIME,
    origin: bytes = b"log.example",
    start: int = 0,
    end: int = 7,
    root: bytes = bytes(32),
) -> bytes:
    """The structure of C2SP tlog-cosignature, field by field, written apart from the code under test."""
    cosigner = struct.pack(">B", len(name)) + name.encode()
    log = struct.pack(">B", len(origin)) + origin
    return b"subtree/v1\n\0" + cosigner + struct.pack(">Q", time) + log + struct.pack(">QQ", start, end) + root


def large_line(
    message: bytes, time: int = TIME, name: str = LARGE.name, key: mldsa.MLDSA44PrivateKey = ML_DSA
) -> bytes:
    return keys.signature_line(name, LARGE.key_id + struct.pack(">Q", time) + key.sign(message))


def test_an_ml_dsa_witness_is_read_from_its_verifier_key_and_its_cosignature_verifies() -> None:
    assert parse_witness_vkey(vkey("large.example", LARGE.key_id.hex(), b"\x06" + ML_DSA_RAW)) == LARGE
    assert cosigned_tree(LARGE.name, TIME, "log.example", 7, bytes(32)) == signed_tree()
    seen = verify_cosignature(parse_note(note_with(large_line(signed_tree()))), LARGE)
    assert seen is not None
    assert (seen.witness, seen.time) == (LARGE, TIME)


def test_extension_lines_are_not_what_an_ml_dsa_witness_signs() -> None:
    """SPEC tlog-cosignature: "checkpoint extension lines are not included in the signed message"."""
    extended = parse_note(TEXT + b"an extension\n\n" + large_line(signed_tree()))
    assert verify_cosignature(extended, LARGE) is not None
    assert (
        verify_cosignature(parse_note(TEXT + b"x\n\n" + keys.signature_line(WITNESS.name, cosignature())), WITNESS)
        is None
    )


def test_an_ml_dsa_cosignature_over_anything_else_counts_as_missing() -> None:
    other = mldsa.MLDSA44PrivateKey.from_seed_bytes(bytes(32))
    good = large_line(signed_tree())
    assert verify_cosignature(parse_note(note_with(good)), LARGE) is not None
    wrong = {
        "another log": large_line(signed_tree(origin=b"other.example")),
        "another size": large_line(signed_tree(end=8)),
        "another root": large_line(signed_tree(root=b"\x01" * 32)),
        "a subtree": large_line(signed_tree(start=1)),
        "another witness's name": large_line(signed_tree(name="larger.example")),
        "another time": large_line(signed_tree(time=TIME + 1)),
        "the message of Ed25519 witnesses": large_line(cosigned_message(TEXT, TIME)),
        "another key": large_line(signed_tree(), key=other),
        "under another name": large_line(signed_tree(), name="larger.example"),
        "a time beyond 2^63": large_line(signed_tree(time=1 << 63), time=1 << 63),
        "a signature of Ed25519's size": keys.signature_line(LARGE.name, LARGE.key_id + bytes(72)),
    }
    for name, line in wrong.items():
        assert verify_cosignature(parse_note(note_with(line)), LARGE) is None, name
    assert verify_cosignature(parse_note(note_with(*wrong.values(), good)), LARGE) is not None


def test_a_log_whose_name_the_structure_cannot_hold_is_not_cosigned() -> None:
    text = b"x" * 256 + TEXT.removeprefix(b"log.example")
    assert verify_cosignature(parse_note(text + b"\n" + large_line(signed_tree())), LARGE) is None
    not_a_checkpoint = parse_note(b"only text\n\n" + large_line(signed_tree()))
    assert verify_cosignature(not_a_checkpoint, LARGE) is None


def test_sixteen_of_the_largest_signatures_and_names_fit_into_a_note() -> None:
    """SPEC signed-note: verifiers "MUST accept at least up to 16 signatures", each "up to nearly 5kB"."""
    name = "w" * 255
    others = [keys.signature_line(name, bytes([number]) * 4 + bytes(8 + 4627)) for number in range(1, 17)]
    assert verify_cosignature(parse_note(note_with(*others, large_line(signed_tree()))), LARGE) is not None

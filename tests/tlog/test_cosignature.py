"""Witness cosignatures: who saw the checkpoint, and when. A bad one counts as missing."""

import base64
from hashlib import sha256

import pytest

from tests.tlog import keys, vectors
from tlog.cosignature import WitnessKey, cosigned_message, parse_witness_vkey, verify_cosignature
from tlog.note import MalformedNote, open_note, parse_note, parse_vkey

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
    note = open_note(vectors.text("checkpoint.txt").encode(), parse_vkey(vectors.text("log.vkey")))
    seen = verify_cosignature(note, witness)
    assert seen is not None
    assert (seen.witness, seen.time) == (witness, 1_767_225_600)


def test_the_signed_message_is_the_one_the_specification_spells_out() -> None:
    assert cosigned_message(b"origin\n1\nroot\n", 12) == b"cosignature/v1\ntime 12\norigin\n1\nroot\n"


def test_the_time_is_covered_by_the_signature() -> None:
    for time in (0, TIME, (1 << 64) - 1):
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

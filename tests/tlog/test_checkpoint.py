"""Checkpoints: one tree head, one way to write it."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tlog import keys, vectors
from tlog.merkle import EMPTY_ROOT, MAX_TREE_SIZE
from tlog.note import (
    Checkpoint,
    MalformedCheckpoint,
    Note,
    open_note,
    parse_checkpoint,
    parse_tree_size,
    tile_log_key,
)

KEY = tile_log_key("log.example", keys.spki(keys.ED25519))
ROOT = bytes(range(32))
ROOT_LINE = base64.b64encode(ROOT).decode()


def signed(text: str) -> Note:
    raw = text.encode()
    return open_note(raw + b"\n" + keys.signature_line(KEY.name, KEY.key_id + keys.ED25519.sign(raw)), KEY)


def checkpoint(text: str) -> Checkpoint:
    return parse_checkpoint(signed(text))


def test_a_checkpoint_made_by_other_tools_says_what_was_signed() -> None:
    raw = vectors.text("checkpoint.txt").encode()
    read = parse_checkpoint(open_note(raw, keys.note_key(vectors.text("log.vkey"))))
    assert (read.origin, read.size, read.root.hex()) == ("log.example/2026", 7, vectors.merkle()["roots"][7])
    assert (read.extensions, read.raw) == ((), raw)


def test_extension_lines_are_kept_in_order() -> None:
    text = f"rekor.example - 1193050959916656506\n9\n{ROOT_LINE}\nTimestamp: 1689177396617352539\nLog frozen — Mon\n"
    read = checkpoint(text)
    assert read.origin == "rekor.example - 1193050959916656506"
    assert read.extensions == ("Timestamp: 1689177396617352539", "Log frozen — Mon")


origins = st.text(st.characters(codec="utf-8", min_codepoint=32), min_size=1, max_size=30)
sizes = st.integers(1, MAX_TREE_SIZE)


@given(origins, sizes, st.binary(min_size=32, max_size=32), st.lists(origins, max_size=3))
@settings(max_examples=60, deadline=None)
def test_reading_what_was_written_gives_the_same_values(origin: str, size: int, root: bytes, extra: list[str]) -> None:
    lines = [origin, str(size), base64.b64encode(root).decode(), *extra]
    read = checkpoint("\n".join(lines) + "\n")
    assert (read.origin, read.size, read.root, read.extensions) == (origin, size, root, tuple(extra))


GOOD = f"log.example\n7\n{ROOT_LINE}\n"
WRONG: list[tuple[str, str]] = [
    ("no root", "log.example\n7\n"),
    ("no origin", f"7\n{ROOT_LINE}\n"),
    ("an empty origin", f"\n7\n{ROOT_LINE}\n"),
    ("an empty size", f"log.example\n\n{ROOT_LINE}\n"),
    ("an empty line at the end", GOOD + "\n"),
    ("an empty line before an extension", GOOD + "\nextension\n"),
    ("a leading zero", f"log.example\n07\n{ROOT_LINE}\n"),
    ("a plus", f"log.example\n+7\n{ROOT_LINE}\n"),
    ("negative", f"log.example\n-7\n{ROOT_LINE}\n"),
    ("a space in front of the size", f"log.example\n 7\n{ROOT_LINE}\n"),
    ("a space behind the size", f"log.example\n7 \n{ROOT_LINE}\n"),
    ("an underscore", f"log.example\n7_0\n{ROOT_LINE}\n"),
    ("Arabic digits", f"log.example\n\u0667\n{ROOT_LINE}\n"),
    ("hexadecimal", f"log.example\n0x7\n{ROOT_LINE}\n"),
    ("2^63", f"log.example\n{1 << 63}\n{ROOT_LINE}\n"),
    ("ten thousand digits", f"log.example\n{'9' * 10_000}\n{ROOT_LINE}\n"),
    ("a root of 31 bytes", f"log.example\n7\n{base64.b64encode(ROOT[:31]).decode()}\n"),
    ("a root of 33 bytes", f"log.example\n7\n{base64.b64encode(ROOT + b'x').decode()}\n"),
    ("a root without padding", f"log.example\n7\n{ROOT_LINE[:-1]}\n"),
    ("a root in hexadecimal", f"log.example\n7\n{ROOT.hex()}\n"),
    ("a root in URL-safe base64", f"log.example\n7\n{base64.urlsafe_b64encode(bytes([255] * 32)).decode()}\n"),
    ("a root with a space", f"log.example\n7\n{ROOT_LINE} \n"),
    ("a root with letters that are not ASCII", f"log.example\n7\né{ROOT_LINE[1:]}\n"),
    ("a second spelling of the root", f"log.example\n7\n{ROOT_LINE[:-2]}9=\n"),
    ("size 0 with another root than the empty one", f"log.example\n0\n{ROOT_LINE}\n"),
]


@pytest.mark.parametrize(("name", "text"), WRONG, ids=[name for name, _ in WRONG])
def test_a_signed_text_written_any_other_way_is_no_checkpoint(name: str, text: str) -> None:
    assert checkpoint(GOOD).size == 7  # the control case
    note = signed(text)  # the signature is good: only the text is wrong
    with pytest.raises(MalformedCheckpoint):
        parse_checkpoint(note)


def test_the_other_spelling_of_the_root_decodes_to_the_same_bytes() -> None:
    assert base64.b64decode(ROOT_LINE[:-2] + "9=") == ROOT, "otherwise the case above tests something else"


def test_the_empty_tree_has_the_hash_of_nothing_as_its_root() -> None:
    read = checkpoint(f"log.example\n0\n{base64.b64encode(EMPTY_ROOT).decode()}\n")
    assert (read.size, read.root) == (0, EMPTY_ROOT)


@given(st.integers(0, MAX_TREE_SIZE))
def test_a_tree_size_is_read_back_as_it_was_written(size: int) -> None:
    assert parse_tree_size(str(size)) == size


@pytest.mark.parametrize(
    "line", ["", "00", "0042", "+42", " 42", "42\n", "4_2", "\u0664\u0662", "-1", "1e3", "9" * 19, None, 42]
)
def test_a_size_written_any_other_way_is_malformed(line: str) -> None:
    assert parse_tree_size("42") == 42
    assert parse_tree_size(str(MAX_TREE_SIZE)) == MAX_TREE_SIZE
    with pytest.raises(MalformedCheckpoint):
        parse_tree_size(line)

"""Log entries in protobuf's binary form: what is written is read back, and no bytes are more than refused."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigstore_entries.protobuf import MalformedWire, read_entry, write_entry

ENTRY = {
    "logIndex": "300",
    "logId": {"keyId": base64.b64encode(b"k" * 32).decode()},
    "kindVersion": {"kind": "hashedrekord", "version": "0.0.1"},
    "integratedTime": "1764313200",
    "inclusionPromise": {"signedEntryTimestamp": base64.b64encode(b"s" * 71).decode()},
    "inclusionProof": {
        "logIndex": "7",
        "rootHash": base64.b64encode(b"r" * 32).decode(),
        "treeSize": "9",
        "hashes": [base64.b64encode(b"h" * 32).decode(), base64.b64encode(b"i" * 32).decode()],
        "checkpoint": {"envelope": "log - 1\n9\n"},
    },
}


def test_what_is_written_is_read_back() -> None:
    assert read_entry(write_entry(ENTRY)) == ENTRY
    assert write_entry({"logIndex": "300"}) == b"\x08\xac\x02"
    assert read_entry(b"\x08\xac\x02\x98\x06\x01") == {"logIndex": "300"}, "an unknown field is passed over"


@pytest.mark.parametrize("raw", [b"\x08", b"\x08" + b"\xff" * 10, b"\x12\x05a", b"\x0d\x00\x00\x00\x00", b"\x10\x01"])
def test_what_is_no_entry_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedWire):
        read_entry(raw)


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(raw: bytes) -> None:
    with contextlib.suppress(MalformedWire):
        read_entry(raw)

"""The search index as docs/search-index.md specifies it, written a second time: `hashlib` alone, nothing of ours."""

from base64 import b64decode
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

KINDS = {"identity": 1, "issuer": 2, "repository": 3, "workflow": 4, "digest": 5, "fingerprint": 6}
Entry = Sequence[tuple[str, str]]
"""Keys of one entry: kind and value."""


def key(kind: str, value: str) -> bytes:
    if kind in {"digest", "fingerprint"}:
        return bytes([KINDS[kind]]) + bytes.fromhex(value)
    raw = "".join(chr(ord(each) + 32) if "A" <= each <= "Z" else each for each in value).encode()
    if len(raw) > 200:
        raw = raw[:200] + sha256(raw).digest()
    return bytes([KINDS[kind]]) + raw


def tree(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\x01" + tree(leaves[:half]) + tree(leaves[half:])).digest()


def lines(entries: Sequence[Entry], first: int) -> list[bytes]:
    found: dict[bytes, set[int]] = {}
    for number, keys in enumerate(entries, first):
        for kind, value in keys:
            found.setdefault(sha256(key(kind, value)).digest(), set()).add(number)
    return [
        key_hash + len(numbers).to_bytes(8, "big") + tree([each.to_bytes(8, "big") for each in sorted(numbers)])
        for key_hash, numbers in sorted(found.items())
    ]


def maps(entries: Sequence[Entry], smallest: int) -> list[tuple[int, int, bytes]]:
    """Level, number of lines and root of each map of the entries before the ragged tail."""
    found = []
    at = 0
    for level in range(63, smallest - 1, -1):
        if len(entries) >> level & 1:
            rows = lines(entries[at : at + (1 << level)], at)
            found.append((level, len(rows), tree(rows)))
            at += 1 << level
    return found


def index_root(found: Sequence[tuple[int, int, bytes]], smallest: int, decoder: int = 1) -> bytes:
    raw = b"signwatch search index v1\n" + decoder.to_bytes(4, "big") + bytes([6, 1, 2, 3, 4, 5, 6, smallest])
    raw += sum(1 << level for level, _, _ in found).to_bytes(8, "big")
    for level, count, root in found:
        raw += bytes([level]) + count.to_bytes(8, "big") + root
    return sha256(raw).digest()


def climb(line: bytes, position: int, count: int, path: Sequence[bytes]) -> bytes:
    """Root that a line's path leads to."""
    if count == 1:
        assert not path
        return sha256(b"\x00" + line).digest()
    half = 1
    while half * 2 < count:
        half *= 2
    if position < half:
        return sha256(b"\x01" + climb(line, position, half, path[:-1]) + path[-1]).digest()
    return sha256(b"\x01" + path[-1] + climb(line, position - half, count - half, path[:-1])).digest()


def grown(old: int, new: int, proof: Sequence[bytes], root: bytes, *, whole: bool = True) -> tuple[bytes, bytes]:
    """Roots of both sizes that a consistency proof leads to (RFC 6962 2.1.2); `root` is that of the smaller tree."""
    if old == new:
        assert len(proof) == (0 if whole else 1)
        return (root, root) if whole else (proof[0], proof[0])
    assert old < new
    half = 1
    while half * 2 < new:
        half *= 2
    if old <= half:
        before, after = grown(old, half, proof[:-1], root, whole=whole)
        return before, sha256(b"\x01" + after + proof[-1]).digest()
    before, after = grown(old - half, new - half, proof[:-1], root, whole=False)
    return sha256(b"\x01" + proof[-1] + before).digest(), sha256(b"\x01" + proof[-1] + after).digest()


def covered(document: dict[str, Any], size: int) -> tuple[int, bytes]:
    """Size and root of the tree that is said to be signed, of which the first `size` entries are covered."""
    assert (document["first"], document["size"]) == (0, size)
    at, root = size, bytes.fromhex(document["root"])
    for step in document["steps"]:
        before, after = grown(at, step["size"], [bytes.fromhex(each) for each in step["proof"]], root)
        assert (before, after) == (root, bytes.fromhex(step["root"]))
        at, root = step["size"], after
    text = b64decode(document["head"]).decode().split("\n")
    assert (int(text[1]), b64decode(text[2])) == (at, root)
    return at, root


def check(document: dict[str, Any], root: bytes) -> dict[tuple[str, str], list[int]]:
    """Entries of each key that an answer proves under an index root; AssertionError when it proves nothing."""
    found = [(each["level"], each["lines"], bytes.fromhex(each["root"])) for each in document["maps"]]
    size = sum(1 << level for level, _, _ in found)
    assert size == document["size"]
    assert [level for level, _, _ in found] == sorted({level for level, _, _ in found}, reverse=True)
    assert index_root(found, document["smallest"], document["decoder"]) == root
    covered(document["covers"], size)

    def shown(line: dict[str, Any], count: int, of: bytes) -> tuple[bytes, int]:
        raw = bytes.fromhex(line["key_hash"]) + line["count"].to_bytes(8, "big") + bytes.fromhex(line["entries_root"])
        assert 0 <= line["position"] < count
        assert climb(raw, line["position"], count, [bytes.fromhex(each) for each in line["path"]]) == of
        return bytes.fromhex(line["key_hash"]), line["position"]

    proven = {}
    for answer in document["answers"]:
        wanted = sha256(key(answer["kind"], answer["value"])).digest()
        numbers: list[int] = []
        assert len(answer["maps"]) == len(found)
        for each, (_, count, of) in zip(answer["maps"], found, strict=True):
            if "line" in each:
                assert shown(each["line"], count, of)[0] == wanted
                listed = each["line"]["entries"]
                assert tree([number.to_bytes(8, "big") for number in listed]).hex() == each["line"]["entries_root"]
                assert len(listed) == each["line"]["count"]
                numbers += listed
                continue
            low, at = shown(each["before"], count, of) if each["before"] else (b"", -1)
            high, then = shown(each["after"], count, of) if each["after"] else (b"\xff" * 33, count)
            assert low < wanted < high
            assert then == at + 1
        proven[answer["kind"], answer["value"]] = numbers
    return proven

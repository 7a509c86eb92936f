"""Reads an exported evidence file and says whether the log's own signatures in it contradict each other.

Written from the public specifications alone (RFC 6962, C2SP signed-note, tlog-checkpoint and static-ct-api, Rekor's
checkpoint.go) and from docs of the file's fields; nothing of this project is imported. It judges the real reader, so it
does things the slow, obvious way: trees are recomputed recursively from the definition of the proofs.

    python independent_reader.py evidence.json [hex SHA-256 of the log's key, from a source you trust]
"""

import base64
import hashlib
import json
import struct
import sys
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

Head = tuple[str, int, bytes, bool]  # origin, size, root, declared final
Promise = tuple[str, bytes, int | None]  # kind, leaf, promised index
Node = tuple[int, int]  # level, index


KINDS = [
    "entry-signature-wrong",
    "log-forked",
    "log-inconsistent",
    "log-unfrozen",
    "log-entries-not-in-tree",
    "log-entry-missing",
    "log-head-refused",
    "log-promise-broken",
    "log-shard-vanished",
]


class ShowsNothing(Exception):
    """A signature or the file itself is not what it claims to be."""


def read(raw: bytes, expected_key: str | None = None) -> str | None:
    """What contradicts what, in a sentence; `None` when the file is a record that proves nothing to strangers."""
    try:
        document = json.loads(raw)
        spki = unb64(document["key"]["spki"])
        heads = [read_head(unb64(head), document["api"], document["key"]["name"], spki) for head in document["heads"]]
        proof = [unb64(node) for node in document["proof"]]
        second = [unb64(node) for node in document.get("secondProof", [])]
        prefix = [unb64(node) for node in document["prefix"]]
        leaves = [(leaf["index"], sha256(b"\x00" + unb64(leaf["leaf"]))) for leaf in document["leaves"]]
        promises = [(p["kind"], unb64(p["statement"]), unb64(p["signature"])) for p in document.get("promises", [])]
        sizes = document["sizes"]
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise ShowsNothing(f"not an evidence file: {error!r}") from error
    if document.get("kind") not in KINDS:
        raise ShowsNothing("no kind of evidence that there is")
    if expected_key is not None and sha256(spki).hex() != expected_key:
        raise ShowsNothing("the key in the file is not the log's")
    promised = [read_promise(*each, spki) for each in promises]
    if document.get("kind") == "log-promise-broken":
        return broken_promise(document, heads, proof, promised)
    if len(heads) != 2 or heads[0][0] != heads[1][0]:
        return None
    return (
        same_size(heads)
        or grown_after_the_end(heads)
        or other_beginning(heads, proof, prefix)
        or other_nodes(heads, leaves, (proof, second, prefix), sizes)
    )


# -- what two heads say by themselves


def same_size(heads: list[Head]) -> str | None:
    (_, size1, root1, _), (_, size2, root2, _) = heads
    return f"two roots for size {size1}" if size1 == size2 and root1 != root2 else None


def grown_after_the_end(heads: list[Head]) -> str | None:
    for one, other in (heads, heads[::-1]):
        if one[3] and other[1] > one[1]:
            return f"declared final at {one[1]}, then signed {other[1]}"
    return None


# -- what a proof into the larger tree says of its first leaves


def other_beginning(heads: list[Head], proof: list[bytes], prefix: list[bytes]) -> str | None:
    small, large = sorted(heads, key=lambda head: head[1])
    size1, size2 = small[1], large[1]
    if not 0 < size1 < size2:
        return None
    try:
        if prefix:
            shown = fold(prefix, size1)
            if larger_root(size1, size2, shown, proof) != large[2]:
                return None
        else:
            if size1 & (size1 - 1) == 0:
                return None  # the proof does not carry this hash
            shown, root2 = both_roots(size1, size2, proof)
            if root2 != large[2]:
                return None
    except IndexError:
        return None
    return f"size {size2} does not begin with what was signed for size {size1}" if shown != small[2] else None


def both_roots(size1: int, size2: int, proof: list[bytes]) -> tuple[bytes, bytes]:
    """RFC 6962 2.1.2 read backwards: SUBPROOF(m, D[n], b) consumed from its end."""
    rest = list(proof)

    def walk(m: int, n: int, *, whole: bool) -> tuple[bytes, bytes]:
        if m == n:
            if whole:
                raise IndexError("the first root would be needed")
            node = rest.pop(0)
            return node, node
        k = 1 << ((n - 1).bit_length() - 1)
        if m <= k:
            old, new = walk(m, k, whole=whole)
            return old, node_hash(new, rest.pop(0))
        old, new = walk(m - k, n - k, whole=False)
        left = rest.pop(0)
        return node_hash(left, old), node_hash(left, new)

    roots = walk(size1, size2, whole=True)
    if rest:
        raise IndexError("hashes are left over")
    return roots


def larger_root(size1: int, size2: int, root1: bytes, proof: list[bytes]) -> bytes:
    """Root of the larger tree if the smaller one has `root1`; raises `IndexError` when the proof is of neither."""
    rest = list(proof)

    def walk(m: int, n: int, *, whole: bool) -> tuple[bytes, bytes]:
        if m == n:
            node = root1 if whole else rest.pop(0)
            return node, node
        k = 1 << ((n - 1).bit_length() - 1)
        if m <= k:
            old, new = walk(m, k, whole=whole)
            return old, node_hash(new, rest.pop(0))
        old, new = walk(m - k, n - k, whole=False)
        left = rest.pop(0)
        return node_hash(left, old), node_hash(left, new)

    if size1 == size2:
        if rest:
            raise IndexError("hashes are left over")
        return root1
    old, new = walk(size1, size2, whole=True)
    if rest or old != root1:
        raise IndexError("the proof does not begin at that root")
    return new


def fold(prefix: list[bytes], size: int) -> bytes:
    if len(prefix) != size.bit_count():
        raise IndexError("a frontier has one hash for every bit that is set")
    root = prefix[-1]
    for left in reversed(prefix[:-1]):
        root = node_hash(left, root)
    return root


# -- what two proofs say of the subtrees they share


def other_nodes(
    heads: list[Head], leaves: list[tuple[int, bytes]], hashes: tuple[list[bytes], ...], sizes: list[int]
) -> str | None:
    proof, second, prefix = hashes
    if not leaves:
        return None
    try:
        if prefix:
            known = nodes_of_frontier(prefix, sizes[0])
            if larger_root(sizes[0], heads[0][1], fold(prefix, sizes[0]), proof) != heads[0][2]:
                return None
        else:
            known = nodes_of_proof(*leaves[0], heads[0], proof)
        seen = nodes_of_proof(*leaves[-1], heads[1], second)
    except (IndexError, ValueError):
        return None
    for place in sorted(known.keys() & seen.keys()):
        if known[place] != seen[place]:
            return f"two hashes for the subtree at level {place[0]}, index {place[1]}"
    return None


def nodes_of_proof(index: int, leaf: bytes, head: Head, proof: list[bytes]) -> dict[Node, bytes]:
    """RFC 6962 2.1.1: PATH(m, D[n]), its hashes placed by walking down from the root."""
    size, found, rest = head[1], dict[Node, bytes](), list(proof)
    if not 0 <= index < size:
        raise IndexError("no such leaf")

    def place(start: int, end: int, value: bytes) -> None:
        width = end - start
        if width & (width - 1) == 0 and start % width == 0:
            found[width.bit_length() - 1, start // width] = value

    def walk(start: int, end: int) -> bytes:
        if end - start == 1:
            value = leaf
        else:
            k = start + (1 << ((end - start - 1).bit_length() - 1))
            if index < k:
                left = walk(start, k)
                right = rest.pop(0)
                place(k, end, right)
            else:
                right = walk(k, end)
                left = rest.pop(0)
                place(start, k, left)
            value = node_hash(left, right)
        place(start, end, value)
        return value

    if walk(0, size) != head[2] or rest:
        raise IndexError("the proof does not lead to the signed root")
    return found


def nodes_of_frontier(prefix: list[bytes], size: int) -> dict[Node, bytes]:
    found, start = {}, 0
    for value in prefix:
        width = 1 << ((size - start).bit_length() - 1)
        found[width.bit_length() - 1, start // width] = value
        start += width
    return found


# -- what a promise says, and what stands in its place


def broken_promise(
    document: dict[str, Any], heads: list[Head], proof: list[bytes], promises: list[Promise]
) -> str | None:
    """Two entries for one index, both promised; or one promised and another in the one tree of a CT log."""
    if not promises or {each[0] for each in promises} != {"rekor-set" if document["api"] == "rekor-v1" else "ct-sct"}:
        raise ShowsNothing("no promise that a log of this kind makes")
    kind, leaf, index = promises[0]
    told = "\0".join((sha256(unb64(document["key"]["spki"])).hex(), kind, str(index), sha256(b"\x00" + leaf).hex()))
    if document["event"] != sha256(told.encode()).hex():
        raise ShowsNothing("the file is about another promise")
    if len(heads) > 1 or document["sizes"] != [head[1] for head in heads]:
        raise ShowsNothing("the sizes are not those of the heads")
    shown = [(each["index"], unb64(each["leaf"])) for each in document["leaves"]]
    others = promises[1:]
    if len(others) > 1 or leaf in [each[1] for each in others]:
        raise ShowsNothing("more promises than two of two entries")
    found = other_entry(promises, shown, heads, proof) if shown or proof else None
    if others and index is not None and others[0][2] == index:
        return f"index {index} was promised to two entries"
    if others and not shown:
        raise ShowsNothing("a second promise that contradicts nothing")
    return found


def other_entry(
    promises: list[Promise], shown: list[tuple[int, bytes]], heads: list[Head], proof: list[bytes]
) -> str | None:
    """Is it the promised index at which another entry is proven to stand?"""
    kind, leaf, index = promises[0]
    try:
        ((place, other),), (head,) = shown, heads
        nodes_of_proof(place, sha256(b"\x00" + other), head, proof)
    except (IndexError, ValueError) as error:
        raise ShowsNothing("the entry is not proven to be in the tree") from error
    if other == leaf:
        raise ShowsNothing("the promise was kept")
    if [each[1] for each in promises[1:]] not in ([], [other]):
        raise ShowsNothing("a second promise that is not of the entry shown")
    if kind == "ct-sct" and place == index:
        return f"index {index} was promised to one entry and holds another"
    return None


def read_promise(kind: str, statement: bytes, signature: bytes, spki: bytes) -> Promise:
    if kind == "rekor-set":
        return read_set(statement, signature, spki)
    if kind == "ct-sct":
        return read_sct(statement, signature, spki)
    raise ShowsNothing(f"no such promise: {kind}")


def read_set(statement: bytes, signature: bytes, spki: bytes) -> Promise:
    """Rekor's verify.go: canonical JSON of four fields, of which two are whole numbers and two plain ASCII texts."""
    try:
        told = json.loads(statement)
        plain = {"body": str, "integratedTime": int, "logID": str, "logIndex": int}
        if {name: type(value) for name, value in told.items()} != plain or min(
            told["integratedTime"], told["logIndex"]
        ) < 0:
            raise ShowsNothing("not a signed entry timestamp")
        leaf = unb64(told["body"])
        again = f'{{"body":"{base64.b64encode(leaf).decode()}","integratedTime":{told["integratedTime"]},'
        again += f'"logID":"{sha256(spki).hex()}","logIndex":{told["logIndex"]}}}'
    except (ValueError, AttributeError) as error:
        raise ShowsNothing("not a signed entry timestamp") from error
    if again.encode() != statement:
        raise ShowsNothing("a signed entry timestamp of another log, or in another spelling")
    check(spki, statement, signature)
    return "rekor-set", leaf, told["logIndex"]


def read_sct(statement: bytes, signature: bytes, spki: bytes) -> Promise:
    """RFC 6962 3.2: the signed bytes are those of the leaf (3.4), because both kinds of type are 0."""
    try:
        check_signed(spki, statement, signature)
        version, kind, _, entry_type = struct.unpack(">BBQH", statement[:12])
        place = 12 if entry_type == 0 else 44
        place += 3 + int.from_bytes(statement[place : place + 3], "big")
        (length,) = struct.unpack(">H", statement[place : place + 2])
        extensions = statement[place + 2 :]
        if (version, kind) != (0, 0) or entry_type not in {0, 1} or length != len(extensions):
            raise ShowsNothing("not a certificate timestamp")
        return "ct-sct", statement, promised_index(extensions)
    except struct.error as error:
        raise ShowsNothing("not a certificate timestamp") from error


def promised_index(extensions: bytes) -> int | None:
    """C2SP static-ct-api: extension 0 is leaf_index, 40 bits."""
    found = []
    while extensions:
        kind, length = struct.unpack(">BH", extensions[:3])
        data, extensions = extensions[3 : 3 + length], extensions[3 + length :]
        if len(data) != length:
            raise ShowsNothing("an extension that is cut short")
        if kind == 0:
            found.append(data)
    if not found:
        return None
    if len(found) > 1 or len(found[0]) != 5:
        raise ShowsNothing("no leaf_index")
    return int.from_bytes(found[0], "big")


# -- what the key signed


def read_head(raw: bytes, api: str, name: str, spki: bytes) -> Head:
    if api == "ct-rfc6962":
        return read_sth(raw, name, spki)
    text, _, signatures = raw.partition(b"\n\n")
    text += b"\n"
    origin, size, root, *more = text.decode().split("\n")[:-1]
    head = (origin, int(size), unb64(root), any(line.startswith("Log frozen ") for line in more))
    if api == "rekor-v1":
        key_hash = sha256(spki)[:4]
    elif api == "rekor-v2":
        key_hash = v2_key_hash(name, spki)
    elif api == "ct-static":
        key_hash = sha256(name.encode() + b"\n\x05" + sha256(spki))[:4]
    else:
        raise ShowsNothing(f"no such protocol: {api}")
    for line in signatures.decode().splitlines():
        dash, signer, blob = line.split(" ")
        signed = unb64(blob)
        if (dash, signer, signed[:4]) != ("\u2014", name, key_hash):
            continue
        if api == "ct-static":
            (timestamp,) = struct.unpack(">Q", signed[4:12])
            check_tree_head(spki, timestamp, head[1], head[2], signed[12:])
        else:
            check(spki, text, signed[4:])
        return head
    raise ShowsNothing("the log's key did not sign this head")


def v2_key_hash(name: str, spki: bytes) -> bytes:
    key = load_der_public_key(spki)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return sha256(name.encode() + b"\n\x01" + key.public_bytes_raw())[:4]
    return sha256(spki)[:4]


def read_sth(raw: bytes, name: str, spki: bytes) -> Head:
    sth = json.loads(raw)
    size, root = sth["tree_size"], unb64(sth["sha256_root_hash"])
    check_tree_head(spki, sth["timestamp"], size, root, unb64(sth["tree_head_signature"]))
    return name, size, root, False


def check_tree_head(spki: bytes, timestamp: int, size: int, root: bytes, signed: bytes) -> None:
    """RFC 6962 3.5: version 0, signature type 1, timestamp, size, root; signed as TLS `digitally-signed`."""
    check_signed(spki, struct.pack(">BBQQ32s", 0, 1, timestamp, size, root), signed)


def check_signed(spki: bytes, message: bytes, signed: bytes) -> None:
    (length,) = struct.unpack(">H", signed[2:4])
    if signed[0] != 4 or len(signed) != 4 + length:
        raise ShowsNothing("not a SHA-256 signature")
    check(spki, message, signed[4:])


def check(spki: bytes, message: bytes, signature: bytes) -> None:
    key: Any = load_der_public_key(spki)
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), SHA256())
        else:
            raise ShowsNothing("no such key")
    except InvalidSignature as error:
        raise ShowsNothing("the log's key did not sign this head") from error


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def unb64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:  # noqa: PTH123
        print(read(file.read(), *sys.argv[2:3]) or "a record: convincing only to who trusts the witness")

"""The search index as docs/search-index.md specifies it, written a second time, with nothing of ours.

Keys of hashedrekord, dsse and intoto 0.0.2 entries are derived from the logged bytes, read by `json` and
`cryptography`.
"""

import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from unicodedata import category

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

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


GITHUB, GITHUB_TOKENS = "https://github.com", "https://token.actions.githubusercontent.com"
GITLAB = "https://gitlab.com"
FULCIO = "1.3.6.1.4.1.57264.1."
SIZES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
SIZES_V2 = {"SHA2_256": 32, "SHA2_384": 48, "SHA2_512": 64, "SHA3_256": 32, "SHA3_384": 48}
PEM = re.compile(rb"\s*-----BEGIN ([A-Z0-9 ]+)-----\r?\n([A-Za-z0-9+/=\r\n]*)-----END \1-----\s*")
ADDRESS = re.compile(r"<([^<>@\t\n\f\r ]{1,128}@[^<>@\t\n\f\r ]{1,255})>[\t\n\f\r ]*\Z")


def keys_of(body: bytes) -> set[bytes]:
    """Keys of a hashedrekord, dsse or intoto 0.0.2 entry of Rekor, from its body; none for one that cannot be read."""
    try:
        found = list(values(json.loads(body, object_pairs_hook=unique)))
    except (ValueError, KeyError, TypeError):
        return set()
    return {key(kind, value) for kind, value in found}


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a repeated name")
    return dict(pairs)


def values(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Kind and value of each key, a digest and a fingerprint in hexadecimal."""
    spec = body["spec"]
    match body["kind"], body["apiVersion"]:
        case "hashedrekord", "0.0.1":
            yield "digest", digest(spec["data"]["hash"])
            yield from of_pem(spec["signature"]["publicKey"]["content"])
        case "dsse", "0.0.1":
            yield from (("digest", digest(spec[name])) for name in ("payloadHash", "envelopeHash"))
            yield from of_all(of_pem, [each["verifier"] for each in spec["signatures"]])
        case "hashedrekord", "0.0.2":
            (inner,) = [spec[name] for name in ("hashedRekordV002", "hashedRekordV0_0_2") if name in spec]
            yield "digest", digest_v2(inner["data"])
            yield from of_message(inner["signature"]["verifier"])
        case "dsse", "0.0.2":
            (inner,) = [spec[name] for name in ("dsseV002", "dsseV0_0_2") if name in spec]
            yield "digest", digest_v2(inner["payloadHash"])
            yield from of_all(of_message, [each["verifier"] for each in inner["signatures"]])
        case "intoto", "0.0.2":
            content = spec["content"]
            yield from (("digest", digest(content[name])) for name in ("hash", "payloadHash") if name in content)
            yield from of_all(of_pem, [each["publicKey"] for each in content["envelope"]["signatures"]])
        case other:
            raise ValueError(f"{other} is not read here")


def digest(said: dict[str, str]) -> str:
    value = said["value"].lower()
    if len(bytes.fromhex(value)) != SIZES.get(said["algorithm"].lower()) or len(value) % 2:
        raise ValueError("not a digest")
    return value


def digest_v2(said: dict[str, str]) -> str:
    value = b64decode(said["digest"], validate=True)
    if len(value) != SIZES_V2.get(said["algorithm"]):
        raise ValueError("not a digest")
    return value.hex()


def of_all(read: Callable[[Any], Iterator[tuple[str, str]]], verifiers: list[Any]) -> list[tuple[str, str]]:
    """Values of all verifiers that can be read, of which there must be one."""
    found = []
    for verifier in verifiers:
        try:
            found.append(list(read(verifier)))
        except (ValueError, KeyError, TypeError):
            continue
    if not found:
        raise ValueError("no verifier can be read")
    return [value for each in found for value in each]


def of_pem(text: str) -> Iterator[tuple[str, str]]:
    raw, at, blocks = b64decode(text, validate=True), 0, list[tuple[bytes, bytes]]()
    while at < len(raw):
        block = PEM.match(raw, at)
        if block is None:
            raise ValueError("not PEM")
        blocks.append((block[1], b64decode(re.sub(rb"[\r\n]", b"", block[2]), validate=True)))
        at = block.end()
    (label, content), *rest = blocks
    if len(blocks) <= 10 and label == b"CERTIFICATE" and all(other == label for other, _ in rest):
        return of_certificate(content)
    if label == b"PUBLIC KEY" and not rest:
        return of_key(content)
    raise ValueError("not a verifier that is read here")


def of_message(verifier: dict[str, Any]) -> Iterator[tuple[str, str]]:
    (name,) = [name for name in ("x509Certificate", "publicKey") if name in verifier]
    raw = b64decode(verifier[name]["rawBytes"], validate=True)
    return of_certificate(raw) if name == "x509Certificate" else of_key(raw)


def of_key(spki: bytes) -> Iterator[tuple[str, str]]:
    load_der_public_key(spki)
    yield "fingerprint", sha256(spki).hexdigest()


def of_certificate(der: bytes) -> Iterator[tuple[str, str]]:
    certificate = x509.load_der_x509_certificate(der)
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    yield "fingerprint", sha256(der).hexdigest()
    yield "fingerprint", sha256(spki).hexdigest()
    names, claims = list[str](), dict[int, str]()
    for each in certificate.extensions:
        if isinstance(each.value, x509.SubjectAlternativeName):
            names += [name for general in each.value if (name := name_of(general)) is not None]
        elif each.oid.dotted_string.startswith(FULCIO) and isinstance(each.value, x509.UnrecognizedExtension):
            number = int(each.oid.dotted_string.removeprefix(FULCIO))
            if (text := claim_of(number, each.value.value)) is not None:
                claims[number] = text
    for name in names:
        yield "identity", name
        if (address := ADDRESS.search(name)) is not None:
            yield "identity", address[1]
    yield from (("issuer", claims[number]) for number in (1, 8) if number in claims)
    yield from (("repository", uri) for uri in repositories(claims, names))
    yield from (("workflow", claims[number]) for number in (9, 18) if number in claims and claims[number] not in names)


def name_of(name: x509.GeneralName) -> str | None:
    if isinstance(name, x509.RFC822Name | x509.DNSName | x509.UniformResourceIdentifier):
        return printable(name.value)
    if isinstance(name, x509.OtherName) and name.type_id.dotted_string == f"{FULCIO}7":
        text = utf8_string(name.value)
        return None if text is None else printable(text)
    if isinstance(name, x509.IPAddress):
        assert isinstance(name.value, IPv4Address | IPv6Address)
        mapped = name.value.ipv4_mapped if isinstance(name.value, IPv6Address) else None
        return str(name.value) if mapped is None else f"::ffff:{mapped}"
    return None


def claim_of(number: int, raw: bytes) -> str | None:
    if len(raw) > 8192 or not 1 <= number <= 24 or number == 7:
        return None
    try:
        text = raw.decode() if number <= 6 else utf8_string(raw)
    except UnicodeDecodeError:
        return None
    return None if text is None else printable(text)


def utf8_string(raw: bytes) -> str | None:
    """Text of a DER UTF8String that is all of `raw`."""
    content = raw[2:]
    if raw[1:2] > b"\x80":
        content = raw[2 + raw[1] - 0x80 :]
    size = len(content)
    octets = b"" if size < 0x80 else size.to_bytes((size.bit_length() + 7) // 8, "big")
    head = bytes([0x0C, 0x80 + len(octets)]) + octets if octets else bytes([0x0C, size])
    return content.decode() if raw == head + content else None


_ESCAPED = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp", "Zs"}


def printable(text: str) -> str:
    def spelled(each: str) -> str:
        is_noncharacter = 0xFDD0 <= ord(each) <= 0xFDEF or ord(each) & 0xFFFE == 0xFFFE
        # Python 3.11 knows Unicode 14.0: U+13439 to U+1343F are Cf since 15.0.
        is_control = category(each) in _ESCAPED or 0x13439 <= ord(each) <= 0x1343F
        if each == " " or not (is_control or is_noncharacter):
            return each
        short, number = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}, ord(each)
        long = f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"
        return short.get(each) or (f"\\x{number:02x}" if number < 1 << 8 else long)

    return "".join(map(spelled, text))


def repositories(claims: Mapping[int, str], names: Sequence[str]) -> Iterator[str]:
    issuer = claims.get(8, claims.get(1))
    if uri := claims.get(12):
        yield uri
        built = claims.get(18, "")
        if issuer not in {None, GITLAB} and uri.startswith(f"{GITLAB}/") and built.startswith(f"{issuer}/"):
            yield f"{issuer}{uri.removeprefix(GITLAB)}"
        return
    if 12 in claims:
        yield ""
    if (name := claims.get(5)) is None:
        return
    hosts = ["/".join(each.split("/")[:3]) for each in names if each.startswith("https://")]
    hosts += [GITHUB] if issuer == GITHUB_TOKENS else []
    yield name if "://" in name or not hosts else f"{hosts[0]}/{name}"


def tree(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\x01" + tree(leaves[:half]) + tree(leaves[half:])).digest()


def lines(entries: Sequence[set[bytes]], first: int) -> list[bytes]:
    found: dict[bytes, set[int]] = {}
    for number, keys in enumerate(entries, first):
        for each in keys:
            found.setdefault(sha256(each).digest(), set()).add(number)
    return [
        key_hash + len(numbers).to_bytes(8, "big") + tree([each.to_bytes(8, "big") for each in sorted(numbers)])
        for key_hash, numbers in sorted(found.items())
    ]


def maps(entries: Sequence[Entry], smallest: int) -> list[tuple[int, int, bytes]]:
    """Maps of entries whose values are at hand."""
    return maps_of_keys([{key(kind, value) for kind, value in each} for each in entries], smallest)


def maps_of_keys(entries: Sequence[set[bytes]], smallest: int) -> list[tuple[int, int, bytes]]:
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

"""The search map: for each search key, provably all entries of a subtree that have the key. Hashes only, no files.

docs/search-index.md specifies every byte. A map holds one line per key of an aligned full subtree of the log, sorted by
the key's hash; the map is hashed as an RFC 6962 tree over its lines, so that a proof shows a line, or the two
neighbouring lines between which an absent key would stand. Two adjacent maps of one size merge, as the subtrees of a
frontier do.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import chain
from typing import Any, Final

from msgspec import Struct

from alerts.alert import counted
from monitor.archive.search_index import SEARCHED, KeyKind, text_key, value_key
from monitor.model.log_source import HeadStatement, LogApi, LogIdentity
from monitor.proof.evidence import NotEvidence, from_base64
from monitor.proof.index_coverage import read_coverage
from tlog.merkle import EMPTY_ROOT, Frontier, ProofInvalid, aligned_subtrees, leaf_hash, verify_inclusion

VERSION: Final = 1
MEDIA_TYPE: Final = "application/vnd.signwatch.search-answer+json"
LINE_SIZE: Final = 32 + 8 + 32
_HEADER: Final = b"signwatch search index v1\n"
_LARGEST: Final = 1 << 63


class AnswerInvalid(Exception):
    """An answer does not prove its claim, or is malformed."""


class MapLine(Struct, frozen=True):
    """One key of a map under construction: its entry numbers ascend, in pieces. `root` is `None` until computed.

    `pieces` can be read once, before the next line.
    """

    key_hash: bytes
    pieces: Iterable[Sequence[int]]
    root: bytes | None = None


class MapRoot(Struct, frozen=True):
    """One map as the index root commits to it: a subtree of `2**level` entries, its number of lines, their root."""

    level: int
    lines: int
    root: bytes


def line_bytes(key_hash: bytes, count: int, root: bytes) -> bytes:
    """The bytes of a line, as hashed and stored."""
    return key_hash + count.to_bytes(8, "big") + root


def appended(frontier: Frontier, numbers: Sequence[int]) -> Frontier:
    """Append entry numbers to the frontier of a line's tree."""
    hashes = [leaf_hash(number.to_bytes(8, "big")) for number in numbers]
    for level, root in aligned_subtrees(frontier.size, hashes):
        frontier = frontier.stitched(level, root)
    return frontier


def entries_root(numbers: Sequence[int]) -> bytes:
    """Root of the tree over entry numbers."""
    return appended(Frontier(0, ()), numbers).root()


def merged(left: Iterator[MapLine], right: Iterator[MapLine]) -> Iterator[MapLine]:
    """Lines of the map that two adjacent maps become. Entry numbers on the left are below those on the right."""
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.key_hash < other.key_hash):
            assert one is not None  # noqa: S101  for mypy: the loop goes on while one of the two is there
            yield one
            one = next(left, None)
        elif one is None or other.key_hash < one.key_hash:
            yield other
            other = next(right, None)
        else:
            yield MapLine(one.key_hash, chain(one.pieces, other.pieces))
            one, other = next(left, None), next(right, None)


def levels_at(size: int) -> list[int]:
    """Levels of the maps that exist at a covered size, left to right: the set bits, highest first."""
    return [level for level in reversed(range(size.bit_length())) if size >> level & 1]


def index_root(decoder: int, smallest: int, maps: Sequence[MapRoot]) -> bytes:
    """Hash of an index: its format, the entries it covers, and its maps in order."""
    size = sum(1 << each.level for each in maps)
    parts = [
        _HEADER,
        decoder.to_bytes(4, "big"),
        bytes((len(SEARCHED), *SEARCHED)),
        bytes((smallest,)),
        size.to_bytes(8, "big"),
        *(bytes((each.level,)) + each.lines.to_bytes(8, "big") + each.root for each in maps),
    ]
    return sha256(b"".join(parts)).digest()


def key_of(kind: KeyKind, value: str) -> bytes:
    """The normalised key of a value as an answer spells it: a text, or hexadecimal. Raises `ValueError`."""
    return text_key(kind, value) if kind.is_text else value_key(kind, bytes.fromhex(value))


class CheckedKey(Struct, frozen=True):
    """Proof about one key: number of covered entries that have it, and their indexes where the answer lists them."""

    kind: KeyKind
    value: str
    count: int
    entries: tuple[int, ...] | None


class CheckedAnswer(Struct, frozen=True):
    """An answer whose paths lead to `root`. Entries from `size` on are not covered.

    The entries are those of a tree that leads to `head`, signed by the key with SHA-256 `key_hash`.
    """

    log: str
    size: int
    root: bytes
    decoder: int
    keys: tuple[CheckedKey, ...]
    head: HeadStatement
    key_hash: str
    identity: LogIdentity


def check_answer(document: Any, root: bytes | None = None) -> CheckedAnswer:
    """Check an answer, against an index root obtained elsewhere if there is one. Raises `AnswerInvalid`.

    Does not check that the key in it is the log's.
    """
    try:
        return _checked(document, root)
    except (ProofInvalid, NotEvidence, KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise AnswerInvalid(f"not a sound answer: {type(error).__name__}: {error!s:.200}") from error


def _checked(document: Any, root: bytes | None) -> CheckedAnswer:
    if document["mediaType"] != MEDIA_TYPE or document["version"] != VERSION:
        raise AnswerInvalid(f"not version {VERSION} of {MEDIA_TYPE}")
    if list(document["kinds"]) != list(SEARCHED):
        raise AnswerInvalid("its kinds of keys are not those of this version")
    decoder, smallest, size = (_number(document[name]) for name in ("decoder", "smallest", "size"))
    maps = [MapRoot(_number(each["level"]), _number(each["lines"]), _hash(each["root"])) for each in document["maps"]]
    if [each.level for each in maps] != levels_at(size) or any(each.level < smallest for each in maps):
        raise AnswerInvalid("its maps are not those of the size it covers")
    found = index_root(decoder, smallest, maps)
    log = document["log"]
    if not isinstance(log, str):
        raise AnswerInvalid("its log is no text")
    identity = LogIdentity(
        log, LogApi(document["api"]), document["key_name"], document["origin"], from_base64(document["spki"])
    )
    covers = read_coverage(document["covers"])
    if (covers.first, covers.size) != (0, size) or sha256(identity.spki).hexdigest() != document["key"]:
        raise AnswerInvalid("it says of other entries, or of another key, that they are covered")
    head = covers.check(identity)
    if found != _hash(document["index_root"]) or (root is not None and root != found):
        raise AnswerInvalid(f"its maps lead to index root {found.hex()}, which is another one")
    keys = tuple(_checked_key(each, maps) for each in document["answers"])
    return CheckedAnswer(log, size, found, decoder, keys, head, document["key"], identity)


def _checked_key(answer: Any, maps: Sequence[MapRoot]) -> CheckedKey:
    kind = {each.word: each for each in SEARCHED}[answer["kind"]]
    value = answer["value"]
    wanted = sha256(key_of(kind, value)).digest()
    shown = answer["maps"]
    if len(shown) != len(maps):
        raise AnswerInvalid(f"it answers for {counted(len(shown), 'map')} of {len(maps)}")
    count, first = 0, 0
    entries: list[int] | None = []
    for each, of in zip(shown, maps, strict=True):
        last = first + (1 << of.level)
        if "line" in each:
            found, numbers = _present(each["line"], wanted, of, (first, last))
            count += found
            entries = None if entries is None or numbers is None else [*entries, *numbers]
        else:
            _absent(each, wanted, of)
        first = last
    return CheckedKey(kind, value, count, None if entries is None else tuple(entries))


def _present(line: Any, wanted: bytes, of: MapRoot, span: tuple[int, int]) -> tuple[int, list[int] | None]:
    key_hash, _ = _shown_line(line, of)
    if key_hash != wanted:
        raise AnswerInvalid("a line in it is of another key")
    count, numbers = _number(line["count"]), line.get("entries")
    if numbers is None:
        return count, None
    listed = [_number(each) for each in numbers]
    if len(listed) != count or entries_root(listed) != _hash(line["entries_root"]):
        raise AnswerInvalid("the entries it lists are not those of the line")
    if listed != sorted(set(listed)) or listed[0] < span[0] or listed[-1] >= span[1]:
        raise AnswerInvalid("a line holds entries outside its map, or out of order")
    return count, listed


def _absent(shown: Any, wanted: bytes, of: MapRoot) -> None:
    before, after = shown["before"], shown["after"]
    if of.lines == 0:
        if before is not None or after is not None or of.root != EMPTY_ROOT:
            raise AnswerInvalid("a map without lines shows one")
        return
    low, at = _shown_line(before, of) if before is not None else (None, -1)
    high, then = _shown_line(after, of) if after is not None else (None, of.lines)
    if then != at + 1:
        raise AnswerInvalid("the two lines that show an absence are no neighbours")
    if (low is not None and low >= wanted) or (high is not None and high <= wanted):
        raise AnswerInvalid("the key does not belong between the two lines shown")


def _shown_line(line: Any, of: MapRoot) -> tuple[bytes, int]:
    """Verify a line's path; returns its key's hash and its position."""
    key_hash, position = _hash(line["key_hash"]), _number(line["position"])
    raw = line_bytes(key_hash, _number(line["count"]), _hash(line["entries_root"]))
    verify_inclusion(position, of.lines, leaf_hash(raw), [_hash(each) for each in line["path"]], of.root)
    return key_hash, position


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST:
        raise ValueError("a number in it is no whole number from 0 to 2^63-1")
    return value


def _hash(value: Any) -> bytes:
    if not isinstance(value, str) or len(value) != 64:  # noqa: PLR2004  hexadecimal digits of SHA-256
        raise ValueError("a hash in it is not 64 hexadecimal digits")
    return bytes.fromhex(value)

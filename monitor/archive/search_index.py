"""Search keys: the values people look for, normalised, and for each the entries of one range that have it.

A key is one byte for its kind and the normalised value. The index of a range is a table sorted by key, one line per
key, in a Parquet file of small row groups: a look-up reads the footer and the row groups whose bounds admit the key.
Normalisation is part of the archive's format (`rows.DECODER`), and specified in docs/search-index.md.
"""

from collections.abc import Iterator
from enum import IntEnum
from hashlib import sha256
from itertools import accumulate
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from monitor.archive.rows import KEYS, Chain

LONGEST: Final = 200  # bytes of a text in its key; longer texts end in a digest of all of it
_ADDRESS: Final = r"<(?P<address>[^<>@\s]{1,128}@[^<>@\s]{1,255})>\s*$"  # RFC 9580 5.11: a user ID holds a name-addr


class KeyKind(IntEnum):
    """Kinds of search keys; the number is the first byte of each key."""

    IDENTITY = 1
    ISSUER = 2
    REPOSITORY = 3
    WORKFLOW = 4
    DIGEST = 5
    FINGERPRINT = 6
    LEAF = 7
    TRUST = 8

    @property
    def word(self) -> str:
        """Name as people write it."""
        return self.name.lower()

    @property
    def is_text(self) -> bool:
        """True if values are texts, which can be searched by prefix."""
        return self in TEXTS


TEXTS: Final = (KeyKind.IDENTITY, KeyKind.ISSUER, KeyKind.REPOSITORY, KeyKind.WORKFLOW)
COLUMNS: Final = {
    KeyKind.IDENTITY: "identities",
    KeyKind.ISSUER: "issuers",
    KeyKind.REPOSITORY: "repositories",
    KeyKind.WORKFLOW: "workflows",
    KeyKind.DIGEST: "digests",
    KeyKind.FINGERPRINT: "fingerprints",
}
SEARCHED: Final = tuple(COLUMNS)
_SHA256: Final = 32
_LEAF_BYTES: Final = 8  # of a leaf hash in its key: rows decide
INDEX_SCHEMA: Final = pa.schema(
    [pa.field("key", pa.binary(), nullable=False), pa.field("entries", pa.list_(pa.uint32()), nullable=False)]
)


def text_key(kind: KeyKind, text: str) -> bytes:
    """Key of a text: A to Z in lower case, as addresses, hosts and repository names are compared."""
    raw = lowered(text).encode()
    if len(raw) > LONGEST:
        raw = raw[:LONGEST] + sha256(raw).digest()
    return bytes((kind,)) + raw


def value_key(kind: KeyKind, value: bytes) -> bytes:
    """Key of a digest or a fingerprint."""
    return bytes((kind,)) + value


def leaf_key(leaf_hash: bytes) -> bytes:
    """Key of an entry by its leaf hash; several entries may have the same key."""
    return bytes((KeyKind.LEAF,)) + leaf_hash[:_LEAF_BYTES]


ALL_TRUSTED: Final = value_key(KeyKind.TRUST, b"all")
"""Key of entries all of whose signers had a trusted certificate when they were archived."""
SOME_TRUSTED: Final = value_key(KeyKind.TRUST, b"some")
"""Key of entries of which some signers had a trusted certificate and others none: their rows say which."""


def lowered(text: str) -> str:
    """`text` with only A to Z in lower case: Unicode's own lower case changes between its versions."""
    return text.translate(_LOWER)


_LOWER: Final = {number: number + 32 for number in range(ord("A"), ord("Z") + 1)}


def index_of(rows: pa.Table, first: int) -> pa.Table:
    """Index of the entries in `rows`, which begin at `first`: one line per key, sorted; entries count from `first`.

    The rows have `MADE_SCHEMA`.
    """
    offsets = pc.cast(pc.subtract(rows["index"], first), pa.uint32()).combine_chunks()
    # A key begins with its kind, so lines of one kind after the other are sorted, and memory holds one kind's.
    return pa.concat_tables([_lines_of_kind(kind, rows, offsets) for kind in sorted(KeyKind)]).combine_chunks()


def _lines_of_kind(kind: KeyKind, rows: pa.Table, offsets: pa.Array) -> pa.Table:
    keys: list[pa.Array] = []
    entries: list[pa.Array] = []
    for values, owners in _values_of_kind(kind, rows):
        keys.append(values)
        entries.append(offsets.take(owners))
    return lines_of(
        pa.table({"key": pa.chunked_array(keys, pa.binary()), "entry": pa.chunked_array(entries, pa.uint32())})
    )


def _values_of_kind(kind: KeyKind, rows: pa.Table) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Keys of one kind, each with the number of its row."""
    if kind is KeyKind.LEAF:
        hashes = pc.cast(rows["leaf_hash"].combine_chunks(), pa.binary())
        yield _with_kind(kind, pc.binary_slice(hashes, 0, _LEAF_BYTES)), pa.array(range(len(rows)), pa.int64())
    elif kind is KeyKind.TRUST:
        for key, of in _trusted(rows["chains"].combine_chunks()):
            yield pa.repeat(pa.scalar(key, pa.binary()), len(of)), of
    else:
        yield from _values(kind, rows[COLUMNS[kind]].combine_chunks())
        if kind is KeyKind.FINGERPRINT:
            yield from _values(kind, rows[KEYS.name].combine_chunks())


def with_keys(rows: pa.Table, index: pa.Table) -> pa.Table:
    """Rows as they were made, with the column of keys that their index keeps.

    Raises `ValueError` when the index has a fingerprint that no row can have.
    """
    keys = index["key"].combine_chunks()
    kind = pc.equal(pc.binary_slice(keys, 0, 1), bytes((KeyKind.FINGERPRINT,)))
    lists, keys = index["entries"].combine_chunks().filter(kind), keys.filter(kind)
    # pyarrow reserves memory for the whole of a slice without an end.
    longest = pc.max(pc.binary_length(keys)).as_py() or 1
    values = pc.binary_slice(keys, 1, longest).take(pc.list_parent_indices(lists))
    pairs = pa.table({"entry": lists.flatten(), "value": values})
    known = rows["fingerprints"].combine_chunks()
    of_rows = _joined(pc.list_parent_indices(known), known.flatten())
    is_key = pc.invert(pc.is_in(_joined(pairs["entry"], pairs["value"]), value_set=of_rows))
    pairs = pairs.filter(is_key)
    if pc.any(pc.greater_equal(pairs["entry"], len(rows))).as_py():
        raise ValueError("a fingerprint of an entry that is not of the range")
    if pc.any(pc.not_equal(pc.binary_length(pairs["value"]), _SHA256)).as_py():
        raise ValueError("a fingerprint that is not that of a certificate's key")
    return rows.append_column(KEYS, values_of_rows(pairs, len(rows)))


def values_of_rows(pairs: pa.Table, count: int) -> pa.Array:
    """Values of each of `count` rows, ascending, from pairs of the number of a row (`entry`) and a `value`."""
    pairs = pairs.sort_by([("entry", "ascending"), ("value", "ascending")])
    of_each = [0] * count
    for entry in pairs["entry"].to_pylist():
        of_each[entry] += 1
    starts = pa.array(accumulate(of_each, initial=0), pa.int32())
    return pa.ListArray.from_arrays(starts, pairs["value"].combine_chunks())


def _joined(entries: pa.Array, values: pa.Array) -> pa.Array:
    """One value of each entry's number and value."""
    numbers = pc.cast(pc.cast(entries, pa.string()), pa.binary())
    return pc.binary_join_element_wise(numbers, values, pa.scalar(b" ", pa.binary()))


def _trusted(chains: pa.Array) -> Iterator[tuple[bytes, pa.Array]]:
    """Numbers of the rows of which every signer, or only some, had a trusted certificate."""
    owners = pc.list_parent_indices(chains)
    is_trusted = pc.equal(chains.flatten(), Chain.TRUSTED.value)
    trusted = pc.unique(owners.filter(is_trusted))
    others = owners.filter(pc.invert(is_trusted))
    mixed = pc.is_in(trusted, value_set=others)
    yield ALL_TRUSTED, trusted.filter(pc.invert(mixed))
    yield SOME_TRUSTED, trusted.filter(mixed)


def lines_of(found: pa.Table) -> pa.Table:
    """Index lines of `(key, entry)` pairs in any order: keys ascend, and the entries of each, without duplicates."""
    if not len(found):
        return INDEX_SCHEMA.empty_table()
    found = found.sort_by([("key", "ascending"), ("entry", "ascending")]).combine_chunks()
    keys, entries = found["key"].combine_chunks(), found["entry"].combine_chunks()
    begins = _changes(keys)
    # One entry may hold a value twice, in different upper and lower case.
    is_new = pc.or_(begins, _changes(entries))
    keys, entries, begins = keys.filter(is_new), entries.filter(is_new), begins.filter(is_new)
    starts = pc.cast(pc.indices_nonzero(begins), pa.int32())
    ends = pa.concat_arrays([starts, pa.array([len(entries)], pa.int32())])
    return pa.table([keys.filter(begins), pa.ListArray.from_arrays(ends, entries)], schema=INDEX_SCHEMA)


def _changes(values: pa.Array) -> pa.Array:
    """Indexes at which a value differs from its predecessor; index 0 is among them."""
    differs = pc.not_equal(values.slice(1), values.slice(0, len(values) - 1))
    return pa.concat_arrays([pa.array([True]), differs])


def _values(kind: KeyKind, column: pa.Array) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Keys of one column, each with the number of its row."""
    owners, values = pc.list_parent_indices(column), column.flatten()
    if not kind.is_text:
        yield _with_kind(kind, values), owners
        return
    yield _text_keys(kind, values), owners
    if kind is KeyKind.IDENTITY:
        named = pc.match_substring(values, "<")
        shown, of = values.filter(named), owners.filter(named)
        address = pc.struct_field(pc.extract_regex(shown, _ADDRESS), "address")
        there = pc.is_valid(address)
        yield _text_keys(kind, address.filter(there)), of.filter(there)


def _text_keys(kind: KeyKind, texts: pa.Array) -> pa.Array:
    raw = pc.cast(pc.ascii_lower(texts), pa.binary())
    long = pc.greater(pc.binary_length(raw), LONGEST)
    if pc.any(long).as_py():
        short = [text_key(kind, text.as_py())[1:] for text in texts.filter(long)]
        raw = pc.replace_with_mask(raw, long, pa.array(short, pa.binary()))
    return _with_kind(kind, raw)


def _with_kind(kind: KeyKind, values: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(pa.scalar(bytes((kind,)), pa.binary()), values, pa.scalar(b"", pa.binary()))

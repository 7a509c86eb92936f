"""Tiles: exact paths, exact widths, nothing padded and nothing cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import rfc6962_oracle as oracle
from tests.tlog.refusal import refused
from tlog.merkle import MAX_TREE_SIZE, Frontier, LeafHash, leaf_hash, subtree_root
from tlog.tiles import (
    FULL_TILE_SIZE,
    MAX_BUNDLE_SIZE,
    TILE_WIDTH,
    MalformedTile,
    ShortBundle,
    data_path,
    entries_path,
    frontier_from_tiles,
    parse_entry_bundle,
    parse_hash_tile,
    partial_width,
    right_edge,
    tile_path,
)

HASHES = [leaf_hash(b"leaf %d" % index) for index in range(1200)]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, "000"),
        (7, "007"),
        (67, "067"),
        (999, "999"),
        (1000, "x001/000"),
        (1234067, "x001/x234/067"),
        (1000000, "x001/x000/000"),
        (MAX_TREE_SIZE // 256, "x036/x028/x797/x018/x963/967"),
    ],
)
def test_an_index_is_spelled_in_groups_of_three_digits(index: int, expected: str) -> None:
    assert tile_path(0, index) == f"tile/0/{expected}"
    assert entries_path(index) == f"tile/entries/{expected}"
    assert data_path(index) == f"tile/data/{expected}"


def test_a_partial_tile_names_its_width() -> None:
    assert tile_path(1, 0, 17) == "tile/1/000.p/17"
    assert entries_path(273, 112) == "tile/entries/273.p/112"
    assert data_path(1, 44) == "tile/data/001.p/44"
    assert tile_path(0, 5, 256) == "tile/0/005"


def test_tiles_that_no_log_can_have_have_no_path() -> None:
    assert tile_path(7, 0, 1)
    for level, index, width in [(-1, 0, 1), (8, 0, 1), (0, -1, 1), (0, 1 << 63, 1), (0, 0, 0), (0, 0, 257), (0, 0, -1)]:
        with pytest.raises(MalformedTile):
            tile_path(level, index, width)
    for index, width in [(-1, 1), (0, 0), (0, 257), (1 << 60, 256)]:
        for path in (entries_path, data_path):
            with pytest.raises(MalformedTile):
                path(index, width)


def test_the_right_edge_of_the_specifications_example() -> None:
    # SPEC tlog-tiles: a log of size 70,000 has 273 full tiles and one of 112 at level 0, one full and one of 17 at
    # level 1, and one of 1 at level 2.
    assert right_edge(70_000) == [(0, 273, 112), (1, 1, 17), (2, 0, 1)]
    assert [partial_width(level, 70_000) for level in range(4)] == [112, 17, 1, 0]


def test_the_right_edge_of_whole_tiles_has_no_partial_below() -> None:
    assert right_edge(0) == []
    assert right_edge(256) == [(1, 0, 1)]
    assert right_edge(65536) == [(2, 0, 1)]
    assert right_edge(MAX_TREE_SIZE) == [(0, (1 << 55) - 1, 255)] + [
        (level, (1 << (55 - 8 * level)) - 1, 255) for level in range(1, 7)
    ] + [(7, 0, 127)]


@given(st.integers(0, MAX_TREE_SIZE))
def test_the_right_edge_holds_every_leaf_exactly_once(size: int) -> None:
    edge = right_edge(size)
    assert sum(width << (8 * level) for level, _, width in edge) == size
    for level, index, width in edge:
        assert (index * TILE_WIDTH + width) << (8 * level) <= size


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 70, 255, 256, 257, 511, 512, 513, 767, 1024, 1199])
def test_the_partial_tiles_are_the_frontier(size: int) -> None:
    leaves = [b"leaf %d" % index for index in range(size)]
    level0: list[LeafHash] = HASHES[:size]
    level1 = [LeafHash(subtree_root(level0[i : i + 256])) for i in range(0, size // 256 * 256, 256)]
    tiles = {level: (level0, level1)[level][index * 256 :][:width] for level, index, width in right_edge(size)}
    frontier = frontier_from_tiles(size, tiles)
    assert frontier == Frontier().extended(level0)
    assert frontier.root() == oracle.mth(leaves)


def test_a_right_edge_with_a_tile_missing_or_of_another_width_is_malformed() -> None:
    tiles = {0: HASHES[512:515], 1: HASHES[:2]}
    assert frontier_from_tiles(515, tiles).size == 515
    for wrong in (
        {},
        {0: tiles[0]},
        {1: tiles[1]},
        {**tiles, 0: HASHES[:2]},
        {**tiles, 0: HASHES[:5]},
        {**tiles, 1: HASHES[:1]},
    ):
        with pytest.raises(MalformedTile):
            frontier_from_tiles(515, wrong)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=256))
@settings(max_examples=40)
def test_splitting_a_hash_tile_undoes_joining_it(hashes: list[bytes]) -> None:
    assert parse_hash_tile(b"".join(hashes), len(hashes)) == hashes


def test_a_hash_tile_of_any_other_length_is_malformed() -> None:
    full = b"".join(HASHES[:256])
    assert len(full) == FULL_TILE_SIZE
    assert len(parse_hash_tile(full, 256)) == 256
    wrong = [(full[:-1], 256), (full + b"\x00", 256), (full[:-32], 256), (full + full[:32], 256), (full, 255), (b"", 1)]
    for raw, width in [*wrong, (b"", 0), (full + full, 512), (b"", -1)]:
        with pytest.raises(MalformedTile):
            parse_hash_tile(raw, width)


def bundle(entries: list[bytes]) -> bytes:
    return b"".join(len(each).to_bytes(2, "big") + each for each in entries)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
@settings(max_examples=40)
def test_splitting_a_bundle_undoes_joining_it(entries: list[bytes]) -> None:
    assert parse_entry_bundle(bundle(entries), len(entries)) == entries


def test_the_largest_bundle_is_read() -> None:
    raw = bundle([bytes(0xFFFF)] * 256)
    assert len(raw) == MAX_BUNDLE_SIZE
    assert len(parse_entry_bundle(raw, 256)) == 256


def test_a_short_long_or_padded_bundle_is_refused_whole() -> None:
    raw = bundle([b"one", b"", b"three"])
    assert parse_entry_bundle(raw, 3) == [b"one", b"", b"three"]
    wrong = {
        "one entry fewer than told": (raw, 4),
        "one entry more than told": (raw, 2),
        "cut inside an entry": (raw[:-1], 3),
        "cut inside a length": (bundle([b"one", b""]) + b"\x00", 3),
        "a byte behind": (raw + b"\x00", 3),
        "an empty entry behind": (raw + b"\x00\x00", 3),
        "a length that is too large": (b"\xff\xff" + raw[2:], 3),
        "nothing": (b"", 1),
        "width 0": (b"", 0),
        "width 257": (bundle([b""] * 257), 257),
        "a negative width": (b"", -1),
    }
    for name, (changed, width) in wrong.items():
        refused(name, MalformedTile, parse_entry_bundle, changed, width)


@given(st.binary(max_size=600), st.integers(-2, 300))
def test_no_bytes_raise_anything_else(noise: bytes, width: int) -> None:
    for parse in (parse_hash_tile, parse_entry_bundle):
        try:
            parse(noise, width)
        except MalformedTile:
            continue


def test_a_bundle_that_ends_between_two_entries_is_told_from_one_that_is_garbled() -> None:
    bundle = b"\x00\x03abc" * 3
    for short in (b"", bundle[:5], bundle[:10]):
        with pytest.raises(ShortBundle):
            parse_entry_bundle(short, 3)
    for garbled in (bundle[:1], bundle[:6], bundle[:8], bundle + b"\x00"):
        with pytest.raises(MalformedTile) as caught:
            parse_entry_bundle(garbled, 3)
        assert type(caught.value) is MalformedTile

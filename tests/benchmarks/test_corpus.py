"""Entries of the benchmarks are as keyless signing makes them, and are made again when another release made them."""

from pathlib import Path

from benchmarks.corpus import complete_corpus, read_corpus
from sigstore_entries.entry import outline_fingerprints, outline_rekor

COUNT = 20


def test_each_leaf_has_a_key_of_its_own(tmp_path: Path) -> None:
    assert list(complete_corpus(tmp_path, COUNT)) == [COUNT]
    for version in ("v1", "v2"):
        outlines = [outline_rekor(body) for body in read_corpus(tmp_path, version)]
        fingerprints = {print_ for each in outlines if each for print_ in outline_fingerprints(each) or ()}
        assert len(fingerprints) == 2 * COUNT  # of the certificate and of its key


def test_kept_entries_are_made_again_only_when_another_release_made_them(tmp_path: Path) -> None:
    assert list(complete_corpus(tmp_path, COUNT)) == [COUNT]
    assert list(complete_corpus(tmp_path, COUNT)) == []
    (tmp_path / "complete").write_text("")
    assert list(complete_corpus(tmp_path, COUNT)) == [COUNT]

"""A secret that is made at the first start: whole or not there, and the same for two that make it at once."""

import os
from pathlib import Path

import pytest

from monitor.site.sessions import SiteKeys
from monitor.store.key_file import read_or_make


def test_what_is_made_is_read_ever_since_and_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert read_or_make(path, lambda: b"first") == b"first"
    assert read_or_make(path, lambda: b"second") == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path], "no draft is left"


def test_a_key_whose_writing_is_cut_short_is_made_anew_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "site.key"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(Exception, match="No space left"):
            SiteKeys.read(path)
    assert not path.exists()
    assert SiteKeys.read(path).seal("feed", "a") == SiteKeys.read(path).seal("feed", "a")


def test_of_two_that_make_it_at_once_both_read_the_key_that_stays(tmp_path: Path) -> None:
    path = tmp_path / "key"

    def slower() -> bytes:
        read_or_make(path, lambda: b"the faster one's")
        return b"the slower one's"

    assert read_or_make(path, slower) == path.read_bytes() == b"the faster one's"

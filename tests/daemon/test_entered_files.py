"""How many files a reader has to open to follow one entry."""

from pathlib import Path

from tests.support.entered_files import follow_one_entry

MOST_FILES = 44
# Threads take turns: two runs differ by up to four.
MOST_CHANGES = 195


def test_one_matching_entry_stays_in_few_files_and_rooms(tmp_path: Path) -> None:
    entered = follow_one_entry(tmp_path)
    assert entered.calls["monitor/store/store.py"] > 0, "control: the way to the commit was seen"
    assert entered.calls["outbound/transport.py"] > 0, "control: fetching in other threads was seen"
    assert len(entered.calls) <= MOST_FILES, sorted(entered.calls)
    assert entered.changes <= MOST_CHANGES

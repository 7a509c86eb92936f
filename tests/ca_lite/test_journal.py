"""The issuance journal: requests at once share a commit, and one that fails spoils no other."""

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import SQLAlchemyError

from ca_lite.journal import ISSUED, REQUESTED, Journal

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def row(serial: str) -> dict[str, Any]:
    return {
        "request_id": serial,
        "serial": serial,
        "name_form": "email",
        "name": "mia@lab.local",
        "issuer": "http://localhost/oidc",
        "subject": "mia",
        "not_before": NOW,
        "not_after": NOW,
        "state": REQUESTED,
    }


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    folder = tmp_path / "Ordner 100%20 #1?x=y"
    folder.mkdir()
    with closing(Journal.create(folder / "journal.db")) as made:
        yield made
        assert (folder / "journal.db").stat().st_size > 0, "it is the file of this name that is written"


def test_rows_of_many_threads_are_all_there(journal: Journal) -> None:
    def issue(number: int) -> None:
        serial = f"{number:x}"
        journal.request(row(serial))
        journal.finish(serial, ISSUED, sct_timestamp=number, certificate=b"der")

    threads = [threading.Thread(target=issue, args=(number,)) for number in range(64)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    found = journal.search(name=None, issuer=None, serial=None, limit=100)
    assert {(each.serial, each.state, each.sct_timestamp) for each in found} == {
        (f"{number:x}", ISSUED, number) for number in range(64)
    }
    journal.close()


def test_a_row_of_a_failed_commit_is_not_written_with_the_next_one(journal: Journal) -> None:
    """SQLite may keep the transaction of a failed commit open, as when it is busy."""
    failing = ["not committed"]

    def fail(_connection: Connection) -> None:
        if failing:
            raise SQLAlchemyError(failing.pop())

    journal.request(row("first"))
    event.listen(journal._engine, "commit", fail)
    with pytest.raises(SQLAlchemyError, match="not committed"):
        journal.request(row("failed"))
    journal.request(row("next"))
    found = journal.search(name=None, issuer=None, serial=None, limit=100)
    assert [each.serial for each in found] == ["next", "first"]


@pytest.mark.parametrize("wrong", [row("taken"), {**row("wrong"), "subject": "\ud800 of a token"}])
def test_a_row_that_cannot_be_written_fails_alone(wrong: dict[str, Any], journal: Journal) -> None:
    journal.request(row("taken"))
    failed: list[str] = []

    def request(asked: dict[str, Any]) -> None:
        try:
            journal.request(asked)
        except SQLAlchemyError:
            failed.append(asked["serial"])

    threads = [threading.Thread(target=request, args=(each,)) for each in [wrong, *map(row, map(str, range(20)))]]
    # All of them wait for the writer, and are written together.
    with journal._writing:
        for each in threads:
            each.start()
        while len(journal._queue) < len(threads):
            threading.Event().wait(0.01)
    for each in threads:
        each.join()
    assert failed == [wrong["serial"]]
    assert len(journal.search(name=None, issuer=None, serial=None, limit=100)) == 21
    journal.close()


def test_a_request_that_was_never_recorded_cannot_end(journal: Journal) -> None:
    with pytest.raises(SQLAlchemyError, match="no row of this request"):
        journal.finish("unknown", ISSUED)
    journal.close()


def test_a_row_is_written_after_the_connection_of_the_writer_broke(journal: Journal) -> None:
    journal.request(row("before"))
    assert journal._connection is not None, "one connection stays open for the writer"
    broken = journal._connection.connection.dbapi_connection
    assert broken is not None
    broken.close()
    with pytest.raises(SQLAlchemyError):
        journal.request(row("lost"))
    journal.request(row("after"))
    found = journal.search(name=None, issuer=None, serial=None, limit=100)
    assert [each.serial for each in found] == ["after", "before"]

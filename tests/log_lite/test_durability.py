"""An entry that was answered with 201 is in the log after SIGKILL, and the log never contradicts what it signed."""

import base64
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from log_lite.keys import KeyUnusable
from log_lite.ledger import Ledger, LogDamaged, PendingEntry, Receipt, SealedLeaf, insert
from log_lite.sequencer import NotStored, Sequencer
from log_lite.store import StoreUnusable
from tests.log_lite.client import LogClient, hashedrekord, hashedrekord_v2
from tests.support.log_server import log_server, run
from tests.support.open_files import open_below
from tests.support.waiting import PATIENCE, wait_until
from tlog.merkle import leaf_hash, verify_consistency
from tlog.note import Checkpoint

NOW = 1_800_000_000_000
KILLS = 3
WRITERS = 3


def submit_until_dead(log: LogClient, name: str, accepted: list[tuple[str, Any]], stop: threading.Event) -> None:
    """Submit distinct entries, noting every 201, until the server is gone."""
    with httpx.Client(timeout=PATIENCE) as http:
        for n in range(100_000):
            artifact = os.urandom(16)
            try:
                if n % 2:
                    answer = http.post(f"{log.url}/api/v1/log/entries", json=hashedrekord(artifact))
                else:
                    answer = http.post(f"{log.url}/api/v2/log/entries", json=hashedrekord_v2(artifact))
            except httpx.HTTPError:
                return
            if answer.status_code == 201:
                accepted.append(("v1" if n % 2 else "v2", answer.json()))
            if stop.is_set():
                return


def test_every_accepted_entry_survives_sigkill(tmp_path: Path) -> None:
    accepted: list[tuple[str, Any]] = []
    with log_server(tmp_path / "log") as server:
        log = LogClient(server)
        heads: list[tuple[Checkpoint, Checkpoint]] = []
        for _ in range(KILLS):
            heads.append((log.head_v1(), log.head_v2()))
            stop, goal = threading.Event(), len(accepted) + 20
            arguments = (log, "", accepted, stop)
            writers = [threading.Thread(target=submit_until_dead, args=arguments) for _ in range(WRITERS)]
            for writer in writers:
                writer.start()
            deadline = time.monotonic() + PATIENCE
            while len(accepted) < goal and time.monotonic() < deadline:
                time.sleep(0.005)
            server.kill()
            stop.set()
            for writer in writers:
                writer.join(PATIENCE)
            assert len(accepted) >= goal
            server.start()
        check_all_there(log, accepted)
        new = log.head_v1(), log.head_v2()
        for old, _ in heads:
            answer = log.get(f"/api/v1/log/proof?firstSize={old.size}&lastSize={new[0].size}").json()
            hashes = [bytes.fromhex(h) for h in answer["hashes"]]
            verify_consistency(old.size, new[0].size, hashes, old.root, new[0].root)
        assert server.command("verify").count("\tok") == 3
        log.http.close()


def check_all_there(log: LogClient, accepted: list[tuple[str, Any]]) -> None:
    for name, answer in accepted:
        if name == "v1":
            ((uuid, entry),) = answer.items()
            found = log.get(f"/api/v1/log/entries/{uuid}").json()[uuid]
            assert (found["body"], found["logIndex"]) == (entry["body"], entry["logIndex"])
            log.check_v1(uuid, found)
        else:
            tile, position = divmod(int(answer["logIndex"]), 256)
            size = log.head_v2().size
            width = min(256, size - tile * 256)
            suffix = "" if width == 256 else f".p/{width}"
            hashes = log.get(f"/tile/0/{tile:03}{suffix}").content
            leaf = leaf_hash(base64.b64decode(answer["canonicalizedBody"]))
            assert hashes[position * 32 : (position + 1) * 32] == leaf


def draft(body: bytes, tree: str = "v1") -> PendingEntry:
    return PendingEntry(tree, leaf_hash(body), lambda _index, _now: SealedLeaf(body))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run("init", "--dir", str(tmp_path / "log"))
    return tmp_path / "log"


def test_entries_committed_before_a_crash_are_published_by_the_next_start(folder: Path) -> None:
    ledger = Ledger.open(folder, NOW)
    tree = ledger.active("v1")
    with ledger.store.write() as connection:
        insert(connection, tree.row, draft(b"durable, not published"), NOW)
    ledger.close()
    again = Ledger.open(folder, NOW)
    assert again.active("v1").published == 2
    head = again.store.head(tree.row.name)
    assert head is not None
    assert head.size == 2
    again.close()


def test_two_processes_never_give_one_index_twice(folder: Path) -> None:
    one, two = Ledger.open(folder, NOW), Ledger.open(folder, NOW)
    results = [ledger.commit([draft(b"%d" % n)], NOW)[0] for n, ledger in enumerate([one, two, two, one, one, two])]
    assert [r.entry.index for r in results if isinstance(r, Receipt)] == [1, 2, 3, 4, 5, 6]
    one.sync(NOW)
    two.sync(NOW)
    assert one.active("v1").tree.root() == two.active("v1").tree.root()
    one.close()
    two.close()


def test_a_batch_is_all_or_nothing_and_the_submitters_hear_of_it(folder: Path) -> None:
    ledger = Ledger.open(folder, NOW)
    sequencer = Sequencer(ledger, lambda: NOW)
    sequencer.start()
    assert isinstance(sequencer.submit(draft(b"control")), Receipt)

    def broken(_index: int, _now: int) -> SealedLeaf:
        raise ValueError("no leaf can be made of this")

    with pytest.raises(NotStored):
        sequencer.submit(PendingEntry("v1", b"broken", broken))
    receipt = sequencer.submit(draft(b"afterwards"))
    assert isinstance(receipt, Receipt)
    assert receipt.entry.index == 2, "a failed batch takes no index and does not end the writer"
    assert sequencer.alive()
    sequencer.stop()
    assert not sequencer.alive()
    ledger.close()


def test_what_another_process_wrote_before_a_submission_is_in_force_in_its_answer(folder: Path) -> None:
    """A server that is never idle takes over faults and rotations all the same."""
    ledger, other = Ledger.open(folder, NOW), Ledger.open(folder, NOW)
    sequencer, told = Sequencer(ledger, lambda: NOW), list[str]()
    sequencer.on_change = lambda: told.append("changed")
    seen: list[list[str]] = []

    def submit() -> None:
        sequencer.submit(draft(b"after the change"))
        seen.append([*told])

    # It waits before the writer starts: the writer finds the submission first.
    submitter = threading.Thread(target=submit)
    submitter.start()
    wait_until("the submission to wait", lambda: not sequencer._queue.empty())
    other.commit([draft(b"by another process")], NOW)
    sequencer.start()
    submitter.join(PATIENCE)
    assert seen == [["changed"]]
    sequencer.stop()
    ledger.close()
    other.close()


def damage(folder: Path, sql: str) -> None:
    with sqlite3.connect(folder / "log.db") as connection:
        connection.execute(sql)
    connection.close()


DAMAGE = {
    "another body": "UPDATE entries SET body = x'00' WHERE tree LIKE 'v1%' AND idx = 0",
    "another leaf hash": "UPDATE entries SET leaf_hash = zeroblob(32) WHERE tree LIKE 'v1%' AND idx = 0",
    "a lost entry": "DELETE FROM entries WHERE tree LIKE 'v2%'",
    "a head nobody signed": "UPDATE heads SET root = zeroblob(32) WHERE tree = 'ct'",
    "a broken note": "UPDATE heads SET note = replace(note, '1', '2') WHERE tree = 'ct'",
}


@pytest.mark.parametrize("case", DAMAGE)
def test_fsck_finds_damage(folder: Path, case: str) -> None:
    assert run("verify", "--dir", str(folder)).count("\tok") == 3, "control"
    damage(folder, DAMAGE[case])
    run("verify", "--dir", str(folder), expect=1)


def test_a_log_that_contradicts_its_signature_is_never_served(folder: Path) -> None:
    Ledger.open(folder, NOW).close()
    damage(folder, DAMAGE["another leaf hash"])
    with pytest.raises(LogDamaged):
        Ledger.open(folder, NOW)
    assert "would fork the log" in run("serve", "--dir", str(folder), expect=1)


def test_a_missing_log_is_never_a_first_start(tmp_path: Path, folder: Path) -> None:
    for command in (["serve"], ["export-trust"], ["verify"], ["rotate"], ["freeze"], ["fault", "fork"]):
        assert "log-lite init" in run(*command, "--dir", str(tmp_path / "nothing"), expect=2)
    assert "already" in run("init", "--dir", str(folder), expect=2)
    (folder / "keys" / "ct.pem").unlink()
    with pytest.raises(Exception, match=r"ct\.pem"):
        Ledger.open(folder, NOW)
    assert "ct.pem" in run("verify", "--dir", str(folder), expect=3)


def test_a_newer_database_is_refused(folder: Path) -> None:
    damage(folder, "UPDATE meta SET value = '99' WHERE key = 'schema'")
    with pytest.raises(StoreUnusable, match="schema 99"):
        Ledger.open(folder, NOW)


REFUSED: dict[str, Callable[[Path], object]] = {
    "newer": lambda folder: damage(folder, "UPDATE meta SET value = '99' WHERE key = 'schema'"),
    "a key is missing": lambda folder: (folder / "keys" / "ct.pem").unlink(),
    "no database": lambda folder: (folder / "log.db").write_bytes(b"not a database, but long enough to look at"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_directory_that_is_refused_is_let_go_of(how: str, folder: Path) -> None:
    REFUSED[how](folder)
    with pytest.raises((StoreUnusable, KeyUnusable)):
        Ledger.open(folder, NOW)
    assert open_below(folder) == []

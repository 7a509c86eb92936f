"""A backup made under a running daemon holds one state that restores, proves itself and goes on."""

import io
import json
import os
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from monitor.demo.processes import program, wait_until
from monitor.store.database import open_database
from monitor.store.reading import Reading
from tests.archive.conftest import Place, readable_bodies
from tests.support.waiting import PATIENCE


@pytest.fixture
def followed(place: Place) -> Place:
    place.served.log.leaves[:] = readable_bodies(120)
    config = place.served.config.read_text().replace("poll_seconds: 1", "poll_seconds: 1, start: 0")
    place.served.config.write_text(config)
    place.run("init")
    place.run("run", "--once")
    return place


def moved(place: Place, name: str) -> Path:
    """A second installation with the same configuration and no state; returns its configuration."""
    other = place.folder / name
    other.mkdir()
    for file in ("signwatch.yaml", "rules.yaml", "trusted_root.json"):
        (other / file).write_bytes((place.folder / file).read_bytes())
    return other / "signwatch.yaml"


def signwatch(*words: object, expect: int = 0) -> str:
    done = subprocess.run(
        [program("signwatch"), *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def size_of(config: Path) -> int:
    database = open_database(str(config.parent / "signwatch.db"))
    try:
        return Reading(database).followed()["rekor-v2"].position.frontier.size
    finally:
        database.close()


def test_a_backup_restores_elsewhere_and_following_goes_on_from_it(followed: Place) -> None:
    config, backup = followed.served.config, followed.folder / "backup.tar"
    assert "files" in signwatch("backup", backup, "--config", config)
    assert backup.stat().st_mode & 0o777 == 0o600
    followed.served.log.append(*readable_bodies(30, 120))
    other = moved(followed, "other")
    signwatch("restore", backup, "--config", other)
    assert size_of(other) == 120
    assert "sound" in signwatch("fsck", "--config", other)
    signwatch("archive", "verify", "--config", other)
    signwatch("run", "--once", "--config", other)
    assert size_of(other) == 150


def test_every_backup_under_a_running_daemon_is_one_state(followed: Place) -> None:
    config = followed.served.config
    with subprocess.Popen([program("signwatch"), "run", "--config", str(config)], stderr=subprocess.DEVNULL) as daemon:
        try:
            for number in range(3):
                size = 120 + 40 * (number + 1)
                followed.served.log.append(*readable_bodies(40, size - 40))
                backup = followed.folder / f"{number}.tar"
                signwatch("backup", backup, "--config", config)
                other = moved(followed, f"restored-{number}")
                signwatch("restore", backup, "--config", other)
                assert "sound" in signwatch("fsck", "--config", other)
                signwatch("archive", "verify", "--config", other)
                wait_until("the entries", lambda size=size: size_of(config) == size, seconds=PATIENCE)  # type: ignore[misc]
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(PATIENCE) == 0
        finally:
            daemon.kill()


def test_neither_backup_nor_restore_overwrites_anything(followed: Place) -> None:
    config, backup = followed.served.config, followed.folder / "backup.tar"
    signwatch("backup", backup, "--config", config)
    before = backup.read_bytes(), (followed.folder / "signwatch.db").read_bytes()
    assert "overwrites nothing" in signwatch("backup", backup, "--config", config, expect=2)
    assert "overwrites nothing" in signwatch("restore", backup, "--config", config, expect=2)
    assert (backup.read_bytes(), (followed.folder / "signwatch.db").read_bytes()) == before
    other = moved(followed, "other")
    (other.parent / "signwatch.db-wal").write_bytes(b"x")
    assert "another database" in signwatch("restore", backup, "--config", other, expect=2)


def rewritten(backup: Path, change: dict[str, bytes]) -> Path:
    """The backup with some members' bytes replaced or added."""
    path = backup.with_name("changed.tar")
    with tarfile.open(backup) as old, tarfile.open(path, "w") as new:
        members = {each.name: old.extractfile(each).read() for each in old.getmembers()}  # type: ignore[union-attr]
        for name, raw in (members | change).items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            new.addfile(member, io.BytesIO(raw))
    return path


@pytest.mark.parametrize("name", ["database", "backup.json", "archive/rekor-v2/archive.json"])
def test_a_damaged_backup_restores_nothing(followed: Place, name: str) -> None:
    backup = followed.folder / "backup.tar"
    signwatch("backup", backup, "--config", followed.served.config)
    changed = rewritten(backup, {name: b"damaged"})
    other = moved(followed, "other")
    signwatch("restore", changed, "--config", other, expect=3)
    assert sorted(each.name for each in other.parent.iterdir()) == ["rules.yaml", "signwatch.yaml", "trusted_root.json"]
    backup.write_bytes(backup.read_bytes()[:20_000])
    signwatch("restore", backup, "--config", other, expect=3)
    assert not (other.parent / "signwatch.db").exists()


def test_a_backup_cannot_write_outside_its_places(followed: Place) -> None:
    backup = followed.folder / "backup.tar"
    signwatch("backup", backup, "--config", followed.served.config)
    with tarfile.open(backup) as tar:
        listed = json.loads(tar.extractfile("backup.json").read())  # type: ignore[union-attr]
    name = "archive/../../evil"
    listed["files"][name] = {"size": 4, "sha256": "0" * 64}
    changed = rewritten(backup, {name: b"evil", "backup.json": json.dumps(listed).encode()})
    other = moved(followed, "other")
    assert "no name of a file" in signwatch("restore", changed, "--config", other, expect=3)
    assert not (followed.folder / "evil").exists()
    assert not (other.parent / "signwatch.db").exists()


def harmed(followed: Place, damage: str) -> str:
    """Damage a part of the archive; returns words of the sentence that names it."""
    folder = followed.folder / "archive" / "rekor-v2"
    match damage:
        case "manifest damaged":
            (folder / "archive.json").write_bytes(b"")
            return "rekor-v2: its files are in the backup as they are, unchecked: rekor-v2/archive.json"
        case "manifest missing":
            (folder / "archive.json").unlink()
            return "rekor-v2: its files are in the backup, unchecked: rekor-v2/archive.json is missing"
        case "rows missing":
            gone = next((folder / "rows").iterdir())
            gone.unlink()
        case "rows unreadable":
            gone = next((folder / "rows").iterdir())
            gone.unlink()
            gone.mkdir()
        case "manifest too large":
            os.truncate(folder / "archive.json", 1 << 30)
            return "rekor-v2: its files are in the backup as they are, unchecked: archive file"
        case _:
            gone = next((folder / "index").iterdir())
            gone.write_bytes(b"garbled")
    name = f"rekor-v2/{gone.parent.name}/{gone.name}"
    return f"{name}: this file of the archive is missing, unreadable or not as its manifest says"


@pytest.mark.parametrize(
    "damage",
    [
        "manifest damaged",
        "manifest missing",
        "manifest too large",
        "rows missing",
        "rows unreadable",
        "index garbled",
    ],
)
def test_a_damaged_archive_leaves_out_its_damaged_part_alone_and_mends_after_the_restore(
    followed: Place, damage: str
) -> None:
    config, backup = followed.served.config, followed.folder / "backup.tar"
    words = harmed(followed, damage)
    said = " ".join(signwatch("backup", backup, "--config", config, expect=3).split())
    assert words in said
    assert "The backup holds all else" in said
    other = moved(followed, "other")
    assert words in " ".join(signwatch("restore", backup, "--config", other).split())
    assert size_of(other) == 120
    assert "sound" in signwatch("fsck", "--config", other)
    signwatch("archive", "verify", "--mend", "--config", other)
    signwatch("archive", "verify", "--all", "--config", other)
    signwatch("run", "--once", "--config", other)

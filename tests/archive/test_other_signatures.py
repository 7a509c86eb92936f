"""Other signatures of a released object: those that were not looked at are told, and make the check unfinished."""

from contextlib import ExitStack, closing

import pytest

from monitor.commands import check_release
from monitor.commands.terminal import Exit
from monitor.config import load_config
from monitor.store.database import open_database
from monitor.store.reading import Reading
from sigstore_entries.release import Release
from tests.archive.conftest import Place
from tests.support.entries import ARTIFACT
from tests.support.served_log import signing_body

IT = Release("the object", (f"sha256:{ARTIFACT}",))


@pytest.fixture
def signed(place: Place) -> Place:
    """Four findings with one digest, which the archive has too."""
    place.run("init")
    place.served.log.append(*(signing_body(f"refs/tags/v{number}") for number in range(4)))
    place.run("audit")
    place.build()
    return place


def others(place: Place) -> list[tuple[str, str | None, Exit]]:
    """Place, problem and exit code of each."""
    with ExitStack() as parts:
        checker = check_release._Checker(load_config(place.served.config), parts, offline=True)
        return [(each.place, each.problem, each.code) for each in checker.others(IT)]


def test_all_are_looked_at(signed: Place) -> None:
    assert others(signed) == [("only in the log", None, Exit.FINE)] * 4


def test_a_bound_that_is_met_is_told(signed: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_release, "_MOST_OTHERS", 3)
    found = others(signed)
    shown = [each for each in found if each[1] is None]
    assert len(shown) == 4, "the oldest by their findings, the newest by the archive"
    digest = IT.digests[0]
    assert [each for each in found if each not in shown] == [
        ("the log", "more than 3 findings have its digests: the rest was not looked at", Exit.UNFINISHED),
        ("the archive", f"1 more entry with {digest}: not looked at", Exit.UNFINISHED),
    ]


def test_the_finding_of_an_entry_is_found_among_more_than_the_bound(signed: Place) -> None:
    with closing(open_database(load_config(signed.served.config).database)) as database:
        (found,) = Reading(database).signings_of(["widget"], IT.digests, 1, signed.served.log.leaves[-1:])
    assert found.leaf == signed.served.log.leaves[-1]


def test_damage_of_the_archive_is_told(signed: Place) -> None:
    for each in (signed.folder / "archive" / "rekor-v2" / "index").iterdir():
        each.unlink()
    *shown, (place, problem, code) = others(signed)
    assert shown == [("only in the log", None, Exit.FINE)] * 4
    assert (place, code) == ("the archive", Exit.UNFINISHED)
    assert problem is not None
    assert "is missing" in problem

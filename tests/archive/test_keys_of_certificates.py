"""A certificate's key is kept once, in the index: it is found, kept while a range grows, and checked."""

import json
from hashlib import sha256

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from monitor.archive.query import Query
from monitor.archive.ranges import VERSION
from monitor.archive.search_index import KeyKind
from monitor.archive.writing import read_made, read_manifest, read_rows
from tests.archive.conftest import Place, varied_bodies
from tests.archive.test_verify_and_compact import EVERYTHING, first_range, manifest_of, rewritten
from tests.support.entries import dsse_v2, hashedrekord_v2, make_certificate, make_key
from tests.support.served_log import CA

KEY_KIND = frozenset({KeyKind.FINGERPRINT})


def spki_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(raw: bytes) -> str:
    return sha256(raw).hexdigest()


def certificate(number: int) -> bytes:
    """A certificate with a key of its own."""
    return make_certificate(CA, key=make_key(f"own {number}"), serial=7_000 + number)


def key_of(number: int) -> str:
    return fingerprint(spki_of(make_key(f"own {number}")))


def found(place: Place, text: str, *, trusted: bool | None = None) -> list[int]:
    return sorted(row.index for row in place.archive.search(Query(text, KEY_KIND, limit=1000, trusted=trusted)).rows)


def test_every_certificate_is_found_by_its_key_which_the_rows_do_not_repeat(place: Place) -> None:
    place.served.log.leaves[:] = [hashedrekord_v2(certificate(number), f"{number:064x}") for number in range(130)]
    place.served.log.append(hashedrekord_v2(spki_of(make_key("own 3")), "ab" * 32))
    place.build()
    for number in (0, 63, 64, 129):
        assert found(place, key_of(number)) == [number]
        assert found(place, fingerprint(certificate(number))) == [number]
    assert found(place, key_of(3)) == [3, 130]
    manifest = manifest_of(place)
    rows = [
        row
        for run in manifest.runs
        for each in run.ranges
        for row in read_rows(place.files, manifest, each).to_pylist()
    ]
    assert [row["fingerprints"] for row in rows] == [
        *([sha256(certificate(number)).digest()] for number in range(130)),
        [bytes.fromhex(key_of(3))],
    ]
    place.run("archive", "verify", "--all")


def test_one_of_several_signers_is_found_by_its_key_if_that_one_is_trusted(place: Place) -> None:
    mine, bare = certificate(1), spki_of(make_key("own 2"))
    place.served.log.leaves[:] = [dsse_v2(mine, bare), dsse_v2(bare, spki_of(make_key("own 1")), mine)]
    place.build()
    for text in (key_of(1), key_of(2), fingerprint(mine)):
        assert found(place, text) == [0, 1]
        shown = place.archive.search(Query(text, KEY_KIND)).rows
        assert all(any(text in signer["fingerprints"] for signer in row.signers) for row in shown)
    place.run("archive", "verify", "--all")


def test_keys_of_a_range_are_kept_while_it_grows(place: Place) -> None:
    bodies = [hashedrekord_v2(certificate(number), f"{number:064x}") for number in range(70)]
    for count in (5, 6, 40, 70):
        place.served.log.leaves[:] = bodies[:count]
        place.build()
    assert [found(place, key_of(number)) for number in range(70)] == [[number] for number in range(70)]
    place.run("archive", "verify", "--all")


def dropped_key(rows: pa.Table) -> pa.Table:
    return _with_first_keys(rows, [])


def other_key(rows: pa.Table) -> pa.Table:
    return _with_first_keys(rows, [sha256(b"another").digest()])


def _with_first_keys(rows: pa.Table, keys: list[bytes]) -> pa.Table:
    column = rows["keys"].to_pylist()
    assert column[0]
    assert column[0] != keys
    at = rows.schema.get_field_index("keys")
    return rows.set_column(at, rows.schema.field(at), pa.array([keys, *column[1:]], rows.schema.field(at).type))


@pytest.mark.parametrize("change", [dropped_key, other_key])
def test_an_index_with_other_keys_than_the_entries_have_is_found_and_mended(place: Place, change: object) -> None:
    place.build()
    before = read_made(place.files, manifest_of(place), first_range(place))
    assert callable(change)
    rewritten(place, change, with_index=True, with_maps=False)
    assert "search map of entries 0 to 63" in place.run("archive", "verify", "--offline", expect=3)[1]
    # With a map to match, only the log's own bytes show it.
    rewritten(place, lambda rows: rows, with_index=True)
    place.run("archive", "verify", "--offline")
    place.run("archive", "verify", "--all", expect=3)
    place.run("archive", "verify", "--all", "--jobs", "1", "--mend")
    place.run("archive", "verify", "--all")
    assert read_made(place.files, manifest_of(place), first_range(place)).equals(before)


def test_an_archive_of_an_earlier_format_is_refused_with_the_command_that_makes_it_again(place: Place) -> None:
    place.build()
    before = place.archive.search(EVERYTHING)
    path = place.folder / "archive" / "rekor-v2" / "archive.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"version": VERSION - 1}))
    for command in (("search", "*@example.com"), ("archive", "verify", "--offline")):
        said = place.run(*command, expect=3)[1]
        assert f"the archive is of the earlier format {VERSION - 1}; this release reads format {VERSION}" in said
        assert "`signwatch archive verify --mend --log rekor-v2`" in said
    place.run("archive", "verify", "--mend", "--log", "rekor-v2", "--jobs", "1")
    manifest = read_manifest(place.files, "rekor-v2")
    assert manifest is not None
    place.run("archive", "verify", "--all")
    assert place.archive.search(EVERYTHING) == before


def test_files_of_an_earlier_format_are_not_taken_for_those_of_this_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.served.log.leaves[:] = varied_bodies(130)
    with monkeypatch.context() as earlier:
        earlier.setattr("monitor.archive.ranges.VERSION", VERSION - 1)
        earlier.setattr("monitor.archive.writing.VERSION", VERSION - 1)
        place.build()
    said = place.run("archive", "verify", "--mend", "--log", "rekor-v2", "--jobs", "1")[1]
    assert "0 files of entries are proven by the log's signed head, and 130 entries were read again" in said
    place.run("archive", "verify", "--all")

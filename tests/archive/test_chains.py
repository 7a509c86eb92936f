"""Each signer's chain is judged when its entry is archived, by the trust root in force then, and can be searched by."""

import csv
import io
import json
from base64 import b64encode
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pytest

from monitor.archive.compacting import compactable
from monitor.archive.query import MatchMode, Query
from monitor.archive.rows import Chain
from monitor.archive.search_index import KeyKind
from monitor.archive.writing import read_manifest, read_rows
from tests.archive.conftest import RANGE, Place, varied_bodies
from tests.archive.test_verify_and_compact import rewritten
from tests.support import entries as make
from tests.support.served_log import CA

NAME = "maintainer@acme.example"
STRANGER = make.make_ca("a stranger")
TRUSTED = make.make_certificate(CA, san=NAME)
UNTRUSTED = make.make_certificate(STRANGER, san=NAME)
ATTACKER = make.make_certificate(CA, san="attacker@example.com")
KEY = make.spki_of(make.make_key("a key of its own"))
BODIES = {
    "trusted": make.hashedrekord_v2(TRUSTED, f"{1:064x}"),
    "untrusted": make.hashedrekord_v2(UNTRUSTED, f"{2:064x}"),
    "both": make.dsse_v2(ATTACKER, UNTRUSTED, payload=f"{3:064x}"),
    "both, trusted": make.dsse_v2(ATTACKER, TRUSTED, payload=f"{4:064x}"),
    "key": make.hashedrekord_v2(KEY, f"{5:064x}"),
    "listed": make.rfc3161(make.timestamp_response(bytes.fromhex(f"{6:064x}"), TRUSTED)),
    "unreadable": make.canonical("unheard-of", "9.9.9", {}),
}
CHAINS = {
    "trusted": [Chain.TRUSTED],
    "untrusted": [Chain.UNTRUSTED],
    "both": [Chain.TRUSTED, Chain.UNTRUSTED],
    "both, trusted": [Chain.TRUSTED, Chain.TRUSTED],
    "key": [Chain.KEY],
    "listed": [Chain.LISTED],
    "unreadable": [],
}


def numbered(*names: str) -> list[int]:
    return [list(BODIES).index(name) for name in names]


@pytest.fixture
def judged(place: Place) -> Place:
    """A log with one entry of each kind, archived."""
    place.served.log.leaves[:] = BODIES.values()
    place.build()
    return place


def trust_also_the_stranger(place: Place) -> None:
    """A new trust root is in force: it names the stranger's authority beside the first."""
    path = place.folder / "trusted_root.json"
    root = json.loads(path.read_text())
    chain = [{"rawBytes": b64encode(each).decode()} for each in STRANGER.chain]
    root["certificateAuthorities"] += [root["certificateAuthorities"][0] | {"certChain": {"certificates": chain}}]
    path.write_text(json.dumps(root))


def rows(place: Place) -> list[dict[str, Any]]:
    manifest = read_manifest(place.files, "rekor-v2")
    assert manifest is not None
    return [
        row
        for run in manifest.runs
        for each in run.ranges
        for row in read_rows(place.files, manifest, each).to_pylist()
    ]


def test_the_chain_of_each_signer_is_kept_with_the_root_it_was_judged_by(judged: Place) -> None:
    found = rows(judged)
    assert [row["chains"] for row in found] == list(CHAINS.values())
    root = sha256((judged.folder / "trusted_root.json").read_bytes()).hexdigest()
    assert {row["trust_root"] for row in found[:-1]} == {root}
    assert found[-1]["trust_root"] is None
    attacker, victim = found[2]["signers"]
    assert (attacker["identities"], victim["identities"]) == (["attacker@example.com"], [NAME])
    assert found[0]["signers"] is None


@pytest.mark.parametrize("match", [MatchMode.EXACT, MatchMode.PREFIX, MatchMode.GLOB])
def test_only_a_trusted_signer_of_this_very_name_is_found_when_trust_is_asked_for(
    judged: Place, match: MatchMode
) -> None:
    text = {MatchMode.EXACT: NAME, MatchMode.PREFIX: NAME[:5], MatchMode.GLOB: "main*@acme.*"}[match]
    every = judged.archive.search(Query(text, match=match))
    assert sorted(row.index for row in every.rows) == numbered(
        "trusted", "untrusted", "both", "both, trusted", "listed"
    )
    trusted = judged.archive.search(Query(text, match=match, trusted=True), per_day=True)
    assert sorted(row.index for row in trusted.rows) == numbered("trusted", "both, trusted")
    assert trusted.total == 2 == sum(trusted.per_day.values())
    streamed = judged.archive.stream(Query(text, match=match, trusted=True), {})
    assert [number for table in streamed for number in table["index"].to_pylist()] == numbered(
        "trusted", "both, trusted"
    )


def test_an_artifact_is_trusted_where_one_of_its_signers_is(judged: Place) -> None:
    for number, count in ((1, 1), (2, 0), (3, 1), (5, 0)):
        assert judged.archive.search(Query(f"{number:064x}", trusted=True)).total == count
    key = judged.archive.search(Query(f"{5:064x}")).rows[0].fingerprints[0]
    assert judged.archive.search(Query(key, frozenset({KeyKind.FINGERPRINT}), trusted=True)).total == 0


def test_the_command_tells_and_filters_chains(judged: Place) -> None:
    out, _ = judged.run("search", NAME)
    shown = {int(line.split("\t")[2]): line.split("\t")[7] for line in out.splitlines()}
    assert shown == {0: "trusted", 1: "untrusted", 2: "trusted, untrusted", 3: "trusted", 5: "listed"}
    entries, summary = judged.found(NAME, "--trusted")
    assert [each["index"] for each in entries] == numbered("trusted", "both, trusted")
    assert [each["chains"] for each in entries] == [["trusted"], ["trusted", "trusted"]]
    assert summary["entries"] == 2
    lines = list(csv.DictReader(io.StringIO(judged.run("search", NAME, "--csv", "--trusted")[0])))
    assert [line["chains"] for line in lines] == ["trusted", "trusted trusted"]
    assert "attacker@example.com" in lines[1]["signers"]


def test_compaction_keeps_them(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.served.log.leaves[:] = [*varied_bodies(150), *BODIES.values()] * 2
    place.build()
    query = Query("*", match=MatchMode.GLOB, trusted=True, limit=1000)
    before = place.archive.search(query)
    assert before.total > 100
    monkeypatch.setattr(compactable, "__defaults__", (RANGE, 2))
    place.run("archive", "compact")
    after = place.archive.search(query)
    assert (after.rows, after.total) == (before.rows, before.total)
    place.run("archive", "verify", "--all")


def calls_all_trusted(table: pa.Table) -> pa.Table:
    chains = [["trusted"] * len(each) for each in table["chains"].to_pylist()]
    at = table.schema.get_field_index("chains")
    return table.set_column(at, table.schema.field("chains"), pa.array(chains, table.schema.field("chains").type))


@pytest.mark.parametrize("with_index", [False, True])
def test_a_changed_chain_is_found(judged: Place, with_index: bool) -> None:
    rewritten(judged, calls_all_trusted, with_index=with_index)
    # A changed row with an index to match can only be seen against the log's own bytes.
    judged.run("archive", "verify", "--offline", expect=0 if with_index else 3)
    judged.run("archive", "verify", "--all", expect=3)
    judged.run("archive", "verify", "--all", "--jobs", "1", "--mend")
    judged.run("archive", "verify", "--all")
    assert [row["chains"] for row in rows(judged)] == list(CHAINS.values())


def test_chains_judged_by_a_root_that_is_not_known_any_more_are_told(judged: Place) -> None:
    trust_also_the_stranger(judged)
    _, said = judged.run("archive", "verify", "--all")
    assert "6 rows judged by the trust root" in said
    assert "trust has changed since" in said
    assert [row["chains"] for row in rows(judged)] == list(CHAINS.values())


def test_chains_are_derived_again_by_every_root_that_was_ever_in_force(place: Place) -> None:
    place.served.log.leaves[:] = BODIES.values()
    config = place.served.config.read_text().replace("poll_seconds: 1", "poll_seconds: 1, start: 0")
    place.served.config.write_text(config)
    place.run("init")
    place.run("run", "--once", expect=3)  # one entry cannot be read
    trust_also_the_stranger(place)
    place.served.log.append(BODIES["untrusted"])
    place.run("run", "--once", expect=0)
    assert [row["chains"] for row in rows(place)] == [*CHAINS.values(), [Chain.TRUSTED]]
    assert len({row["trust_root"] for row in rows(place)} - {None}) == 2
    _, said = place.run("archive", "verify", "--all")
    assert "trust has changed" not in said
    rewritten(place, calls_all_trusted, with_index=True)
    place.run("archive", "verify", "--all", expect=3)

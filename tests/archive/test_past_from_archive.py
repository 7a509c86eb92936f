"""A new rule sees its past from the archive: the same findings as from the log, and only candidates are fetched."""

import json
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from monitor.archive.query import Query
from monitor.following.scan_batch import RuleScanner
from monitor.model.log_source import LogApi, LogEntry
from monitor.store.database import open_database
from monitor.store.reading import Reading
from rules.matching.matcher import compile_rules
from rules.rule_file import load_rules
from tests.archive.conftest import GITHUB, Place, readable_bodies
from tests.support.entries import CA_NOT_AFTER, PLACEHOLDER_SIGNATURE, hashedrekord_v2, make_certificate, make_key
from tests.support.served_log import CA, signing_body

RULES = """\
version: 1
rules:
  - id: person
    select: {identity: {exact: "Dev3@Example.com", ignore_case: true}}
  - id: repository
    select: {all: [{issuer: "https://token.actions.githubusercontent.com"}, {source_repository_uri: {glob: "https://github.com/org1/*"}}]}
  - id: either
    select: {any: [{digest: "sha256:%064x"}, {build_signer_uri: {glob: "*/repo4/*"}}]}
"""


def findings(place: Place, command: str = "backscan") -> list[tuple[int, str, str]]:
    out, _ = place.run(command, "--json", "--jobs", "1", "--from", "0", expect=1)
    found = [json.loads(line) for line in out.splitlines()]
    return sorted((each["index"], each["rule"], each["outcome"]) for each in found if "rule" in each)


def in_log(place: Place, rules: str) -> list[tuple[int, str]]:
    """Entries that rules select, by reading every entry."""
    scanner = RuleScanner(compile_rules(load_rules(rules).rules))
    entries = [LogEntry(leaf) for leaf in place.served.log.leaves]
    hits = scanner.scan(entries, 0, "rekor-v2", LogApi.REKOR_V2).hits
    return sorted((hit.signing.where.index, rule) for hit in hits for rule in hit.rules)


def place_with(place: Place, rules: str, *more: bytes) -> None:
    place.served.log.leaves[:] = [*readable_bodies(200), *more]
    config = place.served.config.read_text().replace("poll_seconds: 1", "poll_seconds: 1, start: 0")
    place.served.config.write_text(config)
    place.run("init")
    place.run("run", "--once")
    (place.folder / "rules.yaml").write_text(rules)
    place.run("run", "--once")


def test_the_past_from_the_archive_is_the_past_from_the_log(place: Place) -> None:
    place_with(place, RULES % 10)
    # Reading the range would meet this entry, which no rule selects; fetching candidates does not.
    other = place.archive.search(Query("https://github.com/org2/repo0")).rows[0].index
    place.served.log.served[other] = signing_body("refs/heads/evil")
    from_archive = findings(place)
    place.served.log.served.clear()
    assert len({index for index, _, _ in from_archive}) > 20
    assert {rule for _, rule, _ in from_archive} == {"person", "repository", "either"}
    # The same rules over the log itself, in a database that was offered nothing.
    place.served.config.write_text(place.served.config.read_text().replace("archive:", "# archive:"))
    (place.folder / "signwatch.db").unlink()
    for beside in place.folder.glob("signwatch.db*"):
        beside.unlink()
    (place.folder / "rules.yaml").write_text("version: 1\nrules: []\n")
    place.run("init")
    place.run("audit")
    (place.folder / "rules.yaml").write_text(RULES % 10)
    place.run("audit")
    assert findings(place) == from_archive


def test_a_log_that_now_shows_another_entry_is_held_to_it(place: Place) -> None:
    place.served.log.leaves[:] = readable_bodies(60)
    place_with(place, RULES % 10)
    wanted = next(index for index, body in enumerate(place.served.log.leaves) if index > 10)
    place.served.log.served[wanted] = signing_body("refs/heads/evil")
    out, said = place.run("backscan", "--json", "--jobs", "1", "--from", "0", expect=1)
    assert "not the entries that the log signed" in out + said
    with closing(open_database(str(place.folder / "signwatch.db"))) as database:
        assert Reading(database).evidence(10)


def test_a_wrong_signature_is_kept_and_told_where_the_archive_answers_as_well(place: Place) -> None:
    wrong = hashedrekord_v2(
        make_certificate(CA, san="dev3@example.com", not_after=CA_NOT_AFTER), "cd" * 32, signature=PLACEHOLDER_SIGNATURE
    )
    place_with(place, RULES % 10, wrong)
    # Reading the range would meet another entry than was proven: what is found comes from the archive.
    other = place.archive.search(Query("https://github.com/org2/repo0")).rows[0].index
    place.served.log.served[other] = signing_body("refs/heads/evil")
    assert findings(place)[-1] == (200, "person", "unverified")
    with closing(open_database(str(place.folder / "signwatch.db"))) as database:
        reading = Reading(database)
        assert [each.kind for each in reading.evidence(10)] == ["entry-signature-wrong"]
        assert "entry-signature-wrong" in [each.alert.kind for each in reading.alerts(1000)]


OWN_KEY = make_key("own")
OWN_SPKI = OWN_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def many_rules(count: int) -> str:
    """Rules by text, glob, regular expression, digest, key of a certificate, negation, and a field no column holds."""
    rules: list[dict[str, Any]] = [
        {"id": "regex", "select": {"identity": {"regex": "(?i)dev[35]@.*"}}},
        {"id": "no-issuer", "select": {"all": [{"kind": "dsse"}, {"not": {"issuer": GITHUB}}]}},
        {"id": "key", "select": {"fingerprint": sha256(OWN_SPKI).hexdigest()}},
        {"id": "not-stored", "select": {"run_invocation_uri": {"glob": "*/runs/7*"}, "issuer": GITHUB}},
        *({"id": f"digest-{n}", "select": {"digest": f"sha256:{n:064x}"}} for n in range(40, 60)),
    ]
    for number in range(count - len(rules)):
        name = f"org{number}" if number % 2 else f"dev{number}@example.com"
        select = (
            {"source_repository_uri": {"glob": f"https://github.com/{name}/*"}} if number % 2 else {"identity": name}
        )
        rules.append({"id": f"rule-{number}", "select": select})
    return json.dumps({"version": 1, "rules": rules})


@pytest.mark.parametrize("count", [250, 5_000])
def test_any_number_of_rules_of_any_form_is_answered_from_the_archive(place: Place, count: int) -> None:
    place_with(place, many_rules(count), hashedrekord_v2(make_certificate(CA, key=OWN_KEY), "ef" * 32))
    wanted = in_log(place, many_rules(count))
    # Reading the range would meet this entry, which no rule selects; fetching candidates does not.
    selected = {index for index, _ in wanted}
    other = next(index for index in range(200) if index not in selected)
    place.served.log.served[other] = signing_body("refs/heads/evil")
    found = findings(place)
    place.served.log.served.clear()
    assert {rule for _, rule, _ in found} >= {"regex", "no-issuer", "not-stored", "digest-41", "rule-1"}
    assert (200, "key") in wanted
    assert [(index, rule) for index, rule, _ in found] == wanted


@pytest.mark.parametrize("select", [{"run_invocation_uri": {"glob": "*/runs/7*"}}, {"not": {"token_subject": "x"}}])
def test_a_rule_on_fields_that_no_column_holds_reads_the_log(place: Place, select: dict[str, Any]) -> None:
    rules = json.dumps({"version": 1, "rules": [{"id": "one", "select": select}]})
    place_with(place, rules)
    place.served.log.served[199] = signing_body("refs/heads/evil")
    out, said = place.run("backscan", "--json", "--jobs", "1", "--from", "0", expect=1)
    assert "not the entries that the log signed" in out + said


def test_a_glob_finds_texts_longer_than_their_keys(place: Place, tmp_path: Path) -> None:
    long = "https://github.com/acme/" + "x" * 300 + "/release.yml@refs/tags/v1"
    place.served.log.leaves[:] = [
        hashedrekord_v2(make_certificate(CA, san=long + end), f"{n:064x}") for n, end in enumerate(["a", "b"])
    ]
    place.build()
    assert [each["index"] for each in place.found("*@refs/tags/v1b")[0]] == [1]
    assert [each["index"] for each in place.found(long + "a")[0]] == [0]
    assert len(place.found("https://github.com/acme/*")[0]) == 2

"""`signwatch check-bundle` on bundles of a real log: two faces are caught though the monitor was only shown one."""

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from monitor.cli import run_command
from monitor.crosscheck.bundle_check import BundleRelation, CrossCheck
from monitor.crosscheck.bundles import BadBundle
from monitor.proof.evidence import check_evidence
from monitor.store.database import create, open_database
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from monitor.store.store import Store
from monitor.trust.trust_root import read_trust_root
from sign_lite.cli import app as sign_lite
from tests.corpus.test_real_entries import CORPUS, ENTRIES, TRUSTED_ROOT
from tests.evidence import independent_reader
from tests.sigstore_entries.test_bundle_file import BUNDLE as SIGNED
from tests.support.bundle_forms import with_promise, with_proof
from tests.support.bundles import entries_in
from tests.support.ca_server import CaServer, ca_and_log
from tests.support.harness import NOW
from tests.support.log_server import LogServer

CONFIG = """\
version: 1
database: signwatch.db
trust: {{trusted_root: "{trust}"}}
logs:
  - {{name: rekor-v1, api: rekor-v1, url: "{url}"}}
  - {{name: rekor-v2, api: rekor-v2, url: "{url}"}}
  - {{name: ct, api: ct-rfc6962, url: "{url}/ct"}}
rules: rules.yaml
channels: {{file: {{type: jsonl, path: alerts.jsonl}}}}
notify: [file]
"""
RULES = """\
version: 1
rules:
  - id: somebody
    select: {identity: somebody@example.com}
"""
Run = Callable[..., tuple[str, str]]


@dataclass(frozen=True)
class Place:
    """A CA and a log, and bundles signed with them: per API honest ones, and one that shows another history."""

    ca: CaServer
    log: LogServer
    folder: Path

    def sign(self, name: str, version: int) -> Path:
        file, bundle = self.folder / name, self.folder / f"{name}.json"
        file.write_text(f"contents of {name}\n")
        words = ["sign", str(file), "--trust-config", str(self.ca.trust_config), "--bundle", str(bundle)]
        words += ["--identity-token", self.ca.email_token("dev@example.com"), "--rekor-version", str(version)]
        done = CliRunner().invoke(sign_lite, words)
        assert done.exit_code == 0, done.output
        return bundle


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("check-bundle")
    with ca_and_log(folder) as (ca, log):
        made = Place(ca, log, folder)
        for version in (1, 2):
            made.sign(f"first-{version}", version)
            log.fault("fork", "--log", f"v{version}", "--index", "0")
            made.sign(f"hidden-{version}", version)
            log.fault("none", "--log", f"v{version}")
            if version == 1:
                for name in ("v1", "ct"):
                    log.fault("set-not-included", "--log", name)
                    made.sign(f"promised-{name}", version)
                    log.fault("none", "--log", name)
            made.sign(f"later-{version}", version)
        yield made


@pytest.fixture
def run(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """A monitor that follows the log as it shows itself to every reader."""
    config = tmp_path / "signwatch.yaml"
    trust = place.ca.folder / "trust" / "trusted_root.json"
    config.write_text(CONFIG.format(trust=trust, url=place.log.url))
    (tmp_path / "rules.yaml").write_text(RULES)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*words: str, expect: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        code = run_command([*words, "--config", str(config)])
        out, errors = capsys.readouterr()
        assert code == expect, f"{words} ended with {code}:\n{out}\n{errors}"
        return out, errors

    run("init")
    yield run
    with closing(open_database(str(tmp_path / "signwatch.db"))) as database:
        assert fsck(database) == []
    root.handlers[:] = handlers
    root.setLevel(level)


def verdicts(out: str) -> list[str]:
    return [each["verdict"] for each in json.loads(out)["entries"]]


def promises(out: str) -> list[tuple[str, str]]:
    return [(each["kind"], each["verdict"]) for each in json.loads(out)["promises"]]


def bundles(place: Place, *names: str) -> list[str]:
    return [str(place.folder / f"{name}.json") for name in names]


def test_honest_bundles_are_consistent(place: Place, run: Run) -> None:
    out, _ = run("check-bundle", "--json", *bundles(place, "first-1", "first-2", "later-1", "later-2"))
    assert verdicts(out) == ["consistent"] * 4
    stamped, certified = ("rekor-set", "consistent"), ("ct-sct", "consistent")
    assert promises(out) == [stamped, certified, certified, stamped, certified, certified]
    out, _ = run("check-bundle", "--json", "--offline", *bundles(place, "first-1", "first-2"))
    assert set(verdicts(out)) <= {"consistent", "not-yet-covered"}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("how", [(), ("--offline",)], ids=["online", "offline"])
def test_a_history_that_only_one_signer_was_shown_is_evidence(
    place: Place, run: Run, version: int, how: tuple[str, ...], tmp_path: Path
) -> None:
    # Without the log, one bundle of the public history is what the hidden one can be compared with.
    out, _ = run("check-bundle", "--json", *how, *bundles(place, f"first-{version}", f"hidden-{version}"), expect=1)
    first, entry = json.loads(out)["entries"]
    assert (first["verdict"] != "contradiction", entry["verdict"]) == (True, "contradiction")
    file = tmp_path / "fork.json"
    run("evidence", "export", entry["evidence"], "--output", str(file))
    assert json.loads(file.read_text())["strength"] == "transferable"
    alerts = json.loads(run("alerts", "list", "--json")[0])["alerts"]
    assert [each["kind"] for each in alerts] == ["log-forked"]
    # The bundles of all others are no worse for it.
    out, _ = run("check-bundle", "--json", *bundles(place, f"first-{version}", f"later-{version}"))
    assert verdicts(out) == ["consistent", "consistent"]


@pytest.mark.parametrize(("name", "kind"), [("promised-v1", "rekor-set"), ("promised-ct", "ct-sct")])
def test_19_a_promise_that_a_log_broke_is_evidence(
    place: Place, run: Run, name: str, kind: str, tmp_path: Path
) -> None:
    """The timestamp alone, as bundles before version 0.2 have it: nothing in the file proves anything else."""
    document: dict[str, Any] = json.loads((place.folder / f"{name}.json").read_text())
    del document["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps(document))
    out, _ = run("check-bundle", "--json", "--offline", str(bare))
    assert verdicts(out) == []
    assert promises(out) == [("rekor-set", "not-yet-covered"), ("ct-sct", "not-yet-covered")]
    assert "remembered" in json.loads(out)["promises"][0]["detail"]
    out, _ = run("check-bundle", "--json", str(bare), expect=1)
    broken = [each for each in json.loads(out)["promises"] if each["verdict"] == "contradiction"]
    assert [each["kind"] for each in broken] == [kind]
    file = tmp_path / "broken.json"
    run("evidence", "export", broken[0]["evidence"], "--output", str(file))
    assert json.loads(file.read_text())["strength"] == "transferable"
    assert check_evidence(file.read_bytes()).conclusion.transferable
    assert independent_reader.read(file.read_bytes()) is not None
    alerts = json.loads(run("alerts", "list", "--json")[0])["alerts"]
    assert [each["kind"] for each in alerts] == ["log-promise-broken"]


def test_19_an_audit_holds_the_logs_to_what_bundles_promised(place: Place, run: Run) -> None:
    offline = ("check-bundle", "--json", "--offline")
    run(*offline, *bundles(place, "first-1", "later-1", "later-2"))
    out, _ = run("status", "--json", expect=3)
    assert json.loads(out)["promises"]["pending"] == 5
    run("audit")
    out, _ = run("status", "--json")
    told = json.loads(out)["promises"]
    assert (told["pending"], told["kept"], told["broken"]) == (0, 5, 0)
    run(*offline, *bundles(place, "promised-ct"))
    report, _ = run("audit", "--json", expect=1)
    (log,) = [each for each in json.loads(report)["logs"] if each["kind"] == "log-promise-broken"]
    assert (log["log"], len(log["evidence"])) == ("ct", 1)
    # What a log signed against itself counts until an operator closes it.
    told = json.loads(run("status", "--json", expect=1)[0])["promises"]
    assert (told["pending"], told["kept"], told["broken"]) == (0, 6, 1)
    run("audit", expect=1)


@pytest.mark.parametrize("version", [1, 2])
def test_a_real_logs_signings_are_found_by_a_scan(run: Run, version: int, tmp_path: Path) -> None:
    rules = tmp_path / "dev.yaml"
    rules.write_text(RULES.replace("somebody", "dev"))
    asked = ["scan", "--log", f"rekor-v{version}", "--from", "0", "--rules", str(rules), "--json", "--jobs", "1"]
    out, _ = run(*asked, expect=1)
    *findings, last = [json.loads(line) for line in out.splitlines()]
    # Each time the certificate's log lied, the signing itself was logged.
    assert len(findings) == (4 if version == 1 else 3)
    assert {each["outcome"] for each in findings} == {"unexpected"}
    assert last["summary"]["entries"] == last["summary"]["to"]
    log = findings[0]["log"]
    assert log.partition("/")[0] == f"rekor-v{version}"
    again, _ = run(*[log if word == f"rekor-v{version}" else word for word in asked], expect=1)
    assert again == out


FORMS = sorted({*with_proof(SIGNED), *with_promise(SIGNED)})


@pytest.mark.parametrize("form", FORMS)
def test_a_real_bundle_is_checked_in_every_form_that_people_hold(
    place: Place, run: Run, form: str, tmp_path: Path
) -> None:
    document = json.loads((place.folder / "first-1.json").read_text())
    forms = with_proof(document)
    has_proof = form in forms
    (tmp_path / "held").write_bytes((forms | with_promise(document))[form])
    out, _ = run("check-bundle", "--json", str(tmp_path / "held"))
    assert verdicts(out) == ["consistent"] * has_proof
    assert ("rekor-set", "consistent") in promises(out)
    out, _ = run("rules", "test", "--json", str(tmp_path / "held"))
    assert [each["outcome"] for each in json.loads(out)["results"]] == ["not selected"]
    run("rules", "explain", "somebody", str(tmp_path / "held"))


def test_folders_patterns_and_standard_input_are_read(
    place: Place, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "dist"
    (folder / "deeper").mkdir(parents=True)
    for name in ("first-1", "first-2"):
        raw = (place.folder / f"{name}.json").read_bytes()
        (folder / "deeper" / f"{name}.sigstore.json").write_bytes(raw)
        (folder / f"{name}.whl").write_bytes(b"no bundle")
    out, errors = run("check-bundle", "--json", "--offline", str(folder))
    assert len(json.loads(out)["entries"]) == 2
    assert "not looked at: 2 other files" in errors
    monkeypatch.chdir(folder)
    out, _ = run("check-bundle", "--json", "--offline", "deeper/*-1.sigstore.json")
    assert len(json.loads(out)["entries"]) == 1
    run("check-bundle", "--offline", "*.none", expect=2)
    (tmp_path / "empty").mkdir()
    run("check-bundle", "--offline", str(tmp_path / "empty"), expect=2)
    both = b"\n".join((place.folder / f"{name}.json").read_bytes() for name in ("first-1", "first-2"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(both)))
    out, _ = run("check-bundle", "--json", "--offline", "-")
    entries = json.loads(out)["entries"]
    assert [(each["file"], each["place"]) for each in entries] == [("-", "document 1"), ("-", "document 2")]


def test_a_bundle_without_a_log_entry_is_told_as_that_with_what_was_checked(
    place: Place, run: Run, tmp_path: Path
) -> None:
    document = json.loads((place.folder / "first-2.json").read_text())
    document["verificationMaterial"]["tlogEntries"] = []
    file = tmp_path / "private.json"
    file.write_text(json.dumps(document))
    out, _ = run("check-bundle", "--json", "--offline", str(file), expect=3)
    (entry,) = json.loads(out)["entries"]
    assert entry["verdict"] == "no-log-entry"
    assert "holds no log entry" in entry["detail"]
    assert "its certificate was issued by http" in entry["detail"]
    assert re.search(r"its timestamp of 20\S+ by http\S+ verifies", entry["detail"])
    out, _ = run("rules", "test", "--json", str(file))
    assert [each["outcome"] for each in json.loads(out)["results"]] == ["not selected"], "its certificate is judged"
    document["messageSignature"]["signature"] = "AAAA"
    file.write_text(json.dumps(document))
    out, _ = run("check-bundle", "--json", "--offline", str(file), expect=3)
    (entry,) = json.loads(out)["entries"]
    assert "verify under no timestamp authority of the trust root: 1" in entry["detail"]
    (tmp_path / "empty.json").write_text("{}")
    out, _ = run("check-bundle", "--json", "--offline", str(tmp_path / "empty.json"), expect=3)
    (entry,) = json.loads(out)["entries"]
    assert (entry["verdict"], entry["detail"]) == ("unverifiable", "an empty JSON object: it holds no bundle")


def test_what_cannot_be_verified_says_why_and_is_exit_code_3(place: Place, run: Run, tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads((place.folder / "first-2.json").read_text())
    del document["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(document))
    (tmp_path / "none.json").write_text("[]")
    out, _ = run("check-bundle", "--offline", str(bad), str(tmp_path / "none.json"), expect=3)
    rows = [line.split("\t") for line in out.splitlines()]
    # The promise of its certificate's log stands on its own feet.
    assert [row[3] for row in rows] == ["unverifiable", "not-yet-covered", "unverifiable"]
    assert "no inclusion proof" in rows[0][4]
    run("check-bundle", str(tmp_path / "absent.json"), expect=2)


def test_a_log_that_cannot_be_asked_is_exit_code_3(place: Place, run: Run) -> None:
    place.log.stop()
    try:
        out, _ = run("check-bundle", "--json", *bundles(place, "first-2"), expect=3)
        assert json.loads(out)["entries"][0]["asked_in_vain"]
    finally:
        place.log.start()


@pytest.mark.skipif(
    not (ENTRIES.is_file() and TRUSTED_ROOT.is_file()),
    reason=f"the folder with recorded public-log entries ({CORPUS.name} beside the repository) is not here",
)
def test_bundles_of_the_public_logs_never_contradict_each_other(tmp_path: Path) -> None:
    trust = read_trust_root(TRUSTED_ROOT.read_bytes())
    store = Store(create(str(tmp_path / "s.db"), NOW, "test"), clock=lambda: NOW, route=lambda _: ())
    with closing(store):
        checker, relations, agreeing = CrossCheck(store, lambda: NOW), [], 0
        for line in ENTRIES.read_text().splitlines():
            (entry,) = entries_in(json.dumps(json.loads(line)["tlogEntry"]).encode(), trust)
            if isinstance(entry, BadBundle):
                continue
            verdict = checker.check(entry)
            relations.append(verdict.relation)
            agreeing += verdict.agreeing
        assert len(relations) >= 5
        assert set(relations) == {BundleRelation.NOT_COVERED}
        assert agreeing > 0, "bundles of one tree share nodes"
        assert Reading(store.database).evidence(10) == []

"""The commands: what they print, their exit codes, and that no bad input ends in a traceback."""

import base64
import hashlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from monitor.cli import run_command
from monitor.commands import running_daemon
from monitor.store.database import open_database
from tests.support.entries import (
    ARTIFACT,
    NOT_BEFORE,
    dsse_v1,
    dsse_v2,
    hashedrekord_v1,
    make_ca,
    make_certificate,
    make_github_certificate,
    make_key,
    pem,
    spki_of,
)
from tests.support.log_server import free_port
from tests.support.served_log import CA, RULES, ServedLog, served_log, signing_body
from tests.support.waiting import PATIENCE, answers, wait_until


@pytest.fixture(autouse=True)
def quiet_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedLog]:
    with served_log(tmp_path) as log:
        yield log


class Command:
    """Runs `signwatch` in this process, against one configuration."""

    def __init__(self, served: ServedLog, capsys: pytest.CaptureFixture[str]) -> None:
        self.served, self.capsys = served, capsys
        self.out = self.err = ""

    def __call__(self, *words: str, config: Path | None = None) -> int:
        self.capsys.readouterr()
        code = run_command([*words, "--config", str(config or self.served.config)])
        self.out, self.err = self.capsys.readouterr()
        assert "Traceback" not in self.err
        return code

    def json(self, *words: str) -> Any:
        self(*words, "--json")
        return json.loads(self.out)


@pytest.fixture
def signwatch(served: ServedLog, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(served, capsys)


def test_init_baselines_once_and_says_so(signwatch: Command) -> None:
    assert signwatch("init") == 0
    assert "rekor-v2: followed from entry 3 of 3 on" in signwatch.out
    assert signwatch("init") == 0
    assert "already followed" in signwatch.out
    assert signwatch.json("status")["logs"][0]["baseline"]["how"] == "head 3 of 3"


def test_init_writes_files_that_are_absent_and_touches_none(tmp_path: Path) -> None:
    config = tmp_path / "new" / "signwatch.yaml"
    assert run_command(["init", "--config", str(config), "--watch", "https://github.com/acme/widget"]) == 0
    assert "acme/widget" in (config.parent / "rules.yaml").read_text(encoding="utf-8")
    config.write_text("version: 1\n", encoding="utf-8")
    assert run_command(["init", "--config", str(config), "--files-only"]) == 2
    assert config.read_text(encoding="utf-8") == "version: 1\n"


def test_an_audit_of_an_honest_log_is_fine_and_says_what_it_covered(signwatch: Command) -> None:
    signwatch("init")
    signwatch.served.log.append(signing_body(), signing_body())
    assert signwatch("audit", "--json") == 0
    report = json.loads(signwatch.out)
    assert report["exit_code"] == 0
    assert report["logs"][0]["covered"] == {"from": 3, "to": 5}
    assert report["logs"][0]["findings"] == {"expected": 2}
    assert signwatch("fsck") == 0


@pytest.mark.parametrize("words", [("audit",), ("run", "--once")], ids=" ".join)
def test_a_log_that_asks_for_a_second_of_rest_is_read_all_the_same(signwatch: Command, words: tuple[str, ...]) -> None:
    signwatch("init")
    signwatch.served.log.append(signing_body())
    signwatch.served.busy = 2
    assert signwatch(*words) == 0
    assert signwatch.served.busy == 0
    assert "read entries 3 to 4" in signwatch.out + signwatch.err


def test_a_malformed_bundle_is_no_answer_and_held_against_no_log_by_an_audit(signwatch: Command) -> None:
    """Row 9 of docs/threats.md: entries that stay unreadable for minutes are row 4, an audit takes seconds."""
    signwatch("init")
    signwatch.served.log.append(signing_body())
    signwatch.served.log.edit("tile/entries/", lambda bundle: bundle + b"padding")
    for _ in range(2):
        assert signwatch("audit", "--json") == 3
        (log,) = json.loads(signwatch.out)["logs"]
        assert (log["trouble"], log["kind"], log["evidence"]) == ("could-not-ask", "malformed", [])
    assert signwatch.json("alerts", "list")["alerts"] == []
    signwatch.served.log.honest()
    assert signwatch("audit") == 0


def test_new_entries_that_cannot_be_read_leave_an_audit_unfinished_and_every_pass_that_meets_more_is_news(
    signwatch: Command,
) -> None:
    signwatch("init")
    signwatch.served.log.append(b"garbage of mallory@example.org", signing_body(), b"more garbage")
    assert signwatch("audit", "--json") == 3
    report = json.loads(signwatch.out)
    assert (
        report["verdict"] == "not finished: 2 new entries cannot be read, so whether a rule selects them is not known"
    )
    assert (report["logs"][0]["unreadable"], report["logs"][0]["trouble"]) == (2, None)
    assert signwatch("audit") == 0, "nothing new"
    signwatch.served.log.append(b"garbage once more")
    assert signwatch("audit") == 3
    assert "1 new entry cannot be read" in signwatch.out
    signwatch.served.log.append(b"garbage in a daemon's pass")
    assert signwatch("run", "--once") == 3
    alerts = signwatch.json("alerts", "list")["alerts"]
    assert sorted((alert["kind"], alert["index"]) for alert in alerts) == [
        ("entry-unreadable", index) for index in (3, 6, 7)
    ]


def test_an_unexpected_signing_is_exit_code_1_and_an_alert(signwatch: Command) -> None:
    signwatch("init")
    signwatch.served.log.append(signing_body("refs/heads/evil"))
    assert signwatch("audit") == 1
    assert "1 unexpected" in signwatch.out
    [alert] = signwatch.json("alerts", "list")["alerts"]
    assert (alert["kind"], alert["index"], alert["deliveries"]) == ("unexpected-signing", 3, {"file": "pending"})
    assert signwatch("run", "--once") == 0, "found once; this pass has nothing new"
    delivered = (signwatch.served.folder / "alerts.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(delivered) == 1
    assert signwatch("alerts", "ack", alert["id"], "--note", "it was us", "--by", "alice") == 0
    assert signwatch.json("alerts", "list", "--open")["alerts"] == []
    assert signwatch("alerts", "show", alert["id"][:8]) == 0
    assert "by alice: it was us" in signwatch.out
    assert signwatch("alerts", "reopen", alert["id"][:8]) == 0
    assert signwatch("alerts", "resolve", alert["id"][:8]) == 0
    shown = signwatch.json("alerts", "show", alert["id"])
    assert (shown["state"], [each["change"] for each in shown["changes"]]) == (
        "resolved",
        ["acknowledged", "reopened", "resolved"],
    )


def test_a_silenced_rule_is_recorded_and_told_to_nobody(signwatch: Command) -> None:
    signwatch("init")
    assert signwatch("alerts", "silence", "--rule", "widget", "--for", "2h", "--note", "we test") == 0
    signwatch.served.log.append(signing_body("refs/heads/evil"))
    assert signwatch("run", "--once") == 1, "the exit code is not silenced"
    assert not (signwatch.served.folder / "alerts.jsonl").exists()
    [alert] = signwatch.json("alerts", "list", "--silence", "1")["alerts"]
    assert (alert["state"], alert["deliveries"]) == ("silenced", {})
    assert signwatch.json("alerts", "silences")["silences"][0]["silenced"] == 1
    assert signwatch("alerts", "unsilence", "1") == 0
    for wrong in (["--rule", "nothing"], ["--kind", "log-forked"], ["--kind", "nothing"], []):
        assert signwatch("alerts", "silence", *wrong, "--for", "2h") == 2
    assert signwatch("alerts", "silence", "--rule", "widget", "--for", "32d") == 2


def test_a_certificate_nobody_vouches_for_is_counted_not_paged(signwatch: Command) -> None:
    signwatch("init")
    signwatch.served.log.append(signing_body("refs/heads/evil", ca=make_ca("stranger")))
    assert signwatch("audit", "--json") == 0
    assert json.loads(signwatch.out)["logs"][0]["findings"] == {"unverified": 1}


def test_a_forked_log_is_exit_code_1_with_evidence_that_verifies_anywhere(signwatch: Command, tmp_path: Path) -> None:
    signwatch("init")
    signwatch.served.log.rewrite_from(1)
    assert signwatch("audit", "--json") == 1
    entry = json.loads(signwatch.out)["logs"][0]
    assert (entry["trouble"], entry["kind"]) == ("log-misbehaved", "log-forked")
    [kept] = signwatch.json("evidence", "list")["evidence"]
    assert entry["evidence"] == [kept["id"]]
    output = tmp_path / "fork.json"
    assert signwatch("evidence", "export", kept["id"][:8], "--output", str(output)) == 0
    root = str(signwatch.served.folder / "trusted_root.json")
    assert run_command(["evidence", "verify", str(output), "--trusted-root", root]) == 0
    assert signwatch("evidence", "verify", str(output)) == 0, "the configuration's trust root knows the key"
    output.write_text(output.read_text(encoding="utf-8").replace(kept["id"], "0" * 32), encoding="utf-8")
    assert run_command(["evidence", "verify", str(output)]) == 1


def test_evidence_counts_in_every_command_until_an_operator_closes_it(signwatch: Command, tmp_path: Path) -> None:
    signwatch("init")
    assert signwatch("audit") == 0, "control"
    assert signwatch("status") == 0, "control"
    log = signwatch.served.log
    log.append(signing_body())
    log.swap_leaf(3, signing_body("refs/tags/v9"))
    assert signwatch("audit") == 1
    log.honest()
    assert signwatch("audit", "--json") == 1, "the log behaves again, and what it signed stays"
    report = json.loads(signwatch.out)
    assert report["logs"][0]["trouble"] is None
    [piece] = report["open_evidence"]
    assert (piece["log"], piece["kind"], report["open_alerts"]["page"]) == ("rekor-v2", "log-entries-not-in-tree", 1)
    assert "honest" not in report["verdict"]
    assert signwatch("audit", "--log", "rekor-v2", "--junit", str(tmp_path / "audit.xml")) == 1
    assert "evidence close" in signwatch.out
    assert "1 open alert at the severity page" in signwatch.out
    assert 'type="log-entries-not-in-tree"' in (tmp_path / "audit.xml").read_text(encoding="utf-8")
    assert signwatch("run", "--once") == 1
    assert "evidence close" in signwatch.err
    assert signwatch("status") == 1
    assert "evidence close" in signwatch.err
    assert "open alerts: 1 page" in signwatch.out
    document = signwatch.json("status")
    assert (document["ready"], document["evidence"], document["evidence_open"]) == (False, [piece], 1)
    assert document["logs"][0]["evidence_open"] == 1

    assert signwatch("evidence", "close", piece["id"][:8]) == 2, "a note is needed"
    assert signwatch("evidence", "close", piece["id"][:8], "--note", " ") == 2
    assert signwatch("evidence", "close", piece["id"][:8], "--note", "told the operator") == 0
    assert signwatch("evidence", "close", piece["id"][:8], "--note", "again") == 2
    assert "told the operator" in signwatch.err
    assert signwatch("audit") == 0
    assert signwatch("status") == 0
    assert signwatch("run", "--once") == 0
    assert signwatch.json("evidence", "list", "--open")["evidence"] == []
    [kept] = signwatch.json("evidence", "list")["evidence"]
    assert (kept["id"], kept["note"]) == (piece["id"], "told the operator")
    assert signwatch("evidence", "export", kept["id"][:8]) == 0, "closed evidence stays"


def test_a_log_that_cannot_be_asked_is_exit_code_3(signwatch: Command) -> None:
    signwatch("init")
    signwatch.served.down = True
    assert signwatch("audit", "--json") == 3
    assert json.loads(signwatch.out)["logs"][0]["trouble"] == "could-not-ask"
    assert signwatch("status") == 3


def test_an_authorisation_covers_as_many_signings_as_it_says(signwatch: Command) -> None:
    """Two signings in one batch do not both pass on leave given for one."""
    rules = RULES.replace("expect: {ref", "expect: {authorised: [], ref")
    (signwatch.served.folder / "rules.yaml").write_text(rules, encoding="utf-8")
    signwatch("init")
    digest = f"sha256:{ARTIFACT}"
    assert signwatch("authorise", "add", "widget", digest, "--for", "2h", "--note", "1.4.2") == 0
    signwatch.served.log.append(signing_body(), signing_body(), signing_body())
    assert signwatch("audit", "--json") == 1
    assert json.loads(signwatch.out)["logs"][0]["findings"] == {"expected": 1, "unexpected": 2}
    [given] = signwatch.json("authorise", "list")["authorisations"]
    assert (given["state"], given["used"], given["count"]) == ("in force", 3, 1)
    assert signwatch("authorise", "revoke", "1") == 0
    assert signwatch.json("authorise", "list")["authorisations"][0]["state"] == "revoked"


def test_one_authorised_image_is_leave_for_one_signature_in_whichever_form_it_is_logged(signwatch: Command) -> None:
    rules = RULES.replace("expect: {ref", "expect: {authorised: [], ref")
    (signwatch.served.folder / "rules.yaml").write_text(rules, encoding="utf-8")
    signwatch("init")
    image = f"ghcr.io/acme/widget@sha256:{ARTIFACT}"
    assert signwatch("authorise", "add", "widget", "--image", image) == 0
    digests = [line.rsplit(" ", 1)[1] for line in signwatch.out.splitlines() if "may show" in line]
    assert len(digests) == 9
    first, second = (each.removeprefix("sha256:") for each in digests[:2])
    signwatch.served.log.append(signing_body(artifact=first), signing_body(artifact=second), signing_body())
    assert signwatch("audit", "--json") == 1
    assert json.loads(signwatch.out)["logs"][0]["findings"] == {"expected": 1, "unexpected": 2}
    [given] = signwatch.json("authorise", "list")["authorisations"]
    assert (given["what"], given["used"], given["digests"]) == (f"image {image}", 2, digests)
    assert signwatch("authorise", "revoke", "1") == 0
    assert signwatch.json("authorise", "list")["authorisations"][0]["state"] == "revoked"


def test_a_file_a_bundle_and_a_commit_are_authorised_by_what_the_log_shows_of_them(
    signwatch: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signwatch("init")
    file, bundle = tmp_path / "widget.tar", tmp_path / "entry.json"
    file.write_bytes(b"widget")
    bundle.write_bytes(signing_body())
    assert signwatch("authorise", "add", "widget", "--file", str(file)) == 0
    assert hashlib.sha256(b"widget").hexdigest() in signwatch.out
    assert signwatch("authorise", "add", "widget", "--bundle", str(bundle)) == 0
    assert ARTIFACT in signwatch.out
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@acme.example"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "--no-gpg-sign", "-m", "x"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.chdir(tmp_path)
    assert signwatch("authorise", "add", "widget", "--commit", "HEAD") == 0
    assert hashlib.sha256(commit.encode()).hexdigest() in signwatch.out
    for wrong in (["--file", str(file), "--image", "x"], [], ["--image", "ghcr.io/acme/widget:v1"]):
        assert signwatch("authorise", "add", "widget", *wrong) == 2
    assert signwatch("authorise", "add", "widget", "--commit", "--output=x") == 2


def test_rules_can_be_tried_and_explained_without_a_log(signwatch: Command, tmp_path: Path) -> None:
    good, bad, other = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "other.pem"
    good.write_bytes(signing_body())
    bad.write_bytes(signing_body("refs/heads/evil"))
    other.write_bytes(pem(make_certificate(make_ca(), san="other@acme.example")))
    assert signwatch("rules", "lint") == 0
    assert signwatch("rules", "test", str(good), str(other)) == 0
    assert signwatch("rules", "test", str(good), str(bad)) == 1
    assert "unexpected" in signwatch.out
    told = signwatch.json("rules", "explain", "widget", str(bad))
    assert told["selected"] is True
    assert {row["found"] for row in told["rows"] if not row["ok"]} == {"refs/heads/evil"}


def test_rules_can_be_tried_on_what_people_have(signwatch: Command, tmp_path: Path) -> None:
    """A Sigstore bundle, one entry of it, and what a Rekor server answered; the time the log claims is looked at."""
    body = base64.b64encode(signing_body("refs/heads/evil")).decode()
    entry = {"canonicalizedBody": body, "integratedTime": str(int(NOT_BEFORE.timestamp()) + 60)}
    files = {
        "bundle": {"mediaType": "x", "verificationMaterial": {"tlogEntries": [entry, entry]}},
        "entry": entry,
        "answer": {"24296fb2": {"body": body, "integratedTime": int(NOT_BEFORE.timestamp()) + 60, "logIndex": 7}},
    }
    for name, document in files.items():
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(document), encoding="utf-8")
        results = signwatch.json("rules", "test", str(file))["results"]
        assert [(each["rule"], each["outcome"]) for each in results] == [("widget", "unexpected")] * (
            2 if name == "bundle" else 1
        )
        assert signwatch.json("rules", "explain", "widget", str(file))["selected"] is True
    of_v1 = base64.b64encode(hashedrekord_v1(make_github_certificate(make_ca(), ref="refs/heads/evil"))).decode()
    late = {"canonicalizedBody": of_v1, "integratedTime": str(int(NOT_BEFORE.timestamp()) + 86_400)}
    (tmp_path / "late.json").write_text(json.dumps(late), encoding="utf-8")
    [result] = signwatch.json("rules", "test", str(tmp_path / "late.json"))["results"]
    found = [each["found"] for each in result["reasons"] if each["id"] == "unreadable-part"]
    assert "outside the certificate's validity" in " ".join(found), "it had expired when the log says it was used"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("nonsense", "not a JSON document"),
        ("[]", "an empty list"),
        ('{"verificationMaterial": {"tlogEntries": []}}', "neither a log entry nor a certificate"),
        ('{"verificationMaterial": {"tlogEntries": [7]}}', "the body of a log entry is missing"),
        ('{"canonicalizedBody": "%%%"}', "the body of a log entry is missing, or not base64"),
        ('{"a": {"body": "e30=", "logIndex": 1}}', "not a Rekor entry"),
        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "not a certificate in PEM"),
    ],
)
def test_a_file_that_is_no_entry_is_wrong_usage(signwatch: Command, tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "entry.json").write_text(content, encoding="utf-8")
    assert signwatch("rules", "test", str(tmp_path / "entry.json")) == 2
    assert told in " ".join(signwatch.err.replace("│", " ").split())


def test_lint_gives_every_hint_with_its_place(signwatch: Command) -> None:
    assert signwatch.json("rules", "lint") == {"rules": 1, "hints": []}, "control: nothing to say"
    rules = signwatch.served.folder / "rules.yaml"
    rules.write_text("version: 1\nrules:\n  - {id: loose, select: {issuer: 'https://a.example'}}\n", encoding="utf-8")
    assert signwatch("rules", "lint") == 0
    assert "rules.yaml:3:" in signwatch.err
    hints = signwatch.json("rules", "lint")["hints"]
    assert {(hint["id"], hint["rule"], hint["line"]) for hint in hints} == {
        ("no-expectations", "loose", 3),
        ("too-broad", "loose", 3),
    }


def test_doctor_looks_at_everything_without_asking_a_log(signwatch: Command) -> None:
    signwatch("init")
    signwatch.served.down = True
    assert signwatch("doctor", "--json") == 0, signwatch.out
    looked_at = {check["what"] for check in json.loads(signwatch.out)["checks"]}
    assert looked_at >= {"version", "packages", "clock", "disk", "SHA-256", "configuration", "trust root", "database"}
    signwatch.served.config.write_text("version: 2\n", encoding="utf-8")
    assert signwatch("doctor") == 3


def _no_file(place: ServedLog) -> None:
    place.config.unlink()


def _unknown_key(place: ServedLog) -> None:
    place.config.write_text(place.config.read_text(encoding="utf-8") + "nonsense: 1\n", encoding="utf-8")


def _bad_rules(place: ServedLog) -> None:
    (place.folder / "rules.yaml").write_text("version: 1\nrules:\n  - {id: x, selekt: {}}\n", encoding="utf-8")


def _no_rules(place: ServedLog) -> None:
    (place.folder / "rules.yaml").unlink()


def _rule_to_nobody(place: ServedLog) -> None:
    (place.folder / "rules.yaml").write_text(RULES + "    notify: [pager]\n", encoding="utf-8")


def _bad_channel(place: ServedLog) -> None:
    text = place.config.read_text(encoding="utf-8").replace("type: jsonl", "type: telegraph")
    place.config.write_text(text, encoding="utf-8")


def _nobody_notified(place: ServedLog) -> None:
    text = place.config.read_text(encoding="utf-8").replace("notify: [file]\n", "")
    place.config.write_text(text, encoding="utf-8")


def _no_database(place: ServedLog) -> None:
    (place.folder / "signwatch.db").unlink()


def _cut_database(place: ServedLog) -> None:
    path = place.folder / "signwatch.db"
    path.write_bytes(path.read_bytes()[:5000])


def _newer_database(place: ServedLog) -> None:
    database = open_database(str(place.folder / "signwatch.db"))
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()


def _no_trust(place: ServedLog) -> None:
    (place.folder / "trusted_root.json").unlink()


def _nonsense_trust(place: ServedLog) -> None:
    (place.folder / "trusted_root.json").write_text("{", encoding="utf-8")


def _down(place: ServedLog) -> None:
    place.down = True


BAD: dict[str, tuple[Callable[[ServedLog], None], int, str, str]] = {
    "no configuration": (_no_file, 2, "there is no configuration", "signwatch init"),
    "unknown key": (_unknown_key, 2, "no key 'nonsense'", "docs/configuration.md"),
    "rule file error": (_bad_rules, 2, "rules.yaml:3", "'select'"),
    "no rule file": (_no_rules, 2, "rules cannot be read", "signwatch init"),
    "rule that notifies nobody": (_rule_to_nobody, 2, "notifies 'pager'", "add the channel"),
    "bad channel": (_bad_channel, 2, "channels.file.type", "docs/channels.md"),
    "nobody notified": (_nobody_notified, 2, "no alert channel", "Add one under `channels`"),
    "missing database": (_no_database, 3, "there is no database", "signwatch init"),
    "truncated database": (_cut_database, 3, "damaged", "restore the file"),
    "newer schema": (_newer_database, 3, "a newer one wrote it", "run the newer version"),
    "no trust root": (_no_trust, 3, "cannot be read", "trusted root of your Sigstore deployment"),
    "nonsense trust root": (_nonsense_trust, 3, "not a trusted root", ""),
    "unreachable log": (_down, 3, "could-not-ask", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_with_the_next_step_and_an_exit_code(signwatch: Command, name: str) -> None:
    assert signwatch("init") == 0
    assert signwatch("run", "--once") == 0, "control: untouched, it runs"
    spoil, code, told, next_step = BAD[name]
    spoil(signwatch.served)
    assert signwatch("run", "--once") == code
    message = " ".join(signwatch.err.split())
    assert told in message
    assert next_step in message


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["audit", "--log", "nothing"], "no log is named"),
        (["evidence", "export", "ffff"], "no evidence begins"),
        (["alerts", "ack", "nothing"], "no alert"),
        (["alerts", "test", "pager"], "no channel"),
        (["authorise", "add", "nothing", "sha256:" + "0" * 64], "no rule"),
        (["authorise", "add", "widget", "md5:00"], "DIGEST"),
        (["authorise", "add", "widget", "sha256:" + "0" * 64, "--for", "soon"], "not a duration"),
        (["authorise", "revoke", "7"], "no authorisation 7"),
        (["rules", "explain", "nothing", "entry.json"], "no rule"),
        (["rules", "test", "nothing.json"], "cannot be read"),
        (["nonsense"], "No such command"),
        (["run", "--nonsense"], "No such option"),
    ],
)
def test_wrong_usage_is_exit_code_2(signwatch: Command, words: list[str], told: str) -> None:
    signwatch("init")
    assert signwatch(*words) == 2
    assert told in " ".join(signwatch.err.replace("│", " ").split())


def test_channels_can_be_tried(signwatch: Command) -> None:
    assert signwatch("alerts", "test") == 0
    assert (signwatch.served.folder / "alerts.jsonl").exists()
    (signwatch.served.folder / "alerts.jsonl").unlink()
    (signwatch.served.folder / "alerts.jsonl").mkdir()
    assert signwatch("alerts", "test") == 3
    assert "did not take it" in signwatch.err


def test_the_daemon_serves_delivers_reloads_and_ends_in_order(
    signwatch: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = signwatch.served
    port = free_port()
    served.write_files(port)
    assert signwatch("init") == 0
    errors = served.folder / "daemon.err"
    arguments = [sys.executable, "-c", "from monitor.cli import main; main()", "run", "--config", str(served.config)]
    with errors.open("wb") as stream:
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=stream, env=dict(os.environ))
    try:
        wait_until("it is ready", lambda: answers(f"http://127.0.0.1:{port}/readyz"), process)
        assert signwatch("run") == 3, "a second daemon on one file is refused"
        assert "another daemon" in signwatch.err
        served.log.append(signing_body("refs/heads/evil"))
        alerts = served.folder / "alerts.jsonl"
        wait_until("the alert", lambda: alerts.exists() and alerts.read_text("utf-8").endswith("\n"), process)
        assert json.loads(alerts.read_text(encoding="utf-8"))["kind"] == "unexpected-signing"
        # The alert goes out as soon as it is stored; what was stored is counted after that.
        metrics, counted = f"http://127.0.0.1:{port}/metrics", 'signwatch_findings_total{outcome="unexpected"} 1.0'
        wait_until("the count", lambda: counted in httpx.get(metrics, trust_env=False, timeout=PATIENCE).text, process)
        (served.folder / "rules.yaml").write_text("version: 1\nrules: nonsense\n", encoding="utf-8")
        process.send_signal(signal.SIGHUP)

        def is_told() -> bool:
            status = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=PATIENCE)
            return not status.is_success and "rules.yaml" in " ".join(status.json()["reasons"])

        wait_until("it is not ready: a bad rule file is no reason to stop, but not green", is_told, process)
        assert signwatch("status") == 3, "what only the daemon knows is asked of it"
        assert "rules.yaml" in signwatch.err
        process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(running_daemon, "_ANSWER_SECONDS", 1)
        assert signwatch("status") == 3, "the kernel takes connections for a stopped process"
        assert "accepts connections and does not answer" in signwatch.err
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, errors.read_text(encoding="utf-8")
        assert "Traceback" not in errors.read_text(encoding="utf-8")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
    assert signwatch("fsck") == 0


def test_a_port_in_use_is_told(signwatch: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        signwatch.served.write_files(taken.getsockname()[1])
        assert signwatch("init") == 0
        assert signwatch("run") == 3
    assert "cannot be had" in signwatch.err
    assert "another address under `web`" in " ".join(signwatch.err.split())


def test_an_import_says_on_standard_error_and_by_its_code_what_the_rules_do_not_watch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "monitor.yaml"
    whole = "monitoredValues:\n  subjects: [^a@acme\\.example$]\nstartIndex: 3\n"
    file.write_text(whole, encoding="utf-8")
    assert run_command(["rules", "import", str(file)]) == 0
    assert capsys.readouterr().err == "", "control: a setting of the program is no loss"
    file.write_text(whole.replace("subjects: [", "subjects: [a(?=b), "), encoding="utf-8")
    assert run_command(["rules", "import", str(file)]) == 3
    out, err = capsys.readouterr()
    assert "id: subject-1" in out
    assert f"{file}:2:14: pattern 'a(?=b)' is left out" in err.replace("\n", " ")
    file.write_text("monitoredValues:\n  subjects: [a(?=b)]\n", encoding="utf-8")
    assert run_command(["rules", "import", str(file)]) == 2
    assert "monitor.yaml:2:14" in capsys.readouterr().err


def test_rules_test_and_explain_read_folders_patterns_and_standard_input(
    signwatch: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "held files" / "below"
    folder.mkdir(parents=True)
    (folder / "evil.json").write_bytes(signing_body("refs/heads/evil"))
    (folder.parent / "good.json").write_bytes(signing_body())
    (folder.parent / "notes.txt").write_text("no bundle", encoding="utf-8")
    both, good = {"evil.json": "unexpected", "good.json": "expected"}, {"good.json": "expected"}
    for name, wanted in ((str(folder.parent), both), (str(folder.parent / "*.json"), good)):
        results = signwatch.json("rules", "test", name)["results"]
        assert {Path(each["file"]).name: each["outcome"] for each in results} == wanted
        results = signwatch.json("rules", "explain", "widget", name)["results"]
        assert {Path(each["file"]).name: each["verdict"]["outcome"] for each in results} == wanted
    assert signwatch("rules", "test", str(folder.parent)) == 1
    assert "not looked at: 1 other file" in signwatch.err
    assert signwatch("rules", "explain", "widget", str(folder.parent)) == 0
    assert "verdict: unexpected" in signwatch.out
    assert "verdict: expected" in signwatch.out
    for words in (("test",), ("explain", "widget")):
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(signing_body("refs/heads/evil"))))
        assert signwatch("rules", *words, "-") == (1 if words == ("test",) else 0)
        assert "unexpected" in signwatch.out
        assert signwatch("rules", *words, str(tmp_path / "*.nothing")) == 2
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert signwatch("rules", *words, str(tmp_path / "empty")) == 2


ANY_OF_ACME = "select: {identity: {glob: 'https://github.com/acme/**'}}, expect: {ref: {glob: 'refs/tags/v*'}}"
MANY = "version: 1\nrules:\n" + "".join(f"  - {{id: r{number}, {ANY_OF_ACME}}}\n" for number in range(1_003))


def test_matches_left_out_leave_every_command_that_reads_entries_unfinished(signwatch: Command, tmp_path: Path) -> None:
    signwatch.served.config.with_name("rules.yaml").write_text(MANY, encoding="utf-8")
    signwatch("init")
    signwatch.served.log.append(signing_body())
    assert signwatch("audit", "--json") == 3
    report = json.loads(signwatch.out)
    left_out = "3 matches left out: more rules may select an entry than are judged"
    assert report["verdict"] == f"not finished: {left_out}"
    assert (report["logs"][0]["matches_left_out"], report["logs"][0]["trouble"]) == (3, None)
    assert signwatch("audit") == 0, "nothing new"
    signwatch.served.log.append(signing_body())
    assert signwatch("audit", "--junit", str(tmp_path / "audit.xml")) == 3
    assert left_out in signwatch.out
    assert "honest" not in signwatch.out
    assert 'type="rules-dropped"' in (tmp_path / "audit.xml").read_text(encoding="utf-8")
    signwatch.served.log.append(signing_body())
    assert signwatch("run", "--once") == 3
    assert left_out in signwatch.out + signwatch.err
    for words in (
        ("scan", "--log", "rekor-v2", "--from", "5", "--jobs", "1"),
        ("backscan", "--from", "2", "--jobs", "1"),
    ):
        assert signwatch(*words) == 3
        assert left_out in signwatch.err
    (tmp_path / "entry.json").write_bytes(signing_body())
    assert signwatch("rules", "test", str(tmp_path / "entry.json")) == 3
    assert "3 more rules may select it" in signwatch.err


def test_status_tells_of_matches_left_out_until_their_alerts_are_acknowledged(signwatch: Command) -> None:
    signwatch.served.config.with_name("rules.yaml").write_text(MANY, encoding="utf-8")
    signwatch("init")
    signwatch.served.log.append(signing_body())
    signwatch("audit")
    assert signwatch("status", "--json") == 3
    told = "rekor-v2: 3 matches left out, of entry 3 last"
    assert [each for each in json.loads(signwatch.out)["reasons"] if each.startswith(told)] != []
    [alert] = [each for each in signwatch.json("alerts", "list")["alerts"] if each["kind"] == "rules-dropped"]
    assert signwatch("alerts", "ack", alert["id"], "--note", "one rule with channels now") == 0
    assert told not in str(signwatch.json("status")["reasons"])


def test_a_signer_among_many_and_one_that_is_not_read_are_both_told(signwatch: Command, tmp_path: Path) -> None:
    signwatch("init")
    junk = [spki_of(make_key(f"junk {number}")) for number in range(65)]
    evil = make_github_certificate(CA, ref="refs/heads/evil")
    signwatch.served.log.append(dsse_v2(*junk, evil), dsse_v2(b"junk", evil), dsse_v2(*junk[:2]))
    code = signwatch("audit", "--json")
    [log] = json.loads(signwatch.out)["logs"]
    assert (code, log["findings"], log["unreadable"]) == (1, {"unexpected": 2}, 1)
    alerts = [each for each in signwatch.json("alerts", "list")["alerts"] if each["kind"] == "entry-unreadable"]
    assert len(alerts) == 1
    assert "1 of 2 signers cannot be read" in str(alerts)
    (tmp_path / "entry.json").write_bytes(dsse_v1(pem(b"junk"), evil))
    assert signwatch("rules", "test", str(tmp_path / "entry.json")) == 1
    assert "read in part: 1 of 2 signers" in signwatch.err

"""Commands over a CT log and a Rekor log: second judgements, and the one event of a certificate and its entry."""

import base64
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
import time_machine
from sqlalchemy import select

from monitor.cli import run_command
from monitor.store.database import open_database
from monitor.store.sql import table
from monitor.store.tables import AlertRow, DeliveryRow
from tests.support import entries as make
from tests.support.misbehaving_log import CtRfc6962Log, MisbehavingLog, RekorV2Log, spki_of
from tests.support.served_log import CA, serving
from tlog.note import tile_log_key

START: Final = make.NOT_BEFORE + timedelta(seconds=30)
CT_KEY: Final = make.make_ct_log()
LATER: Final = """\
version: 1
rules:
  - id: used
    select: {identity: dev@acme.example}
    expect: {issuer: "https://accounts.google.com", log_entry_within: 1h}
"""
EVERYTHING: Final = """\
version: 1
rules:
  - {id: everything, select: {identity: dev@acme.example}}
"""
NOTHING: Final = """\
version: 1
rules:
  - {id: nothing, select: {identity: nobody@acme.example}}
"""
CONFIG: Final = """\
version: 1
database: signwatch.db
trust: {{trusted_root: trusted_root.json}}
logs:
  - {{name: ct, api: ct-rfc6962, url: "{ct}", start: 0, stale_after_seconds: 864000}}
  - {{name: rekor, api: rekor-v2, url: "{rekor}", origin: {origin}, start: 0, stale_after_seconds: 864000}}
rules: rules.yaml
channels:
  file: {{type: jsonl, path: alerts.jsonl}}
notify: [file]
objectives: {{certificate_hold: 90s}}
"""


@dataclass
class Site:
    """Both logs, the folder of a `signwatch` that follows them, and the clock it sees."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    clock: time_machine.Traveller
    ct: MisbehavingLog = field(default_factory=CtRfc6962Log)
    rekor: MisbehavingLog = field(default_factory=RekorV2Log)
    rekor_is_down: bool = False

    def rules(self, text: str) -> None:
        (self.folder / "rules.yaml").write_text(text, encoding="utf-8")

    def run(self, *words: str, expect: int) -> str:
        self.capsys.readouterr()
        jobs = ("--jobs", "1") if words[0] == "scan" else ()
        code = run_command([*words, *jobs, "--config", str(self.folder / "signwatch.yaml")])
        out, errors = self.capsys.readouterr()
        assert code == expect, f"{words} ended with {code}:\n{out}\n{errors}"
        return out if "--json" in words else out + errors  # standard error may tell of progress on a busy machine

    def issue(self, *serials: int) -> None:
        for serial in serials:
            _, tbs = make.make_precertificate(CA, san="dev@acme.example", serial=serial, key=make.make_key(serial))
            self.ct.append(make.precert_leaf(CA, tbs))

    def sign(self, *serials: int) -> None:
        for serial in serials:
            certificate = make.make_certificate(
                CA, san="dev@acme.example", serial=serial, key=make.make_key(serial), ct_log=CT_KEY
            )
            self.rekor.append(make.hashedrekord_v2(certificate))

    def told(self) -> list[tuple[str, int]]:
        """Entries that the channel was told of."""
        path = self.folder / "alerts.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [(alert["log"], alert["index"]) for alert in map(json.loads, lines)]

    def waiting(self) -> dict[tuple[str, int], timedelta]:
        """Entries whose alerts are pending, and for how long each is not to be sent yet."""
        alert, delivery = table(AlertRow).c, table(DeliveryRow).c
        columns = (alert.log, alert.entry, delivery.due_at)
        query = select(*columns).join_from(table(AlertRow), table(DeliveryRow)).where(delivery.state == "pending")
        with closing(open_database(str(self.folder / "signwatch.db"))) as database, database.read() as connection:
            now = datetime.now(UTC)
            return {(row.log, row.entry): row.due_at - now for row in connection.execute(query)}

    def write_files(self, ct: str, rekor: str) -> None:
        config = CONFIG.format(ct=ct, rekor=rekor, origin=RekorV2Log.host)
        (self.folder / "signwatch.yaml").write_text(config, encoding="utf-8")
        ct_key, rekor_key = spki_of(self.ct.log_key), tile_log_key(RekorV2Log.host, spki_of(self.rekor.log_key))
        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [_log(rekor, rekor_key.spki, rekor_key.log_id)],
            "ctlogs": [_log(ct, ct_key, sha256(ct_key).digest())],
            "certificateAuthorities": [_authority(CA.chain)],
        }
        (self.folder / "trusted_root.json").write_text(json.dumps(root), encoding="utf-8")


def _log(url: str, spki: bytes, log_id: bytes) -> dict[str, Any]:
    key = {"rawBytes": _b64(spki), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": _SINCE}
    return {"baseUrl": url, "hashAlgorithm": "SHA2_256", "publicKey": key, "logId": {"keyId": _b64(log_id)}}


def _authority(chain: Sequence[bytes]) -> dict[str, Any]:
    certificates = [{"rawBytes": _b64(each)} for each in chain]
    return {"uri": "https://ca.example", "certChain": {"certificates": certificates}, "validFor": _SINCE}


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


_SINCE: Final = {"start": "2020-01-01T00:00:00Z"}


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with time_machine.travel(START) as clock:
        made = Site(tmp_path, capsys, clock)
        with serving(made.ct) as ct, serving(made.rekor, lambda: 503 if made.rekor_is_down else None) as rekor:
            for log in (made.ct, made.rekor):
                log.timestamp = make.milliseconds(make.NOT_BEFORE)
            made.write_files(ct, rekor)
            yield made
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("command", [("audit",), ("run", "--once")])
def test_what_did_not_follow_in_time_is_found_by_commands_that_end(site: Site, command: tuple[str, ...]) -> None:
    """Two certificates, one of which is used: the other one is news an hour later, once."""
    site.rules(LATER)
    site.issue(7, 8)
    site.sign(8)
    site.run("init", expect=0)
    assert "second judgements" not in site.run(*command, expect=0), "control: there is an hour for it"
    site.clock.shift(timedelta(hours=2))
    site.rekor_is_down = True
    assert "2 were due, 0 are unexpected; 1 wait on" in site.run(*command, expect=3), "what it would show is unknown"
    site.rekor_is_down = False
    site.clock.shift(timedelta(minutes=2))
    assert "1 were due, 1 are unexpected" in site.run(*command, expect=1)
    assert "second judgements" not in site.run(*command, expect=0)
    site.run("run", "--once", expect=0)
    assert site.told() == [("ct", 0)]


def test_an_audit_reports_second_judgements_to_programs(site: Site) -> None:
    site.rules(LATER)
    site.issue(7)
    site.run("init", expect=0)
    site.run("audit", expect=0)
    site.clock.shift(timedelta(hours=2))
    report = site.folder / "audit.xml"
    document = json.loads(site.run("audit", "--json", "--junit", str(report), expect=1))
    assert document["second_judgements"] == {"due": 1, "unexpected": 1, "waiting": 0, "trouble": None}
    assert document["alerts_waiting"] == 1
    assert 'name="second judgements"' in report.read_text(encoding="utf-8")
    assert 'failures="1"' in report.read_text(encoding="utf-8")


def test_a_backscan_tells_of_a_certificate_and_its_entry_once(site: Site) -> None:
    """Alerts of looking back wait for the full hour; a certificate whose entry is found as well has none of its own."""
    site.rules(NOTHING)
    site.issue(7, 8)
    site.sign(8)
    site.run("init", expect=0)
    site.run("audit", expect=0)
    site.rules(EVERYTHING)
    site.run("backscan", expect=1)
    assert site.waiting().keys() == {("ct", 0), ("rekor", 0)}
    site.run("run", "--once", expect=0)
    assert site.told() == [], "nothing is due before the full hour"
    site.clock.shift(timedelta(hours=1, seconds=91))
    site.run("run", "--once", expect=0)
    assert sorted(site.told()) == [("ct", 0), ("rekor", 0)]

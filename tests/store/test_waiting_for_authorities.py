"""Findings that no authority vouches for wait for the trust root to name another authority, in every database."""

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from monitor.store.database import Database
from monitor.store.fsck import fsck
from monitor.store.history import KeptRoot
from monitor.store.reading import Reading
from sigstore_entries.entry import decode_ct, decode_rekor
from sigstore_entries.signing import EntryRef
from tests.judging.test_rechecking import Site
from tests.support import entries as make
from tests.support.misbehaving_log import b64

LATER = make.make_ca("later", name="later.example")
RULES = """\
version: 1
rules:
  - {id: used, select: {identity: dev@acme.example}, expect: {issuer: "https://issuer.example"}}
"""


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Site:
    made = Site(database, tmp_path)
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")
    made.rules.reload()
    made.store.record_trust_root(KeptRoot(0, "first", b"{}", made.clock()), ())
    made.clock.advance(minutes=20)
    return made


def certificate_and_entry(site: Site) -> None:
    """The same certificate in both logs, issued by an authority that the trust root does not name."""
    _, tbs = make.make_precertificate(LATER, san="dev@acme.example", serial=7)
    leaf = make.precert_leaf(LATER, tbs)
    site.take("ct", "used", decode_ct(leaf, EntryRef("ct", 0)), leaf)
    body = make.hashedrekord_v2(make.make_certificate(LATER, san="dev@acme.example", serial=7))
    site.take("rekor", "used", decode_rekor(body, EntryRef("rekor", 0)), body)


def name_the_authority(site: Site, folder: Path) -> None:
    root = json.loads((folder / "trusted_root.json").read_text())
    chain = {"certificates": [{"rawBytes": b64(each)} for each in LATER.chain]}
    root["certificateAuthorities"].append({"uri": "https://later.example", "certChain": chain})
    (folder / "trusted_root.json").write_text(json.dumps(root))
    site.trust.refresh()
    site.store.record_trust_root(KeptRoot(1, "second", b"{}", site.clock()), (), more_trusted=True)


def told(site: Site) -> list[tuple[str, dict[str, str]]]:
    """Who is told of unexpected signings: log, and the state of each delivery."""
    kept = Reading(site.store.database).alerts(9)
    unexpected = [each for each in kept if each.alert.kind == "unexpected-signing"]
    return sorted((each.alert.log or "", dict(each.deliveries)) for each in unexpected)


def test_a_certificate_and_the_entry_made_with_it_are_one_event_when_they_are_vouched_for(
    site: Site, tmp_path: Path
) -> None:
    certificate_and_entry(site)
    assert (site.recheck(), told(site)) == (0, []), "control: they wait for another authority, not for a time"
    name_the_authority(site, tmp_path)
    assert site.recheck() == 2
    [certificate, entry] = told(site)
    assert entry == ("rekor", {"mail": "pending"})
    assert certificate in [("ct", {}), ("ct", {"mail": "withdrawn"})], "whichever is judged first"
    assert site.recheck() == 0
    assert {found.outcome for found in Reading(site.store.database).findings(9)} == {"unexpected"}
    assert fsck(site.store.database) == []


def test_what_is_vouched_for_later_belongs_to_the_past_that_rules_ask_about(site: Site, tmp_path: Path) -> None:
    certificate_and_entry(site)
    count = "SELECT count(*) FROM sighting WHERE fact = 'issuer'"
    with site.store.database.read() as connection:
        assert connection.execute(text(count)).scalar_one() == 0, "control"
    name_the_authority(site, tmp_path)
    site.recheck()
    with site.store.database.read() as connection:
        assert connection.execute(text(count)).scalar_one() == 2, "one certificate in two entries"
        assert connection.execute(text("SELECT count(*) FROM finding WHERE counts")).scalar_one() == 2

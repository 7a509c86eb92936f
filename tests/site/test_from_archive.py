"""The look-up answers from the archive where there is one: every entry that was read, in bounded time, and says so."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec.structs import replace

from monitor.archive.files import ArchiveFiles
from monitor.archive.ranges import ArchivedRun, ArchiveManifest, to_json
from monitor.archive.rows import RowTrust, decoded, rows_of
from monitor.archive.search import Archive
from monitor.archive.writing import manifest_name, write_range
from monitor.model.log_source import LogApi, LogEntry, LogIdentity, SignedHead
from monitor.site import archived
from monitor.site.archived import signing_of_row
from monitor.store.database import Database, create
from monitor.store.signings import FindingsHistory
from rules.asking import ask_of, rule_of
from rules.learning import learn, verdict_of
from rules.subject import read_subject
from sigstore_entries.signing import EntryRef, Signing
from sigstore_entries.trust import CertificateAuthorities, CertificateAuthority
from tests.archive.conftest import varied_bodies
from tests.site.scene import LOG, REPOSITORY, Scene, scene, shown
from tests.support.entries import (
    Authority,
    dsse_v2,
    github_claims,
    hashedrekord_v2,
    make_ca,
    make_certificate,
    make_key,
)
from tests.support.served_log import CA, ISSUER
from tlog.merkle import Frontier

WIDTH = 64
NOW = datetime.now(UTC)
EMPTY = Frontier(0, ())
STRANGER = make_ca("a stranger")
TRUST = RowTrust("ab" * 32, (CertificateAuthority("https://ca.example", CA.chain),))
IDENTITY = LogIdentity(LOG, LogApi.REKOR_V2, "log.example", "log.example", b"key")


def body(number: int, ref: str = "refs/tags/v1.2.3", days_ago: float = 30, ca: Authority = CA) -> bytes:
    """A signing by the release workflow, some days before the scene's now."""
    san = f"{REPOSITORY}/.github/workflows/release.yml@{ref}"
    claims = github_claims(ref=ref) | {"source_repository_ref": ref, "source_repository_uri": REPOSITORY}
    certificate = make_certificate(
        ca,
        san=san,
        issuer=ISSUER,
        claims=claims,
        not_before=NOW - timedelta(days=days_ago),
        serial=number + 1,
    )
    return hashedrekord_v2(certificate, f"{number:064x}")


def empty(folder: Path) -> Database:
    return create(f"sqlite:///{folder / 'site.db'}", NOW, "test")


def archive_of(folder: Path, bodies: Sequence[bytes], log: str = LOG) -> Archive:
    """An archive of these entries, in ranges of `WIDTH`."""
    files, ranges, identity = ArchiveFiles(str(folder / "archive")), [], replace(IDENTITY, log=log)
    run = ArchivedRun(EMPTY, (), SignedHead(log, 0, EMPTY.root(), b""))
    for first in range(0, len(bodies), WIDTH):
        entries = [LogEntry(each) for each in bodies[first : first + WIDTH]]
        rows = rows_of(entries, first, log, LogApi.REKOR_V2, TRUST)
        ranges.append(write_range(files, identity, pa.Table.from_batches([rows])))
    run = replace(run, ranges=tuple(ranges))
    run = replace(run, head=SignedHead(log, len(bodies), run.end().root(), b""))
    files.write(manifest_name(log), to_json(ArchiveManifest(identity, (run,))))
    return Archive(files, [log])


RELEASES = [body(number, f"refs/tags/v1.{number}.0", 100 - number) for number in range(12)]
STOLEN = body(12, "refs/heads/totally-legit", 1)
SELF_MADE = [body(20 + number, "refs/heads/main", 0.5, STRANGER) for number in range(150)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Scene]:
    """A site with an archive of a year that no rule ever asked for, and many self-made certificates at its end."""
    archive = archive_of(tmp_path, [*RELEASES, STOLEN, *SELF_MADE])
    with scene(tmp_path, empty(tmp_path), archive) as made:
        yield made


def test_every_entry_that_was_read_is_in_the_answer(site: Scene) -> None:
    page = shown(site.visitor().get(f"/look?name={REPOSITORY}"))
    assert "One signing does not look like the others" in page
    assert "refs/heads/totally-legit" in page
    assert "13 signings in the name of this repository" in page
    assert "150 entries with self-made certificates in this name" in page
    assert "This answer comes from the archive" in page
    assert "entries 0 to 162, read and proven" in page
    document = site.visitor().get(f"/look.json?name={REPOSITORY}").json()
    assert (document["source"], document["total"], document["unverified"]) == ("archive", 13, 150)
    unexpected = [each for each in document["signings"] if each["outcome"] == "unexpected"]
    assert [each["index"] for each in unexpected] == [12]
    assert {part["key"] for part in document["suggested"]} >= {"workflow", "ref", "issuer", "repository_identifier"}
    assert "Look-ups are answered from an archive" in shown(site.visitor().get("/"))


@pytest.mark.parametrize("name", ["https://github.com/acme", f"sha256:{12:064x}"])
def test_owners_and_digests_are_looked_up_too(site: Scene, name: str) -> None:
    document = site.visitor().get(f"/look.json?name={name}").json()
    assert 12 in [each["index"] for each in document["signings"]]


def test_without_an_archive_the_answer_comes_from_findings_and_says_so(tmp_path: Path) -> None:
    with scene(tmp_path, empty(tmp_path)) as made:
        made.a_year()
        assert made.visitor().get(f"/look.json?name={REPOSITORY}").json()["source"] == "findings"
        assert "a rule or a subscription of this site selected" in shown(made.visitor().get("/"))


def test_what_was_selected_and_is_not_archived_yet_is_in_the_answer(site: Scene) -> None:
    site.next_index = 163
    site.sign(ref="refs/heads/a-second-ago")
    document = site.visitor().get(f"/look.json?name={REPOSITORY}").json()
    assert document["total"] == 14
    assert document["signings"][0]["index"] == 163


def test_a_finding_tells_more_of_an_entry_than_its_row(site: Scene) -> None:
    site.next_index = 3
    site.sign(ref="refs/tags/v1.3.0", days_ago=97, claims={"github_workflow_sha": "5" * 40})
    document = site.visitor().get(f"/look.json?name={REPOSITORY}").json()
    (row,) = [each for each in document["signings"] if each["index"] == 3]
    assert row["signers"][0]["claims"]["github_workflow_sha"] == "5" * 40
    assert document["total"] == 13


def test_a_name_with_too_many_values_is_answered_for_the_newest_and_says_so(
    site: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = site.visitor().get(f"/look.json?name={REPOSITORY}").json()
    assert (whole["at_least"], whole["lacks"]) == (False, []), "control: all is searched"
    monkeypatch.setattr(archived, "_MOST_KEYS", 600)
    document = site.visitor().get("/look.json?name=https://github.com/acme").json()
    assert document["at_least"]
    assert document["unverified"] < whole["unverified"]
    page = shown(site.visitor().get("/look?name=https://github.com/acme"))
    for lacks in document["lacks"]:
        assert "were not searched, because a look-up may read a million values and take three seconds" in lacks
        assert lacks in page
    assert "At least" in page
    assert "there may be more" in page


def test_a_look_up_that_ran_out_of_time_tells_the_part_that_it_left_out(
    site: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archived, "_SECONDS", -1.0)
    document = site.visitor().get(f"/look.json?name={REPOSITORY}").json()
    assert (document["total"], document["at_least"]) == (0, True)
    (lacks,) = document["lacks"]
    assert f"{LOG}: entries 0 to 162 were not searched, because a look-up may read a million values and take" in lacks
    page = shown(site.visitor().get(f"/look?name={REPOSITORY}"))
    assert "Nothing found in the part that was searched" in page
    assert lacks in page
    assert "there may be more" in page


def test_an_answer_in_part_is_kept_for_a_minute_and_a_whole_one_until_the_archive_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    archive, subject = archive_of(tmp_path, RELEASES), read_subject(REPOSITORY)
    past = archived.ArchivedHistory(archive, FindingsHistory(empty(tmp_path)), lambda: now[0])
    monkeypatch.setattr(archived, "_SECONDS", -1.0)
    assert past.signings(subject).is_part
    monkeypatch.setattr(archived, "_SECONDS", 1e6)
    assert past.signings(subject).is_part
    now[0] = 61.0
    whole = past.signings(subject)
    assert (whole.is_part, whole.vouched) == (False, len(RELEASES))
    monkeypatch.setattr(archived, "_SECONDS", -1.0)
    now[0] = 1e6
    assert past.signings(subject).vouched == len(RELEASES)


def test_a_name_of_many_signings_shows_the_newest_and_counts_all(tmp_path: Path) -> None:
    many = [body(number, f"refs/tags/v1.0.{number}", 200 - number / 10) for number in range(250)]
    with scene(tmp_path, empty(tmp_path), archive_of(tmp_path, many)) as made:
        document = made.visitor().get(f"/look.json?name={REPOSITORY}").json()
        assert (document["total"], len(document["signings"])) == (250, archived.MAX_SHOWN)
        assert document["signings"][0]["index"] == 249
        page = shown(made.visitor().get(f"/look?name={REPOSITORY}"))
        assert f"The newest {archived.MAX_SHOWN} of 250 signings look alike" in page


def test_a_damaged_archive_is_told_and_answers_what_it_can(site: Scene, tmp_path: Path) -> None:
    damaged = max((tmp_path / "archive").rglob("index/*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    document = site.visitor().get(f"/look.json?name={REPOSITORY}").json()
    assert document["total"] == 13
    assert any("a file of the archive is damaged" in each for each in document["lacks"])


@pytest.mark.parametrize("bodies", [[*RELEASES, STOLEN, *SELF_MADE[:3]], varied_bodies(60)])
def test_a_row_is_judged_as_its_entry_is(tmp_path: Path, bodies: Sequence[bytes]) -> None:
    archive = archive_of(tmp_path, bodies)
    authorities = CertificateAuthorities(TRUST.authorities)
    pairs = []
    for index, leaf in enumerate(bodies):
        read = decoded(LogEntry(leaf), EntryRef(LOG, index), LogApi.REKOR_V2)
        row = archive.entry(LOG, index)
        assert row is not None
        if isinstance(read, Signing):
            pairs.append(
                (replace(read, signers=tuple(map(authorities.judge_chain, read.signers))), signing_of_row(row))
            )
    for name in (REPOSITORY, "https://github.com/org1/repo4", "dev3@example.com"):
        subject = read_subject(name)
        parts = learn(subject, [entry for entry, _ in pairs])
        assert learn(subject, [from_row for _, from_row in pairs]) == parts
        rule = rule_of(0, ask_of(subject.select(), {part.key: part.expect for part in parts}).document)
        for entry, from_row in pairs:
            if any(rule.select.holds(entry, signer) for signer in entry.signers):
                assert verdict_of(rule, from_row, NOW) == verdict_of(rule, entry, NOW)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Scene]:
    """A name of more signings than a page reads, strangers' entries in its midst, and one that is not archived yet."""
    many = [body(number, f"refs/tags/v1.0.{number}", 200 - number // 4) for number in range(240)]
    many[100:100] = [body(1_000 + number, "refs/heads/main", 150, STRANGER) for number in range(20)]
    with scene(tmp_path, empty(tmp_path), archive_of(tmp_path, many)) as made:
        made.next_index = len(many)
        made.sign(ref="refs/tags/v2.0.0")
        yield made


VOUCHED = [*range(100), *range(120, 261)]


def test_pages_of_an_archived_name_lead_to_every_signing_once(deep: Scene) -> None:
    visitor, found, before = deep.visitor(), list[int](), ""
    for _ in range(40):
        answer = visitor.get("/look.json", params={"name": REPOSITORY, "before": before}).json()
        assert answer["total"] == len(VOUCHED)
        found += [each["index"] for each in answer["signings"] if each["outcome"] != "unverified"]
        if answer["older"] is None:
            break
        before = answer["older"]
    assert sorted(set(found)) == VOUCHED
    every = visitor.get("/look", params={"name": REPOSITORY, "everything": "1"})
    older = every.text.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
    page = visitor.get(older)
    assert "Older signings" in shown(page)
    assert 'class="chip unverified">unverified</span><div' not in page.text, "strangers' entries fill no page"


@pytest.mark.parametrize("index", [0, 99, 130, 259, 260])
def test_a_signing_of_an_archived_name_has_its_page_however_old(deep: Scene, index: int) -> None:
    page = shown(deep.visitor().get("/signing", params={"name": REPOSITORY, "log": LOG, "index": index}))
    assert "Who and what" in page
    assert f"Entry {index} of {LOG}" in page


@pytest.mark.parametrize(("name", "index"), [(REPOSITORY, 9_999), ("https://github.com/acme/other", 5)])
def test_an_entry_that_is_not_of_the_name_has_no_page(deep: Scene, name: str, index: int) -> None:
    deep.visitor().get("/signing", params={"name": name, "log": LOG, "index": index}, expect=404)


def test_the_key_of_a_certificate_leads_to_its_signings_and_their_pages(tmp_path: Path) -> None:
    keys = [make_key(f"own {number}") for number in range(3)]
    spki = [key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys]
    mine, other = (make_certificate(CA, key=key, serial=number + 1) for number, key in enumerate(keys[:2]))
    bodies = [hashedrekord_v2(other, "ab" * 32), dsse_v2(other, mine), hashedrekord_v2(mine, "cd" * 32)]
    names = [sha256(raw).digest().hex(":") for raw in (spki[0], mine)]
    with scene(tmp_path, empty(tmp_path), archive_of(tmp_path, [*bodies, hashedrekord_v2(spki[0], "ef" * 32)])) as site:
        visitor = site.visitor()
        for name, indexes in zip(names, ([1, 2, 3], [1, 2]), strict=True):
            document = visitor.get("/look.json", params={"name": name}).json()
            assert sorted(each["index"] for each in document["signings"]) == indexes
            for each in document["signings"]:
                assert any(name.replace(":", "") in signer["fingerprints"] for signer in each["signers"])
            for index in indexes:
                page = shown(visitor.get("/signing", params={"name": name, "log": LOG, "index": index}))
                assert f"Entry {index} of {LOG}" in page
            visitor.get("/signing", params={"name": name, "log": LOG, "index": 0}, expect=404)
        past = site.site.past
        for index in (1, 2, 3):
            found = past.entry(read_subject(names[0]), LOG, index)
            assert found is not None
            assert any(sha256(spki[0]).hexdigest() in signer.fingerprints for signer in found.signing.signers)
        assert past.entry(read_subject(names[0]), LOG, 0) is None
        assert past.entry(read_subject(sha256(spki[2]).digest().hex(":")), LOG, 1) is None


def test_what_lies_deeper_than_pages_lead_is_said(deep: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archived, "_DEEPEST", 150)
    visitor, before = deep.visitor(), ""
    while True:
        page = visitor.get("/look", params={"name": REPOSITORY, "everything": "1", "before": before})
        if 'rel="next"' not in page.text:
            break
        before = page.text.partition("before=")[2].partition('"')[0]
    assert "Pages lead to the newest" in shown(page)

"""Candidates from the archive's columns: nothing that rules select in the log is missing among them."""

import random
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from monitor.archive import candidates as of_columns
from monitor.archive import reading
from monitor.archive.candidates import CandidateSearch
from monitor.archive.files import ArchiveFault, ArchiveFiles
from monitor.archive.ranges import ArchivedRun, ArchiveManifest, to_json
from monitor.archive.rows import rows_of
from monitor.archive.search import Archive
from monitor.archive.writing import manifest_name, write_range
from monitor.following.scan_batch import BatchMatches, RuleScanner
from monitor.model.log_source import LogApi, LogEntry, LogIdentity, SignedHead
from rules.matching import matcher as matcher_of_rules
from rules.matching.matcher import Matcher, TooManyUnindexed, compile_rules
from rules.pattern import Pattern, PatternForm
from rules.rule import Rule
from rules.selection import AllOf, AnyOf, Condition, FieldMatch, Not
from sigstore_entries.entry import decode_ct, decode_rekor
from sigstore_entries.signing import UNREADABLE_SIGNER, EntryRef, Signing, Unreadable
from tests.following.test_scan_equals_brute_force import pattern
from tests.sigstore_entries.test_openpgp import KEY, packet
from tests.support import entries as made
from tests.support.hostile_certificates import PLAIN_OIDS, hostile_body, hostile_certificate
from tests.support.served_log import CA
from tlog.merkle import Frontier, RootHash

LOG = "log"
GITHUB = "https://token.actions.githubusercontent.com"
CLAIMED = (
    "issuer_v1",
    "source_repository_uri",
    "build_config_uri",
    "build_signer_uri",
    "source_repository_ref",
    "github_workflow_ref",
    "build_trigger",
    "github_workflow_trigger",
    "source_repository_identifier",
    "source_repository_owner_identifier",
    "runner_environment",
)
NOT_STORED = ("run_invocation_uri", "github_workflow_repository", "token_subject", *PLAIN_OIDS)


def varied_body(chance: random.Random, number: int) -> bytes:
    """A signing of a person, of a workflow or of both, or an entry by an author who wants to be missed."""
    serial = number + 1
    person = made.make_certificate(CA, san=f"Dev{number % 17}@Example.com", serial=serial)
    claims = made.github_claims(f"Org{number % 5}/repo{number % 7}", run=number)
    workflow = made.make_certificate(CA, san=claims["build_config_uri"], issuer=GITHUB, claims=claims, serial=serial)
    digest = f"{number:064x}"
    match chance.randrange(6):
        case 0:
            return made.hashedrekord_v2(person, digest)
        case 1:
            return made.dsse_v2(person, workflow, payload=digest)
        case 2:
            return made.canonical("unheard-of", "9.9.9", {"number": number})
        case 3:
            return hostile_body(chance)
        case _:
            return made.hashedrekord_v2(workflow, digest)


def entries_of(api: LogApi, chance: random.Random, count: int) -> list[LogEntry]:
    if api is LogApi.CT_RFC6962:
        return [LogEntry(made.x509_leaf(hostile_certificate(chance))) for _ in range(count)]
    return [LogEntry(varied_body(chance, number)) for number in range(count)]


def signings_of(entries: Sequence[LogEntry], api: LogApi) -> list[Signing]:
    decode = decode_ct if api is LogApi.CT_RFC6962 else decode_rekor
    read = [decode(entry.leaf, EntryRef(LOG, index)) for index, entry in enumerate(entries)]
    return [each for each in read if not isinstance(each, Unreadable)]


def rules_about(signings: Sequence[Signing], chance: random.Random, count: int) -> list[Rule]:
    """Rules by every field, in every form, negated and combined, about values that do occur."""
    signers = [signer for signing in signings for signer in signing.signers]
    texts = {"identity": [name.value for signer in signers for name in signer.names]}
    texts["issuer"] = [signer.issuer for signer in signers if signer.issuer is not None]
    texts["kind"] = [signing.kind for signing in signings]
    texts["log"] = [LOG, "another"]
    for claim in (*CLAIMED, *NOT_STORED):
        texts[claim] = [signer.claims[claim] for signer in signers if claim in signer.claims]
    digests = [f"{each.algorithm}:{each.value}" for signing in signings for each in signing.digests]
    fingerprints = [each for signer in signers for each in signer.fingerprints]

    def condition() -> Condition:
        kind = chance.random()
        if kind < 0.1:
            return FieldMatch("digest", (Pattern(PatternForm.EXACT, chance.choice(digests or ["none"])),))
        if kind < 0.2:
            return FieldMatch("fingerprint", (Pattern(PatternForm.EXACT, chance.choice(fingerprints or ["none"])),))
        field = chance.choice(["identity", "issuer", *texts] if kind < 0.9 else NOT_STORED)
        known = texts[field] or ["nothing of the kind"]
        return FieldMatch(field, tuple(pattern(chance.choice(known), chance) for _ in range(chance.choice((1, 1, 2)))))

    def select(depth: int) -> Condition:
        kind = chance.random()
        if kind < 0.45 or not depth:
            return condition()
        if kind < 0.6:
            return Not(select(depth - 1))
        return chance.choice((AllOf, AllOf, AnyOf))((select(depth - 1), select(depth - 1)))

    return [Rule(f"rule-{number}", select(3)) for number in range(count)]


def read_log(entries: Sequence[LogEntry], rules: Matcher, api: LogApi) -> BatchMatches:
    return RuleScanner(rules).scan(entries, 0, LOG, api)


def archive_of(entries: Sequence[LogEntry], api: LogApi, folder: Path) -> Archive:
    """An archive with ranges of 50 entries."""
    files, identity = ArchiveFiles(str(folder)), LogIdentity(LOG, api, "log.example", "log.example", b"key")
    ranges, end = [], Frontier()
    for first in range(0, len(entries), 50):
        rows = rows_of(entries[first : first + 50], first, LOG, api, None)
        ranges.append(write_range(files, identity, pa.Table.from_batches([rows])))
        end = ranges[-1].extend(end)
    head = SignedHead(LOG, end.size, RootHash(end.root()), b"", None)
    files.write(manifest_name(LOG), to_json(ArchiveManifest(identity, (ArchivedRun(Frontier(), tuple(ranges), head),))))
    return Archive(files)


def candidates(archive: Archive, search: CandidateSearch, first: int, last: int) -> list[int]:
    found = []
    for at, rows in archive.rows(LOG, first, last, search.columns, search.fingerprints):
        found += [at + number for number in search.find(rows)]
    return found


@pytest.mark.parametrize("api", [LogApi.REKOR_V2, LogApi.CT_RFC6962])
@pytest.mark.parametrize("seed", range(4))
def test_candidates_give_what_reading_the_log_gives(
    seed: int, api: LogApi, tmp_path: Path, small_ranges: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PIECE", 2)
    chance = random.Random(seed)
    entries = entries_of(api, chance, 240)
    archive = archive_of(entries, api, tmp_path)
    every = rules_about(signings_of(entries, api), chance, 260)
    fewer, whole = 0, 0
    for rules in (every, *(chance.sample(every, count) for count in (1, 2, 3, 5, 8, 20) for _ in range(4))):
        matcher = compile_rules(rules, max_unindexed=len(rules))
        search = CandidateSearch(matcher, LOG)
        first, last = sorted(chance.sample(range(241), 2))
        found = candidates(archive, search, first, last)
        assert found == sorted(set(found))
        read = RuleScanner(matcher).scan(entries[first:last], first, LOG, api)
        wanted = {hit.signing.where.index for hit in read.hits}
        assert wanted <= set(found), [rule.select for rule in rules]
        assert {each.unreadable.where.index for each in read.unreadable} <= set(found)
        # The candidates alone give the same hits, in the same order.
        scans = [RuleScanner(matcher).scan([entries[index]], index, LOG, api) for index in found]
        assert [hit for scan in scans for hit in scan.hits] == list(read.hits)
        if not search.undecided():
            fewer += len(found) < last - first
            whole += 1
    assert fewer > 0
    assert whole > 0


@pytest.mark.parametrize(
    ("select", "count"),
    [
        (FieldMatch("identity", (Pattern(PatternForm.REGEX, ".*@example\\.com"),)), 0),
        (FieldMatch("identity", (Pattern(PatternForm.REGEX, "(?i)dev[34]@.*"),)), None),
        (Not(FieldMatch("issuer", (Pattern(PatternForm.GLOB, "*"),))), None),
        (
            AllOf(
                (
                    FieldMatch("build_trigger", (Pattern(PatternForm.EXACT, "push"),)),
                    FieldMatch("kind", (Pattern(PatternForm.EXACT, "dsse"),)),
                )
            ),
            None,
        ),
    ],
)
def test_rules_without_a_key_are_narrowed_too(select: Condition, count: int | None, tmp_path: Path) -> None:
    chance = random.Random(1)
    entries = [entry for entry in entries_of(LogApi.REKOR_V2, chance, 200) if b"unheard-of" not in entry.leaf]
    archive = archive_of(entries, LogApi.REKOR_V2, tmp_path)
    matcher = compile_rules([Rule("one", select)])
    search = CandidateSearch(matcher, LOG)
    assert not search.undecided()
    found = candidates(archive, search, 0, len(entries))
    hits = [hit.signing.where.index for hit in read_log(entries, matcher, LogApi.REKOR_V2).hits]
    assert set(hits) <= set(found)
    assert len(found) < len(entries) / 2
    assert count is None or len(hits) >= count


def is_(field: str, text: str) -> FieldMatch:
    return FieldMatch(field, (Pattern(PatternForm.EXACT, text),))


PERSON = "dev@example.com"
CLAIMS = made.github_claims("acme/widget")
RUN = CLAIMS["build_config_uri"]


@pytest.mark.parametrize(
    ("claims", "select"),
    [
        pytest.param(CLAIMS, is_("build_config_uri", RUN), id="a workflow that is the identity"),
        pytest.param(
            {"github_workflow_repository": "acme/widget"},
            AllOf((is_("kind", "hashedrekord"), Not(is_("source_repository_uri", "https://github.com/acme/widget")))),
            id="a repository in the older claim alone",
        ),
        pytest.param(
            {"github_workflow_ref": "refs/heads/main"},
            AllOf((is_("kind", "hashedrekord"), Not(is_("source_repository_ref", "refs/heads/main")))),
            id="a ref in the older claim alone",
        ),
        pytest.param(
            {"github_workflow_trigger": "push"},
            AllOf((is_("issuer", GITHUB), Not(is_("build_trigger", "push")))),
            id="a trigger in the older claim alone",
        ),
    ],
)
def test_a_column_that_several_fields_share_decides_no_negation(
    claims: dict[str, str], select: Condition, tmp_path: Path
) -> None:
    body = made.hashedrekord_v2(made.make_certificate(CA, san=RUN, issuer=GITHUB, claims=claims), "ab" * 32)
    assert selected(body, select, tmp_path) == ([0], [0])


def test_the_signers_of_one_entry_are_decided_one_by_one(tmp_path: Path) -> None:
    workflow = made.make_certificate(CA, san=RUN, issuer=GITHUB, claims=CLAIMS)
    body = made.dsse_v2(made.make_certificate(CA, san=PERSON), workflow, payload="ab" * 32)
    not_github = Not(is_("issuer", GITHUB))
    assert selected(body, AllOf((is_("identity", PERSON), not_github)), tmp_path / "a") == ([0], [0])
    assert selected(body, AllOf((is_("identity", RUN), not_github)), tmp_path / "b") == ([], [])


TWICE = made.make_certificate(CA, san=PERSON, claims={"build_trigger": "push\x00"})


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            made.rekord("pgp", KEY + packet(13, b"\xff\xfe") + packet(13, b"eve\x1b[2J")), id="a name of a key"
        ),
        pytest.param(made.dsse_v2(TWICE, b"no certificate", payload="ab" * 32), id="a signer of an envelope"),
    ],
)
def test_an_entry_with_a_part_left_out_is_found_whatever_its_other_defects(body: bytes, tmp_path: Path) -> None:
    entries, matcher = [LogEntry(body)], compile_rules([Rule("one", is_("identity", "dev@other.example"))])
    assert [each.unreadable.code for each in read_log(entries, matcher, LogApi.REKOR_V2).unreadable] == [
        UNREADABLE_SIGNER
    ]
    archive = archive_of(entries, LogApi.REKOR_V2, tmp_path)
    assert candidates(archive, CandidateSearch(matcher, LOG), 0, 1) == [0]


def test_an_entry_with_more_signers_than_are_compared_with_rules_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matcher_of_rules, "MAX_VALUES", 5)
    for module in (matcher_of_rules, of_columns):
        monkeypatch.setattr(module, "MAX_ASKED", 20)
    signers = [made.make_certificate(CA, san=f"dev{number}@example.com", serial=number + 1) for number in range(9)]
    entries = [LogEntry(made.dsse_v2(*signers)), LogEntry(made.dsse_v2(signers[0]))]
    other = AllOf((is_("kind", "dsse"), FieldMatch("identity", (Pattern(PatternForm.GLOB, "dev*@example.org"),))))
    matcher = compile_rules(
        [Rule("one", AllOf((is_("kind", "dsse"), is_("build_trigger", "push")))), Rule("two", other)]
    )
    assert [(each.index, each.matches) for each in read_log(entries, matcher, LogApi.REKOR_V2).dropped] == [(0, 1)]
    archive = archive_of(entries, LogApi.REKOR_V2, tmp_path)
    assert candidates(archive, CandidateSearch(matcher, LOG), 0, 2) == [0]


@pytest.mark.parametrize("is_removed", [False, True])
def test_rows_that_are_not_archived_any_more_are_no_rows_without_candidates(tmp_path: Path, is_removed: bool) -> None:
    archive = archive_of(entries_of(LogApi.REKOR_V2, random.Random(1), 120), LogApi.REKOR_V2, tmp_path)
    if is_removed:
        (tmp_path / manifest_name(LOG)).unlink()
    with pytest.raises(ArchiveFault, match=r"entries (0|120) to 120 are not archived"):
        list(archive.rows(LOG, 0, 121, ["kind"]))


def selected(body: bytes, select: Condition, folder: Path) -> tuple[list[int], list[int]]:
    """Entries that a rule selects in the log, and candidates in the archive."""
    entries, matcher = [LogEntry(body)], compile_rules([Rule("one", select)])
    hits = read_log(entries, matcher, LogApi.REKOR_V2).hits
    archive = archive_of(entries, LogApi.REKOR_V2, folder)
    return [hit.signing.where.index for hit in hits], candidates(archive, CandidateSearch(matcher, LOG), 0, 1)


def own_key(number: int) -> EllipticCurvePrivateKey:
    return made.make_key(f"own {number}")


def spki_of(number: int) -> bytes:
    return own_key(number).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certified(number: int) -> bytes:
    """A certificate of `dev3@example.com` or another person, with a key of its own."""
    return made.make_certificate(CA, key=own_key(number), san=f"dev{number % 7}@example.com", serial=9_000 + number)


def of_key(number: int) -> FieldMatch:
    return is_("fingerprint", sha256(spki_of(number)).hexdigest())


@pytest.mark.parametrize(
    ("select", "hits", "most"),
    [
        pytest.param(of_key(3), [3, 71, 72, 73, 74], 5, id="alone"),
        pytest.param(is_("fingerprint", sha256(certified(60)).hexdigest()), [60, 73], 2, id="the certificate's own"),
        pytest.param(
            FieldMatch("fingerprint", (*of_key(60).patterns, *of_key(68).patterns)), [60, 68, 73], 3, id="one of two"
        ),
        pytest.param(AllOf((of_key(3), is_("identity", "dev3@example.com"))), [3, 72, 73, 74], 4, id="all"),
        pytest.param(AllOf((of_key(3), is_("identity", "dev4@example.com"))), [], 0, id="all, of two signers"),
        pytest.param(AnyOf((of_key(3), is_("identity", "dev5@example.com"))), None, 16, id="any"),
        pytest.param(AllOf((of_key(3), Not(is_("kind", "dsse")))), [3, 71], 2, id="all with a negation"),
        pytest.param(AllOf((of_key(3), Not(of_key(60)))), [3, 71, 72, 73, 74], 5, id="all with another's negation"),
        pytest.param(
            AllOf((is_("identity", "dev3@example.com"), Not(of_key(3)))), None, 16, id="a negation of the key"
        ),
        pytest.param(Not(of_key(3)), None, 75, id="a negation alone"),
        pytest.param(Not(AnyOf((of_key(3), is_("kind", "dsse")))), None, 75, id="not any"),
    ],
)
def test_a_rule_about_the_key_of_a_certificate_misses_nothing(
    select: Condition, hits: list[int] | None, most: int, tmp_path: Path, small_ranges: None
) -> None:
    bodies = [made.hashedrekord_v2(certified(number), f"{number:064x}") for number in range(71)]
    bodies.append(made.hashedrekord_v2(spki_of(3), "71" * 32))
    bodies.append(made.dsse_v2(certified(3), certified(4), payload="72" * 32))
    bodies.append(made.dsse_v2(certified(60), certified(3), payload="73" * 32))
    bodies.append(made.dsse_v2(certified(3), spki_of(4), payload="74" * 32))
    entries = [LogEntry(body) for body in bodies]
    archive = archive_of(entries, LogApi.REKOR_V2, tmp_path)
    # Other rules change nothing: as many keys as make the search read all keys of a range in place of each alone.
    more = [Rule(f"other-{number}", of_key(100 + number)) for number in range(70)]
    for rules in ([Rule("one", select)], [Rule("one", select), *more]):
        matcher = compile_rules(rules)
        read = [hit.signing.where.index for hit in read_log(entries, matcher, LogApi.REKOR_V2).hits]
        assert hits is None or read == hits
        for first, last in ((0, len(entries)), (2, 73)):
            found = candidates(archive, CandidateSearch(matcher, LOG), first, last)
            assert {index for index in read if first <= index < last} <= set(found)
            assert len(found) <= most


def test_five_thousand_rules_find_what_the_log_gives(tmp_path: Path) -> None:
    chance = random.Random(5)
    entries = entries_of(LogApi.REKOR_V2, chance, 400)
    archive = archive_of(entries, LogApi.REKOR_V2, tmp_path)
    identity = [
        Rule(
            f"person-{n}",
            FieldMatch("identity", (Pattern(PatternForm.EXACT, f"dev{n}@example.com", ignore_case=True),)),
        )
        for n in range(9, 4009)
    ]
    issuer = FieldMatch("issuer", (Pattern(PatternForm.EXACT, GITHUB),))
    glob = [
        Rule(
            f"org-{n}",
            AllOf(
                (
                    issuer,
                    FieldMatch(
                        "source_repository_uri",
                        (Pattern(PatternForm.GLOB, f"https://github.com/org{n}/*", ignore_case=True),),
                    ),
                )
            ),
        )
        for n in range(4, 900)
    ]
    digest = [
        Rule(f"digest-{n}", FieldMatch("digest", (Pattern(PatternForm.EXACT, f"sha256:{n:064x}"),)))
        for n in range(7, 111)
    ]
    rules = [*identity, *glob, *digest]
    assert len(rules) == 5_000
    matcher = compile_rules(rules)
    found = candidates(archive, CandidateSearch(matcher, LOG), 0, len(entries))
    read = read_log(entries, matcher, LogApi.REKOR_V2)
    wanted = {hit.signing.where.index for hit in read.hits} | {each.unreadable.where.index for each in read.unreadable}
    assert wanted <= set(found)
    assert len(read.hits) > 100
    assert len(found) < 0.8 * len(entries)


def test_rules_about_which_the_columns_say_nothing_are_named() -> None:
    one = Pattern(PatternForm.EXACT, "https://example.com/run/1")
    stored, missing = FieldMatch("identity", (one,)), FieldMatch("run_invocation_uri", (one,))
    rules = [
        Rule("a", missing),
        Rule("b", AnyOf((stored, missing))),
        Rule("c", Not(missing)),
        Rule("d", AllOf((stored, missing))),
    ]
    assert [rule.id for rule in CandidateSearch(compile_rules(rules), LOG).undecided()] == ["a", "b", "c"]


def test_too_many_rules_without_a_key_are_refused() -> None:
    short = [Rule(f"r{n}", FieldMatch("build_trigger", (Pattern(PatternForm.EXACT, "push"),))) for n in range(1_001)]
    with pytest.raises(TooManyUnindexed):
        CandidateSearch(compile_rules(short, max_unindexed=2_000), LOG)

"""The habit that is learned from the signings in a name, and the sentence about them."""

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from monitor.site.lookup import headline, look, rows_of
from monitor.store.signings import LogRead, PastSigning, SigningCursor, Signings, signings_once
from rules.rule import Outcome, Verdict
from rules.subject import Subject, read_subject
from sigstore_entries.signing import ChainTrust, Name, NameForm, SignatureCheck, Signing
from tests.rules import signings
from tests.support.alerts import NOW
from tests.support.parts import LOG, a_signing

REPOSITORY = "https://github.com/acme/widget"


class TwoLogs:
    """A past of which a signature log has each entry and a CT log each certificate."""

    source, deepest = "archive", None

    def __init__(self, refs: Sequence[str], *further: str) -> None:
        """`further` are signature logs that have each entry as well."""
        self._found = [
            PastSigning(signing, NOW - timedelta(hours=index), Verdict(Outcome.EXPECTED))
            for index, ref in enumerate(refs)
            for signing in (
                made_on(ref, index, "hashedrekord"),
                made_on(ref, index, "precertificate", "ct"),
                *(made_on(ref, index + 7, "hashedrekord", log) for log in further),
            )
        ]

    def signings(self, _subject: Subject, _limit: int = 300) -> Signings:
        return Signings(tuple(self._found), len(self._found), 0)

    def older(self, _subject: Subject, _after: SigningCursor, _limit: int) -> list[PastSigning]:
        return []

    def entry(self, _subject: Subject, _log: str, _index: int) -> PastSigning | None:
        return None

    def logs(self) -> list[LogRead]:
        return []


class SelfMade(TwoLogs):
    """A past with one self-made certificate, searched whole or in part."""

    def __init__(self, *, is_part: bool) -> None:
        super().__init__(())
        self._is_part = is_part

    def signings(self, _subject: Subject, _limit: int = 300) -> Signings:
        made = signings.signing({}, trust=ChainTrust.UNTRUSTED)
        return Signings((PastSigning(made, NOW, Verdict(Outcome.UNVERIFIED)),), 0, 1, (), self._is_part)


def made_on(ref: str, index: int, kind: str, log: str = LOG) -> Signing:
    workflow = f"{REPOSITORY}/.github/workflows/release.yml@{ref}"
    signing = a_signing(index, log=log, kind=kind, identity=workflow)
    claims = {"source_repository_uri": REPOSITORY, "source_repository_ref": ref, "build_config_uri": workflow}
    names = (Name(NameForm.URI, workflow),)
    return replace(signing, signers=(dataclasses.replace(signing.signers[0], names=names, claims=claims),))


def test_one_signing_in_two_signature_logs_is_no_habit() -> None:
    """A client may write each entry to an older log and to a newer one."""
    refs = ["refs/heads/evil", *(f"refs/tags/v1.{number}" for number in range(12))]
    looked = look(TwoLogs(refs, "rekor-v1"), read_subject(REPOSITORY), NOW)
    assert {(part.seen, part.past) for part in looked.parts if part.key == "ref"} == {(12, 13)}
    assert {row.what for row in looked.unlike} == {"refs/heads/evil"}


@pytest.mark.parametrize(
    "change",
    [{"trust": ChainTrust.UNTRUSTED}, {"signature": SignatureCheck.WRONG}, {"only_listed": ("f0" * 32,)}],
    ids=["self-made", "another key's signature", "listed"],
)
def test_an_entry_that_any_person_can_log_stands_in_for_no_trusted_one(change: dict[str, Any]) -> None:
    """It may have the name and the time of a certificate in a CT log, or of an entry in another signature log."""
    trusted = [made_on("refs/heads/evil", 1, "precertificate", "ct"), made_on("refs/tags/v1", 2, "hashedrekord")]
    copies = [made_on("refs/heads/evil", 3, "hashedrekord"), made_on("refs/tags/v1", 4, "hashedrekord", "rekor-v1")]
    forged = [replace(each, signers=(dataclasses.replace(each.signers[0], **change),)) for each in copies]
    found = [PastSigning(each, NOW, Verdict(Outcome.EXPECTED)) for each in (*forged, *trusted)]
    rows = rows_of(found, None, NOW)
    assert {(row.signing.where, row.also) for row in rows} == {(each.where, ()) for each in (*forged, *trusted)}
    assert {each.where for each in signings_once(found)} >= {each.where for each in trusted}


def test_each_entry_of_one_certificate_in_one_log_counts() -> None:
    """A release may sign many files with one certificate."""
    made = [made_on("refs/tags/v1", index, "hashedrekord", log) for log in (LOG, "rekor-v1") for index in range(3)]
    found = [PastSigning(each, NOW, Verdict(Outcome.EXPECTED)) for each in made]
    assert [each.where.log for each in signings_once(found)] == [LOG] * 3
    assert signings_once([]) == []


@pytest.mark.parametrize("releases", [1, 2, 3])
def test_of_a_few_signings_that_differ_none_is_called_usual(releases: int) -> None:
    """Up to four signings every value is proposed, so that an attacker's only signing would look like the others."""
    refs = ["refs/heads/evil", *(f"refs/tags/v1.{number}" for number in range(releases))]
    told = headline(look(TwoLogs(refs), read_subject(REPOSITORY), NOW))
    assert told == (f"{releases + 1} signings that differ, too few to tell which are usual", "warn", str(releases + 1))
    alike = headline(look(TwoLogs(refs[1:]), read_subject(REPOSITORY), NOW))
    assert "differ" not in alike[0], "control: releases alone"


@pytest.mark.parametrize("releases", [4, 6, 12, 18])
def test_one_signing_in_two_logs_is_no_habit(releases: int) -> None:
    """The certificate's own log must not make an attacker's only signing a usual one."""
    refs = [f"refs/tags/v1.{number}" for number in range(releases)]
    assert headline(look(TwoLogs(refs), read_subject(REPOSITORY), NOW))[0] == f"All {releases} signings look alike"
    looked = look(TwoLogs(["refs/heads/evil", *refs]), read_subject(REPOSITORY), NOW)
    assert headline(looked)[0] == "One signing does not look like the others"
    assert {part.past for part in looked.parts} == {releases + 1}


def test_a_search_that_was_cut_denies_no_signing_beyond_its_end() -> None:
    subject = read_subject(REPOSITORY)
    whole = headline(look(SelfMade(is_part=False), subject, NOW))[0]
    assert whole == "Nothing that a trusted authority vouches for", "control"
    assert headline(look(SelfMade(is_part=True), subject, NOW))[0] == f"{whole}, in the part that was searched"

"""The habit that is learned from the signings in a name, and the sentence about them."""

import dataclasses
from collections.abc import Sequence
from datetime import timedelta

import pytest
from msgspec.structs import replace

from monitor.site.lookup import headline, look
from monitor.store.signings import LogRead, PastSigning, SigningCursor, Signings
from rules.rule import Outcome, Verdict
from rules.subject import Subject, read_subject
from sigstore_entries.signing import ChainTrust, Name, NameForm, Signing
from tests.rules import signings
from tests.support.alerts import NOW
from tests.support.parts import LOG, a_signing

REPOSITORY = "https://github.com/acme/widget"


class TwoLogs:
    """A past of which a signature log has each entry and a CT log each certificate."""

    source, deepest = "archive", None

    def __init__(self, refs: Sequence[str]) -> None:
        self._found = [
            PastSigning(signing, NOW - timedelta(hours=index), Verdict(Outcome.EXPECTED))
            for index, ref in enumerate(refs)
            for signing in (made_on(ref, index, "hashedrekord"), made_on(ref, index, "precertificate"))
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


def made_on(ref: str, index: int, kind: str) -> Signing:
    workflow = f"{REPOSITORY}/.github/workflows/release.yml@{ref}"
    signing = a_signing(index, log="ct" if kind == "precertificate" else LOG, kind=kind, identity=workflow)
    claims = {"source_repository_uri": REPOSITORY, "source_repository_ref": ref, "build_config_uri": workflow}
    names = (Name(NameForm.URI, workflow),)
    return replace(signing, signers=(dataclasses.replace(signing.signers[0], names=names, claims=claims),))


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

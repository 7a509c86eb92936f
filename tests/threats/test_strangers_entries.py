"""A thief holds a real certificate for the victim's workflow and logs what they like around it: the theft stays news.

Each attempt is made of entries that a log takes from anyone: self-made certificates with the victim's name and a
legitimate ref, the victim's own public certificates, keys of strangers, real certificates of other people.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from alerts.alert import Alert, Severity
from monitor.store.authorisations import Authorisations
from monitor.store.reading import Reading
from rules.facts import Authorisation
from tests.sigstore_entries.test_openpgp import packet
from tests.support.entries import (
    CA_NOT_AFTER,
    PLACEHOLDER_SIGNATURE,
    dsse_v2,
    hashedrekord_v2,
    make_ca,
    make_certificate,
    make_github_certificate,
    make_key,
    rekord,
    spki_of,
)
from tests.support.misbehaving_log import RekorV2Log
from tests.threats.watched import CA, STRANGER, Watched, signing

STOLEN: Final = make_github_certificate(CA, ref=STRANGER, not_after=CA_NOT_AFTER)
LEGITIMATE: Final = make_github_certificate(CA, not_after=CA_NOT_AFTER)
SELF_MADE: Final = make_github_certificate(make_ca(seed=66), not_after=CA_NOT_AFTER)
SELF_MADE_EVIL: Final = make_github_certificate(make_ca(seed=66), ref=STRANGER, not_after=CA_NOT_AFTER)
ANOTHER_PERSON: Final = make_certificate(CA, san="dev@elsewhere.example", not_after=CA_NOT_AFTER)
BARE_KEY: Final = spki_of(make_key("a stranger's"))
RELEASES: Final = """\
version: 1
rules:
  - id: widget
    select: {identity: {glob: "https://github.com/acme/widget/**"}}
    expect: {%s}
    severity: page
"""

BY_ADDRESS: Final = """\
version: 1
rules:
  - id: alice
    select: {identity: alice@acme.example}
    expect: {issuer: "https://accounts.acme.example"}
    severity: page
"""


def watched(folder: Path, log: RekorV2Log, expect: str = 'ref: {glob: "refs/tags/v*"}') -> Watched:
    seen = Watched(log, folder)
    (folder / "rules.yaml").write_text(RELEASES % expect)
    seen.restart()
    return seen


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Watched]:
    made = watched(tmp_path, RekorV2Log([signing()]))
    assert made.run().findings == {"expected": 1}, "control: a release as it should be"
    yield made
    made.check()
    made.store.close()


@pytest.mark.parametrize(
    "around",
    [
        lambda stolen: [stolen],
        lambda stolen: [LEGITIMATE, stolen],
        lambda stolen: [stolen, LEGITIMATE],
        lambda stolen: [SELF_MADE, stolen],
        lambda stolen: [stolen, SELF_MADE],
        lambda stolen: [SELF_MADE_EVIL, stolen, SELF_MADE],
        lambda stolen: [BARE_KEY, stolen],
        lambda stolen: [ANOTHER_PERSON, stolen],
        lambda stolen: [*[SELF_MADE] * 20, stolen],
        lambda stolen: [*[BARE_KEY] * 70, stolen, *[SELF_MADE] * 15],
    ],
    ids=[
        "alone",
        "behind the victim's own certificate",
        "before the victim's own certificate",
        "behind a self-made one with a good ref",
        "before a self-made one with a good ref",
        "between two self-made ones",
        "behind a bare key",
        "behind another person's real certificate",
        "behind twenty others",
        "in the midst of eighty-five others",
    ],
)
def test_no_signer_beside_it_makes_a_theft_expected_or_unverified(
    seen: Watched, around: Callable[[bytes], list[bytes]]
) -> None:
    seen.log.append(dsse_v2(*around(STOLEN)))
    assert seen.run().findings == {"unexpected": 1}
    assert "unexpected-signing" in seen.alerts()


def test_entries_logged_before_a_theft_do_not_make_it_look_usual(tmp_path: Path) -> None:
    """`same_issuer`: an issuer counts as known by what an authority vouched for, and by nothing the thief made."""
    evil = "https://evil.example"
    seen = watched(tmp_path, RekorV2Log([signing()]), "same_issuer: true")
    assert seen.run().findings == {"expected": 1}, "control"
    san = "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1.2.3"
    forged = make_certificate(make_ca(seed=66), san=san, issuer=evil, not_after=CA_NOT_AFTER)
    stolen = make_certificate(CA, san=san, issuer=evil, not_after=CA_NOT_AFTER)
    elsewhere = make_certificate(CA, san="dev@elsewhere.example", issuer=evil, not_after=CA_NOT_AFTER)
    attempts = [
        hashedrekord_v2(forged, "01" * 32),
        # Real, of the same issuer, and of another person; beside it a forgery that the rule selects.
        dsse_v2(elsewhere, forged, payload="02" * 32),
        # The stolen certificate itself under a signature that is not its own.
        hashedrekord_v2(stolen, "03" * 32, signature=PLACEHOLDER_SIGNATURE),
    ]
    seen.log.append(*attempts)
    outcome = seen.run()
    assert "expected" not in outcome.findings
    seen.log.append(hashedrekord_v2(stolen, "04" * 32))
    assert seen.run().findings == {"unexpected": 1}
    seen.log.append(hashedrekord_v2(stolen, "05" * 32))
    assert seen.run().findings == {"unexpected": 1}, "and a second theft is as loud as the first"
    seen.store.close()


def test_no_flood_of_forgeries_leaves_room_below_a_rate(tmp_path: Path) -> None:
    """`rate`: forgeries neither use it up, which would hide the theft in noise, nor push what counts out of it."""
    seen = watched(tmp_path, RekorV2Log([signing(number=1)]), "rate: {at_most: 2, per: 1d}")
    assert seen.run().findings == {"expected": 1}, "control"
    seen.log.append(*(hashedrekord_v2(SELF_MADE, f"{number:064x}") for number in range(1000, 1100)))
    assert seen.run().findings == {"unverified": 100}
    seen.log.append(signing(number=2))
    assert seen.run().findings == {"expected": 1}, "the second one is within the rate"
    seen.log.append(hashedrekord_v2(LEGITIMATE, "06" * 32))
    assert seen.run().findings == {"unexpected": 1}, "the third is beyond it"
    seen.clock.pass_by(hours=25)
    seen.log.append(hashedrekord_v2(LEGITIMATE, "07" * 32))
    seen.run()
    assert seen.alerts().count("unexpected-signing") >= 1
    seen.store.close()


def test_two_hundred_self_made_keys_with_the_victims_address_leave_one_page_for_the_theft(tmp_path: Path) -> None:
    """An OpenPGP key carries the address that its maker wrote into it."""
    seen = watched(tmp_path, RekorV2Log())
    (tmp_path / "rules.yaml").write_text(BY_ADDRESS, encoding="utf-8")
    seen.restart()
    address = b"Alice <alice@acme.example>"
    keys = [packet(6, b"\x04" + number.to_bytes(4, "big") + bytes(40)) for number in range(200)]
    seen.log.append(*(rekord("pgp", key + packet(13, address), f"{number:064x}") for number, key in enumerate(keys)))
    assert seen.run().findings == {"unverified": 200}, "control: the rule selects each"
    assert pages(seen) == []
    stolen = make_certificate(CA, san="alice@acme.example", issuer="https://evil.example", not_after=CA_NOT_AFTER)
    seen.log.append(hashedrekord_v2(stolen, "0b" * 32))
    assert seen.run().findings == {"unexpected": 1}
    assert [(each.kind, each.index) for each in pages(seen)] == [("unexpected-signing", 200)]
    seen.store.close()


def pages(seen: Watched) -> list[Alert]:
    """Every alert that wakes a person."""
    found = [each.alert for each in Reading(seen.store.database).alerts(1_000)]
    return [each for each in found if each.severity is Severity.PAGE]


def test_an_announced_release_is_not_used_up_by_strangers_nor_stretched_by_them(tmp_path: Path) -> None:
    """`authorised`: one leave, a hundred forgeries of the announced digest, one release, one theft of it."""
    seen = watched(tmp_path, RekorV2Log(), "authorised: []")
    seen.run()
    digest = "0a" * 32
    now = seen.clock.now
    Authorisations(seen.store.database).add(
        "widget", Authorisation(f"sha256:{digest}", 1, now + timedelta(days=1)), now
    )
    seen.log.append(
        *(hashedrekord_v2(SELF_MADE, digest) for _ in range(100)),
        dsse_v2(BARE_KEY, SELF_MADE, payload=digest),
        dsse_v2(ANOTHER_PERSON, SELF_MADE, payload=digest),
    )
    assert "expected" not in seen.run().findings
    seen.log.append(hashedrekord_v2(LEGITIMATE, digest))
    assert seen.run().findings == {"expected": 1}, "the leave was still there"
    seen.log.append(hashedrekord_v2(STOLEN, digest))
    assert seen.run().findings == {"unexpected": 1}, "and is used up now"
    seen.store.close()

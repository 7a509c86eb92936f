"""What the story is about: the logs' entries, rules and trust root of each stage, and what must be found in the end.

What must be found is written down here by hand. A comparison with an undisturbed life would not notice what is lost in
every life.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.support.entries import (
    b64,
    github_claims,
    hashedrekord_v2,
    make_ca,
    make_certificate,
    make_key,
    make_precertificate,
    precert_leaf,
)
from tests.support.misbehaving_log import CtStaticLog, RekorV2Log

LOG: Final = "v2"
CERTIFICATE_LOG: Final = "static"
CHANNELS: Final = ("file", "people")
STAGES: Final = ("init", "first entries", "more entries", "looking back", "fork")
LOOKING_BACK: Final = STAGES.index("looking back")
FORK: Final = STAGES.index("fork")
_SIZES: Final = (2, 9, 15, 15, 15)
_CERTIFICATES: Final = (1, 1, 3, 3, 3)
_BASE: Final = datetime(2026, 1, 2, 12, tzinfo=UTC)
_FORKED_AT: Final = 11
_ISSUER: Final = "https://accounts.example"

_RULES: Final = """\
version: 1
rules:
  - id: release
    select: {identity: {glob: "https://github.com/acme/widget/**"}}
    expect: {ref: {glob: "refs/tags/v*"}, rate: {at_most: 3, per: 1d}}
  - id: alice
    select: {identity: alice@acme.example}
    expect: {same_issuer: true, certificate_log_within: 25d}
    severity: warn
  - id: team
    select: {identity: {glob: "*@team.example"}}
"""
_NEW_RULE: Final = """\
  - id: newcomers
    select: {identity: {glob: "*@elsewhere.example"}}
    severity: warn
"""

# Judgement by entry and rule. The certificate log shows only the first of alice's certificates: when the 25 days are
# over, what was expected of the others is no longer. No authority vouched for entry 5 until a trust root named another
# authority.
FOUND: Final = {
    (0, "release"): "expected",
    (1, "newcomers"): "unexpected",
    (2, "release"): "unexpected",
    (4, "alice"): "expected",
    (5, "alice"): "unexpected",
    (6, "release"): "expected",
    (7, "release"): "unexpected",
    (8, "alice"): "unexpected",
    (9, "newcomers"): "unexpected",
    (10, "alice"): "unexpected",
    (12, "alice"): "unexpected",
    (13, "release"): "unexpected",
    (14, "team"): "unexpected",
}
# The log serves other bytes beside its leaves than those it hashed, so nothing in it is as expected.
CERTIFICATES_FOUND: Final = {(0, "alice"): "unexpected", (1, "team"): "unexpected", (2, "team"): "unexpected"}
UNREADABLE: Final = {3, 11}
# How many alerts of each kind that is; one of them is told by another, which is about the same certificate.
TOLD: Final = {
    "unexpected-signing": 13,
    "unverified-signing": 1,
    "entry-unreadable": 2,
    "trust-changed": 1,
    "log-forked": 1,
}


def time_of(stage: int) -> datetime:
    """When a stage takes place."""
    return _BASE + timedelta(days=10 * stage)


def _release(number: int, ref: str = "refs/tags/v1.2.3") -> bytes:
    claims = github_claims(ref=ref, run=number)
    issuer = "https://token.actions.githubusercontent.com"
    return _signed(claims["build_config_uri"], issuer, number, claims=claims)


def _signed(san: str, issuer: str, number: int, *, ca: str = "crash", claims: dict[str, str] | None = None) -> bytes:
    key, serial = make_key(number), 1000 + number
    certificate = make_certificate(make_ca(ca), san=san, issuer=issuer, claims=claims, key=key, serial=serial)
    return hashedrekord_v2(certificate, f"{number:064x}")


def _alice(number: int, issuer: str = _ISSUER, ca: str = "crash") -> bytes:
    return _signed("alice@acme.example", issuer, number, ca=ca)


@cache
def entries() -> tuple[bytes, ...]:
    """Expected and unexpected signings, judged by what came before them; strangers, forgeries, and garbage."""
    return (
        _release(0),
        _signed("bob@elsewhere.example", "https://accounts.example", 1),
        _release(2, "refs/heads/main"),
        b"{not json at all",
        _alice(4),
        _alice(5, ca="late"),
        _release(6),
        _release(7),
        _alice(8, "https://other.example"),
        # The second stage begins here.
        _signed("carol@elsewhere.example", "https://accounts.example", 9),
        _alice(10, "https://third.example"),
        b"\xff\xfe",
        _alice(12),
        _release(13, "refs/heads/evil"),
        # The certificate is in the certificate log as well, and both are one event.
        _signed("dave@team.example", _ISSUER, 14),
    )


@cache
def certificates() -> tuple[bytes, ...]:
    """Two that entries are made with, and one that is never used."""
    return (
        _precertificate("alice@acme.example", 4),
        _precertificate("dave@team.example", 14),
        _precertificate("erin@team.example", 15),
    )


def _precertificate(san: str, number: int) -> bytes:
    ca, key, serial = make_ca("crash"), make_key(number), 1000 + number
    return precert_leaf(ca, make_precertificate(ca, san=san, issuer=_ISSUER, key=key, serial=serial)[1])


@cache
def log_at(stage: int) -> RekorV2Log:
    """The log as it is in a stage: it grows, and in the end signs another history."""
    log = RekorV2Log(entries()[: _SIZES[stage]])
    log.timestamp += 1000 * stage
    if stage == FORK:
        log.rewrite_from(_FORKED_AT)
        log.grow(2)
    log.oracle().root(log.size)
    return log


class SignedOnce(CtStaticLog):
    """Answers in the same bytes each time: its signatures are random, and what lives were shown is compared."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        super().__init__(leaves)
        self._answers: dict[str, bytes] = {}

    def answer(self, path: str, query: dict[str, str], document: Any) -> bytes:
        if path not in self._answers:
            self._answers[path] = super().answer(path, query, document)
        return self._answers[path]


@cache
def certificate_log_at(stage: int) -> CtStaticLog:
    """The certificate log as it is in a stage; an honest one."""
    log = SignedOnce(certificates()[: _CERTIFICATES[stage]])
    log.timestamp += 1000 * stage
    log.source().latest()
    return log


def write_files(folder: Path, stage: int) -> None:
    """The rules and the trusted root of a stage; written whole before anything else happens in it."""
    late = stage >= LOOKING_BACK
    authorities = [
        {
            "uri": f"https://ca.example/{name}",
            "certChain": {"certificates": [{"rawBytes": b64(each)} for each in make_ca(name).chain]},
            "validFor": {"start": "2020-01-01T00:00:00Z"},
        }
        for name in (("crash", "late") if late else ("crash",))
    ]
    root = {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "certificateAuthorities": authorities,
    }
    (folder / "rules.yaml").write_text(_RULES + (_NEW_RULE if late else ""), encoding="utf-8")
    (folder / "trusted_root.json").write_text(json.dumps(root), encoding="utf-8")

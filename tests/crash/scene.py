"""What the story is about: the log's entries, rules and trust root of each stage, and what must be found in the end.

What must be found is written down here by hand. A comparison with an undisturbed life would not notice what is lost in
every life.
"""

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final

from tests.support.entries import b64, github_claims, hashedrekord_v2, make_ca, make_certificate
from tests.support.misbehaving_log import RekorV2Log

LOG: Final = "v2"
CHANNELS: Final = ("file", "people")
STAGES: Final = ("init", "first entries", "more entries", "looking back", "fork")
LOOKING_BACK: Final = STAGES.index("looking back")
FORK: Final = STAGES.index("fork")
_SIZES: Final = (2, 9, 14, 14, 14)
_BASE: Final = datetime(2026, 1, 2, 12, tzinfo=UTC)
_FORKED_AT: Final = 11

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
"""
_NEW_RULE: Final = """\
  - id: newcomers
    select: {identity: {glob: "*@elsewhere.example"}}
    severity: warn
"""

# Judgement by entry and rule. A certificate log is followed and shows none of these certificates: when the 25 days are
# over, what was expected of alice is no longer.
FOUND: Final = {
    (0, "release"): "expected",
    (1, "newcomers"): "unexpected",
    (2, "release"): "unexpected",
    (4, "alice"): "unexpected",
    (5, "alice"): "unverified",
    (6, "release"): "expected",
    (7, "release"): "unexpected",
    (8, "alice"): "unexpected",
    (9, "newcomers"): "unexpected",
    (10, "alice"): "unexpected",
    (12, "alice"): "unexpected",
    (13, "release"): "unexpected",
}
UNREADABLE: Final = {3, 11}
# How many alerts of each kind that is.
TOLD: Final = {
    "unexpected-signing": 9,
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
    certificate = make_certificate(make_ca(ca), san=san, issuer=issuer, claims=claims, serial=1000 + number)
    return hashedrekord_v2(certificate, f"{number:064x}")


def _alice(number: int, issuer: str = "https://accounts.example", ca: str = "crash") -> bytes:
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
        _alice(5, ca="nobody's"),
        _release(6),
        _release(7),
        _alice(8, "https://other.example"),
        # The second stage begins here.
        _signed("carol@elsewhere.example", "https://accounts.example", 9),
        _alice(10, "https://third.example"),
        b"\xff\xfe",
        _alice(12),
        _release(13, "refs/heads/evil"),
    )


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

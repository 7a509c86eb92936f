"""A simulated year of a busy project: what its maintainers do, what fools do in its name, and twenty real attacks.

Everything is fixed: the same year every time. Releases go out through tags, are run again, are tagged anew after a
mistake, have candidates before them, and the repository moves to a foundation in summer. Fifty thousand certificates
carry the project's name and come from nobody. Among all this stand twenty certificates that Fulcio really issued to
somebody who should not have had them.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from benchmarks.corpus import GITHUB_ISSUER, GOOGLE_ISSUER, Identity, identity_of, workflow_identity

YEAR: Final = datetime(2026, 1, 1, tzinfo=UTC)
DAYS: Final = 364
RELEASES: Final = 500
SELF_SIGNED: Final = 50_000
STRANGERS: Final = 3_000
LEAVE_COUNT: Final = 3
LEAVE_DAYS: Final = 7
RELEASE_RULE: Final = "widget-releases"
MANAGER_RULE: Final = "release-manager"

_OLD, _NEW = "acme/widget", "acme-foundation/widget"
_MOVED_AFTER: Final = 300  # releases
_IDENTIFIER, _OLD_OWNER, _NEW_OWNER = "420001", "4200", "4300"
_MANAGER: Final = "release@acme.example"
_GITHUB_LOGIN: Final = "https://github.com/login/oauth"

RULES: Final = f"""\
version: 1
rules:
  - id: {RELEASE_RULE}
    title: Releases of widget
    select:
      any:
        - source_repository_uri: ["https://github.com/{_OLD}", "https://github.com/{_NEW}"]
        - identity:
            - glob: https://github.com/{_OLD}/.github/*
            - glob: https://github.com/{_NEW}/.github/*
    expect:
      issuer: {GITHUB_ISSUER}
      repository_identifier: "{_IDENTIFIER}"
      owner_identifier: ["{_OLD_OWNER}", "{_NEW_OWNER}"]
      workflow: .github/workflows/release.yml
      builder:
        - https://github.com/{_OLD}/.github/workflows/release.yml
        - https://github.com/{_NEW}/.github/workflows/release.yml
      ref: {{glob: "refs/tags/v*"}}
      trigger: [push, release]
      runner: github-hosted
      visibility: public
      authorised: []
  - id: {MANAGER_RULE}
    title: The release manager's own signatures
    select: {{identity: {_MANAGER}}}
    expect: {{issuer: {GOOGLE_ISSUER}}}
"""


@dataclass(frozen=True, slots=True)
class Attack:
    """What somebody did, the rule that should notice, and exactly the reasons it should give."""

    name: str
    rule: str
    reasons: frozenset[str]


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the log. `genuine` says that Fulcio issued the certificate, not somebody who made it himself."""

    at: datetime
    identity: Identity
    digest: str
    genuine: bool = True
    attack: Attack | None = None


@dataclass(frozen=True, slots=True)
class Leave:
    """A digest that the maintainers announced to the monitor before they signed it."""

    digest: str
    expires: datetime


def simulated_year() -> tuple[list[Event], list[Leave]]:
    """Every entry in the order of the log, and every leave to sign that was given."""
    chance = random.Random(2026)
    genuine = [*_releases(chance), *_manager()]
    leaves = [Leave(e.digest, e.at + timedelta(days=LEAVE_DAYS)) for e in genuine if e.identity.san != _MANAGER]
    leaves = list({leave.digest: leave for leave in reversed(leaves)}.values())
    events = [*genuine, *_self_signed(chance, genuine), *_strangers(chance), *_attacks()]
    return sorted(events, key=lambda event: event.at), leaves


def _day(number: float) -> datetime:
    return YEAR + timedelta(days=number)


def _digest(what: str) -> str:
    return sha256(what.encode()).hexdigest()


def _release(number: int, tag: str, attempt: str = "", **changes: Any) -> Identity:
    moved = number > _MOVED_AFTER
    settings: dict[str, Any] = {
        "run": 5_000_000 + number,
        "sha": _digest(f"commit {tag} {attempt}")[:40],
        "ref": f"refs/tags/{tag}",
        "identifier": _IDENTIFIER,
        "owner_identifier": _NEW_OWNER if moved else _OLD_OWNER,
    }
    return workflow_identity(_NEW if moved else _OLD, **settings | changes)


def _releases(chance: random.Random) -> Iterator[Event]:
    for number in range(1, RELEASES + 1):
        at = _day(1 + (number - 1) * (DAYS - 4) / RELEASES)
        tag = f"v1.{number // 10}.{number % 10}"
        trigger = "release" if number % 7 == 0 else "push"
        if number % 6 == 0:
            for candidate in range(1, 1 + chance.randint(1, 3)):
                name = f"{tag}-rc.{candidate}"
                yield Event(at - timedelta(hours=6 - candidate), _release(number, name), _digest(f"artifact {name}"))
        yield Event(at, _release(number, tag, trigger=trigger), _digest(f"artifact {tag}"))
        if number % 8 == 0:  # the job failed after signing and was run again: the same artifact, signed twice
            yield Event(at + timedelta(minutes=40), _release(number, tag, trigger=trigger), _digest(f"artifact {tag}"))
        if number % 12 == 0:  # the tag was deleted and set anew on another commit
            yield Event(at + timedelta(hours=3), _release(number, tag, "again"), _digest(f"artifact {tag} again"))


def _manager() -> Iterator[Event]:
    for week in range(52):
        yield Event(_day(week * 7 + 2.5), Identity(_MANAGER, GOOGLE_ISSUER, {}), _digest(f"announcement {week}"))


def _self_signed(chance: random.Random, genuine: list[Event]) -> Iterator[Event]:
    """Copies of the project's identities in certificates that anybody can make; some name real artifacts, early."""
    for number in range(SELF_SIGNED):
        copied = genuine[chance.randrange(len(genuine))]
        early = number % 100 == 0
        at = copied.at - timedelta(minutes=30) if early else _day(chance.uniform(0.1, DAYS - 0.1))
        digest = copied.digest if early else _digest(f"junk {number}")
        yield Event(at, copied.identity, digest, genuine=False)


def _strangers(chance: random.Random) -> Iterator[Event]:
    """Other projects, some with names that look like ours."""
    similar = ("acme/widget-docs", "acme/widgets", "acme2/widget", "not-acme/widget", "acme-foundation/widget2")
    for number in range(STRANGERS):
        identity = identity_of(number)
        if number % 10 == 0:
            identity = workflow_identity(similar[number // 10 % len(similar)], run=number, sha=_digest("x")[:40])
        yield Event(_day(chance.uniform(0.1, DAYS - 0.1)), identity, _digest(f"stranger {number}"))


def _attacks() -> Iterator[Event]:
    """Twenty of them, seventeen days apart; what was signed was never announced unless the attack says otherwise."""
    for number, (name, identity, reasons, digest) in enumerate(_attack_list()):
        rule = MANAGER_RULE if identity.san == _MANAGER else RELEASE_RULE
        announced = digest is not None or rule == MANAGER_RULE
        expected = frozenset(reasons) | (frozenset() if announced else {"authorised"})
        yield Event(
            _day(20.3 + number * 17),
            identity,
            digest or _digest(f"malware {number}"),
            attack=Attack(name, rule, expected),
        )


def _attack_list() -> list[tuple[str, Identity, set[str], str | None]]:
    early, late = 20, RELEASES  # before and after the move
    called = _release(early, "v1.2.0").claims | {
        "source_repository_uri": "https://github.com/evil/caller",
        "source_repository_identifier": "666",
        "source_repository_owner_identifier": "66",
        "build_config_uri": "https://github.com/evil/caller/.github/workflows/x.yml@refs/tags/v1",
        "source_repository_ref": "refs/tags/v1",
        "github_workflow_ref": "refs/tags/v1",
    }
    foreign = f"https://github.com/evil/ci/.github/workflows/build.yml@{'0' * 40}"
    calling = _release(early, "v1.2.0")
    calling = replace(calling, san=foreign, claims=calling.claims | {"build_signer_uri": foreign})
    pull = "refs/pull/77/merge"
    return [
        ("built from the main branch", _release(early, "", ref="refs/heads/main"), {"ref"}, None),
        ("built from a branch named like a tag", _release(early, "", ref="refs/heads/refs/tags/v9.9.9"), {"ref"}, None),
        ("built from another kind of tag", _release(early, "nightly-1"), {"ref"}, None),
        ("another workflow", _release(early, "v1.2.0", workflow="ci.yml"), {"workflow", "builder"}, None),
        (
            "a workflow with nearly the name",
            _release(early, "v1.2.0", workflow="release.yaml"),
            {"workflow", "builder"},
            None,
        ),
        ("a fork's pull request", _release(early, "", ref=pull, trigger="pull_request"), {"ref", "trigger"}, None),
        (
            "a fork's pull request with the target's token",
            _release(early, "", ref="refs/heads/main", trigger="pull_request_target"),
            {"ref", "trigger"},
            None,
        ),
        ("a stolen token on a self-hosted runner", _release(early, "v1.2.0", runner="self-hosted"), {"runner"}, None),
        ("a run started by hand", _release(early, "v1.2.0", trigger="workflow_dispatch"), {"trigger"}, None),
        ("a scheduled run", _release(early, "v1.2.0", trigger="schedule"), {"trigger"}, None),
        (
            "a repository made again under the same name",
            _release(early, "v1.2.0", identifier="999001"),
            {"repository-identifier"},
            None,
        ),
        (
            "an account registered again under the same name",
            _release(early, "v1.2.0", identifier="999002", owner_identifier="99"),
            {"repository-identifier", "owner-identifier"},
            None,
        ),
        (
            "the repository made private for the occasion",
            _release(late, "v9.0.0", visibility="private"),
            {"visibility"},
            None,
        ),
        (
            "the old name taken after the move",
            _release(early, "v9.1.0", identifier="999003"),
            {"repository-identifier"},
            None,
        ),
        ("another issuer", _release(late, "v9.2.0", issuer="https://gitlab.evil.example"), {"issuer"}, None),
        (
            "another repository calls our workflow",
            Identity(calling_san(), GITHUB_ISSUER, called),
            {"repository-identifier", "owner-identifier", "workflow"},
            None,
        ),
        ("our workflow calls somebody else's builder", calling, {"builder"}, None),
        ("an old artifact signed again", _release(late, "v1.2.0"), {"authorised"}, _digest("artifact v1.2.0")),
        ("an artifact nobody announced", _release(late, "v9.3.0"), set(), None),
        ("the release manager's address under another issuer", Identity(_MANAGER, _GITHUB_LOGIN, {}), {"issuer"}, None),
    ]


def calling_san() -> str:
    """Name of our release workflow, as a certificate carries it when another repository calls the workflow."""
    return _release(20, "v1.2.0").san

"""A simulated year of a busy project: what its maintainers do, what fools do in its name, and twenty real attacks.

Everything is fixed: the same year every time. A certificate stands in a CT log; the entry made with it follows in one
of two Rekor logs, seconds later. Releases go out through tags, are run again, are tagged anew after a mistake, have
candidates before them, and the repository moves to a foundation in summer. Fifty thousand certificates carry the
project's name and come from no authority. Among them are twenty certificates that Fulcio really issued
to a thief; some of these are seen in one of the two places only.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from hashlib import sha256
from typing import Any, Final

from benchmarks.corpus import GITHUB_ISSUER, GOOGLE_ISSUER, Identity, identity_of, workflow_identity

YEAR: Final = datetime(2026, 1, 1, tzinfo=UTC)
DAYS: Final = 364
LEAVE_COUNT: Final = 3
LEAVE_DAYS: Final = 7
RELEASE_RULE: Final = "widget-releases"
MANAGER_RULE: Final = "release-manager"

_OLD, _NEW = "acme/widget", "acme-foundation/widget"
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
      log_entry_within: 1h
      certificate_log_within: 1h
  - id: {MANAGER_RULE}
    title: The release manager's own signatures
    select: {{identity: {_MANAGER}}}
    expect: {{issuer: {GOOGLE_ISSUER}, log_entry_within: 1h, certificate_log_within: 1h}}
"""


@dataclass(frozen=True, slots=True)
class Size:
    """Number of events in the year. The attacks are always the same twenty."""

    releases: int
    self_signed: int
    strangers: int
    announcements: int

    @property
    def moved_after(self) -> int:
        """The release after which the repository moved to the foundation."""
        return self.releases * 3 // 5


WHOLE_YEAR: Final = Size(releases=500, self_signed=50_000, strangers=3_000, announcements=52)


class Where(Enum):
    """Logs that show a certificate: in a CT log, in a Rekor log with a signature, or, as it should be, in both."""

    BOTH = "both"
    CERTIFICATE = "certificate"
    ENTRY = "entry"


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack, the rule that should notice it, and exactly the reasons that the rule should give.

    One page for each: about the entry where there is one, else about the certificate.
    """

    name: str
    rule: str
    reasons: frozenset[str]


@dataclass(frozen=True, slots=True)
class Event:
    """One certificate. `genuine` says that Fulcio issued it; no CT log takes self-made ones."""

    at: datetime
    identity: Identity
    digest: str
    genuine: bool = True
    attack: Attack | None = None
    where: Where = Where.BOTH


@dataclass(frozen=True, slots=True)
class Leave:
    """A digest that the maintainers announced to the monitor before they signed it."""

    digest: str
    expires: datetime


def simulated_year(size: Size = WHOLE_YEAR) -> tuple[list[Event], list[Leave]]:
    """Every certificate in the order of time, and every leave to sign that was given."""
    chance = random.Random(2026)
    genuine = [*_releases(chance, size), *_manager(size.announcements)]
    leaves = [Leave(e.digest, e.at + timedelta(days=LEAVE_DAYS)) for e in genuine if e.identity.san != _MANAGER]
    leaves = [*leaves, Leave(UNSEEN_DIGEST, _day(DAYS))]
    leaves = list({leave.digest: leave for leave in reversed(leaves)}.values())
    impostors = [replace(each, where=Where.ENTRY) for each in _self_signed(chance, genuine, size.self_signed)]
    events = [*genuine, *impostors, *_strangers(chance, size.strangers), *_attacks()]
    return sorted(events, key=lambda event: event.at), leaves


def _day(number: float) -> datetime:
    return YEAR + timedelta(days=number)


def _digest(what: str) -> str:
    return sha256(what.encode()).hexdigest()


def _release(tag: str, attempt: str = "", *, moved: bool, **changes: Any) -> Identity:
    settings: dict[str, Any] = {
        "run": int(_digest(f"run {tag} {attempt}")[:8], 16),
        "sha": _digest(f"commit {tag} {attempt}")[:40],
        "ref": f"refs/tags/{tag}",
        "identifier": _IDENTIFIER,
        "owner_identifier": _NEW_OWNER if moved else _OLD_OWNER,
    }
    return workflow_identity(_NEW if moved else _OLD, **settings | changes)


def _releases(chance: random.Random, size: Size) -> Iterator[Event]:
    for number in range(1, size.releases + 1):
        at, moved = _day(1 + (number - 1) * (DAYS - 4) / size.releases), number > size.moved_after
        tag = f"v1.{number // 10}.{number % 10}"
        trigger = "release" if number % 7 == 0 else "push"
        if number % 6 == 0:
            for candidate in range(1, 1 + chance.randint(1, 3)):
                name = f"{tag}-rc.{candidate}"
                yield Event(
                    at - timedelta(hours=6 - candidate), _release(name, moved=moved), _digest(f"artifact {name}")
                )
        yield Event(at, _release(tag, moved=moved, trigger=trigger), _digest(f"artifact {tag}"))
        if number % 8 == 0:  # the job failed after signing and was run again: the same artifact, signed twice
            again = _release(tag, "again", moved=moved, trigger=trigger)
            yield Event(at + timedelta(minutes=40), again, _digest(f"artifact {tag}"))
        if number % 12 == 0:  # the tag was deleted and set anew on another commit
            anew = _release(tag, "anew", moved=moved)
            yield Event(at + timedelta(hours=3), anew, _digest(f"artifact {tag} anew"))


def _manager(announcements: int) -> Iterator[Event]:
    for number in range(announcements):
        at = _day(2.5 + number * DAYS / announcements)
        yield Event(at, Identity(_MANAGER, GOOGLE_ISSUER, {}), _digest(f"announcement {number}"))


def _self_signed(chance: random.Random, genuine: list[Event], count: int) -> Iterator[Event]:
    """Copies of the project's identities in self-made certificates; some name real artifacts, early."""
    for number in range(count):
        copied = genuine[chance.randrange(len(genuine))]
        early = number % 100 == 0
        at = copied.at - timedelta(minutes=30) if early else _day(chance.uniform(0.1, DAYS - 0.1))
        digest = copied.digest if early else _digest(f"junk {number}")
        yield Event(at, copied.identity, digest, genuine=False)


def _strangers(chance: random.Random, count: int) -> Iterator[Event]:
    """Other projects, some with names that look like ours."""
    similar = ("acme/widget-docs", "acme/widgets", "acme2/widget", "not-acme/widget", "acme-foundation/widget2")
    for number in range(count):
        identity = identity_of(number)
        if number % 10 == 0:
            identity = workflow_identity(similar[number // 10 % len(similar)], run=number, sha=_digest("x")[:40])
        yield Event(_day(chance.uniform(0.1, DAYS - 0.1)), identity, _digest(f"stranger {number}"))


def _attacks() -> Iterator[Event]:
    """Twenty of them, seventeen days apart; what was signed was never announced unless the attack says otherwise."""
    for number, (name, identity, reasons, digest, where) in enumerate(_attack_list()):
        rule = MANAGER_RULE if identity.san == _MANAGER else RELEASE_RULE
        # A certificate names no artifact: whether that was announced is asked of its entry.
        announced = digest is not None or rule == MANAGER_RULE or where is Where.CERTIFICATE
        expected = frozenset(reasons) | (frozenset() if announced else {"authorised"})
        yield Event(
            _day(20.3 + number * 17),
            identity,
            digest or _digest(f"malware {number}"),
            attack=Attack(name, rule, expected),
            where=where,
        )


UNSEEN_DIGEST: Final = _digest("an artifact that was announced and never released")
_Planned = tuple[str, Identity, set[str], str | None, Where]


def _attack_list() -> list[_Planned]:
    both, certificate, entry = Where.BOTH, Where.CERTIFICATE, Where.ENTRY
    pull = "refs/pull/77/merge"
    return [
        ("built from the main branch", _old(ref="refs/heads/main"), {"ref"}, None, both),
        ("built from a branch named like a tag", _old(ref="refs/heads/refs/tags/v9.9.9"), {"ref"}, None, certificate),
        ("built from another kind of tag", _old("nightly-1"), {"ref"}, None, both),
        ("another workflow", _old(workflow="ci.yml"), {"workflow", "builder"}, None, both),
        ("a workflow with nearly the name", _old(workflow="release.yaml"), {"workflow", "builder"}, None, entry),
        ("a fork's pull request", _old(ref=pull, trigger="pull_request"), {"ref", "trigger"}, None, both),
        (
            "a fork's pull request with the target's token",
            _old(ref="refs/heads/main", trigger="pull_request_target"),
            {"ref", "trigger"},
            None,
            certificate,
        ),
        ("a stolen token on a self-hosted runner", _old(runner="self-hosted"), {"runner"}, None, both),
        ("a run started by hand", _old(trigger="workflow_dispatch"), {"trigger"}, None, entry),
        ("a certificate used in secret", _old("v9.4.0"), {"certificate-without-entry"}, None, certificate),
        (
            "a repository made again under the same name",
            _old(identifier="999001"),
            {"repository-identifier"},
            None,
            both,
        ),
        (
            "an account registered again under the same name",
            _old(identifier="999002", owner_identifier="99"),
            {"repository-identifier", "owner-identifier"},
            None,
            certificate,
        ),
        (
            "the repository made private for the occasion",
            _release("v9.0.0", moved=True, visibility="private"),
            {"visibility"},
            None,
            both,
        ),
        (
            "the old name taken after the move",
            _old("v9.1.0", identifier="999003"),
            {"repository-identifier"},
            None,
            both,
        ),
        (
            "another issuer",
            _release("v9.2.0", moved=True, issuer="https://gitlab.evil.example"),
            {"issuer"},
            None,
            both,
        ),
        (
            "another repository calls our workflow",
            _called_by_another(),
            {"repository-identifier", "owner-identifier", "workflow"},
            None,
            both,
        ),
        ("our workflow calls a stranger's builder", _calling_another(), {"builder"}, None, both),
        (
            "an old artifact signed again",
            _release("v1.2.0", moved=True),
            {"authorised"},
            _digest("artifact v1.2.0"),
            both,
        ),
        (
            "an announced artifact signed with a certificate that was kept out of the certificate log",
            _release("v9.3.0", moved=True),
            {"entry-without-certificate"},
            UNSEEN_DIGEST,
            entry,
        ),
        (
            "the release manager's address under another issuer",
            Identity(_MANAGER, _GITHUB_LOGIN, {}),
            {"issuer"},
            None,
            both,
        ),
    ]


def _old(tag: str = "v1.2.0", **changes: Any) -> Identity:
    """A release of the repository under its old name, changed by an attacker."""
    return _release(tag, moved=False, **changes)


def _called_by_another() -> Identity:
    """Our release workflow, as a certificate names it when another repository calls it."""
    ours = _old()
    called = {
        "source_repository_uri": "https://github.com/evil/caller",
        "source_repository_identifier": "666",
        "source_repository_owner_identifier": "66",
        "build_config_uri": "https://github.com/evil/caller/.github/workflows/x.yml@refs/tags/v1",
        "source_repository_ref": "refs/tags/v1",
        "github_workflow_ref": "refs/tags/v1",
    }
    return Identity(ours.san, GITHUB_ISSUER, ours.claims | called)


def _calling_another() -> Identity:
    foreign = f"https://github.com/evil/ci/.github/workflows/build.yml@{'0' * 40}"
    ours = _old()
    return replace(ours, san=foreign, claims=ours.claims | {"build_signer_uri": foreign})

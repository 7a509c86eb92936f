"""A first rule file from a name, or from a name and its past signings, with the alerts to expect of it."""

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from rules.learning import ProposedExpectation
from rules.pattern import GITLAB, Forge, build_issuers, forge_of
from rules.rule_file import DocumentValue, flow, load_rules, rule_id, rule_lines, scalar
from rules.subject import Subject

_REPOSITORY = re.compile(
    r"(?:https://|git@|ssh://git@)?(?:www\.)?((?:[a-z0-9-]+\.)+[a-z]{2,}(?::[0-9]{1,5})?)[/:]([\w.-]+(?:/[\w.-]+)+)",
    re.ASCII | re.IGNORECASE,
)
_OWNER = re.compile(
    r"(?:https://)?(?:www\.)?((?:[a-z0-9-]+\.)+[a-z]{2,}(?::[0-9]{1,5})?)/([\w.-]+)", re.ASCII | re.IGNORECASE
)
_FINGERPRINT = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{40}|SHA256:[A-Za-z0-9+/]{43}")
_EMAIL = re.compile(r"[^@\s\"\\<>{}]{1,64}@[A-Za-z0-9.-]{3,190}")


class Starter(Struct, frozen=True):
    """A first rule file, and one sentence on the alerts to expect of it."""

    text: str
    told: str


def starter(subject: str) -> Starter:
    """First rule for a repository's or an organisation's URL, an e-mail address, or a key's fingerprint.

    Raises `ValueError` for anything else.
    """
    text = subject.strip()
    if _EMAIL.fullmatch(text) and text.isprintable():
        made = _announced(text, {"identity": {"exact": text, "ignore_case": True}}, f"by {text}", of_person=True)
    elif _FINGERPRINT.fullmatch(text):
        key = text if text.startswith("SHA256:") else text.lower()
        made = _announced(f"key-{key[:16]}", {"fingerprint": key}, f"with the key {key}", of_person=False)
    elif match := _REPOSITORY.fullmatch(_without_page(text)):
        made = _repository(match[1].lower(), match[2])
    elif match := _OWNER.fullmatch(_without_page(text)):
        made = _organisation(match[1].lower(), match[2])
    else:
        raise ValueError(
            f"{subject[:100]!r} is neither the URL of a repository or an organisation, nor an e-mail address, nor a "
            "key's SHA-256. Give one such as https://github.com/acme/widget, https://github.com/acme or "
            "release@acme.example"
        )
    written = Starter(_with_comment(made), made.told)
    load_rules(written.text, "the starter rule")
    return written


def learned(subject: Subject, parts: Sequence[ProposedExpectation], past: int) -> Starter:
    """Rule for a name whose expectation was learned from `past` signings (`rules.learning.learn`)."""
    lines = rule_lines(
        rule_id(*subject.title.split("/")),
        f"Signings of {subject.title}",
        subject.select(),
        {part.key: part.expect for part in parts},
    )
    comments = [f"      # {part.key}: {part.sentence} ({part.seen} of {part.past})" for part in parts]
    at = next(number for number, line in enumerate(lines) if line.strip() == "expect:") + 1
    text = "\n".join(["version: 1", "rules:", *lines[:at], *comments, *lines[at:], ""])
    told = (
        f"Told: every signing in the name {subject.title} that is unlike those found so far: there are {past}. "
        "Not told: a signing like them, which a thief of the release workflow could make."
    )
    written = Starter(_with_comment(Starter(text, told)), told)
    load_rules(written.text, "the learned rule")
    return written


def _with_comment(made: Starter) -> str:
    sentences = made.told.split(" Not told:")
    return made.text.replace("rules:\n", f"rules:\n  # {sentences[0]}\n  # Not told:{sentences[1]}\n", 1)


def _without_page(url: str) -> str:
    """The repository's own address, also from the address of a page in it. A certificate names no default port.

    Raises `ValueError` for an address with `.` or `..` in its path: no certificate names one.
    """
    page = re.split(r"[?#]|/-/", url, maxsplit=1)[0].rstrip("/").removesuffix(".git")
    if {".", ".."} & set(page.split("/")):
        raise ValueError(f"{url[:100]!r} has . or .. in its path: write the path that it leads to")
    return re.sub(r"^(https://[^/:]+):443(?=/|$)", r"\1", page, flags=re.IGNORECASE)


def _repository(host: str, path: str) -> Starter:
    forge = forge_of(f"https://{host}/")
    if forge is Forge.GITHUB:
        path = "/".join(path.split("/")[:2]).removesuffix(".git")
    repository, issuers = f"https://{host}/{path}", build_issuers(host)
    exact: DocumentValue = {"exact": repository, "ignore_case": True}
    lines = [
        "version: 1",
        "rules:",
        f"  # Everything signed in the name of {repository}, or by any workflow for it.",
        f"  - id: {scalar(rule_id(*path.split('/')))}",
        f"    title: {scalar('Signings of ' + path)}",
        "    select:",
        "      any:",
        f"        - identity: {flow({'glob': repository + '/*', 'ignore_case': True})}",
        f"        - source_repository_uri: {flow(exact)}",
    ]
    if forge is not Forge.GITHUB and f"https://{host}" != GITLAB:
        lines += [
            "        # Fulcio until September 2026 names gitlab.com here for any host; the issuer is the host.",
            f"        - issuer: {scalar('https://' + host)}",
            f"          source_repository_uri: {flow({'exact': f'{GITLAB}/{path}', 'ignore_case': True})}",
        ]
    lines += ["    # Describe a release here; until then, release tags of this repository count as expected."]
    if len(issuers) > 1:
        lines += ["    # The issuers are those of GitHub Enterprise Server and of GitLab: keep the one of this host."]
    issuer: DocumentValue = issuers if len(issuers) > 1 else issuers[0]
    lines += [
        "    expect:",
        f"      issuer: {flow(issuer)}",
        f"      repository: {flow(exact)}",
        '      ref: {glob: "refs/tags/*"}',
        "      # Survives neither deleting nor replacing the repository, unlike its name.",
        "      same_repository_identifier: true",
    ]
    if forge is not Forge.GITLAB:
        lines += ["      # workflow: .github/workflows/release.yml", "      # trigger: [push, release]"]
    told = (
        f"Told: every signing for {repository}, or by a workflow in it, that is not a build of a tag of this very "
        "repository. Not told: a build of any tag, by any pusher; fill in `workflow`, or run with --learn."
    )
    return Starter("\n".join([*lines, ""]), told)


def _organisation(host: str, owner: str) -> Starter:
    everything = f"https://{host}/{owner}"
    issuers = build_issuers(host)
    issuer: DocumentValue = issuers if len(issuers) > 1 else issuers[0]
    select: DocumentValue = {"exact": everything, "ignore_case": True}
    lines = [
        "version: 1",
        "rules:",
        f"  - id: {scalar(rule_id(owner))}",
        f"    title: {scalar('Signings of ' + owner)}",
        "    select:",
        "      any:",
        f"        - identity: {flow({'glob': everything + '/*', 'ignore_case': True})}",
        f"        - source_repository_owner_uri: {flow(select)}",
        "    expect:",
        f"      issuer: {flow(issuer)}",
        f"      repository: {flow({'glob': everything + '/*', 'ignore_case': True})}",
        '      ref: {glob: "refs/tags/*"}',
        "      # Survives neither deleting nor replacing a repository, unlike its name.",
        "      same_repository_identifier: true",
        "      # The number of the organisation, which a renamed or new account would not have:",
        '      # owner_identifier: "…"',
        "",
    ]
    told = (
        f"Told: every signing for a repository of {everything}, or by a workflow in one, that is not a build of a tag "
        "there. Not told: a build of any tag in any of its repositories; write a rule for each one that matters."
    )
    return Starter("\n".join(lines), told)


def _announced(name: str, select: Mapping[str, DocumentValue], signed: str, *, of_person: bool) -> Starter:
    """Rule for a name or key whose signings say little about themselves: each is news unless it was announced."""
    expect: dict[str, DocumentValue] = {"authorised": []}
    if of_person:
        # A certificate names no artifact: it is judged by the log entry made with it.
        expect |= {"log_entry_within": "1h", "same_issuer": True}
    lines = rule_lines(rule_id(name), f"Signings {signed}", select, expect)
    announce = f"signwatch authorise add {rule_id(name)} sha256:… --for 2h"
    told = (
        f"Told: every signing {signed} that was not announced beforehand with `{announce}`. Not told: a signing of a "
        "digest that was announced, as often and as long as you allowed."
    )
    comments = [
        "      # Or list your releases, and all other signings are reported: digests_from: {file: released-sha256.txt}",
    ]
    return Starter("\n".join(["version: 1", "rules:", *lines, *comments, ""]), told)

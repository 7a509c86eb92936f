"""A first rule file from nothing but the URL of a repository or an e-mail address."""

import re

from rules.rule_file import load_rules
from rules.writing import rule_id, rule_lines, scalar

GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
GITLAB_ISSUER = "https://gitlab.com"

_REPOSITORY = re.compile(
    r"(?:https://|git@|ssh://git@)?(?:www\.)?(github\.com|gitlab\.com)[/:]([\w.-]+(?:/[\w.-]+)+)", re.ASCII
)
_EMAIL = re.compile(r"[^@\s\"\\<>{}]{1,64}@[A-Za-z0-9.-]{3,190}")


def starter_rule(subject: str) -> str:
    """YAML text of a rule file for a repository URL or an e-mail address. Raises `ValueError` for anything else."""
    text = subject.strip()
    if match := _REPOSITORY.fullmatch(_without_page(text)):
        written = _repository(match[1], match[2])
    elif _EMAIL.fullmatch(text) and text.isprintable():
        written = _email(text)
    else:
        raise ValueError(
            f"{subject[:100]!r} is neither the URL of a repository on GitHub or GitLab nor an e-mail address. "
            "Give one such as https://github.com/acme/widget or release@acme.example"
        )
    load_rules(written, "the starter rule")
    return written


def _without_page(url: str) -> str:
    """The repository's own address, where somebody copied that of a page in it."""
    address = re.split(r"[?#]|/-/", url, maxsplit=1)[0]
    host, at, path = address.partition("github.com/")
    found = host + at + "/".join(path.split("/")[:2]) if at else address
    return found.rstrip("/").removesuffix(".git")


def _repository(host: str, path: str) -> str:
    repository = f"https://{host}/{path}"
    github = host == "github.com"
    lines = [
        "version: 1",
        "rules:",
        f"  # Everything signed in the name of {repository}, or by any workflow for it.",
        f"  - id: {scalar(rule_id(*path.split('/')))}",
        f"    title: {scalar('Signings of ' + path)}",
        "    select:",
        "      any:",
        f"        - identity: {{glob: {scalar(repository + '/*')}}}",
        f"        - source_repository_uri: {scalar(repository)}",
        "    # Fill in what a release looks like; until then, release tags of this repository count as expected.",
        "    expect:",
        f"      issuer: {scalar(GITHUB_ISSUER if github else GITLAB_ISSUER)}",
        f"      repository: {scalar(repository)}",
        '      ref: {glob: "refs/tags/*"}',
        "      # Survives neither deleting nor replacing the repository, unlike its name.",
        "      same_repository_identifier: true",
    ]
    if github:
        lines += ["      # workflow: .github/workflows/release.yml", "      # trigger: [push, release]"]
    return "\n".join([*lines, ""])


def _email(address: str) -> str:
    lines = rule_lines(
        rule_id(address),
        f"Signings of {address}",
        {"identity": {"exact": address, "ignore_case": True}},
        {"same_issuer": True},
    )
    return "\n".join(
        [
            "version: 1",
            "rules:",
            *lines,
            "      # A person's signing says little about itself. List what you release, and the rest is news:",
            "      # digests_from: {file: released-sha256.txt}",
            "",
        ]
    )

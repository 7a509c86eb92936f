"""A first rule file from nothing but the URL of a repository or an e-mail address."""

import re

from rules.forges import GITLAB, Forge, build_issuers, forge_of
from rules.rule_file import load_rules
from rules.writing import Value, flow, rule_id, rule_lines, scalar

_REPOSITORY = re.compile(
    r"(?:https://|git@|ssh://git@)?(?:www\.)?((?:[a-z0-9-]+\.)+[a-z]{2,}(?::[0-9]{1,5})?)[/:]([\w.-]+(?:/[\w.-]+)+)",
    re.ASCII | re.IGNORECASE,
)
_EMAIL = re.compile(r"[^@\s\"\\<>{}]{1,64}@[A-Za-z0-9.-]{3,190}")


def starter_rule(subject: str) -> str:
    """YAML text of a rule file for a repository URL or an e-mail address. Raises `ValueError` for anything else."""
    text = subject.strip()
    if _EMAIL.fullmatch(text) and text.isprintable():
        written = _email(text)
    elif match := _REPOSITORY.fullmatch(_without_page(text)):
        written = _repository(match[1].lower(), match[2])
    else:
        raise ValueError(
            f"{subject[:100]!r} is neither the URL of a repository nor an e-mail address. "
            "Give one such as https://github.com/acme/widget or release@acme.example"
        )
    load_rules(written, "the starter rule")
    return written


def _without_page(url: str) -> str:
    """The repository's own address, also from the address of a page in it."""
    return re.split(r"[?#]|/-/", url, maxsplit=1)[0].rstrip("/").removesuffix(".git")


def _repository(host: str, path: str) -> str:
    forge = forge_of(f"https://{host}/")
    if forge is Forge.GITHUB:
        path = "/".join(path.split("/")[:2]).removesuffix(".git")
    repository, issuers = f"https://{host}/{path}", build_issuers(host)
    exact: Value = {"exact": repository, "ignore_case": True}
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
    lines += ["    # Fill in what a release looks like; until then, release tags of this repository count as expected."]
    if len(issuers) > 1:
        lines += ["    # The issuers are those of GitHub Enterprise Server and of GitLab: keep the one of this host."]
    issuer: Value = issuers if len(issuers) > 1 else issuers[0]
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

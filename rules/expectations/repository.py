"""The repository the build was for."""

from collections.abc import Iterator
from dataclasses import replace

from rules.pattern import GITHUB, Pattern, github_repository, names_ignore_case
from rules.rule import Case, ClaimExpectation


class RepositoryExpectation(ClaimExpectation):
    """`repository: https://github.com/acme/widget`, or `acme/widget` for GitHub."""

    __slots__ = ()
    id = "repository"
    key = "repository"
    claims = ("source_repository_uri", "github_workflow_repository")
    sentence = "The build was for a repository that the rule does not list."

    def found(self, case: Case) -> Iterator[tuple[str, str]]:
        """Both claims as URIs on the host that the certificate means."""
        if case.repository is not None:
            yield "source_repository_uri", case.repository
        if case.signer is not None and (older := github_repository(case.signer)) is not None:
            yield "github_workflow_repository", older

    def accepts(self, pattern: Pattern, value: str) -> bool:
        """GitHub repositories compare as `owner/name` when the rule writes them so; known hosts ignore case."""
        if names_ignore_case(value):
            pattern = replace(pattern, ignore_case=True)
        return pattern.matches(value if "://" in pattern.text else value.removeprefix(GITHUB + "/"))

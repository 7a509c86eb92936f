"""The repository the build was for."""

from rules.expectations.claim import ClaimExpectation
from rules.pattern import Pattern

_GITHUB = "https://github.com/"


class RepositoryExpectation(ClaimExpectation):
    """`repository: https://github.com/acme/widget`, or `acme/widget` for GitHub."""

    __slots__ = ()
    id = "repository"
    key = "repository"
    claims = ("source_repository_uri", "github_workflow_repository")
    sentence = "The build was for a repository that the rule does not list."

    def accepts(self, pattern: Pattern, value: str) -> bool:
        """GitHub repositories compare as `owner/name` when the rule writes them so."""
        if "://" in pattern.text:
            return pattern.matches(value if "://" in value else _GITHUB + value)
        return pattern.matches(value.removeprefix(_GITHUB))

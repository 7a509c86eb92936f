"""The number of the repository, which a new repository of the same name does not have."""

from rules.rule import ClaimExpectation


class RepositoryIdentifierExpectation(ClaimExpectation):
    """`repository_identifier: "123456789"`."""

    __slots__ = ()
    id = "repository-identifier"
    key = "repository_identifier"
    claims = ("source_repository_identifier",)
    sentence = "The repository is another one than the rule lists: deleted and made again, or renamed, or transferred."

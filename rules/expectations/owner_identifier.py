"""The number of the account that owns the repository, which a new account of the same name does not have."""

from rules.rule import ClaimExpectation


class OwnerIdentifierExpectation(ClaimExpectation):
    """`owner_identifier: "4711"`."""

    __slots__ = ()
    id = "owner-identifier"
    key = "owner_identifier"
    claims = ("source_repository_owner_identifier",)
    sentence = "The repository belongs to another account than the rule lists."

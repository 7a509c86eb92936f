"""The issuer that vouched for the identity."""

from rules.rule import ClaimExpectation


class IssuerExpectation(ClaimExpectation):
    """`issuer: https://token.actions.githubusercontent.com`."""

    __slots__ = ()
    id = "issuer"
    key = "issuer"
    claims = ("issuer",)
    sentence = "The identity was vouched for by an issuer that the rule does not list."

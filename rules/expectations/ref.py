"""The branch or tag that was built."""

from rules.rule import ClaimExpectation


class RefExpectation(ClaimExpectation):
    """`ref: {glob: "refs/tags/v*"}`."""

    __slots__ = ()
    id = "ref"
    key = "ref"
    claims = ("source_repository_ref", "github_workflow_ref")
    sentence = "It was built from a branch or tag that the rule does not list."

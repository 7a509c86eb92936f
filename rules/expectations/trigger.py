"""The event that started the build."""

from rules.rule import ClaimExpectation


class TriggerExpectation(ClaimExpectation):
    """`trigger: [push, release]`."""

    __slots__ = ()
    id = "trigger"
    key = "trigger"
    claims = ("build_trigger", "github_workflow_trigger")
    sentence = "The build was started by an event that the rule does not list."

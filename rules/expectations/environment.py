"""The deployment environment the job ran in, with its own protection rules."""

from rules.rule import ClaimExpectation


class EnvironmentExpectation(ClaimExpectation):
    """`environment: release`."""

    __slots__ = ()
    id = "environment"
    key = "environment"
    claims = ("deployment_environment",)
    sentence = "The job ran outside the deployment environment that the rule lists."

"""The machines that the build ran on: the platform's own or others."""

from rules.rule import ClaimExpectation


class RunnerExpectation(ClaimExpectation):
    """`runner: github-hosted`."""

    __slots__ = ()
    id = "runner"
    key = "runner"
    claims = ("runner_environment",)
    sentence = "The build ran on a kind of machine that the rule does not list."

"""The build instructions that hold the signing identity: the called workflow, where one workflow calls another."""

from rules.pattern import Pattern, spelled_like
from rules.rule import ClaimExpectation, without_ref


class BuilderExpectation(ClaimExpectation):
    """`builder: https://github.com/acme/ci/.github/workflows/build.yml`, compared without its ref unless it has one."""

    __slots__ = ()
    id = "builder"
    key = "builder"
    claims = ("build_signer_uri",)
    sentence = "It was signed by build instructions that the rule does not list."

    def accepts(self, pattern: Pattern, value: str) -> bool:
        """Compare with and without the ref."""
        pattern = spelled_like(pattern, value)
        return pattern.matches(value) or pattern.matches(without_ref(value))

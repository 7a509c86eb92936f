"""The workflow that started the build."""

from collections.abc import Iterator

from rules.pattern import Pattern, spelled_like
from rules.rule import ABSENT, Case, Check, ClaimExpectation, without_ref


class WorkflowExpectation(ClaimExpectation):
    """`workflow: .github/workflows/release.yml`, a path in the source repository, or a whole URI without its ref."""

    __slots__ = ()
    id = "workflow"
    key = "workflow"
    claims = ("build_config_uri",)
    sentence = "The build was started by a workflow that the rule does not list."

    def checks(self, case: Case) -> Iterator[Check]:
        """Compare the top-level workflow: a called one can be called by anybody."""
        expected = " or ".join(str(pattern) for pattern in self.patterns)
        uri = case.claim("build_config_uri")
        if uri is None:
            sentence = f"{self.sentence} The certificate does not say, so it counts as unexpected."
            yield Check("build_config_uri", expected, ABSENT, ok=False, sentence=sentence)
            return
        ok = any(workflow_matches(pattern, uri, case.repository) for pattern in self.patterns)
        yield Check("build_config_uri", expected, uri, ok, self.sentence)


def workflow_matches(pattern: Pattern, uri: str, repository: str | None) -> bool:
    """Whether a workflow claim (`https://host/owner/name/path@ref`) is the one a pattern means."""
    workflow = without_ref(uri)
    if "://" in pattern.text:
        pattern = spelled_like(pattern, uri)
        return pattern.matches(workflow) or pattern.matches(uri)
    # GitLab puts two slashes between the project and the path.
    if repository is None or not workflow.startswith(repository + "/"):
        return False
    path = workflow[len(repository) + 1 :]
    return pattern.matches(path) or pattern.matches(path.removeprefix("/"))

"""Expectations on what the certificate says of the build and its repository: one class for each claim."""

from collections.abc import Iterator

from msgspec.structs import replace

from rules.pattern import GITHUB, Pattern, any_of, github_repository, names_ignore_case, spelled_like
from rules.rule import ABSENT, Case, Check, ClaimExpectation, Reason


class WorkflowExpectation(ClaimExpectation, frozen=True):
    """The workflow that started the build: `workflow: .github/workflows/release.yml`.

    A path in the source repository, or a whole URI without its ref.
    """

    id = "workflow"
    key = "workflow"
    claims = ("build_config_uri",)
    sentence = "The build was started by a workflow that the rule does not list."

    def unmet(self, case: Case) -> Iterator[Reason]:
        """The reasons that `checks` gives."""
        return (
            Reason(self.id, check.sentence, check.expected, check.found) for check in self.checks(case) if not check.ok
        )

    def checks(self, case: Case) -> Iterator[Check]:
        """Compare the top-level workflow: a called one can be called by any repository."""
        expected = any_of(self.patterns)
        uri = case.claim("build_config_uri")
        if uri is None:
            sentence = f"{self.sentence} The certificate lacks this claim, so it counts as unexpected."
            yield Check("build_config_uri", expected, ABSENT, ok=False, sentence=sentence)
            return
        ok = any(workflow_matches(pattern, uri, case.repository) for pattern in self.patterns)
        yield Check("build_config_uri", expected, uri, ok, self.sentence)


def workflow_matches(pattern: Pattern, uri: str, repository: str | None) -> bool:
    """True if a workflow claim (`https://host/owner/name/path@ref`) matches a pattern."""
    workflow = without_ref(uri)
    if "://" in pattern.text:
        pattern = spelled_like(pattern, uri)
        return pattern.matches(workflow) or pattern.matches(uri)
    # GitLab puts two slashes between the project and the path.
    if repository is None or not workflow.startswith(repository + "/"):
        return False
    path = workflow[len(repository) + 1 :]
    return pattern.matches(path) or pattern.matches(path.removeprefix("/"))


class BuilderExpectation(ClaimExpectation, frozen=True):
    """The build instructions that hold the signing identity: the called workflow, where one workflow calls another.

    `builder: https://github.com/acme/ci/.github/workflows/build.yml`, compared without its ref unless it has one.
    """

    id = "builder"
    key = "builder"
    claims = ("build_signer_uri",)
    sentence = "It was signed by build instructions that the rule does not list."

    def accepts(self, pattern: Pattern, value: str) -> bool:
        """Compare with and without the ref."""
        pattern = spelled_like(pattern, value)
        return pattern.matches(value) or pattern.matches(without_ref(value))


class RefExpectation(ClaimExpectation, frozen=True):
    """The branch or tag that was built: `ref: {glob: "refs/tags/v*"}`."""

    id = "ref"
    key = "ref"
    claims = ("source_repository_ref", "github_workflow_ref")
    sentence = "It was built from a branch or tag that the rule does not list."


class TriggerExpectation(ClaimExpectation, frozen=True):
    """The event that started the build: `trigger: [push, release]`."""

    id = "trigger"
    key = "trigger"
    claims = ("build_trigger", "github_workflow_trigger")
    sentence = "The build was started by an event that the rule does not list."


class RunnerExpectation(ClaimExpectation, frozen=True):
    """The machines that the build ran on: the platform's own or others: `runner: github-hosted`."""

    id = "runner"
    key = "runner"
    claims = ("runner_environment",)
    sentence = "The build ran on a kind of machine that the rule does not list."


class RepositoryExpectation(ClaimExpectation, frozen=True):
    """The repository the build was for: `repository: https://github.com/acme/widget`, or `acme/widget` for GitHub."""

    id = "repository"
    key = "repository"
    claims = ("source_repository_uri", "github_workflow_repository")
    sentence = "The build was for a repository that the rule does not list."

    def found(self, case: Case) -> Iterator[tuple[str, str]]:
        """Both claims as URIs on the host that the certificate means."""
        if case.repository is not None:
            yield "source_repository_uri", case.repository
        if case.signer is not None and (older := github_repository(case.signer)) is not None:
            yield "github_workflow_repository", older

    def accepts(self, pattern: Pattern, value: str) -> bool:
        """GitHub repositories compare as `owner/name` when the rule writes them so; known hosts ignore case."""
        if names_ignore_case(value):
            pattern = replace(pattern, ignore_case=True)
        return pattern.matches(value if "://" in pattern.text else value.removeprefix(GITHUB + "/"))


class RepositoryIdentifierExpectation(ClaimExpectation, frozen=True):
    """The number of the repository, which a new one of its name does not have: `repository_identifier: "123456789"`."""

    id = "repository-identifier"
    key = "repository_identifier"
    claims = ("source_repository_identifier",)
    sentence = "The repository is another one than the rule lists: deleted and made again, or renamed, or transferred."


class OwnerIdentifierExpectation(ClaimExpectation, frozen=True):
    """The number of the owner, which a new account of its name does not have: `owner_identifier: "4711"`."""

    id = "owner-identifier"
    key = "owner_identifier"
    claims = ("source_repository_owner_identifier",)
    sentence = "The repository belongs to another account than the rule lists."


class VisibilityExpectation(ClaimExpectation, frozen=True):
    """Visibility of the repository when it signed: `visibility: public`."""

    id = "visibility"
    key = "visibility"
    claims = ("source_repository_visibility",)
    sentence = "The repository had a visibility that the rule does not list."


class EnvironmentExpectation(ClaimExpectation, frozen=True):
    """The deployment environment the job ran in, with its own protection rules: `environment: release`."""

    id = "environment"
    key = "environment"
    claims = ("deployment_environment",)
    sentence = "The job ran outside the deployment environment that the rule lists."


class IssuerExpectation(ClaimExpectation, frozen=True):
    """The issuer that vouched for the identity: `issuer: https://token.actions.githubusercontent.com`."""

    id = "issuer"
    key = "issuer"
    claims = ("issuer",)
    sentence = "The identity has a certificate of an issuer that the rule does not list."


def without_ref(uri: str) -> str:
    """A workflow URI (`https://host/owner/name/path@ref`) without its ref."""
    # A workflow file lies directly in its folder, so its name cannot hold "@refs/"; a branch name can.
    path, at, _ = uri.partition("@refs/")
    return path if at else uri.rpartition("@")[0] or uri

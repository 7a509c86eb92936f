"""Implied by a rule about a workflow that names no repository: no foreign build borrowed the identity."""

from collections.abc import Iterator
from typing import Final

from rules.rule import Case, Reason
from rules.selection import constrains

_BUILD_KEYS: Final = frozenset({"workflow", "ref", "trigger", "runner", "environment", "visibility"})
_REPOSITORY_KEYS: Final = frozenset({"repository", "repository_identifier", "owner_identifier"})
_REPOSITORY_FIELDS: Final = frozenset(
    {
        "source_repository_uri",
        "source_repository_identifier",
        "source_repository_owner_uri",
        "source_repository_owner_identifier",
        "github_workflow_repository",
    }
)


def implied_repository(case: Case) -> Iterator[Reason]:
    """A reason when the build was for another repository than the one the identity names.

    A workflow that others may call signs under its own name for each caller: ref and trigger are then the
    caller's, and its ref may well be called `v1`.
    """
    keys = {expectation.key for expectation in case.rule.expect}
    if not keys & _BUILD_KEYS or keys & _REPOSITORY_KEYS or constrains(case.rule.select, _REPOSITORY_FIELDS):
        return
    repository = case.repository
    if repository is None or any(identity.startswith(repository + "/") for identity in case.identities):
        return
    sentence = "Another repository called this workflow. If it may, list it under `repository`."
    yield Reason("repository", sentence, "the repository the identity names", repository)

"""The explicit list of kinds a rule's `expect` may name."""

from typing import Final

from rules.expectations.authorised import AuthorisedExpectation
from rules.expectations.claims import (
    BuilderExpectation,
    EnvironmentExpectation,
    IssuerExpectation,
    OwnerIdentifierExpectation,
    RefExpectation,
    RepositoryExpectation,
    RepositoryIdentifierExpectation,
    RunnerExpectation,
    TriggerExpectation,
    VisibilityExpectation,
    WorkflowExpectation,
)
from rules.expectations.digests import DigestsExpectation, DigestsFromExpectation
from rules.expectations.images import ImagesExpectation
from rules.expectations.rate import RateExpectation
from rules.expectations.time_windows import TimeWindowsExpectation
from rules.expectations.unchanged import NewIssuerExpectation, SameRepositoryIdentifierExpectation
from rules.expectations.within import CertificateLogWithinExpectation, LogEntryWithinExpectation
from rules.rule import Expectation
from settings.document import Node
from settings.reading import Fields

KINDS: Final[tuple[type[Expectation], ...]] = (
    WorkflowExpectation,
    BuilderExpectation,
    RefExpectation,
    TriggerExpectation,
    RunnerExpectation,
    RepositoryExpectation,
    RepositoryIdentifierExpectation,
    OwnerIdentifierExpectation,
    VisibilityExpectation,
    EnvironmentExpectation,
    IssuerExpectation,
    DigestsExpectation,
    DigestsFromExpectation,
    ImagesExpectation,
    AuthorisedExpectation,
    TimeWindowsExpectation,
    RateExpectation,
    NewIssuerExpectation,
    SameRepositoryIdentifierExpectation,
    LogEntryWithinExpectation,
    CertificateLogWithinExpectation,
)
BY_KEY: Final = {kind.key: kind for kind in KINDS}


def read_expect(node: Node) -> tuple[Expectation, ...]:
    """Read an `expect` mapping: every expectation in it must be met."""
    fields = Fields(node, BY_KEY, "expect")
    return tuple(BY_KEY[key.text].read(value) for key, value in fields.node.entries)

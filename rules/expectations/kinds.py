"""The explicit list of kinds a rule's `expect` may name."""

from typing import Final

from rules.expectations.authorised import AuthorisedExpectation
from rules.expectations.builder import BuilderExpectation
from rules.expectations.certificate_log_within import CertificateLogWithinExpectation
from rules.expectations.digests import DigestsExpectation, DigestsFromExpectation
from rules.expectations.environment import EnvironmentExpectation
from rules.expectations.images import ImagesExpectation
from rules.expectations.issuer import IssuerExpectation
from rules.expectations.log_entry_within import LogEntryWithinExpectation
from rules.expectations.new_issuer import NewIssuerExpectation
from rules.expectations.owner_identifier import OwnerIdentifierExpectation
from rules.expectations.rate import RateExpectation
from rules.expectations.ref import RefExpectation
from rules.expectations.repository import RepositoryExpectation
from rules.expectations.repository_identifier import RepositoryIdentifierExpectation
from rules.expectations.runner import RunnerExpectation
from rules.expectations.same_repository_identifier import SameRepositoryIdentifierExpectation
from rules.expectations.time_windows import TimeWindowsExpectation
from rules.expectations.trigger import TriggerExpectation
from rules.expectations.visibility import VisibilityExpectation
from rules.expectations.workflow import WorkflowExpectation
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

"""The canary's own rule: signings of one identity, each announced by the monitor before it makes it."""

from typing import Final

from rules.expectations.authorised import AuthorisedExpectation
from rules.pattern import exact
from rules.rule import CT_KINDS, Rule
from rules.selection import AllOf, FieldMatch, Not

CANARY: Final = "signwatch:canary"
"""Id of the canary's rule. No rule of a file can have this id, because their ids hold no colon."""


def canary_rule(identity: str, issuer: str) -> Rule:
    """Log entries signed by the canary's identity; an entry with an unannounced digest is unexpected.

    Certificates in CT logs are left out: they name no digest, and the rule judges the entry made with the certificate.
    """
    return Rule(
        id=CANARY,
        title="Signings of the canary",
        select=AllOf(
            (
                FieldMatch("identity", (exact(identity),)),
                FieldMatch("issuer", (exact(issuer),)),
                Not(FieldMatch("kind", tuple(exact(kind) for kind in CT_KINDS))),
            )
        ),
        expect=(AuthorisedExpectation(()),),
        backscan="none",
    )

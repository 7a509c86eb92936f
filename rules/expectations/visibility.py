"""Whether the repository was public when it signed."""

from rules.rule import ClaimExpectation


class VisibilityExpectation(ClaimExpectation):
    """`visibility: public`."""

    __slots__ = ()
    id = "visibility"
    key = "visibility"
    claims = ("source_repository_visibility",)
    sentence = "The repository had a visibility that the rule does not list."

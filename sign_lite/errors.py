"""Errors that end a command, by owner."""


class SignLiteError(Exception):
    """Root of the errors that this program raises on purpose, with their exit code."""

    exit_code = 3


class VerificationFailed(SignLiteError):
    """The bundle does not prove the wanted signature."""

    exit_code = 1


class Misuse(SignLiteError):
    """A file, option or token cannot be used as given."""

    exit_code = 2


class Refused(SignLiteError):
    """A service answered, and said no: another try with the same input ends the same way."""

    exit_code = 3


class Unreachable(SignLiteError):
    """A service did not answer, or not in time."""

    exit_code = 3

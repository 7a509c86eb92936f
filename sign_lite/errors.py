"""Errors that end a command, by owner."""


class SignLiteError(Exception):
    """Base class of this program's errors, with their exit code."""

    exit_code = 3


class VerificationFailed(SignLiteError):
    """The bundle does not prove the wanted signature."""

    exit_code = 1


class Misuse(SignLiteError):
    """A file, option or token cannot be used as given."""

    exit_code = 2


class ServiceRefused(SignLiteError):
    """A service refused the request; another try with the same input would fail too."""

    exit_code = 3


class ServiceUnreachable(SignLiteError):
    """A service did not answer, or not in time."""

    exit_code = 3


class InstallationFault(SignLiteError):
    """A part of this installation is missing or damaged."""

    exit_code = 3

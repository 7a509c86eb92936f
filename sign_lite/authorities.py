"""Authorities for TLS: those of the environment, as the `sigstore` package takes them, else the usual ones."""

import os
import ssl
from pathlib import Path

from outbound.named_authorities import believing
from outbound.transport import NoAuthorities, believed
from sign_lite.errors import InstallationFault, Misuse, SignLiteError

_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def named_authorities() -> str | None:
    """File or folder of the authorities that the environment names."""
    return next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), None)


def authorities_fault() -> SignLiteError | None:
    """Reason why no server can be asked over TLS from here, or `None`: a library's error names the server alone."""
    named = named_authorities()
    try:
        if named is None:
            believed(None)()
        elif not Path(named).is_dir():
            believing(file=named)
    except NoAuthorities as error:
        return without_authorities(error)
    except OSError as error:
        return unusable_authorities(named, error)
    return None


def without_authorities(error: NoAuthorities) -> SignLiteError:
    """The usual authorities are missing: a fault of this installation, and of no server and no setting."""
    return InstallationFault(
        f"no server can be asked over TLS: {error}. Install the Python package `certifi` again, or name a PEM file "
        f"with authorities in {_VARIABLES[0]}."
    )


def unusable_authorities(named: str | None, error: OSError) -> SignLiteError:
    """The environment names a file that holds no authorities."""
    why = "no certificate in it" if isinstance(error, ssl.SSLError) else error.strerror or str(error)
    return Misuse(
        f"{named}: cannot be used as authorities for TLS: {why}. Name a PEM file with authorities in {_VARIABLES[0]}, "
        "or unset it."
    )

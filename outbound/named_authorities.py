"""TLS contexts that believe the certificate authorities an operator names, and no others."""

import ssl
from pathlib import Path


def believing(*, file: Path | str | None = None, pem: str = "") -> ssl.SSLContext:
    """Believe the certificates of a PEM file or text. Raises `OSError` (`ssl.SSLError` is one) when it holds none.

    Python 3.13 made OpenSSL's strict checks of X.509 the default. They refuse an authority without a key usage, as
    `openssl req -x509` makes it. An authority that its operator named is believed on every version alike.
    """
    context = ssl.create_default_context(cafile=file, cadata=pem or None)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context

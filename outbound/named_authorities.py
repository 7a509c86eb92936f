"""TLS contexts that trust only the certificate authorities that an operator names."""

import ssl
from pathlib import Path


def believing(*, file: Path | str | None = None, pem: str = "") -> ssl.SSLContext:
    """A context that trusts the certificates of a PEM file or text.

    Raises `OSError` (`ssl.SSLError` is one) when it holds none.

    Python 3.13 made OpenSSL's strict checks of X.509 the default. They refuse an authority without a key usage, as
    `openssl req -x509` makes it. A named authority is trusted on every version.
    """
    context = ssl.create_default_context(cafile=file, cadata=pem or None)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context

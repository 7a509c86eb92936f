"""Everything that `cryptography` raises for a certificate that it refuses, while loading or while reading its parts."""

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

X509_ERRORS: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    Warning,  # where warnings are errors
)

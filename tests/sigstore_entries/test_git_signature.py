"""A commit's signature holds a stranger's certificate: what cannot be read of it is a refusal."""

import pytest

from sigstore_entries.git_signature import GitSignature, NoGitSignature, verified
from tests.support import entries as make

CERTIFICATE = make.make_certificate(make.make_ca())


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        (CERTIFICATE, "did not make its signature"),
        (CERTIFICATE.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1), "cannot be read: 7 is not a valid"),
        (CERTIFICATE[:-1], "cannot be read"),
        (b"", "cannot be read"),
    ],
    ids=["a control that can be read", "version 8", "cut short", "empty"],
)
def test_a_certificate_that_cannot_be_read_is_no_signature(certificate: bytes, why: str) -> None:
    with pytest.raises(NoGitSignature, match=why):
        verified(GitSignature(b"payload", (certificate,), b"attributes", b"signature", None))

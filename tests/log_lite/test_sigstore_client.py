"""sigstore-python's own log clients submit, and its own verifier accepts what they get."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from sigstore._internal.rekor import RekorLogSubmitter
from sigstore._internal.rekor.client import RekorClient
from sigstore._internal.rekor.client_v2 import RekorV2Client
from sigstore._internal.trust import KeyringPurpose
from sigstore.hashes import Hashed
from sigstore.models import TransparencyLogEntry, TrustedRoot
from sigstore_models.common.v1 import HashAlgorithm

from tests.log_lite.client import LogClient
from tests.support.entries import make_ca, make_certificate, make_key


def trusted_root(log: LogClient, folder: Path) -> TrustedRoot:
    trust = log.trust()
    document = {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": trust["tlogs"],
        "ctlogs": trust["ctlogs"],
        "certificateAuthorities": [],
        "timestampAuthorities": [],
    }
    path = folder / "trusted_root.json"
    path.write_text(json.dumps(document))
    return TrustedRoot.from_file(str(path))


@pytest.mark.parametrize("make", [RekorClient, RekorV2Client])
def test_entries_submitted_by_sigstore_python_verify_with_sigstore_python(
    log: LogClient, tmp_path: Path, make: Any
) -> None:
    key = make_key(make.__name__)
    certificate = x509.load_der_x509_certificate(make_certificate(make_ca(), key=key))
    artifact = make.__name__.encode()
    hashed = Hashed(algorithm=HashAlgorithm.SHA2_256, digest=sha256(artifact).digest())
    client: RekorLogSubmitter = make(log.url)
    signature = key.sign(artifact, ec.ECDSA(SHA256()))
    request = client._build_hashed_rekord_request(hashed, signature, certificate)
    entry: TransparencyLogEntry = client.create_entry(request)
    entry._verify(trusted_root(log, tmp_path).rekor_keyring(KeyringPurpose.VERIFY))

"""A signing goes from a worker process to the daemon unchanged."""

import copy
import pickle
from types import MappingProxyType

from sigstore_entries.entry import decode_rekor
from sigstore_entries.signing import EntryRef, Signing
from tests.support.entries import hashedrekord_v1, make_ca, make_github_certificate


def test_a_signing_survives_pickling_and_copying_and_stays_read_only() -> None:
    signing = decode_rekor(hashedrekord_v1(make_github_certificate(make_ca())), EntryRef("log", 7))
    assert isinstance(signing, Signing)
    for travelled in (pickle.loads(pickle.dumps(signing)), copy.deepcopy(signing)):
        assert travelled == signing
        assert travelled.signers[0].claims["github_workflow_repository"] == "acme/widget"
        assert isinstance(travelled.signers[0].claims, MappingProxyType)

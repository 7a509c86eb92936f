"""Reading a trusted root: keys pinned to their logs, protocols told by key ids, and nothing taken that is not one."""

import base64
import json
import re
from hashlib import sha256
from typing import Any

import pytest

from monitor.model.errors import OwnFault
from monitor.model.log_source import LogApi
from monitor.trust.signing_configs import read_signing_config
from monitor.trust.trust_root import MAX_SIZE, read_trust_root
from tests.support.entries import make_ca
from tests.support.misbehaving_log import ecdsa_key, ed25519_key, spki_of
from tlog.note import tile_log_key

EC, ED = spki_of(ecdsa_key(7)), spki_of(ed25519_key(5))
CA = make_ca()


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def log(url: str, spki: bytes, log_id: bytes, **more: Any) -> dict[str, Any]:
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": b64(spki),
            "keyDetails": "PKIX_ECDSA_P256_SHA_256",
            "validFor": {"start": "2021-01-12T11:53:27Z", "end": "2022-10-31T23:59:59.999Z"},
        },
        "logId": {"keyId": b64(log_id)},
        **more,
    }


def root(**changes: Any) -> dict[str, Any]:
    return {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [
            log("https://rekor.example.org", EC, sha256(EC).digest()),
            log("https://log2031.example.org", ED, tile_log_key("log2031.example.org", ED).log_id),
        ],
        "certificateAuthorities": [
            {
                "subject": {"organization": "o", "commonName": "c"},
                "uri": "https://ca.example.org",
                "certChain": {"certificates": [{"rawBytes": b64(each)} for each in CA.chain]},
                "validFor": {"start": "2021-03-07T03:20:29Z"},
            }
        ],
        "ctlogs": [log("https://ct.example.org/2031", EC, sha256(EC).digest())],
        "timestampAuthorities": [],
        **changes,
    }


def read(document: Any) -> Any:
    return read_trust_root(json.dumps(document).encode())


def test_logs_authorities_and_periods_are_read() -> None:
    trust = read(root(unknownFieldOfTheFuture=1))
    assert [(each.name, each.apis) for each in trust.logs] == [
        ("rekor.example.org", (LogApi.REKOR_V1, LogApi.REKOR_V2)),
        ("log2031.example.org", (LogApi.REKOR_V2,)),
        ("ct.example.org/2031", (LogApi.CT_RFC6962, LogApi.CT_STATIC)),
    ]
    assert trust.logs[0].valid_until.isoformat() == "2022-10-31T23:59:59.999000+00:00"
    assert trust.authorities[0].chain == CA.chain
    assert [key.spki for key in trust.ct_keys()] == [EC]
    assert trust.skipped == ()


def test_the_fingerprint_is_of_the_file_as_it_is() -> None:
    raw = json.dumps(root()).encode()
    assert read_trust_root(raw).fingerprint == sha256(raw).hexdigest()
    assert read_trust_root(raw + b"\n").fingerprint != sha256(raw).hexdigest()


def test_an_ed25519_key_under_a_plain_hash_is_rekor_v1s() -> None:
    trust = read(root(tlogs=[log("https://x.example.org", ED, sha256(ED).digest())]))
    assert trust.logs[0].apis == (LogApi.REKOR_V1,)


@pytest.mark.parametrize(
    "odd",
    [
        log("https://x.example.org", b"not a key", sha256(b"not a key").digest()),
        log("https://x.example.org", EC, sha256(EC).digest(), hashAlgorithm="SHA3_256"),
        log("ftp://x.example.org", EC, sha256(EC).digest()),
        log("", EC, sha256(EC).digest()),
        log("https://x.example.org", EC, b""),
    ],
    ids=["key", "hash", "scheme", "no URL", "ct id"],
)
def test_a_log_of_an_unknown_kind_is_shown_as_skipped_and_the_others_stay(odd: dict[str, Any]) -> None:
    good = root()["ctlogs"]
    trust = read(root(ctlogs=[odd, *good]))
    assert [each.name for each in trust.logs][-1] == "ct.example.org/2031"
    assert len(trust.logs) == 3
    assert len(trust.skipped) == 1


def test_a_log_is_found_by_url_protocol_and_id_and_never_by_guess() -> None:
    url = "http://localhost:3000"
    trust = read(
        root(tlogs=[log(url, EC, sha256(EC).digest()), log(url + "/", ED, tile_log_key("localhost", ED).log_id)])
    )
    assert trust.log_at(url, LogApi.REKOR_V1).spki == EC
    assert trust.log_at(url + "/", LogApi.REKOR_V2).spki == ED
    assert trust.log_at(url, log_id=sha256(EC).digest()).spki == EC
    for arguments in ({"url": url}, {"url": "http://localhost:3001"}, {"url": url, "log_id": b"x"}):
        with pytest.raises(OwnFault, match=r"keys? for a log"):
            trust.log_at(**arguments)


BROKEN_CA = {**root()["certificateAuthorities"][0], "certChain": {"certificates": [{"rawBytes": b64(b"x")}]}}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"{}",
        b"[" * 100_000,
        json.dumps(root(mediaType="text/html")).encode(),
        json.dumps(root(tlogs="none")).encode(),
        json.dumps(root(tlogs=[{**root()["tlogs"][0], "publicKey": {"rawBytes": "*"}}])).encode(),
        json.dumps(root(certificateAuthorities=[BROKEN_CA])).encode(),
        b" " * (MAX_SIZE + 1),
    ],
)
def test_anything_else_is_no_trust_root(raw: bytes) -> None:
    with pytest.raises(OwnFault):
        read_trust_root(raw)


def snake(value: Any) -> Any:
    """Spell names as the .proto files do."""
    if isinstance(value, list):
        return [snake(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {re.sub("[A-Z]", lambda m: f"_{m[0].lower()}", name): snake(each) for name, each in value.items()}


def test_a_trusted_root_is_read_in_every_spelling_that_protobuf_json_allows() -> None:
    plain = root()
    expected = read(plain)
    spellings = {"snake_case": snake(plain), "nulls": root(timestampAuthorities=None, tlogs=[*plain["tlogs"]])}
    for each in spellings["nulls"]["tlogs"]:
        each.update(operator=None, checkpointKeyId=None)
    spellings["numbers"] = json.loads(
        json.dumps(plain).replace('"SHA2_256"', "1").replace('"PKIX_ECDSA_P256_SHA_256"', "5")
    )
    url_safe = json.loads(json.dumps(plain))
    for each in [*url_safe["tlogs"], *url_safe["ctlogs"]]:
        for field in (each["publicKey"], each["logId"]):
            name = "rawBytes" if "rawBytes" in field else "keyId"
            field[name] = field[name].translate(str.maketrans("+/", "-_")).rstrip("=")
    spellings["URL-safe base64"] = url_safe
    for name, document in spellings.items():
        found = read(document)
        assert (found.logs, found.authorities, found.skipped) == (expected.logs, expected.authorities, ()), name
    config = {
        "media_type": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "rekor_tlog_urls": [
            {"url": "https://a", "major_api_version": "2", "valid_for": {"start": "2020-01-01T00:00:00Z"}}
        ],
        "tsa_urls": None,
    }
    (service,) = read_signing_config(json.dumps(config).encode())
    assert (service.url, service.majorApiVersion) == ("https://a", 2)


@pytest.mark.parametrize("period", [None, {}, {"end": "2030-01-01T00:00:00Z"}, {"start": None}])
def test_a_key_without_a_start_of_validity_is_refused_and_named(period: Any) -> None:
    document = root()
    assert read(document).skipped == ()
    document["tlogs"][0]["publicKey"]["validFor"] = period
    found = read(document)
    assert [each.name for each in found.logs] == ["log2031.example.org", "ct.example.org/2031"]
    (skipped,) = found.skipped
    assert skipped.startswith("Rekor log at 'https://rekor.example.org' with the key ")
    assert skipped.endswith(": has a key without a start of validity")


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps(root()).replace('"tlogs"', '"mediaType": "x", "tlogs"', 1),
        json.dumps({**root(), "media_type": root()["mediaType"]}),
        json.dumps(root()).replace("2021-01-12T11:53:27Z", "2021-01-12T11:53:27"),
        json.dumps(root(tlogs=[{"baseUrl": float("nan")}])),
    ],
    ids=["a name twice", "one field under two names", "a time without its offset", "not a number"],
)
def test_what_protobuf_json_does_not_allow_is_no_trusted_root(raw: str) -> None:
    with pytest.raises(OwnFault, match="not a trusted root"):
        read_trust_root(raw.encode())

"""Sigstore's protobuf JSON (trusted roots, bundles) read strictly and brought to one spelling.

SPEC protobuf ProtoJSON: a parser accepts lowerCamelCase names and the names of the .proto file, `null` for an absent
field, bytes in standard or URL-safe base64 with or without padding, and enumerations by name or by number. After
`canonical` there is one spelling of each: that which Sigstore's own tools write.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

_SNAKE: Final = re.compile(r"_([a-z0-9])")
_URL_SAFE: Final = str.maketrans("-_", "+/")
# Fields of type `bytes` in sigstore_common, sigstore_bundle, sigstore_rekor, sigstore_trustroot and DSSE's envelope.
_BYTES: Final = frozenset(
    {
        "canonicalizedBody",
        "digest",
        "hashes",
        "keyId",
        "payload",
        "rawBytes",
        "rootHash",
        "sig",
        "signature",
        "signedEntryTimestamp",
        "signedTimestamp",
    }
)
_HASHES: Final = {
    0: "HASH_ALGORITHM_UNSPECIFIED",
    1: "SHA2_256",
    2: "SHA2_384",
    3: "SHA2_512",
    4: "SHA3_256",
    5: "SHA3_384",
}
# SPEC protobuf-specs sigstore_common.proto and sigstore_trustroot.proto.
_ENUMS: Final[Mapping[str, Mapping[int, str]]] = {
    "hashAlgorithm": _HASHES,
    "algorithm": _HASHES,
    "keyDetails": {
        0: "PUBLIC_KEY_DETAILS_UNSPECIFIED",
        1: "PKCS1_RSA_PKCS1V5",
        2: "PKCS1_RSA_PSS",
        3: "PKIX_RSA_PKCS1V5",
        4: "PKIX_RSA_PSS",
        5: "PKIX_ECDSA_P256_SHA_256",
        6: "PKIX_ECDSA_P256_HMAC_SHA_256",
        7: "PKIX_ED25519",
        8: "PKIX_ED25519_PH",
        9: "PKIX_RSA_PKCS1V15_2048_SHA256",
        10: "PKIX_RSA_PKCS1V15_3072_SHA256",
        11: "PKIX_RSA_PKCS1V15_4096_SHA256",
        12: "PKIX_ECDSA_P384_SHA_384",
        13: "PKIX_ECDSA_P521_SHA_512",
        14: "LMS_SHA256",
        15: "LMOTS_SHA256",
        16: "PKIX_RSA_PSS_2048_SHA256",
        17: "PKIX_RSA_PSS_3072_SHA256",
        18: "PKIX_RSA_PSS_4096_SHA256",
        19: "PKIX_ECDSA_P384_SHA_256",
        20: "PKIX_ECDSA_P521_SHA_256",
    },
    "selector": {0: "SERVICE_SELECTOR_UNDEFINED", 1: "ALL", 2: "ANY", 3: "EXACT"},
}


def read_json(raw: bytes) -> Any:
    """Read one JSON document in UTF-8. Raises `ValueError`, also for a name that stands twice in one object."""
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_number)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error


def canonical(value: Any) -> Any:
    """Return protobuf JSON in the spelling of Sigstore's tools. Raises `ValueError` for one field under two names."""
    if isinstance(value, list):
        return [canonical(each) for each in value]
    if not isinstance(value, dict):
        return value
    return unique((name, _field(name, each)) for name, each in _named(value))


def _named(value: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    return ((_SNAKE.sub(lambda m: m[1].upper(), name), each) for name, each in value.items() if each is not None)


def _field(name: str, value: Any) -> Any:
    if name in _BYTES:
        return [_base64(each) for each in value] if isinstance(value, list) else _base64(canonical(value))
    if name in _ENUMS and isinstance(value, int) and not isinstance(value, bool):
        return _ENUMS[name].get(value, str(value))
    return canonical(value)


def _base64(value: Any) -> Any:
    """Standard base64 with padding, of text that is base64 at all; the reader of the field refuses other text."""
    if not isinstance(value, str) or (("+" in value or "/" in value) and ("-" in value or "_" in value)):
        return value
    bare = value.rstrip("=").translate(_URL_SAFE)
    return bare + "=" * (-len(bare) % 4) if len(value) - len(value.rstrip("=")) <= 2 else value  # noqa: PLR2004


def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members. Raises `ValueError` for a name that stands twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r:.80} stands twice in one object")
        found[name] = value
    return found


def no_number(text: str) -> Any:
    """Refuse NaN and the infinities, which Python's reader takes. Raises `ValueError`."""
    raise ValueError(f"{text} is no number in JSON")

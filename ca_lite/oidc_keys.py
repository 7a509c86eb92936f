"""The embedded issuer's RSA keys: a rotation keeps the old key published until its tokens have expired."""

import hashlib
import json
import logging
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from msgspec import Struct

from ca_lite.errors import ConfigError
from ca_lite.issuer_keys import Discovery, IssuerKeys, parse_jwks
from ca_lite.issuers import Issuer
from ca_lite.keys import generate, read_limited, read_private_key, replace_file, spki, write_private_key

_log = logging.getLogger(__name__)
TOKEN_LIFETIME: Final = timedelta(minutes=10)
ALGORITHM: Final = "RS256"  # SPEC cosign: --identity-token takes raw RS256 tokens only
_KEEP: Final = 3


class OidcKeys(Struct, frozen=True):
    """Signing key and every published key of one directory."""

    kid: str
    key: rsa.RSAPrivateKey
    public: dict[str, rsa.RSAPublicKey]

    def jwks(self) -> dict[str, Any]:
        """Public JWK set."""
        keys = []
        for kid, key in self.public.items():
            jwk: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(key, as_dict=True)
            keys.append({**jwk, "kid": kid, "use": "sig", "alg": ALGORITHM})
        return {"keys": keys}

    def sign(self, claims: dict[str, Any]) -> str:
        """Compact JWS over the claims."""
        return jwt.encode(claims, self.key, algorithm=ALGORITHM, headers={"kid": self.kid})


def load_oidc_keys(folder: Path) -> OidcKeys:
    """Read the key set that `rotate_oidc_keys` wrote. Raises `ConfigError`."""
    index = _index(folder)
    loaded = {kid: read_private_key(folder / f"{kid}.pem") for kid in index}
    rsa_keys = {kid: key for kid, key in loaded.items() if isinstance(key, rsa.RSAPrivateKey)}
    if not rsa_keys or len(rsa_keys) != len(loaded):
        raise ConfigError(f"{folder}: an OIDC key is not RSA; run `ca-lite rotate-oidc`")
    newest = index[0]
    return OidcKeys(newest, rsa_keys[newest], {kid: key.public_key() for kid, key in rsa_keys.items()})


def rotate_oidc_keys(folder: Path) -> str:
    """Make a new signing key, keep the last ones published, return the new key id."""
    key = generate("rsa2048")
    kid = hashlib.sha256(spki(key.public_key())).hexdigest()[:16]
    write_private_key(folder / f"{kid}.pem", key)
    kept = [kid, *(_index(folder) if (folder / "keys.json").exists() else [])]
    replace_file(folder / "keys.json", json.dumps(kept[:_KEEP]).encode())
    for old in kept[_KEEP:]:
        (folder / f"{old}.pem").unlink(missing_ok=True)
    return kid


def _index(folder: Path) -> list[str]:
    path = folder / "keys.json"
    try:
        listed = json.loads(read_limited(path))
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON") from error
    if (
        not isinstance(listed, list)
        or not listed
        or not all(isinstance(each, str) and each.isalnum() for each in listed)
    ):
        raise ConfigError(f"{path}: not a list of key ids")
    return listed


class OwnKeys:
    """`KeySource` for the issuers that this process serves: read from disk, and again after a rotation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: tuple[int, OidcKeys] | None = None
        self._published: tuple[OidcKeys, IssuerKeys] | None = None

    def current(self) -> OidcKeys:
        """Key set on disk. Raises `ConfigError`."""
        changed = (self._folder / "keys.json").stat().st_mtime_ns
        if self._seen is None or self._seen[0] != changed:
            self._seen = (changed, load_oidc_keys(self._folder))
        return self._seen[1]

    def keys(self, issuer: Issuer, url: str, *, refresh: bool) -> IssuerKeys:  # noqa: ARG002  the protocol's shape
        """Keys that verify our own tokens."""
        current, published = self.current(), self._published
        if published is None or published[0] is not current:
            # To make them for each token took 2 % of issuing a certificate.
            self._published = published = current, parse_jwks(current.jwks(), (ALGORITHM,))
        return published[1]


def email_claims(issuer: str, email: str) -> dict[str, Any]:
    """Claims of a person with a verified address."""
    return {"iss": issuer, "sub": email, "email": email, "email_verified": True}


def completed(claims: dict[str, Any], *, audience: str, token_id: str, now: datetime) -> dict[str, Any]:
    """Claims with audience, times and id, for at most ten minutes. Existing claims are kept."""
    issued = int(now.timestamp())
    lifetime = int(TOKEN_LIFETIME.total_seconds())
    return {"aud": audience, "iat": issued, "nbf": issued, "exp": issued + lifetime, "jti": token_id, **claims}


class CombinedKeys:
    """`KeySource`: our own issuers from disk, every other by discovery."""

    def __init__(self, own: OwnKeys, own_urls: frozenset[str]) -> None:
        self._own = own
        self._own_urls = own_urls
        self._discovery = Discovery(time.monotonic)

    def keys(self, issuer: Issuer, url: str, *, refresh: bool) -> IssuerKeys:
        """Keys of the issuer at `url`. Raises `Outage`."""
        source = self._own if url in self._own_urls else self._discovery
        return source.keys(issuer, url, refresh=refresh)

"""Trust configurations and identity tokens, from wherever the user keeps them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sigstore.errors import Error
from sigstore.models import ClientTrustConfig, TrustedRoot
from sigstore.oidc import IdentityError, IdentityToken

from sign_lite.errors import Misuse
from sign_lite.files import read_small

TOKEN_VARIABLE: Final = "SIGSTORE_IDENTITY_TOKEN"  # noqa: S105  a name
_TRUST_CONFIG: Final = "application/vnd.dev.sigstore.clienttrustconfig"


def load_trust_config(path: Path, rekor_version: int | None) -> ClientTrustConfig:
    """Trust configuration for signing, with one version of Rekor or the newest. Raises `Misuse`."""
    try:
        config = ClientTrustConfig.from_json(read_small(path, "trust configuration").decode())
        config.force_tlog_version = rekor_version
        _ = config.signing_config, config.trusted_root  # both are parsed on demand: complain now, not after signing
    except (Error, ValueError) as error:
        raise Misuse(f"{path}: not a client trust configuration that can sign: {_first_line(error)}") from error
    return config


def load_trusted_root(path: Path) -> TrustedRoot:
    """Trust for verifying: a client trust configuration or a trusted root file. Raises `Misuse`."""
    raw = read_small(path, "trust file")
    try:
        media_type = json.loads(raw).get("mediaType", "")
        if str(media_type).startswith(_TRUST_CONFIG):
            return ClientTrustConfig.from_json(raw.decode()).trusted_root
        return TrustedRoot.from_file(str(path))
    except (Error, ValueError, AttributeError, RecursionError) as error:
        raise Misuse(
            f"{path}: neither a client trust configuration nor a trusted root: {_first_line(error)}"
        ) from error


def load_identity_token(*, token: str | None, token_file: Path | None, environment: Mapping[str, str]) -> IdentityToken:
    """Identity token of `--identity-token`, `--identity-token-file` or the environment. Raises `Misuse`."""
    if token is not None and token_file is not None:
        raise Misuse("give one of --identity-token and --identity-token-file")
    raw = token
    if token_file is not None:
        raw = read_small(token_file, "identity token").decode("ascii", "replace").strip()
    if raw is None:
        raw = environment.get(TOKEN_VARIABLE)
    if not raw:
        raise Misuse(
            f"no identity token: give --identity-token, --identity-token-file or {TOKEN_VARIABLE}, "
            "for example from `ca-lite token --dir DIR --email you@example.com`"
        )
    try:
        return IdentityToken(raw)
    except IdentityError as error:
        raise Misuse(f"the identity token cannot be used: {error}; it may have expired") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__

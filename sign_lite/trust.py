"""Trust configurations and identity tokens, from wherever the user keeps them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from sigstore.errors import Error
from sigstore.models import ClientTrustConfig, TrustedRoot
from sigstore.oidc import IdentityError, IdentityToken, detect_credential
from sigstore_models.trustroot.v1 import TrustedRoot as InnerTrustedRoot

from sign_lite.errors import Misuse, ServiceUnreachable
from sign_lite.files import read_small
from sigstore_entries.protobuf import canonical, read_json

TOKEN_VARIABLE: Final = "SIGSTORE_IDENTITY_TOKEN"  # noqa: S105  a name
# A GitLab job's `id_tokens`, and cosign's name for a token.
GITLAB_VARIABLE: Final = "SIGSTORE_ID_TOKEN"
_PUBLIC: Final = ("public-good", "staging")
_TRUST_CONFIG: Final = "application/vnd.dev.sigstore.clienttrustconfig"


def load_trust_config(source: str, rekor_version: int | None) -> ClientTrustConfig:
    """Trust configuration for signing, with one version of Rekor or the newest. Raises `Misuse`, `ServiceUnreachable`.

    `source` is a file, a TUF repository's URL, or `public-good` or `staging`: Sigstore's own deployments, over TUF.
    """
    path = Path(source)
    if is_repository(source) or (source in _PUBLIC and not path.exists()):
        by_tuf = is_repository(source)
        config = over_tuf(source) if by_tuf else signing_trust(None, None, staging=source == _PUBLIC[1])
        config.force_tlog_version = rekor_version
        return config
    try:
        config = ClientTrustConfig.from_json(read_small(path, "trust configuration").decode())
        config.force_tlog_version = rekor_version
        _ = config.signing_config, config.trusted_root  # the package parses on demand: errors come before signing
    except (Error, ValueError) as error:
        raise Misuse(f"{path}: not a client trust configuration that can sign: {_first_line(error)}") from error
    return config


class Trust(Struct, frozen=True):
    """A trusted root for the `sigstore` package, and its document in the one spelling of `protobuf_json`."""

    root: TrustedRoot
    document: Mapping[str, Any]


def is_repository(source: str) -> bool:
    """True if the text is the URL of a TUF repository; otherwise it is the path of a file."""
    return source.startswith(("http://", "https://"))


def over_tuf(url: str, root: Path | None = None) -> ClientTrustConfig:
    """Trust configuration of a TUF repository, brought up to date; `root` starts trust in it once.

    Later calls verify each root with the one before. Raises `Misuse`, `ServiceUnreachable`.
    """
    if root is not None:
        read_small(root, "TUF root")
    try:
        return ClientTrustConfig.from_tuf(url, bootstrap_root=root)
    except (Error, OSError, ValueError) as error:
        cause = _first_line(error.__cause__) if isinstance(error.__cause__, Exception) else _first_line(error)
        hint = f"; trust in it begins with `sign-lite initialize --mirror {url} --root FILE`" if root is None else ""
        raise ServiceUnreachable(f"the TUF repository {url} cannot be used: {cause}{hint}") from error


def load_trust(source: str) -> Trust:
    """Trust for verifying: a client trust configuration or a trusted root, in any legal spelling, or over TUF.

    Raises `Misuse`, `ServiceUnreachable`.
    """
    if is_repository(source):
        return trust_of(canonical(json.loads(over_tuf(source).trusted_root._inner.to_json())))  # noqa: SLF001
    path = Path(source)
    try:
        document = canonical(read_json(read_small(path, "trust file")))
        if str(document.get("mediaType", "")).startswith(_TRUST_CONFIG):
            document = document["trustedRoot"]
        return trust_of(document)
    except (Error, ValueError, AttributeError, KeyError, TypeError) as error:
        raise Misuse(
            f"{path}: neither a client trust configuration nor a trusted root: {_first_line(error)}"
        ) from error


def trust_of(document: Mapping[str, Any]) -> Trust:
    """Trust of a trusted root's document. Raises `ValueError`, or the `sigstore` package's errors.

    A log key without a start of validity is refused: a missing start does not mean unlimited validity.
    """
    for log in [*(document.get("tlogs") or ()), *(document.get("ctlogs") or ())]:
        if not ((log.get("publicKey") or {}).get("validFor") or {}).get("start"):
            raise ValueError(f"the key of the log at {str(log.get('baseUrl'))!r:.120} has no start of validity")
    return Trust(TrustedRoot(InnerTrustedRoot.from_json(json.dumps(document))), document)


def public_trust(*, staging: bool) -> Trust:
    """Trust of Sigstore's public deployment, or of its staging one, over TUF. Raises `ServiceUnreachable`."""
    try:
        found = (ClientTrustConfig.staging() if staging else ClientTrustConfig.production()).trusted_root
        # The package has no public access to the document.
        return trust_of(canonical(json.loads(found._inner.to_json())))  # noqa: SLF001
    except (Error, OSError, ValueError) as error:
        raise ServiceUnreachable(f"the public trust root cannot be fetched: {_first_line(error)}") from error


def signing_trust(trusted_root: Path | None, signing_config: Path | None, *, staging: bool) -> ClientTrustConfig:
    """Signing trust of two files, or of a public deployment. Raises `Misuse`, `ServiceUnreachable`."""
    if trusted_root is None or signing_config is None:
        if trusted_root is not None or signing_config is not None:
            raise Misuse("--trusted-root and --signing-config belong together: give both or neither")
        try:
            return ClientTrustConfig.staging() if staging else ClientTrustConfig.production()
        except (Error, OSError, ValueError) as error:
            raise ServiceUnreachable(
                f"the public trust configuration cannot be fetched: {_first_line(error)}"
            ) from error
    try:
        config = canonical(read_json(read_small(signing_config, "signing configuration")))
        document = {
            "mediaType": f"{_TRUST_CONFIG}.v0.1+json",
            "trustedRoot": dict(load_trust(str(trusted_root)).document),
            "signingConfig": config,
        }
        made = ClientTrustConfig.from_json(json.dumps(document))
        _ = made.signing_config, made.trusted_root
    except (Error, ValueError, AttributeError, TypeError) as error:
        raise Misuse(f"{signing_config}: not a signing configuration: {_first_line(error)}") from error
    return made


def load_identity_token(*, token: str | None, token_file: Path | None, environment: Mapping[str, str]) -> IdentityToken:
    """Identity token of `--identity-token`, `--identity-token-file` or the environment. Raises `Misuse`."""
    if token is not None and token_file is not None:
        raise Misuse("give one of --identity-token and --identity-token-file")
    raw = token
    if token_file is not None:
        raw = read_small(token_file, "identity token").decode("ascii", "replace").strip()
    if raw is None:
        raw = environment.get(TOKEN_VARIABLE) or environment.get(GITLAB_VARIABLE)
    try:
        # A GitHub workflow with `id-token: write`, Buildkite, CircleCI or Google Cloud supplies a token on request.
        raw = raw or detect_credential()
        if not raw:
            raise Misuse(
                f"no identity token: give --identity-token, --identity-token-file, {TOKEN_VARIABLE} or "
                f"{GITLAB_VARIABLE}, for example from `ca-lite token --dir DIR --email you@example.com`; a GitHub "
                "workflow needs `permissions: {id-token: write}`"
            )
        return IdentityToken(raw)
    except IdentityError as error:
        raise Misuse(f"the identity token cannot be used: {error}; it may have expired") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__

"""`sign-lite image`: sign, attest and verify container images in the formats of cosign."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from sigstore.dsse import Statement

from addresses.image_name import BadImageName, ImageName, parse_image_name
from outbound.image_signatures import fetch_signatures
from outbound.registry import (
    EMPTY,
    EMPTY_CONFIG,
    IMAGE_MANIFEST,
    NotInRegistry,
    Registry,
    RegistryFailed,
    RegistryManifest,
)
from sign_lite.commands import (
    AsJson,
    Identity,
    Issuer,
    Login,
    PredicateFile,
    PredicateType,
    PublicKey,
    RekorVersion,
    SignerOptions,
    SigningKey,
    Token,
    TokenFile,
    TrustConfig,
    TrustConfigFile,
    TrustedRootFile,
    opened_signer,
    print_results,
    read_predicate,
    reported,
    signed_by,
    trusted_by,
)
from sign_lite.errors import Misuse, ServiceRefused, ServiceUnreachable, VerificationFailed
from sign_lite.files import Artifact
from sign_lite.trust import Trust
from sign_lite.verifying import WantedSigner, verify_held
from sigstore_entries.bundle_file import BUNDLE_0_3, NoBundle, NotHeld
from sigstore_entries.image_signature import Found, read_signature, signed_bytes
from sigstore_entries.release import IMAGE_SIGNATURE, STATEMENT, image_statement

_SHOWN: Final = 3
Image = Annotated[
    str, typer.Argument(help="The image; a tag is resolved once.", metavar="REGISTRY/NAME[:TAG|@sha256:…]")
]
AllowHttp = Annotated[bool, typer.Option("--allow-http", help="Ask the registry without TLS.")]


class _ImageStatement(Statement):
    """A statement whose subject has no name.

    SPEC in-toto Statement v1: the name is optional; the `sigstore` package requires one.
    """

    def __init__(self, contents: bytes) -> None:
        self._contents = contents


@reported
def sign_image(
    name: Image,
    *,
    trust_config: TrustConfig,
    identity_token: Token = None,
    identity_token_file: TokenFile = None,
    login: Login = None,
    key: SigningKey = None,
    rekor_version: RekorVersion = None,
    allow_http: AllowHttp = False,
    as_json: AsJson = False,
) -> None:
    """Sign an image and push the bundle into its registry, as `cosign sign` does.

    Example: sign-lite image sign localhost:5000/app:v1 --trust-config ca/trust/client_trust_config.json
    """
    with _opened(name, allow_http=allow_http) as (registry, image, manifest):
        statement = _ImageStatement(image_statement(str(image.digest)))
        with opened_signer(
            trust_config, rekor_version, SignerOptions(identity_token, identity_token_file, login, key)
        ) as opened:
            made = opened.statement(statement)
        _push(registry, manifest, made.json.encode(), IMAGE_SIGNATURE)
    print_results([{"file": str(image), "sha256": _hex(image), **made.told}], "signed", as_json=as_json)


@reported
def attest_image(
    name: Image,
    *,
    trust_config: TrustConfig,
    predicate: PredicateFile,
    predicate_type: PredicateType,
    identity_token: Token = None,
    identity_token_file: TokenFile = None,
    login: Login = None,
    key: SigningKey = None,
    rekor_version: RekorVersion = None,
    allow_http: AllowHttp = False,
    as_json: AsJson = False,
) -> None:
    """Sign an in-toto statement about an image and push it into its registry, as `cosign attest` does.

    Example: sign-lite image attest localhost:5000/app:v1 --predicate sbom.json --predicate-type https://spdx.dev/D \
--trust-config tc.json
    """
    content = read_predicate(predicate)
    with _opened(name, allow_http=allow_http) as (registry, image, manifest):
        document = {
            "_type": STATEMENT,
            "subject": [{"name": image.in_full, "digest": {"sha256": _hex(image)}}],
            "predicateType": predicate_type,
            "predicate": content,
        }
        with opened_signer(
            trust_config, rekor_version, SignerOptions(identity_token, identity_token_file, login, key)
        ) as opened:
            made = opened.statement(Statement(json.dumps(document).encode()))
        _push(registry, manifest, made.json.encode(), predicate_type)
    print_results([{"file": str(image), "sha256": _hex(image), **made.told}], "attested", as_json=as_json)


@reported
def verify_image(
    name: Image,
    *,
    trusted_root: TrustedRootFile = None,
    trust_config: TrustConfigFile = None,
    identity: Identity = None,
    issuer: Issuer = None,
    key: PublicKey = None,
    predicate_type: Annotated[
        str | None, typer.Option(help="An attestation of this kind is wanted, in place of a signature.", metavar="URI")
    ] = None,
    allow_http: AllowHttp = False,
    as_json: AsJson = False,
) -> None:
    """Verify that an image has a signature of the given signer; exit code 1 if the registry holds none.

    Bundles among the referrers are read, and the tags that cosign used before its version 3.

    Example: sign-lite image verify localhost:5000/app:v1 --trust-config tc.json --identity me@example.com \
--issuer http://localhost:8080/oidc
    """
    who = signed_by(identity, issuer, key)
    trust = trusted_by(trusted_root, trust_config)
    with _opened(name, allow_http=allow_http) as (registry, image, manifest):
        fetched = fetch_signatures(registry, manifest)
    result: dict[str, Any] = {"file": str(image), "sha256": _hex(image)}
    problems = [f"{place}: {why}" for place, why in fetched.unread]
    for each in fetched.found:
        for found in read_signature(each.place, each.media_type, each.raw, each.annotations):
            try:
                told = _verified(found, image, trust, who, predicate_type or IMAGE_SIGNATURE)
            except VerificationFailed as error:
                problems.append(f"{each.place}: {error}")
                continue
            print_results([{**result, "verified": True, "place": each.place, **told}], "verified", as_json=as_json)
            return
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    why = "; ".join(problems[:_SHOWN]) + more or "the registry has no signature of it"
    print_results([{**result, "verified": False, "problem": why}], "verified", as_json=as_json)
    raise typer.Exit(1)


def _verified(found: Found | NotHeld, image: ImageName, trust: Trust, who: WantedSigner, wanted: str) -> dict[str, Any]:
    if isinstance(found, NotHeld):
        raise VerificationFailed(found.why)
    try:
        _, _, digests = signed_bytes(found, str(image.digest))
    except (NoBundle, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise VerificationFailed(str(error) or type(error).__name__) from error
    signed = _hex(image) if found.payload is None else digests["artifact"]
    told = verify_held(found.held, Artifact(bytes.fromhex(signed)), trust, who)
    kind = told.get("predicate_type") if found.payload is None else IMAGE_SIGNATURE
    if kind != wanted:
        raise VerificationFailed(f"it is {kind!r:.120}, and {wanted!r:.120} is wanted")
    return told


@contextmanager
def _opened(name: str, *, allow_http: bool) -> Iterator[tuple[Registry, ImageName, RegistryManifest]]:
    """The registry, and the image with the digest that its tag has now.

    Raises `Misuse`, `ServiceRefused`, `ServiceUnreachable`.
    """
    try:
        image = parse_image_name(name)
    except BadImageName as error:
        raise Misuse(str(error)) from error
    with Registry(image, plain_http=allow_http) as registry:
        try:
            manifest = registry.manifest(image.digest or image.tag or "latest")
            yield registry, image.at(manifest.digest), manifest
        except NotInRegistry as error:
            raise ServiceRefused(str(error)) from error
        except RegistryFailed as error:
            raise ServiceUnreachable(str(error)) from error


def _push(registry: Registry, subject: RegistryManifest, bundle: bytes, predicate_type: str) -> None:
    """Push a bundle as a referrer. SPEC image-spec 1.1, artifact usage; annotations are cosign's."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "artifactType": BUNDLE_0_3,
        "config": {"mediaType": EMPTY_CONFIG, "digest": registry.put_blob(EMPTY), "size": len(EMPTY)},
        "layers": [{"mediaType": BUNDLE_0_3, "digest": registry.put_blob(bundle), "size": len(bundle)}],
        "subject": {"mediaType": subject.media_type, "digest": subject.digest, "size": len(subject.raw)},
        "annotations": {
            "org.opencontainers.image.created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": predicate_type,
        },
    }
    registry.add_referrer(subject, json.dumps(manifest, separators=(",", ":")).encode())


def _hex(image: ImageName) -> str:
    return str(image.digest).partition(":")[2]

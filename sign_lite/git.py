"""`sign-lite git`: commits and tags signed in gitsign's format, as the program that git calls (`gpg.x509.program`).

The signature is a detached CMS signature with the certificate; the log entry, in Rekor v1, is over its signed
attributes and stands in the signature (gitsign's offline mode), so that it verifies offline.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from cryptography import x509

from sign_lite.commands import SignerOptions, reported, signing_as
from sign_lite.errors import Misuse, VerificationFailed
from sign_lite.files import Artifact, read_small
from sign_lite.login import LoginKind
from sign_lite.signing import signer
from sign_lite.trust import load_trust, load_trust_config
from sign_lite.verifying import WantedSigner, verify_held
from sigstore_entries import der
from sigstore_entries.certificate import read_certificate
from sigstore_entries.git_signature import (
    ARMOUR,
    CONTENT_TYPE,
    DATA,
    LOG_ENTRY,
    MAX_OBJECT,
    MESSAGE_DIGEST,
    SHA_256,
    SIGNED_DATA,
    NoGitSignature,
    entry_body,
    read_cms,
)
from sigstore_entries.protobuf import write_entry
from sigstore_entries.release import sha256

TRUST: Final = "SIGN_LITE_TRUST_CONFIG"
_SETTINGS: Final[Mapping[str, str]] = {
    "signlite.trustconfig": TRUST,
    "signlite.tokenfile": "SIGN_LITE_TOKEN_FILE",
    "signlite.login": "SIGN_LITE_LOGIN",
    "signlite.identity": "SIGN_LITE_IDENTITY",
    "signlite.issuer": "SIGN_LITE_ISSUER",
}
_SIGNING_TIME: Final = "1.2.840.113549.1.9.5"
_ECDSA_SHA_256: Final = "1.2.840.10045.4.3.2"
_GIT_SECONDS: Final = 30
_LINE: Final = 64


@reported
def git(
    words: Annotated[
        list[str] | None, typer.Argument(help="With --verify: the signature's file, and - for the object.")
    ] = None,
    *,
    detach_sign: Annotated[bool, typer.Option("--detach-sign", "-b", help="As git says it.")] = False,
    sign: Annotated[bool, typer.Option("--sign", "-s", help="Sign what is on standard input.")] = False,
    armor: Annotated[bool, typer.Option("--armor", "-a", help="As git says it.")] = False,
    user: Annotated[str | None, typer.Option("--local-user", "-u", help="As git says it; the token decides.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Verify a signature.")] = False,
    status_fd: Annotated[int, typer.Option("--status-fd", help="Where git wants its status lines.")] = -1,
    keyid_format: Annotated[str | None, typer.Option("--keyid-format", help="As git says it.")] = None,
) -> None:
    """Sign and verify commits and tags. git calls this; its settings say what is trusted and where the token is.

    `signlite.trustConfig` (or SIGN_LITE_TRUST_CONFIG) names the client trust configuration, `signlite.tokenFile` the
    identity token where no environment has one, `signlite.login` how to sign in (browser or device). With
    `signlite.identity` and `signlite.issuer` only that signer verifies; without them the signer is named, and the
    reader judges whether it is the right one.

    Example: git -c gpg.format=x509 -c gpg.x509.program=sign-lite-git commit -S -m "release"
    """
    del detach_sign, armor, user, keyid_format
    settings = _settings()
    if not settings.get(TRUST):
        raise Misuse(f"name the trust: `git config signlite.trustConfig FILE`, or {TRUST}")
    if verify:
        if not words:
            raise Misuse("--verify wants the file of the signature, and the object on standard input")
        _verify(Path(words[0]), _standard_input(), settings, status_fd)
    elif sign:
        made = sign_cms(_standard_input(), settings)
        _status(status_fd, "SIG_CREATED D")
        sys.stdout.buffer.write(made)
        sys.stdout.buffer.flush()
    else:
        raise Misuse("git says --verify or -bsa: nothing else is done here")


def sign_cms(payload: bytes, settings: Mapping[str, str]) -> bytes:
    """The armoured signature of a commit or tag. Raises `SignLiteError`."""
    config = load_trust_config(settings[TRUST], 1)
    token_file = settings.get("SIGN_LITE_TOKEN_FILE")
    login = _login(settings)
    by = signing_as(config, SignerOptions(token_file=Path(token_file) if token_file else None, login=login))
    with signer(config, by) as opened:
        attributes = _attributes(payload, datetime.now(UTC))
        digest = bytes.fromhex(sha256(attributes).partition(":")[2])
        made = opened.file(Artifact(digest))
    document = json.loads(made.json)
    entry = document["verificationMaterial"]["tlogEntries"][0]
    signature = base64.b64decode(document["messageSignature"]["signature"])
    leaf = base64.b64decode(document["verificationMaterial"]["certificate"]["rawBytes"])
    if base64.b64decode(entry["canonicalizedBody"]) != entry_body(leaf, signature, attributes):
        raise VerificationFailed("the log entered another digest than the signed one: the signature is not used")
    return _armoured(_cms(leaf, attributes, signature, write_entry({**entry, "canonicalizedBody": None})))


def _verify(file: Path, payload: bytes, settings: Mapping[str, str], status_fd: int) -> None:
    """Verify, and say so in the lines that git reads. Raises `VerificationFailed`."""
    _status(status_fd, "NEWSIG")
    try:
        signature = read_cms(payload, read_small(file, "signature"))
        told = read_certificate(signature.certificates[0])
        name = next((each.value for each in told.names), "")
        who = WantedSigner(
            settings.get("SIGN_LITE_IDENTITY") or name, settings.get("SIGN_LITE_ISSUER") or str(told.issuer or "")
        )
        digest = bytes.fromhex(sha256(signature.signed_attributes).partition(":")[2])
        if signature.entry is None:
            raise VerificationFailed("its log entry is not in it: ask `signwatch check-commit`")  # noqa: TRY301
        verify_held(signature.as_bundle(), Artifact(digest), load_trust(settings[TRUST]), who)
    except (NoGitSignature, VerificationFailed, ValueError) as error:
        _status(status_fd, "BADSIG 0 sign-lite")
        raise VerificationFailed(f"the signature does not hold: {error}") from error
    fingerprint = x509.load_der_x509_certificate(signature.certificates[0]).serial_number
    shown = "".join(character if character.isprintable() else "?" for character in name)
    _status(status_fd, f"GOODSIG {fingerprint:x} {shown}")
    _status(status_fd, "TRUST_FULLY 0 shell")
    sys.stderr.write(f"sign-lite: good signature by {shown}, login from {told.issuer}\n")


def _attributes(payload: bytes, now: datetime) -> bytes:
    """The DER of the signed attributes, over which the signature is made: a sorted SET OF (X.690 11.6).

    RFC 5652 5.3, 11.1 to 11.3.
    """
    digest = bytes.fromhex(sha256(payload).partition(":")[2])
    values = (
        (CONTENT_TYPE, _oid(DATA)),
        (_SIGNING_TIME, der.encode(der.UTC_TIME, f"{now:%y%m%d%H%M%SZ}".encode())),
        (MESSAGE_DIGEST, der.encode(der.OCTET_STRING, digest)),
    )
    return der.encode(der.SET, b"".join(sorted(_attribute(kind, value) for kind, value in values)))


def _cms(leaf: bytes, attributes: bytes, signature: bytes, entry: bytes | None) -> bytes:
    """Detached SignedData with one signer; with no entry, in the form of gitsign's online mode.

    RFC 5652 5.1 and 5.3.
    """
    certificate = x509.load_der_x509_certificate(leaf)
    serial = certificate.serial_number
    number = der.encode(der.INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big"))
    algorithm = der.encode(der.SEQUENCE, _oid(SHA_256))
    signed = der.only(attributes, der.SET, "the attributes").content
    logged = b"" if entry is None else der.encode(0xA1, _attribute(LOG_ENTRY, der.encode(der.OCTET_STRING, entry)))
    info = der.encode(
        der.SEQUENCE,
        b"".join(
            (
                der.encode(der.INTEGER, b"\x01"),
                der.encode(der.SEQUENCE, certificate.issuer.public_bytes() + number),
                algorithm,
                der.encode(0xA0, signed),
                der.encode(der.SEQUENCE, _oid(_ECDSA_SHA_256)),
                der.encode(der.OCTET_STRING, signature),
                logged,
            )
        ),
    )
    data = der.encode(
        der.SEQUENCE,
        b"".join(
            (
                der.encode(der.INTEGER, b"\x01"),
                der.encode(der.SET, algorithm),
                der.encode(der.SEQUENCE, _oid(DATA)),
                der.encode(0xA0, leaf),
                der.encode(der.SET, info),
            )
        ),
    )
    return der.encode(der.SEQUENCE, _oid(SIGNED_DATA) + der.encode(0xA0, data))


def _attribute(kind: str, value: bytes) -> bytes:
    return der.encode(der.SEQUENCE, _oid(kind) + der.encode(der.SET, value))


def _oid(dotted: str) -> bytes:
    content = der.oid_content(dotted)
    if content is None:
        raise ValueError(f"{dotted} is no object identifier")
    return der.encode(der.OBJECT_IDENTIFIER, content)


def _armoured(raw: bytes) -> bytes:
    text = base64.b64encode(raw).decode()
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return "\n".join((f"-----BEGIN {ARMOUR}-----", *lines, f"-----END {ARMOUR}-----", "")).encode()


def _login(settings: Mapping[str, str]) -> LoginKind | None:
    """The user's login kind.

    Standard input holds git's object, so a login that needs typing is refused. Raises `Misuse`.
    """
    wanted = settings.get("SIGN_LITE_LOGIN")
    if wanted not in (None, LoginKind.BROWSER, LoginKind.DEVICE):
        raise Misuse(f"signlite.login is {wanted!r:.40}; git can sign in by `browser` or `device`")
    return LoginKind(wanted) if wanted else None


def _standard_input() -> bytes:
    raw = sys.stdin.buffer.read(MAX_OBJECT + 1)
    if len(raw) > MAX_OBJECT:
        raise Misuse(f"the object is larger than {MAX_OBJECT // 2**20} MiB")
    return raw


def _status(descriptor: int, line: str) -> None:
    if descriptor >= 0:
        os.write(descriptor, f"\n[GNUPG:] {line}\n".encode())


def _settings() -> dict[str, str]:
    """The environment, completed from git's configuration. Raises `Misuse`."""
    found: dict[str, Any] = {}
    try:
        done = subprocess.run(
            ["git", "config", "--get-regexp", "--null", "^signlite\\."],  # noqa: S607  the user's own git
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Misuse(f"git cannot be asked for its configuration: {type(error).__name__}") from error
    for each in done.stdout.decode("utf-8", "replace").split("\0"):
        name, _, value = each.partition("\n")
        if name in _SETTINGS:
            found[_SETTINGS[name]] = value
    return {**found, **{name: os.environ[name] for name in _SETTINGS.values() if os.environ.get(name)}}

"""Key pairs: sign-lite signs with plain keys and cosign's encrypted ones, and the unmodified cosign verifies it."""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from monitor.cli import run_command
from sign_lite.errors import Misuse
from sign_lite.private_key import PrivateKey, read_key_pair, sign_ed25519ph
from tests.support.ca_server import SIGN_LITE, CaServer, ca_and_log, run
from tests.support.go_clients import COSIGN, cosign, needs_cosign, needs_registry, registry_server
from tests.support.images import push_image
from tests.support.log_server import LogServer

BUILD = "https://example.com/build/v1"
PASSWORD = "a password of the key"
REKORS = pytest.mark.parametrize("rekor", [1, 2])


@dataclass
class Place:
    """A deployment, and a folder with keys: `plain`, `locked` (PKCS#8 with a password), `rsa`; `cosign` where built."""

    ca: CaServer
    log: LogServer
    folder: Path

    def file(self, name: str) -> Path:
        path = self.folder / name
        path.write_bytes(name.encode() * 50)
        return path

    def sign_lite(self, *words: str, expect: int = 0) -> str:
        return run(SIGN_LITE, *words, "--trust-config", str(self.ca.trust_config), expect=expect)

    def cosign(self, command: str, *arguments: str, expect: int | None = 0) -> str:
        root = ("--trusted-root", str(self.ca.folder / "trust/trusted_root.json"))
        return cosign(self.folder, command, *root, *arguments, expect=expect)

    def private(self, name: str) -> str:
        return str(self.folder / f"{name}.key")

    def public(self, name: str) -> str:
        return str(self.folder / f"{name}.pub")


def write_key(folder: Path, name: str, key: PrivateKey, password: str = "") -> None:
    lock: KeySerializationEncryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    (folder / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("keys")
    write_key(folder, "plain", ec.generate_private_key(ec.SECP256R1()))
    write_key(folder, "locked", ec.generate_private_key(ec.SECP256R1()), PASSWORD)
    write_key(folder, "rsa", rsa.generate_private_key(65537, 2048))
    write_key(folder, "p384", ec.generate_private_key(ec.SECP384R1()))
    write_key(folder, "ed25519", ed25519.Ed25519PrivateKey.generate())
    write_key(folder, "other", ec.generate_private_key(ec.SECP256R1()))
    (folder / "predicate.json").write_text('{"built": "here"}')
    with ca_and_log(folder) as (ca, log):
        yield Place(ca, log, folder)


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSIGN_PASSWORD", PASSWORD)


def signed(place: Place, file: Path, key: str, rekor: int) -> str:
    made = place.sign_lite(
        "sign", str(file), "--key", place.private(key), "--rekor-version", str(rekor), "--overwrite", "--json"
    )
    (told,) = json.loads(made)
    assert told["names"][0].startswith("key sha256:")
    return str(told["bundle"])


@REKORS
@pytest.mark.parametrize("key", ["plain", "locked", "rsa", "p384", "ed25519"])
def test_a_file_signed_with_a_key_verifies_with_that_key_only(key: str, rekor: int, place: Place) -> None:
    file, other = place.file(f"{key}-{rekor}"), place.file("another")
    bundle = ("--bundle", signed(place, file, key, rekor))
    place.sign_lite("verify", str(file), "--key", place.public(key), *bundle)
    place.sign_lite("verify", str(file), "--key", place.public("other"), *bundle, expect=1)
    place.sign_lite("verify", str(other), "--key", place.public(key), *bundle, expect=1)


# cosign 3.1 takes SHA-256 with every key unless it is told another hash. It neither makes nor verifies Ed25519ph with
# a bare key: its own signature fails its check after signing.
HASH_OPTION = {"p384": ("--signature-digest-algorithm", "sha384")}


@needs_cosign
@REKORS
@pytest.mark.parametrize("key", ["plain", "rsa", "p384"])
def test_cosign_verifies_it(key: str, rekor: int, place: Place) -> None:
    file, other = place.file(f"cosign-{key}-{rekor}"), place.file("another")
    bundle = ("--bundle", signed(place, file, key, rekor), *HASH_OPTION.get(key, ()))
    place.cosign("verify-blob", *bundle, "--key", place.public(key), str(file))
    place.cosign("verify-blob", *bundle, "--key", place.public("other"), str(file), expect=None)
    place.cosign("verify-blob", *bundle, "--key", place.public(key), str(other), expect=None)


def attested(place: Place, file: Path, key: str, rekor: int) -> str:
    predicate = ("--predicate", str(place.folder / "predicate.json"), "--predicate-type", BUILD)
    said = place.sign_lite(
        "attest", str(file), *predicate, "--key", place.private(key), "--rekor-version", str(rekor), "--json"
    )
    return str(json.loads(said)[0]["bundle"])


@REKORS
@pytest.mark.parametrize("key", ["p384", "ed25519"])
def test_an_attestation_signed_with_a_key_verifies_with_that_key_only(key: str, rekor: int, place: Place) -> None:
    file, other = place.file(f"attested-{key}-{rekor}"), place.file("another")
    bundle = ("--bundle", attested(place, file, key, rekor))
    place.sign_lite("verify", str(file), "--key", place.public(key), *bundle)
    place.sign_lite("verify", str(file), "--key", place.public("other"), *bundle, expect=1)
    place.sign_lite("verify", str(other), "--key", place.public(key), *bundle, expect=1)
    if COSIGN is None or (key, rekor) == ("ed25519", 2):
        return
    # Rekor v1 verifies an envelope over SHA-256 under every ECDSA key, and cosign takes that by default.
    mine = (*bundle, "--type", BUILD, *(HASH_OPTION[key] if rekor == 2 else ()))
    place.cosign("verify-blob-attestation", *mine, "--key", place.public(key), str(file))
    place.cosign("verify-blob-attestation", *mine, "--key", place.public("other"), str(file), expect=None)


@needs_cosign
@REKORS
def test_a_p384_signature_of_cosign_verifies_here(rekor: int, place: Place) -> None:
    prefix = str(place.folder / f"imported-{rekor}")
    cosign(place.folder, "import-key-pair", "--key", place.private("p384"), "--output-key-prefix", prefix)
    file, bundle = place.file(f"by-cosign-{rekor}"), str(place.folder / f"by-cosign-{rekor}.json")
    config = ("--signing-config", str(place.ca.folder / "trust" / f"signing_config.rekor-v{rekor}.json"))
    place.cosign("sign-blob", *config, "--key", f"{prefix}.key", "--bundle", bundle, "--yes", str(file))
    place.sign_lite("verify", str(file), "--key", place.public("p384"), "--bundle", bundle)
    place.sign_lite("verify", str(file), "--key", place.public("other"), "--bundle", bundle, expect=1)


def test_a_digest_alone_is_no_file_for_a_key_that_signs_another_hash(place: Place) -> None:
    file = place.file("by-digest")
    bundle, name = ("--bundle", signed(place, file, "p384", 2)), f"sha256:{sha256(file.read_bytes()).hexdigest()}"
    said = place.sign_lite("verify", name, "--key", place.public("p384"), *bundle, expect=1)
    assert "give the file in place of its SHA-256" in said
    plain = ("--bundle", signed(place, file, "plain", 2))
    place.sign_lite("verify", name, "--key", place.public("plain"), *plain)


def with_signature(document: dict[str, Any], signature: bytes) -> dict[str, Any]:
    content = {**document["messageSignature"], "signature": base64.b64encode(signature).decode()}
    return {**document, "messageSignature": content}


def with_hint(document: dict[str, Any], name: str, digest: bytes) -> dict[str, Any]:
    told = {"algorithm": name, "digest": base64.b64encode(digest).decode()}
    return {**document, "messageSignature": {**document["messageSignature"], "messageDigest": told}}


@REKORS
def test_a_changed_ed25519_bundle_does_not_verify(rekor: int, place: Place) -> None:
    file, changed = place.file(f"changed-{rekor}"), place.folder / f"changed-{rekor}.json"
    document, contents = json.loads(Path(signed(place, file, "ed25519", rekor)).read_text()), file.read_bytes()
    key = load_pem_private_key(Path(place.private("ed25519")).read_bytes(), None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    zeros = bytes(64)
    cases = {
        "over the file itself": with_signature(document, key.sign(contents)),
        "over the digest, not prehashed": with_signature(document, key.sign(sha512(contents).digest())),
        "of another digest": with_signature(document, sign_ed25519ph(key, sha512(b"x").digest())),
        "no signature": with_signature(document, b""),
        "zeros": with_signature(document, zeros),
        "SHA-256 as the hint": with_hint(document, "SHA2_256", sha256(contents).digest()),
        "another digest as the hint": with_hint(document, "SHA2_512", zeros),
    }
    for case, made in {"control": document, **cases}.items():
        changed.write_text(json.dumps(made))
        words = ("verify", str(file), "--key", place.public("ed25519"), "--bundle", str(changed))
        place.sign_lite(*words, expect=0 if case == "control" else 1)


MONITOR = """\
version: 1
database: {folder}/signwatch.db
trust: {{trusted_root: "{root}"}}
logs: [{{name: rekor, api: rekor-v{rekor}, url: "{url}", start: head}}]
rules: {folder}/rules.yaml
channels: {{file: {{type: jsonl, path: {folder}/alerts.jsonl}}}}
notify: [file]
"""


@REKORS
@pytest.mark.parametrize("key", ["p384", "ed25519"])
def test_the_monitor_tells_of_it_and_knows_what_was_announced(
    key: str, rekor: int, place: Place, tmp_path: Path
) -> None:
    spki = load_pem_public_key(Path(place.public(key)).read_bytes()).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    rule = f"{{id: key, select: {{fingerprint: {sha256(spki).hexdigest()}}}, expect: {{authorised: []}}}}"
    (tmp_path / "rules.yaml").write_text(f"version: 1\nrules: [{rule}]\n")
    root, config = place.ca.folder / "trust/trusted_root.json", tmp_path / "signwatch.yaml"
    config.write_text(MONITOR.format(folder=tmp_path, root=root, rekor=rekor, url=place.log.url))
    announced, stolen = place.file(f"announced-{key}-{rekor}"), place.file(f"stolen-{key}-{rekor}")
    told = ("--config", str(config))
    assert run_command(["init", *told]) == 0
    assert run_command(["authorise", "add", "key", "--file", str(announced), *told]) == 0
    for each in (announced, stolen):
        signed(place, each, key, rekor)
    assert run_command(["run", "--once", *told]) == 1
    (alert,) = (tmp_path / "alerts.jsonl").read_text().splitlines()
    assert json.loads(alert)["kind"] == "unexpected-signing"
    name = {"p384": "sha384", "ed25519": "sha512"}[key]
    assert f"{name}:{hashlib.new(name, stolen.read_bytes()).hexdigest()}" in alert


@needs_cosign
@REKORS
def test_an_encrypted_key_of_cosign_signs_and_cosign_verifies(rekor: int, place: Place) -> None:
    if not Path(place.private("cosign")).exists():
        cosign(place.folder, "generate-key-pair", extra={"COSIGN_PASSWORD": PASSWORD})
        assert b"ENCRYPTED SIGSTORE PRIVATE KEY" in Path(place.private("cosign")).read_bytes()
    file = place.file(f"encrypted-{rekor}")
    bundle = ("--bundle", signed(place, file, "cosign", rekor))
    place.cosign("verify-blob", *bundle, "--key", place.public("cosign"), str(file))
    attest = ("attest", str(file), "--predicate", str(place.folder / "predicate.json"), "--predicate-type", BUILD)
    made = place.sign_lite(*attest, "--key", place.private("cosign"), "--rekor-version", str(rekor), "--json")
    mine = ("--bundle", json.loads(made)[0]["bundle"], "--type", BUILD, "--key")
    place.cosign("verify-blob-attestation", *mine, place.public("cosign"), str(file))
    place.cosign("verify-blob-attestation", *mine, place.public("other"), str(file), expect=None)
    place.sign_lite("verify", str(file), "--key", place.public("cosign"), "--bundle", mine[1])


@needs_cosign
@needs_registry
@REKORS
def test_an_image_signed_and_attested_with_a_key_verifies_in_both(rekor: int, place: Place) -> None:
    with registry_server() as registry:
        image = str(push_image(registry, f"keyed-{rekor}", b"layer"))
        options = ("--key", place.private("plain"), "--rekor-version", str(rekor))
        place.sign_lite("image", "sign", image, *options)
        predicate = ("--predicate", str(place.folder / "predicate.json"), "--predicate-type", BUILD)
        place.sign_lite("image", "attest", image, *options, *predicate)
        place.cosign("verify", "--key", place.public("plain"), image)
        place.cosign("verify-attestation", "--type", BUILD, "--key", place.public("plain"), image)
        place.cosign("verify", "--key", place.public("other"), image, expect=None)
        place.sign_lite("image", "verify", image, "--key", place.public("plain"))
        place.sign_lite("image", "verify", image, "--key", place.public("other"), expect=1)


def test_a_wrong_password_and_two_signers_are_refused_before_anything_is_signed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place.file("refused")
    monkeypatch.setenv("COSIGN_PASSWORD", "wrong")
    said = place.sign_lite("sign", str(file), "--key", place.private("locked"), expect=2)
    assert "not a private key that the password opens" in said
    both = ("--key", place.private("plain"), "--identity-token", "x")
    assert "give one of" in place.sign_lite("sign", str(file), *both, expect=2)
    assert not Path(f"{file}.sigstore.json").exists()


def cosign_file(**changed: object) -> bytes:
    kdf = {"name": "scrypt", "params": {"N": 65536, "r": 8, "p": 1}, "salt": base64.b64encode(bytes(32)).decode()}
    cipher = {"name": "nacl/secretbox", "nonce": base64.b64encode(bytes(24)).decode()}
    data = {"kdf": kdf, "cipher": cipher, "ciphertext": base64.b64encode(bytes(64)).decode(), **changed}
    body = base64.b64encode(json.dumps(data).encode()).decode()
    return (
        f"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n{body}\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----".encode()
    )


def p521_pem() -> bytes:
    return ec.generate_private_key(ec.SECP521R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_ed25519ph_is_that_of_rfc_8032() -> None:
    # RFC 8032 7.3, "-----TEST abc".
    secret = bytes.fromhex("833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42")
    made = sign_ed25519ph(ed25519.Ed25519PrivateKey.from_private_bytes(secret), sha512(b"abc").digest())
    assert made.hex() == (
        "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae41"
        "31f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406"
    )


HUGE = {"name": "scrypt", "params": {"N": 1 << 30, "r": 8, "p": 1}, "salt": ""}
BAD = {
    "nothing": b"",
    "no key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    "damaged": cosign_file(),
    "needs gigabytes": cosign_file(kdf=HUGE),
    "another cipher": cosign_file(cipher={"name": "aes", "nonce": ""}),
    "no fields": cosign_file(kdf={}),
    "a list": cosign_file(kdf=[]),
    "not JSON": b"-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED COSIGN PRIVATE KEY-----",
    "P-521": p521_pem(),
}


@pytest.mark.parametrize("pem", BAD.values(), ids=BAD)
def test_a_file_that_is_no_key_for_signing_is_refused(pem: bytes) -> None:
    with pytest.raises(Misuse, match=r"^key\.pem: "):
        read_key_pair(pem, "key.pem", lambda: b"")

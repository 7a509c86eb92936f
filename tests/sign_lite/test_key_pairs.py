"""Key pairs: sign-lite signs with plain keys and cosign's encrypted ones, and the unmodified cosign verifies it."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sign_lite.errors import Misuse
from sign_lite.private_key import read_key_pair
from tests.support.ca_server import SIGN_LITE, CaServer, ca_and_log, run
from tests.support.go_clients import cosign, needs_cosign, needs_registry, registry_server
from tests.support.images import push_image

BUILD = "https://example.com/build/v1"
PASSWORD = "a password of the key"
REKORS = pytest.mark.parametrize("rekor", [1, 2])


@dataclass
class Place:
    """A deployment, and a folder with keys: `plain`, `locked` (PKCS#8 with a password), `rsa`; `cosign` where built."""

    ca: CaServer
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


def write_key(folder: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: str = "") -> None:
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
    write_key(folder, "other", ec.generate_private_key(ec.SECP256R1()))
    (folder / "predicate.json").write_text('{"built": "here"}')
    with ca_and_log(folder) as (ca, _):
        yield Place(ca, folder)


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
@pytest.mark.parametrize("key", ["plain", "locked", "rsa"])
def test_a_file_signed_with_a_key_verifies_with_that_key_only(key: str, rekor: int, place: Place) -> None:
    file, other = place.file(f"{key}-{rekor}"), place.file("another")
    bundle = ("--bundle", signed(place, file, key, rekor))
    place.sign_lite("verify", str(file), "--key", place.public(key), *bundle)
    place.sign_lite("verify", str(file), "--key", place.public("other"), *bundle, expect=1)
    place.sign_lite("verify", str(other), "--key", place.public(key), *bundle, expect=1)


@needs_cosign
@REKORS
@pytest.mark.parametrize("key", ["plain", "rsa"])
def test_cosign_verifies_it(key: str, rekor: int, place: Place) -> None:
    file, other = place.file(f"cosign-{key}-{rekor}"), place.file("another")
    bundle = ("--bundle", signed(place, file, key, rekor))
    place.cosign("verify-blob", *bundle, "--key", place.public(key), str(file))
    place.cosign("verify-blob", *bundle, "--key", place.public("other"), str(file), expect=None)
    place.cosign("verify-blob", *bundle, "--key", place.public(key), str(other), expect=None)


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


def ed25519_pem() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def p384_pem() -> bytes:
    return ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


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
    "Ed25519": ed25519_pem(),
    "P-384": p384_pem(),
}


@pytest.mark.parametrize("pem", BAD.values(), ids=BAD)
def test_a_file_that_is_no_key_for_signing_is_refused(pem: bytes) -> None:
    with pytest.raises(Misuse, match=r"^key\.pem: "):
        read_key_pair(pem, "key.pem", lambda: b"")

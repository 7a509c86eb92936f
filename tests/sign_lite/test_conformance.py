"""The sigstore-conformance protocol, and bundles that a bare key signed: cases of our own, with a real CA and log."""

import base64
import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from sign_lite.cli import app
from sigstore_entries.bundle_file import HeldBundle, read_bundle_file
from tests.log_lite.client import hashedrekord, hashedrekord_v2
from tests.support.bundle_forms import with_promise, with_proof
from tests.support.ca_server import CaServer, ca_and_log
from tests.support.entries import make_key
from tests.support.log_server import LogServer
from tests.support.waiting import PATIENCE

ALICE = "alice@lab.local"
KEY = make_key("conformance")
CONTENT = b"the artifact\n"
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "a.txt", "digest": {"sha256": hashlib.sha256(CONTENT).hexdigest()}}],
    "predicateType": "https://example.com/build/v1",
    "predicate": {},
}
Json = dict[str, Any]


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@dataclass
class Suite:
    """What the suite has at hand: files, a deployment, and a client that it calls by the protocol."""

    ca: CaServer
    log: LogServer
    folder: Path

    @property
    def trusted_root(self) -> Path:
        return self.ca.folder / "trust" / "trusted_root.json"

    @property
    def artifact(self) -> Path:
        return self.folder / "a.txt"

    def run(self, *words: str) -> int:
        return CliRunner().invoke(app, ["conformance", *words]).exit_code

    def sign(self, name: str, *words: str, file: str = "a.txt") -> Path:
        bundle = self.folder / name
        trust = ["--trusted-root", str(self.trusted_root)]
        trust += ["--signing-config", str(self.ca.folder / "trust" / "signing_config.json")]
        asked = ["--identity-token", self.ca.email_token(ALICE), "--bundle", str(bundle), *trust]
        assert self.run("sign-bundle", *words, *asked, str(self.folder / file)) == 0
        return bundle

    def verify(self, bundle: Path, what: str | Path, *words: str, root: Path | None = None) -> int:
        who = words or ("--certificate-identity", ALICE, "--certificate-oidc-issuer", self.ca.oidc)
        trust = ("--trusted-root", str(root or self.trusted_root))
        return self.run("verify-bundle", "--bundle", str(bundle), *who, *trust, str(what))

    def write(self, name: str, document: Any) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(document))
        return path


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    folder = tmp_path_factory.mktemp("conformance")
    with ca_and_log(folder) as (ca, log):
        made = Suite(ca, log, folder)
        made.artifact.write_bytes(CONTENT)
        made.write("statement.json", STATEMENT)
        (folder / "key.pub").write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        yield made


DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


def test_a_signed_file_verifies_by_file_and_by_digest(suite: Suite) -> None:
    bundle = suite.sign("file.json")
    document = json.loads(bundle.read_text())
    assert "messageSignature" in document
    assert "dsseEnvelope" not in document
    for what in (suite.artifact, DIGEST):
        assert suite.verify(bundle, what) == 0
    other = suite.folder / "other.txt"
    other.write_bytes(b"another artifact\n")
    for what in (other, "sha256:" + "0" * 64):
        assert suite.verify(bundle, what) == 1
    assert suite.verify(bundle, DIGEST[:-1]) == 2, "no digest, and no file of that name"
    wrong = ("--certificate-identity", "mallory@lab.local", "--certificate-oidc-issuer", suite.ca.oidc)
    assert suite.verify(bundle, suite.artifact, *wrong) == 1


def test_a_file_that_is_named_like_a_digest_is_a_file(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol: a digest "should not be a path on disk"."""
    bundle = suite.sign("named.json")
    monkeypatch.chdir(suite.folder)
    Path(DIGEST).write_bytes(b"something else")
    try:
        assert suite.verify(bundle, DIGEST) == 1
    finally:
        Path(DIGEST).unlink()
    assert suite.verify(bundle, DIGEST) == 0


def test_a_signed_statement_is_the_files_own_bytes_and_about_its_subject(suite: Suite) -> None:
    bundle = suite.sign("statement.sigstore.json", "--in-toto", file="statement.json")
    document = json.loads(bundle.read_text())
    assert base64.b64decode(document["dsseEnvelope"]["payload"]) == (suite.folder / "statement.json").read_bytes()
    assert suite.verify(bundle, suite.artifact) == 0
    assert suite.verify(bundle, suite.folder / "statement.json") == 1, "it is about a.txt"


def test_options_that_do_not_fit_are_a_misuse(suite: Suite) -> None:
    bundle = suite.sign("misuse.json")
    key = ("--key", str(suite.folder / "key.pub"))
    assert suite.verify(bundle, suite.artifact, *key, "--certificate-identity", ALICE) == 2
    assert suite.verify(bundle, suite.artifact, "--certificate-identity", ALICE) == 2
    assert suite.verify(bundle, suite.artifact, "--key", str(suite.artifact)) == 2
    assert suite.verify(bundle, suite.artifact, *key) == 1, "it was signed with a certificate"


def test_a_trusted_root_is_read_in_every_spelling_and_a_key_without_a_start_is_refused(suite: Suite) -> None:
    bundle = suite.sign("roots.json")
    plain = json.loads(suite.trusted_root.read_text())
    odd = json.loads(json.dumps(plain).replace('"SHA2_256"', "1"))
    odd["timestamp_authorities"] = odd.pop("timestampAuthorities")
    for each in odd["tlogs"]:
        each["operator"] = None
        each["public_key"] = each.pop("publicKey")
    assert suite.verify(bundle, suite.artifact, root=suite.write("odd.json", odd)) == 0
    for kind in ("tlogs", "ctlogs"):
        endless = copy.deepcopy(plain)
        del endless[kind][0]["publicKey"]["validFor"]["start"]
        assert suite.verify(bundle, suite.artifact, root=suite.write("endless.json", endless)) == 2


def keyed(suite: Suite, version: int, content: bytes = CONTENT) -> Json:
    """A bundle of a bare key, with the entry that the log made of it."""
    signature: str
    if version == 1:
        proposal = hashedrekord(content, KEY)
        answer = httpx.post(f"{suite.log.url}/api/v1/log/entries", json=proposal, timeout=PATIENCE)
        assert answer.status_code == 201, answer.text
        (held,) = read_bundle_file(answer.content)
        assert isinstance(held, HeldBundle)
        (entry,) = held.entries
        signature = proposal["spec"]["signature"]["content"]
    else:
        request = hashedrekord_v2(content, KEY)
        answer = httpx.post(f"{suite.log.url}/api/v2/log/entries", json=request, timeout=PATIENCE)
        assert answer.status_code == 201, answer.text
        entry = answer.json()
        signature = request["hashedRekordRequestV002"]["signature"]["content"]
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "a key"}, "tlogEntries": [dict(entry)]},
        "messageSignature": {
            "messageDigest": {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(content).digest())},
            "signature": signature,
        },
    }


def _flip(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[-1] ^= 1
    return b64(bytes(raw))


def _entry(document: Json) -> Json:
    found: Json = document["verificationMaterial"]["tlogEntries"][0]
    return found


def _other_signature(document: Json) -> None:
    """A valid signature of the same file by the same key, but not the logged one."""
    document["messageSignature"]["signature"] = b64(KEY.sign(CONTENT, ec.ECDSA(SHA256())))


SPOILED: dict[str, Callable[[Json], Any]] = {
    "another digest": lambda d: d["messageSignature"]["messageDigest"].update(digest=b64(bytes(32))),
    "a signature that is none": lambda d: d["messageSignature"].update(
        signature=_flip(d["messageSignature"]["signature"])
    ),
    "a signature that was not logged": _other_signature,
    "no log entry": lambda d: d["verificationMaterial"].update(tlogEntries=[]),
    "two log entries": lambda d: d["verificationMaterial"].update(tlogEntries=[_entry(d)] * 2),
    "no proof": lambda d: _entry(d).pop("inclusionProof"),
    "no checkpoint": lambda d: _entry(d)["inclusionProof"].pop("checkpoint"),
    "another root": lambda d: _entry(d)["inclusionProof"].update(
        rootHash=_flip(_entry(d)["inclusionProof"]["rootHash"])
    ),
    "another index": lambda d: _entry(d)["inclusionProof"].update(logIndex="0"),
    "a hash of the proof": lambda d: _entry(d)["inclusionProof"]["hashes"].append(b64(bytes(32))),
    "another log": lambda d: _entry(d)["logId"].update(keyId=b64(bytes(32))),
    "another body": lambda d: _entry(d).update(canonicalizedBody=b64(b"{}")),
    "a checkpoint by nobody": lambda d: _entry(d)["inclusionProof"]["checkpoint"].update(
        envelope=_entry(d)["inclusionProof"]["checkpoint"]["envelope"].replace("\u2014 ", "\u2014 x")
    ),
    "not base64": lambda d: d["messageSignature"].update(signature="*"),
    "nothing signed": lambda d: d.pop("messageSignature"),
    "an unknown version with a bare promise": lambda d: (d.update(mediaType="x"), _entry(d).pop("inclusionProof")),
}


@pytest.mark.parametrize("version", [1, 2])
def test_a_bundle_of_a_bare_key_verifies_under_that_key_only(suite: Suite, version: int) -> None:
    good = keyed(suite, version)
    key = ("--key", str(suite.folder / "key.pub"))
    path = suite.write(f"keyed-{version}.json", good)
    for what in (suite.artifact, DIGEST):
        assert suite.verify(path, what, *key) == 0
    other = suite.folder / "other.pub"
    spki = make_key("another").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    other.write_bytes(spki)
    assert suite.verify(path, suite.artifact, "--key", str(other)) == 1
    assert suite.verify(path, suite.artifact) == 1, "a key is no identity"
    assert suite.verify(path, "sha256:" + "0" * 64, *key) == 1
    elsewhere = keyed(suite, version, b"another artifact, logged as well\n")
    swapped = copy.deepcopy(good)
    swapped["verificationMaterial"] = elsewhere["verificationMaterial"]
    assert suite.verify(suite.write("swapped.json", swapped), suite.artifact, *key) == 1
    for name, spoil in SPOILED.items():
        bad = copy.deepcopy(good)
        spoil(bad)
        assert suite.verify(suite.write("bad.json", bad), suite.artifact, *key) == 1, name


def test_a_promise_is_enough_in_a_bundle_of_the_first_version_only(suite: Suite) -> None:
    good = keyed(suite, 1, CONTENT)
    key = ("--key", str(suite.folder / "key.pub"))
    first = copy.deepcopy(good)
    first["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1"
    del _entry(first)["inclusionProof"]
    assert suite.verify(suite.write("first.json", first), suite.artifact, *key) == 0
    for field, value in (("integratedTime", "1700000000"), ("logIndex", "7")):
        bad = copy.deepcopy(first)
        _entry(bad)[field] = value
        assert suite.verify(suite.write("bad.json", bad), suite.artifact, *key) == 1, field


def test_sign_lite_verify_takes_a_key_a_digest_and_a_trusted_root(suite: Suite) -> None:
    bundle = suite.write("held.json", keyed(suite, 2))
    root = ["--trusted-root", str(suite.trusted_root)]

    def verify(*words: str) -> Any:
        return CliRunner().invoke(app, ["verify", *words, "--json"])

    key = ["--key", str(suite.folder / "key.pub"), "--bundle", str(bundle)]
    done = verify(DIGEST, *root, *key)
    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.stdout)
    assert told["names"][0].startswith("key sha256:")
    assert verify(DIGEST, *root, "--key", key[1]).exit_code == 2, "no bundle stands beside a digest"
    assert verify(DIGEST, *key).exit_code == 2, "nothing is trusted"
    assert verify(str(suite.artifact), *root, *key).exit_code == 0


def test_sign_lite_verify_reads_the_forms_that_people_hold(suite: Suite) -> None:
    bundle = json.loads(suite.sign("forms.json").read_text())
    statement = json.loads(suite.sign("forms-statement.json", "--in-toto", file="statement.json").read_text())
    material = statement["verificationMaterial"]
    attestation = {
        "version": 1,
        "verification_material": {
            "certificate": material["certificate"]["rawBytes"],
            "transparency_entries": material["tlogEntries"],
        },
        "envelope": {
            "statement": statement["dsseEnvelope"]["payload"],
            "signature": statement["dsseEnvelope"]["signatures"][0]["sig"],
        },
    }
    files = {
        "npm": {"attestations": [{"predicateType": "x", "bundle": bundle}]},
        "a bundle of another file beside it": [keyed(suite, 2), bundle],
        "an array": [bundle],
    }
    wanted = ["--trusted-root", str(suite.trusted_root), "--identity", ALICE, "--issuer", suite.ca.oidc]
    for name, document in files.items():
        words = ["verify", str(suite.artifact), *wanted, "--bundle", str(suite.write("form.json", document))]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (name, done.output)
    # A timestamp is no part of PEP 740, so an attestation of Rekor v2 lacks a signed time and does not verify.
    words = ["verify", str(suite.artifact), *wanted, "--bundle", str(suite.write("form.json", attestation))]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "signed timestamp" in done.output
    for raw, told in ((b"{}", "an empty JSON object"), (b"", "an empty file")):
        (suite.folder / "form.json").write_bytes(raw)
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 1
        assert told in done.output


def promised(suite: Suite) -> dict[str, bytes]:
    words = ["sign", str(suite.artifact), "--trust-config", str(suite.ca.trust_config), "--rekor-version", "1"]
    words += ["--identity-token", suite.ca.email_token(ALICE), "--bundle", str(suite.folder / "p.json"), "--overwrite"]
    assert CliRunner().invoke(app, words).exit_code == 0
    return with_promise(json.loads((suite.folder / "p.json").read_text()))


def test_cosigns_older_bundles_with_a_signed_entry_timestamp_verify(suite: Suite) -> None:
    forms = promised(suite)
    for name in ("bundle 0.1", "cosign", "cosign download signature"):
        path = suite.folder / "promised"
        path.write_bytes(forms[name])
        assert suite.verify(path, suite.artifact) == 0, name
        assert suite.verify(path, "sha256:" + "0" * 64) == 1, name
        wrong = ("--certificate-identity", "mallory@lab.local", "--certificate-oidc-issuer", suite.ca.oidc)
        assert suite.verify(path, suite.artifact, *wrong) == 1, name
    for name in ("cosign verify", "annotation of an image"):
        path.write_bytes(forms[name])
        assert suite.verify(path, suite.artifact) == 1, "there is no signature in it"
    good, other = json.loads(forms["bundle 0.1"]), json.loads(promised(suite)["bundle 0.1"])
    plain = json.loads(suite.trusted_root.read_text())
    spoiled: dict[str, Callable[[Json], Any]] = {
        "another time": lambda d: _entry(d).update(integratedTime="1700000000"),
        "another index": lambda d: _entry(d).update(logIndex="7"),
        "a promise that is none": lambda d: _entry(d)["inclusionPromise"].update(
            signedEntryTimestamp=_flip(_entry(d)["inclusionPromise"]["signedEntryTimestamp"])
        ),
        "no promise": lambda d: _entry(d).pop("inclusionPromise"),
        "another entry of the same signer": lambda d: d["verificationMaterial"].update(
            tlogEntries=other["verificationMaterial"]["tlogEntries"]
        ),
        "another certificate of the same signer": lambda d: d["verificationMaterial"].update(
            x509CertificateChain={"certificates": [other["verificationMaterial"]["certificate"]]}
            if "certificate" in other["verificationMaterial"]
            else other["verificationMaterial"]["x509CertificateChain"],
            certificate=None,
        ),
        "another signature": lambda d: d.update(messageSignature=other["messageSignature"]),
        "a later version": lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle.v0.3+json"),
    }
    for name, spoil in spoiled.items():
        bad = copy.deepcopy(good)
        spoil(bad)
        assert suite.verify(suite.write("bad.json", bad), suite.artifact) == 1, name
    for kind in ("tlogs", "ctlogs", "certificateAuthorities"):
        root = suite.write("less.json", {**plain, kind: []})
        assert suite.verify(suite.write("good.json", good), suite.artifact, root=root) == 1, kind
    assert suite.verify(suite.write("good.json", good), suite.artifact) == 0


def test_a_bundle_of_rekor_v1_verifies_in_each_form_that_keeps_it_whole(suite: Suite) -> None:
    words = ["sign", str(suite.artifact), "--trust-config", str(suite.ca.trust_config), "--rekor-version", "1"]
    words += ["--identity-token", suite.ca.email_token(ALICE), "--bundle", str(suite.folder / "v1.json"), "--overwrite"]
    assert CliRunner().invoke(app, words).exit_code == 0
    wanted = ["--trusted-root", str(suite.trusted_root), "--identity", ALICE, "--issuer", suite.ca.oidc]
    forms = with_proof(json.loads((suite.folder / "v1.json").read_text()))
    for name, raw in forms.items():
        (suite.folder / "form").write_bytes(raw)
        done = CliRunner().invoke(app, ["verify", str(suite.artifact), *wanted, "--bundle", str(suite.folder / "form")])
        whole = not (name.startswith(("PyPI", "Rekor")) or name == "log entry")
        assert done.exit_code == (0 if whole else 1), (name, done.output)

"""`signwatch evidence verify` says whose key signed: a file signed with any other key shows nothing of a log."""

import copy
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from msgspec.structs import replace

from monitor.cli import run_command
from monitor.model.errors import Evidence, LogMisbehaved
from monitor.proof.evidence import KINDS as EVIDENCE_KINDS
from monitor.proof.evidence import NotEvidence, check_evidence, event_id, to_document
from monitor.raising.log_alerts import ALERT_KINDS
from monitor.trust.trust_root import read_trust_root
from tests.evidence.test_independent_reader import forked
from tests.support.harness import KINDS, watch
from tests.support.misbehaving_log import MisbehavingLog, RekorV1Log, RekorV2Log, b64, ecdsa_key, ed25519_key, spki_of
from tlog.note import MalformedNote, rekor_v1_key, tile_log_key

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.api)
Verify = Callable[..., tuple[dict[str, Any], str, str]]


def trusted_root(evidence: Evidence, spki: bytes | None = None) -> dict[str, Any]:
    """A trusted root that names one log of the evidence's protocol, with the key of the evidence or another."""
    spki = spki or evidence.spki
    try:
        v2 = tile_log_key(evidence.key_name, spki).log_id
    except MalformedNote:
        v2 = b""  # the name of an RFC 6962 log is its URL's path too
    log = {
        "baseUrl": "https://log.example",
        "hashAlgorithm": "SHA2_256",
        "publicKey": {"rawBytes": b64(spki), "validFor": {"start": "2020-01-01T00:00:00Z"}},
        "logId": {"keyId": b64(v2 if evidence.api == "rekor-v2" else sha256(spki).digest())},
    }
    return {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "ctlogs" if evidence.api.startswith("ct") else "tlogs": [log],
    }


@pytest.fixture
def verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verify:
    """Run the command on a document in an empty folder; returns its JSON, and what people see."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIGNWATCH_CONFIG", raising=False)

    def run(document: dict[str, Any], *words: str, expect: int) -> tuple[dict[str, Any], str, str]:
        (tmp_path / "evidence.json").write_text(json.dumps(document), encoding="utf-8")
        asked = ["evidence", "verify", "evidence.json", *words]
        assert run_command([*asked, "--json"]) == expect
        told = json.loads(capsys.readouterr().out)
        assert run_command(asked) == expect
        out, errors = capsys.readouterr()
        return told, out, errors

    return run


@kinds
def test_evidence_is_verified_only_under_a_key_that_counts(
    kind: type[MisbehavingLog], verify: Verify, tmp_path: Path
) -> None:
    evidence = forked(kind, 100, 50)
    document = to_document(evidence)
    told, out, errors = verify(document, expect=3)
    key = sha256(evidence.spki).hexdigest()
    assert (told["verified"], told["verdict"], told["key"]["sha256"]) == (False, "key-not-checked", key)
    assert f"signed by key {key}; whether that is the log's key was not checked" in out
    assert "verified, " not in out
    assert "--trusted-root" in errors
    root = tmp_path / "root.json"
    root.write_text(json.dumps(trusted_root(evidence)))
    told, out, _ = verify(document, "--trusted-root", "root.json", expect=0)
    assert (told["verified"], told["verdict"]) == (True, "verified")
    assert "https://log.example in root.json" in told["key"]["owner"]
    assert out.startswith("verified, transferable")
    key_file = tmp_path / "log.pub"
    public = load_der_public_key(evidence.spki)
    for encoding in (Encoding.PEM, Encoding.DER):
        key_file.write_bytes(public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo))
        assert verify(document, "--key", "log.pub", expect=0)[0]["verdict"] == "verified"


@kinds
def test_a_file_signed_with_any_other_key_shows_nothing_of_the_log(
    kind: type[MisbehavingLog], verify: Verify, tmp_path: Path
) -> None:
    evidence = forked(kind, 100, 50)
    other = spki_of(ed25519_key(77) if kind is RekorV2Log else ecdsa_key(77))
    (tmp_path / "root.json").write_text(json.dumps(trusted_root(evidence, other)))
    (tmp_path / "other.pub").write_bytes(other)
    for words in (("--trusted-root", "root.json"), ("--key", "other.pub")):
        told, out, _ = verify(to_document(evidence), *words, expect=1)
        assert (told["verified"], told["verdict"]) == (False, "another-key")
        assert "no log's key" in out
        assert "signed size" not in out, "what it says is not repeated as if it were so"


def test_the_key_of_one_log_does_not_count_for_the_name_of_another() -> None:
    """Rekor v2 with Ed25519: the log's id covers its name."""
    evidence = forked(RekorV2Log, 10, 5)
    root = read_trust_root(json.dumps(trusted_root(evidence)).encode())
    api = root.logs[0].apis[0]
    assert root.signer(api, evidence.key_name, evidence.spki) == root.logs[0]
    assert root.signer(api, "other.example", evidence.spki) is None
    assert root.signer(api, "not a name", evidence.spki) is None


def test_the_configuration_says_whose_key_counts(verify: Verify, tmp_path: Path) -> None:
    evidence = forked(RekorV2Log, 100, 50)
    document = to_document(evidence)
    (tmp_path / "rules.yaml").write_text("version: 1\nrules: []\n")
    (tmp_path / "root.json").write_text(json.dumps(trusted_root(evidence)))
    text = (
        "version: 1\ndatabase: none.db\ntrust: {trusted_root: root.json}\nlogs:\n"
        '  - {name: v2, api: rekor-v2, url: "https://log.example"}\nrules: rules.yaml\n'
        "channels: {file: {type: jsonl, path: alerts.jsonl}}\nnotify: [file]\n"
    )
    (tmp_path / "other.yaml").write_text(text)
    assert verify(document, expect=3)[0]["verdict"] == "key-not-checked", "there is no configuration by the usual name"
    assert verify(document, "--config", "other.yaml", expect=0)[0]["key"]["checked_against"].endswith("other.yaml")
    (tmp_path / "signwatch.yaml").write_text(text)
    assert verify(document, expect=0)[0]["key"]["checked_against"].endswith("signwatch.yaml")
    (tmp_path / "evidence.json").write_text("{}")
    assert run_command(["evidence", "verify", "evidence.json", "--config", "absent.yaml"]) in {1, 2}
    for words in (["--key", "root.json"], ["--trusted-root", "rules.yaml"], ["--key", "a", "--trusted-root", "b"]):
        (tmp_path / "evidence.json").write_text(json.dumps(document))
        assert run_command(["evidence", "verify", "evidence.json", *words]) == 2, words


def test_a_file_of_no_known_kind_or_without_a_signature_is_no_evidence(verify: Verify) -> None:
    good = forked(RekorV1Log, 100, 50)
    assert check_evidence(json.dumps(to_document(good)).encode()).conclusion.transferable  # the control case
    forged = {
        "an unknown kind": replace(good, kind="log-is-bad"),
        "no head, no promise": replace(good, heads=(), sizes=(), proof=(), prefix=()),
        "nothing at all": Evidence("rekor.sigstore.dev", "rekor-v1", "log-forked", "it lied", b"", "", ()),
    }
    for name, evidence in forged.items():
        document = {**to_document(good), **to_document(evidence)}
        document["id"] = event_id(evidence)
        with pytest.raises(NotEvidence):
            check_evidence(json.dumps(document).encode())
        told, _, errors = verify(document, expect=1)
        assert told["verdict"] == "shows-nothing", name
        assert "no evidence" in errors


def test_every_kind_of_evidence_is_a_kind_of_alert() -> None:
    assert set(ALERT_KINDS) >= EVIDENCE_KINDS


def test_a_record_is_not_verified_even_with_the_right_key(verify: Verify, tmp_path: Path) -> None:
    """Anybody can put a genuine head beside a claim: only the author of the record vouches for it."""
    seen = watch(RekorV1Log, 100)
    seen.log.grow(10)
    seen.log.swap_leaf(105, seen.log.leaf(4711))
    with pytest.raises(LogMisbehaved) as caught:
        seen.follow()
    evidence = caught.value.evidence
    (tmp_path / "root.json").write_text(json.dumps(trusted_root(evidence)))
    told, out, _ = verify(to_document(evidence), "--trusted-root", "root.json", expect=3)
    assert (told["verified"], told["verdict"]) == (False, "record")
    assert out.startswith("a record only")
    seen = watch(RekorV1Log, 10)
    seen.log.sign_with(ecdsa_key(99))
    with pytest.raises(LogMisbehaved) as caught:
        seen.follow()
    told, out, _ = verify(to_document(caught.value.evidence), "--trusted-root", "root.json", expect=3)
    assert told["verdict"] == "record"
    assert "the log signed no part of the file" in out


HOSTILE = "\x1b[2J\x1b]0;owned\x07\nverified, transferable\r\u202eevil"


def test_text_of_the_file_never_reaches_the_terminal_raw(verify: Verify, tmp_path: Path) -> None:
    seen = watch(RekorV1Log, 100)
    seen.log.grow(10)
    seen.log.swap_leaf(105, seen.log.leaf(4711))
    with pytest.raises(LogMisbehaved) as caught:
        seen.follow()
    evidence = replace(caught.value.evidence, log=HOSTILE, detail=HOSTILE)
    (tmp_path / "root.json").write_text(json.dumps(trusted_root(evidence)))
    hostile = [(to_document(evidence), 3), ({**to_document(evidence), "api": HOSTILE}, 1)]
    hostile.append(({**to_document(evidence), "id": HOSTILE, HOSTILE: HOSTILE}, 1))
    odd = copy.deepcopy(to_document(evidence))
    odd["kind"] = HOSTILE
    odd["id"] = event_id(replace(evidence, kind=HOSTILE))
    hostile.append((odd, 1))
    for document, code in hostile:
        for words in ((), ("--trusted-root", "root.json")):
            _, out, errors = verify(document, *words, expect=code)
            shown = out + errors
            assert not {"\x1b", "\x07", "\r", "\u202e"} & set(shown)
            assert not any(line.startswith("verified") for line in shown.splitlines())


def test_the_key_is_named_so_that_it_can_be_looked_up(verify: Verify) -> None:
    """The v1 log id people know is the SHA-256 of the key."""
    evidence = forked(RekorV1Log, 20, 5)
    told, _, _ = verify(to_document(evidence), expect=3)
    assert told["key"]["sha256"] == rekor_v1_key(evidence.key_name, evidence.spki).log_id.hex()

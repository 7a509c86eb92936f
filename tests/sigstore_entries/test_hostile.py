"""Decoding any log entry ends in bounded time with a value: a signing, or why it is unreadable."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigstore_entries.body import MAX_BODY, failed
from sigstore_entries.entry import KINDS, decode_ct, decode_rekor, outline_ct, outline_fingerprints, outline_rekor
from sigstore_entries.escapes import escaped
from sigstore_entries.signing import EntryRef, Signing, Unreadable
from tests.support import entries as make
from tests.support.progress import Progress

WHERE = EntryRef("rekor.example", 9)
CA = make.make_ca()
CERTIFICATE = make.make_certificate(CA)
SPKI = make.spki_of(make.make_key("plain"))
BODY = make.hashedrekord_v1(CERTIFICATE)
TUF_ROOT = {"signed": {"keys": {"a": {"keytype": "ed25519", "keyval": {"public": "00" * 32}}}}}


def rsa_spki(bits: int) -> bytes:
    """SPKI of an RSA key of this size, with a modulus that is only a number."""
    modulus = make.der(0x02, b"\x00" + b"\xff" * (bits // 8))
    key = make.der(0x30, modulus + b"\x02\x03\x01\x00\x01")
    algorithm = make.der(0x30, make.der_oid("1.2.840.113549.1.1.1") + b"\x05\x00")
    return make.der(0x30, algorithm + make.der(0x03, b"\x00" + key))


def nested_json(depth: int) -> bytes:
    return b'{"apiVersion":"0.0.1","kind":"tuf","spec":' + b"[" * depth + b"]" * depth + b"}"


def signatures(count: int) -> bytes:
    return make.dsse_v1(*[CERTIFICATE] * count)


HOSTILE = {
    "empty": (b"", "malformed-json"),
    "cut short": (BODY[:-1], "malformed-json"),
    "not UTF-8": (BODY.replace(b"sha256", b"sha\xff\xfe6"), "malformed-json"),
    "byte order mark": (b"\xef\xbb\xbf" + BODY, "malformed-json"),
    "nested 100,000 deep": (nested_json(100_000), "malformed-json"),
    "NaN": (b'{"apiVersion":NaN}', "malformed-json"),
    "a number of 10,000 digits": (b'{"apiVersion":' + b"9" * 10_000 + b"}", "malformed-json"),
    "two documents": (BODY + BODY, "malformed-json"),
    "a repeated key": (BODY.replace(b'"kind"', b'"kind":"dsse","kind"'), "repeated-key"),
    "a repeated key deep inside": (BODY.replace(b'"value"', b'"value":"","value"'), "repeated-key"),
    "a list": (b"[1]", "malformed-body"),
    "null": (b"null", "malformed-body"),
    "no kind": (b'{"apiVersion":"0.0.1"}', "malformed-body"),
    "kind is a number": (b'{"apiVersion":"0.0.1","kind":1}', "malformed-body"),
    "spec is a list": (b'{"apiVersion":"0.0.1","kind":"dsse","spec":[]}', "malformed-body"),
    "too large": (b'"' + b"a" * MAX_BODY + b'"', "too-large"),
    "a lone surrogate as kind": (b'{"apiVersion":"0.0.1","kind":"\\ud800"}', "unsupported-kind"),
    "digest is not hex": (make.hashedrekord_v1(CERTIFICATE, "z" * 64), "malformed-body"),
    "digest is too short": (make.hashedrekord_v1(CERTIFICATE, "ab"), "malformed-body"),
    "digest of Unicode digits": (BODY.replace(make.ARTIFACT.encode(), "٣".encode() * 64), "malformed-body"),
    "unknown digest algorithm": (make.hashedrekord_v1(CERTIFICATE, algorithm="md5"), "malformed-body"),
    "v2 digest of another size": (make.hashedrekord_v2(CERTIFICATE, "ab"), "malformed-body"),
    "no signatures": (signatures(0), "malformed-body"),
    "verifier is not base64": (
        BODY.replace(b'"publicKey":{"content":"L', b'"publicKey":{"content":"!'),
        "malformed-body",
    ),
    "two forms of verifier": (
        make.hashedrekord_v2(SPKI).replace(b'"publicKey":{', b'"x509Certificate":{"rawBytes":"AAAA"},"publicKey":{'),
        "malformed-body",
    ),
    "no PEM": (make.hashedrekord_v1(b"-----"), "malformed-key"),
    "eleven certificates": (make.hashedrekord_v1(make.pem(CERTIFICATE) * 11), "malformed-key"),
    "certificate and key": (make.hashedrekord_v1(make.pem(CERTIFICATE) + make.pem_of(SPKI)), "malformed-certificate"),
    "two keys": (make.hashedrekord_v1(make.pem_of(SPKI) * 2), "malformed-key"),
    "a private key": (make.hashedrekord_v1(make.pem(b"\x30\x00", "PRIVATE KEY")), "malformed-key"),
    "text between PEM blocks": (
        make.hashedrekord_v1(make.pem(CERTIFICATE) + b"x" + make.pem(CERTIFICATE)),
        "malformed-key",
    ),
    "PEM labels that differ": (
        make.hashedrekord_v1(make.pem(CERTIFICATE).replace(b"END CERT", b"END FLIRT")),
        "malformed-key",
    ),
    "PEM that is not base64": (make.hashedrekord_v1(make.pem(CERTIFICATE).replace(b"MII", b"M=I")), "malformed-key"),
    "certificate is junk": (make.hashedrekord_v1(make.pem(b"junk")), "malformed-certificate"),
    "certificate is cut short": (make.hashedrekord_v1(make.pem(CERTIFICATE[:-9])), "malformed-certificate"),
    "certificate of 2 MB": (
        make.hashedrekord_v1(make.pem(make.der(0x30, b"\x00" * 2_000_000))),
        "malformed-certificate",
    ),
    "certificate of a million values": (
        make.hashedrekord_v1(make.pem(make.der(0x30, b"\x05\x00" * 400_000))),
        "malformed-certificate",
    ),
    "key of 65,536 bits": (make.hashedrekord_v1(make.pem(rsa_spki(65_536), "PUBLIC KEY")), "malformed-key"),
    "all verifiers unreadable": (make.dsse_v1(make.pem(b"a"), make.pem(b"b")), "malformed-certificate"),
    "SSH key of another type": (make.rekord("ssh", b"ssh-rsa AAAAC3NzaC1lZDI1NTE5"), "malformed-key"),
    "SSH key cut short": (make.rekord("ssh", b"ssh-ed25519 AAAA"), "malformed-key"),
    "SSH key not base64": (make.rekord("ssh", b"ssh-ed25519 ???"), "malformed-key"),
    "empty SSH key": (make.rekord("ssh", b""), "malformed-key"),
    "minisign key of another algorithm": (
        make.rekord("minisign", make.b64(b"XX" + b"\x00" * 40).encode()),
        "malformed-key",
    ),
    "empty minisign key": (make.rekord("minisign", b"\n"), "malformed-key"),
    "PGP junk": (make.rpm(b"junk"), "malformed-key"),
    "rekord of an unknown format": (make.rekord("gpgsm", b""), "unsupported-kind"),
    "time stamp junk": (make.rfc3161(b"junk"), "malformed-body"),
    "time stamp cut short": (make.rfc3161(make.timestamp_response(b"\x00" * 32, CERTIFICATE)[:-9]), "malformed-body"),
    "time stamp of 1 MB": (make.rfc3161(b"\x30" * 1_000_000), "malformed-body"),
    "time stamp imprint of another size": (
        make.rfc3161(make.timestamp_response(b"\x00" * 31, CERTIFICATE)),
        "malformed-body",
    ),
    "TUF root that is not JSON": (make.tuf(TUF_ROOT, {}).replace(make.b64(b"{}").encode(), b"AAAA"), "malformed-json"),
    "TUF root without keys": (make.tuf({"signed": {"keys": {}}}, {}), "malformed-body"),
    "TUF root with 65 keys and none that is read": (
        make.tuf({"signed": {"keys": {str(at): {} for at in range(65)}}}, {}),
        "malformed-body",
    ),
    "two names of one spec": (
        make.hashedrekord_v2(SPKI).replace(b'"hashedRekordV002":', b'"hashedRekordV0_0_2":{},"hashedRekordV002":'),
        "malformed-body",
    ),
    "TUF key with a name to print": (
        make.tuf({"signed": {"keys": {"\x1b[2J\n<script>" + "a" * 9000: 1}}}, {}),
        "malformed-body",
    ),
    "TUF key of an unknown type": (
        make.tuf({"signed": {"keys": {"a": {"keytype": "sphincs", "keyval": {"public": "00"}}}}}, {}),
        "malformed-key",
    ),
    "TUF key that is not hex": (
        make.tuf({"signed": {"keys": {"a": {"keytype": "ed25519", "keyval": {"public": "zz" * 32}}}}}, {}),
        "malformed-key",
    ),
    "TUF key with a lone surrogate": (
        make.tuf(
            {"signed": {"keys": {"a": {"keytype": "x", "keyval": {"public": "-----BEGIN"}}}}}, {}, as_text=False
        ).replace(b"-----BEGIN", b"-----BEGIN\\ud800"),
        "malformed-key",
    ),
}


def test_the_control_cases_are_read() -> None:
    for body in (BODY, make.tuf(TUF_ROOT, {}), make.hashedrekord_v1(make.pem(rsa_spki(16_384), "PUBLIC KEY"))):
        assert isinstance(decode_rekor(body, WHERE), Signing)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_body_is_unreadable_with_a_code_and_a_plain_reason(case: str) -> None:
    body, code = HOSTILE[case]
    result = decode_rekor(body, WHERE)
    assert isinstance(result, Unreadable), result
    assert (result.code, result.where) == (code, WHERE)
    assert result.reason.isascii()
    assert result.reason.isprintable()
    assert 0 < len(result.reason) < 300


def test_every_truncation_of_a_body_is_a_value() -> None:
    for body in (BODY, make.hashedrekord_v2(CERTIFICATE), make.tuf(TUF_ROOT, {})):
        for size in range(0, len(body), 11):
            assert isinstance(decode_rekor(body[:size], WHERE), Unreadable)
            assert outline_rekor(body[:size]) is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=20)
    | st.sampled_from([make.b64(make.pem(CERTIFICATE))]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["content", "signature", "publicKey", "data", "hash", "verifier", "signatures", "format", "root"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), spec=JSON)
def test_any_json_under_any_kind_is_a_value(kind: tuple[str, str], spec: object) -> None:
    body = make.canonical(*kind, spec)  # type: ignore[arg-type]
    assert isinstance(decode_rekor(body, WHERE), Signing | Unreadable)


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=200))
def test_any_bytes_are_a_value(raw: bytes) -> None:
    assert isinstance(decode_rekor(raw, WHERE), Unreadable)
    assert isinstance(decode_ct(raw, WHERE), Unreadable)
    assert outline_rekor(raw) is None


NASTY = (b"\x80", b"\xff\xff\xff\xff", b"\x30\x80", b'"', b"\\", b"{", b"[")


class PanicException(BaseException):
    """Stands for a panic inside a library written in Rust."""


def test_a_failure_nobody_foresaw_is_the_entrys_and_an_interrupt_is_not() -> None:
    assert failed(WHERE, AttributeError("'int' has no\nattribute")).code == "decoder-failed"
    assert failed(WHERE, PanicException("index out of range")).code == "decoder-failed"
    for ours in (KeyboardInterrupt(), SystemExit(), MemoryError()):
        with pytest.raises(type(ours)):
            failed(WHERE, ours)


def spoil(generator: random.Random, raw: bytes) -> bytes:
    """Return `raw` with one to three random wounds."""
    for _ in range(generator.randint(1, 3)):
        at = generator.randrange(len(raw) + 1)
        match generator.randrange(10):
            case 0:
                raw = raw[:at] + generator.randbytes(generator.randint(1, 8)) + raw[at:]
            case 1:
                raw = raw[:at] + raw[at + generator.randint(1, 64) :]
            case 2:
                start = generator.randrange(len(raw) + 1)
                raw = raw[:at] + raw[start : start + generator.randint(1, 400)] + raw[at:]
            case 3:
                raw = raw[:at]
            case 4:
                raw = raw[:at] + generator.choice(NASTY) + raw[at:]
            case _:
                raw = raw[:at] + bytes((generator.randrange(256),)) + raw[at + 1 :]
    return raw


def hostile_entries(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Make hostile bodies and leaves: wounds in the JSON, or in the DER inside a sound body."""
    generator = random.Random(seed)
    github = make.make_github_certificate(CA)
    _, tbs = make.make_precertificate(CA)
    sound = [make.hashedrekord_v1(github), make.hashedrekord_v2(github), make.dsse_v1(github), make.intoto_v2(github)]
    sound += [make.tuf(TUF_ROOT, {}), make.rfc3161(make.timestamp_response(b"\x00" * 32, CERTIFICATE))]
    for _ in range(count):
        match generator.randrange(4):
            case 0:
                yield "body", spoil(generator, generator.choice(sound))
            case 1:
                yield "body", make.hashedrekord_v2_raw(spoil(generator, github))
            case 2:
                yield "leaf", make.precert_leaf(CA, spoil(generator, tbs))
            case _:
                yield "leaf", spoil(generator, make.precert_leaf(CA, tbs))


PARTS = {"names", "issuer", "claim", "extension", "validity", "unread", "chain", "certificate"}


def is_clean(result: Signing | Unreadable) -> bool:
    """Whether all text is free of control and unprintable characters, and each defect names a documented part."""
    if isinstance(result, Unreadable):
        return result.reason.isprintable() and result.reason.isascii()
    texts = [result.kind, result.version, *(digest.value for digest in result.digests)]
    for signer in result.signers:
        texts += [signer.issuer or "", *(name.value for name in signer.names), *signer.claims.values(), *signer.defects]
        if not {defect.partition(": ")[0].partition(":")[0] for defect in signer.defects} <= PARTS:
            return False
    return all(escaped(text) == text for text in texts)


def run(entries: Iterator[tuple[str, bytes]]) -> Counter[str]:
    """Decode every entry in both ways and count how that ended."""
    counts: Counter[str] = Counter()
    for form, raw in entries:
        started = time.process_time()
        result = decode_rekor(raw, WHERE) if form == "body" else decode_ct(raw, WHERE)
        short = outline_rekor(raw) if form == "body" else outline_ct(raw)
        if short is not None:
            outline_fingerprints(short)
        counts["slow"] += time.process_time() - started > 1
        counts[result.code if isinstance(result, Unreadable) else "signing"] += 1
        counts["unclean"] += not is_clean(result)
    return counts


def test_a_few_thousand_wounded_entries_are_values_and_none_is_a_surprise() -> None:
    counts = run(hostile_entries(1, 3000))
    assert (counts["decoder-failed"], counts["unclean"]) == (0, 0)
    assert counts["signing"] > 100


def followed(entries: Iterator[tuple[str, bytes]], count: int) -> Iterator[tuple[str, bytes]]:
    progress = Progress("wounded entries", count)
    for done, entry in enumerate(entries, start=1):
        yield entry
        if done % 1000 == 0:
            progress.at(done)


@pytest.mark.soak
def test_a_million_wounded_entries_raise_nothing_and_none_is_slow(covered: Callable[[str], None]) -> None:
    count = int(os.environ.get("SIGNWATCH_SOAK_ENTRIES", "1000000"))
    counts = run(followed(hostile_entries(2, count), count))
    assert (counts["decoder-failed"], counts["unclean"], counts["slow"]) == (0, 0, 0)
    assert counts.total() == count
    ends = ", ".join(f"{name} {number}" for name, number in counts.most_common() if number)
    covered(f"{count} wounded entries decoded in both ways: {ends}")

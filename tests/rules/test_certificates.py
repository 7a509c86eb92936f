"""Real certificates: what the bytes show must find every rule, and only what the certificate says may decide."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from rules.matching.matcher import Matcher, compile_rules
from rules.rule import Rule
from sigstore_entries.certificate import BY_NAME, read_certificate
from sigstore_entries.field_texts import FieldTexts
from sigstore_entries.signing import Signing
from tests.rules.signings import CLAIMS, SIGNED_AT, TAG, WHERE, WORKFLOW, rule

KEY = ec.derive_private_key(7, ec.SECP256R1())


def certificate(name: x509.GeneralName, claims: dict[str, str]) -> bytes:
    """A Fulcio-shaped certificate, self-made; its extensions come in front of its name."""
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([]),
        subject_name=x509.Name([]),
        public_key=KEY.public_key(),
        serial_number=7,
        not_valid_before=SIGNED_AT,
        not_valid_after=SIGNED_AT + timedelta(minutes=10),
    )
    for claim, value in claims.items():
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(BY_NAME[claim].oid), BY_NAME[claim].encode(value))
        builder = builder.add_extension(extension, critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=True)
    return builder.sign(KEY, SHA256()).public_bytes(Encoding.DER)


def decoded(raw: bytes) -> Signing:
    return Signing(WHERE, "hashedrekord", "0.0.1", (read_certificate(raw),))


def candidates(matcher: Matcher, raw: bytes) -> list[int] | None:
    """What the certificate's bytes suggest; `None` when only decoding it can tell."""
    shown = FieldTexts(matcher.fields).find([raw])
    return None if shown.unsure else list(matcher.candidates(shown.texts))


def test_bytes_that_look_like_a_name_decide_nothing() -> None:
    """An earlier extension holds the very bytes of a subject alternative name, with another person's name in it."""
    fake = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("https://github.com/good/repo/a.yml@refs/x")])
    looks_like = b"\x06\x03\x55\x1d\x11\x01\x01\xff\x04" + bytes([len(fake.public_bytes())]) + fake.public_bytes()
    spoofed = {**CLAIMS, "github_workflow_name": looks_like.decode("latin-1")}
    raw = certificate(x509.UniformResourceIdentifier(f"{WORKFLOW}@{TAG}"), spoofed)
    good = rule('{identity: {glob: "https://github.com/good/repo/*"}}')
    real = rule('{identity: {glob: "https://github.com/acme/widget/*"}}')
    matcher = compile_rules([good, real])
    assert candidates(matcher, raw) is None
    assert list(matcher.confirm(decoded(raw), (0, 1))) == [real]
    assert list(matcher.confirm_all(decoded(raw))) == [real]


SELECTED = [
    rule(f'{{identity: "{WORKFLOW}@{TAG}"}}'),
    rule('{identity: {glob: "*/acme/widget/*"}}'),
    rule('{identity: {regex: "https://github\\\\.com/(acme|kite)/widget/.*"}}'),
    rule("{identity: {glob: 'HTTPS://GITHUB.COM/ACME/*', ignore_case: true}}"),
    rule("{issuer: https://token.actions.githubusercontent.com, source_repository_identifier: '123456789'}"),
    rule("{source_repository_uri: https://github.com/acme/widget}"),
    rule("{oid: {1.3.6.1.4.1.57264.1.9: {glob: 'https://github.com/acme/widget/*'}}}"),
    rule("{oid: {1.3.6.1.4.1.57264.1.5: acme/widget}}"),
    rule("{any: [{identity: nobody@acme.example}, {build_signer_uri: {glob: '*acme/widget*'}}]}"),
]


@pytest.mark.parametrize("selecting", SELECTED, ids=[str(number) for number in range(len(SELECTED))])
def test_what_a_certificate_says_is_found_in_its_bytes(selecting: Rule) -> None:
    raw = certificate(x509.UniformResourceIdentifier(f"{WORKFLOW}@{TAG}"), CLAIMS)
    matcher = compile_rules([selecting])
    assert not matcher.unindexed
    assert candidates(matcher, raw) == [0]
    assert len(matcher.confirm(decoded(raw), (0,))) == 1


def test_an_email_is_found_in_the_bytes_of_its_certificate() -> None:
    raw = certificate(x509.RFC822Name("alice@acme.example"), {"issuer": "https://accounts.google.com"})
    matcher = compile_rules([rule("{identity: alice@acme.example}"), rule("{identity: bob@acme.example}")])
    assert candidates(matcher, raw) == [0]
    assert len(matcher.confirm(decoded(raw), (0,))) == 1

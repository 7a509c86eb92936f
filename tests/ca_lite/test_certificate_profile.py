"""A certificate is exactly what real clients verify (the profile of Fulcio's certificate specification)."""

from datetime import timedelta

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from ca_lite.keys import spki
from sigstore_entries.certificate import BY_OID, EXTENSIONS, POISON_OID, SCT_LIST_OID
from tests.ca_lite.ct_stub import CtStub
from tests.ca_lite.requests import V2, b64, bearer, csr, issued, key_request
from tests.support.ca_server import CaServer
from tlog.ct import parse_sct_list, verify_sct

WORKFLOW = "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1.0"


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def leaf(ca: CaServer, http: httpx.Client, key: ec.EllipticCurvePrivateKey) -> list[x509.Certificate]:
    token = ca.email_token("alice@lab.local")
    return issued(http.post(V2, json=key_request(key, "alice@lab.local"), headers=bearer(token)))


def extension(certificate: x509.Certificate, oid: str) -> x509.Extension[x509.ExtensionType]:
    return certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(oid))


def fulcio_claims(certificate: x509.Certificate) -> dict[str, str]:
    found = {}
    for each in certificate.extensions:
        if (known := BY_OID.get(each.oid.dotted_string)) is not None:
            assert isinstance(each.value, x509.UnrecognizedExtension)
            assert not each.critical
            found[known.name] = known.decode(each.value.value)
    return found


def test_the_chain_is_leaf_intermediate_root_and_each_signs_the_one_before(leaf: list[x509.Certificate]) -> None:
    assert len(leaf) == 3
    for child, parent in zip(leaf, (*leaf[1:], leaf[-1]), strict=True):
        child.verify_directly_issued_by(parent)
    intermediate = leaf[1]
    assert extension(intermediate, "2.5.29.19").value == x509.BasicConstraints(ca=True, path_length=0)
    assert extension(intermediate, "2.5.29.19").critical
    assert list(intermediate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CODE_SIGNING
    ]


def test_the_fixed_fields_are_fulcios(leaf: list[x509.Certificate], key: ec.EllipticCurvePrivateKey) -> None:
    certificate = leaf[0]
    assert certificate.version is x509.Version.v3
    assert not list(certificate.subject)
    assert 0 < certificate.serial_number < 1 << 160
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(minutes=10)
    assert spki(certificate.public_key()) == spki(key.public_key())
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign


def test_the_criticality_is_the_one_clients_insist_on(leaf: list[x509.Certificate]) -> None:
    """sigstore-python rejects a critical EKU, a non-critical SAN beside an empty subject, and a missing AKI."""
    certificate = leaf[0]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    authority = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    issuer = leaf[1].extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert names.critical
    assert list(names.value) == [x509.RFC822Name("alice@lab.local")]
    assert not usages.critical
    assert list(usages.value) == [ExtendedKeyUsageOID.CODE_SIGNING]
    assert authority.key_identifier == issuer.digest
    assert ExtensionOID.BASIC_CONSTRAINTS not in {each.oid for each in certificate.extensions}


def test_the_one_sct_comes_last_and_verifies(leaf: list[x509.Certificate], stub: CtStub) -> None:
    last = list(leaf[0].extensions)[-1]
    assert last.oid.dotted_string == SCT_LIST_OID
    assert not last.critical
    raw = last.value.public_bytes()
    scts = parse_sct_list(raw[2:] if raw[1] < 0x80 else raw[2 + (raw[1] & 0x7F) :])
    assert len(scts) == 1
    tbs = leaf[0].tbs_precertificate_bytes
    verify_sct(scts[0], spki(stub.key.public_key()), issuer_spki=spki(leaf[1].public_key()), tbs=tbs)


def test_the_precertificate_differs_in_poison_and_sct_only(leaf: list[x509.Certificate], stub: CtStub) -> None:
    logged = stub.chains[-1]
    poison = extension(logged[0], POISON_OID)
    assert poison.critical
    assert list(logged[0].extensions)[-1].oid == poison.oid
    assert logged[1:] == leaf[1:]
    assert logged[0].serial_number == leaf[0].serial_number
    assert list(logged[0].extensions)[:-1] == list(leaf[0].extensions)[:-1]


def test_an_email_certificate_carries_issuer_and_subject_only(leaf: list[x509.Certificate], ca: CaServer) -> None:
    assert fulcio_claims(leaf[0]) == {"issuer_v1": ca.oidc, "issuer": ca.oidc, "token_subject": "alice@lab.local"}


def test_a_github_certificate_carries_every_claim_in_order(
    ca: CaServer, http: httpx.Client, key: ec.EllipticCurvePrivateKey
) -> None:
    arguments = ["--github", "acme/widget", "--ref", "refs/tags/v1.0", "--workflow", ".github/workflows/release.yml"]
    more = [
        "--event",
        "push",
        "--sha",
        "a" * 40,
        "--workflow-name",
        "Release",
        "--environment",
        "prod",
        "--run-id",
        "7",
    ]
    token = ca.token(*arguments, *more)
    body = {"credentials": {"oidcIdentityToken": token}, "certificateSigningRequest": None}
    body["publicKeyRequest"] = key_request(key, "repo:acme/widget:environment:prod")["publicKeyRequest"]
    certificate = issued(http.post(V2, json=body))[0]
    claims = fulcio_claims(certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(WORKFLOW)]
    assert list(claims) == [each.name for each in EXTENSIONS]
    repository = "https://github.com/acme/widget"
    assert claims == {
        "issuer_v1": ca.github,
        "github_workflow_trigger": "push",
        "github_workflow_sha": "a" * 40,
        "github_workflow_name": "Release",
        "github_workflow_repository": "acme/widget",
        "github_workflow_ref": "refs/tags/v1.0",
        "issuer": ca.github,
        "build_signer_uri": WORKFLOW,
        "build_signer_digest": "a" * 40,
        "runner_environment": "github-hosted",
        "source_repository_uri": repository,
        "source_repository_digest": "a" * 40,
        "source_repository_ref": "refs/tags/v1.0",
        "source_repository_identifier": claims["source_repository_identifier"],
        "source_repository_owner_uri": "https://github.com/acme",
        "source_repository_owner_identifier": claims["source_repository_owner_identifier"],
        "build_config_uri": WORKFLOW,
        "build_config_digest": "a" * 40,
        "build_trigger": "push",
        "run_invocation_uri": f"{repository}/actions/runs/7/attempts/1",
        "source_repository_visibility": "public",
        "deployment_environment": "prod",
        "token_subject": "repo:acme/widget:environment:prod",
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
        lambda: rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate,
    ],
    ids=["p256", "p384", "p521", "rsa2048", "ed25519"],
)
def test_every_permitted_key_gets_a_certificate(make: object, ca: CaServer, http: httpx.Client) -> None:
    client_key = make()  # type: ignore[operator]
    token = ca.email_token("keys@lab.local")
    certificate = issued(http.post(V2, json=key_request(client_key, "keys@lab.local"), headers=bearer(token)))[0]
    assert spki(certificate.public_key()) == spki(client_key.public_key())


def test_a_csr_is_proof_enough_and_its_names_are_ignored(
    ca: CaServer, http: httpx.Client, key: ec.EllipticCurvePrivateKey
) -> None:
    token = ca.email_token("csr@lab.local")
    body = {"certificateSigningRequest": b64(csr(key, hashes.SHA256()))}
    headers = {**bearer(token), "Accept": "application/pem-certificate-chain"}
    certificate = issued(http.post(V2, json=body, headers=headers))[0]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.RFC822Name("csr@lab.local")]


@pytest.mark.parametrize("signed", ["http://localhost/robot", "robot@lab.local"])
def test_the_proof_may_be_over_email_or_subject_whatever_the_issuer_type(
    signed: str, ca: CaServer, http: httpx.Client, key: ec.EllipticCurvePrivateKey
) -> None:
    """A client like cosign signs the e-mail whenever a token has one; Fulcio would refuse it here."""
    token = ca.mint({"iss": f"{ca.oidc}/uri", "sub": "http://localhost/robot", "email": "robot@lab.local"})
    certificate = issued(http.post(V2, json=key_request(key, signed), headers=bearer(token)))[0]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("http://localhost/robot")]

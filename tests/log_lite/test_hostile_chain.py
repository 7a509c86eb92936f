"""A certificate chain that a stranger submits is accepted or refused with `BadChain`: no bytes of it end otherwise."""

from hashlib import sha256
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from log_lite.chain import BadChain, Submission, check_chain
from sigstore_entries.der import MalformedDer, children, encode, only, read_tbs
from tests.support import entries as make
from tlog.ct import EntryType, leaf_timestamped_entry, parse_leaf

CA: Final = make.make_ca("hostile chain")
ANCHORS: Final = [CA.root, CA.certificate]
PRECERTIFICATE: Final = make.make_precertificate(CA, san="https://github.com/acme/widget")[0]
OF_A_WORKFLOW: Final = make.make_precertificate(CA, claims=make.github_claims())[0]
CERTIFICATE: Final = make.make_certificate(CA)
POISON: Final = bytes.fromhex("060a2b06010401d679020403")
_SEQUENCE: Final = 0x30


def signed(tbs: bytes) -> bytes:
    """Certificate of any bytes as TBSCertificate, with the authority's own signature."""
    _, algorithm, _ = children(only(PRECERTIFICATE, _SEQUENCE, "the certificate"))
    signature = CA.key.sign(tbs, ec.ECDSA(SHA256(), deterministic_signing=True))
    return encode(_SEQUENCE, tbs + algorithm.encoded + encode(0x03, b"\x00" + signature))


def tbs_of(certificate: bytes) -> bytes:
    return x509.load_der_x509_certificate(certificate).tbs_certificate_bytes


@st.composite
def mutated(draw: st.DrawFn, raw: bytes) -> bytes:
    """Bytes with a few places flipped, cut out, doubled, or replaced by a header that lies about a length."""
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        end = at + draw(st.integers(0, 40))
        put = draw(
            st.sampled_from([b"", raw[at:end] * 2, POISON, b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\xa3\x00"])
            | st.binary(max_size=4)
        )
        raw = raw[:at] + put + raw[end:]
    return raw


def submit(chain: list[bytes], *, precertificate: bool) -> Submission | None:
    """Submission, or `None` for a refusal. Everything else that is raised fails the test."""
    try:
        return check_chain(chain, ANCHORS, precertificate=precertificate)
    except BadChain:
        return None


def check_leaf(found: Submission) -> None:
    """A leaf that readers can read back, of exactly the bytes that the authority signed, but for poison and SCTs."""
    leaf = found.leaf(2**40 - 1, 1_700_000_000_000)
    assert parse_leaf(b"\x00\x00" + leaf_timestamped_entry(leaf)) == leaf
    if found.entry_type is EntryType.PRECERT:
        theirs, ours = read_tbs(tbs_of(found.certificate)), read_tbs(found.signed)
        assert [each for each in theirs.extensions if not each.oid.startswith("1.3.6.1.4.1.11129.2.4.")] == list(
            ours.extensions
        )
        assert (theirs.serial, theirs.spki) == (ours.serial, ours.spki)
        assert found.issuer_key_hash == CA.issuer_key_hash


def test_an_honest_chain_is_accepted() -> None:
    for chain in ([PRECERTIFICATE], [OF_A_WORKFLOW, *CA.chain]):
        found = submit(chain, precertificate=True)
        assert found is not None
        check_leaf(found)
    found = submit([CERTIFICATE], precertificate=False)
    assert found is not None
    assert sha256(found.signed).digest() == sha256(CERTIFICATE).digest()


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from([PRECERTIFICATE, OF_A_WORKFLOW, CERTIFICATE]), st.booleans())
def test_mutated_bytes_are_refused_with_the_declared_error_or_logged_as_they_are(
    data: st.DataObject, certificate: bytes, precertificate: bool
) -> None:
    chain = [data.draw(mutated(certificate)), *(data.draw(mutated(each)) for each in CA.chain)]
    found = submit(chain[: data.draw(st.integers(1, 3))], precertificate=precertificate)
    if found is not None:
        check_leaf(found)


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from([PRECERTIFICATE, OF_A_WORKFLOW]))
def test_what_an_authority_did_sign_is_no_more_believed(data: st.DataObject, certificate: bytes) -> None:
    """The signature is right, so what is wrong with the content is the only thing left to find."""
    found = submit([signed(data.draw(mutated(tbs_of(certificate))))], precertificate=True)
    if found is not None:
        check_leaf(found)


def _with_version(number: int) -> bytes:
    return tbs_of(PRECERTIFICATE).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01" + bytes([number]), 1)


def _with_name_of_a_strange_form() -> bytes:
    """A subject alternative name that is an X.400 address (RFC 5280 4.2.1.6, [3]), which the library cannot hold."""
    raw = tbs_of(PRECERTIFICATE)
    (tag,) = {0x86}
    name = bytes([tag, len(b"https://github.com/acme/widget")]) + b"https://github.com/acme/widget"
    assert name in raw
    return raw.replace(name, b"\xa3" + name[1:], 1)


@pytest.mark.parametrize("tbs", [_with_version(7), _with_name_of_a_strange_form()], ids=["version 8", "X.400 address"])
def test_errors_that_are_no_value_errors_are_refusals_as_well(tbs: bytes) -> None:
    with pytest.raises(BadChain, match="cannot be read"):
        check_chain([signed(tbs)], ANCHORS, precertificate=True)


def test_a_chain_that_is_not_even_a_certificate_is_refused() -> None:
    with pytest.raises(MalformedDer):
        read_tbs(b"\x30\x80")
    assert submit([b"\x30\x80"], precertificate=True) is None
    assert submit([], precertificate=True) is None

"""Kind rfc3161: a time stamp response (RFC 3161), signed by a timestamp authority."""

from functools import partial
from typing import Final

from rfc3161_client import decode_timestamp_response

from sigstore_entries.body import MAX_ITEMS, Fields, MalformedBody
from sigstore_entries.decoded import Decoded
from sigstore_entries.signing import Digest, KnownTime
from sigstore_entries.verifier import all_signers, signer_from_certificate

MAX_RESPONSE: Final = 256 * 1024
# NIST and OIW object identifiers of the digests a message imprint may have.
_DIGESTS: Final = {
    "1.3.14.3.2.26": ("sha1", 20),
    "2.16.840.1.101.3.4.2.1": ("sha256", 32),
    "2.16.840.1.101.3.4.2.2": ("sha384", 48),
    "2.16.840.1.101.3.4.2.3": ("sha512", 64),
}


def rfc3161_v1(spec: Fields) -> Decoded:
    """Decode rfc3161 0.0.1: the imprint, the time, and the authority's certificates if the response has them.

    The CMS signature is not verified. A response without certificates has no signer that can be named.
    """
    raw = spec.object("tsr").bytes("content")
    if len(raw) > MAX_RESPONSE:
        raise MalformedBody(f"a time stamp response of {len(raw)} bytes", "too-large")
    try:
        response = decode_timestamp_response(raw)
        info, certificates = response.tst_info, sorted(response.signed_data.certificates)
        imprint, oid = bytes(info.message_imprint.message), info.message_imprint.hash_algorithm.dotted_string
        times = (KnownTime("timestamp-response", info.gen_time),)
    except ValueError as error:
        raise MalformedBody(f"not a time stamp response: {str(error)[:80]!a}") from error
    algorithm, size = _DIGESTS.get(oid, (oid, len(imprint)))
    if size != len(imprint) or len(certificates) > MAX_ITEMS:
        raise MalformedBody(f"a {algorithm} imprint of {len(imprint)} bytes, {len(certificates)} certificates")
    digests = (Digest(algorithm, imprint.hex()),)
    if not certificates:
        return Decoded((), digests, times)
    # CMS holds the certificates as a set: which of them signed is in the SignerInfo, and a chain may come along.
    return Decoded(all_signers(partial(signer_from_certificate, each) for each in certificates), digests, times)

"""The pipeline one writes in an afternoon: the same work in the obvious way, with the obvious libraries.

It hashes every entry into the tree, reads JSON with `json`, certificates with `cryptography` (PEM where the body holds
PEM), turns every extension into text, and asks rule after rule with a compiled `re`.
"""

import base64
import json
import re
from collections.abc import Sequence
from hashlib import sha256

from cryptography import x509

from benchmarks.watched import Watch

_ISSUER = "1.3.6.1.4.1.57264.1.8"


class NaivePipeline:
    """Rules compiled one by one; `examine` returns the subtree root and which rule matched which entry."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        self._rules = [(each.rule.id, re.compile(each.identity), each.issuer) for each in watches]

    def examine(self, bodies: Sequence[bytes]) -> tuple[bytes, list[tuple[int, str]]]:
        """Hash, decode and match a batch whose length is a power of two."""
        hits: list[tuple[int, str]] = []
        level = []
        for position, body in enumerate(bodies):
            level.append(sha256(b"\x00" + body).digest())
            names, extensions = _read(body)
            for rule_id, pattern, issuer in self._rules:
                if extensions.get(_ISSUER) == issuer and any(pattern.fullmatch(name) for name in names):
                    hits.append((position, rule_id))
        while len(level) > 1:
            level = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
        return level[0], hits


def _read(body: bytes) -> tuple[list[str], dict[str, str]]:
    document = json.loads(body)
    if document["apiVersion"] == "0.0.1":
        pem = base64.b64decode(document["spec"]["signature"]["publicKey"]["content"])
        certificate = x509.load_pem_x509_certificate(pem)
    else:
        verifier = document["spec"]["hashedRekordV002"]["signature"]["verifier"]
        certificate = x509.load_der_x509_certificate(base64.b64decode(verifier["x509Certificate"]["rawBytes"]))
    names: list[str] = []
    extensions: dict[str, str] = {}
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            names.extend(value.get_values_for_type(x509.RFC822Name))
            names.extend(value.get_values_for_type(x509.UniformResourceIdentifier))
        elif isinstance(value, x509.UnrecognizedExtension):
            raw = value.value
            # Behind a UTF8String's tag and length stands the text; older extensions hold the text alone.
            start = 0 if raw[:1] != b"\x0c" else 2 if raw[1] < 0x80 else 2 + (raw[1] & 0x7F)
            extensions[extension.oid.dotted_string] = raw[start:].decode("utf-8", "replace")
    return names, extensions

"""Says what a token would become, without asking for a certificate."""

from datetime import datetime
from typing import Any

from ca_lite.identity import challenges_of, principal_for
from ca_lite.issuer_keys import KeySource
from ca_lite.issuers import Issuers
from ca_lite.tokens import verify_token


def explain_token(token: str, issuers: Issuers, source: KeySource, now: datetime) -> dict[str, Any]:
    """Issuer, name and claims of the certificate a token stands for. Raises `Refused` with the reason."""
    verified = verify_token(token, issuers, source, now)
    principal = principal_for(verified.issuer, verified.claims)
    return {
        "issuer": verified.claims["iss"],
        "issuer_type": verified.issuer.type.value,
        "expires_in_seconds": int(float(verified.claims["exp"]) - now.timestamp()),
        "proof_of_possession_over": list(challenges_of(verified.claims)),
        "name_form": principal.form.value,
        "name": principal.name,
        "claims": dict(principal.claims),
    }

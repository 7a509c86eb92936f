"""Errors by owner: the operator's configuration, the caller's request, or something we depend on."""

from dataclasses import dataclass
from typing import Any, Final

ERROR_DOMAIN: Final = "ca-lite"

INVALID_ARGUMENT: Final = 3
NOT_FOUND: Final = 5
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13

# The gateway's mapping from gRPC codes to HTTP status (Fulcio answers through grpc-gateway).
HTTP_STATUS: Final = {INVALID_ARGUMENT: 400, NOT_FOUND: 404, RESOURCE_EXHAUSTED: 429, UNIMPLEMENTED: 501, INTERNAL: 500}

TOKEN_MESSAGE: Final = "There was an error processing the identity token"  # noqa: S105  a sentence
KEY_UNPARSABLE: Final = "The public key supplied in the request could not be parsed"
KEY_INSECURE: Final = "The public key supplied in the request is insecure"
SIGNATURE_INVALID: Final = "The signature supplied in the request could not be verified"
CSR_UNPARSABLE: Final = "The certificate signing request could not be parsed"
CA_FAILED: Final = "error communicating with CA backend"
CT_FAILED: Final = "Error entering certificate in CTL"


class ConfigError(Exception):
    """The directory, a file in it or a command line cannot be used. The message names the file and the next step."""


@dataclass(eq=False)
class CaRefused(Exception):
    """A request gets an error answer.

    `message` is Fulcio's exact text, `reason` an UPPER_CASE word for metrics and scripts, `detail` a sentence for the
    caller (never internals), `retry_after` seconds for a 429.
    """

    code: int
    message: str
    reason: str
    detail: str = ""
    retry_after: int | None = None

    @property
    def http_status(self) -> int:
        """HTTP status of the answer."""
        return HTTP_STATUS[self.code]

    def body(self) -> dict[str, Any]:
        """JSON of a google.rpc.Status with one ErrorInfo."""
        metadata = {"detail": self.detail} if self.detail else {}
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": self.reason,
            "domain": ERROR_DOMAIN,
            "metadata": metadata,
        }
        return {"code": self.code, "message": self.message, "details": [info]}


def token_refused(reason: str, detail: str) -> CaRefused:
    """Fulcio's one answer to every token problem, with the reason, which Fulcio only logs."""
    return CaRefused(INVALID_ARGUMENT, TOKEN_MESSAGE, reason, detail)


def bad_request(message: str, reason: str, detail: str = "") -> CaRefused:
    """A 400 with Fulcio's text."""
    return CaRefused(INVALID_ARGUMENT, message, reason, detail)

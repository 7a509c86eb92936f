"""The CA's own end points: certificates (v2 and v1), trust bundle, configuration, timestamps, health, metrics."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool

from ca_lite.certificate import pem
from ca_lite.certificate_request import read_v1, read_v2
from ca_lite.http import bounded_body, json_answer, read_body, request_id
from ca_lite.keys import chain_pem, now
from ca_lite.service import CaService
from ca_lite.setup import valid_chains
from ca_lite.timestamp_request import (
    DER_LIMIT,
    JSON_LIMIT,
    TimestampRefused,
    TimestampRequest,
    parse_der_request,
    parse_json_request,
)

_PEM_CHAIN = "application/pem-certificate-chain"


def certificate_routes(service: CaService) -> APIRouter:
    """Fulcio's API."""
    router = APIRouter()

    async def signing_cert(request: Request) -> Response:
        token, proof = read_v2(await read_body(request), _bearer(request))
        chain = await run_in_threadpool(service.authority.issue, token, proof, request_id(request))
        service.metrics.new_certificates.increment()
        certificates = {"certificates": [pem(each) for each in chain]}
        return json_answer({"signedCertificateEmbeddedSct": {"chain": certificates}})

    async def signing_cert_v1(request: Request) -> Response:
        proof = read_v1(await read_body(request))
        chain = await run_in_threadpool(service.authority.issue, _bearer(request), proof, request_id(request))
        service.metrics.new_certificates.increment()
        return Response("\n".join(pem(each) for each in chain), 201, media_type=_PEM_CHAIN)

    # FastAPI's own routes would look for parameters and dependencies in each request.
    router.add_route("/api/v2/signingCert", signing_cert, methods=["POST"])
    router.add_route("/api/v1/signingCert", signing_cert_v1, methods=["POST"])

    @router.get("/api/v2/trustBundle")
    def trust_bundle() -> Response:
        chains = [[chain_pem((each,)) for each in valid.chain] for valid in valid_chains(service.layout, "ca")]
        return json_answer({"chains": [{"certificates": chain} for chain in chains]})

    @router.get("/api/v1/rootCert")
    def root_cert() -> Response:
        return Response(chain_pem(service.issuing().chain), media_type=_PEM_CHAIN)

    @router.get("/api/v2/configuration")
    def configuration() -> Response:
        return json_answer({"issuers": [each.as_json() for each in service.issuers().all()]})

    return router


def timestamp_routes(service: CaService) -> APIRouter:
    """RFC 3161 over HTTP, with the JSON form sigstore-js sends."""
    router = APIRouter()

    @router.post("/api/v1/timestamp")
    async def timestamp(request: Request) -> Response:
        parsed = await _timestamp_request(request)
        reply = await run_in_threadpool(service.timestamping.stamp, parsed, now())
        service.metrics.timestamps.inc()
        # gitsign compares the content type literally, and needs Content-Length: no charset, not chunked.
        return Response(reply, media_type="application/timestamp-reply")

    @router.get("/api/v1/timestamp/certchain")
    def certchain() -> Response:
        return Response(chain_pem(service.timestamping.chain), media_type=_PEM_CHAIN)

    return router


def operator_routes(service: CaService) -> APIRouter:
    """Health and metrics."""
    router = APIRouter()

    @router.get("/healthz")
    def healthz() -> Response:
        return json_answer({"status": "SERVING"})

    @router.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


async def _timestamp_request(request: Request) -> TimestampRequest:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "application/json":
        return parse_json_request(await _limited(request, JSON_LIMIT))
    if kind == "application/timestamp-query":
        return parse_der_request(await _limited(request, DER_LIMIT))
    raise TimestampRefused(f'unsupported media type "{kind}", only timestamp-query and json are allowed', 415)


async def _limited(request: Request, limit: int) -> bytes:
    return await bounded_body(request, limit, TimestampRefused("timestamp request is too large"))


def _bearer(request: Request) -> str:
    """Token of the Authorization header: Fulcio removes the first `Bearer ` and takes the rest."""
    return request.headers.get("authorization", "").replace("Bearer ", "", 1).strip()

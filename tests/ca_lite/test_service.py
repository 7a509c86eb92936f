"""Init, start-up checks, hot reload, the journal and the rate limit."""

import json
import signal
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec.structs import replace
from sqlalchemy.exc import IntegrityError

from ca_lite.app import listen
from ca_lite.chains import check_chain, make_intermediate, make_root, make_timestamp_leaf
from ca_lite.errors import ConfigError
from ca_lite.journal import ISSUED, REQUESTED, Journal
from ca_lite.keys import chain_pem, generate, now, read_limited, read_private_key, write_private_key, write_secret
from ca_lite.rate_limit import RateLimiter
from ca_lite.self_check import self_check
from ca_lite.service import CaService, Reloaded
from ca_lite.settings import Layout, load_settings
from ca_lite.setup import initialise
from tests.ca_lite.ct_stub import CtStub
from tests.ca_lite.requests import V2, bearer, issued, key_request, refusal
from tests.support.ca_server import CA_LITE, CaServer, ca_server, run
from tests.support.log_server import free_port
from tests.support.open_files import open_below
from tests.support.waiting import PATIENCE, wait_until

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def make(folder: Path, log_trust: Path, passphrase: bytes | None = None) -> Layout:
    return initialise(
        folder, "http://localhost:8080", log_trust, now(), organization="test", key_kind="p256", passphrase=passphrase
    )


@pytest.fixture
def layout(tmp_path: Path, log_trust: Path) -> Layout:
    return make(tmp_path / "ca", log_trust)


def test_private_files_are_for_their_owner_only(layout: Layout) -> None:
    private = [path for path in layout.private.rglob("*") if path.is_file()]
    assert len(private) == 8
    assert all(path.stat().st_mode & 0o077 == 0 for path in private if path.name != "keys.json")
    assert layout.private.stat().st_mode & 0o077 == 0
    assert layout.journal.stat().st_mode & 0o077 == 0


def test_init_never_touches_a_directory_in_use(layout: Layout, log_trust: Path) -> None:
    before = (layout.private / "ca.pem").read_bytes()
    with pytest.raises(ConfigError, match="not empty"):
        make(layout.root, log_trust)
    assert (layout.private / "ca.pem").read_bytes() == before
    with pytest.raises(ConfigError, match="never overwrites"):
        write_secret(layout.private / "ca.pem", b"x")


def test_a_passphrase_locks_every_chain_key(tmp_path: Path, log_trust: Path) -> None:
    layout = make(tmp_path / "ca", log_trust, b"open sesame")
    CaService(layout, b"open sesame").journal.close()
    for wrong in (None, b"wrong"):
        with pytest.raises(ConfigError, match="check the passphrase"):
            CaService(layout, wrong)


def test_keys_that_clients_reject_are_refused_at_init() -> None:
    with pytest.raises(ConfigError, match="clients reject"):
        generate("ed25519")


def test_a_good_directory_passes_its_self_check(layout: Layout, stub: CtStub) -> None:
    service = CaService(layout)
    entered = len(stub.chains)
    assert self_check(service, now()) == []
    assert len(stub.chains) == entered  # checking must not leave entries in a public log
    service.journal.close()


def test_the_self_check_sees_what_clients_would(layout: Layout) -> None:
    service = CaService(layout)
    assert "ends at" in self_check(service, now() + timedelta(days=1090))[0]
    with pytest.raises(ConfigError, match="clients reject everything"):
        self_check(service, now() + timedelta(days=1200))
    trusted = layout.trust / "trusted_root.json"
    trusted.write_text(trusted.read_text().replace("test root", "other root"))
    with pytest.raises(ConfigError, match="run `ca-lite trust"):
        self_check(service, now())
    service.journal.close()


def test_a_missing_journal_is_never_a_first_run(layout: Layout) -> None:
    layout.journal.unlink()
    with pytest.raises(ConfigError, match="does not start"):
        CaService(layout)


@pytest.mark.parametrize("content", [b"not a database, but long enough to look at", b""])
def test_a_damaged_journal_is_not_written_to(content: bytes, layout: Layout) -> None:
    layout.journal.write_bytes(content)
    for side in ("-wal", "-shm"):
        layout.journal.with_name(layout.journal.name + side).unlink(missing_ok=True)
    with pytest.raises(ConfigError, match="journal"):
        Journal.open(layout.journal)
    assert open_below(layout.journal.parent) == [], "a file that is refused is let go of"


def row(serial: str) -> dict[str, Any]:
    return {
        "request_id": "r",
        "serial": serial,
        "name_form": "email",
        "name": "a@b.c",
        "issuer": "https://issuer",
        "subject": "a",
        "not_before": NOW,
        "not_after": NOW + timedelta(minutes=10),
        "state": REQUESTED,
    }


def test_the_journal_finds_what_it_holds(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal.db")
    for serial in ("a1", "a2"):
        journal.request(row(serial))
    journal.finish("a1", ISSUED, sct_timestamp=7, certificate=b"der")
    assert [each.serial for each in journal.search(name="a@b.c", issuer=None, serial=None, limit=10)] == ["a2", "a1"]
    (found,) = journal.search(name=None, issuer="https://issuer", serial="a1", limit=10)
    assert (found.state, found.sct_timestamp, found.certificate) == (ISSUED, 7, b"der")
    assert journal.search(name="x", issuer=None, serial=None, limit=10) == []
    with pytest.raises(IntegrityError):
        journal.request(row("a1"))
    journal.close()


def test_chains_that_cannot_work_are_refused() -> None:
    root = make_root("test", "root", generate("p256"), NOW)
    good = make_intermediate(root, "test", "int", generate("p256"), NOW)
    tsa = make_timestamp_leaf(root, "test", "tsa", generate("p256"), NOW)
    other = make_root("test", "root", generate("p256"), NOW)
    code = ExtendedKeyUsageOID.CODE_SIGNING
    check_chain((good.certificate, root.certificate), good.key, code, "x")
    cases: list[tuple[tuple[x509.Certificate, ...], str]] = [
        ((good.certificate,), "at least two"),
        ((root.certificate, root.certificate), "another key"),
        ((good.certificate, other.certificate), "not signed by the next"),
        ((good.certificate, good.certificate), "not signed by the next"),
    ]
    for chain, why in cases:
        with pytest.raises(ConfigError, match=why):
            check_chain(chain, good.key, code, "x")
    with pytest.raises(ConfigError, match="may not issue certificates"):
        check_chain((tsa.certificate, root.certificate), tsa.key, code, "x")


def test_keys_are_read_back_and_never_replaced(tmp_path: Path) -> None:
    key = generate("p384")
    write_private_key(tmp_path / "k.pem", key, b"pass")
    read = read_private_key(tmp_path / "k.pem", b"pass")
    assert isinstance(read, ec.EllipticCurvePrivateKey)
    with pytest.raises(ConfigError, match="exists already"):
        write_private_key(tmp_path / "k.pem", key)


def test_the_rate_limit_refills_and_forgets() -> None:
    limiter = RateLimiter(per_minute=60, burst=2)
    assert [limiter.wait_seconds("a", 0.0) for _ in range(3)] == [0, 0, 1]
    assert limiter.wait_seconds("b", 0.0) == 0
    assert limiter.wait_seconds("a", 1.0) == 0
    assert limiter.wait_seconds("a", 1.0) == 1
    assert limiter.wait_seconds("a", 0.5) == 1  # a clock that goes back gives nothing away


def test_a_changed_file_is_taken_up_and_a_broken_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ca_lite.service._LOOK_AGAIN_SECONDS", 0.0)
    path = tmp_path / "value"
    path.write_text("1")

    def load() -> str:
        content = read_limited(path).decode()
        if content == "broken":
            raise ConfigError("broken")
        return content

    value = Reloaded((path,), load)
    for content, expected in (("22", "22"), ("broken", "22"), ("333", "333")):
        path.unlink()
        path.write_text(content)
        assert value() == expected
    path.unlink()
    assert value() == "333"


def test_every_setting_shown_by_init_can_be_uncommented(layout: Layout) -> None:
    text = layout.settings.read_text()
    shown = text.replace("# Defaults", "#Defaults").replace("\n# ", "\n")
    layout.settings.write_text(shown)
    assert load_settings(layout).bind == "0.0.0.0"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version: 2\nurl: http://localhost:1\norganization: x\n", "version"),
        ("version: 1\nurl: http://localhost:1/x\norganization: x\n", "url"),
        ("version: 1\nurl: http://localhost:1\norganization: x\nsurprise: 1\n", "surprise"),
        ("version: 1\nurl: http://localhost:1\norganization: x\ncertificate_lifetime_seconds: 9999\n", "lifetime"),
        ("version: 1\nurl: http://localhost:1\norganization: x\nclient_signing_algorithms: [md5]\n", "algorithms"),
        ("version: 1\nurl: http://localhost:1\norganization: x\nrate_limit: {burst: 0}\n", "rate_limit.burst"),
        ("[", "not YAML"),
        ("", "the file is empty"),
        ("version: 1\nurl: http://localhost:1\norganisation: x\n", "ca.yaml:3:1: .*did you mean 'organization'"),
    ],
)
def test_settings_name_the_key_that_is_wrong(text: str, says: str, layout: Layout) -> None:
    assert load_settings(layout).organization == "test"
    layout.settings.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_settings(layout)


def test_a_burst_over_the_limit_gets_429_with_retry_after(log_trust: Path, tmp_path: Path, stub: CtStub) -> None:
    with ca_server(tmp_path / "ca", log_trust) as limited:
        limited.stop()
        settings = limited.folder / "ca.yaml"
        settings.write_text(
            settings.read_text()
            + "rate_limit: {per_minute: 1, burst: 1}\nclient_signing_algorithms: [ecdsa-sha2-256-nistp256]\n"
        )
        limited.start()
        key = ec.generate_private_key(ec.SECP256R1())
        token = limited.email_token("a@b.c")
        with httpx.Client(base_url=limited.url, trust_env=False, timeout=PATIENCE) as http:
            big = ec.generate_private_key(ec.SECP384R1())
            refused = http.post(V2, json=key_request(big, "a@b.c"), headers=bearer(token))
            assert refusal(refused)[2] == "signing algorithm not permitted: *ecdsa.PublicKey, SHA-384"
            assert issued(http.post(V2, json=key_request(key, "a@b.c"), headers=bearer(token)))
            answer = http.post(V2, json=key_request(key, "a@b.c"), headers=bearer(token))
            assert refusal(answer) == (429, 8, "too many certificates for this identity", "RATE_LIMITED")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            other = limited.email_token("x@b.c")
            assert issued(http.post(V2, json=key_request(key, "x@b.c"), headers=bearer(other)))


def test_issuance_is_journaled_and_counted(ca: CaServer, http: httpx.Client, stub: CtStub) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = "journal@lab.local"
    token = ca.email_token(name)
    good = http.post(V2, json=key_request(key, name), headers=bearer(token))
    stub.mode = "refuse"
    http.post(V2, json=key_request(key, name), headers=bearer(token))
    rows = json.loads(run(CA_LITE, "issued", "--dir", str(ca.folder), "--name", name, "--json"))
    assert [each["state"] for each in rows] == ["failed", "issued"]
    assert rows[1]["request_id"] == good.headers["x-request-id"]
    assert x509.load_der_x509_certificate(bytes.fromhex(rows[1]["certificate"])) == issued(good)[0]
    metrics = http.get("/metrics").text
    assert "\nfulcio_new_certs " in metrics
    assert 'ca_lite_rejected_total{reason="CT_UNAVAILABLE"}' in metrics
    assert 'fulcio_api_latency_count{code="200",method="POST"}' in metrics
    assert 'http_requests_total{code="200",method="POST"}' in metrics
    assert 'ca_lite_certificate_expiry_timestamp_seconds{chain="tsa"}' in metrics


def test_operator_end_points_show_chain_and_configuration(ca: CaServer, http: httpx.Client) -> None:
    chain = (ca.folder / "chains" / "ca.pem").read_text()
    assert http.get("/api/v1/rootCert").text == chain
    bundle = http.get("/api/v2/trustBundle").json()
    assert "".join(bundle["chains"][0]["certificates"]) == chain
    issuers = http.get("/api/v2/configuration").json()["issuers"]
    assert [each["issuerUrl"] for each in issuers] == [ca.oidc, ca.github, f"{ca.oidc}/uri"]
    assert http.get("/healthz").json() == {"status": "SERVING"}
    assert http.get("/healthz", headers={"Origin": "https://x"}).headers["access-control-allow-origin"] == "*"


def test_a_new_issuer_is_believed_without_a_restart(ca: CaServer, http: httpx.Client) -> None:
    path = ca.folder / "issuers.yaml"
    before = path.read_text()
    added = "  https://added.example.com: {client-id: sigstore, type: email}\n"
    try:
        path.write_text(before + added)
        found = [each["issuerUrl"] for each in poll_configuration(http, "https://added.example.com")]
        assert "https://added.example.com" in found
    finally:
        path.write_text(before)
    assert poll_configuration(http, "https://added.example.com", present=False)


def poll_configuration(http: httpx.Client, url: str, *, present: bool = True) -> list[dict[str, str]]:
    """Configuration once it does (not) hold the issuer."""
    issuers: list[dict[str, str]] = []

    def is_so() -> bool:
        issuers[:] = http.get("/api/v2/configuration").json()["issuers"]
        return any(each.get("issuerUrl") == url for each in issuers) is present

    wait_until("the issuer to come or go", is_so)
    return issuers


def test_chain_pem_is_what_log_lite_takes(layout: Layout) -> None:
    roots = x509.load_pem_x509_certificates((layout.trust / "ca-chain.pem").read_bytes())
    assert chain_pem(tuple(roots)) == (layout.chains / "ca.pem").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_in_order(
    number: signal.Signals, log_trust: Path, tmp_path: Path, stub: CtStub
) -> None:
    with ca_server(tmp_path / "ca", log_trust) as served:
        assert served.process is not None
        served.process.send_signal(number)
        assert served.process.wait(PATIENCE) == 0, served.errors()


def test_listening_sockets_name_their_protocol_so_that_answers_do_not_wait(layout: Layout) -> None:
    sockets = listen(replace(load_settings(layout), url=f"http://127.0.0.1:{free_port()}"))
    for each in sockets:
        each.close()
    assert [each.proto for each in sockets] == [socket.IPPROTO_TCP]

"""A company's login signs: its issuer, a certificate of the private CA, the log, and the monitor's finding."""

import json
from collections.abc import Iterator

import pytest

from monitor.demo.processes import program, wait_until
from tests.e2e.loop import Loop, running_loop
from tests.support.ca_server import CA_LITE, CaServer, ca_server, run
from tests.support.signing_in import sign_in
from tests.support.waiting import PATIENCE

MIA, PASSWORD = "mia@corp.example", "correct horse battery"

RULE = """\
  - id: corporate
    select: {{all: [{{identity: {{glob: "*@corp.example"}}}}, {{issuer: "{issuer}"}}]}}
"""


@pytest.fixture
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    with running_loop(tmp_path_factory.mktemp("private")) as made:
        yield made


@pytest.fixture
def company(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaServer]:
    """The company's issuer: another `ca-lite`, of which only the login is used."""
    with ca_server(tmp_path_factory.mktemp("company") / "ca", loop.folder / "log" / "trust.json") as server:
        (server.folder / "password").write_text(PASSWORD)
        secret = ("--password-file", str(server.folder / "password"))
        run(CA_LITE, "users", "add", MIA, "--dir", str(server.folder), *secret)
        server.stop()
        server.start()
        yield server


def test_a_company_login_signs_and_the_finding_names_the_companys_issuer(loop: Loop, company: CaServer) -> None:
    loop.run("ca-lite", "connect", "--dir", "ca", company.oidc)
    config = json.loads((loop.folder / "ca/trust/client_trust_config.json").read_text())["signingConfig"]
    assert [each["url"] for each in config["oidcUrls"]] == [company.oidc], "clients sign in at the company"
    loop.stop("ca-lite")
    loop.children.start("ca-lite", [program("ca-lite"), "serve", "--dir", "ca"])
    loop.wait_for(f"{loop.ca_url}/healthz")
    with (loop.folder / "rules.yaml").open("a") as rules:
        rules.write(RULE.format(issuer=company.oidc))
    loop.start_monitor()
    loop.sigstore_sign("hello.txt", sign_in(company.oidc, MIA, PASSWORD), 2)
    wait_until("the alert", lambda: bool(loop.alerts()), seconds=PATIENCE)
    (alert,) = loop.alerts()
    assert alert["rule"] == "corporate"
    assert MIA in json.dumps(alert)
    assert company.oidc in json.dumps(alert)


def test_what_connect_refuses_changes_nothing(loop: Loop, company: CaServer) -> None:
    before = (loop.folder / "ca/issuers.yaml").read_text(), (loop.folder / "ca/ca.yaml").read_text()
    for wrong, code in (
        ("http://dex.example.com/dex", 3),  # not over TLS
        (f"{company.url}/nowhere", 3),  # no discovery document
        (company.oidc.replace("localhost", "127.0.0.1"), 3),  # names itself otherwise
        ("http://127.0.0.1.attacker.example:1/oidc", 3),
    ):
        loop.run("ca-lite", "connect", "--dir", "ca", wrong, expect=code)
        assert before == ((loop.folder / "ca/issuers.yaml").read_text(), (loop.folder / "ca/ca.yaml").read_text())

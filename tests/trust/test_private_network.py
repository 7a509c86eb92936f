"""Behind a TLS authority and a proxy of one's own: `ca_file` and `proxy` from the configuration to a log that is read.

A real log-lite and a real TUF repository, behind a TLS server of a CA unknown elsewhere and through a real proxy.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from ca_lite.tuf_repository import create_repository, publish_targets
from monitor.cli import run_command
from monitor.program import utc_now
from monitor.store.database import open_database
from monitor.store.reading import Reading
from outbound.transport import HttpLimits
from tests.support.log_server import LogServer, log_server
from tests.support.private_network import Front, PrivateCa, Proxy, http_proxy, private_ca, tls_front
from tests.support.trust_world import Quiet
from tests.threats.site import V2, add_entries, opened, trusted_root_of, wait_for_size

RULES = "version: 1\nrules:\n  - {id: nobody, select: {identity: nobody@example.org}}\n"
CONFIG = """\
version: 1
database: signwatch.db
trust: {{tuf: "{tuf}", tuf_root: root.json{trust}}}
rules: rules.yaml
channels: {{file: {{type: jsonl, path: alerts.jsonl}}}}
notify: [file]
objectives: {{examine_processes: 1}}
{more}
"""
ENTRIES = 5


@dataclass
class Street:
    """What stands behind the private authority: a log and the repository that names it."""

    folder: Path
    log: LogServer
    ca: PrivateCa
    front: Front
    tuf: Front

    def publish(self, url: str) -> None:
        """Name the log of this URL, and no other."""
        root = json.loads(trusted_root_of(self.log).replace(self.log.url.encode(), url.encode()))
        root["tlogs"] = [each for each in root["tlogs"] if _is_v2(each)]
        root["ctlogs"] = []
        targets = {"trusted_root.json": json.dumps(root).encode()}
        publish_targets(self.folder / "repository", self.folder / "keys", targets, utc_now())


def _is_v2(log: dict[str, Any]) -> bool:
    return "ED25519" in str(log["publicKey"].get("keyDetails", ""))


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    folder = tmp_path_factory.mktemp("street")
    repository = folder / "repository"
    for made in (repository, folder / "keys", repository / "targets"):
        made.mkdir()
    create_repository(repository, folder / "keys", utc_now())
    ca = private_ca(folder)
    with ExitStack() as parts:
        log = parts.enter_context(log_server(folder / "log"))
        add_entries(log, "v2", ENTRIES)
        sources = parts.enter_context(opened(log, [V2], HttpLimits()))
        wait_for_size(sources[V2], ENTRIES)
        plain = parts.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(repository))))
        serving = Thread(target=plain.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        parts.callback(serving.join, 10)
        parts.callback(plain.shutdown)
        tuf = parts.enter_context(tls_front(ca, f"http://127.0.0.1:{plain.server_address[1]}"))
        front = parts.enter_context(tls_front(ca, log.url))
        yield Street(folder, log, ca, front, tuf)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with http_proxy() as made:
        yield made


@dataclass
class Office:
    """A folder in which `signwatch` runs."""

    folder: Path
    street: Street
    capsys: pytest.CaptureFixture[str]

    def configure(self, trust: str = "", more: str = "") -> None:
        (self.folder / "rules.yaml").write_text(RULES, encoding="utf-8")
        (self.folder / "root.json").write_bytes((self.street.folder / "repository" / "root.json").read_bytes())
        text = CONFIG.format(tuf=self.street.tuf.url, trust=trust, more=more)
        (self.folder / "signwatch.yaml").write_text(text, encoding="utf-8")

    def run(self, *words: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = run_command([words[0], "--config", str(self.folder / "signwatch.yaml"), *words[1:]])
        done = self.capsys.readouterr()
        return code, done.out, done.err

    def read(self) -> dict[str, int]:
        with closing(open_database(str(self.folder / "signwatch.db"))) as database:
            followed = Reading(database).followed()
            return {name: each.position.frontier.size for name, each in followed.items()}


@pytest.fixture
def office(tmp_path: Path, street: Street, capsys: pytest.CaptureFixture[str]) -> Office:
    street.publish(street.front.url)
    return Office(tmp_path, street, capsys)


def test_repository_and_logs_of_the_root_are_asked_through_the_proxy_and_believed_by_the_ca(
    office: Office, proxy: Proxy
) -> None:
    street = office.street
    office.configure(f", ca_file: {street.ca.file}, proxy: {proxy.url}")
    assert office.run("init")[0] == 0
    add_entries(street.log, "v2", 1)
    code, out, err = office.run("audit", "--json")
    assert code == 0, err
    [log] = json.loads(out)["logs"]
    assert (log["trouble"], log["covered"]["from"] >= ENTRIES) == (None, True)
    connects = {line.split(" ")[1] for line in proxy.asked}
    assert connects == {each.url.removeprefix("https://") for each in (street.front, street.tuf)}
    assert all(line.startswith("CONNECT ") for line in proxy.asked)
    assert len(proxy.asked) >= street_connections(street), "nothing went past the proxy"


def street_connections(street: Street) -> int:
    """Connections so far that came to TLS; counted from now on."""
    seen = street.front.served + street.tuf.served
    street.front.served = street.tuf.served = 0
    return seen


def test_a_configured_log_has_settings_of_its_own(office: Office, proxy: Proxy) -> None:
    street = office.street
    office.configure(
        f", ca_file: {street.ca.file}",
        f"logs: [{{name: mine, api: rekor-v2, url: '{street.front.url}', start: 0, ca_file: {street.ca.file}}}]",
    )
    assert office.run("init")[0] == 0
    assert office.run("audit")[0] == 0
    assert office.read()["mine"] >= ENTRIES
    assert proxy.asked == []


def test_a_plain_log_is_asked_through_the_proxy_by_whole_urls(office: Office, proxy: Proxy) -> None:
    street = office.street
    street.publish(street.log.url)
    more = f"logs: [{{name: mine, api: rekor-v2, url: '{street.log.url}', start: 0, proxy: '{proxy.url}'}}]"
    office.configure(f", ca_file: {street.ca.file}", more)
    assert office.run("init")[0] == 0
    assert office.run("audit")[0] == 0
    assert office.read()["mine"] >= ENTRIES
    assert {line.split("/checkpoint")[0] for line in proxy.asked if "checkpoint" in line} == {f"GET {street.log.url}"}


FILES = {
    "missing": (None, "No such file"),
    "a folder": ("folder", "it is a folder"),
    "no certificate": ("text", "cannot be used"),
}


@pytest.mark.parametrize("whose", ["trust", "logs: mine"])
@pytest.mark.parametrize("wrong", FILES)
def test_a_ca_file_that_is_none_is_a_mistake_in_the_configuration(office: Office, wrong: str, whose: str) -> None:
    kind, told = FILES[wrong]
    file = office.folder / "ca.pem"
    if kind == "folder":
        file.mkdir()
    elif kind == "text":
        file.write_text("hello")
    good, street = office.street.ca.file, office.street
    office.configure(
        f", ca_file: {file if whose == 'trust' else good}",
        f"logs: [{{name: mine, api: rekor-v2, url: '{street.front.url}', ca_file: {file}}}]",
    )
    code, _, err = office.run("init")
    assert code == 2
    for part in (f"{whose}.ca_file" if whose == "trust" else "logs: mine: ca_file", str(file), told, "name a PEM file"):
        assert part in err, err
    assert "Traceback" not in err


def test_a_server_of_another_authority_is_an_outage_with_a_way_out_and_no_lie(office: Office) -> None:
    other = private_ca(office.folder, "other")
    good, street = office.street.ca.file, office.street
    for ca_file in ("", f", ca_file: {other.file}"):
        office.configure(ca_file)
        code, _, err = office.run("init")
        assert code == 3
        for part in (street.tuf.url, "from no trusted authority", "`ca_file`", "nothing was begun"):
            assert part in err, err
    office.configure(f", ca_file: {good}", logs_of(street, f", ca_file: {good}"))
    assert office.run("init")[0] == 0
    office.configure(f", ca_file: {good}", logs_of(street, f", ca_file: {other.file}"))
    code, out, _ = office.run("audit", "--json")
    [log] = json.loads(out)["logs"]
    assert (code, log["trouble"], log["kind"]) == (3, "could-not-ask", "unreachable")
    assert "from no trusted authority" in log["detail"]
    assert log["evidence"] == []


def logs_of(street: Street, more: str) -> str:
    return f"logs: [{{name: mine, api: rekor-v2, url: '{street.front.url}', start: 0{more}}}]"


def test_a_proxy_that_is_down_or_refuses_is_named(office: Office, proxy: Proxy) -> None:
    street = office.street
    ca = f", ca_file: {street.ca.file}"
    office.configure(ca, logs_of(street, ca))
    assert office.run("init")[0] == 0, "control: without a proxy"
    with socket.create_server(("127.0.0.1", 0)) as held:
        nobody = f"http://127.0.0.1:{held.getsockname()[1]}"
    office.configure(ca, logs_of(street, f"{ca}, proxy: '{nobody}'"))
    code, out, _ = office.run("audit", "--json")
    [log] = json.loads(out)["logs"]
    assert (code, log["kind"]) == (3, "unreachable")
    assert f"through the proxy {nobody}" in log["detail"]
    assert "Connection refused" in log["detail"]

    proxy.refuses = "403 Forbidden"
    office.configure(ca, logs_of(street, f"{ca}, proxy: '{proxy.url}'"))
    code, out, _ = office.run("audit", "--json")
    [log] = json.loads(out)["logs"]
    assert (code, log["kind"]) == (3, "unreachable")
    assert f"through the proxy {proxy.url}: the proxy would not connect: 403 Forbidden" in log["detail"]

    office.configure(f"{ca}, proxy: '{nobody}'", logs_of(street, ca))
    code, out, err = office.run("audit", "--json")
    assert code == 0, "the keys verified last stay in force"
    (office.folder / "trust-cache" / "last_good.json").unlink()
    code, _, err = office.run("audit")
    assert code == 3
    assert f"through the proxy {nobody}" in err

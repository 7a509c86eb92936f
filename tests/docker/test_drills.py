"""The other rules for Prometheus fire on a live daemon, each in a drill of its own trouble.

`tests/docker/test_dashboard.py` drills a stranger's signing, an outage, a fork and a daemon that ended. Here: the trust
root, promises, deliveries, the canary, and a log that is slow, freezes, hides its entries or grows entries that cannot
be read. Waiting times and windows are shortened by program (`sooner`): what a rule looks at stays the same.
"""

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from typing_extensions import override

from ca_lite.tuf_repository import create_repository, publish_targets
from monitor.demo.processes import program, wait_until
from monitor.http_fetcher import Expect
from monitor.model.errors import FetchFailed
from monitor.program import utc_now
from monitor.store.database import open_database
from monitor.store.sql import table
from monitor.store.tables import PromiseCount, PromiseRow
from tests.docker.test_dashboard import Scraped, is_scraped
from tests.docker.test_prometheus import rules
from tests.site.followed import NAME, SITE
from tests.site.scene import Mailbox, Visitor
from tests.support.entries import CA_NOT_AFTER, hashedrekord_v2, make_certificate
from tests.support.log_server import free_port
from tests.support.misbehaving_log import RekorV2Log
from tests.support.served_log import CA, ServedLog, serving, signing_body
from tests.support.trust_world import Quiet, keyed, trusted_root
from tests.support.waiting import PATIENCE

SECONDS = 180
MATCHES = 1_000
CONFIG = """\
version: 1
database: signwatch.db
trust: {{tuf: "{tuf}", tuf_root: root.json, refresh: 2s}}
rules: rules.yaml
channels:
  file: {{type: jsonl, path: alerts.jsonl}}
  closed: {{type: webhook, url: "http://127.0.0.1:1/", unsigned: true, allow_private: true}}
  gone: {{type: webhook, url: "{gone}", unsigned: true, allow_private: true}}
notify: [file, closed, gone]
web: {{listen: "127.0.0.1:{web}"}}
objectives: {{poll_seconds: 1, examine_processes: 1}}
"""
CANARY = """\
canary:
  log: {log}
  identity: canary@acme.example
  issuer: https://issuer.example
  trust_config: none.json
  token_command: ["false"]
"""
ONE_RULE = """\
  - id: r%d
    select: {identity: {glob: "https://github.com/acme/widget/*"}}
    expect: {ref: {glob: "refs/tags/*"}}
"""
LATE_RULE = "  - {id: late, select: {identity: late@acme.example}, backscan: all}\n"


def sooner(expression: str) -> str:
    """Windows of 20 s; what may take minutes or a day may take 25 s."""
    ranges = re.sub(r"\[\d+[mhd]\]", "[20s]", expression)
    return re.sub(r"(>|<=) (900|1800|3600|86400)\b", r"\1 25", ranges)


def hurried() -> dict[str, Any]:
    made = [{key: value for key, value in rule.items() if key != "for"} for rule in rules()]
    return {"groups": [{"name": "drill", "rules": [rule | {"expr": sooner(rule["expr"])} for rule in made]}]}


class HidingLog(RekorV2Log):
    """A log that can be slow with entries, and show heads without the entries below them."""

    hides = False
    seconds = 0.0

    def get(self, path: str, *, max_bytes: int, expect: Expect = Expect.BYTES) -> bytes:
        if "entries" in path:
            time.sleep(self.seconds)
            if self.hides:
                raise FetchFailed("server-failed", "the entries are hidden for a drill")
        return super().get(path, max_bytes=max_bytes, expect=expect)


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A receiver that gives every message the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            return

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield url


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class Drill:
    """A daemon whose trust root comes from a TUF repository, and the Prometheus that scrapes it."""

    def __init__(self, folder: Path, parts: ExitStack) -> None:
        self.folder, self.parts = folder, parts
        self.repository, self.keys = folder / "repository", folder / "keys"
        for each in (self.repository, self.keys, self.repository / "targets"):
            each.mkdir()
        create_repository(self.repository, self.keys, utc_now())
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(self.repository)))
        self.tuf = parts.enter_context(running(server))
        self.log = HidingLog([signing_body()] * 3)
        self.log.host = "127.0.0.1"
        self.served = ServedLog(self.log, parts.enter_context(serving(self.log)), folder)
        self.name = self.served.url.removeprefix("http://").replace(":", "-")
        self.grown = 0
        self.publish(timedelta(days=30))

    def publish(self, ahead: timedelta, more: list[dict[str, Any]] | None = None) -> None:
        """Publish the trust root, as if it were `ahead` of now, with more logs in it."""
        document = yaml.safe_load(trusted_root([self.served]))
        document["tlogs"] += more or []
        targets = {"trusted_root.json": json.dumps(document).encode()}
        publish_targets(self.repository, self.keys, targets, utc_now() + ahead)

    def grow(self) -> None:
        """One entry that no rule is about."""
        self.grown += 1
        certificate = make_certificate(CA, san="someone@other.example", not_after=CA_NOT_AFTER)
        self.log.append(hashedrekord_v2(certificate, sha256(str(self.grown).encode()).hexdigest()))

    def start(self) -> Scraped:
        web, listen = free_port(), free_port()
        gone = self.parts.enter_context(answering(410))
        site, mail = free_port(), free_port()
        refusing = Controller(Refusing(), hostname="127.0.0.1", port=mail)
        refusing.start()
        self.parts.callback(refusing.stop)
        self.site = f"http://127.0.0.1:{site}"
        (self.folder / "root.json").write_bytes((self.repository / "root.json").read_bytes())
        config = CONFIG.format(tuf=self.tuf, gone=gone, web=web) + SITE.format(port=site, smtp=mail)
        self.served.config.write_text(config)
        many = "".join(ONE_RULE % number for number in range(MATCHES + 1))
        (self.folder / "rules.yaml").write_text("version: 1\nrules:\n" + many)
        init = [program("signwatch"), "init", "--config", str(self.served.config)]
        subprocess.run(init, check=True, capture_output=True, timeout=SECONDS)
        self.served.config.write_text(config + CANARY.format(log=self.name))
        (self.folder / "rules.yml").write_text(yaml.safe_dump(hurried()))
        times = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        scrape = {"job_name": "signwatch", "static_configs": [{"targets": [f"127.0.0.1:{web}"]}]}
        document = {"global": times, "rule_files": ["rules.yml"], "scrape_configs": [scrape]}
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(document))
        prometheus = shutil.which("prometheus")
        assert prometheus is not None
        watching = [program("signwatch"), "run", "--config", str(self.served.config)]
        out = self.parts.enter_context((self.folder / "out").open("wb"))
        daemon = subprocess.Popen(watching, stderr=out)
        self.parts.callback(stop, daemon)
        command = [
            prometheus,
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{listen}",
        ]
        server = subprocess.Popen(command, stderr=out)
        self.parts.callback(stop, server)
        return Scraped(self.served, daemon, f"http://127.0.0.1:{listen}")

    def subscribe_strangers(self) -> None:
        """Sign-ups with addresses that the mail server does not know."""
        visitor = Visitor(self.site)
        for number in range(25):
            fields = {"name": NAME, "email": f"nobody{number}@acme.example", "do": "subscribe"}
            visitor.post("/subscribe", fields, page=f"/subscribe?name={NAME}")
        visitor.close()

    def give_up_a_promise(self) -> None:
        """What a month without an answer leaves in the database."""
        with closing(open_database(str(self.folder / "signwatch.db"))) as database, database.write() as connection:
            row = {"log_id": "ab" * 32, "outcome": "undecided", "entries": 1}
            connection.execute(table(PromiseCount).insert().values(**row))

    def make_a_promise_overdue(self) -> None:
        """A promise of a log that is not followed, due a day ago."""
        before = utc_now() - timedelta(days=1)
        row: dict[str, Any] = {
            "id": "p",
            "log_id": "cd" * 32,
            "kind": "sct",
            "spki": b"",
            "statement": b"",
            "signature": b"",
        }
        row |= {"seen_at": before, "due_at": before, "next_at": utc_now() + timedelta(days=1), "tries": 0}
        row |= {"state": "pending", "detail": "", "evidence": None, "entry": None}
        with closing(open_database(str(self.folder / "signwatch.db"))) as database, database.write() as connection:
            connection.execute(table(PromiseRow).insert().values(**row))


class Refusing(Mailbox):
    """A mail server that knows none of its domain's addresses."""

    @override
    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        return "550 no such user"


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


@contextmanager
def growing(drill: Drill) -> Iterator[None]:
    """The log grows, as a log in use does."""
    over = threading.Event()

    def grow() -> None:
        while not over.wait(1):
            drill.grow()

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _add(known: set[str], more: set[str]) -> set[str]:
    known |= more
    return known


def test_every_rule_has_a_live_drill() -> None:
    source = Path(__file__).read_text() + Path(__file__).with_name("test_dashboard.py").read_text()
    drilled = set(re.findall(r'"(Signwatch[A-Z]\w+)"', source))
    assert {rule["alert"] for rule in rules()} <= drilled


def test_each_rule_fires_in_its_drill(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is missing: install the Debian package (.ci/install-debian-packages)")
    with ExitStack() as parts:
        drill = Drill(tmp_path, parts)
        scraped = drill.start()
        wait_until("the first scrape", lambda: is_scraped(scraped), seconds=SECONDS)

        def fires(what: Callable[[], object], *names: str) -> None:
            wait_until(
                f"control: {names} are silent before", lambda: not scraped.firing() & set(names), seconds=PATIENCE
            )
            what()
            # What grows fires for the length of a window and what waits fires after one: not all at one moment.
            fired: set[str] = set()
            wait_until(f"{names}", lambda: set(names) <= _add(fired, scraped.firing()), seconds=SECONDS)

        with growing(drill):
            # The canary was given a token command that always fails.
            wait_until("the canary's rule", lambda: scraped.firing() == {"SignwatchCanaryMissed"}, seconds=SECONDS)
            # A release that 1,001 rules select is judged by 1,000 of them.
            fires(lambda: drill.log.append(signing_body()), "SignwatchMatchesDropped")
            unreadable = ("SignwatchQuarantineGrowing", "SignwatchDeliveryGivenUp", "SignwatchDeliveryStuck")
            fires(lambda: drill.log.append(b"{}"), *unreadable)
            fires(drill.subscribe_strangers, "SignwatchSubscribersRefuse")
            fires(drill.make_a_promise_overdue, "SignwatchPromisesOverdue")
            fires(drill.give_up_a_promise, "SignwatchPromisesGivenUp")
            away = ServedLog(keyed(7, [signing_body()]), "http://127.0.0.1:1", tmp_path)
            shard = json.loads(trusted_root([away]))["tlogs"][0]
            odd = {"baseUrl": "http://127.0.0.1:2", "publicKey": {"rawBytes": "AAAA"}, "logId": {"keyId": "AAAA"}}
            shards = ("SignwatchNewShardUnwatched", "SignwatchLogsNotFollowed")
            fires(lambda: drill.publish(timedelta(days=30), [shard, odd]), *shards)
            fires(lambda: drill.publish(timedelta(days=-5), [shard, odd]), "SignwatchTrustRootExpiring")
            hidden = drill.repository / "timestamp.json"
            fires(lambda: hidden.rename(tmp_path / "hidden.json"), "SignwatchTrustRootStale")
        fires(lambda: None, "SignwatchLogFrozen")

        def hide() -> None:
            drill.log.hides = True
            text = (tmp_path / "rules.yaml").read_text()
            (tmp_path / "rules.yaml").write_text(text + LATE_RULE)

        fires(hide, "SignwatchBackscanStuck")
        drill.log.hides = False

        def fall_behind() -> None:
            # One pass that does not come to its end, over a backlog that hardly shrinks.
            drill.log.seconds = 6.0
            drill.grow()
            drill.log.append(*[drill.log.leaves[-1]] * 25_600)

        fires(fall_behind, "SignwatchScanLag", "SignwatchNotScanning")
        assert scraped.daemon.poll() is None

"""A site beside a real log that is followed: what is signed there is judged, fanned out and mailed."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from aiosmtpd.controller import Controller

from alerts.delivery import DeliveryPolicy, deliver_channel
from monitor.commands.serving import with_logs
from monitor.config import WebConfig, load_config
from monitor.daemon.assembly import Monitor, assemble
from monitor.daemon.log_sources import own_sources
from monitor.daemon.signing_proofs import SigningProofs
from monitor.daemon.web_server import SITE_LIMITS, WebServer
from monitor.following.follower import Timing
from monitor.site.app import create_site
from monitor.site.delivery import Courier
from monitor.site.parts import Site
from monitor.store.database import create
from monitor.telemetry.prometheus import PrometheusMeter
from tests.site.scene import Clock, Mailbox, Visitor, link_in
from tests.support.entries import NOT_BEFORE
from tests.support.log_server import free_port
from tests.support.served_log import ServedLog, served_log, signing_body

NAME = "https://github.com/acme/widget"
SITE = """
site:
  public_url: "http://127.0.0.1:{port}"
  listen: "127.0.0.1:{port}"
  key_file: site.key
  operator: The Acme Foundation
  contact: abuse@watch.example
  allow_private: true
  mail: {{server: 127.0.0.1, port: {smtp}, security: none, from: signwatch@watch.example}}
  limits: {{requests_per_minute: 100000, mails_per_client_per_hour: 1000, api_requests_per_minute: 100000}}
"""


@dataclass
class Followed:
    """The whole installation in one process, moved on by hand."""

    served: ServedLog
    monitor: Monitor
    mailbox: Mailbox
    site: Site
    server: WebServer
    clock: Clock
    visitors: ExitStack
    url: str

    @property
    def courier(self) -> Courier:
        assert self.monitor.courier is not None
        return self.monitor.courier

    def visitor(self) -> Visitor:
        made = Visitor(self.url)
        self.visitors.callback(made.close)
        return made

    def follow(self) -> None:
        """What the daemon's jobs do in a few seconds: take over subscriptions, read the log, deliver."""
        assert self.monitor.rules.asked is not None
        self.monitor.rules.asked.refresh()
        for watch in self.monitor.watches:
            for outcome in watch.run_pass():
                assert not outcome.owner, outcome
        self.deliver()

    def deliver(self) -> None:
        for channel in self.monitor.channels:
            deliver_channel(
                self.monitor.store.outbox, channel, self.clock(), random=random.random, policy=DeliveryPolicy()
            )
        self.courier.run_pass()

    def archive(self) -> None:
        """Archive what was followed, as the daemon's job does."""
        for log in self.monitor.logs:
            archiver = self.monitor.make.archiver(log)
            assert archiver is not None
            archiver.finish()
            archiver.close()

    def sign(self, ref: str) -> None:
        self.served.log.append(signing_body(ref))
        self.follow()

    def subscribe(self, visitor: Visitor, address: str, name: str = NAME, **fields: object) -> str:
        """The whole way of a new subscriber; returns the subscription's page."""
        sent = {"name": name, "email": address, "do": "subscribe", **fields}
        visitor.post("/subscribe", sent, page=f"/subscribe?name={name}")
        self.courier.run_pass()
        link = link_in(self.mailbox.to(address)[-1], "confirm")
        page = visitor.post(link, page=link, expect=200)
        return str(page.text).partition('href="/subscriptions/')[2].partition("?")[0]


@contextmanager
def followed(folder: Path, database: str | None = None, *, archive: bool = False) -> Iterator[Followed]:
    """A log with three releases, followed from its first entry, and a site beside it; with an archive if asked for."""
    mailbox, clock = Mailbox(), Clock(NOT_BEFORE + timedelta(minutes=2))
    smtp = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    smtp.start()
    port = free_port()
    with ExitStack() as stack:
        stack.callback(smtp.stop)
        served = stack.enter_context(served_log(folder))
        text = served.config.read_text(encoding="utf-8") + SITE.format(port=port, smtp=smtp.port)
        if archive:
            text += "archive: {location: archive, write_every: 1s}\n"
        if database is not None:
            text = text.replace("database: signwatch.db", f'database: "{database}"')
        served.config.write_text(text, encoding="utf-8")
        settings = load_config(served.config)
        create(settings.database, clock(), "test").close()
        timing = Timing(clock, lambda _seconds: False, lambda: False)
        monitor = assemble(settings, PrometheusMeter("test", settings.channels), timing)
        stack.callback(monitor.close)
        monitor.store.certificate_hold = timedelta(0)
        for watch in monitor.watches:
            watch.baseline(0)
        assert monitor.courier is not None
        proofs = SigningProofs(monitor.store, own_sources(monitor, stack), settings.archive)
        site = with_logs(monitor.courier.site, monitor, proofs)
        server = WebServer(create_site(site), WebConfig(("127.0.0.1", port)), SITE_LIMITS, "site")
        server.start()
        stack.callback(server.stop)
        visitors = stack.enter_context(ExitStack())
        made = Followed(served, monitor, mailbox, site, server, clock, visitors, f"http://127.0.0.1:{port}")
        made.follow()
        yield made

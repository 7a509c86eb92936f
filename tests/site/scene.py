"""A whole site for tests: a database, the served application, a real SMTP server, and browsers without a window."""

import html
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import httpx
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from msgspec.structs import replace

from monitor.archive.search import Archive
from monitor.config import WebConfig
from monitor.daemon.web_server import SITE_LIMITS, WebServer
from monitor.model.state import Finding
from monitor.site.app import create_site
from monitor.site.archived import ArchivedHistory
from monitor.site.delivery import Courier
from monitor.site.parts import Site, build_site
from monitor.site_config import MailConfig, SiteConfig, SiteLimits
from monitor.store.database import Database
from monitor.store.findings import add_findings
from monitor.store.signings import FindingsHistory
from monitor.store.store import Store
from rules.asking import ask_of, rule_of
from rules.rule import Outcome, Verdict
from rules.selection import select
from rules.subject import read_subject
from sigstore_entries.signing import ChainTrust, Digest, EntryRef, Name, NameForm, Signing
from tests.rules import signings
from tests.support.log_server import free_port
from tests.support.parts import a_position
from tests.support.waiting import PATIENCE

LOG = "rekor-v2"
REPOSITORY = signings.REPOSITORY
SELECT = rule_of(0, ask_of(read_subject(REPOSITORY).select(), {}).document).select
HOSTILE = "<script>alert(1)</script>\u202egnp"


class Clock:
    """A clock that runs, set forward by hand."""

    def __init__(self, start: datetime | None = None) -> None:
        self.ahead = timedelta(0) if start is None else start - datetime.now(UTC)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def advance(self, **by: float) -> None:
        self.ahead += timedelta(**by)


@dataclass
class Mailbox:
    """What arrived at the SMTP server. `refuse` maps an address to the reply its RCPT gets."""

    messages: list[EmailMessage] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    async def handle_RCPT(  # noqa: N802  aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        message = message_from_bytes(envelope.content or b"", policy=default)  # type: ignore[arg-type]
        assert isinstance(message, EmailMessage)
        with self.arrived:
            self.messages.append(message)
            self.arrived.notify_all()
        return "250 taken"

    def to(self, address: str) -> list[EmailMessage]:
        return [message for message in self.messages if address in str(message["To"])]


def text_of(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def link_in(message: EmailMessage, path: str) -> str:
    """The link to a page under `path`, without the site's address."""
    found = re.search(rf"https?://[^\s/]+(/{path}/[^\s]+)", text_of(message))
    assert found, f"no link to /{path}/ in:\n{text_of(message)}"
    return found[1]


class Visitor:
    """A browser of one person: cookies, and forms filled in as the page has them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE, follow_redirects=False)

    def get(self, path: str, expect: int = 200, **options: Any) -> httpx.Response:
        answer = self.http.get(path, **options)
        assert answer.status_code == expect, f"{path}: {answer.status_code}\n{answer.text[:2000]}"
        return answer

    def csrf(self, path: str = "/sign-in") -> str:
        answer = self.http.get(path, follow_redirects=True)
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', answer.text)
        assert found, f"{path} has no form:\n{answer.text[:1500]}"
        return found[1]

    def post(
        self, path: str, fields: dict[str, Any] | None = None, *, page: str = "/sign-in", expect: int = 303
    ) -> httpx.Response:
        """Send a form of `page`, and follow where it leads."""
        data = {"csrf": self.csrf(page), **(fields or {})}
        answer = self.http.post(path, data=data, headers={"origin": self.url})
        assert answer.status_code == expect, f"{path}: {answer.status_code}\n{answer.text[:2000]}"
        return self.http.get(answer.headers["location"]) if answer.status_code == 303 else answer

    def close(self) -> None:
        self.http.close()


@dataclass
class Scene:
    """One site with everything around it."""

    site: Site
    store: Store
    server: WebServer
    mailbox: Mailbox
    smtp: Controller
    courier: Courier
    clock: Clock
    visitors: ExitStack
    next_index: int = 0

    @property
    def url(self) -> str:
        return self.site.config.public_url

    def visitor(self) -> Visitor:
        made = Visitor(self.url)
        self.visitors.callback(made.close)
        return made

    def sign(
        self, *, ref: str = "refs/tags/v1.0.0", days_ago: float = 0, rule: str = "file-rule", **changes: Any
    ) -> Signing:
        """Store a finding: a release of acme/widget, bent as asked."""
        index, at = self.next_index, self.clock() - timedelta(days=days_ago)
        self.next_index += 1
        workflow = changes.pop("workflow", signings.WORKFLOW)
        claims = {
            "source_repository_ref": ref,
            "github_workflow_ref": ref,
            "build_config_uri": f"{workflow}@{ref}",
            "build_signer_uri": f"{workflow}@{ref}",
            **changes.pop("claims", {}),
        }
        names = changes.pop("names", (Name(NameForm.URI, f"{workflow}@{ref}"),))
        digest = Digest("sha256", f"{index:064x}")
        made = signings.signing(
            claims, where=EntryRef(LOG, index), names=names, not_before=at, digests=(digest,), **changes
        )
        self.keep([Finding(rule, select(SELECT, made), Verdict(Outcome.EXPECTED), f"leaf {index}".encode())])
        return made

    def keep(self, findings: Sequence[Finding]) -> None:
        with self.store.database.write() as connection:
            add_findings(connection, findings, self.clock())

    def a_year(self) -> None:
        """Releases from tags, one signing from a branch, and a self-made certificate."""
        for number in range(24):
            self.sign(ref=f"refs/tags/v1.{number}.0", days_ago=350 - number * 14)
        self.sign(ref="refs/heads/totally-legit", days_ago=1)
        self.sign(ref=f"refs/heads/{HOSTILE}", days_ago=3, trust=ChainTrust.UNTRUSTED)

    def deliver(self) -> None:
        self.courier.run_pass()

    def subscribe(self, visitor: Visitor, address: str, name: str = REPOSITORY) -> None:
        """The whole way of a new subscriber: form, mail, confirm."""
        fields = {"name": name, "email": address, "do": "subscribe"}
        visitor.post("/subscribe", fields, page=f"/subscribe?name={name}")
        self.deliver()
        link = link_in(self.mailbox.to(address)[-1], "confirm")
        visitor.post(link, page=link, expect=200)


def config_for(folder: Path, port: int, smtp_port: int, **changes: Any) -> SiteConfig:
    made = SiteConfig(
        public_url=f"http://127.0.0.1:{port}",
        key_file=folder / "site.key",
        mail=MailConfig("127.0.0.1", "signwatch@watch.example", port=smtp_port, security="none"),
        listen=("127.0.0.1", port),
        operator="The Acme Foundation",
        contact="abuse@watch.example",
        allow_private=True,
        limits=SiteLimits(requests_per_minute=100_000, mails_per_client_per_hour=1000, api_requests_per_minute=100_000),
    )
    return replace(made, **changes)


def write_config(folder: Path, acme: Scene) -> Path:
    """Write a configuration for the operator's commands on a site's database."""
    config, url = folder / "signwatch.yaml", acme.store.database.engine.url
    where = str(acme.store.database.path or url.render_as_string(hide_password=False))
    config.write_text(
        f'version: 1\ndatabase: "{where}"\ntrust: {{trusted_root: none.json}}\nrules: rules.yaml\n', encoding="utf-8"
    )
    return config


@contextmanager
def scene(folder: Path, database: Database, archive: Archive | None = None, **changes: Any) -> Iterator[Scene]:
    """A site that is served, with its mailbox."""
    clock, mailbox = Clock(), Mailbox()
    smtp = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    smtp.start()
    config = config_for(folder, free_port(), smtp.port, **changes)
    store = Store(database, clock=clock, route=lambda _alert: ())
    store.baseline(a_position(1000), "test")
    store.health.went_well(LOG, clock(), clock())
    past = None if archive is None else ArchivedHistory(archive, FindingsHistory(database))
    site = build_site(config, database, clock, past)
    assert config.listen is not None
    server = WebServer(create_site(site), WebConfig(config.listen), SITE_LIMITS, "site")
    courier = Courier(site)
    server.start()
    with ExitStack() as visitors:
        made = Scene(site, store, server, mailbox, smtp, courier, clock, visitors)
        try:
            yield made
        finally:
            courier.close()
            server.stop()
            made.smtp.stop()


def shown(answer: httpx.Response) -> str:
    """The text of a page, without its markup."""
    text = re.sub(r"<(style|title)[^>]*>.*?</\1>", " ", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())

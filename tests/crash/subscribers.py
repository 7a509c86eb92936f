"""`python -m tests.crash.subscribers FOLDER`: dies at each step of confirming, telling and leaving.

A step is one call of the database's driver, or the moment before a mail is handed to a real SMTP server; of those that
find the same disk as the step before, only mails and the step after each count. After each death
a new process goes on as the daemon does, and the person presses the button again; then every row and every mail is
compared with an undisturbed life. Prints one JSON line of figures; exits 1 with the first thing that differs.
"""

import asyncio
import json
import logging
import os
import pickle
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any, Final

import httpx
import time_machine
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from msgspec.structs import replace
from sqlalchemy import select

from alerts.alert import Alert, Owner, Severity
from alerts.delivery import DeliveryPolicy, deliver_channel
from monitor.site import delivery, mailing
from monitor.site.app import create_site
from monitor.site.delivery import Courier
from monitor.site.fan_out import FanOut
from monitor.site.leaving import DESTINATION, SUBSCRIPTION, leave_link
from monitor.site.parts import Site, build_site
from monitor.site_config import SiteLimits
from monitor.store.database import Database, create, open_database
from monitor.store.outbox import QueuedAlert, put
from monitor.store.site_tables import DestinationRow, LinkRow, NoticeRow, StageCount, SubscriptionRow
from monitor.store.sql import table
from monitor.store.store import Store
from monitor.store.tables import AskRow
from rules.matching.matcher import PREFIX
from tests.crash.forking import DIED, Steps, Watching
from tests.crash.story import Around, step_through_database
from tests.site.scene import REPOSITORY, config_for
from tests.support.log_server import free_port
from tests.support.parts import a_position
from tests.support.progress import told

MIA, THEO = "mia@acme.example", "theo@acme.example"
_NOW: Final = datetime(2031, 3, 1, 12, tzinfo=UTC)
_STAGES: Final = ("ask", "confirm", "tell", "leave", "stop")
_FAILED: Final = 99
_LIMIT: Final = 60
_LINK: Final = re.compile(rb"https?://[^\s/]+(/confirm/[^\s]+)")


class _Mailbox:
    """Appends each mail to a file: the server lives on in a process of its own while others die."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        mail = message_from_bytes(content, policy=policy.default)
        body = mail.get_body(("plain",))
        text = "" if body is None else str(body.get_content())
        row = {"id": str(mail["Message-ID"]), "to": str(mail["To"]), "subject": str(mail["Subject"]), "text": text}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return "250 taken"


@contextmanager
def mail_server(path: Path) -> Iterator[int]:
    """A real SMTP server in a process of its own; yields its port."""
    port = free_port()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        Controller(_Mailbox(path), hostname="127.0.0.1", port=port).start()
        os.write(writing, b"ready")
        signal.pause()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read(5) == b"ready"
    try:
        yield port
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def mails(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@dataclass
class Life:
    """One process over the database of a folder; `number` moves its clock beyond the leases of a life before it."""

    folder: Path
    port: int
    number: int = 0

    def live(self, stage: str, around: Around) -> None:
        """Go through one stage, as the daemon and a person's browser do."""
        step_through_database(around)
        # The courier's own name for it: what is taken by the server and not yet written down is told again.
        hand_over = mailing.hand_over
        vars(delivery)["hand_over"] = lambda *sent: around("mail", lambda: hand_over(*sent))
        with time_machine.travel(_NOW + timedelta(hours=self.number), tick=True), closing(self._open()) as database:
            site = self._site(database)
            if self.number:
                Store(database, clock=site.clock, route=lambda _alert: ()).outbox.release()
                site.notices.release()
            match stage:
                case "ask":
                    self._ask(site)
                case "confirm":
                    self._confirm(site)
                case "tell":
                    self._tell(site)
                case "leave":
                    mine = next(iter(site.subscribers.subscriptions(_account(site, MIA).id)), None)
                    link = (
                        (self.folder / "leave").read_text() if mine is None else leave_link(site, SUBSCRIPTION, mine.id)
                    )
                    (self.folder / "leave").write_text(link)
                    _click(site, link.removeprefix(site.config.public_url))
                case _:
                    [place, *_] = site.subscribers.destinations.of(_account(site, THEO).id)
                    _click(site, leave_link(site, DESTINATION, place.id).removeprefix(site.config.public_url))
            self._deliver(site)

    def _open(self) -> Database:
        return open_database(str(self.folder / "signwatch.db"))

    def _site(self, database: Database) -> Site:
        # One thread sends: the steps of a life are then the same each time.
        config = replace(config_for(self.folder, 9, self.port), limits=SiteLimits(senders=1))
        return build_site(config, database, lambda: datetime.now(UTC))

    def _ask(self, site: Site) -> None:
        for address in (MIA, THEO):
            path = f"/subscribe?name={REPOSITORY}"
            fields = {"name": REPOSITORY, "email": address, "do": "subscribe"}
            asyncio.run(_form(site, path, "/subscribe", fields))

    def _confirm(self, site: Site) -> None:
        for link in (self.folder / "links").read_text().split():
            _click(site, link)

    def _tell(self, site: Site) -> None:
        account = _account(site, MIA)
        [mine] = site.subscribers.subscriptions(account.id)
        alert = Alert(
            id="alert-1",
            kind="unexpected-signing",
            owner=Owner.SIGNING,
            severity=Severity.PAGE,
            title="Unexpected signing",
            summary="A stranger signed.",
            consequence="It verifies as yours.",
            next_step="Look.",
            created_at=_NOW,
            log="rekor-v2",
            index=1,
            rule=f"{PREFIX}{mine.ask}",
        )
        with site.database.write() as connection:
            put(connection, [QueuedAlert(alert, ["subscribers"], _NOW)], _NOW)

    def _deliver(self, site: Site) -> None:
        now = site.clock()
        outbox = Store(site.database, clock=site.clock, route=lambda _alert: ()).outbox
        deliver_channel(outbox, FanOut(site.database), now, random=lambda: 0.5, policy=DeliveryPolicy())
        courier = Courier(site)
        courier.run_pass()
        courier.close()


def _account(site: Site, address: str) -> Any:
    found = site.subscribers.by_address(address)
    assert found is not None, f"{address} has no account"
    return found


def _click(site: Site, link: str) -> None:
    """Open a mail's page and press its button; a page that says it was done already has none."""
    asyncio.run(_form(site, link, link, {}))


async def _form(site: Site, page: str, action: str, fields: dict[str, str]) -> None:
    url = site.config.public_url
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_site(site)), base_url=url) as client:
        shown = await client.get(page)
        if f'action="{action}"' not in shown.text:
            assert shown.status_code in (200, 410), shown.text[:500]
            return
        csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', shown.text)
        data = {**fields, **({"csrf": csrf[1]} if csrf else {})}
        answer = await client.post(action, data=data, headers={"origin": url})
        assert answer.status_code in (200, 303), answer.text[:500]


def outcome(folder: Path) -> dict[str, Any]:
    """What a stage came to, without the random ids that it made."""
    with closing(open_database(str(folder / "signwatch.db"))) as database, database.read() as connection:

        def rows(model: Any, *names: str) -> list[str]:
            columns = [table(model).c[name] for name in names]
            return sorted(repr(tuple(row)) for row in connection.execute(select(*columns)))

        told = select(table(NoticeRow).c.key, table(NoticeRow).c.state).where(table(NoticeRow).c.kind == "alert")
        return {
            "subscriptions": rows(SubscriptionRow, "subject", "title", "ask"),
            "asks": rows(AskRow, "document", "active"),
            "destinations": rows(DestinationRow, "target", "state"),
            "stages": rows(StageCount, "stage", "entries"),
            "notices": sorted(repr(tuple(row)) for row in connection.execute(told)),
            "letters": rows(NoticeRow, "kind", "state"),
            "used": sorted(repr(row) for row in connection.execute(select(table(LinkRow).c.used_at.is_not(None)))),
        }


def run(life: Life, stage: str, around: Around, told: Callable[[], Any] = lambda: True) -> Any:
    """Live through a stage in a process of its own; returns what `told` gives at its end, `None` when it died."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = _FAILED
        try:
            signal.alarm(_LIMIT)
            life.live(stage, around)
            with os.fdopen(writing, "wb") as answer:
                pickle.dump(told(), answer)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, DIED}, f"a life ended with {code}"
    return pickle.loads(content) if code == 0 else None


def _distinct(seen: Sequence[tuple[str, bytes]]) -> list[int]:
    """Steps to die before: those that find another disk than the step before them, each mail, and the step after it."""
    chosen = []
    for step, (seam, left) in enumerate(seen[:-1], 1):
        before = seen[step - 2] if step > 1 else ("", b"")
        if left != before[1] or "mail" in (seam, before[0]):
            chosen.append(step)
    return chosen


def begin(folder: Path) -> None:
    folder.mkdir(parents=True)
    with closing(create(str(folder / "signwatch.db"), _NOW, "crash test")) as database:
        Store(database, clock=lambda: _NOW, route=lambda _alert: ()).baseline(a_position(3), "test")


def fresh(home: Path, template: Path) -> Path:
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(template, home)
    return home


def check(  # noqa: PLR0917
    stage: str, step: int, found: dict[str, Any], wanted: dict[str, Any], got: Counter[str], sent: set[str]
) -> None:
    """The end is the undisturbed one: nothing lost, no mail under another key, none more than twice."""
    where = f"died at step {step} of {stage!r}"
    assert found == wanted, f"{where}: {found} is not {wanted}"
    assert set(got) == sent, f"{where}: mails {sorted(got)} are not {sorted(sent)}"
    assert all(times <= 2 for times in got.values()), f"{where}: one death repeats a mail once: {got}"


def main(folder: Path) -> None:
    """Die at every step of every stage."""
    logging.disable(logging.CRITICAL)
    box = folder / "mails.jsonl"
    deaths: Counter[str] = Counter()
    repeated = 0
    with mail_server(box) as port:
        undisturbed = folder / "undisturbed"
        begin(undisturbed)
        for stage in _STAGES:
            template = fresh(folder / f"before-{stage}", undisturbed)
            before = len(mails(box))
            watching = Watching(undisturbed)
            seen = run(Life(undisturbed, port), stage, watching.around, watching.finish)
            assert seen is not None
            wanted, sent = outcome(undisturbed), {each["id"] for each in mails(box)[before:]}
            if stage == "ask":
                links = [found[1].decode() for each in mails(box) if (found := _LINK.search(each["text"].encode()))]
                assert len(links) == 2, "control: two people asked"
                (undisturbed / "links").write_text("\n".join(links))
                continue
            assert stage != "tell" or len(sent) == 2, "control: both are told"
            for step in told(_distinct(seen), f"deaths in {stage!r}"):
                home, before = fresh(folder / "home", template), len(mails(box))
                assert run(Life(home, port), stage, Steps(step).around) is None, "it was to die there"
                assert run(Life(home, port, 1), stage, lambda _seam, call: call()) is not None
                got = Counter(each["id"] for each in mails(box)[before:])
                check(stage, step, outcome(home), wanted, got, sent)
                deaths[stage] += 1
                repeated += got.total() - len(got)
    print(json.dumps({"deaths": deaths, "repeated": repeated}))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except AssertionError as error:
        print(error)
        sys.exit(1)

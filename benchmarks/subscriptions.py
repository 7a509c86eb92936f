"""Cost of a million subscriptions to a daemon and a page, and time for a finding to reach ten thousand receivers."""

import asyncio
import json
import multiprocessing
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from fastapi import FastAPI
from sqlalchemy import select
from typing_extensions import override

from alerts.alert import Alert, Owner, Severity
from benchmarks.measure import peak_memory
from monitor.judging.active_rules import AskedRules
from monitor.judging.judge import RuleJudge
from monitor.model.log_source import LogApi, LogIdentity, Position, SignedHead
from monitor.model.state import Batch, Finding, Hit
from monitor.program import utc_now
from monitor.proof.trusted_head import advance
from monitor.site.app import create_site
from monitor.site.delivery import Courier
from monitor.site.fan_out import FanOut
from monitor.site.parts import Site, build_site
from monitor.site_config import MailConfig, SiteConfig, SiteLimits
from monitor.store.asks import Asks
from monitor.store.database import Database, create
from monitor.store.findings import add_findings
from monitor.store.outbox import QueuedAlert, put
from monitor.store.site_tables import DestinationRow, SubscriberRow, SubscriptionAsk, SubscriptionRow
from monitor.store.sql import new_id, table, text_key
from monitor.store.store import Store
from monitor.store.subscribers import Subscribers
from monitor.store.tables import AskChange, AskRow, FindingName, FindingRow
from rules.asking import KEYS_VERSION, SUBSCRIBERS, Ask, ask_of, rule_of
from rules.learning import verdict_of
from rules.matching.matcher import PREFIX, LayeredMatcher, Matcher
from rules.selection import names_of
from rules.selection import select as select_signers
from rules.subject import read_subject
from sigstore_entries.signing import ChainTrust, Digest, EntryRef, Name, NameForm, Signer, SignerForm, Signing
from sigstore_entries.trust import CertificateAuthorities
from tlog.merkle import Frontier, leaf_hash

_MANY: Final = 1_000_000
_CHUNK: Final = 20_000
_GIB: Final = 1 << 30
_CHANGES: Final = 50
_PAGES: Final = 40
_BUSY: Final = 100_000
_RECEIVERS: Final = 10_000
_ADDRESSES: Final = 200
_POLL: Final = 1.0
"""Seconds between two looks of the daemon at what changed (`monitor.daemon.daemon`)."""
_OWNER: Final = "o0000000"
_PATIENCE: Final = 300.0
_LOG: Final = "rekor-v2"
_ENTRIES: Final = 6
_STRICT: Final = {"same_issuer": "true", "same_repository_identifier": "true", "ref": {"glob": "refs/heads/*"}}
_WRITE_EVERY: Final = 0.01


def measure_subscriptions() -> dict[str, float]:
    """Figures of loading and changing a million subscriptions with learned expectations."""
    with _database() as database:
        fill(database, _MANY)
        subscribers = Subscribers(database, utc_now)
        started = time.perf_counter()
        asked = AskedRules(Asks(database))
        if asked.refresh() != _MANY:
            raise RuntimeError("not every subscription was loaded")
        loaded, peak = time.perf_counter() - started, peak_memory() / _GIB
        account = subscribers.ensure_account("changing@acme.example").id
        longest, began = 0.0, time.process_time()
        for number in range(_CHANGES):
            asking = time.perf_counter()
            subscribers.subscribe(account, _ask(_MANY + number), "x", "x")
            asked.refresh()
            longest = max(longest, time.perf_counter() - asking)
        used = time.process_time() - began
    return {
        "subscriptions_1m_load_s": loaded,
        "subscriptions_1m_gb": peak,
        "subscription_in_force_s": longest + _POLL,
        "subscription_change_cpu_ms": used / _CHANGES * 1000,
    }


def measure_pages() -> dict[str, float]:
    """Figure `page_cpu_ms`: the dearest of front page, a name's page, a subscription's page and the list of them."""
    with _database() as database:
        fill(database, _MANY)
        _fill_findings(database, _MANY)
        site = _site(database)
        subscriber = site.subscribers.all(1)[0]
        token = "a" * 64
        site.subscribers.open_session(token, subscriber.id)
        mine = site.subscribers.subscriptions(subscriber.id)[0]
        paths = ("/", f"/look?name={mine.subject}", f"/subscriptions/{mine.id}", "/subscriptions")
        costs = asyncio.run(_costs(create_site(site), site.config.public_url, token, paths))
    return {"page_cpu_ms": max(costs)}


def measure_fan_out() -> dict[str, float]:
    """Figures `fan_out_10k_s` and `fan_out_hold_ms`: from one committed alert to ten thousand accepted webhooks.

    The webhooks are at many loopback addresses. The second is the longest that another writer, such as a pass over a
    log, waited meanwhile until it could write.
    """
    receiver = multiprocessing.get_context("spawn").Process(target=_receive, args=(port := _free_port(),), daemon=True)
    receiver.start()
    try:
        _wait_for(port)
        with _database() as database:
            site = _site(database)
            number = _followers(site, _RECEIVERS, port)
            alert = _alert(number)
            with database.write() as connection:
                put(connection, [QueuedAlert(alert, ["subscribers"], utc_now())], utc_now())
            courier = Courier(site)
            with _writing(database) as waits:
                started = time.perf_counter()
                FanOut(database).send(alert, alert.id, utc_now())
                delivered = 0
                while delivered < _RECEIVERS and time.perf_counter() - started < _PATIENCE:
                    delivered += courier.run_pass().delivered
                seconds = time.perf_counter() - started
            courier.close()
    finally:
        receiver.terminate()
        receiver.join(10)
    if delivered < _RECEIVERS:
        raise RuntimeError(f"only {delivered} of {_RECEIVERS} webhooks were accepted")
    return {"fan_out_10k_s": seconds, "fan_out_hold_ms": max(waits) * 1000}


class _Trusting(CertificateAuthorities):
    """Takes each signer's chain as the benchmark made it."""

    def __init__(self) -> None:
        super().__init__(())

    @override
    def judge_chain(self, signer: Signer, at: datetime | None = None) -> Signer:
        return signer


def measure_own_past() -> dict[str, float]:
    """Figure `own_past_ms`: one entry of a name whose ten thousand subscribers are each judged by a past of their own.

    Each is told: the costliest verdict. Measured from matching to the commit, for one subscriber.
    """
    with _database() as database:
        ask = ask_of(json.loads(_ask(0).document)["select"], {"rate": {"at_most": "0", "per": "1d"}, **_STRICT})
        row = {"document": ask.document, "index_keys": ask.keys, "keys_version": KEYS_VERSION, "active": True}
        numbers = range(1, _RECEIVERS + 1)
        asks = [row | {"number": n, "digest": ask.digest(str(n)), "change": n, "owner": str(n)} for n in numbers]
        with database.write() as connection:
            connection.execute(table(AskRow).insert(), asks)
            connection.execute(table(AskChange).insert(), {"id": 1, "change": _RECEIVERS})
        asked = AskedRules(Asks(database))
        asked.refresh()
        store = Store(database, clock=utc_now, route=lambda _alert: (SUBSCRIBERS,))
        matcher = LayeredMatcher(Matcher(()), asked.index, asked.load)
        judge = RuleJudge(matcher, store.facts, lambda: (_Trusting(), ()))
        # The first entry loads the texts of the requests; later ones find them.
        costs = [_judge_and_commit(store, matcher, judge, index) for index in range(_ENTRIES)]
        return {"own_past_ms": statistics.median(costs[1:]) * 1000 / _RECEIVERS}


def _judge_and_commit(store: Store, matcher: LayeredMatcher, judge: RuleJudge, index: int) -> float:
    """Processor seconds of one entry."""
    old, new = (_position(size) for size in (index, index + 1))
    if not index:
        store.baseline(old, "index 0")
    signing = _signing(index, _OWNER)
    began, now = time.process_time(), utc_now()
    found = matcher.confirm_all(signing)
    hit = Hit(found.signing, tuple(rule.id for rule in found.rules), b"x" * 2_000)
    findings = judge.judge([hit], now)
    alerts = judge.alerts(findings, now)
    store.advance(old, new, Batch(_LOG, index, index + 1, tuple(findings)), alerts)
    if len(alerts) != _RECEIVERS:
        raise RuntimeError(f"{len(alerts)} of {_RECEIVERS} subscribers were to be told")
    return time.process_time() - began


def _position(size: int) -> Position:
    frontier = Frontier().extended(leaf_hash(bytes([number])) for number in range(size))
    whole = Frontier().extended(leaf_hash(bytes([number])) for number in range(_ENTRIES))
    head = SignedHead(_LOG, _ENTRIES, whole.root(), b"head")
    identity = LogIdentity(_LOG, LogApi.REKOR_V2, "bench", "bench", b"")
    return Position(_LOG, frontier, advance(None, head, (), identity))


@contextmanager
def _writing(database: Database) -> Iterator[list[float]]:
    """Write now and then as a pass over a log does; the list holds the seconds that each wait took."""
    waits, ended = [0.0], threading.Event()

    def write() -> None:
        while not ended.wait(_WRITE_EVERY):
            began = time.perf_counter()
            with database.write():
                waits.append(time.perf_counter() - began)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield waits
    finally:
        ended.set()
        thread.join()


@contextmanager
def _database() -> Iterator[Database]:
    with tempfile.TemporaryDirectory(prefix="signwatch-bench-") as folder:
        database = create(str(Path(folder) / "signwatch.db"), utc_now(), "benchmark")
        try:
            yield database
        finally:
            database.close()


def _site(database: Database) -> Site:
    limits = SiteLimits(requests_per_minute=1_000_000, messages_per_host_per_second=1_000)
    config = SiteConfig(
        public_url="http://127.0.0.1:9465",
        key_file=Path(str(database.path)).with_name("site.key"),
        mail=MailConfig("127.0.0.1", "signwatch@watch.example", security="none"),
        allow_private=True,
        limits=limits,
    )
    return build_site(config, database, utc_now)


def _ask(number: int) -> Ask:
    """A learned expectation of one repository, made from one that was checked."""
    owner = f"o{number:07}"
    return Ask(_SAMPLE.document.replace(_OWNER, owner), _SAMPLE.keys.replace(_OWNER, owner))


_SAMPLE: Final = ask_of(
    read_subject(f"https://github.com/{_OWNER}/widget").select(),
    {
        "workflow": ".github/workflows/release.yml",
        "ref": {"glob": "refs/tags/v*"},
        "trigger": "push",
        "issuer": "https://token.actions.githubusercontent.com",
        "repository": f"https://github.com/{_OWNER}/widget",
    },
)


def fill(database: Database, count: int) -> None:
    """Accounts with one subscription each, every one about a repository of its own."""
    now = utc_now()
    for start in range(0, count, _CHUNK):
        numbers = range(start, min(start + _CHUNK, count))
        asks, people, held, stood = [], [], [], []
        for number in numbers:
            ask, person = _ask(number), f"{number:024x}"
            row: dict[str, Any] = {"number": number + 1, "digest": ask.digest(""), "document": ask.document}
            asks.append(
                row
                | {
                    "index_keys": ask.keys,
                    "keys_version": KEYS_VERSION,
                    "active": True,
                    "change": number + 1,
                    "owner": "",
                }
            )
            address = f"u{number}@acme.example"
            people.append(
                {
                    "id": person,
                    "address": address,
                    "address_key": text_key(address),
                    "confirmed_at": now,
                    "suspended_why": "",
                    "weekly_due": now + timedelta(days=7),
                    "weekly_from": now,
                }
            )
            subject = f"https://github.com/o{number:07}/widget"
            held.append(
                {
                    "id": person,
                    "subscriber": person,
                    "ask": number + 1,
                    "subject": subject,
                    "title": subject,
                    "created_at": now,
                }
            )
            stood.append({"subscription": person, "since": now - timedelta(days=400), "ask": number + 1})
        with database.write() as connection:
            for model, rows in (
                (AskRow, asks),
                (SubscriberRow, people),
                (SubscriptionRow, held),
                (SubscriptionAsk, stood),
            ):
                connection.execute(table(model).insert(), rows)
    with database.write() as connection:
        connection.execute(table(AskChange).insert(), {"id": 1, "change": count})


def _fill_findings(database: Database, count: int) -> None:
    """Findings by the million: a hundred thousand are of the first subscription, more than the busiest project has."""
    busy = _signing(0, _OWNER)
    rule = rule_of(1, _ask(0).document)
    now = utc_now()
    finding = Finding(f"{PREFIX}1", select_signers(rule.select, busy), verdict_of(rule, busy, now), b"x" * 800)
    with database.write() as connection:
        add_findings(connection, [finding], now)
    found = table(FindingRow)
    with database.read() as connection:
        sample = dict(connection.execute(select(found)).mappings().one())
    names = [text_key(name) for name in dict.fromkeys(names_of(busy))]
    for start in range(1, count, _CHUNK):
        numbers = range(start, min(start + _CHUNK, count))
        times = {n: sample["signed_at"] - timedelta(seconds=n) for n in numbers}
        rows = [
            sample | {"entry": n, "rule": f"{PREFIX}{1 if n < _BUSY else n}", "signed_at": times[n]} for n in numbers
        ]
        filed = [
            {
                "name_key": key if n < _BUSY else text_key(f"{key.hex()} {n}"),
                "log": "rekor-v2",
                "entry": n,
                "vouched": True,
                "at": times[n],
            }
            for n in numbers
            for key in (names if n < _BUSY else names[:1])
        ]
        with database.write() as connection:
            connection.execute(found.insert(), rows)
            connection.execute(table(FindingName).insert(), filed)


def _signing(index: int, owner: str) -> Signing:
    repository = f"https://github.com/{owner}/widget"
    workflow = f"{repository}/.github/workflows/release.yml@refs/tags/v1.0.0"
    claims = {
        "source_repository_uri": repository,
        "source_repository_ref": "refs/tags/v1.0.0",
        "build_config_uri": workflow,
        "build_trigger": "push",
    }
    signer = Signer(
        SignerForm.CERTIFICATE,
        (Name(NameForm.URI, workflow),),
        "https://token.actions.githubusercontent.com",
        claims,
        fingerprints=("c" * 64,),
        not_before=datetime.now(UTC) - timedelta(days=3),
        trust=ChainTrust.TRUSTED,
    )
    return Signing(EntryRef("rekor-v2", index), "hashedrekord", "0.0.1", (signer,), (Digest("sha256", "ab" * 32),))


async def _costs(app: FastAPI, url: str, token: str, paths: Sequence[str]) -> list[float]:
    """Processor milliseconds of each page, client included."""
    found = []
    cookies = {"signwatch": token}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=url, cookies=cookies) as client:
        for path in paths:
            (await client.get(path)).raise_for_status()
            began = time.process_time()
            for _ in range(_PAGES):
                (await client.get(path)).raise_for_status()
            found.append((time.process_time() - began) / _PAGES * 1000)
    return found


def _followers(site: Site, count: int, port: int) -> int:
    """Accounts that follow the same name, each told at a webhook; returns the number of what they ask."""
    now, ask = utc_now(), _ask(0)
    first = site.subscribers.ensure_account("first@acme.example")
    number = site.subscribers.subscribe(first.id, ask, "x", "widget").ask
    secret = "whsec_" + "A" * 43 + "="
    people, held, places = [], [], []
    for each in range(count):
        person, address = new_id(), f"w{each}@acme.example"
        people.append(
            {
                "id": person,
                "address": address,
                "address_key": text_key(address),
                "confirmed_at": now,
                "suspended_why": "",
                "weekly_from": now,
            }
        )
        held.append(
            {"id": person, "subscriber": person, "ask": number, "subject": "x", "title": "widget", "created_at": now}
        )
        host = f"127.0.{1 + each % _ADDRESSES}.1"
        places.append((person, f"http://{host}:{port}/hook", host))
    with site.database.write() as connection:
        connection.execute(table(SubscriberRow).insert(), people)
        connection.execute(table(SubscriptionRow).insert(), held)
    for part in range(0, count, 1000):
        _add_places(site, places[part : part + 1000], secret)
    mail = site.subscribers.destinations.of(first.id)[0]
    site.subscribers.destinations.change(mail.id, first.id, state="waiting")
    return number


def _add_places(site: Site, places: list[tuple[str, str, str]], secret: str) -> None:
    now = utc_now()
    rows = [
        {
            "id": new_id(),
            "subscriber": person,
            "kind": "webhook",
            "target": url,
            "host": host,
            "secret": secret,
            "former_secret": "",
            "state": "ready",
            "created_at": now,
            "bounces": 0,
            "error": "",
        }
        for person, url, host in places
    ]
    with site.database.write() as connection:
        connection.execute(table(DestinationRow).insert(), rows)


def _alert(number: int) -> Alert:
    return Alert(
        id="unexpected-signing:benchmark",
        kind="unexpected-signing",
        owner=Owner.SIGNING,
        severity=Severity.PAGE,
        title="Unexpected signing",
        summary="A summary of ordinary length about one signing that was not expected.",
        consequence="The signed artifact verifies as yours wherever it is shown.",
        next_step="If it was you, extend the rule.",
        created_at=utc_now(),
        reasons=("It was built from a branch or tag that the rule does not list.",),
        facts=(("Identity", "https://github.com/acme/widget/.github/workflows/release.yml@refs/heads/x"),) * 12,
        log="rekor-v2",
        index=7,
        rule=f"{PREFIX}{number}",
    )


def _receive(port: int) -> None:
    """Take every POST on every loopback address with 204, as cheaply as a receiver can."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except (asyncio.IncompleteReadError, ValueError, OSError):
            pass
        finally:
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "0.0.0.0", port, backlog=4096)
        async with server:
            await server.serve_forever()

    asyncio.run(serve())


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def _wait_for(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError("the receiver did not start")

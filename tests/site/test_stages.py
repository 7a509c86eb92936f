"""Each stage of a subscription is a number on /metrics, and no page for operators or strangers holds a secret."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from monitor.config import WebConfig, load_config
from monitor.daemon.daemon import Daemon
from monitor.daemon.status import Status, read_status, status_document
from monitor.daemon.web import create_app
from monitor.daemon.web_server import WebServer
from monitor.telemetry.prometheus import PrometheusMeter
from tests.site.followed import Followed, followed
from tests.site.scene import link_in
from tests.support.database_fixtures import postgres_url, where
from tests.support.waiting import PATIENCE

__all__ = ["postgres_url", "where"]
MIA, THEO = "mia@acme.example", "theo@acme.example"


@pytest.fixture
def live(tmp_path: Path, where: str) -> Iterator[Followed]:
    with followed(tmp_path, where) as made:
        yield made


@pytest.fixture
def operators(live: Followed) -> Iterator[httpx.Client]:
    """The operator's page of the installation."""
    settings, meter, store = load_config(live.served.config), live.monitor.services.meter, live.monitor.store
    assert isinstance(meter, PrometheusMeter)

    def look() -> tuple[Status, dict[str, Any]]:
        status = read_status(settings, store, live.clock())
        return status, status_document(status, store)

    server = WebServer(create_app(look, meter), WebConfig(("127.0.0.1", 0)))
    server.start()
    with httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE) as client:
        yield client
    server.stop()


def test_each_stage_is_counted_on_metrics_and_no_secret_or_address_is_on_any_page(
    live: Followed, operators: httpx.Client
) -> None:
    mia, stranger = live.visitor(), live.visitor()
    live.subscribe(mia, MIA)
    confirm = link_in(live.mailbox.to(MIA)[-1], "confirm")
    live.follow()
    live.sign("refs/heads/stolen")
    answer, leave = (link_in(live.mailbox.to(MIA)[-1], page) for page in ("answer", "leave"))
    mia.post("/sign-in", {"email": MIA}, page="/account")
    live.courier.run_pass()
    sign_in = link_in(live.mailbox.to(MIA)[-1], "sign-in")
    made = mia.post("/account/tokens", {"name": "x", "scope": "read"}, page="/account", expect=200).text
    token = "swt_" + made.partition("swt_")[2].partition("<")[0]
    session, browser = mia.http.cookies["signwatch"], mia.http.cookies["signwatch-browser"]
    mia.post(leave, page="/account", expect=200)
    live.mailbox.refuse[THEO] = "550 no such user"
    fields = {"name": "https://github.com/acme/other", "email": THEO, "do": "subscribe"}
    stranger.post("/subscribe", fields, page=f"/subscribe?name={fields['name']}")
    live.courier.run_pass()
    Daemon(live.monitor).tidy_site()

    metrics = operators.get("/metrics").text
    for stage, number in {"asked": 2, "confirmed": 1, "told": 1, "left": 1}.items():
        assert f'signwatch_subscription_stages{{stage="{stage}"}} {number}.0' in metrics
    forged = stranger.http.post("/subscribe", data=fields)
    assert forged.status_code == 403
    pages = {
        "metrics": metrics,
        "status": operators.get("/api/status.json").text,
        "404": stranger.get("/confirm/" + "0" * 64, expect=404).text,
        "410": stranger.get(confirm, expect=410).text,
        "401": stranger.get("/subscriptions", expect=401).text,
        "403": forged.text,
        "404 of an operator": operators.get("/nothing").text,
    }
    secrets = [
        MIA,
        THEO,
        token,
        session,
        browser,
        *(link.split("?")[0].rpartition("/")[2] for link in (answer, sign_in)),
    ]
    assert all(len(each) > 10 for each in secrets), "control"
    for name, text in pages.items():
        assert [each for each in secrets if each in text] == [], name
        assert live.courier.site.config.key_file.read_text().strip() not in text

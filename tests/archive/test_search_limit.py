"""Search over HTTP is limited for each client: how often, how long a question, and how much work one may be."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from fastapi import FastAPI

from monitor.archive.query import MOST_OF_A_PAGE, MatchMode, Query
from monitor.config import WebConfig
from monitor.daemon import rekor_search
from monitor.daemon.rekor_search import load_key, search_router
from monitor.daemon.search_limit import limit_searches
from monitor.daemon.web_server import WebServer
from tests.archive.conftest import Place
from tests.archive.daemon import running
from tests.support.waiting import PATIENCE

EMAIL = "dev3@example.com"


@contextmanager
def served(place: Place, trusted_proxies: tuple[str, ...] = ()) -> Iterator[httpx.Client]:
    config = WebConfig(("127.0.0.1", 0), searches_per_minute=5, trusted_proxies=trusted_proxies)
    app = FastAPI()
    app.include_router(search_router(place.archive, list, load_key(place.folder / "search-key.pem")))
    limit_searches(app, config)
    server = WebServer(app, config)
    server.start()
    try:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE) as client:
            yield client
    finally:
        server.stop()


def test_one_that_asks_too_often_is_told_when_to_come_again(place: Place) -> None:
    place.build()
    with served(place) as client:
        for _ in range(3):
            assert client.get("/api/search", params={"q": EMAIL}).status_code == 200
        for _ in range(2):
            assert client.post("/api/v1/index/retrieve", json={"email": EMAIL}).status_code == 200
        for refused in (
            client.get("/api/search", params={"q": EMAIL}),
            client.get("/api/search.svg", params={"q": EMAIL}),
            client.post("/api/v1/index/retrieve", json={"email": EMAIL}),
            client.get("/api/v1/log/publicKey"),
        ):
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["retry-after"]) <= 60


def test_clients_behind_a_known_proxy_are_counted_apart(place: Place) -> None:
    place.build()
    with served(place, trusted_proxies=("127.0.0.1/32",)) as client:
        asked = [
            client.get("/api/search", params={"q": EMAIL}, headers={"X-Forwarded-For": f"made.up, {address}"})
            for address in ["192.0.2.1"] * 6 + ["192.0.2.2"]
        ]
        assert [each.status_code for each in asked] == [200] * 5 + [429, 200]


def test_a_client_gets_no_other_address_by_saying_so(place: Place) -> None:
    place.build()
    with served(place) as client:
        asked = [
            client.get("/api/search", params={"q": EMAIL}, headers={"X-Forwarded-For": f"192.0.2.{number}"})
            for number in range(6)
        ]
        assert asked[-1].status_code == 429


def test_a_question_is_of_bounded_length(place: Place) -> None:
    place.build()
    with served(place) as client:
        assert client.post("/api/v1/index/retrieve", content=b'{"email": "' + b"x" * 200_000 + b'"}').status_code == 413

        def pieces() -> Iterator[bytes]:
            yield b'{"email": "x"}'

        assert client.post("/api/v1/index/retrieve", content=pieces()).status_code == 411


def test_the_work_of_a_question_is_bounded_and_what_is_left_out_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.build()
    monkeypatch.setattr(rekor_search, "MOST_OF_A_PAGE", 120)
    with served(place) as client:
        answer = client.get("/api/search", params={"q": "https://github.com/*", "match": "glob"}).json()
        (log,) = answer["coverage"]["logs"]
        ((first, last),) = log["unsearched"]
        assert (first, last) == (0, log["unsearched"][0][1])
        assert 0 < last < 200
        assert not answer["coverage"]["complete"]
        assert {row["index"] for row in answer["rows"]} <= set(range(last, 200))
        assert answer["total"] == len([row for row in place_rows(place) if row >= last])
        found = client.post("/api/v1/index/retrieve", json={"email": EMAIL})
        assert found.headers["x-signwatch-coverage"] == "complete"
        monkeypatch.setattr(rekor_search, "MOST_OF_A_PAGE", 10)
        found = client.post("/api/v1/index/retrieve", json={"email": EMAIL})
        assert found.headers["x-signwatch-coverage"] == "partial"
    assert MOST_OF_A_PAGE >= 100_000, "control: an honest question is never cut at this size"


def test_the_time_of_a_question_is_bounded_and_what_is_left_out_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.build()
    monkeypatch.setattr(rekor_search, "_SECONDS", -1.0)
    with served(place) as client:
        answer = client.get("/api/search", params={"q": "https://github.com/*", "match": "glob"}).json()
        assert (answer["total"], answer["coverage"]["complete"]) == (0, False)
        assert answer["coverage"]["logs"][0]["unsearched"] == [[0, 200]]
        picture = client.get("/api/search.svg", params={"q": "https://github.com/*", "match": "glob"})
        assert "only the searched entries are counted" in picture.text
        found = client.post("/api/v1/index/retrieve", json={"email": EMAIL})
        assert (found.json(), found.headers["x-signwatch-coverage"]) == ([], "partial")


def place_rows(place: Place) -> list[int]:
    query = Query("https://github.com/*", match=MatchMode.GLOB, limit=1000)
    return sorted(row.index for row in place.archive.search(query).rows)


def test_the_running_daemon_limits_its_search(place: Place) -> None:
    place.run("init")
    place.served.config.write_text(place.served.config.read_text())
    with (
        running(place.served) as daemon,
        httpx.Client(base_url=daemon.url, trust_env=False, timeout=PATIENCE) as client,
    ):
        codes = [client.get("/api/search", params={"q": EMAIL}).status_code for _ in range(61)]
        assert codes[:60] == [200] * 60
        assert codes[60] == 429
        assert client.get("/proofs/none").status_code == 429
        assert client.get("/healthz").status_code == 200, "a probe is never refused"
        assert client.get("/api/checkpoints").status_code == 200

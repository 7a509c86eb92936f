"""A dead-man service hears from an installation that is well; `status` says for how long there is disk."""

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from monitor.cli import run_command
from monitor.config import HeartbeatConfig, load_config
from monitor.daemon.dead_man import DeadManService
from monitor.daemon.disk import disk_use
from monitor.model.errors import BadConfig
from monitor.program import utc_now
from monitor.store.store import Store
from tests.daemon.test_daemon import Place
from tests.support.served_log import served_log


@dataclass
class Service:
    """A dead-man service: counts how often it was asked, and answers with `status`."""

    url: str = ""
    status: int = 200
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            self.send_response(made.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}/ping/s3cret"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with served_log(tmp_path) as served:
        made = Place(served)
        yield made
        made.monitor.close()


def dead_man(place: Place, service: Service) -> DeadManService:
    path = place.served.folder / "ping.url"
    path.write_text(service.url + "\n")
    with place.served.config.open("a") as file:
        file.write("heartbeat: {url_file: ping.url, every: 30s, allow_private: true}\n")
    config = load_config(place.served.config).heartbeat
    assert config is not None
    assert config.every == timedelta(seconds=30)
    return DeadManService(config, place.clock)


def test_the_service_is_asked_while_we_are_well_and_only_then(place: Place, service: Service) -> None:
    told = dead_man(place, service)
    place.daemon.tell_dead_man(told)
    assert service.asked == ["/ping/s3cret"]
    rules = place.served.folder / "rules.yaml"
    good = rules.read_text()
    rules.write_text("version: 1\nrules: nonsense\n")
    place.daemon.heartbeat()
    place.daemon.heartbeat()
    assert place.daemon.reasons()
    place.daemon.tell_dead_man(told)
    assert len(service.asked) == 1, "silence is the message"
    rules.write_text(good)
    place.daemon.heartbeat()
    place.daemon.heartbeat()
    place.daemon.tell_dead_man(told)
    assert len(service.asked) == 2


def test_a_service_that_is_away_is_not_green_and_is_asked_again(place: Place, service: Service) -> None:
    told = dead_man(place, service)
    service.status = 500
    place.daemon.tell_dead_man(told)
    [reason] = place.daemon.reasons()
    assert reason.startswith("dead-man service: ")
    assert "s3cret" not in reason
    service.status = 200
    place.daemon.tell_dead_man(told)
    assert place.daemon.reasons() == []
    assert len(service.asked) == 2


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/x", "https://127.0.0.1/x", "ftp://a.example", "", "https://a:b@c.example"]
)
def test_a_url_that_may_not_be_asked_is_misuse_and_is_not_shown(tmp_path: Path, url: str) -> None:
    path = tmp_path / "url"
    path.write_text(url)
    with pytest.raises(BadConfig) as refused:
        DeadManService(HeartbeatConfig(path), utc_now)
    assert not url or url not in str(refused.value)
    with pytest.raises(BadConfig, match="cannot be read"):
        DeadManService(HeartbeatConfig(tmp_path / "none"), utc_now)


def test_the_forecast_is_the_growth_since_the_database_was_made(place: Place) -> None:
    config, store = (
        load_config(place.served.config),
        Store(place.monitor.store.database, clock=place.clock, route=lambda _: ()),
    )
    assert store.database.path is not None
    early = disk_use(config, store, place.clock.now + timedelta(hours=1))
    assert early is not None
    assert (early.bytes_per_day, early.days_left) == (None, None), "an hour says nothing of a day"
    later = disk_use(config, store, place.clock.now + timedelta(days=10))
    assert later is not None
    beside = [each for each in store.database.path.parent.glob("signwatch.db*") if not each.name.endswith(".lock")]
    assert later.used == sum(each.stat().st_size for each in beside)
    assert later.bytes_per_day == later.used // 10
    assert later.days_left is not None
    assert abs(later.free - shutil.disk_usage(store.database.path.parent).free) < 1 << 30
    assert "room for " in later.line


def test_status_shows_it(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["status", "--json", "--config", str(place.served.config)])
    disk = json.loads(capsys.readouterr().out)["disk"]
    assert disk["used_bytes"] > 0
    assert disk["free_bytes"] > 0
    run_command(["status", "--config", str(place.served.config)])
    assert "disk: the state takes " in capsys.readouterr().out

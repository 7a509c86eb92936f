"""Metrics exist at 0 before anything happens, say what happened, and are all documented."""

import re
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from alerts.alert import Owner
from alerts.outbox import Backlog
from monitor.http_fetcher import Expect, HttpFetcher, NotFound
from monitor.model.errors import FetchFailed
from monitor.telemetry.hooks import Meter
from monitor.telemetry.prometheus import FETCHES, PREFIX, UNREADABLE_CODES, PrometheusMeter
from tests.support.alerts import NOW
from tests.support.misbehaving_log import RekorV2Log
from tests.support.parts import LOG, a_batch, a_finding
from tests.support.served_log import serving

ROOT = Path(__file__).parents[2]


def series(meter: PrometheusMeter) -> dict[str, float]:
    lines = [line for line in meter.expose().decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_every_series_of_a_log_and_a_channel_exists_at_zero() -> None:
    meter = PrometheusMeter("1.2.3", ["mail"])
    meter.add_log(LOG)
    found = series(meter)
    assert found.pop('signwatch_build_info{version="1.2.3"}') == 1
    ours = {name: value for name, value in found.items() if not name.startswith("process_")}
    assert set(ours.values()) == {0.0}
    assert found["process_open_fds"] > 0
    assert 'signwatch_inconsistencies_total{kind="log-forked",log="rekor-v2"}' in found
    assert 'signwatch_deliveries_total{channel="mail",result="given-up"}' in found
    assert 'signwatch_findings_total{outcome="unexpected"}' in found
    assert not [name for name in found if "_created" in name]


def test_prometheus_gets_every_number() -> None:
    numbers = {name for name in dir(Meter) if not name.startswith("_")}
    assert "position" in numbers
    assert numbers <= vars(PrometheusMeter).keys()


def test_what_happens_is_counted_under_its_owner() -> None:
    meter = PrometheusMeter("1", ["mail"])
    meter.add_log(LOG)
    meter.position(LOG, 90, 100, NOW)
    meter.batch(a_batch(0, 4, [a_finding(1)], [3]))
    meter.passed(LOG, NOW, None)
    meter.passed(LOG, NOW, Owner.COULD_NOT_ASK)
    meter.misbehaved(LOG, "log-forked")
    meter.delivered("mail", delivered=2, failed=1, given_up=0)
    meter.outbox({"mail": Backlog(3, NOW - timedelta(minutes=1))}, NOW)
    meter.trust_root(NOW, None)
    found = series(meter)
    wanted = {
        'checkpoint_size{log="rekor-v2"}': 100,
        'verified_size{log="rekor-v2"}': 90,
        'gap_entries{log="rekor-v2"}': 10,
        'entries_processed_total{kind="hashedrekord",log="rekor-v2"}': 4,
        'entries_unreadable_total{code="malformed-json",log="rekor-v2"}': 1,
        'findings_total{outcome="unexpected"}': 1,
        'checkpoint_verifications_total{log="rekor-v2",result="consistent"}': 1,
        'checkpoint_verifications_total{log="rekor-v2",result="could-not-ask"}': 1,
        'inconsistencies_total{kind="log-forked",log="rekor-v2"}': 1,
        'deliveries_total{channel="mail",result="delivered"}': 2,
        'outbox_pending{channel="mail"}': 3,
        'outbox_oldest_age_seconds{channel="mail"}': 60,
        "trust_root_refresh_timestamp_seconds": NOW.timestamp(),
        'last_success_timestamp_seconds{log="rekor-v2"}': NOW.timestamp(),
    }
    assert {name: found[PREFIX + name] for name in wanted} == wanted
    meter.outbox({}, NOW)
    assert series(meter)['signwatch_outbox_pending{channel="mail"}'] == 0


def test_every_way_of_failing_to_fetch_has_its_series() -> None:
    def reasons(kind: type[FetchFailed]) -> set[str]:
        return {kind.reason}.union(*(reasons(each) for each in kind.__subclasses__()))

    assert reasons(FetchFailed) <= set(FETCHES)


def test_every_code_of_unreadable_entries_has_its_series() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "sigstore_entries").glob("*.py")]
    told = re.search(r"Codes: (.*?)\.\n", "".join(sources), re.DOTALL)
    assert told is not None
    assert set(re.findall(r"`([a-z-]+)`", told[1])) <= set(UNREADABLE_CODES)


def test_requests_are_counted_by_how_they_ended() -> None:
    meter, log = PrometheusMeter("1"), RekorV2Log([b"entry"])
    with serving(log) as url:
        fetcher = HttpFetcher(url, report=partial(meter.fetched, LOG))
        with closing(fetcher):
            assert fetcher.get("checkpoint", max_bytes=1_000, expect=Expect.TEXT)
            assert fetcher.get("tile/0/000.p/1", max_bytes=1_000, expect=Expect.BYTES)
            with pytest.raises(NotFound):
                fetcher.get("nothing", max_bytes=1_000, expect=Expect.BYTES)
    found = series(meter)
    assert found['signwatch_fetch_requests_total{log="rekor-v2",result="ok"}'] == 2
    assert found['signwatch_fetch_requests_total{log="rekor-v2",result="not-found"}'] == 1


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    meter = PrometheusMeter("1")
    exist = {metric.name + ("_total" if metric.type == "counter" else "") for metric in meter.registry.collect()}
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `((?:signwatch|process)_[a-z_]+)`", page, re.MULTILINE))
    assert documented == exist

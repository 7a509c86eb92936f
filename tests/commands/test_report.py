"""`signwatch report`: a reader can tell what was watched, what was not, and prove the coverage without us."""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import time_machine
from cryptography.hazmat.primitives.serialization import load_der_public_key
from markdown_it import MarkdownIt

from alerts.alert import Owner, exactly
from monitor.cli import run_command
from monitor.commands.report import as_html, as_markdown
from monitor.store.database import Database
from monitor.store.history import History, Pass, Pause, Span, pauses
from tests.support.alerts import NOW
from tests.support.misbehaving_log import RekorV2Log
from tests.support.parts import LOG, Clock, a_head, a_position, a_store
from tests.support.served_log import ServedLog, served_log, signing_body
from tlog.note import open_note, parse_checkpoint, tile_log_key

START = datetime(2026, 6, 1, tzinfo=UTC)
WORDS = "<script>alert(1)</script> `](javascript:alert(1)) @everyone ![x](http://evil.example/p.png) | \u202e"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedLog]:
    with served_log(tmp_path) as log:
        config = log.config.read_text().replace("poll_seconds: 1}", "poll_seconds: 3600, busy: false}")
        log.config.write_text(config)
        yield log


class Auditor:
    """Audits every hour of a clock that a test moves, and asks for reports."""

    def __init__(self, served: ServedLog, capsys: pytest.CaptureFixture[str], clock: time_machine.Traveller) -> None:
        self.served, self._capsys, self._clock, self.now = served, capsys, clock, START

    def signwatch(self, *words: str) -> tuple[int, str]:
        self._capsys.readouterr()
        code = run_command([*words, "--config", str(self.served.config)])
        return code, self._capsys.readouterr().out

    def hourly(self, count: int, before: Callable[[int], object] = lambda _hour: None) -> list[int]:
        codes = []
        for hour in range(count):
            before(hour)
            codes.append(self.signwatch("audit")[0])
            self.now += timedelta(hours=1)
            self._clock.move_to(self.now)
        return codes

    def report(self, *words: str) -> dict[str, Any]:
        code, out = self.signwatch("report", "--format", "json", *words)
        assert code == 0
        return dict(json.loads(out))


@pytest.fixture
def auditor(served: ServedLog, capsys: pytest.CaptureFixture[str]) -> Iterator[Auditor]:
    with time_machine.travel(START, tick=False) as clock:
        made = Auditor(served, capsys, clock)
        assert made.signwatch("init")[0] == 0
        yield made


def set_down(served: ServedLog, *, down: bool) -> None:
    served.down = down


def test_a_third_party_can_prove_the_coverage_from_the_report_alone(auditor: Auditor) -> None:
    log = auditor.served.log
    auditor.hourly(48, lambda hour: log.append(signing_body()) if hour % 6 == 0 else None)
    [told] = auditor.report()["logs"]
    assert told["entries"] == {"from": 3, "to": 11}
    # What follows uses nothing of the monitor: the key, the notes, and the log's own leaves.
    spki = base64.b64decode(told["key"])
    load_der_public_key(spki)
    key = tile_log_key(RekorV2Log.host, spki)
    assert key.log_id.hex() == told["key_id"]
    sizes = []
    for head in told["heads"]:
        checkpoint = parse_checkpoint(open_note(head["signed"]["text"].encode(), key))
        assert checkpoint.root == bytes.fromhex(head["root"]) == log.oracle().root(checkpoint.size)
        assert head["verified_again"]
        sizes.append(checkpoint.size)
    assert sizes[-1] == told["entries"]["to"] == 11
    assert told["heads_seen"] == 8 + 1
    assert told["heads_left_out"] == told["heads_seen"] - len(sizes)
    assert sizes == sorted(sizes)


def test_hours_not_watched_are_told_with_whose_trouble_it_was(auditor: Auditor) -> None:
    down = lambda hour: set_down(auditor.served, down=10 <= hour < 30)  # noqa: E731
    codes = auditor.hourly(40, down)
    assert codes[10:30] == [3] * 20, "control"
    auditor.now += timedelta(days=2)
    auditor._clock.move_to(auditor.now)
    auditor.hourly(2)
    report = auditor.report("--from", "2026-06-01")
    [told] = report["logs"]
    outage, absence = told["not_watched"][1], told["not_watched"][0]
    assert (outage["trouble"], outage["from"], outage["to"]) == (
        "could-not-ask",
        "2026-06-01T09:00:00Z",
        "2026-06-02T06:00:00Z",
    )
    assert (absence["trouble"], absence["seconds"]) == ("not-running", int(timedelta(hours=49).total_seconds()))
    assert told["seconds_watched"] + told["seconds_not_watched"] == report["hours"] * 3600
    cut = auditor.report("--from", "2026-06-01T12:00:00Z", "--to", "2026-06-01T20:00:00Z")["logs"][0]
    assert (cut["seconds_watched"], cut["not_watched"][0]["trouble"]) == (0, "could-not-ask")
    page = auditor.signwatch("report", "--from", "2026-06-01", "--format", "html")[1]
    assert "the log could not be asked" in page
    assert "21 hours" in page


def test_a_report_between_two_polls_does_not_say_that_the_log_is_not_watched(auditor: Auditor) -> None:
    auditor.hourly(3)
    [told] = auditor.report("--from", "2026-06-01")["logs"]
    assert (told["not_watched"], told["seconds_watched"]) == ([], 3 * 3600)
    auditor.now += timedelta(hours=5)
    auditor._clock.move_to(auditor.now)
    [told] = auditor.report("--from", "2026-06-01")["logs"]
    assert told["not_watched"][0]["trouble"] == "not-running", "control"


def test_what_was_found_told_acknowledged_and_kept_is_in_it(auditor: Auditor, tmp_path: Path) -> None:
    log = auditor.served.log
    log.append(signing_body("refs/heads/evil"), signing_body())
    assert auditor.hourly(1) == [1]
    alert = json.loads(auditor.signwatch("alerts", "list", "--json")[1])["alerts"][0]
    auditor.signwatch("alerts", "ack", alert["id"], "--note", "a colleague, ticket 81")
    log.rewrite_from(1)
    assert auditor.hourly(1) == [1]
    log.honest()
    report = auditor.report()
    assert report["events"] == {"unexpected": 1, "expected": 1}
    found = next(each for each in report["findings"] if each["outcome"] == "unexpected")
    assert found["entries"] == [{"log": "rekor-v2", "index": 3}]
    assert found["reasons"][0]["found"] == "refs/heads/evil"
    told = {each["kind"]: each for each in report["alerts"]}
    assert told["unexpected-signing"]["note"] == "a colleague, ticket 81"
    assert told["unexpected-signing"]["acknowledged_at"] == "2026-06-01T01:00:00Z"
    assert told["log-forked"]["acknowledged_at"] is None
    [piece] = report["evidence"]
    kept = tmp_path / "evidence.json"
    kept.write_text(json.dumps(piece["document"]))
    assert run_command(["evidence", "verify", str(kept), "--trusted-root", str(tmp_path / "trusted_root.json")]) == 0
    for form in ("html", "markdown"):
        text = auditor.signwatch("report", "--format", form)[1]
        assert "a colleague, ticket 81" in text
        assert piece["id"] in text
        assert "refs/heads/evil" in text


def test_a_period_is_cut_to_what_happened_in_it(auditor: Auditor) -> None:
    auditor.served.log.append(signing_body("refs/heads/evil"))
    auditor.hourly(24)
    auditor.served.log.append(signing_body("refs/heads/worse"))
    auditor.hourly(24)
    first = auditor.report("--from", "2026-06-01", "--to", "2026-06-02")
    second = auditor.report("--from", "2026-06-02", "--to", "2026-06-03")
    for report, ref, entries in ((first, "evil", {"from": 3, "to": 4}), (second, "worse", {"from": 4, "to": 5})):
        assert [each["reasons"][0]["found"] for each in report["findings"]] == [f"refs/heads/{ref}"]
        assert len(report["alerts"]) == 1
        assert report["logs"][0]["entries"] == entries
    assert second["logs"][0]["heads"][0]["size"] == 4, "the last head before the period is there to begin from"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--from", "yesterday"], "neither a date"),
        (["--from", "2026-06-02", "--to", "2026-06-01"], "is not before"),
        (["--from", "2027-01-01"], "is not before"),
        (["--format", "pdf"], "pdf"),
    ],
)
def test_a_wrong_period_is_misuse(
    auditor: Auditor, capsys: pytest.CaptureFixture[str], words: list[str], why: str
) -> None:
    assert auditor.signwatch("report")[0] == 0, "control"
    assert run_command(["report", *words, "--config", str(auditor.served.config)]) == 2
    assert why in capsys.readouterr().err


def test_the_format_follows_the_files_name(auditor: Auditor, tmp_path: Path) -> None:
    for name, begins in (("a.html", "<!doctype html>"), ("a.md", "# Report"), ("a.json", "{"), ("a.txt", "# Report")):
        assert auditor.signwatch("report", "--output", str(tmp_path / name))[0] == 0
        assert (tmp_path / name).read_text().startswith(begins)
    assert auditor.signwatch("report", "--output", str(tmp_path / "absent" / "a.html"))[0] == 3


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def hostile(value: Any) -> Any:
    """The document with words of an attacker in every text that may hold some."""
    match value:
        case dict():
            return {key: hostile(each) if key not in _OURS else each for key, each in value.items()}
        case list():
            return [hostile(each) for each in value]
        case str():
            return WORDS
        case _:
            return value


_OURS = {"from", "to", "at", "made_at", "seen_at", "found_at", "kept_at", "closed_at", "acknowledged_at", "heads"}
_OURS |= {"outcome", "state", "trouble", "severity", "sha256", "key", "key_id", "made_by"}


def test_words_from_logs_are_inert_in_both_forms(auditor: Auditor) -> None:
    auditor.served.log.append(signing_body("refs/heads/evil"))
    auditor.hourly(1)
    auditor.served.log.rewrite_from(1)
    auditor.hourly(1)
    document = hostile(auditor.report())
    tags = _Tags()
    html = as_html(document)
    tags.feed(html)
    assert {tag for tag, _ in tags.found}.isdisjoint({"script", "img", "a", "iframe", "link", "form"})
    assert "&lt;script&gt;" in html, "control: the words are shown"
    assert "\u202e" not in html
    assert "default-src 'none'" in html
    markdown = as_markdown(document)
    assert "\u202e" not in markdown
    rendered = _Tags()
    rendered.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))
    assert {tag for tag, _ in rendered.found}.isdisjoint({"script", "img", "a", "iframe"})
    assert "alert(1)" in markdown, "control: the words are shown"


def test_the_audit_carries_signed_heads_whole(auditor: Auditor) -> None:
    auditor.served.log.append(signing_body())
    head = json.loads(auditor.signwatch("audit", "--json")[1])["logs"][0]["head"]
    key = auditor.report()["logs"][0]["key"]
    note = open_note(head["signed"]["text"].encode(), tile_log_key(RekorV2Log.host, base64.b64decode(key)))
    assert parse_checkpoint(note).size == head["size"] == 4


def test_spans_join_while_passes_succeed_and_end_when_they_do_not(database: Database) -> None:
    store, clock, history = a_store(database), Clock(), History(database)
    store.record_head(a_position(3).head.head)
    store.baseline(a_position(3), "index 3")
    limit = timedelta(minutes=5)

    def passed(lag: int = 0) -> None:
        store.health.went_well(LOG, clock.now, None, progress=Pass(7, lag, limit))

    for _ in range(3):
        passed(lag=2)
        clock.advance(minutes=5)
    store.health.went_wrong(LOG, clock.now, Owner.OURSELVES, "own-fault", "disk full")
    store.health.went_wrong(LOG, clock.now, Owner.COULD_NOT_ASK, "timeout", "too slow")
    clock.advance(minutes=1)
    passed()
    began = clock.now
    end = NOW + timedelta(hours=1)
    spans = history.spans(LOG, NOW, end, end, limit)
    assert spans == [Span(NOW, NOW + timedelta(minutes=10), Owner.OURSELVES), Span(began, began)]
    assert list(pauses(spans, NOW, end, None)) == [
        Pause(NOW + timedelta(minutes=10), began, Owner.OURSELVES),
        Pause(began, end),
    ]
    assert history.spans(LOG, NOW + timedelta(minutes=5), began, end, limit)[0].began == NOW + timedelta(minutes=5)
    assert history.trouble_before(LOG, began) is Owner.OURSELVES
    [day] = history.days(LOG, NOW.date(), NOW.date())
    assert (day.passes, day.failures, day.lag, day.first, day.last) == (4, 2, 2, 3, 7)


def test_the_time_since_the_newest_pass_is_a_pause_only_when_no_pass_succeeds_in_time(database: Database) -> None:
    store, clock, history = a_store(database), Clock(), History(database)
    limit = timedelta(minutes=5)
    store.baseline(a_position(3), "index 3")
    store.health.went_well(LOG, clock.now, None, progress=Pass(3, 0, limit))
    store.health.went_wrong(LOG, clock.now, Owner.COULD_NOT_ASK, "timeout", "too slow")
    for seconds, missed in ((0, 0), (30, 0), (300, 0), (301, 1), (3600, 1)):
        now = NOW + timedelta(seconds=seconds)
        found = list(pauses(history.spans(LOG, NOW, now, now, limit), NOW, now, None))
        assert len(found) == missed, seconds
    day = NOW + timedelta(seconds=60)
    spans = history.spans(LOG, NOW, day, NOW + timedelta(hours=1), limit)
    assert list(pauses(spans, NOW, day, None)) == [Pause(NOW, day, Owner.COULD_NOT_ASK)], "a period that is over"


def test_heads_of_one_size_are_all_in_a_report(database: Database) -> None:
    """Two heads of one size are what a fork looks like: no choice of heads may leave one out."""
    clock = Clock()
    store, history = a_store(database, clock=clock), History(database)
    for size in range(1, 40):
        store.record_head(a_head(size))
        clock.advance(minutes=10)
    store.record_head(a_head(20, b"x" * 32))
    for size in range(40, 60):
        clock.advance(minutes=10)
        store.record_head(a_head(size))
    count, heads = history.heads_between(LOG, NOW + timedelta(minutes=5), clock.now)
    assert count == 1 + 38 + 19
    assert b"x" * 32 in [head.root for head in heads]
    assert heads[0].size == 1, "the last before"
    assert heads[1].size == 2, "the first within"
    assert len(heads) < 10


def test_lengths_are_told_in_one_way() -> None:
    assert [exactly(timedelta(seconds=each)) for each in (0, 1, 59, 60, 3600, 7200, 90061)] == [
        "0 seconds",
        "1 second",
        "59 seconds",
        "1 minute",
        "60 minutes",
        "2 hours",
        "25.02 hours",
    ]


def test_a_period_between_two_polls_is_watched(database: Database) -> None:
    """A log may be asked once an hour, and a report may be of half an hour."""
    store, clock, history = a_store(database), Clock(), History(database)
    limit = timedelta(hours=5)
    store.baseline(a_position(3), "index 3")
    store.health.went_well(LOG, clock.now, None, progress=Pass(3, 0, limit))
    begin, end = NOW + timedelta(minutes=20), NOW + timedelta(minutes=50)
    assert history.spans(LOG, begin, end, end, limit) == [Span(begin, end)]
    late = NOW + timedelta(hours=6)
    assert history.spans(LOG, begin, late, late, limit) == [], "control: passes stopped"

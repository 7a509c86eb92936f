"""A number agrees with its noun, and every time has one form: in the sources, and in what is printed and shown."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from alerts.alert import Alert, Owner
from alerts.channels.pagerduty import event
from alerts.channels.slack import blocks
from alerts.digest import digest_alert
from alerts.rendering import Renderer, html_page, text_page
from monitor.cli import run_command
from monitor.model.state import LeftOut
from monitor.raising import entry_alerts, log_alerts, trust_alerts
from monitor.raising.signing_alerts import alerts_of_findings, canary_missed_alert, canary_not_signed_alert
from rules.rule import Outcome
from tests.daemon.test_console import found as one_attack
from tests.daemon.test_console import pages_of
from tests.daemon.test_web import Place
from tests.docs.blocks import ROOT
from tests.docs.one_form import (
    clocks_by_hand,
    counts_by_hand,
    counts_in_template,
    other_times,
    python_files,
    wrong_numbers,
)
from tests.raising.test_alerts_made import NOW, RULES, finding
from tests.support.alerts import an_alert
from tests.support.parts import LOG, a_head, some_evidence
from tests.support.served_log import ServedLog, served_log, signing_body

# Numbers that are never 1 where these stand, and why.
_NEVER_ONE = {
    "{first.size} leaves",  # a proof of growth
    "{size} leaves",
    "{at} entries",  # a checkpoint of the search index, at powers of two
    "{step.size} entries",
    "{unlike} signings",  # the case of one stands beside it
    "{which} signings",
    "{count} new entries",
    "{len(logs)} logs",
    "{len(found)} times",  # of more than one
    "{len(found)} keys",
    "{len(found)} pieces",
    "{len(more) + 1} entries",
    "{len(offers)} checkpoints",  # beyond the most that are looked at
    "{len(entries)} log entries",
    "{count} alerts",  # what the demonstration expects
    "{config} exists",
    "{len(rows)} rows",
    "{round(hours, 2)} hours",  # from two hours on
    "{len(self.names)} witnesses",  # a policy that wants more than it names
    "{len(text)} characters",
    "{job['max_output']} characters",
    "{len(text) - position} characters",  # what is cut leaves room for this note
    "{len(value) - _JSON_TEXT} characters",
    "{len(value) - _JSON_ITEMS} items",
    "{len(text) - limit} characters",
    "{_MAX_PAGES * _PAGE} issues",
    "{LONGEST.days} days",
    "{len(patterns)} patterns",  # more than a subscription may have
}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("1 entry, 2 entries, 1 more alert, 11 days, 1.1 hours, 21 logs", []),
        ("1 entries", ["1 entries"]),
        ("and 1 more events", ["1 more events"]),
        ("2 entry", ["2 entry"]),
        ("1,000 alert", ["1,000 alert"]),
        ("entry 1 is read, version 1 has none", []),
        ("rule 1 log", []),
    ],
)
def test_a_number_that_does_not_agree_is_noticed(text: str, wrong: list[str]) -> None:
    assert wrong_numbers(text) == wrong


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("at 2026-03-01T12:00:00Z, for 5 minutes.", []),
        ("2026-03-01 12:00:00 UTC", ["2026-03-01 12:00:00 UTC"]),
        ("2026-03-01T12:00:00+00:00", ["2026-03-01T12:00:00+00:00"]),
        ("2026-03-01T12:00:00.123Z", ["2026-03-01T12:00:00.123Z"]),
        ("5 s ago, 3 min", ["5 s", "3 min"]),
        ("the 5 signers", []),
    ],
)
def test_another_form_of_time_is_noticed(text: str, wrong: list[str]) -> None:
    assert other_times(text) == wrong


def test_no_source_puts_a_number_before_a_plural_by_hand() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {told}"
        for path in python_files(ROOT, "alerts", "monitor", "rules")
        for line, told in counts_by_hand(path.read_text(encoding="utf-8"))
        if told not in _NEVER_ONE
    ]
    templates = [*(ROOT / "alerts").rglob("*.j2"), *(ROOT / "monitor").rglob("*.j2")]
    found += [
        f"{path.relative_to(ROOT)}:{line}: {told}"
        for path in templates
        for line, told in counts_in_template(path.read_text(encoding="utf-8"))
        if "days }} days" not in told and "bytes" not in told and "looked.total" not in told and "deepest" not in told
    ]
    assert found == []


def test_no_source_writes_a_time_in_another_form() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {told}"
        for path in python_files(ROOT, "alerts", "monitor", "rules", "sigstore_entries", "sign_lite")
        if path != ROOT / "monitor" / "site" / "rendering.py"  # people who subscribe read a date in words
        for line, told in clocks_by_hand(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def alerts_of_one() -> Iterator[Alert]:
    """Alerts of every maker that counts or tells a time, with one of everything."""
    minute = NOW - timedelta(minutes=1)
    yield log_alerts.alert_of_evidence(some_evidence(), NOW)
    yield log_alerts.key_expired_alert(LOG, minute, a_head(1), NOW)
    yield log_alerts.stale_head_alert(LOG, a_head(1), minute, NOW)
    yield log_alerts.rewound_head_alert(a_head(2), a_head(1), minute, NOW)
    yield log_alerts.could_not_ask_alert(LOG, "timeout", "no answer", minute, NOW)
    yield log_alerts.own_fault_alert("disk", "full", minute, NOW)
    yield log_alerts.new_shard_alert(LOG, "origin", "by the trust root", NOW)
    yield log_alerts.trees_left_out_alert(LOG, 1, NOW)
    yield log_alerts.back_scan_stuck_alert(LOG, "no answer", 1, minute, NOW)
    yield trust_alerts.log_final_alert(LOG, 1, minute, NOW)
    yield trust_alerts.disagreement_alert("https://log.example", "it differs", "ab" * 32, NOW)
    yield from entry_alerts.alerts_of_dropped(LOG, [LeftOut(1, 1, "no kind"), LeftOut(2, 1, "no kind")], NOW)
    yield canary_missed_alert(LOG, 1, Owner.OURSELVES, "no alert", NOW)
    yield canary_not_signed_alert(LOG, 1, Owner.COULD_NOT_ASK, "no answer", NOW)
    for outcome in (Outcome.UNEXPECTED, Outcome.UNVERIFIED):
        yield from alerts_of_findings([finding(1, outcome)], RULES, NOW)
    yield digest_alert("digest-1", [an_alert(1)])


@pytest.mark.parametrize("alert", list(alerts_of_one()), ids=lambda alert: alert.kind)
def test_an_alert_of_one_agrees_in_every_form(alert: Alert) -> None:
    many = replace(alert, reasons=tuple(f"reason {number}" for number in range(26)))
    for each in (alert, many):
        page = Renderer().page(each, "key")
        slack = json.dumps(blocks(page))
        pager = json.dumps(event(each, "key", "routing", Renderer()), ensure_ascii=False)
        for text in (text_page(page), _visible(html_page(page)), slack, pager):
            assert wrong_numbers(text) == []
            assert other_times(text) == []


def test_every_page_of_one_attack_agrees(tmp_path: Path) -> None:
    place = Place(tmp_path)
    try:
        one_attack(place)
        place.store.keep_evidence(some_evidence(), [])
        place.clock.advance(minutes=1)
        place.store.health.went_wrong(LOG, place.clock.now, Owner.COULD_NOT_ASK, "timeout", "no answer")
        pages = pages_of(place)
    finally:
        place.client.close()
        place.server.stop()
        place.store.close()
    shown = {path: _visible(text) for path, text in pages.items() if not path.endswith(".json") and path != "/metrics"}
    assert len(shown) > 12
    assert {path: wrong for path, text in shown.items() if (wrong := wrong_numbers(text) + other_times(text))} == {}


def _visible(html: str) -> str:
    """Text of a page, each element apart from the next; explanations are documentation, not counts."""
    body = re.sub(r"<(style|script|code|pre)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"<[^>]+>", " ", body)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedLog]:
    """One log with one unexpected signing, one alert of it, one silence, one authorisation."""
    with served_log(tmp_path_factory.mktemp("one")) as served:
        config = ["--config", str(served.config)]
        assert run_command(["init", *config]) == 0
        served.log.append(signing_body("refs/heads/evil"))
        assert run_command(["run", "--once", *config]) == 1
        lasts = ["--for", "1h", "--note", "planned"]
        assert run_command(["alerts", "silence", "--rule", "widget", *lasts, *config]) == 0
        yield served


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["audit"],
        ["run", "--once"],
        ["alerts", "list"],
        ["alerts", "show", "ID"],
        ["alerts", "silences"],
        ["alerts", "patterns"],
        ["evidence", "list"],
        ["canary", "list"],
        ["authorise", "add", "widget", "sha256:" + "ab" * 32],
        ["authorise", "list"],
        ["report", "--format", "markdown"],
        ["report", "--format", "html"],
        ["rules", "lint", "FOLDER/rules.yaml"],
        ["fsck"],
        ["doctor"],
        ["config", "check"],
        ["scan", "--log", "rekor-v2", "--from", "3", "--jobs", "1"],
        ["backscan", "--jobs", "1"],
        ["backup", "FOLDER/backup.tar"],
        ["subscribers", "list"],
        ["subscribers", "stats"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_command_about_one_of_everything_agrees(
    words: list[str], followed: ServedLog, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    run_command(["alerts", "list", "--json", "--config", str(followed.config)])
    (alert,) = json.loads(capsys.readouterr().out)["alerts"]
    told = [word.replace("FOLDER", str(followed.folder)).replace("ID", alert["id"]) for word in words]
    code = run_command([*told, *([] if words[:2] == ["rules", "lint"] else ["--config", str(followed.config)])])
    said = capsys.readouterr()
    assert code != 2, said.err
    text = _visible(said.out) if "html" in words else said.out + said.err
    assert wrong_numbers(text) == []
    assert other_times(text) == []

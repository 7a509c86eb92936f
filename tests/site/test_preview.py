"""The preview judges the entries it shows as the index will, and names what it could not compare."""

import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from monitor.commands.site import site_alone
from monitor.config import WebConfig, load_config
from monitor.daemon import entry_reader
from monitor.daemon.web_server import SITE_LIMITS, WebServer
from monitor.following.scan_batch import RuleScanner
from monitor.http_fetcher import NotFound
from monitor.judging.judge import RuleJudge
from monitor.model.log_source import LogApi, LogEntry
from monitor.site.app import create_site
from monitor.site.drafting import verdict_style
from monitor.site.lookup import NOT_ARCHIVED
from monitor.store.signings import ArchivedEntry
from rules.asking import read_ask, rule_of
from rules.expectations.kinds import BY_KEY
from rules.learning import LEARNED
from rules.matching.matcher import Matcher
from sigstore_entries.signing import EntryRef, Signing
from tests.archive.conftest import small_ranges
from tests.site.followed import Followed, followed
from tests.site.scene import Visitor, shown
from tests.support.entries import (
    CA_NOT_AFTER,
    PLACEHOLDER_SIGNATURE,
    github_claims,
    hashedrekord_v2,
    make_ca,
    make_certificate,
)
from tests.support.served_log import CA, ISSUER
from tests.support.waiting import PATIENCE, wait_until
from tlog.merkle import leaf_hash

__all__ = ["small_ranges"]
GADGET = "https://github.com/acme/gadget"
LOG = "rekor-v2"
PROTECTED = """\
select: {source_repository_uri: {exact: "https://github.com/acme/gadget", ignore_case: "true"}}
expect: {ref: {glob: "refs/tags/v*"}, visibility: public}
"""


def gadget(number: int, ref: str = "", visibility: str = "public", signature: bytes | None = None) -> bytes:
    """An entry of a repository that no rule of the file selects."""
    ref = ref or f"refs/tags/v1.{number}.0"
    claims = github_claims("acme/gadget", ref=ref) | {"source_repository_visibility": visibility}
    certificate = make_certificate(
        CA, san=claims["build_config_uri"], issuer=ISSUER, claims=claims, not_after=CA_NOT_AFTER, serial=number + 1
    )
    return hashedrekord_v2(certificate, f"{number:064x}", signature=signature)


# Index 6 differs in an archived claim, 7 in one that is not archived, 8 in its signature alone.
ENTRIES = [
    *map(gadget, range(3)),
    gadget(3, "refs/heads/evil"),
    gadget(4, visibility="private"),
    gadget(5, signature=PLACEHOLDER_SIGNATURE),
]


@dataclass
class Questions:
    """Paths that the log was asked for, in order. `gate` holds answers while it is not set."""

    asked: list[str]
    gate: threading.Event

    def entries(self) -> list[str]:
        return [path for path in self.asked if "/entries/" in path]


@pytest.fixture
def live(tmp_path: Path, small_ranges: None) -> Iterator[Followed]:
    """An archive of entries that no rule ever asked for."""
    with followed(tmp_path, archive=True) as made:
        made.served.log.append(*ENTRIES)
        made.follow()
        made.archive()
        yield made


@pytest.fixture
def questions(live: Followed, monkeypatch: pytest.MonkeyPatch) -> Questions:
    """The questions that reach the served log from now on."""
    made, get = Questions([], threading.Event()), live.served.log.get
    made.gate.set()

    def heard(path: str, **options: Any) -> bytes:
        made.asked.append(path)
        assert made.gate.wait(PATIENCE)
        return get(path, **options)

    monkeypatch.setattr(live.served.log, "get", heard)
    return made


def reader_of(live: Followed) -> entry_reader.EntryReader:
    """The reader of the served site."""
    reader = live.site.read_entries
    assert isinstance(reader, entry_reader.EntryReader)
    return reader


def previewed(visitor: Visitor, **form: str) -> list[tuple[str, str]]:
    """Outcome and text of each row of a preview, as the page shows them before anything is ticked."""
    page = visitor.get(f"/subscribe?name={GADGET}")
    if form:
        fields = {"csrf": visitor.csrf(), "name": GADGET, "ticked": "1", "shown": "-", "do": "check", **form}
        page = visitor.http.post("/subscribe", data=fields, headers={"origin": visitor.url})
        assert page.status_code == 200, page.text
    used = set(re.findall(r'name="use" value="(\w+)" checked', page.text))
    return [(_outcome(row, used), row) for row in _rows(page.text)]


def test_each_key_of_expect_has_its_place_on_the_page() -> None:
    style, ticked = verdict_style(), re.compile(r"#use-(\w+):checked\) \.fails-\1 ")
    without_box = {"digests_from", "log_entry_within", "certificate_log_within"}
    assert set(ticked.findall(style)) == set(BY_KEY) - without_box
    assert set(LEARNED) <= set(BY_KEY) - NOT_ARCHIVED, "an archived row shows each learned key"
    assert without_box <= NOT_ARCHIVED
    assert style.count("same_repository_identifier") == 4, "hides one verdict and shows the other"


def _rows(page: str) -> list[str]:
    preview = page.partition('id="preview"')[2].partition("</section>")[0]
    return re.findall(r"<li.*?</li>", preview, re.DOTALL)


def _outcome(row: str, used: set[str]) -> str:
    """What the style sheet leaves visible."""
    if "counted only" in row or "not selected" in row:
        return "unverified" if "counted only" in row else "not-selected"
    marks = set(re.findall(r"<li class=\"([^\"]*)\"", row)[0].split())
    if "always" in marks or {f"fails-{key}" for key in used} & marks:
        return "unexpected"
    return "not-compared" if "not compared" in row else "expected"


def by_ref(rows: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Outcome by the tag or branch that a row names."""
    return {re.findall(r"refs/[\w/.-]+", row)[0]: outcome for outcome, row in rows}


def as_the_index(live: Followed, text: str, entries: Sequence[bytes] = ENTRIES) -> dict[str, str]:
    """Verdicts of following and back-scans on the same entries."""
    rule = rule_of(1, read_ask(text).document)
    matcher, store = Matcher((rule,)), live.monitor.store
    hits = RuleScanner(matcher).scan([LogEntry(each) for each in entries], 3, LOG, LogApi.REKOR_V2).hits
    found = RuleJudge(matcher, store.facts, live.monitor.trust.authorities).judge(hits, live.clock())
    return {
        next(signer.claims["source_repository_ref"] for signer in each.selected.signing.signers): each.verdict.outcome
        for each in found
    }


WHOLE = {
    "refs/tags/v1.0.0": "expected",
    "refs/tags/v1.1.0": "expected",
    "refs/tags/v1.2.0": "expected",
    "refs/heads/evil": "unexpected",
    "refs/tags/v1.4.0": "unexpected",
    "refs/tags/v1.5.0": "unverified",
}


def test_entries_shown_are_read_and_judged_as_the_index_does(live: Followed, questions: Questions) -> None:
    judged = as_the_index(live, PROTECTED)
    assert judged == WHOLE
    assert by_ref(previewed(live.visitor(), rule=PROTECTED)) == judged
    document = live.visitor().get(f"/look.json?name={GADGET}").json()
    assert {each["outcome"] for each in document["signings"] if each["index"] in {7, 8}} != {"unverified"}, (
        "the archive's columns alone do not tell"
    )
    assert questions.entries(), "the log was asked"


def test_entries_are_read_once(live: Followed, questions: Questions) -> None:
    visitor = live.visitor()
    first = previewed(visitor)
    asked = len(questions.asked)
    assert 0 < len(questions.entries()) <= 8
    for _ in range(3):
        assert previewed(live.visitor()) == first
    assert len(questions.asked) == asked


def test_a_finding_spares_the_question(live: Followed, questions: Questions) -> None:
    visitor = live.visitor()
    page = visitor.get("/subscribe?name=https://github.com/acme/widget")
    assert "Verdicts on earlier signings" in page.text
    assert "not compared" not in page.text
    assert questions.asked == []


def unread(live: Followed, **form: str) -> tuple[dict[str, str], str]:
    """Verdicts and the text of a page whose entries are not read."""
    rows = previewed(live.visitor(), **form)
    return by_ref(rows), " ".join(row for _, row in rows)


NOT_READ = {
    "refs/tags/v1.0.0": "not-compared",
    "refs/tags/v1.1.0": "not-compared",
    "refs/tags/v1.2.0": "not-compared",
    "refs/heads/evil": "unexpected",
    "refs/tags/v1.4.0": "not-compared",
    "refs/tags/v1.5.0": "not-compared",
}


def test_a_log_that_is_down_makes_nothing_green(live: Followed) -> None:
    live.served.down = True
    verdicts, text = unread(live, rule=PROTECTED)
    assert verdicts == NOT_READ
    assert "Not compared: signature, visibility" in text
    page = shown(live.visitor().get(f"/subscribe?name={GADGET}"))
    assert "of these were compared only in what the archive keeps of it: the log could not be asked." in page


def test_a_log_that_failed_is_left_alone_for_a_while(live: Followed, questions: Questions) -> None:
    live.served.down = True
    refused: list[int] = []
    refusal = live.served.refusal

    def counted() -> int | None:
        refused.append(1)
        return refusal()

    live.served.refusal = counted  # type: ignore[method-assign]
    unread(live)
    before = len(refused)
    assert before > 0
    for _ in range(5):
        unread(live)
    assert len(refused) == before


def test_a_slow_log_does_not_hold_the_page(
    live: Followed, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do later pages wait for it; what comes in the meantime is shown by the next page."""
    reader = reader_of(live)
    monkeypatch.setattr(reader, "_patience", 0.2)
    questions.gate.clear()
    verdicts, text = unread(live, rule=PROTECTED)
    assert verdicts == NOT_READ
    assert "not compared" in text
    wait_until("the question that is held", lambda: bool(questions.asked))
    asked = len(questions.asked)
    monkeypatch.setattr(reader, "_patience", 3600.0)
    assert unread(live, rule=PROTECTED)[0] == NOT_READ, "this page waited for a log that one had given up"
    assert len(questions.asked) == asked
    questions.gate.set()
    line = reader._lines[LOG]
    for future in list(line.waiting.values()):
        future.result(PATIENCE)
    assert by_ref(previewed(live.visitor(), rule=PROTECTED)) == WHOLE


def test_one_slow_log_holds_up_no_entry_of_another(live: Followed, questions: Questions) -> None:
    """Each log has a thread of its own."""
    reader = entry_reader.entry_reader(live.monitor, patience=PATIENCE)
    questions.gate.clear()
    slow = ArchivedEntry(EntryRef(LOG, 3), leaf_hash(ENTRIES[0]).hex())
    waits = threading.Thread(target=lambda: reader([slow], "203.0.113.7", lambda: True), daemon=True)
    waits.start()
    try:
        other = ArchivedEntry(EntryRef("another-log", 3), "00" * 32)
        assert reader([other], "203.0.113.7", lambda: True) == {other.where: entry_reader.NOT_FOLLOWED}
        assert waits.is_alive()
    finally:
        questions.gate.set()
        waits.join(PATIENCE)


def test_only_so_many_pages_wait_at_once(live: Followed, questions: Questions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_reader, "_PAGES", 1)
    reader = entry_reader.entry_reader(live.monitor, patience=PATIENCE)
    wanted = ArchivedEntry(EntryRef(LOG, 3), leaf_hash(ENTRIES[0]).hex())
    questions.gate.clear()
    answers: list[Any] = []
    waits = threading.Thread(target=lambda: answers.append(reader([wanted], "203.0.113.7", lambda: True)), daemon=True)
    waits.start()
    while not questions.asked:
        time.sleep(0.01)
        assert waits.is_alive()
    assert reader([wanted], "203.0.113.7", lambda: True) == {wanted.where: entry_reader.BUSY}
    questions.gate.set()
    waits.join(PATIENCE)
    assert isinstance(answers[0][wanted.where], Signing)


def test_only_so_many_entries_of_a_log_wait(
    live: Followed, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry_reader, "_QUEUED", 2)
    reader = entry_reader.entry_reader(live.monitor, patience=0.05)
    questions.gate.clear()
    wanted = [ArchivedEntry(EntryRef(LOG, index), leaf_hash(ENTRIES[index - 3]).hex()) for index in range(3, 9)]
    told = reader(wanted, "203.0.113.7", lambda: True)
    questions.gate.set()
    assert [told[each.where] for each in wanted] == [entry_reader.SLOW] * 2 + [entry_reader.BUSY] * 4


def test_one_client_leaves_places_to_the_others(
    live: Followed, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both among the entries that wait for a log and among the pages that wait."""
    monkeypatch.setattr(entry_reader, "_QUEUED", 4)
    monkeypatch.setattr(entry_reader, "_QUEUED_EACH", 2)
    monkeypatch.setattr(entry_reader, "_PAGES", 2)
    monkeypatch.setattr(entry_reader, "_PAGES_EACH", 1)
    reader = entry_reader.entry_reader(live.monitor, patience=PATIENCE)
    questions.gate.clear()
    wanted = [wanted_at(index) for index in range(3, 7)]
    answers: dict[str, Any] = {}

    def look(client: str, entries: Sequence[ArchivedEntry]) -> None:
        answers[client] = list(reader(entries, client, lambda: True).values())

    hog = threading.Thread(target=look, args=("hog", wanted), daemon=True)
    other = threading.Thread(target=look, args=("other", wanted[2:]), daemon=True)
    hog.start()
    wait_until("one client's page waits", lambda: reader._pages == ["hog"])
    assert reader(wanted[:1], "hog", lambda: True) == {wanted[0].where: entry_reader.AT_ONCE}
    other.start()
    wait_until("another client's page waits too", lambda: reader._pages == ["hog", "other"])
    questions.gate.set()
    for thread in (hog, other):
        thread.join(PATIENCE)
    assert answers["hog"].count(entry_reader.AT_ONCE) == 2
    assert [isinstance(each, Signing) for each in answers["other"]] == [True, True]
    assert not reader._lines[LOG].clients


def test_a_client_has_only_so_many_entries_read(live: Followed, questions: Questions) -> None:
    """The page is shown all the same, and says what was not compared."""
    site = live.site
    limits = replace(site.config.limits, entries_per_minute=2)
    site.limits._entry = type(site.limits._entry)(limits.entries_per_minute)
    verdicts, _ = unread(live, rule=PROTECTED)
    assert sorted(verdicts.values()).count("not-compared") >= 3
    assert len(questions.entries()) == 2
    page = shown(live.visitor().get(f"/subscribe?name={GADGET}"))
    assert "you had many entries read in the last minute" in page
    assert len(questions.entries()) == 2


def test_an_entry_that_is_not_the_one_that_was_proven_is_not_believed(live: Followed) -> None:
    """The log now serves a release in the place of the signing from a branch."""
    live.served.log.served[6] = gadget(3)
    verdicts, _ = unread(live, rule=PROTECTED)
    assert verdicts["refs/heads/evil"] == "unexpected"
    page = shown(live.visitor().get(f"/subscribe?name={GADGET}"))
    assert "the log serves another entry there now than the one that it signed" in page


def wanted_at(index: int, name: str = LOG) -> ArchivedEntry:
    return ArchivedEntry(EntryRef(name, index), leaf_hash(ENTRIES[index - 3]).hex())


def test_an_entry_that_its_log_does_not_serve_keeps_no_other_entry_from_a_page(
    live: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A visitor could ask for it again and again, and so stop every other preview of the log."""
    reader = entry_reader.entry_reader(live.monitor, patience=PATIENCE)
    retired = wanted_at(3, f"{LOG}/retired")
    assert reader([retired], "203.0.113.7", lambda: True) == {retired.where: entry_reader.NOT_SERVED}
    get, missing = live.served.log.get, [True]

    def lacking(path: str, **options: Any) -> bytes:
        if "/entries/" in path and missing:
            raise NotFound(path, 404)
        return get(path, **options)

    monkeypatch.setattr(live.served.log, "get", lacking)
    first, second = wanted_at(3), wanted_at(4)
    assert reader([first], "203.0.113.7", lambda: True) == {first.where: entry_reader.NOT_SERVED}
    missing.clear()
    assert isinstance(reader([second], "203.0.113.7", lambda: True)[second.where], Signing)
    assert reader([first], "203.0.113.7", lambda: True) == {first.where: entry_reader.NOT_SERVED}, "asked once a minute"


def test_a_defect_that_an_entry_brings_to_light_breaks_neither_the_page_nor_the_thread(live: Followed) -> None:
    monitor, faults = live.monitor, [RecursionError("deep")]

    def authorities() -> Any:
        if faults:
            raise faults.pop()
        return monitor.services.trust.authorities()

    trees = monitor.make.trees(monitor.logs[0])
    reader = entry_reader.EntryReader(lambda _: trees, monitor.store, authorities, live.clock, patience=PATIENCE)
    first, second = wanted_at(3), wanted_at(4)
    assert reader([first], "203.0.113.7", lambda: True) == {first.where: entry_reader.UNDECODED}
    assert isinstance(reader([second], "203.0.113.7", lambda: True)[second.where], Signing)
    reader.close()


def test_answers_that_are_kept_stay_within_their_bytes(
    live: Followed, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries of certificates with thousands of names take a megabyte each once they are decoded."""
    monkeypatch.setattr(entry_reader, "_KEPT_BYTES", len(ENTRIES[0]) + len(ENTRIES[1]) + 100)
    reader = entry_reader.entry_reader(live.monitor, patience=PATIENCE)
    wanted = [wanted_at(index) for index in range(3, 7)]
    assert all(isinstance(answer, Signing) for answer in reader(wanted, "203.0.113.7", lambda: True).values())
    told = reader(wanted, "203.0.113.7", lambda: False)
    assert [told[each.where] == entry_reader.OFTEN for each in wanted] == [True, True, False, False]


def test_the_daemon_ends_while_a_log_is_slow(live: Followed, questions: Questions) -> None:
    """Of what a page asked for, the entry that is being read is not waited for, and the next one is not begun."""
    reader = entry_reader.entry_reader(live.monitor, patience=0.05)
    questions.gate.clear()
    first, second = wanted_at(3), wanted_at(4)
    reader([first, second], "203.0.113.7", lambda: True)
    waiting = dict(reader._lines[LOG].waiting)
    wait_until("the log is asked", lambda: bool(questions.asked))
    closing = threading.Thread(target=reader.close, daemon=True)
    closing.start()
    closing.join(20)
    has_ended = not closing.is_alive()
    questions.gate.set()
    assert has_ended
    assert isinstance(waiting[first].result(60), Signing)
    assert waiting[second].cancelled()
    assert reader([second], "203.0.113.7", lambda: True) == {second.where: entry_reader.NOT_FOLLOWED}
    assert len(questions.entries()) == 1


def test_a_large_entry_is_not_read_for_a_page(live: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_reader, "_LARGEST", 100)
    verdicts, _ = unread(live, rule=PROTECTED)
    assert verdicts == NOT_READ


_HEARD: list[Any] = []
_WATCHING = threading.Event()


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in {"socket.connect", "socket.getaddrinfo"} and _WATCHING.is_set():
        _HEARD.append(arguments[1] if event == "socket.connect" else arguments[:2])


def test_no_host_but_the_log_is_asked(live: Followed, questions: Questions) -> None:
    """The entries name hosts of all kinds."""
    visitor, ports = live.visitor(), {int(url.rpartition(":")[2]) for url in (live.served.url, live.url)}
    sys.addaudithook(_watch)
    _HEARD.clear()
    _WATCHING.set()
    try:
        assert by_ref(previewed(visitor, rule=PROTECTED)) == WHOLE
    finally:
        _WATCHING.clear()
    assert {where[0] for where in _HEARD} == {"127.0.0.1"}
    assert {where[1] for where in _HEARD} <= ports
    assert questions.entries()


def test_a_site_that_asks_no_log_says_so_and_shows_no_green(live: Followed, questions: Questions) -> None:
    """`signwatch site`, the site without the daemon."""
    settings = load_config(live.served.config)
    alone = site_alone(settings, live.monitor.store.database)
    config = replace(alone.config, public_url=live.url)
    live.server.stop()
    port = int(live.url.rpartition(":")[2])
    server = WebServer(create_site(replace(alone, config=config)), WebConfig(("127.0.0.1", port)), SITE_LIMITS, "site")
    server.start()
    try:
        verdicts, text = unread(live, rule=PROTECTED)
        assert verdicts == NOT_READ
        assert "Not compared: signature, visibility" in text
        page = shown(live.visitor().get(f"/subscribe?name={GADGET}"))
        assert "this site asks no log" in page
        assert questions.asked == []
    finally:
        server.stop()


def test_a_rule_by_hand_is_judged_by_its_own_selection(live: Followed) -> None:
    rule = PROTECTED.replace("source_repository_uri", "identity").replace(
        'exact: "https://github.com/acme/gadget"', 'glob: "https://github.com/acme/gadget/*@refs/heads/*"'
    )
    visitor = live.visitor()
    verdicts = by_ref(previewed(visitor, rule=rule))
    assert verdicts["refs/heads/evil"] == "unexpected"
    assert verdicts["refs/tags/v1.0.0"] == "not-selected"
    fields = {"csrf": visitor.csrf(), "name": GADGET, "ticked": "1", "shown": "-", "do": "check", "rule": rule}
    page = visitor.http.post("/subscribe", data=fields, headers={"origin": visitor.url})
    said = "Signings in the name of acme/gadget are listed; the rule may select others too."
    assert said in shown(page)
    assert "may select others" not in shown(visitor.get(f"/subscribe?name={GADGET}"))


def test_strangers_certificates_do_not_fill_the_preview(live: Followed) -> None:
    stranger = make_ca("a stranger")
    claims = github_claims("acme/gadget", ref="refs/heads/main")
    made = [
        hashedrekord_v2(
            make_certificate(
                stranger, san=claims["build_config_uri"], issuer=ISSUER, claims=claims, not_after=CA_NOT_AFTER, serial=n
            ),
            f"{n:064x}",
        )
        for n in range(50, 80)
    ]
    live.served.log.append(*made)
    live.follow()
    live.archive()
    outcomes = [outcome for outcome, _ in previewed(live.visitor(), rule=PROTECTED)]
    assert outcomes.count("expected") == 3
    assert outcomes[-1] == "unverified"
    assert outcomes.count("unverified") <= 3


def test_programs_are_told_what_was_not_compared(live: Followed) -> None:
    visitor = live.visitor()
    live.subscribe(visitor, "mia@acme.example", GADGET)
    account = live.site.subscribers.by_address("mia@acme.example")
    assert account is not None
    live.site.subscribers.add_token(account.id, "swt_mia-read", "script", "read")
    headers = {"authorization": "Bearer swt_mia-read"}
    asked = {"name": GADGET, "rule": PROTECTED}
    answer = visitor.http.post("/api/v1/preview", json=asked, headers=headers).json()
    found = {each["index"]: (each["outcome"], each["not_compared"]) for each in answer["signings"]}
    assert found[6] == ("unexpected", [])
    assert found[7] == ("unexpected", [])
    assert found[8] == ("unverified", [])
    reader_of(live)._kept.clear()
    live.served.down = True
    answer = visitor.http.post("/api/v1/preview", json=asked, headers=headers).json()
    found = {each["index"]: (each["outcome"], each["not_compared"]) for each in answer["signings"]}
    assert found[3] == ("not-compared", ["signature", "visibility"])
    assert [note for note in answer["notes"] if "could not be asked" in note]

"""The public search: parts of a name, login services, time, a picture and files; hostile forms are shown again."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from html import unescape
from pathlib import Path
from urllib.parse import quote, urlencode
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from alerts.inert import inert_cell
from monitor.archive.answer import ArchiveRow
from monitor.archive.csv_rows import CSV_HEAD
from monitor.archive.query import Query
from monitor.archive.rows import Chain
from monitor.site import archive_search, searching
from monitor.site.archive_search import ArchiveFormSearch
from monitor.site.limits import RateLimits
from monitor.site.rendering import moment
from monitor.site.search_form import SearchForm
from monitor.site.sessions import RequestRefused
from monitor.site_config import SiteLimits
from tests.site.scene import REPOSITORY, Scene, scene, shown
from tests.site.test_from_archive import NOW, RELEASES, SELF_MADE, STOLEN, archive_of, body, empty
from tests.support.entries import hashedrekord_v2, make_certificate, make_key, spki_of
from tests.support.served_log import CA, ISSUER

GOOGLE = "https://accounts.google.com"
PEOPLE = [
    hashedrekord_v2(
        make_certificate(
            CA,
            san=f"{name}@acme.example",
            issuer=GOOGLE,
            not_before=NOW - timedelta(days=days),
            serial=700 + days,
        ),
        f"{900 + days:064x}",
    )
    for name, days in (("mia", 200), ("ben", 20))
]
BY_KEY = hashedrekord_v2(spki_of(make_key(5)), f"{950:064x}")
HOSTILE = hashedrekord_v2(
    make_certificate(CA, san="hax@acme.example", issuer="=cmd|'<script>alert(1)</script>", not_before=NOW),
    f"{951:064x}",
)
EVERYTHING = [*RELEASES, STOLEN, *PEOPLE, BY_KEY, HOSTILE, *SELF_MADE]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Scene]:
    limits = replace(SiteLimits(), requests_per_minute=100_000, searches_per_minute=100_000)
    with scene(tmp_path, empty(tmp_path), archive_of(tmp_path, EVERYTHING), limits=limits) as made:
        yield made


def found(site: Scene, **asked: str) -> dict[str, object]:
    answer = site.visitor().get(f"/search.json?{urlencode(asked)}")
    document: dict[str, object] = answer.json()
    return document


def indexes(document: dict[str, object]) -> list[int]:
    return [row["index"] for row in document["rows"]]  # type: ignore[attr-defined]


def day(days_ago: float) -> str:
    return f"{NOW - timedelta(days=days_ago):%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"name": "github.com/acme/*"}, [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ({"name": "HTTPS://github.com/ACME/wid*", "since": "30d"}, [12]),
        ({"name": "*@acme.example"}, [16, 14, 13]),
        ({"name": "*/release.yml@refs/heads/*"}, [12]),
        ({"name": "*@acme.example", "until": day(30)}, [13]),
        ({"name": "*acme*", "issuer": GOOGLE}, [14, 13]),
        ({"name": "*acme*", "issuer": "accounts.google.com"}, [14, 13]),
        ({"name": "*acme*", "issuer": "*githubusercontent*", "since": day(90.5), "until": day(88.5)}, [11, 10]),
        ({"name": REPOSITORY, "since": "2d"}, [12]),
        ({"name": "mia@acme.example", "issuer": ISSUER}, []),
        ({"name": f"sha256:{950:064x}"}, [15]),
        ({"name": "*widget*", "issuer": "*nothing*"}, []),
    ],
)
def test_a_search_by_part_of_a_name_login_service_and_time(
    site: Scene, asked: dict[str, str], expected: list[int]
) -> None:
    document = found(site, **asked)
    assert indexes(document) == expected
    assert (document["total"], document["left_out"]) == (len(expected), 0)
    assert document["coverage"]["complete"] is True  # type: ignore[index]


def test_the_front_page_leads_to_the_search_and_a_plain_name_to_its_page(site: Scene) -> None:
    visitor = site.visitor()
    assert 'name="since"' in visitor.get("/").text
    form = {"name": "github.com/acme/*", "issuer": "", "since": "30d", "until": ""}
    place = visitor.get(f"/look?{urlencode(form)}", 303).headers["location"]
    assert place == f"/search?name={quote('github.com/acme/*', safe='')}&since=30d"
    page = shown(visitor.get(place))
    assert f"1 entry, signed since {moment(site.clock() - timedelta(days=30))[:9]}" in page
    assert "refs/heads/totally-legit" in page
    assert "150 more entries that no trusted authority vouches for" in page
    assert "every entry so far, 0 to 166" in page
    plain = {"name": REPOSITORY, "issuer": "", "since": "", "until": ""}
    assert (
        visitor.get(f"/look?{urlencode(plain)}", 303).headers["location"] == f"/look?{urlencode({'name': REPOSITORY})}"
    )
    assert "One signing does not look like the others" in shown(visitor.get(f"/look?name={REPOSITORY}"))


def test_self_made_certificates_are_counted_apart_and_shown_on_request(site: Scene) -> None:
    document = found(site, name="github.com/acme/*")
    assert (document["total"], document["unvouched"]) == (13, 150)
    every = found(site, name="github.com/acme/*", every="1")
    assert (every["total"], every["unvouched"]) == (163, 0)
    page = site.visitor().get(f"/search?{urlencode({'name': 'github.com/acme/*', 'every': '1'})}")
    assert page.text.count("self-made</span>") == searching.SHOWN
    assert "163 entries. The newest 50 are shown." in shown(page)


def test_each_row_leads_to_its_entry_however_old(site: Scene) -> None:
    page = site.visitor().get(f"/search?{urlencode({'name': '*acme*', 'until': day(50)})}").text
    links = [unescape(part.split('"')[0]) for part in page.split('href="')[1:] if part.startswith("/signing?")]
    assert len(links) == 13
    for link in links:
        site.visitor().get(link)
    site.visitor().get("/signing?name=mia@acme.example&log=rekor-v2&index=12", 404)
    site.visitor().get("/signing?name=github.com/acme/other&log=rekor-v2&index=12", 404)


def test_the_files_say_what_they_leave_out(site: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = urlencode({"name": "github.com/acme/*"})
    whole = site.visitor().get(f"/search.csv?{asked}")
    assert whole.headers["content-disposition"] == 'attachment; filename="signwatch-all-13.csv"'
    assert whole.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(whole.text)))
    assert [row["index"] for row in rows] == [str(index) for index in range(12, -1, -1)]
    assert CSV_HEAD.strip().split(",") == list(ArchiveRow.__struct_fields__)
    assert list(rows[0]) == list(found(site, name="github.com/acme/*")["rows"][0])  # type: ignore[index]
    monkeypatch.setattr(searching, "MOST_ROWS", 5)
    cut = site.visitor().get(f"/search.csv?{asked}")
    assert cut.headers["content-disposition"] == 'attachment; filename="signwatch-newest-5-of-13.csv"'
    assert [cut.headers[f"x-signwatch-{name}"] for name in ("matches", "left-out", "coverage")] == [
        "13",
        "8",
        "complete",
    ]
    assert len(list(csv.DictReader(io.StringIO(cut.text)))) == 5
    document = found(site, name="github.com/acme/*")
    assert (document["total"], document["left_out"], len(indexes(document))) == (13, 8, 5)
    assert "A file holds the newest 5 of these entries" in shown(site.visitor().get(f"/search?{asked}"))


def test_the_picture_is_an_svg_without_script(site: Scene) -> None:
    picture = site.visitor().get("/search.svg?name=*acme*")
    assert picture.headers["content-type"].startswith("image/svg+xml")
    drawn = ET.fromstring(picture.text)
    assert {each.tag.rpartition("}")[2] for each in drawn.iter()} <= {"svg", "title", "text", "rect", "path"}
    page = site.visitor().get("/search?name=*acme*").text
    assert page.count('<rect class="found"') > 2
    assert "16 entries from" in shown(site.visitor().get("/search?name=*acme*"))


def test_text_of_a_log_is_inert_on_the_page_and_in_a_table(site: Scene) -> None:
    asked = urlencode({"name": "hax@*"})
    page = site.visitor().get(f"/search?{asked}").text
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    (row,) = csv.DictReader(io.StringIO(site.visitor().get(f"/search.csv?{asked}").text))
    assert row["issuers"].startswith("'=cmd")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd", "'=cmd"),
        ("  +1", "'  +1"),
        ('"-1', "'\"-1"),
        ("\uff1dcmd", "'\uff1dcmd"),
        ("a;@SUM(1)", "a;'@SUM(1)"),
        ("a; =1;b;-2", "a;' =1;b;'-2"),
        ("mia+x@acme.example", "mia+x@acme.example"),
        ("refs/tags/v1-2;x=1", "refs/tags/v1-2;x=1"),
    ],
)
def test_no_cell_of_a_table_begins_a_formula(text: str, cell: str) -> None:
    assert inert_cell(text) == cell


def test_a_large_log_leaves_time_and_work_for_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive_of(tmp_path, [body(number, days_ago=number) for number in range(640)], "a-large-log")
    search = ArchiveFormSearch(archive_of(tmp_path, RELEASES, "z-small-log"), lambda: NOW)
    monkeypatch.setattr(archive_search, "MOST_OF_A_PAGE", 1_000)
    cut = {each.log: each.unsearched for each in search(SearchForm("*widget*"), 5).answer.coverage.logs}
    assert cut["a-large-log"]
    assert not cut["z-small-log"]


def test_names_of_a_file_and_a_picture_tell_that_not_all_was_searched(
    site: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = site.visitor().get("/search.csv?name=github.com/acme/*")
    assert whole.headers["x-signwatch-unvouched"] == "150"
    monkeypatch.setattr(archive_search, "MOST_OF_A_PAGE", 100)
    part = site.visitor().get("/search.csv?name=*widget*").headers["content-disposition"]
    assert part.endswith('-of-the-searched-entries.csv"')
    assert "all" not in part
    assert "only the searched entries are counted" in site.visitor().get("/search.svg?name=*widget*").text


def test_an_entry_with_thousands_of_names_costs_no_more_than_others(tmp_path: Path) -> None:
    search = ArchiveFormSearch(archive_of(tmp_path, PEOPLE), lambda: NOW)
    (hit, *_) = search(SearchForm("mia@*"), 1).hits
    assert hit.subject == "mia@acme.example"
    crowd = replace(hit.row, identities=(*("x" * 400 for _ in range(10_000)), "mia@acme.example"))
    assert archive_search._hit(crowd).subject == hit.row.digests[0], "thousands of names are not tried one by one"


@pytest.mark.parametrize(
    ("chains", "word"),
    [
        ((Chain.UNTRUSTED,), "untrusted"),
        ((Chain.NOT_CHECKED,), "unverified"),
        ((Chain.LISTED,), "unverified"),
        ((Chain.UNTRUSTED, Chain.KEY), "key"),
        ((Chain.LISTED, Chain.TRUSTED), "trusted"),
        ((), "unverified"),
    ],
)
def test_only_an_untrusted_certificate_is_called_self_made(
    tmp_path: Path, chains: tuple[Chain, ...], word: str
) -> None:
    (row,) = archive_of(tmp_path, PEOPLE[:1]).search(Query("mia@acme.example")).rows
    assert archive_search._hit(replace(row, chains=chains)).chain == word


def test_a_narrow_search_without_a_match_leads_to_a_wider_one(site: Scene) -> None:
    page = site.visitor().get("/search?name=*widget*&issuer=*nothing*&every=1").text
    assert 'href="/look?name=%2Awidget%2A&amp;every=1">Search without the login service and the time' in page
    assert "Search without" not in site.visitor().get("/search?name=*nothing*").text


def test_a_program_that_asks_for_json_is_told_a_fault_in_json(site: Scene, tmp_path: Path) -> None:
    (tmp_path / "archive").rename(tmp_path / "away")
    (tmp_path / "archive").write_text("no folder")
    for path in ("/search.json?name=*widget*", f"/look.json?name={REPOSITORY}"):
        assert site.visitor().get(path, 503).json()["error"] == "Not available now"
    assert "Not available now" in shown(site.visitor().get("/search?name=*widget*", 503))


def test_signings_by_a_key_are_not_called_different_nor_dated_to_the_beginning_of_unix_time(tmp_path: Path) -> None:
    key = spki_of(make_key(6))
    bodies = [hashedrekord_v2(key, f"{970 + number:064x}") for number in range(3)]
    with scene(tmp_path, empty(tmp_path), archive_of(tmp_path, bodies)) as made:
        rows = made.visitor().get(f"/search.json?name=sha256:{970:064x}").json()["rows"]
        name = bytes.fromhex(rows[0]["fingerprints"][0]).hex(":")
        page = shown(made.visitor().get(f"/look?{urlencode({'name': name})}"))
        assert "3 signings, and nothing to compare them by" in page
        assert "A key's signing names no workflow, branch or login." in page
        assert page.count("no time") == 3
        entry = shown(made.visitor().get(f"/signing?{urlencode({'name': name, 'log': 'rekor-v2', 'index': 1})}"))
        assert "signed at an unknown time" in entry
        for text in (page, entry):
            assert "1970" not in text
        for word in ("does not look like", "different", "in this way before"):
            assert word not in page


def test_a_headline_keeps_the_case_of_names(tmp_path: Path) -> None:
    with scene(tmp_path, empty(tmp_path), archive_of(tmp_path, RELEASES)) as made:
        page = shown(made.visitor().get(f"/look?{urlencode({'name': REPOSITORY})}"))
        headline = page.partition("signings look alike")[2][:300]
        assert "GitHub Actions" in headline, headline


LONG = "x" * 5_000
_BAD = [
    ({"name": f"{LONG}*"}, "name", "longer than 400 characters"),
    ({"name": "a\x00b*"}, "name", "control characters"),
    ({"name": "a\r\nSet-Cookie: x=1*"}, "name", "control characters"),
    ({"name": "*"}, "name", "at least 3 characters"),
    ({"name": "**a*b**"}, "name", "at least 3 characters"),
    ({"name": "a*" * 11}, "name", "At most 10 stars"),
    ({"name": f"{'y' * 250}*"}, "name", "At most 200 bytes"),
    ({"name": "acme*", "issuer": LONG}, "issuer", "longer than 400 characters"),
    ({"name": "acme*", "issuer": "\x1b[31m"}, "issuer", "control characters"),
    ({"name": "acme*", "since": "yesterday"}, "since", "That is no time"),
    ({"name": "acme*", "since": LONG}, "since", "That is no time"),
    ({"name": "acme*", "since": "99999999d"}, "since", "That is no time"),
    ({"name": "acme*", "since": "0001-01-01T00:00+23:59"}, "since", "That is no time"),
    ({"name": "acme*", "until": "9999-12-31T23:59-23:59"}, "until", "That is no time"),
    ({"name": "acme*", "since": "\u0663\u0660d"}, "since", "That is no time"),
    ({"name": "acme*", "since": "2026-02-01", "until": "2026-01-01"}, "until", "not later than 1 February 2026"),
    ({"name": "acme", "since": "1d"}, "name", "no repository URL"),
]


@pytest.mark.parametrize(("asked", "field", "why"), _BAD)
def test_a_wrong_form_is_shown_again_as_it_was_with_the_reason(
    site: Scene, asked: dict[str, str], field: str, why: str
) -> None:
    asked = {"issuer": "accounts.google.com", "until": "2030-01-01", **asked}
    query = urlencode(asked)
    page = site.visitor().get(f"/search?{query}", 400)
    assert why in shown(page)
    for name, text in asked.items():
        assert f'name="{name}" value="' in page.text
        assert text.strip() in unescape(page.text), name
    document = site.visitor().get(f"/search.json?{query}", 400).json()
    assert list(document["fields"]) == [field]
    for file in ("csv", "svg"):
        refused = site.visitor().get(f"/search.{file}?{query}", 400)
        assert why in shown(refused)
        assert "set-cookie: x" not in str(refused.headers).lower()


def test_a_mistyped_name_keeps_the_form_and_its_repair(site: Scene) -> None:
    page = site.visitor().get("/search?name=acme/widget&since=30d", 400).text
    assert "https://github.com/acme/widget" in page
    assert 'value="30d"' in page


def test_huge_windows_are_windows(site: Scene) -> None:
    document = found(site, name="*@acme.example", since="0001-01-01", until="9999-12-31")
    assert document["total"] == 3


@pytest.mark.parametrize(("bound", "value"), [("MOST_OF_A_PAGE", 100), ("_SECONDS", -1.0)])
def test_entries_that_a_bounded_search_did_not_read_are_named(
    site: Scene, monkeypatch: pytest.MonkeyPatch, bound: str, value: float
) -> None:
    monkeypatch.setattr(archive_search, bound, value)
    page = shown(site.visitor().get("/search?name=*widget*"))
    assert "were not searched, because a search may read a million values and take three seconds" in page
    assert "there may be more" in page
    assert "No entry matches in the part that was searched" in page
    assert "A part was not searched, and may hold an entry" in page
    assert site.visitor().get("/search.csv?name=*widget*").headers["x-signwatch-coverage"] == "partial"


def test_numbers_of_a_search_in_part_are_called_least_numbers(site: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "At least" not in shown(site.visitor().get("/search?name=*widget*&every=1"))
    monkeypatch.setattr(archive_search, "MOST_OF_A_PAGE", 400)
    assert "At least 39 entries" in shown(site.visitor().get("/search?name=*widget*&every=1"))
    assert "at least 39 more entries that no trusted authority" in shown(site.visitor().get("/search?name=*widget*"))


def test_the_picture_of_an_answer_over_many_centuries_names_what_is_outside(tmp_path: Path) -> None:
    ages = [body(number, days_ago=-365 * years) for number, years in enumerate((0, 100, 1500))]
    with scene(tmp_path, empty(tmp_path), archive_of(tmp_path, ages)) as made:
        page = shown(made.visitor().get("/search?name=*widget*&every=1"))
        assert "3 entries" in page
        assert "Not in the picture" in page


def test_too_many_searches_are_refused_on_the_page_with_the_form(site: Scene) -> None:
    limits = replace(site.site.config.limits, searches_per_minute=2)
    site.site.limits.__dict__.update(RateLimits(limits, site.site.database, site.clock).__dict__)
    visitor = site.visitor()
    for _ in range(2):
        visitor.get("/search?name=*widget*")
    refused = visitor.get("/search?name=*widget*&since=30d", 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert 'value="30d"' in refused.text
    assert "asked for too often" in shown(refused)
    assert visitor.get("/search.json?name=*widget*", 429).json()["error"] == "Too often"
    visitor.get(f"/look?name={REPOSITORY}")


@contextmanager
def taken(search: ArchiveFormSearch, turns: int, rooms: int) -> Iterator[None]:
    for _ in range(turns):
        search._turn.acquire()
    for _ in range(rooms):
        search._room.acquire()
    try:
        yield
    finally:
        for _ in range(turns):
            search._turn.release()
        for _ in range(rooms):
            search._room.release()


@pytest.mark.parametrize(("turns", "rooms"), [(2, 2), (0, 8)])
def test_a_search_that_finds_no_turn_is_refused_and_the_next_one_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int, rooms: int
) -> None:
    monkeypatch.setattr(archive_search, "_PATIENCE", 0.01)
    search = ArchiveFormSearch(archive_of(tmp_path, RELEASES), lambda: NOW)
    with taken(search, turns, rooms), pytest.raises(RequestRefused, match="Many people search"):
        search(SearchForm("*widget*"), 10)
    assert search(SearchForm("*widget*"), 10).answer.total == 12


def test_a_site_without_an_archive_says_that_it_looks_up_whole_names(tmp_path: Path) -> None:
    with scene(tmp_path, empty(tmp_path)) as made:
        visitor = made.visitor()
        assert 'name="since"' not in visitor.get("/").text
        assert "keeps no archive" in shown(visitor.get("/look?name=github.com/acme/*", 400))
        assert "keeps no archive" in shown(visitor.get("/search?name=github.com/acme/*", 404))
        assert "archive" in visitor.get("/search.json?name=acme*", 404).json()["detail"]


def test_no_word_of_an_account_is_in_an_answer(site: Scene) -> None:
    visitor = site.visitor()
    site.subscribe(visitor, "mia@elsewhere.example")
    for path in ("/search?name=*acme*", "/search.json?name=*acme*", "/search.csv?name=*acme*"):
        told = site.visitor().get(path).text
        assert "elsewhere" not in told
        assert "verdict" not in told

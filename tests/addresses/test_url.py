"""A URL is shown as host and path; what may be a secret is shown by nothing."""

import json
import logging
from datetime import timedelta
from pathlib import Path

import pytest

from addresses.url import has_credentials, is_https_or_loopback, shown_url
from monitor.config import parse_config
from monitor.judging.digest_lists import DigestLists
from monitor.model.errors import OwnFault
from rules.facts import DigestSource, SourceForm
from rules.rule_file import load_rules
from rules.schema import json_schema
from settings.document import DocumentError
from tests.support.alerts import NOW

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.org/a/b", "https://example.org/a/b"),
        (f"https://user:{SECRET}@example.org:8443/a?token={SECRET}#{SECRET}", "https://example.org:8443/a"),
        (f"http://:{SECRET}@proxy.example:3128", "http://proxy.example:3128"),
        (f"https://a@{SECRET}@example.org/", "https://example.org/"),
        (f"http://[::1/{SECRET}", "a URL that cannot be read"),
        (f"https://example.org\\@user:{SECRET}/", "a URL that cannot be read"),
        (f"https://user:{SECRET}/", "a URL that cannot be read"),
        (f"{SECRET}", "a URL without a host"),
        ("https://[::1]:1/x", "https://[::1]:1/x"),
    ],
)
def test_a_url_is_shown_as_host_and_path(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize("host", ["::ffff:127.0.0.1", "::ffff:7f00:1", "::", "0.0.0.0", "64:ff9b::127.0.0.1"])
def test_this_machine_is_written_in_one_of_three_ways_on_every_python(host: str) -> None:
    assert is_https_or_loopback("http://[::1]/"), "control"
    assert not is_https_or_loopback(f"http://[{host}]/" if ":" in host else f"http://{host}/")


def test_an_empty_user_name_is_a_user_name() -> None:
    assert has_credentials(f"http://:{SECRET}@proxy.example")
    assert has_credentials("http://@proxy.example")
    assert not has_credentials("http://proxy.example/a@b")


CONFIG = "version: 1\ndatabase: a.db\nrules: r.yaml\n"


@pytest.mark.parametrize(
    "text",
    [
        f"trust: {{tuf: 'https://tuf.example', proxy: 'http://:{SECRET}@proxy.example:3128'}}\n",
        f"trust: {{tuf: 'https://tuf.example', proxy: 'http://proxy.example:3128?{SECRET}'}}\n",
        f"trust: {{tuf: 'https://user:{SECRET}@tuf.example'}}\n",
        f"trust: {{trusted_root: r.json}}\nlogs: [{{name: a, url: 'https://:{SECRET}@log.example'}}]\n",
        f"trust: {{trusted_root: r.json}}\nlogs: [{{name: a, url: 'https://log.example', proxy: 'http://:{SECRET}@p'}}]\n",
    ],
)
def test_a_url_with_a_password_is_refused_without_repeating_it(text: str, tmp_path: Path) -> None:
    with pytest.raises(OwnFault) as caught:
        parse_config(CONFIG + text, tmp_path / "signwatch.yaml")
    assert SECRET not in str(caught.value)


def lists(folder: Path) -> DigestLists:
    return DigestLists(folder, lambda: NOW, max_age=timedelta(hours=1))


RULES = """\
version: 1
rules:
  - id: widget
    select: {identity: "release@acme.example"}
    expect: {digests_from: {%s}}
"""


@pytest.mark.parametrize("form", ["url", "url_file"])
def test_the_url_of_a_digest_list_tells_no_secret(form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = f"/list-{SECRET}" if form == "url_file" else "/list"
    user = f"user:{SECRET}@" if form == "url_file" else ""
    url = f"http://{user}127.0.0.1:1{path}?token={SECRET}"
    (tmp_path / "list.url").write_text(url + "\n", encoding="utf-8")
    target = "list.url" if form == "url_file" else url
    rules = load_rules(RULES % f"{form}: '{target}'", "rules.yaml")
    with caplog.at_level(logging.DEBUG):
        [told] = lists(tmp_path).refresh(rules.rules)
    assert "127.0.0.1" in told or "list.url" in told
    assert "ConnectError" in told, "control: it was asked"
    assert SECRET not in told + caplog.text + str(DigestSource(SourceForm(form), target))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1.attacker.example/", "http://localhost@attacker.example/", "http://a/"]
)
def test_a_digest_list_is_fetched_over_https_or_from_this_machine(url: str, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="https"):
        load_rules(RULES % f"url: '{url}'", "rules.yaml")
    (tmp_path / "list.url").write_text(url, encoding="utf-8")
    [told] = lists(tmp_path).refresh(load_rules(RULES % "url_file: list.url", "rules.yaml").rules)
    assert "no https URL" in told


def test_a_digest_list_with_a_password_belongs_into_a_file() -> None:
    with pytest.raises(DocumentError, match="url_file") as caught:
        load_rules(RULES % f"url: 'https://user:{SECRET}@example.org/list'", "rules.yaml")
    assert SECRET not in str(caught.value)
    assert "url_file" in json.dumps(json_schema())


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("http://localhost:1/", True),
        ("http://127.8.9.1/", True),
        ("http://[::1]/", True),
        ("http://128.0.0.1/", False),
        ("http://localhost.example/", False),
        ("http://127.0.0.1.example/", False),
        ("https://example.com/", True),
    ],
)
def test_all_of_127_is_this_machine(url: str, *, safe: bool) -> None:
    assert is_https_or_loopback(url) == safe

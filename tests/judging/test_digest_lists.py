"""Lists of allowed digests from files and servers: bounded, and unknown when they cannot be had."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from monitor.judging.digest_lists import DigestLists
from outbound.registry import IMAGE_MANIFEST, Registry
from rules.facts import MAX_SIZE, DigestSource
from rules.rule_file import load_rules
from settings.document import DocumentError
from sigstore_entries.release import released_image
from tests.support.go_clients import needs_registry, registry_server
from tests.support.images import push_image

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DIGEST = sha256(b"artifact").hexdigest()
LINE = f"{DIGEST}  widget.tar.gz\n"


class Lists:
    """Lists whose clock can be moved, for one rule that takes its digests from one place."""

    def __init__(self, folder: Path, place: str) -> None:
        self.now = NOW
        rule = f"""\
version: 1
rules:
  - id: widget
    select: {{identity: "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1"}}
    expect: {{digests_from: {place}}}
"""
        self.rules = load_rules(rule, "rules.yaml").rules
        self.lists = DigestLists(folder, lambda: self.now)

    def refresh(self) -> tuple[list[str], frozenset[str] | None]:
        failures = self.lists.refresh(self.rules)
        (expectation,) = self.rules[0].expect
        source = expectation.source  # type: ignore[attr-defined]
        assert isinstance(source, DigestSource)
        return failures, self.lists.digests(source)


def test_a_file_and_a_server_give_the_same_list(tmp_path: Path, httpserver: HTTPServer) -> None:
    (tmp_path / "list.txt").write_text(LINE)
    httpserver.expect_request("/list", query_string="a=1").respond_with_data(LINE, content_type="text/plain")
    url = httpserver.url_for("/list?a=1")
    for place in ("{file: list.txt}", f'{{url: "{url}"}}'):
        failures, digests = Lists(tmp_path, place).refresh()
        assert failures == []
        assert digests is not None
        assert any(DIGEST in digest for digest in digests)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("{file: missing.txt}", "No such file"),
        ('{url: "http://127.0.0.1:9/list"}', "127.0.0.1:9"),
    ],
)
def test_what_cannot_be_had_is_told_and_nothing_counts_as_on_the_list(tmp_path: Path, place: str, why: str) -> None:
    (tmp_path / "list.txt").write_text(LINE)
    failures, digests = Lists(tmp_path, place).refresh()
    assert digests is None
    (failure,) = failures
    assert why in failure
    assert "this list allows no digest" in failure


def test_an_oversized_file_is_no_list(tmp_path: Path) -> None:
    with (tmp_path / "list.txt").open("wb") as file:
        file.truncate(MAX_SIZE + 1)
    failures, digests = Lists(tmp_path, "{file: list.txt}").refresh()
    assert (len(failures), digests) == (1, None)


def test_a_list_that_could_not_be_read_again_for_too_long_is_no_longer_known(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(LINE)
    lists = Lists(tmp_path, "{file: list.txt}")
    assert lists.refresh()[1] is not None
    (tmp_path / "list.txt").unlink()
    lists.now += timedelta(minutes=59)
    assert lists.refresh()[1] is not None
    lists.now += timedelta(minutes=2)
    assert lists.refresh()[1] is None


@needs_registry
def test_a_repository_gives_what_the_logs_show_of_each_tagged_image(tmp_path: Path) -> None:
    with registry_server() as host:
        image = push_image(host, "acme/widget", b"one")
        with Registry(image) as registry:
            raw = registry.manifest("v1").raw
            registry.put_manifest(raw, IMAGE_MANIFEST, f"sha256-{'0' * 64}.sig")
        lists = Lists(tmp_path, f"{{registry: {image.in_full}}}")
        assert lists.refresh() == ([], frozenset(released_image(image).digests))
    failures, digests = lists.refresh()
    assert "cannot be reached" in failures[0]
    assert digests is not None, "what was read is known for an hour"
    lists.now += timedelta(hours=2)
    assert lists.refresh()[1] is None


@pytest.mark.parametrize("place", ["ghcr.io/acme/widget:v1", "ghcr.io/Acme", f"ghcr.io/acme/widget@sha256:{'0' * 64}"])
def test_a_repository_is_named_without_tag_and_digest(place: str, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="a repository is"):
        Lists(tmp_path, f'{{registry: "{place}"}}')

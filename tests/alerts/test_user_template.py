"""A user's own template changes the page, and can break nothing but itself."""

from pathlib import Path

import pytest

from alerts.page import page_of
from alerts.rendering import Renderer
from alerts.user_template import MAX_TEMPLATE, TemplateFailed, UserTemplate
from tests.support.alerts import an_alert


def template(source: str, *, html: bool = False, seconds: float = 5.0) -> UserTemplate:
    return UserTemplate("mine.j2", source, html, seconds)


def test_a_users_template_sees_the_whole_page() -> None:
    source = (
        "{{ page.heading }}|{{ page.key }}|{% for label, value in page.facts %}{{ label }}={{ value }};{% endfor %}"
        "{{ page.reasons|join('/') }}"
    )
    assert Renderer(template(source)).text(an_alert(), "the-key") == (
        "[page] Unexpected signing as release@acme.example|the-key|identity=release@acme.example;"
        "issuer=https://accounts.example;The workflow is evil.yml, not release.yml."
    )


@pytest.mark.parametrize(
    ("source", "said"),
    {
        "syntax": ("{{ page.title", "TemplateSyntaxError"),
        "unknown field": ("{{ page.ttle }}", "UndefinedError"),
        "division": ("{{ 1 // 0 }}", "ZeroDivisionError"),
        "include": ("{% include '/etc/passwd' %}", "TypeError"),
        "python internals": ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        "format string": ("{{ '{0.__class__}'.format(page) }}", "SecurityError"),
        "flood": ("{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}", "longer than"),
        "memory": ("{{ ('x' * 2000000000)|length }}", "memory"),
        "huge range": ("{% for i in range(10**9) %}{% endfor %}", "OverflowError"),
    }.values(),
)
def test_a_template_that_fails_gives_the_built_in_page_with_a_note(source: str, said: str) -> None:
    page = Renderer(template(source)).text(an_alert(), "the-key")
    assert "Unexpected signing as release@acme.example" in page
    assert "What to do" in page
    note = page.partition("\nnote: ")[2]
    assert "mine.j2" in note
    assert said in note


def test_a_template_that_never_ends_is_stopped() -> None:
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateFailed, match=r"mine\.j2"):
        template(endless, seconds=1.0).render(page_of(an_alert(), "k"))


@pytest.mark.parametrize(
    "source", ["{{ page.title }}", "{{ page.title|safe }}", "{% autoescape false %}{{ page.title }}{% endautoescape %}"]
)
def test_log_content_never_becomes_markup_in_a_users_html(source: str) -> None:
    hostile = an_alert(title="<script>alert(1)</script>")
    page = Renderer(html_template=template(f"<p>{source}</p>", html=True)).html(hostile, "k")
    assert page == "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"


def test_a_failing_html_template_gives_the_built_in_document() -> None:
    page = Renderer(html_template=template("{{ nothing }}", html=True)).html(an_alert(), "k")
    assert page.startswith("<!doctype html>")
    assert "mine.j2 failed" in page


def test_a_template_file_is_bounded_and_utf8(tmp_path: Path) -> None:
    file = tmp_path / "mine.j2"
    file.write_bytes(b"x" * MAX_TEMPLATE)
    assert len(UserTemplate.read(file).source) == MAX_TEMPLATE
    file.write_bytes(b"x" * (MAX_TEMPLATE + 1))
    with pytest.raises(ValueError, match="longer than"):
        UserTemplate.read(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        UserTemplate.read(file)


def test_what_a_template_spells_can_always_be_sent() -> None:
    assert Renderer(template("{{ '\\ud800' }}!")).text(an_alert(), "k") == "?!"

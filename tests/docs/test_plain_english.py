"""The check of plain English finds its words and pointers, and nothing else."""

from tests.docs.plain_english import ROOT, files, pointers, prose, questions, riddles, strangers, unsaid


def test_a_pronoun_without_a_subject_is_found_and_its_neighbours_are_not() -> None:
    assert list(riddles("The log signs it.\nEvery body of an entry.")) == []
    assert list(riddles("fine\nWhoever signs; nobody reads")) == [(2, "Whoever"), (2, "nobody")]


def test_a_pronoun_in_place_of_a_kind_of_person_is_found() -> None:
    assert list(strangers("Any person can log it.\nMany ones.")) == []
    assert list(strangers("fine\nAnyone can log it")) == [(2, "Anyone")]
    assert list(strangers("<p>Someone signed as you.</p>")) == [(1, "Someone")]


def test_the_templates_of_pages_and_mails_are_read() -> None:
    read = {path.relative_to(ROOT).as_posix() for path in files()}
    assert {"alerts/templates/page.txt.j2", "monitor/commands/templates/report.html.j2"} <= read
    assert {"monitor/daemon/templates/status.html.j2", "monitor/site/templates/mail/alert.txt.j2"} <= read


def test_a_docstring_that_only_points_elsewhere_is_found() -> None:
    assert list(pointers('def f():\n    """See `a.b` for the format of the note."""\n')) == []
    assert list(pointers('def f():\n    """See `a.b`."""\n')) == [(1, "See `a.b`.")]


def test_of_a_test_its_comments_and_docstrings_are_read_and_its_data_is_not() -> None:
    source = '"""Nobody reads."""\nname = "nobody"  # whoever asks\n\n\ndef f():\n    """One.\n\n    Whatever."""\n'
    assert list(riddles(prose(source))) == [(1, "Nobody"), (2, "whoever"), (8, "Whatever")]


def test_the_message_of_an_assertion_is_read() -> None:
    assert list(riddles(prose('assert f(), f"{name}: nobody asks"\n'))) == [(1, "nobody")]


def test_a_docstring_that_begins_with_an_indirect_question_is_found() -> None:
    assert list(questions('def f():\n    """Number of rules, and what they cost."""\n')) == []
    assert list(questions('def f():\n    """How many rules there are."""\n')) == [(1, "How many rules there")]
    assert list(questions('def f():\n    """Whether it is due."""\n')) == [(1, "Whether it is due.")]


def test_the_rest_of_a_message_that_no_statement_uses_is_found() -> None:
    assert list(unsaid('"""Module."""\nlimit = 1\n"""Of names."""\n\n\ndef f():\n    """One."""\n    ...\n')) == []
    assert list(unsaid('def f():\n    yield 1, "They are "\n    "published"\n')) == [(3, "'published'")]

"""docs/channels.md tells the truth about the settings."""

import re
from pathlib import Path

import pytest
import yaml

from alerts.channels.settings import MODELS
from settings.models import keys_of
from tests.support.channels import channel_of

_PAGE = (Path(__file__).parents[2] / "docs" / "channels.md").read_text()


def test_every_channel_type_has_its_section() -> None:
    assert re.findall(r"^### `([\w-]+)`$", _PAGE, re.MULTILINE) == [
        *("stdout", "jsonl", "webhook", "slack", "email", "pagerduty"),
        *("alertmanager", "github-issues", "command", "apprise"),
    ]
    assert set(re.findall(r"^### `([\w-]+)`$", _PAGE, re.MULTILINE)) == set(MODELS)


@pytest.mark.parametrize("kind", MODELS)
def test_a_sections_table_names_every_key_of_the_channel_and_no_other(kind: str) -> None:
    section = _PAGE.partition(f"### `{kind}`\n")[2].partition("\n### ")[0]
    keys = {key for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}
    assert keys == {each.key for each in keys_of(MODELS[kind][0])} - {"type"}


def test_the_example_configuration_builds(tmp_path: Path) -> None:
    example = yaml.safe_load(_PAGE.partition("```yaml\n")[2].partition("```")[0])
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/hook").write_text("whsec_" + "QUFB" * 16)
    (tmp_path / "secrets/slack-url").write_text("https://hooks.slack.com/services/T/B/x")
    (tmp_path / "secrets/mail").write_text("x")
    (tmp_path / "secrets/pagerduty").write_text("x")
    for name, settings in example["channels"].items():
        assert channel_of(name, settings, tmp_path).name == name

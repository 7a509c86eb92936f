"""docs/channels.md tells the truth about the settings."""

import re
from pathlib import Path

import pytest
import yaml

from alerts.channels.registry import _BUILDERS, build_channel
from alerts.channels.settings import ChannelMisconfigured

_PAGE = (Path(__file__).parents[2] / "docs" / "channels.md").read_text()


def test_every_channel_type_has_its_section() -> None:
    assert re.findall(r"^### `([\w-]+)`$", _PAGE, re.MULTILINE) == [
        *("stdout", "jsonl", "webhook", "slack", "email", "pagerduty"),
        *("alertmanager", "github-issues", "command", "apprise"),
    ]
    assert set(re.findall(r"^### `([\w-]+)`$", _PAGE, re.MULTILINE)) == set(_BUILDERS)


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
@pytest.mark.parametrize("kind", sorted(_BUILDERS))
def test_every_key_in_a_sections_table_is_known_to_the_channel(kind: str, tmp_path: Path) -> None:
    section = _PAGE.partition(f"### `{kind}`\n")[2].partition("\n### ")[0]
    keys = {key for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}
    assert keys
    example = {"type": kind, **_MINIMAL[kind]}
    (tmp_path / "secret").write_text("whsec_" + "QUFB" * 16)
    (tmp_path / "url").write_text("https://hooks.example/x")
    with pytest.raises(ChannelMisconfigured, match=r"known: ") as caught:
        build_channel("doc", {**example, "no_such_key": 1}, base=tmp_path)
    known = set(str(caught.value).partition("known: ")[2].partition("known: ")[2].split(", "))
    either = {"webhook_url_file", "token_file", "channel", "base_url", "unsigned", "username", "password_file"}
    assert keys - known <= either
    assert known <= keys


_MINIMAL: dict[str, dict[str, str]] = {
    "stdout": {},
    "jsonl": {"path": "a.jsonl"},
    "webhook": {"url": "https://hooks.example/", "secret_file": "secret"},
    "slack": {"webhook_url_file": "url"},
    "email": {"host": "mail.example", "from": "a@b.example", "to": "c@d.example"},
    "pagerduty": {"routing_key_file": "secret"},
    "alertmanager": {"url": "https://alertmanager.example"},
    "github-issues": {"repository": "acme/widget", "token_file": "secret"},
    "command": {"argv": "true"},
    "apprise": {"urls_file": "url"},
}


def test_the_example_configuration_builds(tmp_path: Path) -> None:
    example = yaml.safe_load(_PAGE.partition("```yaml\n")[2].partition("```")[0])
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/hook").write_text("whsec_" + "QUFB" * 16)
    (tmp_path / "secrets/slack-url").write_text("https://hooks.slack.com/services/T/B/x")
    (tmp_path / "secrets/mail").write_text("x")
    (tmp_path / "secrets/pagerduty").write_text("x")
    for name, settings in example["channels"].items():
        assert build_channel(name, settings, base=tmp_path).name == name

"""`signwatch config check`, and where a configuration and the folders in it are looked for."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from alerts.channels.settings import SecretFile, WebhookSettings
from monitor.cli import run_command
from monitor.commands.terminal import config_places
from monitor.config import load_config, parse_config
from monitor.model.errors import BadConfig
from tests.support.served_log import RULES

CONFIG = """\
version: 1
database: ${STATE_DIRECTORY}/signwatch.db
trust: {trusted_root: root.json}
rules: rules.yaml
channels:
  hook: {type: webhook, url: "https://hooks.example/x", secret_file: "${CREDENTIALS_DIRECTORY}/hook"}
notify: [hook]
"""


HOOK = CONFIG[CONFIG.index("{type: webhook") : CONFIG.index("\nnotify")]
MAIL = "{type: email, from: watch@acme.example, to: team@acme.example"
LOG_WITHOUT_SCHEME = "logs: [{name: v2, api: rekor-v2, url: 'log.example'}]\n"


def edit(place: Path, old: str, new: str) -> None:
    assert old in CONFIG
    (place / "signwatch.yaml").write_text(CONFIG.replace(old, new))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "signwatch.yaml").write_text(CONFIG)
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "root.json").write_text('{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
    (tmp_path / "credentials").mkdir()
    secret = tmp_path / "credentials" / "hook"
    secret.write_text("whsec_" + base64.b64encode(bytes(32)).decode() + "\n")
    secret.chmod(0o400)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(capsys: pytest.CaptureFixture[str], *words: str, expect: int) -> dict[str, Any]:
    capsys.readouterr()
    assert run_command(["config", "check", "--json", *words]) == expect
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_sound_configuration_needs_no_database_and_makes_none(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = check(capsys, expect=0)
    assert (found["problems"], found["remarks"]) == ([], [])
    assert not (place / "state").exists()
    assert run_command(["config", "check"]) == 0
    assert "sound: every log of the trust root, 1 rule, channels hook" in capsys.readouterr().out


def test_folders_that_systemd_names_are_put_in(place: Path) -> None:
    config = load_config(place / "signwatch.yaml")
    assert config.database == str(place / "state" / "signwatch.db")
    hook = config.channels["hook"]
    assert isinstance(hook, WebhookSettings)
    assert hook.secret_file == SecretFile(place / "credentials" / "hook")


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda place: (place / "root.json").unlink(), "trust: trusted_root: there is no file"),
        (lambda place: (place / "credentials" / "hook").unlink(), "secret_file"),
        (lambda place: (place / "rules.yaml").write_text("version: 1\nrules: nonsense\n"), "rules.yaml:2"),
        (
            lambda place: (place / "signwatch.yaml").write_text(CONFIG.replace("notify: [hook]\n", "")),
            "names no channel",
        ),
        (
            lambda place: (place / "signwatch.yaml").write_text(CONFIG.replace("type: webhook", "type: pigeon")),
            "channels.hook.type: must be one of",
        ),
        (lambda place: (place / "root.json").write_text("{}"), "root.json: not a trusted root"),
        (
            lambda place: edit(place, "{trusted_root: root.json}", "{tuf: public_good}"),
            ":3:14: trust.tuf: write public-good",
        ),
        (lambda place: edit(place, "{trusted_root: root.json}", "{tuf: 'https://tuf.example'}"), "no first root"),
        (lambda place: edit(place, "${STATE_DIRECTORY}/signwatch.db", "postgres://u@h/db"), "dialects:postgres"),
        (lambda place: edit(place, HOOK, "{type: jsonl, path: absent/alerts.jsonl}"), "hook: path: there is no folder"),
        (
            lambda place: edit(place, HOOK, f"{MAIL}, host: 'mail.example:587'}}"),
            ":6:78: channels.hook: host: 'mail.example:587'",
        ),
        (lambda place: edit(place, HOOK, f"{MAIL}, host: 'smtp://mail.example'}}"), "a port goes into `port`"),
        (lambda place: edit(place, "rules: r", f"{LOG_WITHOUT_SCHEME}rules: r"), "begins with https:// or http://"),
    ],
)
def test_each_thing_that_run_would_refuse_is_a_problem(
    place: Path, capsys: pytest.CaptureFixture[str], break_it: object, told: str
) -> None:
    assert callable(break_it)
    break_it(place)
    assert told in str(check(capsys, expect=2))


def test_a_problem_is_one_line_and_told_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "credentials" / "hook").unlink()
    [problem] = check(capsys, expect=2)["problems"]
    assert run_command(["config", "check"]) == 2
    assert capsys.readouterr().out.splitlines() == [problem, "signwatch.yaml: 1 problem"]
    edit(place, "type: webhook", "type: pigeon")
    run_command(["doctor"])
    assert "\\n" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "host", ["mail.example", "localhost", "::1", "192.0.2.1", "smtp_relay.intern", "bücher.example"]
)
def test_a_host_is_a_name_or_an_address(place: Path, capsys: pytest.CaptureFixture[str], host: str) -> None:
    edit(place, HOOK, f"{MAIL}, host: '{host}'}}")
    assert check(capsys, expect=0)["problems"] == []


def test_a_secret_that_others_can_read_is_a_remark(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "credentials" / "hook").chmod(0o444)
    assert "chmod 0400" in str(check(capsys, expect=0)["remarks"])


ALL_SECRETS = """\
web: {listen: "127.0.0.1:8800", public_url: "https://watch.example", key_file: keys/web, token_file: keys/token}
heartbeat: {url_file: keys/heartbeat}
site:
  public_url: https://alerts.example
  key_file: keys/site
  privacy_file: keys/privacy.txt
  mail: {server: mail.example, from: alerts@watch.example, password_file: keys/mail, ca_file: keys/mail-ca.pem}
  oidc: {issuer: "https://login.example", client_id: watch, client_secret_file: keys/oidc, ca_file: keys/oidc-ca.pem}
canary: {log: v2, identity: canary@acme.example, issuer: "https://login.example", trust_config: staging,
  token_file: keys/canary}
"""
SECRETS = {"web", "token", "heartbeat", "site", "mail", "oidc", "canary"}
NO_SECRETS = {"privacy.txt", "mail-ca.pem", "oidc-ca.pem"}


def test_files_that_every_section_names_are_looked_at(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "signwatch.yaml").write_text(CONFIG + ALL_SECRETS)
    missing = check(capsys, expect=2)["problems"]
    named = (SECRETS | NO_SECRETS) - {"site", "canary"}
    assert {problem.rpartition("/")[2] for problem in missing} == named, "the site makes its key, the canary waits"
    (place / "keys").mkdir()
    for name in SECRETS | NO_SECRETS:
        (place / "keys" / name).write_text("x" * 64)
        (place / "keys" / name).chmod(0o444)
    found = check(capsys, expect=0)
    assert {remark.rpartition("keys/")[2].partition(":")[0] for remark in found["remarks"]} == SECRETS
    assert found["problems"] == []


def test_an_unknown_or_unset_folder_is_an_error_with_its_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place / "signwatch.yaml"
    with pytest.raises(BadConfig, match=r"signwatch.yaml:2:11: .*SHELL.* is not a folder"):
        parse_config(CONFIG.replace("STATE_DIRECTORY", "SHELL"), path)
    monkeypatch.delenv("STATE_DIRECTORY")
    with pytest.raises(BadConfig, match=r":2:11: .*STATE_DIRECTORY.* not set"):
        parse_config(CONFIG, path)
    monkeypatch.setenv("STATE_DIRECTORY", "/a:/b")
    with pytest.raises(BadConfig, match="one absolute path"):
        parse_config(CONFIG, path)


def test_xdg_folders_have_their_defaults(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place / "someone"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    text = CONFIG.replace("${STATE_DIRECTORY}", "${XDG_STATE_HOME}/signwatch")
    assert parse_config(text, place / "c").database.endswith("/someone/.local/state/signwatch/signwatch.db")
    monkeypatch.setenv("XDG_STATE_HOME", "/var/states")
    assert parse_config(text, place / "c").database == "/var/states/signwatch/signwatch.db"


def test_without_a_name_the_users_configuration_is_found_before_the_systems(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = place / "home" / "signwatch"
    own.mkdir(parents=True)
    for name in ("signwatch.yaml", "rules.yaml", "root.json"):
        (own / name).write_bytes((place / name).read_bytes())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "home"))
    assert check(capsys, expect=0)["config"] == "signwatch.yaml", "control: the one here goes first"
    (place / "empty").mkdir()
    os.chdir(place / "empty")
    assert check(capsys, expect=0)["config"] == str(own / "signwatch.yaml")
    assert run_command(["config", "check", "--config", "signwatch.yaml"]) == 2, "a name that is given is meant"
    assert config_places({"HOME": "/h"}) == (
        Path("/h/.config/signwatch/signwatch.yaml"),
        Path("/etc/signwatch/signwatch.yaml"),
    )

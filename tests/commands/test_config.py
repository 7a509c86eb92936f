"""The configuration is read strictly, and every mistake is told with its place and what would be right."""

from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest
import yaml
from msgspec import Struct

from alerts.channels.settings import WebhookSettings
from monitor import config as module
from monitor.commands.starting_files import CONFIG, RULES
from monitor.config import Config, WebConfig, config_schema, load_config, parse_config
from monitor.model.errors import BadConfig
from monitor.model.log_source import LogApi
from rules.rule_file import load_rules
from settings.models import keys_of, models_of
from settings.schema import schema_text

GOOD = """\
version: 1
database: signwatch.db
trust: {trusted_root: trust/trusted_root.json}
logs:
  - {name: rekor-v2, api: rekor-v2, url: "http://localhost:3000/", start: head, poll_seconds: 5}
rules: rules.yaml
channels: {console: {type: stdout}, hook: {type: webhook, url: "https://h.example", timeout_seconds: 2, unsigned: true}}
notify: [console]
web: {listen: "[::1]:9464"}
objectives: {delivery_age: 5m}
"""
BASE = Path("/etc/signwatch")
ROOT = Path(__file__).parents[2]


def read(text: str) -> module.Config:
    return parse_config(text, BASE / "signwatch.yaml")


def test_a_good_file_becomes_values() -> None:
    config = read(GOOD)
    assert config.database == "/etc/signwatch/signwatch.db"
    assert config.trust.trusted_root == BASE / "trust/trusted_root.json"
    assert config.logs is not None
    assert (config.logs[0].api, config.logs[0].url, config.logs[0].start) == (
        LogApi.REKOR_V2,
        "http://localhost:3000",
        "head",
    )
    assert config.poll_seconds(config.logs[0]) == 5
    assert config.stale_after(config.logs[0]) == timedelta(hours=1)
    hook = config.channels["hook"]
    assert isinstance(hook, WebhookSettings)
    assert (hook.url, hook.timeout_seconds, hook.unsigned) == ("https://h.example", 2, True)
    assert (config.notify, config.web) == (("console",), WebConfig(("::1", 9464)))
    assert config.objectives.delivery_age == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("database", "where"),
    [
        ("signwatch.db", "/etc/signwatch/signwatch.db"),
        ("/var/lib/x.db", "/var/lib/x.db"),
        ("sqlite:///x.db", "sqlite:////etc/signwatch/x.db"),
        ("postgresql+psycopg://u@h/db", "postgresql+psycopg://u@h/db"),
    ],
)
def test_the_database_is_a_path_from_the_files_folder_or_a_url(database: str, where: str) -> None:
    assert read(GOOD.replace("signwatch.db", database)).database == where


WRONG = {
    "unknown key": ("rules:", "ruels:", "6", "did you mean 'rules'"),
    "unknown log key": ("poll_seconds", "pol_seconds", "5", "did you mean 'poll_seconds'"),
    "unknown objective": ("delivery_age", "deliveryage", "10", "did you mean 'delivery_age'"),
    "unknown web key": ("{listen", "{lissten", "9", "did you mean 'listen'"),
    "other version": ("version: 1", "version: 2", "1", "version 1"),
    "no database": ("database: signwatch.db\n", "", "1", "'database' is missing"),
    "no key source": ("{trusted_root: trust/trusted_root.json}", "{}", "3", "either"),
    "two key sources": ("{trusted_root:", "{tuf: staging, trusted_root:", "3", "either"),
    "bad api": ("api: rekor-v2", "api: rekor-v3", "5", "rekor-v1, rekor-v2"),
    "bad url": ("http://localhost:3000/", "ftp://localhost", "5", "base URL of a log"),
    "url with a password": ("http://localhost", "http://u:p@localhost", "5", "base URL of a log"),
    "bad start": ("start: head", "start: -1", "5", "entry index"),
    "bad name": ("name: rekor-v2", "name: 'a b'", "5", "a name is letters"),
    "no polling": ("poll_seconds: 5", "poll_seconds: 0", "5", "at least 1"),
    "bad log id": ("start: head", "log_id: abc", "5", "32 bytes"),
    "unknown channel": ("notify: [console]", "notify: [consle]", "8", "there is no channel 'consle'"),
    "bad address": ('"[::1]:9464"', '"9464"', "9", "127.0.0.1:9464"),
    "bad port": ('"[::1]:9464"', '"[::1]:99999"', "9", "127.0.0.1:9464"),
    "bad duration": ("5m", "5 minutes", "10", "not a duration"),
    "channels as a list": ("channels: {", "channels: [", "", "YAML"),
    "channel without settings": ("{type: stdout}", "stdout", "7", "mapping with a `type`"),
    "looking back nowhere": ("web:", "backscan: {range: 0}\nweb:", "9", "none, followed, all, or a number"),
    "a back-scan that never moves": ("web:", "backscan: {entries_per_second: 0}\nweb:", "9", "at least 1"),
    "a tag": ("rules: rules.yaml", "rules: !!python/name:os.system x", "6", "tags"),
    "a key twice": ("rules: rules.yaml", "rules: rules.yaml\nrules: b.yaml", "7", "already given"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_told_with_its_place(name: str) -> None:
    good, wrong, line, told = WRONG[name]
    assert good in GOOD
    with pytest.raises(BadConfig) as caught:
        read(GOOD.replace(good, wrong))
    message = str(caught.value)
    assert told in message
    assert message.startswith(f"/etc/signwatch/signwatch.yaml:{line}")
    assert "docs/configuration.md" in message


def test_two_logs_of_one_name_are_a_mistake() -> None:
    log = next(line for line in GOOD.splitlines() if "name: rekor-v2" in line)
    with pytest.raises(BadConfig, match="two logs are named"):
        read(GOOD.replace(log, f"{log}\n{log}"))


def test_a_missing_file_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="signwatch init"):
        load_config(tmp_path / "signwatch.yaml")


def test_what_init_writes_can_be_read() -> None:
    assert read(CONFIG).notify == ("console",)
    assert [rule.id for rule in load_rules(RULES).rules] == ["example-release"]


def test_every_key_is_documented() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    models: list[type[Struct]] = [Config, *models_of(Config)]
    groups = [[each.key for each in keys_of(model)] for model in models]
    assert len(groups) > 8, "control: sections within sections are seen"
    missing = [key for keys in groups for key in keys if f"`{key}`" not in page]
    assert missing == []


@pytest.mark.parametrize(
    ("written", "wanted"), [("none", "none"), ("followed", "followed"), ("all", "all"), ("5000", 5000)]
)
def test_how_far_to_look_back(written: str, wanted: str | int) -> None:
    assert read(GOOD).backscan == module.BackscanConfig("none", 1000), "control: nothing unless it is asked for"
    config = read(f"{GOOD}\nbackscan: {{range: {written}, entries_per_second: 50}}\n")
    assert config.backscan == module.BackscanConfig(wanted, 50)  # type: ignore[arg-type]


SCHEMA = jsonschema.Draft202012Validator(config_schema())


def test_the_published_schema_is_the_one_the_reader_has() -> None:
    jsonschema.Draft202012Validator.check_schema(config_schema())
    published = ROOT / "docs/schemas/signwatch.schema.json"
    assert published.read_text("utf-8") == schema_text(config_schema()), "signwatch config schema > docs/schemas/…"


@pytest.mark.parametrize("example", [GOOD, CONFIG, (ROOT / "docker/config/signwatch.yaml").read_text("utf-8")])
def test_an_example_is_valid_by_the_schema_and_for_the_reader(example: str) -> None:
    SCHEMA.validate(yaml.safe_load(example))
    assert read(example).database


SEEN_BY_THE_SCHEMA = ("unknown key", "unknown log key", "unknown objective", "other version", "no database", "bad api")


@pytest.mark.parametrize("name", SEEN_BY_THE_SCHEMA)
def test_the_schema_sees_a_mistake_of_form(name: str) -> None:
    good, wrong, _, _ = WRONG[name]
    assert not SCHEMA.is_valid(yaml.safe_load(GOOD.replace(good, wrong)))


EVERYTHING = """\
version: 1
database: state.db
trust: {tuf: staging, tuf_root: root.json, refresh: 2h, stale_after: 4d, signing_configs: [a.json], proxy: "http://p.example:3128"}
logs:
  - {name: one, url: "https://one.example", api: rekor-v2, start: 7, busy: false, ca_file: ca.pem}
rules: rules.yaml
web: {listen: "0.0.0.0:9464", hosts: watch.example}
site:
  public_url: https://watch.example
  key_file: site.key
  mail: {server: mail.example, from: alerts@watch.example, password_file: mail.secret}
  listen: "[::]:9465"
  sign_up: oidc
  oidc: {issuer: "https://id.example/", client_id: signwatch}
  trusted_proxies: [10.0.0.0/8]
  allow_private: true
  limits: {keep: 30d, senders: 4}
objectives: {certificate_hold: 30s, examine_processes: 3}
backscan: {range: all}
archive: {location: rows, write_every: 2m}
"""


def test_every_section_is_read_and_relative_paths_count_from_the_file() -> None:
    config = read(EVERYTHING)
    SCHEMA.validate(yaml.safe_load(EVERYTHING))
    assert config.trust.folder == BASE / "trust-cache", "also a path that is left out"
    assert (config.trust.refresh, config.trust.signing_configs) == (timedelta(hours=2), (BASE / "a.json",))
    assert config.logs is not None
    assert (config.logs[0].start, config.logs[0].busy, config.logs[0].ca_file) == (7, False, BASE / "ca.pem")
    assert config.web == WebConfig(("0.0.0.0", 9464), ("watch.example",))
    site = config.site
    assert site is not None
    assert (site.mail.sender, site.mail.password_file, site.mail.port) == (
        "alerts@watch.example",
        BASE / "mail.secret",
        587,
    )
    assert (site.listen, site.allow_private, site.limits.keep) == (("::", 9465), True, timedelta(days=30))
    assert site.oidc is not None
    assert (site.oidc.issuer, site.limits.bounces) == ("https://id.example", 3)
    assert config.archive == module.ArchiveConfig(str(BASE / "rows"), timedelta(minutes=2))
    assert (config.backscan.range, config.objectives.examine_processes) == ("all", 3)


@pytest.mark.parametrize(
    ("good", "wrong", "place", "told"),
    [
        ("from: alerts", "form: alerts", "11:32", "did you mean 'from'"),
        ("senders: 4", "senders: 0", "17:32", "at least 1"),
        ("sign_up: oidc", "sign_up: domains", "9:3", "sign_up: domains needs"),
        ("refresh: 2h", "refresh: 2 hours", "3:53", "not a duration"),
        ("10.0.0.0/8", "10.0.0.0/99", "15:21", "not an address or network"),
        ("  key_file: site.key\n", "", "9:3", "'key_file' is missing"),
        ("https://id.example/", "https://[id.example/", "14:18", "site.oidc.issuer: an issuer is an https URL"),
        ("https://id.example/", "https://", "14:18", "site.oidc.issuer: an issuer is an https URL"),
    ],
)
def test_a_mistake_within_a_section_has_its_own_place(good: str, wrong: str, place: str, told: str) -> None:
    with pytest.raises(BadConfig) as caught:
        read(EVERYTHING.replace(good, wrong))
    assert str(caught.value).startswith(f"/etc/signwatch/signwatch.yaml:{place}: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "place", "told"),
    [
        ("{type: stdout, formatt: json}", "7:36", "did you mean 'format'?"),
        ("{type: jsonl}", "7:21", "channels.console: 'path' is missing"),
        ("{type: stdout, format: xml}", "7:44", "channels.console: format: 'xml' is not one of: text, json"),
        ("{type: pigeon}", "7:28", "channels.console.type: must be one of"),
    ],
)
def test_a_mistake_in_a_channel_has_its_place(settings: str, place: str, told: str) -> None:
    with pytest.raises(BadConfig) as caught:
        read(GOOD.replace("{type: stdout}", settings))
    assert str(caught.value).startswith(f"/etc/signwatch/signwatch.yaml:{place}: ")
    assert told in str(caught.value)


def test_a_variable_stands_for_any_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNWATCH__DATABASE", "/var/lib/other.db")
    monkeypatch.setenv("SIGNWATCH__WEB__LISTEN", "0.0.0.0:80")
    monkeypatch.setenv("SIGNWATCH__WEB__HOSTS", "[a.example, b.example]")
    monkeypatch.setenv("SIGNWATCH__CHANNELS__HOOK__TIMEOUT_SECONDS", "3")
    monkeypatch.setenv("SIGNWATCH__ESCALATION", "{after: 30m, notify: [console]}")
    monkeypatch.setenv("SIGNWATCH__BACKSCAN__RANGE", "all")
    monkeypatch.setenv("SIGNWATCH_CONFIG", "ignored here")
    config = read(GOOD)
    assert config.database == "/var/lib/other.db"
    assert config.web is not None
    assert config.web.listen == ("0.0.0.0", 80)
    assert config.web.hosts == ("a.example", "b.example")
    hook = config.channels["hook"]
    assert isinstance(hook, WebhookSettings)
    assert (hook.timeout_seconds, hook.url) == (3, "https://h.example")
    assert config.escalation is not None
    assert config.escalation.after == timedelta(minutes=30)
    assert config.backscan.range == "all"
    assert config.objectives.delivery_age == timedelta(minutes=5), "the rest is the file's"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SIGNWATCH__DATABSE", "x", "did you mean 'database'"),
        ("SIGNWATCH__WEB__LISTEN", "nowhere", "SIGNWATCH__WEB__LISTEN"),
        ("SIGNWATCH__LOGS__REKOR", "x", "a list is set as a whole"),
        ("SIGNWATCH__WEB____LISTEN", "x", "names no key"),
        ("SIGNWATCH__WEB", "{listen: [", "is no YAML"),
    ],
)
def test_a_variable_that_names_no_key_or_no_value_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadConfig) as refused:
        read(GOOD)
    assert told in str(refused.value)
    assert name in str(refused.value)

"""`signwatch init`: files to begin with, the database, and an explicit first position for every log."""

import time
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from monitor.commands.starting_files import CONFIG, RULES, config_text
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, leave, note, say
from monitor.config import Config, load_config
from monitor.daemon.assembly import assemble
from monitor.daemon.followed_logs import not_followed
from monitor.following.follower import Timing
from monitor.judging.rule_file import read_rules
from monitor.model.errors import BadConfig, FetchFailed, OwnFault
from monitor.program import VERSION, utc_now
from monitor.store.database import create
from monitor.telemetry.hooks import Meter
from monitor.trust.trust_root import MAX_SIZE, read_trust_root
from rules.starter import Starter, starter

_TIMEOUT: Final = 2.0


def init(
    config: ConfigOption = DEFAULT_CONFIG,
    watch: Annotated[
        str | None,
        typer.Option(
            "--watch",
            "--rule-for",
            help="The subject of the first rule: URL of a repository or an organisation, an e-mail address or a key.",
        ),
    ] = None,
    tuf: Annotated[
        str | None, typer.Option("--tuf", help="Source of keys: public-good, staging, or a TUF repository's URL.")
    ] = None,
    tuf_root: Annotated[
        Path | None, typer.Option("--tuf-root", help="First root metadata of a private TUF repository.")
    ] = None,
    trusted_root: Annotated[
        Path | None, typer.Option("--trusted-root", help="A trusted_root.json file as the source of keys instead.")
    ] = None,
    *,
    files_only: Annotated[bool, typer.Option("--files-only", help="Write the files and stop.")] = False,
) -> None:
    """Write signwatch.yaml and rules.yaml if they are absent, make the database, and set the first entry of each log.

    Run it again after adding a log: it does not change the positions of logs that are already followed.

    Examples:
      signwatch init --watch https://github.com/acme/widget --files-only
      signwatch init --tuf public-good --rule-for release@acme.example --files-only
      signwatch init --tuf https://tuf.acme.example --tuf-root root.json --files-only
      signwatch init --trusted-root trusted_root.json --files-only
      signwatch init --config signwatch.yaml
    """
    wrote = _write_files(config, watch, _config_text(tuf, tuf_root, trusted_root))
    if files_only or wrote:
        if wrote:
            note("Look through the file, then run `signwatch init` again to begin following.")
        raise leave(Exit.FINE)
    settings = load_config(config)
    read_rules(settings.rules, settings.channels)
    database = create(settings.database, utc_now(), VERSION)
    database.close()
    say(f"database ready: {database.where}")
    failures, unusable = _baseline(settings)
    for each in unusable:
        note(each, "bold red")
    if failures:
        note(f"{failures} of the logs could not be begun; run `signwatch init` again when they answer.", "bold red")
    if failures or unusable:
        raise leave(Exit.UNFINISHED)


def _baseline(settings: Config) -> tuple[int, tuple[str, ...]]:
    """Record the first position of every log; returns the number of failures, and logs that can never be followed."""
    meter = Meter()
    failures = 0
    monitor = assemble(settings, meter, Timing(utc_now, time.sleep))
    try:
        for log, watch in zip(monitor.logs, monitor.watches, strict=True):
            try:
                for line in watch.baseline(log.start):
                    say(line)
            except (FetchFailed, OwnFault) as error:
                failures += 1
                note(f"{log.name}: not followed yet: {error}", "red")
        return failures, not_followed(settings, monitor.trust.kept().root)
    finally:
        monitor.close()


def _config_text(tuf: str | None, tuf_root: Path | None, trusted_root: Path | None) -> str | None:
    """Configuration with the given source of keys, after a check of the named files; `None` without a source."""
    if trusted_root is not None:
        if tuf is not None or tuf_root is not None:
            raise BadConfig("--trusted-root takes the place of --tuf and --tuf-root: give one or the other.")
        try:
            with trusted_root.open("rb") as file:
                read_trust_root(file.read(MAX_SIZE + 1))
        except (OSError, OwnFault) as error:
            raise BadConfig(
                f"--trusted-root {trusted_root}: {error}. Nothing was written: name the trusted_root.json of your "
                "deployment (for ca-lite: DIR/trust/trusted_root.json)."
            ) from error
        return config_text(trusted_root=trusted_root.resolve())
    if tuf is None:
        if tuf_root is not None:
            raise BadConfig("--tuf-root needs --tuf with the URL of its repository.")
        return None
    from monitor.trust.tuf import first_root, repository_url

    url = repository_url(tuf)
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise BadConfig(f"--tuf {tuf!r:.200} is neither public-good nor staging nor the http(s) URL of a repository.")
    try:
        first_root(url, tuf_root)
    except OwnFault as error:
        raise BadConfig(f"--tuf {tuf}: {error} Nothing was written; give the root with --tuf-root FILE.") from error
    return config_text(tuf, tuf_root=tuf_root.resolve() if tuf_root is not None else None)


def _write_files(config: Path, watch: str | None, text: str | None) -> bool:
    """Write absent files; returns whether the configuration was absent. `text` is its content."""
    try:
        made = starter(watch) if watch is not None else Starter(RULES, "")
    except ValueError as error:
        raise BadConfig(f"--watch: {error}") from error
    is_new = not config.exists()
    folder = config.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if is_new:
            config.write_text(text or CONFIG, encoding="utf-8")
            say(f"wrote {config}")
        elif text is not None:
            note(f"{config} exists and was left as it is: change `trust` in it by hand.")
        rules_path = folder / "rules.yaml" if is_new else load_config(config).rules
        if not rules_path.exists():
            rules_path.write_text(made.text, encoding="utf-8")
            say(f"wrote {rules_path}")
            if made.told:
                note(made.told)
        elif watch is not None:
            note(f"{rules_path} exists and was left as it is; `signwatch rules init` prints a rule to add to it.")
    except OSError as error:
        raise OwnFault(
            f"{folder}: cannot write here: {error.strerror}. Choose another folder or make it writable."
        ) from error
    return is_new

"""`signwatch rules`: write, check, try and explain rules."""

import hashlib
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from alerts.alert import counted
from monitor.commands.entry_file import read_capped
from monitor.commands.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    Exit,
    leave,
    note,
)
from monitor.config import load_config
from monitor.model.errors import BadConfig
from rules.learning import learn
from rules.rekor_monitor import import_rekor_monitor
from rules.starter import Starter, learned, starter
from rules.subject import read_subject
from settings.document import DocumentError


def init_rule(
    subject: Annotated[
        str,
        typer.Argument(help="The URL of a repository or an organisation, an e-mail address, a key's SHA-256 or file."),
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    learn_past: Annotated[
        bool, typer.Option("--learn", help="Derive the expectations from the findings so far (needs a database).")
    ] = False,
) -> None:
    """Print a rule file for a name or key, and on standard error the signings that the rule will and will not report.

    Examples:
      signwatch rules init https://github.com/acme/widget > rules.yaml
      signwatch rules init https://github.com/acme/widget --learn > rules.yaml
      signwatch rules init https://github.com/acme
      signwatch rules init release@acme.example
      signwatch rules init cosign.pub
    """
    try:
        made = _learned(subject, config) if learn_past else starter(_key_of(subject) or subject)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="SUBJECT") from error
    typer.echo(made.text, nl=False)
    note(made.told)


def _learned(subject: str, config: Path) -> Starter:
    """A rule learned from the signings in the database. Raises `ValueError` when there are none."""
    # The database is slow to import, and no other command on rules needs it.
    from monitor.store.database import open_database  # noqa: PLC0415
    from monitor.store.signings import FindingsHistory, signings_once  # noqa: PLC0415

    named = read_subject(subject)
    with closing(open_database(load_config(config).database)) as database:
        found = signings_once(FindingsHistory(database).signings(named).shown)
    parts = learn(named, found)
    past = max((part.past for part in parts), default=0)
    if not past:
        raise ValueError(
            f"no signing in the name {named.title} was found yet: write a rule without --learn, and use --learn after "
            "`signwatch run` or `signwatch backscan` found its signings"
        )
    return learned(named, parts, past)


def _key_of(subject: str) -> str | None:
    """Hex SHA-256 of the public key in a PEM file; `None` where there is no such file. Raises `ValueError`."""
    path = Path(subject)
    if "://" in subject or "@" in subject or not path.is_file():
        return None
    key = load_pem_public_key(read_capped(path))
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def import_rules(
    file: Annotated[
        Path,
        typer.Argument(
            help="A rekor-monitor configuration, or a GitHub workflow that holds one (YAML).", dir_okay=False
        ),
    ],
) -> None:
    """Print a rule file made from a rekor-monitor configuration.

    The command names on standard error, with its line, each value that rekor-monitor watches and the rules do not,
    and then exits with 3. Comments at the top of the rule file name the other parts left out.

    Examples:
      signwatch rules import monitor-config.yaml > rules.yaml
      signwatch rules import .github/workflows/monitor.yml > rules.yaml
    """
    try:
        found = import_rekor_monitor(read_capped(file).decode("utf-8"), str(file))
    except (DocumentError, UnicodeDecodeError) as error:
        raise BadConfig(f"{error}\nNothing was imported.") from error
    typer.echo(found.text, nl=False)
    for problem in found.lost:
        note(f"{file}:{problem.line}:{problem.column}: {problem.message}", "yellow")
    if found.lost:
        note(f"{counted(len(found.lost), 'part')} of the configuration is not watched by these rules", "yellow")
        raise leave(Exit.UNFINISHED)

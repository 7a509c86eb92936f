"""`ca-lite users`: people who may sign in at the CA's own issuer."""

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from ca_lite.commands.shared import AsJson, Directory, errors, reported
from ca_lite.errors import ConfigError
from ca_lite.keys import now, read_limited
from ca_lite.settings import Layout, load_settings
from ca_lite.users import LONGEST, SHORTEST, User, add_user, changing, checked_email, folded, known_user, read_users
from ca_lite.users import set_disabled as changed
from ca_lite.users import set_password as renewed

_RFC3339: Final = "%Y-%m-%dT%H:%M:%SZ"
Email = Annotated[str, typer.Argument(help="E-mail address: the name in the person's certificates.", metavar="EMAIL")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(help="File with the password, - for standard input; asked for when left out.", metavar="FILE"),
]


@reported
def add(email: Email, *, directory: Directory, password_file: PasswordFile = None) -> None:
    """Add a person who may sign in with a password. A running server reads the change within a second.

    Example: ca-lite users add --dir ca mia@example.com
    """
    layout = _layout(directory)
    checked_email(email)  # before a password is asked for, and a lock file made
    password = _password(password_file)
    with changing(layout.users) as users:
        add_user(users, email, password, f"{now():{_RFC3339}}")
    _told(layout, f"{email.strip()} may sign in.")


@reported
def password(email: Email, *, directory: Directory, password_file: PasswordFile = None) -> None:
    """Set a person's new password.

    Example: ca-lite users password --dir ca mia@example.com
    """
    layout = _layout(directory)
    known_user(read_users(layout.users), email)
    given = _password(password_file)
    with changing(layout.users) as users:
        renewed(users, email, given)
    _told(layout, f"{email.strip()} has a new password.")


@reported
def disable(email: Email, *, directory: Directory) -> None:
    """Disable a person's sign-in, and keep the record. Certificates that exist stay valid for their ten minutes.

    Example: ca-lite users disable --dir ca mia@example.com
    """
    layout = _layout(directory)
    with changing(layout.users) as users:
        changed(users, email, disabled=True)
    _told(layout, f"{email.strip()} cannot sign in.")


@reported
def enable(email: Email, *, directory: Directory) -> None:
    """Let a disabled person sign in again.

    Example: ca-lite users enable --dir ca mia@example.com
    """
    layout = _layout(directory)
    with changing(layout.users) as users:
        changed(users, email, disabled=False)
    _told(layout, f"{email.strip()} may sign in.")


@reported
def remove(email: Email, *, directory: Directory) -> None:
    """Remove a person.

    Example: ca-lite users remove --dir ca mia@example.com
    """
    layout = _layout(directory)
    with changing(layout.users) as users:
        known_user(users, email)
        del users[folded(email)]
    _told(layout, f"{email.strip()} was removed.")


@reported
def list_users(*, directory: Directory, as_json: AsJson = False) -> None:
    """List the people who may sign in, and the disabled ones. No hash is shown.

    Example: ca-lite users list --dir ca --json
    """
    users = sorted(read_users(_layout(directory).users).values(), key=lambda user: folded(user.email))
    if as_json:
        shown = [{"email": each.email, "state": _state(each), "added": each.added} for each in users]
        print(json.dumps(shown, indent=2))  # noqa: T201
        return
    if not sys.stdout.isatty():
        for each in users:
            print(each.email, _state(each), each.added, sep="\t")  # noqa: T201
        return
    table = Table("e-mail", "state", "added")
    for each in users:
        table.add_row(each.email, _state(each), each.added)
    Console(markup=False).print(table)


def _state(user: User) -> str:
    return "disabled" if user.disabled else "enabled"


def _layout(directory: Path) -> Layout:
    layout = Layout(directory)
    # Reports a folder without a CA before the missing users.
    load_settings(layout)
    return layout


def _told(layout: Layout, done: str) -> None:
    errors.print(done, markup=False)
    if load_settings(layout).development_login:
        errors.print(
            "ca-lite: warning: the development login is on, which asks no user for a password; set "
            "`development_login: false` in ca.yaml and restart the server",
            style="yellow",
            markup=False,
        )


def _password(path: Path | None) -> str:
    try:
        if path is not None and str(path) != "-":
            return read_limited(path).decode().rstrip("\r\n")
        if path is not None or not sys.stdin.isatty():
            return sys.stdin.readline(LONGEST * 8).rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ConfigError("the password is not UTF-8 text") from error
    asked: str = typer.prompt(f"Password ({SHORTEST} characters or more)", hide_input=True, confirmation_prompt=True)
    return asked

"""`signwatch subscribers`: accounts of the site, for the operator. Each change is recorded with the operator's name."""

import getpass
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer
from rich.progress import track

from alerts.alert import counted
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, note, say, say_json, table
from monitor.config import load_config
from monitor.model.errors import BadConfig
from monitor.program import utc_now
from monitor.store.database import open_database
from monitor.store.destinations import suspended_hosts
from monitor.store.subscribers import Subscriber, Subscribers
from rules.asking import read_ask
from rules.subject import NotASubject, SubjectKind, read_subject
from settings.document import DocumentError

_PAGE: Final = 500
_MAX_LINE: Final = 64 * 1024
Who = Annotated[str, typer.Argument(help="The address, or the account's id.")]


def list_subscribers(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="How many at most.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List accounts with their subscriptions and destinations.

    Examples:
      signwatch subscribers list
      signwatch subscribers list --limit 100000 --json
    """
    with _subscribers(config) as subscribers:
        rows = [_line(subscribers, each) for each in _some(subscribers, limit)]
        total = subscribers.stats()["subscribers"]
    if as_json:
        say_json({"total": total, "subscribers": rows})
        return
    columns = ("id", "address", "subscriptions", "destinations", "suspended")
    table(columns, [[row[name] for name in columns] for row in rows])
    if total > len(rows):
        note(f"{len(rows)} of {counted(total, 'account')} shown; --limit {total} shows all of them")


def show(who: Who, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Show all stored data of one account, without secrets, as JSON. This is recorded.

    Examples:
      signwatch subscribers show mia@acme.example
    """
    with _subscribers(config) as subscribers:
        account = _account(subscribers, who)
        subscribers.record_action(_operator(), "show", account.id)
        say_json(_document(subscribers, account))


def suspend(
    who: Who,
    why: Annotated[str, typer.Option("--why", help="The reason, for the record.")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Send messages to the account again.")] = False,
) -> None:
    """Stop messages to an account and sign it out everywhere, or send messages again with --resume. This is recorded.

    Examples:
      signwatch subscribers suspend mia@acme.example --why "asked by phone"
      signwatch subscribers suspend mia@acme.example --resume
    """
    if not resume and not why:
        raise typer.BadParameter("give --why: the record of actions keeps the reason", param_hint="--why")
    with _subscribers(config) as subscribers:
        account = _account(subscribers, who)
        subscribers.suspend(account.id, "" if resume else why, _operator())
    say(f"{account.id}: {'is told again' if resume else 'is not told any more'}")


def delete(
    who: Who,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete an account and its address everywhere in the database. This is recorded by the account's id.

    Backups do not change.

    Examples:
    signwatch subscribers delete mia@acme.example --yes
    """
    with _subscribers(config) as subscribers:
        account = _account(subscribers, who)
        if not yes:
            typer.confirm("Delete the account with all its subscriptions?", abort=True)
        subscribers.delete(account.id, _operator())
    say(f"{account.id}: deleted")


def invite(address: Annotated[str, typer.Argument(help="The address.")], config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Let an address subscribe where `sign_up: invited` is set.

    Examples:
      signwatch subscribers invite mia@acme.example
    """
    with _subscribers(config) as subscribers:
        subscribers.invite(_address(address))
        subscribers.record_action(_operator(), "invite", "")
    say("invited")


def export(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    output: Annotated[Path | None, typer.Option("--output", help="The file; left out: standard output.")] = None,
) -> None:
    """Write every account as a line of JSON, for `import` into another installation, without secrets. This is recorded.

    Examples:
      signwatch subscribers export --output subscribers.jsonl
    """
    with _subscribers(config) as subscribers:
        subscribers.record_action(_operator(), "export", "")
        total = subscribers.stats()["subscribers"]
        lines = (json.dumps(_document(subscribers, each)) + "\n" for each in _some(subscribers, total + 1))
        if output is None:
            sys.stdout.writelines(lines)
            return
        with output.open("w", encoding="utf-8") as file:
            output.chmod(0o600)
            file.writelines(track(lines, "exporting", total=total, disable=not sys.stderr.isatty()))
    say(f"{counted(total, 'account')} written to {output}")


def bring(
    source: Annotated[
        Path, typer.Argument(help="The output of `export`: a line of JSON for each account.", dir_okay=False)
    ],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Import accounts with addresses that another installation confirmed.

    An existing account gets the parts that it lacks. This is recorded.

    Examples:
    signwatch subscribers import subscribers.jsonl
    """
    wrong, done = [], 0
    with _subscribers(config) as subscribers, _opened(source) as file:
        subscribers.record_action(_operator(), "import", "", str(source))
        for number, line in enumerate(track(file, "importing", disable=not sys.stderr.isatty()), 1):
            try:
                _bring_one(subscribers, line)
            except (ValueError, KeyError, TypeError, DocumentError) as error:
                wrong.append(f"line {number}: {type(error).__name__}: {error}")
            else:
                done += 1
    say(f"accounts that are there: {done}, wrong lines: {len(wrong)}")
    for sentence in wrong[:20]:
        say(sentence, "red")
    if wrong:
        raise leave(Exit.UNFINISHED)


def _opened(source: Path) -> TextIO:
    try:
        return source.open(encoding="utf-8")
    except OSError as error:
        raise BadConfig(f"{source}: cannot be read: {error.strerror}. Nothing was imported.") from error


def stats(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Count accounts, and the stages that subscriptions reached: asked, confirmed, told, bounced, left, suspended.

    `cut` counts exports of signings that ended before their last signing.

    The twenty receiving hosts with the most suspended or bouncing destinations come last: the first of them is
    probably down, or abused. With --json also the newest twenty actions of operators.

    Examples:
      signwatch subscribers stats
    """
    with _subscribers(config) as subscribers:
        found = subscribers.stats()
        hosts = suspended_hosts(subscribers.database, 20)
        actions = subscribers.actions(20)
    if as_json:
        shown = [{**each, "at": each["at"].isoformat()} for each in actions]
        say_json({**found, "hosts_in_trouble": dict(hosts), "actions": shown})
        return
    table(("what", "number"), [*found.items(), *((f"in trouble: {host}", number) for host, number in hosts)])


@contextmanager
def _subscribers(config: Path) -> Iterator[Subscribers]:
    settings = load_config(config)
    database = open_database(settings.database)
    try:
        yield Subscribers(database, utc_now)
    finally:
        database.close()


def _some(subscribers: Subscribers, limit: int) -> Iterator[Subscriber]:
    after, left = "", limit
    while left > 0 and (page := subscribers.all(min(left, _PAGE), after)):
        yield from page
        after, left = page[-1].id, left - len(page)


def _account(subscribers: Subscribers, who: str) -> Subscriber:
    found = subscribers.by_address(who) if "@" in who else subscribers.by_id(who)
    if found is None:
        raise typer.BadParameter("there is no such account", param_hint="WHO")
    return found


def _address(text: str) -> str:
    try:
        subject = read_subject(text)
    except NotASubject as error:
        raise typer.BadParameter(f"{error} {error.repair}".strip(), param_hint="ADDRESS") from error
    if subject.kind is not SubjectKind.EMAIL:
        raise typer.BadParameter("this is no e-mail address", param_hint="ADDRESS")
    return subject.text


def _operator() -> str:
    """Name of the user at the terminal, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _line(subscribers: Subscribers, account: Subscriber) -> dict[str, Any]:
    return {
        "id": account.id,
        "address": account.address,
        "subscriptions": len(subscribers.subscriptions(account.id)),
        "destinations": len(subscribers.destinations.of(account.id)),
        "suspended": account.suspended_why or None,
    }


def _document(subscribers: Subscribers, account: Subscriber) -> dict[str, Any]:
    return {
        "address": account.address,
        "confirmed_at": account.confirmed_at.isoformat(),
        "weekly_mail": account.weekly_due is not None,
        "suspended": account.suspended_why or None,
        "subscriptions": [
            {"name": each.subject, "title": each.title, "rule": json.loads(each.document)}
            for each in subscribers.subscriptions(account.id)
        ],
        "destinations": [
            {"kind": each.kind, "host": each.host, "state": each.state}
            for each in subscribers.destinations.of(account.id)
        ],
    }


def _bring_one(subscribers: Subscribers, line: str) -> None:
    if len(line) > _MAX_LINE:
        raise ValueError(f"longer than {_MAX_LINE // 1024} KiB")
    document = json.loads(line)
    subject = read_subject(document["address"])
    if subject.kind is not SubjectKind.EMAIL:
        raise ValueError("not an e-mail address")
    asks = [(read_ask(json.dumps(each["rule"])), each) for each in document["subscriptions"]]
    account = subscribers.ensure_account(subject.text)
    for ask, each in asks:
        subscribers.subscribe(account.id, ask, read_subject(each["name"]).text, str(each["title"])[:80])
    if not document.get("weekly_mail", True):
        subscribers.set_weekly(account.id, on=False)

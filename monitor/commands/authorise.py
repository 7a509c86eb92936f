"""`signwatch authorise`: say beforehand that one artifact will be signed, so that it is expected."""

from contextlib import closing
from datetime import datetime, timedelta
from typing import Annotated, Final

import typer

from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, JsonOption, say, say_json, table
from monitor.config import load_config
from monitor.judging.active_rules import read_rules
from monitor.program import utc_now
from monitor.store.database import open_database
from monitor.store.facts import Authorisations, DatabaseFacts
from monitor.store.reading import Reading
from rules.document import Misplaced, Scalar
from rules.facts import Authorisation
from rules.reading import read_duration
from rules.selection import normal_digest
from sigstore_entries.signing import EntryRef

_NO_ENTRY: Final = EntryRef("", -1)


def add(
    rule: Annotated[str, typer.Argument(help="The rule's id.")],
    digest: Annotated[str, typer.Argument(help="The artifact's digest, such as sha256:….")],
    count: Annotated[int, typer.Option("--count", min=1, max=1_000_000, help="How many signings are expected.")] = 1,
    within: Annotated[str, typer.Option("--for", help="How long it holds, such as 6h or 2d.")] = "24h",
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    why: Annotated[str, typer.Option("--note", help="What for.")] = "",
) -> None:
    """Authorise a number of signings of one digest under one rule, for a while.

    Examples:
      signwatch authorise add acme-release sha256:9f86d0… --count 1 --for 2h --note "release 1.4.2"
    """
    settings = load_config(config)
    known = [each.id for each in read_rules(settings.rules, settings.channels).rules]
    if rule not in known:
        raise typer.BadParameter(f"there is no rule {rule!r}; rules: {', '.join(known[:20])}", param_hint="RULE")
    try:
        leave_given = Authorisation(normal_digest(digest), count, utc_now() + _duration(within), why)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="DIGEST") from error
    with closing(open_database(settings.database)) as database:
        number = Authorisations(database).add(rule, leave_given, utc_now())
    say(f"authorisation {number}: {count} times {leave_given.digest} under {rule} until {_time(leave_given.expires)}")


def list_authorisations(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """List every authorisation ever given, with how much of it was used.

    Examples:
      signwatch authorise list
    """
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        facts = DatabaseFacts(database)
        given = Reading(database).authorisations(lambda rule, digest: facts.times_signed(rule, digest, _NO_ENTRY))
    now = utc_now()
    rows = [
        {
            "number": each.number,
            "rule": each.rule,
            "digest": each.digest,
            "count": each.count,
            "used": each.used,
            "expires": _time(each.expires),
            "state": "revoked" if each.revoked_at else "expired" if each.expires < now else "in force",
            "note": each.note,
        }
        for each in given
    ]
    if as_json:
        say_json({"authorisations": rows})
        return
    table(
        ("number", "rule", "digest", "count", "used", "expires", "state", "note"), [list(row.values()) for row in rows]
    )


def revoke(
    number: Annotated[int, typer.Argument(help="The authorisation's number.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """End an authorisation. What was signed under it stays as it was judged.

    Examples:
      signwatch authorise revoke 3
    """
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        found = Authorisations(database).revoke(number, utc_now())
    if not found:
        raise typer.BadParameter(f"no authorisation {number} is in force", param_hint="NUMBER")
    say(f"authorisation {number}: revoked")


def _duration(text: str) -> timedelta:
    try:
        return read_duration(Scalar(text, plain=True, line=0, column=0))
    except Misplaced as misplaced:
        raise typer.BadParameter(str(misplaced), param_hint="--for") from misplaced


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")

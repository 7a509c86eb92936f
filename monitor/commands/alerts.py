"""`signwatch alerts`: list alerts, test channels, acknowledge an alert, deliver again."""

import getpass
import secrets
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from alerts.alert import Alert, Owner, Severity, counted
from alerts.channels.channel import DeliveryFailed
from alerts.delivery import idempotency_key
from alerts.inert import inert_json, inert_line
from alerts.page import TEST
from alerts.rendering import Renderer, json_document
from monitor.commands.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    Exit,
    JsonOption,
    duration,
    leave,
    note,
    say,
    say_json,
    table,
    when,
)
from monitor.config import load_config
from monitor.daemon.alerting import build_channels, life_of, links_of
from monitor.judging.rule_file import read_rules
from monitor.program import utc_now
from monitor.raising.log_alerts import ALERT_KINDS, NEVER_SILENT
from monitor.store.alert_life import AlertLife, ChangeAuthor, NoSuchAlert
from monitor.store.database import open_database
from monitor.store.outbox import DatabaseOutbox, Silence, Silences
from monitor.store.patterns import Patterns, pattern_note
from monitor.store.reading import Reading
from rules.acknowledged import NoPattern

_SHORT_ID: Final = 12
_SENTENCE: Final = 500
AlertOption = Annotated[str, typer.Argument(help="The alert's id, or its beginning.", metavar="ID")]
NoteOption = Annotated[str, typer.Option("--note", help="The result of the investigation.")]
ByOption = Annotated[str | None, typer.Option("--by", help="The person who decides; your login name by default.")]


def list_alerts(
    config: ConfigOption = DEFAULT_CONFIG,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most this many.")] = 50,
    digest: Annotated[str | None, typer.Option("--digest", help="Only alerts of this digest.")] = None,
    silence: Annotated[int | None, typer.Option("--silence", help="Only alerts that this silence kept back.")] = None,
    *,
    open_only: Annotated[
        bool, typer.Option("--open", help="Only open alerts: not acknowledged, resolved or silenced.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List alerts, newest first, with their state and the state of each delivery.

    Examples:
      signwatch alerts list --open
      signwatch alerts list --digest digest-3f2a91 --limit 1000
    """
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        kept = Reading(database).alerts(limit, open_only=open_only, digest=digest, silence=silence)
    if as_json:
        say_json(
            {
                "alerts": [
                    json_document(each.alert, each.alert.id, links_of(settings))
                    | {
                        "enqueued_at": when(each.enqueued_at),
                        "acknowledged_at": when(each.acknowledged_at) if each.acknowledged_at else None,
                        "note": each.note,
                        "state": each.state,
                        "deliveries": dict(each.deliveries),
                        "errors": dict(each.errors),
                    }
                    for each in kept
                ]
            }
        )
        return
    rows = [
        (
            each.alert.id[:_SHORT_ID] if each.alert.id.isalnum() else each.alert.id,
            when(each.enqueued_at),
            each.alert.severity.value,
            each.state,
            each.alert.title,
            ", ".join(f"{channel}: {state}" for channel, state in each.deliveries.items()),
        )
        for each in kept
    ]
    table(("id", "at", "severity", "state", "title", "deliveries"), rows)


def show(alert: AlertOption, config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Show one alert whole, with its state and history.

    Examples:
      signwatch alerts show 3f2a
    """
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        life = life_of(settings, database)
        (kept,) = Reading(database).alerts(1, ids=[_found(life, alert)])
        changes = life.changes(kept.alert.id)
        if as_json:
            from monitor.daemon.alert_pages import alert_document

            say_json(alert_document(kept, life, links_of(settings)))
            return
    for line in Renderer(links=links_of(settings)).text(kept.alert, kept.alert.id).splitlines():
        say(line)
    say()
    say(f"This alert is {kept.state}.")
    for each in changes:
        say(f"  {each.kind} {when(each.at)} by {each.by}{f': {each.note}' if each.note else ''}")


def send_test(
    channels: Annotated[list[str] | None, typer.Argument(help="Channels to try; all by default.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Send a test alert straight to each channel, without the outbox. Exits 3 when a channel does not accept it.

    Examples:
      signwatch alerts test
      signwatch alerts test slack
    """
    settings = load_config(config)
    built = {channel.name: channel for channel in build_channels(settings)}
    if unknown := sorted(set(channels or ()) - set(built)):
        known = ", ".join(built) or "none"
        raise typer.BadParameter(f"there is no channel {unknown[0]!r}; channels: {known}", param_hint="CHANNELS")
    failures = 0
    for name in channels or built:
        alert, now = _test_alert(name), utc_now()
        try:
            built[name].send(alert, idempotency_key(alert.id, name), now)
        except DeliveryFailed as failed:
            failures += 1
            note(f"{name}: did not take it: {failed}. Alerts for this channel would wait and be tried again.", "red")
        else:
            note(f"{name}: took it", "green")
    raise leave(Exit.UNFINISHED if failures or not built else Exit.FINE)


def ack(
    alert: AlertOption,
    why: NoteOption = "",
    by: ByOption = None,
    ref: Annotated[
        str | None, typer.Option("--ref", help="With --pattern: any ref that matches this glob, such as refs/tags/v*.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    pattern: Annotated[
        bool, typer.Option("--pattern", help="Expect signings by an equal signer from now on, until it is revoked.")
    ] = False,
) -> None:
    """Record that a person has seen an alert. Channels that keep alerts open get the change.

    With --pattern, the rule expects later signings that are equal to this one: every name, the issuer and every
    lasting claim must be equal, and there may be no further reason against them. `signwatch alerts patterns` lists
    patterns.

    Examples:
      signwatch alerts ack 3f2a --note "rotated the token"
      signwatch alerts ack 3f2a --pattern --ref 'refs/tags/v*' --note "our release workflow"
    """
    who = ChangeAuthor(by or _user(), why)
    if pattern:
        who = _expect_like(config, alert, ref, who)
    elif ref is not None:
        raise typer.BadParameter("it widens the pattern that --pattern makes", param_hint="--ref")
    _change(config, alert, who, AlertLife.acknowledge, "acknowledged")


def _expect_like(config: Path, beginning: str, ref: str | None, who: ChangeAuthor) -> ChangeAuthor:
    """Store the pattern, and print the signings that it expects.

    Returns `who` with the pattern's number in the note.
    """
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        alert = _found(life_of(settings, database), beginning)
        try:
            kept = Patterns(database).add(alert, ref, who, utc_now())
        except NoPattern as error:
            raise typer.BadParameter(str(error), param_hint="--pattern") from error
    say(f"pattern {kept.number}: expected under the rule {kept.rule}, until `signwatch alerts revoke {kept.number}`:")
    for sentence in kept.pattern.sentences():
        say(f"  {inert_line(sentence, _SENTENCE)}")
    return ChangeAuthor(who.name, pattern_note(who.note, kept.number))


def patterns(
    rule: Annotated[str | None, typer.Option("--rule", help="Only of this rule.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """List patterns that were acknowledged, newest first, with what each expects.

    Examples:
      signwatch alerts patterns
      signwatch alerts patterns --rule alice-example.com --json
    """
    with closing(open_database(load_config(config).database)) as database:
        found = Patterns(database).all(rule=rule)
    if as_json:
        say_json({"patterns": [inert_json(each.document()) for each in found]})
        return
    rows = [
        (
            each.number,
            "revoked" if each.revoked_at else "in force",
            each.rule,
            when(each.created_at),
            each.by,
            "; ".join(inert_line(sentence, _SENTENCE) for sentence in each.pattern.sentences()),
        )
        for each in found
    ]
    table(("number", "state", "rule", "since", "by", "expected"), rows)


def revoke(
    number: Annotated[int, typer.Argument(help="The pattern's number.")],
    by: ByOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """End an acknowledged pattern: Signwatch reports later signings like it again.

    A running daemon applies this at once.

    Examples:
    signwatch alerts revoke 3
    """
    with closing(open_database(load_config(config).database)) as database:
        if not Patterns(database).revoke(number, ChangeAuthor(by or _user()), utc_now()):
            raise typer.BadParameter(f"no pattern {number} is in force", param_hint="NUMBER")
    say(f"pattern {number}: revoked")


def reopen(
    alert: AlertOption, why: NoteOption = "", by: ByOption = None, config: ConfigOption = DEFAULT_CONFIG
) -> None:
    """Open an alert again that was acknowledged, resolved or silenced.

    Examples:
      signwatch alerts reopen 3f2a --note "it was not us after all"
    """
    _change(config, alert, ChangeAuthor(by or _user(), why), AlertLife.reopen, "open again")


def resolve(
    alert: AlertOption, why: NoteOption = "", by: ByOption = None, config: ConfigOption = DEFAULT_CONFIG
) -> None:
    """Record that the condition of an alert is over. Channels that keep alerts open close it.

    Examples:
      signwatch alerts resolve 3f2a --note "the workflow is gone, the image is withdrawn"
    """
    _change(config, alert, ChangeAuthor(by or _user(), why), _resolve, "resolved")


def silence(  # noqa: PLR0917  each is an option of the command line
    within: Annotated[str, typer.Option("--for", help="Length of the silence, such as 6h or 2d; at most 31d.")],
    rule: Annotated[str | None, typer.Option("--rule", help="Alerts of this rule.")] = None,
    identity: Annotated[str | None, typer.Option("--identity", help="Alerts about this identity or key.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Alerts of this kind.")] = None,
    why: Annotated[str, typer.Option("--note", help="The reason of the silence.")] = "",
    by: ByOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Record alerts for a while without sending them to any channel; at the end, a warning gives their number.

    A silence covers an alert that meets all given options. It never covers misbehaviour of a log.

    Examples:
      signwatch alerts silence --rule acme-release --for 2h --note "we test the new workflow"
      signwatch alerts silence --kind log-unreachable --for 1d --note "network maintenance"
    """
    settings, now = load_config(config), utc_now()
    if rule is not None and rule not in {each.id for each in read_rules(settings.rules, settings.channels).rules}:
        raise typer.BadParameter(f"there is no rule {rule!r}", param_hint="--rule")
    if kind is not None and (kind not in ALERT_KINDS or kind in NEVER_SILENT):
        known = ", ".join(sorted(set(ALERT_KINDS) - NEVER_SILENT))
        raise typer.BadParameter(f"{kind!r} is no kind that can be silenced; kinds: {known}", param_hint="--kind")
    wanted = Silence(now + duration(within), by or _user(), why, rule, identity, kind)
    with closing(open_database(settings.database)) as database:
        try:
            number = Silences(database).add(wanted, now)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    say(f"silence {number}: until {when(wanted.expires)}; end it with `signwatch alerts unsilence {number}`")


def unsilence(
    number: Annotated[int, typer.Argument(help="The silence's number.")], config: ConfigOption = DEFAULT_CONFIG
) -> None:
    """End a silence early.

    Examples:
      signwatch alerts unsilence 3
    """
    with closing(open_database(load_config(config).database)) as database:
        if not Silences(database).end(number, utc_now()):
            raise typer.BadParameter(f"no silence {number} is in force", param_hint="NUMBER")
    say(f"silence {number}: ended")


def silences(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """List silences, newest first, with the number of alerts that each kept back.

    Examples:
      signwatch alerts silences
    """
    now = utc_now()
    with closing(open_database(load_config(config).database)) as database:
        found = Silences(database).all()
    rows = [
        {
            "number": each.number,
            "state": "ended" if each.ended_at else "over" if each.expires <= now else "in force",
            "rule": each.rule,
            "identity": each.identity,
            "kind": each.kind,
            "until": when(each.ended_at or each.expires),
            "silenced": each.silenced,
            "by": each.by,
            "note": each.note,
        }
        for each in found
    ]
    if as_json:
        say_json({"silences": rows})
        return
    table(tuple(rows[0]) if rows else ("number", "state"), [list(row.values()) for row in rows])


def replay(
    alert_id: Annotated[str | None, typer.Option("--alert", help="Only this alert.")] = None,
    channel: Annotated[str | None, typer.Option("--channel", help="Only to this channel.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Put deliveries that were given up back into the outbox; a running daemon sends them.

    Examples:
      signwatch alerts replay --channel slack
    """
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        count = DatabaseOutbox(database).replay(utc_now(), alert_id, channel)
    say(f"{counted(count, 'delivery')} will be tried again")


def _change(
    config: Path,
    beginning: str,
    who: ChangeAuthor,
    change: Callable[[AlertLife, str, ChangeAuthor, datetime], bool],
    done: str,
) -> None:
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        life = life_of(settings, database)
        alert = _found(life, beginning)
        changed = change(life, alert, who, utc_now())
    say(f"{alert}: {done}" if changed else f"{alert}: nothing to do, it is {done} already")


def _resolve(life: AlertLife, alert: str, who: ChangeAuthor, now: datetime) -> bool:
    return bool(life.resolve([alert], who, now))


def _found(life: AlertLife, beginning: str) -> str:
    try:
        return life.find(beginning)
    except NoSuchAlert as error:
        raise typer.BadParameter(f"{error}; see `signwatch alerts list`", param_hint="ID") from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "an operator"


def _test_alert(channel: str) -> Alert:
    return Alert(
        id=f"test-{secrets.token_hex(8)}",
        kind=TEST,
        owner=Owner.OURSELVES,
        severity=Severity.INFO,
        title=f"This is a test: channel {channel} works",
        summary="An operator ran `signwatch alerts test`. There was no signing, and no log misbehaved.",
        consequence="Alerts for this channel arrive here.",
        next_step="No step is needed. Real alerts begin with [page], [warn] or [info] and carry an id.",
        created_at=utc_now(),
    )

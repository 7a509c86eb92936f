"""`signwatch alerts`: look at alerts, try channels, say that an alert was seen, deliver again what was given up."""

import secrets
from contextlib import closing
from typing import Annotated

import typer
from sqlalchemy import select

from alerts.alert import Alert, Owner, Severity
from alerts.channels.channel import DeliveryFailed
from alerts.delivery import idempotency_key
from alerts.page import TEST
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, note, say, say_json, table
from monitor.config import load_config
from monitor.daemon.assembly import build_channels
from monitor.program import utc_now
from monitor.store.database import open_database
from monitor.store.outbox import DatabaseOutbox
from monitor.store.past import acknowledge
from monitor.store.reading import Reading
from monitor.store.tables import AlertRow
from monitor.store.tables import table as database_table


def list_alerts(
    config: ConfigOption = DEFAULT_CONFIG,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most this many.")] = 50,
    digest: Annotated[str | None, typer.Option("--digest", help="Only what this digest stood for.")] = None,
    *,
    open_only: Annotated[bool, typer.Option("--open", help="Leave out acknowledged ones.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List alerts, newest first, with what became of each delivery.

    Examples:
      signwatch alerts list --open
      signwatch alerts list --digest digest-3f2a91 --limit 1000
    """
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        kept = Reading(database).alerts(limit, open_only=open_only, digest=digest)
    if as_json:
        say_json(
            {
                "alerts": [
                    each.alert.to_json()
                    | {
                        "enqueued_at": each.enqueued_at.isoformat(),
                        "acknowledged_at": each.acknowledged_at.isoformat() if each.acknowledged_at else None,
                        "note": each.note,
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
            each.alert.id,
            f"{each.enqueued_at:%Y-%m-%d %H:%M}Z",
            each.alert.severity.value,
            each.alert.title,
            ", ".join(f"{channel}: {state}" for channel, state in each.deliveries.items()),
            "seen" if each.acknowledged_at else "open",
        )
        for each in kept
    ]
    table(("id", "at", "severity", "title", "deliveries", ""), rows)


def send_test(
    channels: Annotated[list[str] | None, typer.Argument(help="Channels to try; all by default.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Send a test alert straight to each channel, without the outbox. Exits 3 when one does not take it.

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
    alert_id: Annotated[str, typer.Argument(help="The alert's id, or its beginning.", metavar="ID")],
    why: Annotated[str | None, typer.Option("--note", help="What was found out.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Say that somebody has seen an alert.

    Examples:
      signwatch alerts ack 3f2a --note "rotated the token"
    """
    settings, kept = load_config(config), database_table(AlertRow)
    with closing(open_database(settings.database)) as database, database.write() as connection:
        found = connection.scalars(select(kept.c.id).where(kept.c.id.startswith(alert_id, autoescape=True))).all()
        if len(found) != 1:
            what = "no alert begins" if not found else f"{len(found)} alerts begin"
            raise typer.BadParameter(f"{what} with {alert_id!r}; see `signwatch alerts list`", param_hint="ID")
        acknowledge(connection, found[0], why, utc_now())
    say(f"{found[0]}: seen")


def replay(
    alert_id: Annotated[str | None, typer.Option("--alert", help="Only this alert.")] = None,
    channel: Annotated[str | None, typer.Option("--channel", help="Only to this channel.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Put deliveries that were given up back into the outbox; a running daemon delivers them.

    Examples:
      signwatch alerts replay --channel slack
    """
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        count = DatabaseOutbox(database).replay(utc_now(), alert_id, channel)
    say(f"{count} deliveries will be tried again")


def _test_alert(channel: str) -> Alert:
    return Alert(
        id=f"test-{secrets.token_hex(8)}",
        kind=TEST,
        owner=Owner.OURSELVES,
        severity=Severity.INFO,
        title=f"This is a test: channel {channel} works",
        summary="An operator ran `signwatch alerts test`. Nothing was signed and no log misbehaved.",
        consequence="Alerts for this channel arrive here.",
        next_step="Nothing. Real alerts begin with [page], [warn] or [info] and carry an id.",
        created_at=utc_now(),
    )

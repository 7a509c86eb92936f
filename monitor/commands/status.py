"""`signwatch status`: the state of every log, from the database, with or without a running daemon."""

from typing import Annotated, Any, Final

import typer

from alerts.alert import Severity, counted
from monitor.commands.running_daemon import DaemonState, ask_daemon
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, note, say, say_json, table
from monitor.config import Config, load_config
from monitor.daemon.disk import disk_document, disk_use
from monitor.daemon.status import read_status, status_document
from monitor.judging.coverage import rule_coverage
from monitor.judging.rule_file import read_rules
from monitor.program import utc_now
from monitor.store.coverage import RuleCoverage
from monitor.store.database import open_database
from monitor.store.reading import Followed, Reading
from monitor.store.store import Store

_SHOWN: Final = 20


def status(
    config: ConfigOption = DEFAULT_CONFIG,
    only: Annotated[
        list[str] | None,
        typer.Option("--rule", help="Also show the entries that this rule was offered; may be given again."),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show the position of every log, the entries that rules were not offered, and every fault.

    If a daemon runs on this configuration, the command asks it for further faults, at the address under `web`, for
    ten seconds at most. Exits 1 when evidence against a log is open or a log misbehaves now, 3 when the status is not
    green for another reason, such as a daemon that takes the connection and does not answer.

    Examples:
      signwatch status
      signwatch status --rule acme-release
      signwatch status --json | jq .logs
    """
    settings = load_config(config)
    database = open_database(settings.database)
    try:
        store = Store(database, clock=utc_now, route=lambda _alert: settings.notify)
        passes = (each.last_pass_at for each in store.health.all().values())
        daemon = ask_daemon(settings, max((at for at in passes if at is not None), default=None))
        found = read_status(settings, store, utc_now(), () if daemon is None else daemon.reasons)
        use = disk_use(settings, store, utc_now())
        document = status_document(found, store) | {"disk": disk_document(use)}
        document["daemon"] = None if daemon is None else daemon.document()
        followed = Reading(database).followed()
        asked = _asked_for(settings, store, followed, only)
    finally:
        database.close()
    rules = [_rule_row(each, followed[each.log]) for each in asked]
    if as_json:
        say_json(document | ({"rules_asked_for": rules} if only else {}))
    else:
        _show(document)
        if use is not None:
            say(use.line)
        if rules:
            table(
                ("rule", "log", "offered", "not offered"),
                [(r["rule"], r["log"], _spans(r), r["not_offered"]) for r in rules],
            )
        for reason in found.reasons:
            note(reason, "red")
        if daemon is not None and daemon.state is DaemonState.STRANGER:
            note(daemon.detail, "yellow")
    if found.misbehaved:
        raise leave(Exit.MISBEHAVED)
    raise leave(Exit.FINE if found.ready else Exit.UNFINISHED)


def _show(document: dict[str, Any]) -> None:
    rows = [
        (log["name"], log["verified_size"], log["lag_entries"], log["last_success"], _covered(log), _trouble(log))
        for log in document["logs"]
    ]
    table(("log", "verified", "still to read", "last success", "rules not covered", "trouble"), rows)
    least = sorted(
        ((each, log) for log in document["logs"] if log["coverage"] for each in log["coverage"]["least_covered"]),
        key=lambda found: (-found[0]["entries_not_covered"], found[0]["rule"]),
    )
    if least:
        shown = [(each["rule"], log["name"], _spans(each), each["entries_not_covered"]) for each, log in least[:_SHOWN]]
        table(("least covered rule", "log", "offered", "not offered"), shown)
        more = sum(log["coverage"]["rules_not_covered"] for log in document["logs"] if log["coverage"]) - len(shown)
        if more > 0:
            say(f"and {more} more")
    for log in document["logs"]:
        if (scan := log["back_scan"]) is not None:
            trouble = scan["trouble"]
            told = f": {trouble['owner']} since {trouble['since']}: {trouble['detail']}" if trouble else ""
            rate = f", {scan['entries_per_second']} a second" if scan["entries_per_second"] else ""
            say(f"looking back in {log['name']}: {counted(scan['entries_left'], 'entry')} left{rate}{told}")
    rules = document["rules"]
    if rules is not None and rules["unindexed"]:
        say(f"rules: {rules['in_force']} in force, {rules['unindexed']} of them asked about every entry: "
            f"{', '.join(rules['unindexed_rules'])}")  # fmt: skip
    for name, matches in document["not_looked_at"]["matches_dropped"].items():
        note(f"{name}: {counted(matches, 'match')} left out: more rules selected an entry than are judged", "yellow")
    _show_canary(document["canary"])
    _show_alerts(document)
    counts = document["findings"]["by_outcome"]
    say(f"findings: {counts.get('unexpected', 0)} unexpected, {counts.get('unverified', 0)} unverified, "
        f"{counts.get('expected', 0)} expected")  # fmt: skip


def _show_canary(canary: dict[str, Any] | None) -> None:
    if canary is None:
        return
    newest, seen = canary["newest"], canary["last_seen"]
    if newest is None:
        say("canary: has not signed yet")
        return
    last = f"last seen at {seen['seen']}" if seen else "never seen"
    if seen and seen["latency_seconds"] is not None:
        last += f", {counted(seen['latency_seconds'], 'second')} after it was logged"
    trouble = f"; {newest['result']}: {newest['detail']}" if newest["detail"] else ""
    say(f"canary: {last}{trouble}", "red" if trouble else "")


def _show_alerts(document: dict[str, Any]) -> None:
    """Unacknowledged alerts: all of them counted, the newest named."""
    counts = {severity: count for severity, count in document["alerts_open"].items() if count}
    if not counts:
        return
    told = ", ".join(f"{count} {severity}" for severity, count in counts.items())
    say(f"open alerts: {told}", "bold red" if counts.get(Severity.PAGE.value) else "yellow")
    rows = [(each["id"][:12], each["at"], each["severity"], each["title"]) for each in document["open_alerts"]]
    table(("open alert", "at", "severity", "title"), rows)


def _asked_for(
    settings: Config, store: Store, followed: dict[str, Followed], only: list[str] | None
) -> list[RuleCoverage]:
    if not only:
        return []
    selections = {rule.id: rule.selection_id() for rule in read_rules(settings.rules).rules}
    if unknown := sorted(set(only) - set(selections)):
        raise typer.BadParameter(f"{settings.rules}: there is no rule {unknown[0]!r}", param_hint="--rule")
    return rule_coverage(store, followed, selections, only)


def _rule_row(rule: RuleCoverage, followed: Followed) -> dict[str, Any]:
    size = followed.position.frontier.size
    return {
        "rule": rule.rule,
        "log": rule.log,
        "covered": [list(span) for span in rule.ranges],
        "not_offered": sum(last - first for first, last in rule.missing(followed.baseline_size, size)),
    }


def _spans(document: dict[str, Any]) -> str:
    return ", ".join(f"{first} to {last}" for first, last in document["covered"]) or "nothing"


def _covered(log: dict[str, Any]) -> str:
    coverage = log["coverage"]
    if coverage is None or not coverage["rules_not_covered"]:
        return "-"
    return f"{coverage['rules_not_covered']} of {coverage['rules']}"


def _trouble(log: dict[str, Any]) -> str:
    trouble = log["trouble"]
    if isinstance(trouble, dict):
        return f"{trouble['owner']} since {trouble['since']}: {trouble['detail']}"
    return "stale" if log["stale"] else "-"

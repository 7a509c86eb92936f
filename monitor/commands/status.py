"""`signwatch status`: where every log stands, from the database, whether or not a daemon runs."""

from monitor.assembly import utc_now
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, note, say, say_json, table
from monitor.config import load_config
from monitor.status import read_status, status_document
from monitor.store.database import open_database
from monitor.store.store import Store


def status(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Show where every log stands and what is wrong. Exits 3 when it is not all green.

    Examples:
      signwatch status
      signwatch status --json | jq .logs
    """
    settings = load_config(config)
    database = open_database(settings.database)
    try:
        store = Store(database, clock=utc_now, route=lambda _alert: settings.notify)
        found = read_status(settings, store, utc_now())
        document = status_document(found, store)
    finally:
        database.close()
    if as_json:
        say_json(document)
    else:
        rows = [
            (log["name"], log["verified_size"], log["lag_entries"], log["last_success"], _trouble(log))
            for log in document["logs"]
        ]
        table(("log", "verified", "still to read", "last success", "trouble"), rows)
        counts = document["findings"]["by_outcome"]
        say(f"findings: {counts.get('unexpected', 0)} unexpected, {counts.get('unverified', 0)} unverified, "
            f"{counts.get('expected', 0)} expected")  # fmt: skip
        for reason in found.reasons:
            note(reason, "red")
    raise leave(Exit.FINE if found.ready else Exit.UNFINISHED)


def _trouble(log: dict[str, object]) -> str:
    trouble = log["trouble"]
    if isinstance(trouble, dict):
        return f"{trouble['owner']} since {trouble['since']}: {trouble['detail']}"
    return "stale" if log["stale"] else "-"

"""`signwatch fsck` and `signwatch migrate`: the state, checked and brought up to date."""

from contextlib import closing

from alerts.alert import counted
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, note, say, say_json
from monitor.config import load_config
from monitor.model.errors import OwnFault
from monitor.program import VERSION, utc_now
from monitor.store.database import NoDatabase, create, open_database, sqlite_path
from monitor.store.fsck import fsck as check
from monitor.store.tables import SCHEMA


def fsck(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Recompute every value of the database that follows from others, and print the differences.

    Exits 3 if there are any.

    Examples:
    signwatch fsck
    """
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        problems = check(database)
    if as_json:
        say_json({"sound": not problems, "problems": problems})
    else:
        for problem in problems:
            say(problem, "red")
        say(
            "the state is sound"
            if not problems
            else f"{counted(len(problems), 'problem')}: restore the database from a backup"
        )
    raise leave(Exit.UNFINISHED if problems else Exit.FINE)


def migrate(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Bring an older database to this version's schema. Make a backup first; `signwatch run` never does this by itself.

    Examples:
      signwatch migrate
    """
    settings = load_config(config)
    path = sqlite_path(settings.database)
    if path is not None and not path.exists():
        raise NoDatabase(f"{path}: there is no database to migrate; run `signwatch init` for a first start.")
    try:
        create(settings.database, utc_now(), VERSION).close()
    except OwnFault:
        note("nothing was changed")
        raise
    say(f"the database has schema {SCHEMA}")

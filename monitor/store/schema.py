"""Alembic's part of the database: imported only where a schema is made or is not the one this program writes."""

from functools import cache
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def upgrade(connection: Connection) -> None:
    """Bring the schema to the newest revision."""
    command.upgrade(_config(connection), "head")


@cache
def revisions() -> tuple[str, frozenset[str]]:
    """Newest revision, and all revisions. Read once, because the scripts are part of the program."""
    scripts = ScriptDirectory.from_config(_config())
    return str(scripts.get_current_head()), frozenset(script.revision for script in scripts.walk_revisions())


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config

"""Runs migrations on the connection handed over: always from inside the program, never from an ini file."""

from alembic import context

from monitor.store import site_tables, tables  # noqa: F401  declare their tables
from monitor.store.sql import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()

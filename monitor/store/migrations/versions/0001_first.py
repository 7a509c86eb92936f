"""The first schema.

Until the first release it is the tables as `monitor.store.tables` declares them: no database of an earlier state exists
outside development. The release writes the operations out, and from then on each change is a migration of its own.
"""

from alembic import op

from monitor.store import site_tables, tables  # noqa: F401  declare their tables
from monitor.store.sql import Base

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table and index."""
    Base.metadata.create_all(op.get_bind())

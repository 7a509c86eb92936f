"""Rates are counted over signings that belong to the past, and the index holds only those.

Anybody can log certificates of his own making with any time in them; counting a rate must not read past each of them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index anew."""
    counted = sa.and_(sa.column("counts", sa.Boolean).is_(True), sa.column("certificate_log", sa.Boolean).is_(False))
    op.drop_index("finding_rate", "finding")
    op.create_index("finding_rate", "finding", ["rule", "signed_at"], sqlite_where=counted, postgresql_where=counted)

"""Certificates of findings, to know one that two logs show for the same."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table. Findings of before stay without: they were alerted long ago."""
    op.create_table(
        "finding_certificate",
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.Column("log", sa.Text(), nullable=False),
        sa.Column("entry", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("rule", "certificate", "log", "entry"),
    )

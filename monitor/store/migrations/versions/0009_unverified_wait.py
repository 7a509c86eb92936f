"""Findings that nobody vouches for wait for another authority: those of before are made to."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# 9999-12-31 in microseconds since 1970, as `monitor.store.rechecks` keeps a wait that only another authority ends.
_OTHER_AUTHORITY = 253402214400000000


def upgrade() -> None:
    """Add the rows."""
    op.execute(
        sa.text(
            "INSERT INTO recheck (log, entry, rule, due_at, extra) "
            "SELECT log, entry, rule, :due, :extra FROM finding WHERE outcome = 'unverified' "
            "AND NOT EXISTS (SELECT 1 FROM recheck AS r "
            "WHERE r.log = finding.log AND r.entry = finding.entry AND r.rule = finding.rule)"
        ).bindparams(sa.bindparam("due", _OTHER_AUTHORITY), sa.bindparam("extra", b"", sa.LargeBinary()))
    )

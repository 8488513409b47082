"""What orgs.commands lost before it was read, and where the commands lie that were answered with 202.

Revision ID: 0008
Revises: 0007
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"

_COORDINATES: Final = ("partition", "offset")


def upgrade() -> None:
    """Make the table and add the columns, null in the rows that are there."""
    op.create_table(
        "lost_range",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("topic_id", sa.Uuid, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("from_offset", sa.BigInteger, nullable=False),
        sa.Column("to_offset", sa.BigInteger),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("noticed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="lost_range_pkey"),
        sa.UniqueConstraint(
            "topic", "topic_id", "partition", "from_offset", "to_offset", "why", name="lost_range_what_key",
            postgresql_nulls_not_distinct=True,
        ),
        sa.CheckConstraint("why IN ('expired', 'truncated', 'recreated')", name="lost_range_why_check"),
    )  # fmt: skip
    op.add_column("accepted_command", sa.Column("partition", sa.Integer))
    op.add_column("accepted_command", sa.Column("offset", sa.BigInteger))
    op.execute("GRANT SELECT, INSERT ON lost_range TO orgs_worker")
    op.execute("GRANT SELECT ON lost_range TO orgs_edge, orgs_reader")
    op.execute('GRANT UPDATE ("partition", "offset", accepted_at) ON accepted_command TO orgs_edge')


def downgrade() -> None:
    """Take it back; nobody knows any more what was lost."""
    op.execute('REVOKE UPDATE ("partition", "offset", accepted_at) ON accepted_command FROM orgs_edge')
    for column in _COORDINATES:
        op.drop_column("accepted_command", column)
    op.drop_table("lost_range")

"""Moments that operators name.

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"


def upgrade() -> None:
    """Make the table; and let operators see who serves whom, which an undo foresees rejections by."""
    op.create_table(
        "mark",
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("topics", JSONB, nullable=False),
        sa.Column("groups", JSONB, nullable=False),
        sa.Column("marked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("marked_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="mark_pkey"),
    )
    op.execute("GRANT SELECT, INSERT, DELETE ON mark TO orgs_operate")
    op.execute("GRANT SELECT ON mark TO orgs_reader")
    op.execute("GRANT SELECT ON partnership TO orgs_operate")


def downgrade() -> None:
    """Drop the table, and with it all marks."""
    op.execute("REVOKE SELECT ON partnership FROM orgs_operate")
    op.drop_table("mark")

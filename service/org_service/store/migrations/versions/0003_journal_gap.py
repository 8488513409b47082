"""The holes in the journal that an operator accepted.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    """Make the table. Whoever reads the journal reads it; nobody but the owner writes it."""
    op.create_table(
        "journal_gap",
        sa.Column("first_position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("last_position", sa.BigInteger, nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("first_position", name="journal_gap_pkey"),
        sa.CheckConstraint("first_position <= last_position", name="journal_gap_last_position_check"),
    )
    op.execute("GRANT SELECT ON journal_gap TO orgs_worker, orgs_relay, orgs_edge, orgs_reader")


def downgrade() -> None:
    """Drop the table: its holes are unknown again, and stop whoever reads the journal from before them."""
    op.drop_table("journal_gap")

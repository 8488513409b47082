"""Who is signed in to the operators' page, and what they did there (decision 0048).

Revision ID: 0018
Revises: 0017
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"


def upgrade() -> None:
    """Make both tables. What was done can be added to and read, by nobody but the owner changed.

    The index finds deleted organizations by their whole name, which a search does while somebody types.
    """
    op.create_table(
        "console_ticket",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="console_ticket_pkey"),
        sa.CheckConstraint("kind IN ('link', 'session')", name="console_ticket_kind_check"),
    )
    op.create_index("console_ticket_expires_at_idx", "console_ticket", ["expires_at"])
    op.create_table(
        "console_act",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("act", sa.Text, nullable=False),
        sa.Column("operation_id", sa.Uuid, nullable=True),
        sa.Column("acted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="console_act_pkey"),
        sa.CheckConstraint(
            "act IN ('signed_in', 'signed_out', 'approved', 'run', 'paused', 'cancelled', 'revealed')",
            name="console_act_act_check",
        ),
    )
    op.create_index("console_act_operation_id_idx", "console_act", ["operation_id"])
    op.create_index(
        "organization_deleted_name_idx",
        "organization",
        [sa.text("lower(name)")],
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    op.execute("GRANT SELECT, INSERT, DELETE ON console_ticket TO orgs_operate")
    op.execute("GRANT SELECT, INSERT ON console_act TO orgs_operate")
    op.execute("GRANT SELECT ON console_act TO orgs_reader")


def downgrade() -> None:
    """Drop all: everybody is signed out, and what was done is known from `operation` alone."""
    op.drop_index("organization_deleted_name_idx", "organization")
    op.drop_table("console_act")
    op.drop_table("console_ticket")

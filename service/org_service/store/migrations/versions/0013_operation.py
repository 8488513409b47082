"""What operators plan and run.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"


def upgrade() -> None:
    """Make the table. Operators read what a reader reads."""
    op.create_table(
        "operation",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("parameters", JSONB, nullable=False),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("items", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("facts", JSONB, nullable=False),
        sa.Column("sample", JSONB, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("asked_for", sa.Text),
        sa.Column("detached", sa.Boolean, nullable=False),
        sa.Column("progress", JSONB(none_as_null=True)),
        sa.Column("done", sa.BigInteger, nullable=False),
        sa.Column("counts", JSONB, nullable=False),
        sa.Column("rate_per_second_max", sa.Double),
        sa.Column("runner", sa.Text),
        sa.Column("leased_until", sa.DateTime(timezone=True)),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="operation_pkey"),
        sa.CheckConstraint(
            "state IN ('planned', 'running', 'paused', 'done', 'failed', 'cancelled')", name="operation_state_check"
        ),
        sa.CheckConstraint("reason <> '' OR state = 'planned'", name="operation_reason_check"),
    )
    op.create_index(
        "operation_resource_key",
        "operation",
        ["resource"],
        unique=True,
        postgresql_where=sa.text("state IN ('running', 'paused')"),
    )
    op.create_index("operation_created_at_idx", "operation", ["created_at"])
    op.execute("GRANT SELECT, INSERT, UPDATE ON operation TO orgs_operate")
    op.execute("GRANT SELECT ON operation TO orgs_reader")
    op.execute("GRANT SELECT ON organization, journal, journal_head, journal_gap, parked, lost_range TO orgs_operate")
    op.execute("GRANT SELECT ON alembic_version, schema_version TO orgs_operate")


def downgrade() -> None:
    """Drop the table, and with it the record of what was done."""
    op.drop_table("operation")
    op.execute("REVOKE SELECT ON alembic_version, schema_version FROM orgs_operate")
    op.execute(
        "REVOKE SELECT ON organization, journal, journal_head, journal_gap, parked, lost_range FROM orgs_operate"
    )
